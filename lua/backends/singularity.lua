-- SPDX-License-Identifier: MIT
-- Instances of Apptainer or Singularity on this machine, from an image file, a directory or a URI.
-- Nothing of the machine is inside but what is bound. In an instance that is only attached to there
-- is no supervisor of ours: its execs are lines for sh, and the layer above kills what they leave.

local cjson = require("cjson.safe")
local command = require("farcall.clients.command")
local command_service = require("farcall.clients.command_service")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local hex = require("farcall.hex")
local system = require("farcall.core.system")

local INSTALL = "install Apptainer or singularity-ce, or set the option program to where it is"
local NO_CGROUPS = "limits need cgroups that this user may use: see docs/backends/singularity.md"
local NO_NETWORK = "a network of its own needs root or `allow net users` in the configuration of "
  .. "the program; leave the option network on"
local REFUSALS = {
  { "already exists", "denied", exists = true, hint = "another environment has this name" },
  { "no instance found", "lost", gone = true, hint = "it was stopped from outside" },
  { "cgroup", "unsupported", hint = NO_CGROUPS },
  { "lookup .*no such host", "unavailable" },
  { "unable to pull", "unavailable" },
  { "unable to handle", "unavailable" },
  { "no such file or directory", "not_found", hint = "see the options image, binds and overlay" },
  { "image format not recognized", "config", hint = "not an image file or directory" },
  { "network.*permi", "denied", hint = NO_NETWORK },
  { "namespace.*not permitted", "denied", hint = "see docs/backends/singularity.md" },
}
-- Of the operator's variables what is about images and the set-up, not about what is bound.
local SETUP = {
  "CACHEDIR", "CONFIGDIR", "TMPDIR", "DROP_CAPS", "DOCKER_USERNAME", "DOCKER_PASSWORD",
}
local MAX_ENVIRON = 1024 * 1024

---@type farcall.Backend
local backend = {
  name = "singularity",
  summary = "an instance of Apptainer or Singularity on this machine",
  api = 1,
  options = {
    image = { type = "string", doc = "image file, directory or URI (docker://debian:12)" },
    attach = { type = "string", doc = "name of a running instance to use instead" },
    program = { type = "string", doc = "the program; apptainer or else singularity unless set" },
    binds = { type = "list", doc = "of this machine, as PATH, PATH:THERE or PATH:THERE:ro" },
    overlay = { type = "path", doc = "directory or image that keeps what is written; else lost" },
    read_only = { type = "boolean", default = false, doc = "nothing but /tmp can be written" },
    privileges = {
      type = "boolean", default = false, doc = "root's capabilities inside, when root runs farcall",
    },
    network = { type = "boolean", default = true, doc = "the network of this machine, or none" },
    memory = { type = "size", doc = "largest memory of the instance" },
    cpus = { type = "number", doc = "processors of the instance" },
    env = { type = "map", doc = "variables to set" },
    cwd = { type = "path", default = "/tmp", doc = "where commands start, inside" },
    grace = { type = "seconds", default = 2, doc = "between TERM and KILL" },
    start_timeout = {
      type = "seconds", default = 600, doc = "for the start, in which an image may be fetched",
    },
  },
  caps = command.CAPS,
}

function backend.check(options)
  if (options.image == nil) == (options.attach == nil) then
    return false, "one of image and attach is needed, and not both"
  end
  if options.overlay and options.read_only then
    return false, "overlay and read_only exclude each other"
  end
  return true
end

-- The instances of this user: name -> what the program tells of it.
---@async
local function instances(self)
  local result, err = self:call("list instances", { "--silent", "instance", "list", "--json" })
  if not result then
    return nil, err
  end
  local document = cjson.decode(result.stdout)
  if type(document) ~= "table" or type(document.instances) ~= "table" then
    return nil, errors.new("protocol", "list instances", "the program's answer is not understood")
  end
  local found = {}
  for _, entry in ipairs(document.instances) do
    found[entry.instance] = entry
  end
  return found
end

---@async
local function remove(self, name)
  local found, err = instances(self)
  if not found then
    return nil, err
  end
  local entry = found[name]
  if not entry then
    return true
  end
  local stopped
  stopped, err = self:call("stop " .. name, { "--silent", "instance", "stop", "--force", name })
  found = instances(self)
  if not stopped and not (found and not found[name]) then
    return nil, err
  end
  -- The program leaves them.
  for _, log in ipairs({ "logOutPath", "logErrPath" }) do
    if type(entry[log]) == "string" then
      fs.unlink(entry[log])
    end
  end
  return true
end

-- Labels travel as a variable of the instance, in words that no layer in between can mistake.
local function encoded(labels)
  return hex.encode(cjson.encode(labels or {}))
end

local function labels_of(entry)
  local environ = fs.read(("/proc/%d/environ"):format(entry.pid), MAX_ENVIRON)
  local coded = environ and environ:match('"FARCALL_LABELS":"(%x+)"')
  local text = coded and coded:gsub("%x%x", function(digits)
    return string.char(tonumber(digits, 16))
  end)
  return text and cjson.decode(text) or nil
end

-- The program is started in /.
local function absolute(path)
  if path:find("://", 1, true) then
    return path
  end
  return fs.realpath(path) or path:sub(1, 1) ~= "/" and system.cwd() .. "/" .. path or path
end

-- An ordinary user has none.
local function no_privileges(options)
  return system.uid() == 0 and not options.privileges and "--no-privs"
end

local function create(options, ctx)
  local argv = {
    "--silent", "instance", "start", "--containall", "--no-home", "--cleanenv",
    "--bind", ctx.supervisor .. ":" .. command.SUPERVISOR .. ":ro",
  }
  local function add(...)
    command.add(argv, ...)
  end
  for _, bind in ipairs(options.binds or {}) do
    add("--bind", bind)
  end
  if options.overlay then
    add("--overlay", absolute(options.overlay))
  elseif not options.read_only then
    add("--writable-tmpfs")
  end
  add(no_privileges(options))
  if not options.network then
    add("--net", "--network", "none")
  end
  if options.memory then
    add("--memory", ("%.0f"):format(options.memory))
  end
  if options.cpus then
    add("--cpus", ("%g"):format(options.cpus))
  end
  add("--env", "FARCALL_LABELS=" .. encoded(ctx.labels), absolute(options.image), ctx.name)
  return argv
end

---@async
local function list(self)
  local found, err = instances(self)
  if not found then
    return nil, err
  end
  local ours = {}
  for name, entry in pairs(found) do
    if name:find("^farcall%-") then
      ours[#ours + 1] = { name = name, labels = labels_of(entry) }
    end
  end
  return ours
end

local DESCRIPTION = {
  programs = function(options)
    return options.program and { options.program } or { "apptainer", "singularity" }
  end,
  install = INSTALL, setup = {}, refusals = REFUSALS, variables = { HOME = "/tmp" },
  create = create, remove = remove, list = list,
  enter = function(name, options)
    local argv = { "--silent", "exec", "--cleanenv" }
    command.add(argv, no_privileges(options), "instance://" .. name)
    return argv
  end,
}
for _, name in ipairs(SETUP) do
  command.add(DESCRIPTION.setup, "APPTAINER_" .. name, "SINGULARITY_" .. name)
end
command_service.equip(backend, DESCRIPTION)

---@async
---@param options table
---@param ctx farcall.BackendContext
---@return farcall.Env?
---@return farcall.Error? err
function backend.open(options, ctx)
  local service, err = command_service.new(DESCRIPTION, options, ctx)
  if not service then
    return nil, err
  elseif not options.attach then
    return service:open(options, ctx)
  end
  local found
  found, err = instances(service)
  if not found then
    return nil, err
  elseif not found[options.attach] then
    return nil, errors.new("not_found", "attach " .. options.attach, "no such instance is running",
      { hint = "`apptainer instance list` shows them" })
  end
  return service:open(options, ctx, options.attach)
end

return backend

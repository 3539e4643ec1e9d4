-- SPDX-License-Identifier: MIT
-- A container of Podman on this machine: no capabilities, no new privileges, no network, bounded
-- memory, processors and processes, unless told otherwise. (Podman's service behind a socket speaks
-- Docker's language: for that, and for containers that exist already, there is the backend docker.)

local binds = require("farcall.binds")
local cjson = require("cjson.safe")
local command = require("farcall.clients.command")
local command_service = require("farcall.clients.command_service")

local REFUSALS = {
  { "already in use", "denied", exists = true, hint = "another environment has this name" },
  { "no such container", "lost", gone = true, hint = "it was removed from outside" },
  { "no container with name", "lost", gone = true, hint = "it was removed from outside" },
  { "container state improper", "lost", gone = true, hint = "it was stopped from outside" },
  { "short%-name", "not_found", hint = "the image is not here; to be fetched it needs its registry "
    .. "in front, docker.io/library/debian for example" },
  { "manifest unknown", "not_found", hint = "see the option image" },
  { "pinging container registry", "unavailable", hint = "the image is not here" },
}

-- Process 1 only has to stay and to reap.
local STAY = [=[["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"]]=]

---@type farcall.Backend
local backend = {
  name = "podman",
  summary = "a container of Podman on this machine",
  api = 1,
  options = {
    image = { type = "string", required = true, doc = "image; fetched when it is not here" },
    program = { type = "string", default = "podman", doc = "the program" },
    network = { type = "string", default = "none", doc = "none, host, or a network of Podman" },
    binds = { type = "list", doc = "of this machine, as PATH:THERE or PATH:THERE:ro" },
    memory = { type = "size", default = 2 * 2 ^ 30, doc = "memory and swap; 0: unbounded" },
    cpus = { type = "number", default = 2, doc = "processors, in fractions too; 0: unbounded" },
    pids = { type = "integer", default = 512, doc = "processes and threads; 0: unbounded" },
    cap_add = { type = "list", doc = "capabilities to leave it; all others are dropped" },
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
  return binds.check(options.binds)
end

local function create(options, ctx)
  local words = {
    "run", "--detach", "--name", ctx.name, "--network", options.network,
    "--cap-drop", "all", "--security-opt", "no-new-privileges",
    "--pids-limit", ("%d"):format(options.pids), "--cpus", ("%g"):format(options.cpus),
    "--entrypoint", STAY, "--volume", ctx.supervisor .. ":" .. command.SUPERVISOR .. ":ro",
  }
  for label, value in pairs(ctx.labels or {}) do
    command.add(words, "--label", label .. "=" .. value)
  end
  for _, bind in ipairs(options.binds or {}) do
    command.add(words, "--volume", bind)
  end
  for _, capability in ipairs(options.cap_add or {}) do
    command.add(words, "--cap-add", capability)
  end
  if options.memory > 0 then
    local bytes = ("%.0fb"):format(options.memory)
    command.add(words, "--memory", bytes, "--memory-swap", bytes)
  end
  command.add(words, options.image)
  return words
end

---@async
local function remove(service, name)
  local removed, err = service:call("remove " .. name,
    { "rm", "--force", "--ignore", "--volumes", "--time", "0", name })
  return removed and true or nil, err
end

---@async
local function list(service)
  local result, err = service:call("list containers",
    { "ps", "--all", "--filter", "label=farcall.engine", "--format", "json" })
  if not result then
    return nil, err
  end
  local found = {}
  for _, entry in ipairs(cjson.decode(result.stdout) or {}) do
    found[#found + 1] = { name = entry.Names[1], labels = entry.Labels }
  end
  return found
end

command_service.equip(backend, {
  programs = function(options)
    return { options.program }
  end,
  install = "apt-get install podman", setup = { "CONTAINERS_", "REGISTRY_AUTH_FILE" },
  refusals = REFUSALS, create = create, remove = remove, list = list,
  revive = function(name)
    return { "start", name }
  end,
  enter = function(name)
    return { "exec", "--interactive", "--preserve-fds", "1", name }
  end,
})

return backend

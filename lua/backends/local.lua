-- SPDX-License-Identifier: MIT
-- This machine. Every process runs under a supervisor of its own that kills its whole tree, in a
-- scrubbed environment. What a script does by itself it may do as the operator's user: for more
-- isolation take another backend.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local rundir = require("farcall.rundir")
local scrub = require("farcall.scrub")
local supervised = require("farcall.clients.supervised")
local system = require("farcall.core.system")
local task = require("farcall.task")

local RLIMITS = { "fsize", "nofile", "nproc", "cpu", "as", "core" }

---@type farcall.Backend
local backend = {
  name = "local",
  summary = "this machine; kills process trees, scrubs the environment, isolates nothing",
  api = 1,
  options = {
    cwd = { type = "path", doc = "where commands start; the current directory unless set" },
    own_cwd = {
      type = "boolean", default = false,
      doc = "start in a fresh private directory that is removed at the end",
    },
    env = { type = "map", doc = "variables to set" },
    passthrough = { type = "list", doc = "names of the operator's variables to let through" },
    shell = { type = "path", default = "/bin/sh", doc = "the shell for command lines" },
    tree = {
      type = "string", default = "auto", one_of = { "auto", "pidns", "cgroup", "subreaper" },
      doc = "how a process tree is held: the surest that is permitted, or this one",
    },
    grace = { type = "seconds", default = 2, doc = "between TERM and KILL" },
    umask = { type = "integer", doc = "file mode creation mask" },
    fsize = { type = "size", doc = "largest file that a process may write (RLIMIT_FSIZE)" },
    nofile = { type = "integer", doc = "open files of a process (RLIMIT_NOFILE)" },
    nproc = { type = "integer", doc = "processes of the user (RLIMIT_NPROC)" },
    cpu = { type = "seconds", doc = "processor time of a process (RLIMIT_CPU)" },
    as = { type = "size", doc = "address space of a process (RLIMIT_AS)" },
    core = { type = "size", doc = "largest core dump (RLIMIT_CORE)" },
  },
  caps = {
    argv = true, stdin = "stream", stdout = "stream", split = true, status = "exact",
    kill = "native", parallel = true, max_command = 131071, same_host = true, files = true,
  },
}

function backend.check(options)
  local stat = options.cwd and fs.stat(options.cwd)
  if options.cwd and (not stat or stat.type ~= "directory") then
    return false, ("cwd: %s is not a directory"):format(options.cwd)
  end
  if options.cwd and options.own_cwd then
    return false, "cwd and own_cwd exclude each other"
  end
  return true
end

---@class farcall.LocalEnv: farcall.Env
local Env = {}
Env.__index = Env

local function absolute(self, path)
  return path:sub(1, 1) == "/" and path or self.cwd .. "/" .. path
end

local function environment(self, extra)
  local variables = {}
  for _, source in ipairs({ self.variables, extra or {} }) do
    for name, value in pairs(source) do
      variables[name] = name .. "=" .. value
    end
  end
  local list = {}
  for _, pair in pairs(variables) do
    list[#list + 1] = pair
  end
  return list
end

---@async
---@param spec farcall.StartSpec
---@return farcall.Process?
---@return farcall.Error? err
function Env:start(spec)
  if self.closed then
    return nil, errors.new("unavailable", "local", "the environment is closed")
  end
  local sound, unsound = supervised.check(spec)
  if not sound then
    return nil, unsound
  end
  local stdin = spec.stdin or "null"
  local bytes = stdin ~= "pipe" and stdin ~= "null" and stdin or nil
  local process, err = supervised.start({
    supervisor = self.supervisor, tree = self.options.tree, grace = self.options.grace,
    argv = spec.argv or { self.options.shell, "-c", spec.command },
    env = environment(self, spec.env), cwd = absolute(self, spec.cwd or self.cwd),
    stdin = bytes and "pipe" or stdin, rlimits = self.rlimits, umask = self.options.umask,
    timeout = spec.timeout,
  })
  if not process then
    return nil, err
  end
  self.running[process] = true
  if bytes then
    task.spawn(function()
      process:write(bytes)
      process:close_stdin()
    end)
  end
  return process
end

---@async
---@param path string relative to the environment's directory, or absolute
---@param bytes string
---@param options? {mode?: integer, parents?: boolean}
---@return boolean?
---@return farcall.Error? err
function Env:put(path, bytes, options)
  local ok, msg, code = task.await(function(resume)
    task.work():write_file(absolute(self, path), bytes, options or {}, resume)
  end)
  if not ok then
    return nil, errors.wrap("write " .. path, msg, code)
  end
  return true
end

---@async
---@param path string
---@param options? {max?: integer, offset?: integer}
---@return string?
---@return farcall.Error? err
function Env:get(path, options)
  local bytes, msg, code = task.await(function(resume)
    task.work():read_file(absolute(self, path), options or {}, resume)
  end)
  if not bytes then
    return nil, errors.wrap("read " .. path, msg, code)
  end
  return bytes
end

function Env:alive()
  return not self.closed
end

---@async
function Env:close()
  self.closed = true
  for process in pairs(self.running) do
    process:kill()
  end
  if self.own_cwd then
    rundir.remove(self.own_cwd)
    self.own_cwd = nil
  end
end

---@async
---@param options table
---@param ctx farcall.BackendContext
---@return farcall.Env?
---@return farcall.Error? err
function backend.open(options, ctx)
  local passthrough = {}
  for _, names in ipairs({ ctx.passthrough or {}, options.passthrough or {} }) do
    for _, name in ipairs(names) do
      passthrough[#passthrough + 1] = name
    end
  end
  local variables = scrub.environment(ctx.environ, passthrough)
  for name, value in pairs(options.env or {}) do
    variables[name] = value
  end
  local rlimits = {}
  for _, name in ipairs(RLIMITS) do
    rlimits[name] = options[name]
  end
  local own_cwd, msg, code
  if options.own_cwd then
    own_cwd, msg, code = rundir.create(ctx.runtime_dir or "/tmp", ctx.engine, "work")
    if not own_cwd then
      return nil, errors.wrap("working directory", msg, code)
    end
  end
  local cwd = own_cwd or options.cwd or "."
  if cwd:sub(1, 1) ~= "/" then
    local here = system.cwd()
    if not here then
      return nil, errors.new("not_found", "working directory", "the current one was removed",
        { hint = "go to another one, or set the option cwd" })
    end
    cwd = here .. "/" .. cwd
  end
  return setmetatable({
    name = "local", caps = backend.caps, options = options, supervisor = ctx.supervisor,
    tree = options.tree, grace = options.grace, shell = options.shell,
    cwd = cwd:gsub("/%.$", ""), own_cwd = own_cwd, variables = variables,
    rlimits = rlimits, running = setmetatable({}, { __mode = "k" }),
  }, Env)
end

return backend

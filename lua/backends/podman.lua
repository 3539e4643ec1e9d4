-- SPDX-License-Identifier: MIT
-- A container of Podman on this machine: no capabilities, no new privileges, no network, bounded
-- memory, processors and processes, unless told otherwise. (Podman's service behind a socket speaks
-- Docker's language: for that, and for containers that exist already, there is the backend docker.)

local cjson = require("cjson.safe")
local command = require("farcall.clients.command")
local task = require("farcall.task")

local REFUSALS = {
  { "already in use", "denied", hint = "another environment has this name" },
  { "no such container", "lost", gone = true, hint = "it was removed from outside" },
  { "no container with name", "lost", gone = true, hint = "it was removed from outside" },
  { "container state improper", "lost", gone = true, hint = "it was stopped from outside" },
  { "short%-name", "not_found", hint = "the image is not here, and no registry is named" },
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

-- Runs one command of the program. Its result, or nil and what the refusal means.
---@async
local function podman(options, ctx, seconds, ...)
  local program, err = command.find({ options.program }, ctx.environ, "apt-get install podman")
  local result
  if program then
    local environ = command.environ(ctx.environ, { "CONTAINERS_", "REGISTRY_AUTH_FILE" })
    result, err = command.run({ program, ... }, environ, seconds)
    if result and result.exit_code ~= 0 then
      return nil, command.refusal("podman " .. (...), result.stderr, REFUSALS)
    end
  end
  return result, err
end

---@async
function backend.reap(name, options, ctx)
  local removed, err = podman(options, ctx, 60, "rm", "--force", "--ignore", "--time", "0", name)
  return removed and true or nil, err
end

-- Makes the container, or takes the one that the key names.
---@async
local function start(options, ctx)
  local words = {
    "run", "--detach", "--name", ctx.name, "--network", options.network,
    "--cap-drop", "all", "--security-opt", "no-new-privileges",
    "--pids-limit", ("%d"):format(options.pids), "--cpus", ("%g"):format(options.cpus),
    "--entrypoint", STAY,
    "--volume", ctx.supervisor .. ":" .. command.SUPERVISOR .. ":ro",
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
  local made, err = podman(options, ctx, options.start_timeout, unpack(words))
  if err and err.msg:find("already in use", 1, true) and ctx.key then
    return podman(options, ctx, 60, "start", ctx.name)
  elseif err and not err.msg:find("already in use", 1, true) then
    task.shield(backend.reap, ctx.name, options, ctx)
  end
  return made, err
end

---@async
---@param options table
---@param ctx farcall.BackendContext
---@return farcall.Env?
---@return farcall.Error? err
function backend.open(options, ctx)
  local ok, made, err = pcall(start, options, ctx)
  if not ok and not ctx.key then
    task.shield(backend.reap, ctx.name, options, ctx)
  end
  if not ok then
    error(made, 0)
  elseif not made then
    return nil, err
  end
  return command.env({
    name = ctx.name, cwd = options.cwd, grace = options.grace, refusals = REFUSALS,
    prefix = { options.program, "exec", "--interactive", "--preserve-fds", "1", ctx.name },
    environ = command.environ(ctx.environ, { "CONTAINERS_" }), engine_supervisor = ctx.supervisor,
    variables = command.variables(options, ctx),
    remove = not ctx.key and function()
      backend.reap(ctx.name, options, ctx)
    end or nil,
  })
end

---@async
function backend.list(options, ctx)
  local result, err = podman(options, ctx, 60, "ps", "--all", "--filter", "label=farcall.engine",
    "--format", "json")
  if not result then
    return nil, err
  end
  local list = {}
  for _, entry in ipairs(cjson.decode(result.stdout) or {}) do
    list[#list + 1] = { name = entry.Names[1], labels = entry.Labels }
  end
  return list
end

return backend

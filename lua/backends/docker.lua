-- SPDX-License-Identifier: MIT
-- A container of a Docker engine, or of Podman's service, which speaks the same API. What farcall
-- makes has no capabilities, no new privileges, no network, and bounded memory, processors and
-- processes, unless told otherwise.

local binds = require("farcall.binds")
local docker_api = require("farcall.clients.docker_api")
local docker_process = require("farcall.clients.docker_process")
local errors = require("farcall.errors")
local scrub = require("farcall.scrub")
local task = require("farcall.task")

local LABEL = "farcall.engine"

---@type farcall.Backend
local backend = {
  name = "docker",
  summary = "a Docker container, hardened; or one that runs already (attach)",
  api = 1,
  options = {
    image = { type = "string", doc = "image of the container; it must be there already" },
    attach = {
      type = "string", doc = "name of a running container to use; it is never made or removed",
    },
    socket = {
      type = "string", default = "/var/run/docker.sock",
      doc = "where Docker listens: a path (Podman's, too) or tcp://HOST:PORT",
    },
    user = { type = "string", doc = "user, or UID:GID, instead of the image's" },
    cwd = { type = "string", doc = "where commands start; the image's directory unless set" },
    env = { type = "map", doc = "variables to set" },
    binds = { type = "list", doc = "directories of Docker's machine: /HERE:/THERE[:ro]" },
    network = {
      type = "string", default = "none",
      doc = "none; on (Docker's default network); or the name of a network",
    },
    memory = { type = "size", default = 2 * 2 ^ 30, doc = "memory and swap in all; 0: unbounded" },
    cpus = { type = "number", default = 2, doc = "processors, in fractions too; 0: unbounded" },
    pids = { type = "integer", default = 512, doc = "processes and threads; 0: unbounded" },
    tmpfs = {
      type = "list", default = { "/tmp:exec,nosuid,nodev,size=512m,mode=1777" },
      doc = "file systems in memory: PATH[:OPTIONS]",
    },
    read_only = {
      type = "boolean", default = false, doc = "nothing can be written outside tmpfs and binds",
    },
    cap_add = { type = "list", doc = "capabilities to leave it; all others are dropped" },
    new_privileges = {
      type = "boolean", default = false, doc = "let set-user-ID programs (sudo) have their effect",
    },
  },
  caps = {
    argv = true, stdin = "stream", stdout = "stream", split = true, status = "code",
    kill = "none", parallel = true, max_command = 131071, isolated = true,
  },
}

function backend.check(options)
  if (options.image == nil) == (options.attach == nil) then
    return false, "one of image and attach is needed, and not both"
  end
  return binds.check(options.binds)
end

-- Process 1 only has to stay and to reap: wait takes every child, also those that others left.
local STAY = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"

local function nonempty(list)
  return list and #list > 0 and list or nil
end

local function pairs_of(map)
  local list = {}
  for name, value in pairs(map or {}) do
    list[#list + 1] = name .. "=" .. value
  end
  table.sort(list)
  return nonempty(list)
end

local function mounts_of(list)
  local mounts
  for _, text in ipairs(list or {}) do
    local path, flags = text:match("^([^:]+):?(.*)$")
    mounts = mounts or {}
    mounts[path or text] = flags or ""
  end
  return mounts
end

local function positive(number)
  return number and number > 0 and number or nil
end

-- The container, as the API wants to be told.
local function describe(options, labels, init)
  local memory, cpus = positive(options.memory), positive(options.cpus)
  return {
    Image = options.image,
    Entrypoint = { "sh", "-c", STAY },
    User = options.user,
    WorkingDir = options.cwd,
    Env = pairs_of(options.env),
    Labels = next(labels) and labels or nil,
    StopSignal = "SIGKILL",
    HostConfig = {
      Init = init,
      NetworkMode = options.network == "on" and "bridge" or options.network,
      Binds = nonempty(options.binds),
      Tmpfs = mounts_of(options.tmpfs),
      ReadonlyRootfs = options.read_only,
      Memory = memory,
      MemorySwap = memory,
      -- A quota, because NanoCpus may not be more than the machine has.
      CpuPeriod = cpus and 100000,
      CpuQuota = cpus and math.floor(cpus * 100000),
      PidsLimit = positive(options.pids),
      CapDrop = { "ALL" },
      CapAdd = nonempty(options.cap_add),
      SecurityOpt = not options.new_privileges and { "no-new-privileges" } or nil,
      LogConfig = { Type = "none" },
    },
  }
end

-- What an exec is told. A container that was made for this has the options already, in its own
-- description; one that is attached to has not.
local function exec_of(self, spec)
  if not self.options.attach then
    return spec
  end
  local full = { cwd = self.options.cwd, user = self.options.user }
  for name, value in pairs(spec) do
    full[name] = value
  end
  full.env = {}
  for _, variables in ipairs({ self.options.env or {}, spec.env or {} }) do
    for name, value in pairs(variables) do
      full.env[name] = value
    end
  end
  return full
end

---@class farcall.DockerEnv: farcall.Env
---@field private api farcall.DockerApi
---@field private id string of the container
---@field private owned boolean close() removes it
local Env = {}
Env.__index = Env

-- An error of the daemon while the container is in use: what is gone or stopped is lost, and this
-- environment dead.
local function in_use(self, err)
  if err.code == "404" or err.code == "409" then
    self.dead = true
    return errors.new("lost", "docker", err.msg, { code = err.code, cause = err })
  end
  if err.kind == "unavailable" and (err.code == "ENOENT" or err.code == "ECONNREFUSED") then
    self.dead = true
  end
  return err
end

---@async
---@param spec farcall.StartSpec
---@return farcall.Process?
---@return farcall.Error? err
function Env:start(spec)
  if self.closed then
    return nil, errors.new("unavailable", "docker", "the environment is closed")
  end
  local process, err = docker_process.start(self.api, self.id, exec_of(self, spec), function()
    self.dead = true
  end)
  if not process then
    return nil, in_use(self, err)
  end
  self.running[process] = true
  process:on_over(function()
    self.running[process] = nil
  end)
  return process
end

function Env:alive()
  return not self.dead and not self.closed
end

---@async
---@return boolean?
---@return farcall.Error? err
function Env:close()
  if self.closed then
    return true
  end
  self.closed = true
  local running = self.running
  self.running = {}
  for process in pairs(running) do
    process:kill()
  end
  local ok, removed, err = true, true, nil
  if self.owned then
    ok, removed, err = pcall(task.shield, self.api.remove_container, self.api, self.id)
  end
  self.api:close()
  if not ok then
    error(removed, 0)
  end
  return removed, err
end

---@async
local function create(api, options, ctx, init)
  local id, err = api:create_container(ctx.name, describe(options, ctx.labels or {}, init))
  if id then
    return id
  elseif err.code == "404" then
    return nil, errors.new("not_found", "docker", err.msg, {
      code = "NOIMAGE", cause = err, hint = "docker pull " .. options.image,
    })
  end
  return nil, err
end

---@async
local function create_and_start(api, options, ctx, init)
  local id, err = create(api, options, ctx, init)
  if not id then
    return nil, err
  end
  local ok
  ok, err = api:start_container(id)
  if not ok then
    task.shield(api.remove_container, api, id)
    return nil, err
  end
  return id
end

-- What engines say that have no program for process 1: Docker at the start, Podman before it.
local function lacks_init(err)
  return err.msg:find("docker-init", 1, true) or err.msg:find("container-init", 1, true)
end

---@async
local function make(api, options, ctx)
  local id, err = create_and_start(api, options, ctx, true)
  if not id and lacks_init(err) then
    id, err = create_and_start(api, options, ctx, false)
  end
  return id, err
end

-- The container of a key: whoever creates its name first has made it, everybody starts it.
---@async
local function share(api, options, ctx)
  for _ = 1, 50 do
    local container, err = api:inspect_container(ctx.name)
    if container then
      if container.labels["farcall.key"] ~= ctx.key then
        return nil, errors.new("denied", "docker", ("container %s is not farcall's"):format(
          ctx.name), { code = "EEXIST" })
      end
      local ok = container.running
      if not ok then
        ok, err = api:start_container(container.id)
      end
      if ok then
        return container.id
      end
    elseif err.kind == "not_found" then
      local id
      id, err = make(api, options, ctx)
      if id then
        return id
      end
    end
    if err.code ~= "409" and err.code ~= "404" then
      return nil, err
    end
    -- Somebody else made or removed it in between.
    task.sleep(0.1)
  end
  return nil, errors.new("unavailable", "docker", ("container %s is made and removed by others all"
    .. " the time"):format(ctx.name))
end

---@async
local function attach(api, name)
  local container, err = api:inspect_container(name)
  if not container and err.kind == "not_found" then
    return nil, errors.new("not_found", "attach " .. name, "there is no such container",
      { code = err.code, cause = err, hint = "`docker ps` lists them" })
  elseif not container then
    return nil, err
  elseif not container.running then
    return nil, errors.new("unavailable", "docker", ("container %s is not running"):format(name),
      { hint = "docker start " .. name })
  end
  return container.id
end

---@async
local function acquire(api, options, ctx)
  if options.attach then
    return attach(api, options.attach)
  elseif ctx.key then
    return share(api, options, ctx)
  end
  return make(api, options, ctx)
end

---@async
---@param options table
---@param ctx farcall.BackendContext
---@return farcall.Env?
---@return farcall.Error? err
function backend.open(options, ctx)
  local api, err = docker_api.connect(options)
  if not api then
    return nil, err
  end
  local owned = not options.attach and not ctx.key
  local ok, id, failure = pcall(acquire, api, options, ctx)
  if not ok and owned then
    -- Cancelled, perhaps while the daemon was making it.
    pcall(task.shield, api.remove_container, api, ctx.name)
  end
  if not ok or not id then
    api:close()
  end
  if not ok then
    error(id, 0)
  elseif not id then
    return nil, failure
  end
  return setmetatable({
    name = options.attach or ctx.name, caps = backend.caps, api = api, id = id, owned = owned,
    options = options, running = {}, passed = scrub.passed(ctx, options.env),
  }, Env)
end

-- Runs fn with a connection of its own.
---@async
local function with_api(options, fn)
  local api, err = docker_api.connect(options)
  if not api then
    return nil, err
  end
  local ok, result, failure = pcall(fn, api)
  api:close()
  if not ok then
    error(result, 0)
  end
  return result, failure
end

---@async
function backend.list(options)
  return with_api(options, function(api)
    return api:list_containers(LABEL)
  end)
end

---@async
function backend.reap(name, options)
  return with_api(options, function(api)
    local container, err = api:inspect_container(name)
    if not container then
      return err.kind == "not_found" or nil, err.kind ~= "not_found" and err or nil
    elseif not container.labels[LABEL] then
      return nil, errors.new("denied", "docker", ("container %s is not farcall's"):format(name))
    end
    return api:remove_container(container.id)
  end)
end

return backend

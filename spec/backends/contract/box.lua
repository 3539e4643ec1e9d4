-- SPDX-License-Identifier: MIT
-- One engine and one environment for an item of the contract. Whatever is started bears a mark, by
-- which it is found from outside: the services of the specs run on this machine, whose /proc shows
-- the processes of containers too.

local assert = require("luassert")
local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local system = require("farcall.core.system")
local task = require("farcall.task")

---@class spec.Box
---@field engine farcall.Engine with `second` in its configuration: another environment of the kind
---@field logged string[]
local Box = {}
Box.__index = Box

local VARIABLE = "CONTRACT_MARK"

local function hex(bytes)
  return (system.random(bytes):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end

---Fields of a oneshot, a shell or a job, with the environment and the mark filled in.
function Box:filled(spec)
  local named = spec and spec.backend
  local all = { backend = self.setup.use, options = not named and self.options or nil }
  for key, value in pairs(spec or {}) do
    all[key] = value
  end
  all.env = { [VARIABLE] = self.mark }
  for name, value in pairs(spec and spec.env or {}) do
    all.env[name] = value
  end
  return all
end

---@return farcall.oneshot.Result?, farcall.Error?
function Box:exec(spec)
  if type(spec) == "string" then
    spec = { command = spec }
  end
  return self.engine:exec(self:filled(spec))
end

---What a command that must succeed prints.
---@return string
function Box:output(spec)
  local result = assert(self:exec(spec))
  assert.equal(0, result.exit_code, result.stderr)
  return result.stdout
end

---The environment itself.
---@return farcall.Env
function Box:env()
  return assert(self.engine:environment(self.setup.use, self.options))
end

---What env:start takes, with the mark filled in.
function Box:started(spec)
  local all = {}
  for key, value in pairs(spec) do
    all[key] = value
  end
  all.env = { [VARIABLE] = self.mark }
  return all
end

---A persistent shell, whose commands bear the mark; closed at the end.
---@return farcall.Shell
function Box:shell()
  local shell = assert(self.engine:shell({ backend = self.setup.use, options = self.options }))
  assert(shell:run({ command = ("export %s=%s"):format(VARIABLE, self.mark) }))
  table.insert(self.shells, shell)
  return shell
end

---Runs a job to its end.
---@return table result
function Box:run(job, hooks)
  return assert(self.engine:run(self:filled(job), hooks))
end

---Pids of this machine's processes that bear the mark.
---@return integer[]
function Box:marked()
  local pids = {}
  local text = VARIABLE .. "=" .. self.mark
  for _, pid in ipairs(assert(fs.list("/proc"))) do
    local environ = pid:find("^%d+$") and helper.read("/proc/" .. pid .. "/environ")
    if environ and environ:find(text, 1, true) then
      pids[#pids + 1] = tonumber(pid)
    end
  end
  return pids
end

---Pids of marked processes whose arguments hold this text.
function Box:living(text)
  local pids = {}
  for _, pid in ipairs(self:marked()) do
    local line = helper.read("/proc/" .. pid .. "/cmdline")
    if line and line:gsub("%z", " "):find(text, 1, true) then
      pids[#pids + 1] = pid
    end
  end
  return pids
end

local function describe_processes(pids)
  local lines = {}
  for _, pid in ipairs(pids) do
    local line = helper.read("/proc/" .. pid .. "/cmdline") or ""
    local state = (helper.read("/proc/" .. pid .. "/stat") or ""):match("%) (%a)") or "gone"
    lines[#lines + 1] = ("%d %s %s"):format(pid, state, (line:gsub("%z", " ")))
  end
  return table.concat(lines, "; ")
end

---Waits until nothing that bears the mark is left.
---@param seconds? number
function Box:assert_gone(seconds)
  helper.eventually(function()
    return #self:marked() == 0
  end, seconds or 30)
  assert.equal("", describe_processes(self:marked()))
end

---Paths of what farcall keeps in the environment for a time.
---@return table<string, true>
function Box:temporary()
  local paths = {}
  local text = self:output("for p in /tmp /var/tmp /dev/shm; do for p in $p/farcall-run-*"
    .. " $p/farcall-in-*; do if [ -e \"$p\" ]; then echo \"$p\"; fi; done; done")
  for path in text:gmatch("[^\n]+") do
    paths[path] = true
  end
  return paths
end

-- Other engines may use the same machine: what they have there now goes by itself.
function Box:assert_no_new_temporary(before)
  local new
  helper.eventually(function()
    local first = new == nil
    local now = self:temporary()
    for path in pairs(first and now or new) do
      new = new or {}
      new[path] = now[path] and not before[path] or nil
    end
    new = new or {}
    return next(new) == nil
  end, 60)
  assert.same({}, new)
end

-- What the loop still attends to, once what is being let go of has had its time.
local function settled()
  local census
  helper.eventually(function()
    census = task.loop():census()
    return census.fds + census.timers + #helper.children() == 0
  end, 30)
  return {
    fds = census.fds, timers = census.timers, children = describe_processes(helper.children()),
  }
end

-- No environment of this engine without a runner in it.
local function bring_everywhere(one)
  local get = one.environments.get
  function one.environments.get(...)
    local env, err = get(...)
    if env then
      local runner
      runner, err = env:bring()
      return runner and env, err
    end
    return nil, err
  end
end

local box = {}

---The body of an `it` that has an engine.
---@param setup spec.Contract
---@param fn async fun(box: spec.Box)
---@param over? table fields of the engine's configuration; `own`: options of the backend;
---`private`: an environment that nobody else has, also where one is shared to save time
function box.with(setup, fn, over)
  return function()
    local options = {}
    local shared = not (over and over.private) and setup.shared or {}
    for _, source in ipairs({ setup.options or {}, shared, over and over.own or {} }) do
      for name, value in pairs(source) do
        options[name] = value
      end
    end
    local self = setmetatable({
      setup = setup, options = options, mark = hex(16), logged = {}, shells = {},
    }, Box)
    local cfg = {
      backend_path = setup.backend_path, policies = {},
      runner_forms = setup.runner and { setup.runner } or nil,
      log = function(_, text)
        table.insert(self.logged, text)
      end,
    }
    for name, value in pairs(over or {}) do
      cfg[name] = name ~= "own" and name ~= "private" and value or nil
    end
    cfg.backends = {
      second = { use = setup.use, options = options, origin = "spec" },
    }
    engines.with(cfg, function(one, own)
      for name, value in pairs(setup.environ or {}) do
        own.environ[name] = value
      end
      self.engine = one
      if setup.runner then
        bring_everywhere(one)
      end
      local results = { pcall(fn, self) }
      for _, shell in ipairs(self.shells) do
        shell:close()
      end
      one:close()
      if not results[1] then
        error(results[2], 0)
      end
      assert.same({ fds = 0, timers = 0, children = "" }, settled())
      self:assert_gone()
      if setup.left then
        assert.same({}, setup.left(one.environments.engine))
      end
    end)
  end
end

return box

-- SPDX-License-Identifier: MIT
-- What `farcall doctor` looks at, one function each: it does the thing and tells how it went. They
-- wait, so they run inside a task.

local config = require("farcall.config")
local engine = require("farcall.engine")
local examination = require("farcall.cli.examination")
local fs = require("farcall.core.fs")
local leftovers = require("farcall.leftovers")
local proc = require("farcall.core.proc")
local supervised = require("farcall.clients.supervised")
local task = require("farcall.task")

---@class farcall.Finding
---@field name string
---@field status "ok"|"warn"|"fail"
---@field message string
---@field hint? string what to do about it

local diagnosis = {}

-- An interpreter that takes longer than this to start is felt in each run.
local SLOW_START = 0.1
local ANSWER_TIME = 30
local MODE_PRIVATE = 448 -- 0700

local PROBE = [[
from farcall import terminal
print(terminal("echo served")["output"].strip())
]]

---@return farcall.Finding
local function finding(name, status, message, hint)
  return { name = name, status = status, message = message, hint = hint }
end

---@return farcall.Finding
function diagnosis.configuration(cfg)
  local files = #cfg.files > 0 and table.concat(cfg.files, ", ") or "built-in defaults only"
  local problems = require("farcall.catalog").new(cfg):check()
  if #problems == 0 then
    return finding("configuration", "ok", files)
  end
  return finding("configuration", "fail",
    ("%s: %s"):format(problems[1].where, problems[1].message), "`farcall check` lists everything")
end

local function private_and_writable(name, dir)
  local made, message = fs.mkdir(dir, MODE_PRIVATE, true)
  local probe = made and fs.mkdtemp(dir .. "/doctor-")
  if not probe then
    return finding(name, "fail", ("%s: cannot be written%s"):format(dir,
      message and ": " .. message or ""), ("mend its permissions, or set %s in a configuration")
      :format(name == "state" and "state_dir" or "runtime_dir"))
  end
  fs.rmdir(probe)
  return finding(name, "ok", dir)
end

---@return farcall.Finding
function diagnosis.state_directory(cfg)
  return private_and_writable("state", cfg.state_dir)
end

---@return farcall.Finding
function diagnosis.runtime_directory(cfg)
  return private_and_writable("runtime", cfg.runtime_dir)
end

---@async
local function probe_level(cfg, level)
  local process, err = supervised.start({
    supervisor = cfg.supervisor, argv = { "/bin/sh", "-c", ":" }, env = {}, cwd = "/",
    stdin = "null", tree = level, grace = 1, rlimits = {}, timeout = ANSWER_TIME,
  })
  if not process then
    return nil, err
  end
  while process:read(4096) do end
  process:wait()
  return process.level
end

local LEVELS = {
  pidns = "a script's processes are in a PID namespace: the kernel ends them all at once",
  cgroup = "a script's processes are in a control group, killed as one",
  subreaper = "a script's processes are found in /proc, stopped and killed",
}
local BETTER = {
  cgroup = "with CAP_SYS_ADMIN (as root, say) a PID namespace holds them, which is surer still",
  subreaper = "surer with CAP_SYS_ADMIN (a PID namespace), or in a control group that you may "
    .. "write to: systemd-run --user --scope -p Delegate=yes farcall ...",
}

---How a script's process tree is held, and what would hold it better.
---@async
---@return farcall.Finding
function diagnosis.process_trees(cfg)
  local level, err = probe_level(cfg, "auto")
  if not level then
    return finding("process trees", "fail", tostring(err),
      "farcall-supervisor belongs beside farcall: build or install it whole")
  end
  return finding("process trees", level == "subreaper" and "warn" or "ok",
    ("%s: %s"):format(level, LEVELS[level] or "?"), BETTER[level])
end

-- A version manager puts a script in the interpreter's place that looks for it each time.
local function is_shim(path)
  local file = io.open(path, "rb")
  local start = file and file:read(2)
  if file then
    file:close()
  end
  return start == "#!"
end

---@async
local function start_time(path)
  local began = task.now()
  local child = proc.spawn(task.loop(), {
    argv = { path, "-c", "pass" }, stdin = "null", stdout = "null", stderr = "null",
  })
  if not child then
    return nil
  end
  local sound = task.timeout(ANSWER_TIME, function()
    return task.await(function(resume)
      child:on_exit(function(how, code)
        resume(how == "exit" and code == 0)
      end)
    end)
  end)
  local took = task.now() - began
  child:kill("KILL")
  child:close()
  return sound and took or nil
end

---@async
---@return farcall.Finding
function diagnosis.python(cfg)
  local path = proc.which("python3", cfg.environ.PATH or "/usr/bin:/bin")
  if not path then
    return finding("python", "fail", "there is no python3 in PATH",
      "apt-get install python3-minimal; scripts in other languages work without")
  end
  local seconds = start_time(path)
  if not seconds then
    return finding("python", "fail", path .. " does not run", "try: " .. path .. " -c pass")
  end
  local message = ("%s starts in %.0f ms"):format(path, seconds * 1e3)
  if is_shim(path) then
    return finding("python", "warn", message .. "; it is a script that looks for the real one",
      "put the real interpreter's directory first in PATH")
  end
  return finding("python", seconds > SLOW_START and "warn" or "ok", message,
    seconds > SLOW_START and "`python3 -X importtime -c pass` tells what takes the time" or nil)
end

-- Programs of runners that belong to an installation.
local RUNNERS = { "farcall-runner-x86_64", "farcall-runner-aarch64", "runner.py" }

---The programs that go to environments, and what is to be expected of each backend, as far as it
---can be told without opening one.
---@return farcall.Finding
function diagnosis.runners(cfg)
  local by = { uds = {}, stream = {}, file = {} }
  for _, row in ipairs(require("farcall.catalog").new(cfg):list("backend")) do
    local caps = row.caps or {}
    local live = caps.stdin == "stream" and caps.stdout == "stream"
    table.insert(by[caps.same_host and "uds" or live and "stream" or "file"], row.name)
  end
  local expected = {}
  for _, way in ipairs({ "uds", "stream", "file" }) do
    if #by[way] > 0 then
      expected[#expected + 1] = ("%s for %s"):format(way, table.concat(by[way], ", "))
    end
  end
  local missing = {}
  for _, name in ipairs(RUNNERS) do
    if not (cfg.runner_dir and fs.stat(cfg.runner_dir .. "/" .. name)) then
      missing[#missing + 1] = name
    end
  end
  local message = "transports to be expected: " .. table.concat(expected, "; ")
  if #missing == 0 then
    return finding("runners", "ok", message)
  end
  return finding("runners", "warn", ("%s is not there%s"):format(table.concat(missing, ", "),
    #missing == #RUNNERS and ": calls travel by files where they could by stream" or ""),
    "build or install farcall whole, or set FARCALL_RUNNERS")
end

---A script with one call on this machine, with the built-in defaults: what is left to be wrong is
---in the configuration.
---@async
---@return farcall.Finding
function diagnosis.run(cfg)
  local plain = {}
  for name, value in pairs(cfg) do
    plain[name] = value
  end
  plain.policies, plain.enabled_tools = {}, { "terminal" }
  plain.tools, plain.tool_path = {}, {}
  plain.stub_options = { module = "farcall", errors = "raise" }
  local probe = engine.new(plain)
  local began = task.now()
  local result, err = probe:run({
    script = PROBE, language = "python", backend = "local", timeout = ANSWER_TIME,
  })
  local took = task.now() - began
  probe:close()
  if result and result.status == "success" and result.output == "served\n" then
    return finding("run", "ok", ("a script with one call took %.0f ms, by %s"):format(took * 1e3,
      result.transport))
  end
  local reason = err and tostring(err) or result.stderr:match("([^\n]+)\n*$") or result.error
    or result.status
  return finding("run", "fail", "a script with one call: " .. reason,
    "the lines above tell what is missing; `farcall run -v` tells more")
end

---What dead engines have left, as far as can be told without asking a service.
---@return farcall.Finding
function diagnosis.leftovers(cfg)
  local environments, directories = leftovers.count(cfg.state_dir, cfg.runtime_dir)
  if environments + directories == 0 then
    return finding("leftovers", "ok", "no environment or directory of a dead engine")
  end
  return finding("leftovers", "warn", ("dead engines have left environments (%d) and directories "
    .. "(%d)"):format(environments, directories), "`farcall env gc` removes them")
end

---@return farcall.Finding
function diagnosis.versions()
  local cli = require("farcall.cli")
  return finding("versions", "ok", ("farcall %s, %s, base64 %s"):format(cli.VERSION,
    require("jit").version, require("farcall.core.base64").level()))
end

---Each backend of the configuration, or the one that is named.
---@async
local function backends(cfg, named, options, findings)
  local names = named and { named } or {}
  if not named then
    for name in pairs(cfg.backends) do
      names[#names + 1] = name
    end
    table.sort(names)
  end
  if #names == 0 then
    return
  end
  local current
  -- What a backend says by the way, that it had to take a slower one for example.
  cfg.log = function(_, text)
    local message, hint = text:match("^(.-) %((.*)%)$")
    table.insert(findings, finding("backend " .. current, "warn", message or text, hint))
  end
  local one = engine.new(cfg)
  for _, name in ipairs(names) do
    current = name
    for _, found in ipairs(examination.backend(one, name, named and options)) do
      found.name = "backend " .. found.name
      table.insert(findings, found)
    end
  end
  one:close()
end

---Everything, in order. What needs a configuration is left out when there is none.
---@async
---@param options table as config.load takes them
---@param backend? string the one to look at; all of the configuration when absent
---@param backend_options? table
---@return farcall.Finding[]
function diagnosis.all(options, backend, backend_options)
  local findings = { diagnosis.versions() }
  local cfg, err = config.load(options)
  local whole = cfg ~= nil
  if not whole then
    table.insert(findings, finding("configuration", "fail",
      (err.op ~= "" and err.op .. ": " or "") .. err.msg, err.hint))
    -- What is wrong may be ./farcall.lua, without which the rest can be looked at.
    cfg = not options.file and config.load({ ignore_here = true }) or nil
    if not cfg then
      return findings
    end
  end
  cfg.log = function() end
  for _, name in ipairs({
    "configuration", "runtime_directory", "state_directory", "process_trees", "python", "runners",
    "run", "leftovers",
  }) do
    if whole or name ~= "configuration" then
      table.insert(findings, diagnosis[name](cfg))
    end
  end
  backends(cfg, backend, backend_options, findings)
  return findings
end

return diagnosis

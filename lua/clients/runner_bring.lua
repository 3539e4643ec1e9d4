-- SPDX-License-Identifier: MIT
-- How a runner comes to be at the far end of an exec: the program is brought where it is not there
-- yet, and says who it is. What is said until then: docs/wire.md, "How a link begins".

local errors = require("farcall.errors")
local far = require("farcall.clients.runner_sh")
local fs = require("farcall.core.fs")
local hex = require("farcall.hex")
local places = require("farcall.places")
local sha256 = require("farcall.core.sha256")
local task = require("farcall.task")

local runner_bring = {}

local PIECE = 262144
-- What it may say before its hello.
local MAX_NOISE = 1024 * 1024
local MAX_WORDS, MAX_WHY = 4096, 200
local MAX_PROGRAM = 1024 * 1024
---Code of an error that trying again does not change: no such runner is there.
runner_bring.REFUSED = "REFUSED"

---@class farcall.runner_bring.Options
---@field dir string where the programs are: farcall-runner-MACHINE and runner.py
---@field forms string[] "c", "python": those that may be used
---@field here? boolean the environment sees the files of this machine under the same names
---@field patience string GRACE_MS:LEASE_MS of the runner

---@class farcall.RunnerBring
---@field form "c"|"python" which was brought last
---@field kept boolean that one was there already
---@field anew? boolean one that was kept is not to be used
---@field why? string of the Python one: why it is not the one in C, as the environment says
---@field said string the last of standard error
---@field private held string bytes behind the hello
local Bring = {}
Bring.__index = Bring

---The programs that can be sent: of the directory, read once.
---@type table<string, table<string, {text: string, hash: string}>>
local shelf = {}

---@return table<string, {text: string, hash: string}>? programs by machine, and "python"
---@return farcall.Error? err
local function programs_of(dir)
  if shelf[dir] then
    return shelf[dir]
  end
  local names, message, code = fs.list(dir)
  if not names then
    return nil, errors.new("unsupported", "runner", "its programs cannot be read: " .. message,
      { code = code, hint = "build or install farcall whole, or set FARCALL_RUNNERS" })
  end
  local programs = {}
  for _, name in ipairs(names) do
    local machine = name == "runner.py" and "python" or name:match("^farcall%-runner%-([%w_]+)$")
    local text = machine and fs.read(dir .. "/" .. name, MAX_PROGRAM)
    if text then
      programs[machine] = { text = text, hash = sha256.hex(text) }
    end
  end
  shelf[dir] = programs
  return programs
end

-- runner.py becomes what runs, as where it has come in by standard input.
local PYTHON_HERE = 'import sys\nwith open(sys.argv.pop(1), "rb") as t:\n    t = t.read()\n'
  .. 'exec(compile(t.split(b"\\f")[0], "farcall-runner", "exec"))'

-- On this machine the programs can be started where they are.
local function words_here(self, verb, mark)
  for _, form in ipairs(self.options.forms) do
    local path = form == "c" and places.runner(self.options.dir) or nil
    if form == "python" and self.programs.python then
      path = self.options.dir .. "/runner.py"
    end
    if path then
      self.form = form
      local words = { path, verb, mark, verb == "serve" and self.options.patience or nil }
      return form == "python" and { "python3", "-B", "-c", PYTHON_HERE, unpack(words) } or words
    end
  end
  return nil
end

local function words_of(self, verb, mark, forms)
  local words = self.options.here and words_here(self, verb, mark)
  if words then
    return words
  end
  words = {
    "sh", "-c", far.BRING, "sh", mark, verb, self.options.patience,
    forms .. (self.anew and " new" or ""), self.word,
  }
  for machine, program in pairs(self.programs) do
    words[#words + 1] = machine
    words[#words + 1] = ("%d"):format(#program.text)
    if machine ~= "python" then
      words[#words + 1] = program.hash
    end
  end
  return words
end

-- Reads standard output up to the next line of ours. What belongs to standard error is kept: the
-- last of it says what went wrong.
---@async
---@return string? line
local function next_line(self, process, mark)
  local start = "\n" .. mark .. " "
  while true do
    local _, from = self.held:find(start, 1, true)
    local to = from and self.held:find("\n", from + 1, true)
    if to then
      local line = self.held:sub(from + 1, to - 1)
      self.held = self.held:sub(to + 1)
      return line
    elseif #self.held > MAX_NOISE then
      return nil
    end
    local stream, bytes = process:read(PIECE)
    if not stream then
      return nil
    elseif stream == "out" then
      self.held = self.held .. bytes
    else
      self:hear(bytes)
    end
  end
end

---Keeps the last of what comes by standard error.
---@param bytes string
function Bring:hear(bytes)
  self.said = (self.said .. bytes):sub(-MAX_WORDS)
end

---The last line of it, which says what went wrong.
---@return string line may be empty
function Bring:last_line()
  return self.said:gsub("%s+$", ""):match("[^\n]*$")
end

---What came behind the hello, once.
---@return string bytes
function Bring:rest()
  local bytes = self.held
  self.held = ""
  return bytes
end

-- One exec that becomes the runner, or leads to it. Its hello, or why there is none. `give` sends a
-- program, or nil for what the runner is to read first, which goes when nothing else is there any
-- more that could read it; false when it cannot.
---@async
local function converse(self, process, mark, give)
  while true do
    local line = next_line(self, process, mark)
    if not line then
      local said = self:last_line()
      return nil, errors.new("unsupported", "runner",
        said ~= "" and said or "the exec ended before it said anything")
    end
    local word, rest = line:match("^(%l+) ?(.*)$")
    if word == "kept" or word == "ready" then
      self.kept = word == "kept"
      give(nil)
    elseif word == "send" and self.programs[rest:match("^%S*")] then
      local name, why = rest:match("^(%S+) ?(.*)$")
      self.form, self.kept = name == "python" and "python" or "c", false
      self.why = self.options.forms[1] ~= self.form and why:sub(1, MAX_WHY) or nil
      if not give(name) then
        return nil, errors.new("unsupported", "runner", "its program is not there any more")
      end
    elseif word == "hello" or word == "resumed" then
      return rest
    elseif word == "none" then
      return nil, errors.new("unsupported", "runner", rest)
    elseif word == "error" then
      return nil, errors.new("unsupported", "runner", "it did not start: " .. rest,
        { code = runner_bring.REFUSED })
    else
      return nil, errors.new("protocol", "runner", "it said something else than hello")
    end
  end
end

-- Starts the exec and has its hello. The process is killed where there is none.
---@async
local function start(self, spec, mark, seconds, give)
  self.held, self.said, self.kept = "", "", false
  local process, err = self.env:start(spec)
  if not process then
    return nil, err
  end
  local ok, rest, failure = pcall(task.timeout, seconds, converse, self, process, mark,
    function(name)
      return give(process, name)
    end)
  if ok and rest then
    return process, rest
  end
  task.shield(process.kill, process)
  if not ok then
    error(rest, 0)
  end
  return nil, failure.kind == "timeout" and errors.new("unsupported", "runner",
    ("it did not say hello within %d s"):format(seconds)) or failure
end

---An exec with a live standard input, which becomes the runner or a link to it.
---@async
---@param verb "serve"|"attach"
---@param seconds number until it must have said hello
---@param first? string what it is to read before all else
---@return farcall.Process?
---@return string|farcall.Error rest of its hello
function Bring:live(verb, seconds, first)
  local mark = hex.random(16)
  local forms = table.concat(self.options.forms, " ")
  local spec = { argv = words_of(self, verb, mark, forms), stdin = "pipe" }
  return start(self, spec, mark, seconds, function(process, name)
    -- Where that goes wrong, what it says next tells more.
    local program = name and self.programs[name].text or ""
    local more = (not name or name == "python") and first or ""
    if #program + #more > 0 then
      process:write(program .. more)
    end
    return true
  end)
end

---An exec that gets all that it is to read at its start, and leads to a runner that is there.
---@async
---@param seconds number until it must have said hello
---@param bytes string
---@return farcall.Process?
---@return string|farcall.Error rest of its hello
function Bring:turn(seconds, bytes)
  local mark, form = hex.random(16), self.form
  -- The Python program is not kept anywhere.
  local program = form == "python" and not self.options.here and self.programs.python.text or ""
  local spec = { argv = words_of(self, "attach", mark, form), stdin = program .. bytes }
  return start(self, spec, mark, seconds, function(_, name)
    return name == nil or name == "python"
  end)
end

---Who can bring a runner into an environment.
---@param env farcall.Env
---@param options farcall.runner_bring.Options
---@return farcall.RunnerBring?
---@return farcall.Error? err the programs cannot be read
---@nodiscard
function runner_bring.new(env, options)
  local programs, err = programs_of(options.dir)
  if not programs then
    return nil, err
  end
  return setmetatable({
    env = env, options = options, programs = programs, word = hex.random(8), form = "c",
    held = "", said = "", kept = false,
  }, Bring)
end

return runner_bring

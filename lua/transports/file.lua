-- SPDX-License-Identifier: MIT
-- The transport for environments where only exec exists: requests and replies are files in a
-- private directory over there, moved by execs that each put replies in place, wait for requests
-- and bring them. It takes no lock, and never the persistent shell.
--
-- A request stays where it is until a later exec says that it has arrived, and its ID is known here
-- from then on: whatever is lost or repeated, it is handed up once.

local answer = require("farcall.transports.file_answer")
local base64 = require("farcall.core.base64")
local errors = require("farcall.errors")
local far = require("farcall.transports.file_sh")
local guarded = require("farcall.guarded")
local hex = require("farcall.hex")
local json = require("farcall.core.json")
local lacking = require("farcall.transports.lacking")
local place = require("farcall.transports.file_place")
local supervision = require("farcall.supervision")
local task = require("farcall.task")
local wire = require("farcall.transports.wire")

local file = {}

-- Without a sign of the engine for so many seconds the far side ends the script.
file.LEASE = 45

-- The far side ends the script by itself so many seconds later than the engine.
local BACKSTOP = 5
-- An exec that collects returns after 20 s at the latest; one that says nothing for longer is given
-- up.
file.SILENCE = 40
-- What one exec may bring: a largest request and some more.
local MAX_BROUGHT = wire.MAX_REQUEST + 4 * 1024 * 1024
-- What a command holds beside replies: the script, quoted, and some words.
local COMMAND_OVERHEAD = 8192
local MAX_COMMAND = 131071
-- Seconds without a cycle that worked until the link counts as lost.
local PATIENCE = 30
-- Cycles in a row that bring nothing new although they bring something.
local MAX_USELESS = 50
-- Cycles in a row that end early with nothing, until the next ones take their time.
local MAX_IDLE, EARLY, MAX_REST = 3, 5, 1
-- IDs that are remembered.
local MAX_SEEN = 1000000
-- Bytes of requests without a reply, beyond which nothing more is fetched.
local MAX_LOAD = 4 * wire.MAX_REQUEST
-- For so long, of what an exec costs, a cycle is put off when the reply to a call may be at hand.
local HOLD_SHARE, HOLD_MIN, HOLD_MAX = 0.5, 0.002, 0.025
-- Replies that are ready soon after each other travel together.
local GATHER = 0.002

---@class farcall.file.Session
---@field dir string the run's directory
---@field private look string how the far side waits: see file_place.lua
---@field private interpreter? string of those of the stub, the first that is there
---@field private turn integer of the latest cycle
---@field private seen table<number, true> IDs that have been handed up, for the whole run
---@field private arrived table<string, true> names of request files that the far side may empty
---@field private outbox {id: number, text: string, not_before?: number}[] replies to be put there
---@field private in_flight integer calls that have no reply yet
---@field private load integer bytes of their requests
---@field private delivering? table the cycle whose replies are not known to be in place
---@field private latest? table the latest cycle, while it waits for requests
---@field private waiting table<table, true> cycles that are under way
---@field private leaving table<farcall.Process, true> execs that have said their last word
---@field private cost number seconds that an exec takes until its replies are in place
---@field execs integer cycles so far
---@field failure? farcall.Error why the run had to end
local Session = {}
Session.__index = Session

---@class farcall.transport.Spec
---@field env farcall.Env
---@field token string
---@field files {name: string, text: string}[] of the stub, and the script
---@field script string the name of the script among them
---@field interpreter string[] programs, the first that is there runs the script
---@field words fun(dir: string, script: string): string[] the interpreter's arguments
---@field variables fun(dir: string): table<string, string>
---@field timeout number seconds of the whole run
---@field uses_program? boolean the stub may use $FARCALL_RUNNER
---@field log? fun(level: string, text: string)
---@field on_request fun(request: table, reply: fun(reply: table): boolean, string?)

---Prepares a run in the environment; nothing of it runs yet.
---@async
---@param spec farcall.transport.Spec
---@return farcall.file.Session?
---@return farcall.Error? err
---@nodiscard
function file.open(spec)
  local env = spec.env
  if not env.bare then
    env = guarded.wrap(env, env.caps)
  end
  local self = setmetatable({
    name = "file", env = env, spec = spec, mark = supervision.new_mark(),
    turn = 0, seen = {}, seen_count = 0, arrived = {}, outbox = {}, in_flight = 0,
    load = 0, waiting = {}, leaving = {}, cost = 0.01, useless = 0, idle = 0, troubles = 0,
    execs = 0,
  }, Session)
  local files = { { name = "token", text = spec.token } }
  for _, entry in ipairs(spec.files) do
    files[#files + 1] = entry
  end
  local made, err = place.make(env, files, spec.interpreter)
  if not made then
    return nil, err
  end
  self.dir, self.look, self.interpreter = made.dir, made.look, made.interpreter
  if not self.interpreter then
    self:close()
    return nil, lacking.interpreter(spec.interpreter)
  end
  return self
end

---Starts the script and serves its calls.
---@async
---@return farcall.Process?
---@return farcall.Error? err
function Session:start()
  local spec = self.spec
  local argv = { self.interpreter }
  for _, word in ipairs(spec.words(self.dir, self.dir .. "/" .. spec.script)) do
    argv[#argv + 1] = word
  end
  local variables = spec.variables(self.dir)
  variables.FARCALL_RUN_DIR = self.dir
  local process, err = self.env:start({
    argv = argv, env = variables, mark = self.mark, timeout = spec.timeout + BACKSTOP,
    life = { dir = self.dir, lease = file.LEASE },
  })
  if not process then
    return nil, err
  end
  self.process = process
  self.worked = task.now()
  self:schedule()
  return process
end

local function reply_text(id, reply)
  local text, problem = wire.text(id, reply)
  if text and #text > wire.MAX_REPLY then
    return nil, ("it has more than %d bytes"):format(wire.MAX_REPLY)
  end
  return text, problem
end

local function put_in_outbox(self, id, reply)
  local text, problem = reply_text(id, reply)
  if not text then
    problem = "the result cannot be sent: " .. problem
    text = assert(reply_text(id, wire.failure(id, "failed", problem)))
  end
  table.insert(self.outbox, { id = id, text = text })
  self:schedule()
  return true, problem
end

---Hands a request up, once.
local function take(self, id, text)
  local request, problem = json.decode(text)
  if request == nil then
    if #text > wire.MAX_REQUEST then
      return put_in_outbox(self, id, wire.failure(id, "limit",
        ("a request has at most %d bytes"):format(wire.MAX_REQUEST)))
    end
    return put_in_outbox(self, id, wire.failure(id, "protocol", "not a request: " .. problem))
  end
  local reason = wire.misshapen(request)
    or request.id ~= id and "its id is not the number in its file's name" or nil
  if reason then
    return put_in_outbox(self, id, wire.failure(id, "protocol", "not a request: " .. reason))
  end
  if not wire.same_token(request.token, self.spec.token) then
    return put_in_outbox(self, id, wire.failure(id, "denied", "the token is not this run's"))
  end
  local size = #text
  self.in_flight, self.load = self.in_flight + 1, self.load + size
  self.spec.on_request(request, function(reply)
    reply.id = id
    self.in_flight, self.load = self.in_flight - 1, self.load - size
    if self.closed then
      return false
    end
    return put_in_outbox(self, id, reply)
  end)
end

-- Ends the run: the far side does what it must not, or cannot be reached.
local function give_up(self, err)
  if not self.failure and not self.closed then
    self.failure = err
    if self.process then
      task.spawn(self.process.kill, self.process)
    end
  end
end

-- The requests of one cycle. Only a number can be in a name; what is in a file is checked above.
local function accept(self, brought)
  local any_new = false
  for _, entry in ipairs(brought) do
    local id = tonumber(entry.name:match("^(%d+)%.[a-z]+$") or "")
    local plain = id and #entry.name <= 20 and id < 2 ^ 53 and ("%.0f"):format(id)
    if plain and (entry.name == plain .. ".req" or entry.name == plain .. ".big") then
      self.arrived[entry.name] = true
      if not self.seen[id] then
        any_new = true
        self.seen[id] = true
        self.seen_count = self.seen_count + 1
        take(self, id, entry.text)
      end
    end
  end
  self.useless = (any_new or #brought == 0) and 0 or self.useless + 1
  if self.useless > MAX_USELESS or self.seen_count > MAX_SEEN then
    give_up(self, errors.new("protocol", "file transport",
      "the far side's directory holds requests that are none"))
  end
end

-- The replies that one command can hold, and the rest; one that is too large goes alone, by stdin.
local function pack(self)
  local room = (self.env.caps.max_command or MAX_COMMAND) - COMMAND_OVERHEAD
  local chosen, rest, used, way = {}, {}, 0, "args"
  for _, entry in ipairs(self.outbox) do
    local size = math.ceil(#entry.text / 3) * 4 + 24
    if entry.not_before and entry.not_before > task.now() then
      rest[#rest + 1] = entry
    elseif way == "args" and used + size <= room then
      chosen[#chosen + 1] = entry
      used = used + size
    elseif #chosen == 0 then
      chosen[1], way = entry, "stdin"
    else
      rest[#rest + 1] = entry
    end
  end
  self.outbox = rest
  return chosen, way
end

-- As many calls as can be are under way.
local function saturated(self)
  return self.in_flight >= wire.MAX_IN_FLIGHT or self.load >= MAX_LOAD
end

local function command(self, turn, mark, arrived, chosen, way)
  local argv = {
    "sh", "-c", far.CYCLE, "sh", mark, self.dir, ("%d"):format(turn),
    saturated(self) and "none" or self.look,
    ("%d"):format(#arrived),
  }
  for _, name in ipairs(arrived) do
    argv[#argv + 1] = name
  end
  argv[#argv + 1] = way
  local stdin
  for _, entry in ipairs(chosen) do
    argv[#argv + 1] = ("%.0f"):format(entry.id)
    if way == "args" then
      argv[#argv + 1] = base64.encode(entry.text)
    else
      stdin = entry.text
      argv[#argv + 1] = "1"
      argv[#argv + 1] = ("%d"):format(#entry.text)
    end
  end
  return argv, stdin
end

-- What had no room over there may have some a second later.
local function put_again(self, chosen, failed)
  for _, entry in ipairs(chosen) do
    if failed[entry.id] then
      entry.not_before = task.now() + 1
      table.insert(self.outbox, entry)
    end
  end
end

---Reads one exec of a cycle to its last word.
---@async
local function follow(self, process, cycle, reader)
  local total = 0
  while true do
    local stream, bytes = process:read(262144)
    if not stream then
      break
    end
    if stream == "out" then
      cycle.heard = task.now()
      total = total + #bytes
      if total > MAX_BROUGHT then
        -- What is complete by now is taken; the rest is brought by the next.
        process:kill()
        break
      end
      reader.feed(bytes)
      if reader.put and not cycle.put then
        cycle.put = true
        put_again(self, cycle.chosen, reader.failed)
        self.cost = self.cost * 0.75 + (task.now() - cycle.began) * 0.25
        self.delivering = nil
        self:schedule()
      end
      if reader["end"] or reader.spoiled then
        return nil
      end
    end
  end
  return process:wait()
end

-- What an exec does after its last word is nobody's business, but it must not be left.
---@async
local function see_off(process, watch)
  while process:read(65536) do end -- luacheck: ignore 542
  process:wait()
  watch.close()
end

-- Ends an exec that is given up. Over there it may wait for what the script has put in its way: it
-- bears a mark of its own, by which it is found.
---@async
local function end_cycle(self, cycle)
  cycle.process:kill()
  if self.env:alive() then
    supervision.kill(self.env.bare, { mark = cycle.mark, grace = 0 })
  end
end

-- Ends the exec of a cycle that has said nothing for so many seconds.
local function watch_over(self, cycle, patience)
  local timer
  local function arm(seconds)
    timer = task.loop():timer(math.ceil(seconds * 1000), function()
      local left = cycle.heard + patience - task.now()
      if left > 0 then
        arm(left)
      else
        task.spawn(end_cycle, self, cycle)
      end
    end)
  end
  arm(patience)
  return {
    close = function()
      timer:close()
    end,
  }
end

---@async
local function perform(self, cycle, argv, stdin)
  local reader = answer.reader(cycle.mark)
  local process, err = self.env.bare:start({
    argv = argv, stdin = stdin or "null", env = { FARCALL_MARK = cycle.mark },
  })
  if not process then
    return nil, err
  end
  cycle.process, cycle.heard = process, task.now()
  if self.closed then
    process:kill()
  end
  local watch = watch_over(self, cycle, file.SILENCE + (stdin and 120 or 0))
  local ok, status, failure = pcall(follow, self, process, cycle, reader)
  if ok and (reader["end"] or reader.spoiled) then
    self.leaving[process] = true
    task.spawn(function()
      see_off(process, watch)
      self.leaving[process] = nil
    end)
    return reader
  end
  watch.close()
  if not ok then
    task.shield(process.kill, process)
    error(status, 0)
  end
  if not reader["end"] and not reader.gone and #reader.brought == 0 then
    return nil, failure or errors.new("lost", "file transport",
      ("an exec ended without its last word (exit code %s)")
        :format(tostring(status and status.exit)))
  end
  return reader
end

-- A cycle waits until there is something. Who makes it end without need has the next one wait.
local function mind_pace(self, own, reader)
  if #reader.brought > 0 or own.turn ~= self.turn or task.now() - own.began > EARLY then
    self.idle = 0
  elseif not saturated(self) then
    self.idle = self.idle + 1
    if self.idle > MAX_IDLE then
      self.rest_until = task.now() + math.min(MAX_REST, 0.02 * 2 ^ (self.idle - MAX_IDLE))
    end
  end
end

---One cycle from its command to what it brought.
---@async
local function cycle(self)
  local chosen, way = pack(self)
  local arrived = {}
  for name in pairs(self.arrived) do
    if #arrived < 2 * far.MOST then
      arrived[#arrived + 1] = name
    end
  end
  self.turn = self.turn + 1
  self.execs = self.execs + 1
  local own = { mark = hex.random(16), began = task.now(), turn = self.turn, chosen = chosen }
  self.delivering, self.latest = own, own
  self.waiting[own] = true
  local argv, stdin = command(self, own.turn, own.mark, arrived, chosen, way)
  local ok, reader, err = pcall(perform, self, own, argv, stdin)
  self.waiting[own] = nil
  if self.delivering == own then
    self.delivering = nil
  end
  if self.latest == own then
    self.latest = nil
  end
  if not ok then
    reader, err = nil, errors.is(reader) and reader
      or errors.new("internal", "file transport", tostring(reader))
  end
  if self.closed or self.failure then
    return
  end
  if not own.put then
    -- Nobody knows what arrived: all of it is put in place once more, which does no harm.
    for _, entry in ipairs(chosen) do
      table.insert(self.outbox, entry)
    end
  else
    for _, name in ipairs(arrived) do
      self.arrived[name] = nil
    end
  end
  if reader and reader.spoiled then
    give_up(self, errors.new("protocol", "file transport",
      ("the script has put something else in the place of its %s"):format(reader.spoiled)))
  elseif reader then
    self.worked, self.troubles = task.now(), 0
    mind_pace(self, own, reader)
    if reader.gone then
      self.gone = true
    else
      accept(self, reader.brought)
    end
  else
    self.troubles = self.troubles + 1
    self.rest_until = task.now() + math.min(2, 0.05 * 2 ^ self.troubles)
    if task.now() - self.worked > PATIENCE or not self.env:alive() then
      give_up(self, errors.new("lost", "file transport", "no exec gets through: " .. tostring(err),
        { cause = err }))
    end
  end
  self:schedule()
end

local function launch(self)
  self.timer = nil
  if self.closed or self.failure or self.gone then
    return
  end
  task.spawn(cycle, self)
end

---Decides when the next cycle is due. Called whenever something has changed.
function Session:schedule()
  if self.closed or self.failure or self.gone or not self.process then
    return
  end
  local delay
  local ready = false
  for _, entry in ipairs(self.outbox) do
    ready = ready or not entry.not_before or entry.not_before <= task.now()
  end
  if self.delivering then
    return
  elseif ready then
    delay = self.in_flight > 0 and GATHER or 0
  elseif self.latest then
    if #self.outbox == 0 then
      return
    end
    delay = 1
  elseif saturated(self) then
    -- Nothing is fetched, but the far side waits for a sign.
    delay = #self.outbox > 0 and 1 or file.LEASE / 3
  elseif self.in_flight > 0 then
    delay = math.min(HOLD_MAX, math.max(HOLD_MIN, self.cost * HOLD_SHARE))
  else
    delay = #self.outbox > 0 and 1 or 0
  end
  delay = math.max(delay, (self.rest_until or 0) - task.now())
  local due = task.now() + delay
  if self.timer and self.due <= due then
    return
  end
  if self.timer then
    self.timer:close()
  end
  self.due = due
  self.timer = task.loop():timer(math.ceil(delay * 1000), function()
    launch(self)
  end)
end

---Ends what is left over there and here. Idempotent; after the script's process has been killed.
---@async
function Session:close()
  if self.closed then
    return
  end
  self.closed = true
  if self.timer then
    self.timer:close()
    self.timer = nil
  end
  local processes = {}
  for own in pairs(self.waiting) do
    processes[#processes + 1] = own.process
  end
  for process in pairs(self.leaving) do
    processes[#processes + 1] = process
  end
  for _, process in ipairs(processes) do
    process:kill()
  end
  -- The supervisor removes the directory when it ends; where it may not have, an exec does.
  if not (self.process and self.process.gone) then
    self.leftover = select(2, supervision.kill(self.env.bare,
      { mark = self.mark, grace = 0, dir = self.dir }))
  end
end

return file

-- SPDX-License-Identifier: MIT
-- A lost link goes on by turns where no exec stays that could be one: what is in between may give
-- an exec's output away only at its end. A turn is one exec that brings what the engine has to say,
-- waits on the far side until the runner has something to say, and ends (runner/door.h).
--
-- Both sides count the bytes of the link and keep what the other has not confirmed, so a turn may
-- be lost or cut at any time: the next one begins where both agree.

local errors = require("farcall.errors")
local task = require("farcall.task")

local runner_turns = {}

local PIECE = 262144
-- Bytes that one turn brings, and seconds that it waits for what the runner has to say.
local MAX_BYTES = 1024 * 1024
local HOLD = 20
-- Seconds in which an answer to what has come may be ready, for the next turn to take it along.
local LINGER = 0.005
-- A turn that is waited for is cut when there is something to say: at once when it has arrived;
-- when it has brought something, and ends by itself, after so many seconds; when nothing is known
-- of it, so many seconds after its start.
local LAST_WORDS, UNHEARD = 0.05, 1

---How many bytes a runner says it has had.
---@param rest string of its answer
---@return integer?
function runner_turns.count(rest)
  return tonumber((rest:match("^%d+$")))
end

---@return farcall.Error
function runner_turns.never_sent()
  return errors.new("protocol", "runner", "it resumed at what was never sent")
end

-- What there is to say, and whether that is all.
local function gather(mux)
  local pieces, size = {}, 0
  while size < MAX_BYTES do
    local bytes = mux:output(MAX_BYTES - size)
    if not bytes then
      return table.concat(pieces), true
    end
    pieces[#pieces + 1] = bytes
    size = size + #bytes
  end
  return table.concat(pieces), false
end

-- One exec, to its end. What is known of it goes into `turn` as it becomes known.
---@async
local function carry_out(link, turn, head, seconds)
  local process, rest = link.bring:turn(seconds, head .. turn.bytes)
  if not process then
    return nil, rest
  end
  turn.at = runner_turns.count(rest)
  local bytes, stream, failure = link.bring:rest(), "out", nil
  while stream and not failure do
    if stream == "err" then
      link.bring:hear(bytes)
    elseif #bytes > 0 then
      turn.fed = true
      local fed, message, code = link.mux:feed(bytes)
      failure = not fed and errors.new("protocol", "runner",
        "it broke the rules of the wire: " .. message, { code = code }) or nil
    end
    stream, bytes = process:read(PIECE)
  end
  process:kill()
  return not failure or nil, failure
end

-- There is something to say: makes way for the next turn.
---@async
local function cut(turn)
  if turn.fed then
    task.sleep(LAST_WORDS)
  elseif not turn.at then
    task.sleep(math.max(0, turn.born + UNHEARD - task.now()))
  end
  turn.is_cut = true
  turn.own:cancel()
end

-- `from`: how many bytes the runner has had, as far as one knows; nil: not at all.
---@async
---@return integer? from as it is now
---@return farcall.Error? err
local function take_one(link, from, seconds)
  local mux = link.mux
  mux:suspend()
  if from and not mux:resume(from) then
    return nil, runner_turns.never_sent()
  end
  local bytes, all = "", true
  if from then
    bytes, all = gather(mux)
  end
  local hold = from and all and not link.closed and HOLD or 0
  local head = ("%s %.0f %.0f %d %d\n"):format(link.token, mux:received(), from or 0, #bytes,
    hold * 1000)
  local turn = { bytes = bytes, born = task.now() }
  turn.own = task.spawn(carry_out, link, turn, head, hold + seconds)
  link.process = {
    kill = function()
      turn.own:cancel()
    end,
  }
  local cutter
  link.waiting = from and function()
    cutter = task.spawn(cut, turn)
  end or nil
  local ok, done, err = turn.own:join()
  link.waiting, link.process = nil, nil
  if cutter then
    cutter:cancel()
  end
  if ok and not done then
    return nil, err
  elseif not ok and not turn.is_cut then
    return nil, done
  elseif turn.fed then
    task.sleep(LINGER)
  end
  -- Where the runner was somewhere else it has let pass by what came.
  return (not turn.at or turn.at == from) and (from or 0) + #bytes or turn.at
end

---Goes on by turns until one fails, or the link is closed.
---@async
---@param link farcall.RunnerLink whose exec is lost
---@param seconds number that a turn may take beyond what it waits
---@return integer count of turns that went well
---@return farcall.Error err why there are no more
function runner_turns.take(link, seconds)
  local count, from = 0, nil
  while not link.over do
    -- What was to be said before it was closed still has to go.
    local last = link.closed and count > 0
    local reached, err = take_one(link, from, seconds)
    if not reached then
      return count, err
    end
    count, from = count + 1, reached
    if last then
      break
    end
  end
  return count, errors.new("lost", "runner", "the link is closed")
end

return runner_turns

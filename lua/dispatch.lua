-- SPDX-License-Identifier: MIT
-- A call's life: checked, asked of the policies, written down, carried out at most once, answered.
-- Every call ends in exactly one of four outcomes: done, refused, failed, unknown.

local errors = require("farcall.errors")
local json = require("farcall.core.json")
local task = require("farcall.task")

-- Of a call's arguments the result and the journal keep this much.
local SHOWN_ARGUMENT_BYTES = 200
-- Calls kept one by one in the result; beyond that they are only counted.
local MAX_LISTED = 10000
-- Reading a larger call takes the loop long enough that what comes next gets a turn of its own.
local LARGE_BYTES = 1024 * 1024
-- An idempotent call that a policy wants again is tried so often at most.
local MAX_AGAIN = 5

---@class farcall.CallRecord one row of the result's `calls`
---@field id integer
---@field tool string
---@field arguments string JSON, cut short
---@field outcome "done"|"refused"|"failed"|"unknown"
---@field duration number seconds from the request's arrival until its reply was handed to the link
---@field policy number seconds of it spent in policies, waits that they asked for included
---@field tool_time number seconds of it spent in the tool
---@field link number the rest: queueing, encoding and the hand-over to the link
---@field error? string

---@class farcall.Dispatch
local dispatch = {}
dispatch.__index = dispatch

---@class farcall.dispatch.Run what one run lends to its calls
---@field toolset farcall.Toolset
---@field chain farcall.PolicyChain
---@field journal farcall.Journal
---@field max_calls integer
---@field parallel_calls integer
---@field deadline number monotonic seconds
---@field tool_context table the handlers' ctx, without the fields that differ from call to call
---@field on_call? fun(record: farcall.CallRecord)
---@field ask? fun(question: string): boolean

---@param run farcall.dispatch.Run
---@return farcall.Dispatch
function dispatch.new(run)
  run.tool_context.deadline = run.deadline
  return setmetatable({
    run = run, context = { __index = run.tool_context }, records = {}, received = 0, made = 0,
    omitted = 0, flying = {}, permits = task.semaphore(run.parallel_calls),
  }, dispatch)
end

local function cut(text)
  if #text <= SHOWN_ARGUMENT_BYTES then
    return text
  end
  -- Not in the middle of a character: back to the start of the one that would be cut.
  local stop = SHOWN_ARGUMENT_BYTES
  while stop > 0 and text:byte(stop + 1) >= 0x80 and text:byte(stop + 1) < 0xC0 do
    stop = stop - 1
  end
  return text:sub(1, stop) .. "…"
end

---@return table reply
local function refusal(kind, message)
  return { error = { kind = kind, message = message } }
end

---Asks the policies until they have decided; waits and questions are carried out here.
---@async
---@return table? reply when the call is not to be dispatched
---@return table arguments
local function consult(self, call)
  local chain, from = self.run.chain, nil
  while true do
    local decision = chain:before(call, { from = from })
    if decision.arguments then
      call.arguments = decision.arguments
    end
    if decision.action == "allow" then
      return nil
    elseif decision.action == "answer" then
      return { result = decision.reply }
    elseif decision.action == "wait" then
      if task.now() + decision.ms / 1000 >= self.run.deadline then
        local message = "policy " .. decision.policy .. " asks for a wait beyond the deadline"
        return refusal("refused", message)
      end
      task.sleep(decision.ms / 1000)
      from = decision.next
    elseif decision.action == "ask" then
      if not (self.run.ask and self.run.ask(decision.question)) then
        return refusal("refused", "not confirmed: " .. decision.question)
      end
      from = decision.next
    else
      return refusal("refused", decision.reason)
    end
  end
end

-- Where it was raised is in the message; the rest of the traceback is for the journal.
local function explain(failure)
  if errors.is(failure) then
    return failure
  end
  return { message = tostring(failure), traceback = debug.traceback("", 2) }
end

---Runs the handler. What it raises is its own failure, not the engine's.
---@async
local function carry_out(self, tool, call)
  local ctx = setmetatable({ call_id = call.id }, self.context)
  local ok, result, err = xpcall(tool.handler, explain, call.arguments, ctx)
  if not ok then
    if errors.is(result) and result.kind == "cancelled" then
      error(result, 0)
    end
    local message = errors.is(result) and tostring(result) or result.message
    return refusal("failed", "the tool raised an error: " .. message), not errors.is(result)
      and result.traceback or nil
  end
  if result == nil then
    local kind = errors.is(err) and err.kind or "failed"
    return refusal(kind, tostring(err or "the tool returned nothing"))
  end
  return { result = result }
end

---Whether another call may be made; the reply when not.
local function over_budget(self)
  if self.made >= self.run.max_calls then
    return refusal("limit", ("this run has made all of its %d calls"):format(self.run.max_calls))
  end
  return nil
end

-- Calls that are carried out at the same time have a permit each.
local function give_back_permit(self, call)
  if call.permitted then
    call.permitted = nil
    self.permits.release()
  end
end

---From a well-formed request to a reply and an outcome.
---@async
local function live(self, record, call)
  local run = self.run
  if call.large then
    -- The watchdog must not hold it against the policies and the tool that the engine had to read.
    task.sleep(0)
  end
  local tool = run.toolset:get(call.tool)
  if not tool then
    return run.toolset:unknown(call.tool), "refused"
  end
  call.idempotent = tool.idempotent or false
  local arguments, problem = tool.validator(call.arguments)
  if not arguments then
    return refusal("usage", problem), "refused"
  end
  call.arguments = arguments
  local spent = over_budget(self)
  if spent then
    return spent, "refused"
  end

  local began = task.now()
  local reply = consult(self, call)
  record.policy = task.now() - began
  local outcome
  if reply then
    outcome = reply.error and "refused" or "done"
  else
    self.permits.acquire()
    call.permitted = true
    reply = over_budget(self)
    if not reply then
      self.made = self.made + 1
      record.dispatched = true
      run.journal:event("call",
        { id = record.id, tool = record.tool, arguments = record.arguments })
      local tries = 0
      repeat
        local again
        began = task.now()
        local traceback
        reply, traceback = carry_out(self, tool, call)
        record.tool_time = record.tool_time + task.now() - began
        record.traceback = traceback
        tries = tries + 1
        if reply.error and tool.idempotent and tries < MAX_AGAIN then
          again = run.chain:again(call, reply)
          if again then
            -- The next attempt is a new pass through the policies.
            task.sleep(again / 1000)
            local refused = consult(self, call)
            reply, again = refused or reply, not refused
          end
        end
      until not again
      outcome = reply.error and "failed" or "done"
    else
      outcome = "refused"
    end
    give_back_permit(self, call)
  end
  return reply, outcome
end

---@return table reply
local function after(self, record, call, reply, outcome)
  local began = task.now()
  reply.outcome = outcome
  reply = self.run.chain:after(call, reply)
  reply.outcome = nil
  record.policy = record.policy + task.now() - began
  return reply
end

---A call from its first check to its last word.
---@async
local function see_through(self, record, call, respond, arrived)
  local ok, reply, outcome = pcall(live, self, record, call)
  if not ok then
    -- Cancelled, because the run has ended or nobody waits for the reply any more: what the tool
    -- did by then, nobody can say.
    local failure = reply
    give_back_permit(self, call)
    outcome = record.dispatched and "unknown" or "refused"
    reply = refusal(outcome, tostring(failure))
  end
  record.outcome = outcome
  reply = after(self, record, call, reply, outcome)
  record.error = reply.error and reply.error.message
  local _, unsendable = respond(reply)
  if unsendable then
    record.outcome, record.error = "failed", unsendable
  end
  record.duration = task.now() - arrived
  record.link = record.duration - record.policy - record.tool_time
  self.run.journal:event("reply", {
    id = record.id, tool = not record.dispatched and record.tool or nil,
    outcome = record.outcome, duration = record.duration, error = record.error,
    traceback = record.traceback,
  })
  record.traceback = nil
  self.flying[record] = nil
  if self.run.on_call then
    self.run.on_call(record)
  end
end

---Takes a request from the link. respond(reply) is called exactly once; a run that has ended
---refuses. Nothing waits here: the call lives in a task of its own.
---@param request {tool: string, args: table}
---@param respond fun(reply: table): boolean, string?
---@return fun()? cancel gives the call up: whoever made it has gone. nil when it is over already
function dispatch:call(request, respond)
  if self.closed then
    respond(refusal("refused", "the run has ended"))
    return nil
  end
  if request.tool == "farcall.remaining" then
    respond({ result = self:remaining() })
    return nil
  end
  self.received = self.received + 1
  local arrived = task.now()
  local arguments = json.encode(request.args)
  local record = {
    id = self.received, tool = request.tool, arguments = cut(arguments),
    outcome = "unknown", duration = 0, policy = 0, tool_time = 0, link = 0,
  }
  if #self.records < MAX_LISTED then
    self.records[#self.records + 1] = record
  else
    self.omitted = self.omitted + 1
  end
  local call = {
    id = record.id, tool = request.tool, arguments = request.args, large = #arguments > LARGE_BYTES,
  }

  local own = task.spawn(see_through, self, record, call, respond, arrived)
  if own:done() then
    return nil
  end
  self.flying[record] = own
  return function()
    own:cancel(errors.new("cancelled", "call", "its caller has gone"))
  end
end

---@return {calls: integer, seconds: number}
function dispatch:remaining()
  return {
    calls = self.run.max_calls - self.made, seconds = math.max(0, self.run.deadline - task.now()),
  }
end

---No call is dispatched from now on; those in flight are cancelled and end as unknown. Idempotent.
---@async
function dispatch:close()
  self.closed = true
  local flying = {}
  for _, call in pairs(self.flying) do
    flying[#flying + 1] = call
  end
  for _, call in ipairs(flying) do
    call:cancel(errors.new("cancelled", "call", "the run has ended"))
  end
  for _, call in ipairs(flying) do
    call:join()
  end
end

return dispatch

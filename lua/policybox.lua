-- SPDX-License-Identifier: MIT
-- What stands around a policy inside its box: the decisions, ctx, and the functions by which the
-- chain calls the policy's hooks. It reaches the box as code and runs there before the policy; it
-- keeps the functions that it needs in locals, so that nothing a policy redefines changes it.

---@param host table functions of the host: now, date, random, get, set, redact
local function inside(host)
  local type, error, setmetatable, tostring = type, error, setmetatable, tostring
  local rawset, pairs, huge = rawset, pairs, math.huge

  -- A decision is an empty token; what it says is kept here, where a policy cannot change it.
  local said = setmetatable({}, { __mode = "k" })

  local function decide(action, value)
    local token = {}
    said[token] = { action, value }
    return token
  end

  local function check_text(text, what)
    if type(text) ~= "string" or text == "" then
      error(what .. " needs a text, not " .. type(text), 3)
    end
  end

  local function check_time(ms, what)
    if type(ms) ~= "number" or not (ms >= 0 and ms < huge) then
      error(what .. " needs a time in milliseconds", 3)
    end
  end

  local function shown(value)
    local decision = said[value or 0]
    return decision and decision[1] .. "()" or value == nil and "nil" or "a " .. type(value)
  end

  local allowed = decide("allow")
  rawset(_G, "allow", function()
    return allowed
  end)
  rawset(_G, "deny", function(reason)
    check_text(reason, "deny(reason)")
    return decide("deny", reason)
  end)
  rawset(_G, "ask", function(question)
    check_text(question, "ask(question)")
    return decide("ask", question)
  end)
  rawset(_G, "replace", function(arguments)
    if type(arguments) ~= "table" then
      error("replace(arguments) needs a table, not " .. type(arguments), 2)
    end
    return decide("replace", arguments)
  end)
  rawset(_G, "answer", function(reply)
    if reply == nil then
      error("answer(reply) needs a value; null says that there is nothing", 2)
    end
    return decide("answer", reply)
  end)
  rawset(_G, "wait", function(ms)
    check_time(ms, "wait(ms)")
    return decide("wait", ms)
  end)
  rawset(_G, "again", function(ms)
    check_time(ms, "again(ms)")
    return decide("again", ms)
  end)

  local HOOKS = { before = true, after = true, place = true, finish = true }
  local policy, ctx
  local methods = {}

  -- Each of these gives the answer, or nil, what is wrong and the word in the file it is about.
  function methods.load(loaded)
    if type(loaded) ~= "table" then
      return nil, "a policy file returns a table, this one a " .. type(loaded), "return"
    end
    for _, field in pairs({ "name", "summary" }) do
      if type(loaded[field]) ~= "string" or loaded[field] == "" then
        return nil, "the policy has no " .. field, loaded[field] ~= nil and field or "return"
      end
    end
    local hooks, any = {}, false
    for field, value in pairs(loaded) do
      if HOOKS[field] then
        if type(value) ~= "function" then
          return nil, field .. " must be a function, not a " .. type(value), field
        end
        hooks[field], any = true, true
      elseif field == "options" then
        if type(value) ~= "table" then
          return nil, "options must be a table", field
        end
      elseif field ~= "name" and field ~= "summary" then
        return nil, "a policy has no field '" .. tostring(field) .. "'", tostring(field)
      end
    end
    if not any then
      return nil, "the policy has none of before, after, place, finish", "return"
    end
    policy = loaded
    return { name = loaded.name, summary = loaded.summary, options = loaded.options or {},
      hooks = hooks }
  end

  function methods.start(facts)
    ctx = setmetatable({
      options = facts.options, run_id = facts.run_id, job = facts.job, run = {}, calls_made = 0,
      operator = { get = host.get, set = host.set }, now = host.now, random = host.random,
      redact = host.redact,
    }, {
      __index = function(_, key)
        return key == "date" and host.date() or nil
      end,
    })
  end

  local BEFORE = {
    allow = true, deny = true, replace = true, answer = true, ask = true, wait = true,
  }

  function methods.before(call, made)
    ctx.calls_made = made
    local token = policy.before(call, ctx)
    if token == allowed then
      return "allow"
    end
    local decision = said[token or 0]
    if not decision or not BEFORE[decision[1]] then
      return nil, "before must return allow(), deny(reason), replace(arguments), answer(reply), "
        .. "ask(question) or wait(ms); it returned " .. shown(token), "before"
    end
    return decision[1], decision[2]
  end

  function methods.after(call, reply, made)
    ctx.calls_made = made
    local outcome = reply.outcome
    local answer = policy.after(call, reply, ctx)
    local decision = said[answer or 0]
    if decision and decision[1] == "again" then
      if outcome ~= "failed" then
        return nil, "again(ms) is only for a call that failed", "again"
      end
      return "again", decision[2]
    end
    local failure = type(answer) == "table" and answer.error
    if decision or type(answer) ~= "table" or not failure and answer.result == nil then
      return nil, "after must return a reply with result or error, or again(ms); it returned "
        .. shown(answer), "after"
    end
    if failure and (type(failure) ~= "table" or type(failure.message) ~= "string") then
      return nil, "the reply's error must be a table with kind and message", "after"
    end
    if failure then
      return "reply", nil, { kind = failure.kind, message = failure.message }
    end
    return "reply", answer.result
  end

  function methods.place(job, candidates)
    local choice = policy.place(job, candidates, ctx)
    local decision = said[choice or 0]
    if decision and decision[1] == "deny" then
      return "deny", decision[2]
    end
    if choice ~= nil and type(choice) ~= "string" then
      return nil, "place must return the name of a backend, deny(reason) or nil", "place"
    end
    return "place", choice
  end

  function methods.finish(result)
    local changed = policy.finish(result, ctx)
    if type(changed) ~= "table" or said[changed] then
      return nil, "finish must return the result; it returned " .. shown(changed), "finish"
    end
    return "result", changed
  end

  return methods
end

---@type string compiled; it is trusted, unlike what is loaded into the box after it
return string.dump(inside, true)

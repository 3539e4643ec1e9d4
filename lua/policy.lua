-- SPDX-License-Identifier: MIT
-- The chain of policies of one run. Each file runs in a box of its own (core/lua_box.h): what it
-- raises, overruns or returns by mistake denies, and says file and line. Nothing here waits.

local errors = require("farcall.errors")
local plugin = require("farcall.plugin")
local policyfile = require("farcall.policyfile")
local schema = require("farcall.schema")

-- So often one call's arguments may be replaced.
local MAX_REPLACED = 8

local policy = { describe = policyfile.describe }

---@class farcall.PolicyDecision
---@field action "allow"|"deny"|"answer"|"ask"|"wait"
---@field policy? string who decided, unless all allowed
---@field reason? string of a denial, with the policy's name
---@field reply? any of an answer
---@field question? string
---@field ms? number
---@field next? integer ask or wait: where to go on, as `from`
---@field arguments? table the call's arguments when a policy has replaced them

---@class farcall.policy.Link one policy of a chain
---@field name string
---@field path string
---@field source string
---@field hooks table<string, true>
---@field options table
---@field state table<string, any> what the operator keeps for it, over runs
---@field box? userdata made at the first use

---@class farcall.PolicyChain
---@field private spec farcall.policy.Spec
---@field private links farcall.policy.Link[]
---@field private passes table<table, {passed: table<integer, true>, replaced: integer}>
local Chain = {}
Chain.__index = Chain

-- The operator's state of a policy: of the first use of a file, of the second, and so on.
local function state_of(operator, path, seen)
  seen[path] = (seen[path] or 0) + 1
  local key = path .. "#" .. seen[path]
  operator[key] = operator[key] or {}
  return operator[key]
end

---@return farcall.policy.Link?
---@return farcall.Error? err
local function new_link(spec, entry, seen)
  local path, problem = entry.path, nil
  if not path then
    path, problem = plugin.find("policy", entry.name, spec.policy_path or {})
  end
  if not path then
    return nil, problem
  end
  local description, err = policyfile.describe(path)
  if not description then
    return nil, err
  end
  local options
  options, err = schema.options(description.options, entry.options or {},
    "policy " .. description.name)
  if not options then
    return nil, err
  end
  return {
    name = description.name, path = path, source = policyfile.source(path),
    hooks = description.hooks, options = options, state = state_of(spec.operator or {}, path, seen),
  }
end

---@class farcall.policy.Spec
---@field policies {name?: string, path?: string, options?: table}[] of all layers, in order
---@field policy_path? string[] where the named ones are looked for
---@field run_id string
---@field job table facts that policies see as ctx.job
---@field operator? table state that outlives the run; the chain keeps a part of it for each policy
---@field now fun(): number unix seconds
---@field random fun(m?: integer, n?: integer): number
---@field validate? fun(tool: string, arguments: table): table?, string? of replaced arguments
---@field limits? {memory_bytes?: integer, instructions?: integer, milliseconds?: integer} of a box

---Checks every policy and its options, and makes the chain. Boxes are made when they are needed.
---@param spec farcall.policy.Spec
---@return farcall.PolicyChain?
---@return farcall.Error? err
---@nodiscard
function policy.chain(spec)
  local links, seen = {}, {}
  for index, entry in ipairs(spec.policies) do
    local link, err = new_link(spec, entry, seen)
    if not link then
      return nil, err
    end
    links[index] = link
  end
  return setmetatable({
    spec = spec, links = links, made = 0, passes = setmetatable({}, { __mode = "k" }),
  }, Chain)
end

-- Calls a hook. Returns what the box's function returns, or nil and what is wrong.
local function enter(self, link, method, ...)
  if not link.box then
    local box, problem = policyfile.open(link.path, link.source, self.spec, link.state)
    if not box then
      return nil, problem
    end
    link.box = box
    local ok, message = box:call("start", {
      options = link.options, run_id = self.spec.run_id, job = self.spec.job,
    })
    if not ok then
      return nil, policyfile.located(link.path, link.source, message)
    end
  end
  local ok, verdict, value, extra = link.box:call(method, ...)
  if not ok then
    return nil, policyfile.located(link.path, link.source, verdict, method)
  end
  if not verdict then
    return nil, policyfile.located(link.path, link.source, value, extra)
  end
  return verdict, value, extra
end

local function denial(link, reason)
  return {
    action = "deny", policy = link.name, reason = ("policy %s: %s"):format(link.name, reason),
  }
end

-- Arguments in place of the call's, checked like those that a script sent.
local function replaced(self, call, pass, arguments)
  pass.replaced = pass.replaced + 1
  if pass.replaced > MAX_REPLACED then
    return nil, ("the arguments were replaced more than %d times"):format(MAX_REPLACED)
  end
  if not self.spec.validate then
    return arguments
  end
  local checked, problem = self.spec.validate(call.tool, arguments)
  if not checked then
    return nil, "replaced the arguments by wrong ones: " .. tostring(problem)
  end
  return checked
end

local PAYLOAD = { answer = "reply", ask = "question", wait = "ms" }

---Asks the policies in order. A new call begins at the first; one that was asked about or waited
---goes on at `from`. Ask and wait are carried out by the caller, who then calls again.
---@param call {id: any, tool: string, arguments: table, idempotent?: boolean}
---@param opts? {from?: integer}
---@return farcall.PolicyDecision
function Chain:before(call, opts)
  local from = opts and opts.from
  local pass = from and self.passes[call]
  if not pass then
    pass, from = { passed = {}, replaced = 0 }, 1
    self.passes[call] = pass
  elseif from > 1 then
    pass.passed[from - 1] = true
  end
  local view = {
    id = call.id, tool = call.tool, arguments = call.arguments,
    idempotent = call.idempotent or false,
  }
  local decision
  local index = from
  while not decision and index <= #self.links do
    local link = self.links[index]
    local action, value = "allow", nil
    if link.hooks.before then
      action, value = enter(self, link, "before", view, self.made)
    end
    pass.passed[index] = action == "allow" or nil
    index = index + 1
    if not action or action == "deny" then
      decision = denial(link, value)
    elseif action == "replace" then
      local arguments, problem = replaced(self, call, pass, value)
      if arguments then
        view.arguments, pass.arguments, index = arguments, arguments, 1
      else
        decision = denial(link, problem)
      end
    elseif action ~= "allow" then
      decision = { action = action, policy = link.name, next = index }
      decision[PAYLOAD[action]] = value
    end
  end
  if not decision then
    self.made = self.made + 1
    decision = { action = "allow" }
  end
  decision.arguments = pass.arguments
  return decision
end

-- The reply as the hooks of those who passed the call make it, and how long one of them wants to
-- wait before the call is made again.
local function run_after(self, call, reply)
  local pass = self.passes[call]
  local again
  if not pass then
    return reply
  end
  for index, link in ipairs(self.links) do
    if pass.passed[index] and link.hooks.after then
      local verdict, value, failure = enter(self, link, "after", {
        id = call.id, tool = call.tool, arguments = call.arguments,
        idempotent = call.idempotent or false,
      }, { outcome = reply.outcome, result = reply.result, error = reply.error }, self.made)
      if verdict == "again" then
        again = math.max(again or 0, value)
      elseif not verdict then
        -- What a policy could not look at does not reach the script.
        reply = {
          outcome = reply.outcome,
          error = { kind = "refused", message = ("policy %s: %s"):format(link.name, value) },
        }
      elseif failure or reply.outcome == "done" or reply.outcome == "failed" then
        if failure then
          failure.kind = type(failure.kind) == "string" and failure.kind or "failed"
        end
        reply = { outcome = reply.outcome, result = value, error = failure }
      end
    end
  end
  return reply, again
end

---After an attempt of an idempotent call that failed: whether a policy wants it made again. If not,
---this was the call's `after`, and Chain:after gives what came of it. If so, the next attempt is a
---new pass: ask Chain:before again, so that every `before` that passed has one `after`.
---@param call table the one that Chain:before was given
---@param reply {error: {kind: string, message: string}}
---@return number? ms
function Chain:again(call, reply)
  local pass = self.passes[call]
  if not pass then
    return nil
  end
  local changed, ms = run_after(self, call,
    { outcome = "failed", result = reply.result, error = reply.error })
  if not ms then
    pass.reply = changed
  end
  return ms
end

---What a call's reply becomes; to be called once for each call, whatever its outcome.
---@param call table the one that Chain:before was given
---@param reply {outcome: string, result?: any, error?: {kind: string, message: string}}
---@return {outcome: string, result?: any, error?: {kind: string, message: string}}
function Chain:after(call, reply)
  local pass = self.passes[call]
  local changed = pass and pass.reply or run_after(self, call, reply)
  changed.outcome = reply.outcome
  self.passes[call] = nil
  return changed
end

---Lets the policies choose the job's backend: the first choice stands, and later policies can only
---refuse it.
---@param job table facts of the job
---@param candidates {name: string}[]
---@return string? name nil without an error: no policy cares
---@return farcall.Error? err denied, with the op "placement"
function Chain:place(job, candidates)
  local chosen
  for _, link in ipairs(self.links) do
    if link.hooks.place then
      local verdict, value = enter(self, link, "place", job, candidates)
      local problem = verdict ~= "place" and value
      local found
      for _, candidate in ipairs(verdict == "place" and candidates or {}) do
        found = found or candidate.name == value and candidate
      end
      if verdict == "place" and value and not found then
        problem = ("there is no candidate called %q to place the job on"):format(value)
      end
      if problem then
        return nil, errors.new("denied", "placement", ("policy %s: %s"):format(link.name, problem))
      end
      if found then
        chosen, candidates = found.name, { found }
      end
    end
  end
  return chosen
end

-- Fields of a result that need not be there.
local OPTIONAL = {
  error = true, hint = true, spill_path = true, stderr_spill_path = true, calls_omitted = true,
  error_kind = true, exit_code = true, signal = true,
}

-- Whatever reads a result relies on its shape.
local function shape_problem(old, new)
  for field, value in pairs(old) do
    local kept = new[field]
    if kept == nil and not OPTIONAL[field] then
      return "finish took the result's " .. field .. " away"
    elseif kept ~= nil and type(kept) ~= type(value) then
      return ("finish made the result's %s a %s"):format(field, type(kept))
    end
  end
  return nil
end

---What the run's result becomes. Of a policy that fails here, the output is withheld.
---@param result table
---@return table
function Chain:finish(result)
  for _, link in ipairs(self.links) do
    if link.hooks.finish then
      local verdict, value = enter(self, link, "finish", result)
      local problem = verdict and shape_problem(result, value)
      if problem then
        verdict, value = nil, policyfile.located(link.path, link.source, problem, "finish")
      end
      if verdict then
        result = value
      else
        local kept = {}
        for field, old in pairs(result) do
          kept[field] = old
        end
        kept.output, kept.stderr, kept.status = "", "", "refused"
        kept.spill_path, kept.stderr_spill_path = nil, nil
        kept.error = ("policy %s: %s"):format(link.name, value)
        result = kept
      end
    end
  end
  return result
end

---Frees the boxes. Idempotent.
function Chain:close()
  for _, link in ipairs(self.links) do
    if link.box then
      link.box:close()
      link.box = nil
    end
  end
  self.links = {}
end

return policy

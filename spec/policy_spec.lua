-- SPDX-License-Identifier: MIT
-- lua/policy.lua: the chain of policies and every rule of it.

local helper = require("spec.helper")
local json = require("farcall.core.json")
local policy = require("farcall.policy")

local NOW = 1700000000.5

describe("a chain of policies", function()
  local dir, count, chain

  before_each(function()
    dir, count, chain = helper.scratch(), 0, nil
  end)

  after_each(function()
    if chain then
      chain:close()
    end
  end)

  -- A policy file with these hooks; the text begins on its line 2.
  local function file(hooks)
    count = count + 1
    local name = "p" .. count
    return helper.write(dir .. "/" .. name .. ".lua",
      ("return { name = %q, summary = \"a test\",\n%s }"):format(name, hooks))
  end

  local function open(files, over)
    local spec = {
      policies = {}, run_id = "run-1", job = { language = "python", timeout = 5 }, operator = {},
      now = function()
        return NOW
      end,
      random = function(m)
        return m or 0.25
      end,
      limits = { milliseconds = 60000 },
    }
    for key, value in pairs(over or {}) do
      spec[key] = value
    end
    for i, entry in ipairs(files) do
      spec.policies[i] = type(entry) == "table" and entry or { path = entry }
    end
    local err
    chain, err = policy.chain(spec)
    return chain, err
  end

  local function before(call)
    return chain:before(call or { id = 1, tool = "echo", arguments = { n = 1 } })
  end

  local function denied(hooks, wanted, over)
    assert(open({ file(hooks) }, over))
    local decision = before()
    assert.equal("deny", decision.action)
    assert.is_truthy(decision.reason:find(wanted, 1, true), decision.reason)
    chain:close()
    chain = nil
    return decision
  end

  it("allows when there is no policy", function()
    assert(open({}))
    assert.same({ action = "allow" }, before())
    assert.same({ outcome = "done", result = 1 }, chain:after({}, { outcome = "done", result = 1 }))
    assert.is_nil((chain:place({}, { { name = "a" } })))
    assert.same({ status = "success" }, chain:finish({ status = "success" }))
  end)

  it("ends at the first that denies", function()
    assert(open({
      file("before = function() return allow() end"),
      file("before = function() return deny('not on Fridays') end"),
      file("before = function() error('never asked') end"),
    }))
    assert.same({ action = "deny", policy = "p2", reason = "policy p2: not on Fridays" }, before())
  end)

  it("hands answers, questions and waits to the caller, and goes on behind them", function()
    assert(open({
      file("before = function(call, ctx) ctx.run.n = (ctx.run.n or 0) + 1 "
        .. "if ctx.run.n > 1 then error('asked twice') end return wait(20) end"),
      file("before = function() return ask('really?') end"),
      file("before = function() return answer({ from = 'policy', list = array() }) end"),
    }))
    local call = { id = 1, tool = "echo", arguments = {} }
    local decision = chain:before(call)
    assert.same({ action = "wait", policy = "p1", ms = 20, next = 2 }, decision)
    decision = chain:before(call, { from = decision.next })
    assert.same({ action = "ask", policy = "p2", question = "really?", next = 3 }, decision)
    decision = chain:before(call, { from = decision.next })
    assert.equal("answer", decision.action)
    assert.equal("policy", decision.reply.from)
    assert.is_true(json.is_array(decision.reply.list))
  end)

  it("starts anew with replaced arguments, which are checked again", function()
    local checked = {}
    local first = file("before = function(call, ctx) "
      .. "if call.arguments.n > 100 then return deny('too large') end return allow() end")
    local second = file("before = function(call) if call.arguments.n == 1 then "
      .. "return replace({ n = 7 }) end return allow() end")
    local over = {
      validate = function(tool, arguments)
        checked[#checked + 1] = tool .. arguments.n
        if arguments.n < 0 then
          return nil, "arguments.n: too small"
        end
        return { n = arguments.n, filled = true }
      end,
    }
    assert(open({ first, second }, over))
    assert.same({ action = "allow", arguments = { n = 7, filled = true } }, before())
    assert.same({ "echo7" }, checked)
    chain:close()
    assert(open({ first, file("before = function() return replace({ n = 101 }) end") }, over))
    assert.same({ action = "deny", policy = "p1", reason = "policy p1: too large",
      arguments = { n = 101, filled = true } }, before())
    chain:close()
    assert(open({ file("before = function() return replace({ n = -1 }) end") }, over))
    assert.is_truthy(before().reason:find("by wrong ones: arguments.n: too small", 1, true))
  end)

  it("replaces a call's arguments 8 times at most", function()
    assert(open({ file("before = function(call) return replace({ n = call.arguments.n + 1 }) "
      .. "end") }))
    local decision = before()
    assert.equal("deny", decision.action)
    assert.equal("policy p1: the arguments were replaced more than 8 times", decision.reason)
    chain:close()
    assert(open({ file("before = function(call) if call.arguments.n == 9 then return allow() end "
      .. "return replace({ n = call.arguments.n + 1 }) end") }))
    assert.same({ action = "allow", arguments = { n = 9 } }, before())
  end)

  it("denies on errors, limits and wrong answers, and says file and line", function()
    local path = dir .. "/p%d.lua:%d: "
    denied("before = function()\nerror('bug') end", path:format(1, 3) .. "bug")
    denied("before = function()\n\n return nil + 1 end", path:format(2, 4) .. "attempt to perform")
    denied("\nbefore = function() end",
      path:format(3, 3) .. "before must return allow(), deny(reason), replace(arguments), ")
    denied("before = function() return true end", "it returned a boolean")
    denied("before = function() return again(1) end", "it returned again()")
    denied("before = function() return {} end", "it returned a table")
    denied("before = function()\nlocal d = deny() return d end",
      path:format(7, 3) .. "deny(reason) needs a text")
    denied("\nbefore = function() return deny() end",
      path:format(8, 3) .. "deny(reason) needs a text")
    denied("before = function() return (wait(-1)) end", "wait(ms) needs a time")
    denied("before = function() return (wait(0/0)) end", "wait(ms) needs a time")
    denied("before = function() return (replace(1)) end", "replace(arguments) needs a table")
    denied("before = function()\nwhile true do end end", path:format(12, 3) .. "ran more than")
    denied("before = function()\nwhile true do pcall(error) end end", path:format(13,
      3) .. "ran more")
    denied("before = function()\nlocal x = ('a'):rep(30000):find(('a-'):rep(8) .. 'b') end",
      path:format(14, 3) .. "ran more than")
    denied("before = function()\nlocal t = {} while true do t[#t + 1] = {} end end",
      path:format(15, 3) .. "needed more than 3000000 bytes", { limits = { memory_bytes = 3000000,
        milliseconds = 60000 } })
    denied("before = function() return ('x'):rep(30000):find(('x-'):rep(8) .. 'y') end",
      dir .. "/p16.lua: ran more than")
    denied("before = function() return answer(function() end) end", "cannot be passed: a function")
    denied("before = function() error({}) end", "p18.lua:2: raised an error that is a table")
  end)

  it("goes on with other calls after a strike", function()
    assert(open({ file("before = function(call)\nwhile call.tool == 'loop' do end return "
      .. "allow() end") }))
    for _ = 1, 3 do
      assert.equal("deny", before({ id = 1, tool = "loop", arguments = {} }).action)
      assert.equal("allow", before({ id = 2, tool = "echo", arguments = {} }).action)
    end
  end)

  it("gives no policy a way to change a decision or another policy", function()
    assert(open({
      file("before = function(call) local d = deny('no') d[1] = 'allow' d[2] = nil "
        .. "call.arguments.n = 99 rawset(_G, 'deny', allow) setmetatable(_G, { __index = allow }) "
        .. "getmetatable('').__index = nil return d end"),
    }))
    assert.equal("policy p1: no", before().reason)
    chain:close()
    assert(open({
      file("before = function(call, ctx) call.arguments.n = 99 ctx.options.x = 1 deny = allow "
        .. "return allow() end"),
      file("before = function(call, ctx) assert(call.arguments.n == 1 and not ctx.options.x) "
        .. "return deny('still ' .. call.arguments.n) end"),
    }))
    local call = { id = 1, tool = "echo", arguments = { n = 1 } }
    assert.equal("policy p3: still 1", chain:before(call).reason)
    assert.equal(1, call.arguments.n)
  end)

  it("asks after exactly those who passed the call, in order, whatever its outcome", function()
    local function noting(verdict)
      return file("before = function() return " .. verdict .. " end,\n"
        .. "after = function(call, reply, ctx) local seen = ctx.operator.get('seen') or {} "
        .. "seen[#seen + 1] = reply.outcome ctx.operator.set('seen', seen) return reply end")
    end
    local operator = {}
    local files = { noting("allow()"), noting("allow()"), noting("deny('no')"), noting("allow()") }
    assert(open(files, { operator = operator }))
    local call = { id = 1, tool = "echo", arguments = {} }
    chain:before(call)
    local refusal = { kind = "refused", message = "no" }
    assert.same({ outcome = "refused", error = refusal },
      chain:after(call, { outcome = "refused", error = refusal }))
    local function seen(i)
      return (operator[files[i] .. "#1"] or {}).seen
    end
    assert.same({ "refused" }, seen(1))
    assert.same({ "refused" }, seen(2))
    assert.is_nil(seen(3))
    assert.is_nil(seen(4))
    -- Once only.
    chain:after(call, { outcome = "refused", error = refusal })
    assert.same({ "refused" }, seen(1))
  end)

  it("counts a policy as passed once its wait or question is over", function()
    local path = file("before = function() return ask('?') end, after = function(_, reply, ctx) "
      .. "ctx.operator.set('seen', reply.outcome) return reply end")
    local operator = {}
    assert(open({ path }, { operator = operator }))
    local call = { id = 1, tool = "echo", arguments = {} }
    chain:before(call)
    chain:after(call, { outcome = "refused", error = { kind = "refused", message = "no" } })
    assert.is_nil(operator[path .. "#1"].seen)
    local decision = chain:before(call)
    assert.equal("allow", chain:before(call, { from = decision.next }).action)
    chain:after(call, { outcome = "done", result = 1 })
    assert.equal("done", operator[path .. "#1"].seen)
  end)

  it("lets after change a reply, and withholds it when after fails", function()
    local function after(body, reply)
      assert(open({ file("after = function(call, reply, ctx) " .. body .. " end") }))
      local call = { id = 1, tool = "echo", arguments = {} }
      chain:before(call)
      local changed = chain:after(call, reply or { outcome = "done", result = { text = "secret" } })
      chain:close()
      chain = nil
      return changed
    end
    assert.same({ outcome = "done", result = { text = "***" } },
      after("reply.result.text = '***' return reply"))
    assert.same({ outcome = "done", result = 7 }, after("return { result = 7 }"))
    assert.same({ outcome = "done", error = { kind = "failed", message = "hidden" } },
      after("return { error = { message = 'hidden' } }"))
    assert.same({ outcome = "done", error = { kind = "failed", message = "hidden" } },
      after("return { error = { message = 'hidden', kind = {} } }"))
    for _, body in ipairs({
      "error('bug')", "return nil", "return 7", "return allow()", "return again(1)", "return {}",
      "return { error = 'text' }", "while true do end", "return { result = print or error }",
    }) do
      local reply = after(body)
      assert.is_nil(reply.result, body)
      assert.equal("refused", reply.error.kind)
      assert.is_truthy(reply.error.message:find("^policy p%d+: "), reply.error.message)
    end
    -- What was refused or may have happened does not become a success.
    local failure = { kind = "refused", message = "no" }
    assert.same({ outcome = "refused", error = failure },
      after("return { result = 'fine' }", { outcome = "refused", error = failure }))
  end)

  it("makes a failed call again only where a policy wants it", function()
    assert(open({
      file("after = function(call, reply, ctx) ctx.run.n = (ctx.run.n or 0) + 1 "
        .. "if reply.outcome == 'failed' and ctx.run.n < 3 then return again(10 * ctx.run.n) end "
        .. "return reply end"),
    }))
    local call = { id = 1, tool = "echo", arguments = {}, idempotent = true }
    local reply = { error = { kind = "failed", message = "flaky" } }
    chain:before(call)
    assert.equal(10, chain:again(call, reply))
    chain:before(call)
    assert.equal(20, chain:again(call, reply))
    chain:before(call)
    assert.is_nil(chain:again(call, reply))
    reply.outcome = "failed"
    assert.same({ outcome = "failed", error = reply.error }, chain:after(call, reply))
  end)

  it("pairs every before that passed with one after, over all attempts", function()
    local operator, files = {}, {}
    for i = 1, 3 do
      files[i] = file("before = function(call, ctx) ctx.operator.set('open', "
        .. "(ctx.operator.get('open') or 0) + 1) return allow() end,\n"
        .. "after = function(call, reply, ctx) ctx.operator.set('open', "
          .. "ctx.operator.get('open') - 1) "
        .. "ctx.run.n = (ctx.run.n or 0) + 1 " .. (i == 2
        and "if reply.error and ctx.run.n < 4 then return again(1) end " or "") .. "return "
          .. "reply end")
    end
    assert(open(files, { operator = operator }))
    local call = { id = 1, tool = "echo", arguments = {}, idempotent = true }
    local reply, attempts = { error = { kind = "failed", message = "flaky" } }, 0
    repeat
      assert.equal("allow", chain:before(call).action)
      attempts = attempts + 1
    until not chain:again(call, reply)
    reply.outcome = "failed"
    chain:after(call, reply)
    assert.equal(4, attempts)
    for i = 1, 3 do
      assert.equal(0, operator[files[i] .. "#1"].open)
    end
  end)

  it("gives time, chance and state through ctx", function()
    local operator = {}
    local path = file([[
      options = { limit = { type = "integer", default = 3, doc = "how many" } },
      before = function(call, ctx)
        ctx.run.n = (ctx.run.n or 0) + 1
        ctx.operator.set("n", (ctx.operator.get("n") or 0) + 1)
        return answer({
          ctx.now(), ctx.random(), ctx.random(6), ctx.date.year > 2000, ctx.run.n, ctx.calls_made,
          ctx.operator.get("n"), ctx.run_id, ctx.job.language, ctx.options.limit,
          call.id, call.tool, call.idempotent, null, tostring(ctx.nothing),
        })
      end]])
    for i = 1, 2 do
      assert(open({ { path = path, options = { limit = 3 + i } } }, { operator = operator }))
      assert.same({ NOW, 0.25, 6, true, 1, 0, i, "run-1", "python", 3 + i, 1, "echo", false,
        json.null, "nil" }, before().reply)
      chain:close()
    end
    assert(open({ path, path }, { operator = operator }))
    assert.equal(3, before().reply[10])
    assert.equal(2, operator[path .. "#1"].n - 1)
    denied("before = function(call, ctx) ctx.operator.set('f', print or error) end", "a function")
    denied("before = function(call, ctx)\nctx.operator.set({}, 1) end", "needs a text as key")
  end)

  it("counts the calls that all policies have allowed", function()
    assert(open({ file("before = function(call, ctx) if call.tool == 'no' then return "
      .. "deny('no') end "
      .. "if ctx.calls_made == 2 then return deny('two made') end return allow() end") }))
    for _, row in ipairs({ { "a", "allow" }, { "no", "deny" }, { "b", "allow" }, { "c",
      "deny" } }) do
      assert.equal(row[2], before({ id = 1, tool = row[1], arguments = {} }).action)
    end
  end)

  it("lets policies place a job: the first choice stands, refusals count", function()
    local candidates = { { name = "local" }, { name = "box" } }
    local choose = file("place = function(job, candidates, ctx) return candidates[2].name end")
    local agree = file("place = function(job, candidates) assert(#candidates == 1) end")
    assert(open({ choose, agree }))
    assert.equal("box", chain:place({ language = "python" }, candidates))
    chain:close()
    local function refusal(...)
      assert(open({ choose, ... }))
      local name, err = chain:place({}, candidates)
      assert.is_nil(name)
      assert.equal("denied", err.kind)
      assert.equal("placement", err.op)
      chain:close()
      chain = nil
      return err.msg
    end
    assert.is_truthy(refusal(file("place = function() return deny('too late') end")):find("too "
      .. "late"))
    assert.is_truthy(refusal(file("place = function() return 'local' end")):find("no candidate "
      .. "called"))
    assert.is_truthy(refusal(file("place = function() return 7 end")):find("place must return"))
    assert.is_truthy(refusal(file("place = function()\nerror('x') end")):find("lua:3: x"))
  end)

  it("passes the result through finish, and withholds the output when that fails", function()
    local result = { status = "success", output = "secret", stderr = "s", exit_code = 0,
      calls = json.array({}), spill_path = "/x" }
    assert(open({ file("finish = function(result) result.output = '***' return result end") }))
    local changed = chain:finish(result)
    assert.equal("***", changed.output)
    assert.is_true(json.is_array(changed.calls))
    for _, body in ipairs({
      "error('x')", "return nil", "result.output = nil return result", "result.calls = 7 "
        .. "return result",
    }) do
      chain:close()
      assert(open({ file("finish = function(result) " .. body .. " end") }))
      changed = chain:finish(result)
      assert.equal("refused", changed.status)
      assert.equal("", changed.output)
      assert.is_nil(changed.spill_path)
      assert.is_truthy(changed.error:find("^policy p%d+: .*lua:2: "), changed.error)
    end
  end)

  it("says what is wrong with a file before anything runs", function()
    local function problem(text, options)
      count = count + 1
      local path = helper.write(("%s/bad%d.lua"):format(dir, count), text)
      local none, err = open({ { path = path, options = options } })
      assert.is_nil(none)
      assert.equal("config", err.kind)
      return (err.msg:gsub("^.*/", ""))
    end
    assert.is_truthy(problem("return {\n  name = = 1 }"):find("^bad1.lua:2: "))
    assert.equal("bad2.lua:2: x", problem("local t = {}\nerror('x')"))
    assert.is_truthy(problem("\nreturn 7"):find("^bad3.lua:2: a policy file returns a table"))
    assert.is_truthy(problem("return { summary = 's' }"):find("^bad4.lua:1: the policy has no "
      .. "name"))
    assert.is_truthy(problem("return { name = 'n',\n summary = 's',\n befor = error }")
      :find("^bad5.lua:3: a policy has no field 'befor'"))
    assert.is_truthy(problem("return { name = 'n', summary = 's',\n after = 7 }")
      :find("^bad6.lua:2: after must be a function"))
    assert.is_truthy(problem("return { name = 'n', summary = 's' }"):find("none of before"))
    assert.is_truthy(problem("while true do end"):find("^bad8.lua:1: ran more than"))
    assert.is_truthy(problem("return os.time()"):find("^bad9.lua:1: attempt to index global 'os'"))
    assert.is_truthy(problem(string.dump(function() end)):find("compiled code"))
    assert.is_truthy(problem("return { name = 'n', summary = 's', before = allow }",
      { x = 1 }):find("x"))
    local none, err = open({ { path = dir .. "/none.lua" } })
    assert.is_nil(none)
    assert.equal("not_found", err.kind)
    none, err = open({ { name = "alow" } })
    assert.is_nil(none)
    assert.equal("not_found", err.kind)
  end)

  it("describes a policy", function()
    local path = file("options = { n = { type = 'integer', default = 1, doc = 'd' } },\n"
      .. "before = allow, finish = allow")
    assert.same({
      name = "p1", summary = "a test", path = path, hooks = { before = true, finish = true },
      options = { n = { type = "integer", default = 1, doc = "d" } },
    }, policy.describe(path))
    helper.write(path, "return { name = 'other', summary = 'x', after = allow }")
    assert.equal("other", policy.describe(path).name)
    assert.is_nil((policy.describe(dir .. "/none.lua")))
  end)

  it("tells a long path in full", function()
    local long = dir .. "/" .. ("d"):rep(80) .. ".lua"
    helper.write(long, "return { name = 'n', summary = 's',\nbefore = function() error('x') end }")
    assert(open({ long }))
    assert.equal("policy n: " .. long .. ":2: x", before().reason)
  end)
end)

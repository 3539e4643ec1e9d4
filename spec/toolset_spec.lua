-- SPDX-License-Identifier: MIT
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")
local task = require("farcall.task")
local toolset = require("farcall.toolset")

local TEXT = { type = "object", properties = { text = { type = "string" } } }

local function config(over)
  local cfg = {
    tools = {}, tool_path = {}, passthrough = {},
    environ = { PATH = "/usr/bin:/bin", HOME = "/x", API_KEY = "s3cret", LD_PRELOAD = "y" },
  }
  for key, value in pairs(over or {}) do
    cfg[key] = value
  end
  return cfg
end

local function new(names, over)
  return toolset.new({ cfg = config(over), names = names })
end

-- Calls a host command: result, err.
local function host(spec, args)
  spec.summary, spec.parameters = "s", TEXT
  local set = assert(new({ "t" }, { tools = { t = spec } }))
  local result = { task.run(function()
    return set:get("t").handler(args or {}, {})
  end) }
  return result[1], result[2]
end

local function sh(script, more)
  local spec = { command = { "sh", "-c", script } }
  for key, value in pairs(more or {}) do
    spec[key] = value
  end
  return spec
end

describe("toolset", function()
  it("has the built-in tools, complete", function()
    local set = assert(new({ "terminal", "read_file", "write_file", "search_files", "patch" }))
    assert.same({ "patch", "read_file", "search_files", "terminal", "write_file" }, set:names())
    for _, name in ipairs(set:names()) do
      local tool = set:get(name)
      assert.equal(name, tool.name)
      assert.is_true(#tool.summary > 0 and #tool.summary < 100)
      assert.is_boolean(tool.idempotent)
      assert.is_function(tool.handler)
    end
    local args = assert(set:get("read_file").validator({ path = "x" }))
    assert.same({ 1, 500, false }, { args.offset, args.limit, args.numbered })
    local none, problem = set:get("read_file").validator({ path = "x", limit = "y" })
    assert.is_nil(none)
    assert.truthy(problem:find("limit", 1, true))
  end)

  it("has no tool that is not listed", function()
    local set = assert(new({}))
    assert.same({}, set:names())
    assert.is_nil(set:get("terminal"))
    assert.truthy(set:unknown("terminal").error.message:find("no tools", 1, true))
    set = assert(new({ "terminal" }))
    assert.is_nil(set:get("read_file"))
    assert.truthy(set:unknown("termnal").error.message:find("did you mean terminal?", 1, true))
    assert.is_nil(set:unknown("a\n\27[31mb").error.message:find("%c"))
  end)

  it("does not start with a name that means nothing", function()
    local set, err = new({ "terminal", "read_fil" })
    assert.is_nil(set)
    assert.equal("config", err.kind)
    assert.equal("did you mean read_file?", err.hint)
  end)

  it("takes the operator's files and Lua before its own", function()
    local dir = helper.scratch()
    helper.write(dir .. "/terminal.lua",
      "return { name = 'terminal', summary = 'mine', handler = function() return 1 end }")
    helper.write(dir .. "/broken.lua", "return {\n  name = = 1 }")
    helper.write(dir .. "/other.lua",
      "return { name = 'another', summary = 's', handler = function() end }")
    helper.write(dir .. "/schema.lua", "return { name = 'schema', summary = 's', "
      .. "parameters = { type = 'objekt' }, handler = function() end }")
    local over = { tool_path = { dir }, tools = { lua = {
      summary = "s", parameters = TEXT, handler = function(args) return args.text end,
    } } }
    local set = assert(new({ "terminal", "lua", "read_file" }, over))
    assert.equal("mine", set:get("terminal").summary)
    assert.equal(dir .. "/terminal.lua", set:get("terminal").path)
    assert.equal("x", set:get("lua").handler({ text = "x" }))
    for name, words in pairs({ broken = "broken.lua:2:", other = "another", schema = "objekt" }) do
      local none, err = new({ name }, over)
      assert.is_nil(none)
      assert.equal("config", err.kind)
      assert.truthy(tostring(err):find(words, 1, true), tostring(err))
    end
    assert.truthy(table.concat(toolset.available(config(over)), " "):find("broken lua other patch",
      1, true))
  end)

  it("refuses tools of a configuration that are none", function()
    for _, spec in ipairs({
      {}, { handler = function() end, command = { "x" } }, { command = "x" }, { command = {} },
      { command = { 1 } }, { command = { "x" }, timeout = 0 }, { command = { "a\0" } },
    }) do
      spec.summary = "s"
      local none, err = new({ "t" }, { tools = { t = spec } })
      assert.is_nil(none)
      assert.equal("config", err.kind)
    end
  end)
end)

describe("a host command", function()
  it("gets JSON and gives JSON or text", function()
    assert.same({ text = 'it\'s "x"\n' }, host(sh("cat"), { text = 'it\'s "x"\n' }))
    assert.equal("plain text", host(sh("echo plain text")))
    assert.equal("", host(sh("true")))
    assert.equal(json.null, host(sh("echo null")))
    local big = { text = ("x"):rep(3000000) }
    assert.same(big, host(sh("cat"), big))
    assert.equal("done", host(sh("echo done"), big))
    assert.equal("a\239\191\189b", host(sh("printf 'a\\377b'")))
  end)

  it("fails with what it said", function()
    local result, err = host(sh("echo noise; echo 'no such ticket' >&2; exit 3"))
    assert.is_nil(result)
    assert.equal("exit code 3: no such ticket", err.msg)
    result, err = host(sh("kill -9 $$"))
    assert.truthy(err.msg:find("signal", 1, true))
    assert.is_nil(result)
    result, err = host({ command = { "/nonexistent/program" } })
    assert.is_nil(result)
    assert.equal("exec", err.kind)
  end)

  it("sees a scrubbed environment", function()
    local result = host(sh("env"))
    assert.truthy(result:find("HOME=/x", 1, true))
    assert.is_nil(result:find("s3cret", 1, true))
    assert.is_nil(result:find("LD_PRELOAD", 1, true))
  end)

  it("is killed with all its children when its time is over, or it says too much", function()
    local dir = helper.scratch()
    local _, err = host(sh(("echo $$ > %s/pid; trap '' TERM; sleep 61 & wait; sleep 61"):format(
      dir), { timeout = 2 }))
    assert.equal("timeout", err.kind)
    assert.is_nil(fs.stat("/proc/" .. helper.read(dir .. "/pid"):match("%d+")))
    _, err = host(sh("cat /dev/zero"))
    assert.equal("limit", err.kind)
  end)

  it("does not wait for whom it left behind", function()
    local began = task.now()
    assert.equal("ok", host(sh("echo ok; sleep 62 &")))
    assert.is_true(task.now() - began < 30)
  end)

  it("goes when its call is given up", function()
    local dir = helper.scratch()
    local set = assert(new({ "t" }, { tools = { t = sh(("echo $$ > %s/pid; sleep 63"):format(dir),
      { summary = "s" }) } }))
    task.run(function()
      local call = task.spawn(set:get("t").handler, {}, {})
      assert.is_true(helper.eventually(function()
        return (helper.read(dir .. "/pid") or "") ~= ""
      end))
      call:cancel()
      call:join()
    end)
    assert.is_nil(fs.stat("/proc/" .. helper.read(dir .. "/pid"):match("%d+")))
  end)
end)

-- SPDX-License-Identifier: MIT
-- The contract: bytes, arguments, variables and statuses of oneshots.

local assert = require("luassert")
local box = require("spec.backends.contract.box")
local busted = require("busted")
local errors = require("farcall.errors")
local helper = require("spec.helper")
local task = require("farcall.task")

local it = busted.it

local MIB = 1024 * 1024

local function every_byte()
  local bytes = {}
  for byte = 0, 255 do
    bytes[#bytes + 1] = string.char(byte)
  end
  return table.concat(bytes)
end

local HOSTILE = {
  "", " ", "a b", "'", '"', "it's", "\\", "\\n", "%s", "$(id)", "`id`", "$HOME", "-n", "--", "-",
  "~", "*", "?", "[a]", "{a,b}", "!", "#", ";", "&", "|", "<", ">", "\n", "a\nb\n", "\n\n", "\r",
  "\t", "=", "a=b", "é", "\255\254", "\27[31m", "'\"'\"'", "$'\\n'", "${IFS}", "\127", "(", ")",
  every_byte():sub(2),
}

-- Names that sh does not take for its own variables are passed on all the same.
local VARIABLES = {
  PLAIN = "x", EMPTY = "", QUOTES = "it's \"$(id)\" `id` \\", LINES = "a\nb\n\n",
  ESCAPES = "\1\27", EQUALS = "a=b", LONG = ("v"):rep(20000), _under = "1", lower = "2",
}
local ODD_VARIABLES = { ["A.B"] = "1", ["a-b"] = "2", ["1st"] = "3", ["é"] = "4", ["A B"] = "5" }

local EXIT_CODES = { 0, 1, 2, 42, 77, 124, 125, 126, 127, 128, 129, 137, 143, 200, 254, 255 }

-- The spec's expectation of what says that it cannot be sent.
local function refused(one, spec)
  local result, err = one:exec(spec)
  assert.is_nil(result)
  assert.is_true(errors.is(err))
  return { err.kind, err.code }
end

---@param setup spec.Contract
return function(setup)
  local function with(fn)
    return box.with(setup, fn)
  end

  it("says what it is", with(function(one)
    local caps = one:env().caps
    for name, value in pairs(setup.caps) do
      assert.equal(value, caps[name] or false, name)
    end
    assert.is_number(caps.max_command)
    assert.is_string(one:env().name)
  end))

  it("carries every byte value, and 8 MiB, by stdin and stdout", with(function(one)
    local bytes = every_byte()
    assert.is_true(one:output({ argv = { "cat" }, stdin = bytes }) == bytes)
    local many = bytes:rep(8 * MIB / 256)
    local back = one:output({ argv = { "cat" }, stdin = many })
    assert.equal(#many, #back)
    assert.is_true(back == many)
  end))

  it("keeps standard error apart", with(function(one)
    local bytes = every_byte():rep(256)
    local result = assert(one:exec({ command = "echo out; cat >&2", stdin = bytes }))
    if one:env().caps.split then
      assert.equal("out\n", result.stdout)
      assert.is_true(result.stderr == bytes)
    else
      assert.equal("out\n" .. bytes, result.stdout)
    end
  end))

  it("has an empty standard input when none is given", with(function(one)
    assert.equal("0", (one:output("wc -c"):gsub("%s", "")))
    assert.equal("0", (one:output({ command = "wc -c", stdin = "" }):gsub("%s", "")))
    -- One that is not read is no harm.
    assert.equal("done\n", one:output({ command = "echo done", stdin = ("x"):rep(MIB) }))
  end))

  it("hands hostile arguments on as they are", with(function(one)
    local argv = { "printf", "%s\\n.\\n" }
    for _, word in ipairs(HOSTILE) do
      argv[#argv + 1] = word
    end
    local wanted = table.concat(HOSTILE, "\n.\n") .. "\n.\n"
    assert.is_true(one:output({ argv = argv }) == wanted)
    -- The same under a deadline, which may take another way.
    assert.is_true(one:output({ argv = argv, timeout = 60 }) == wanted)
  end))

  it("takes one argument as large as it says, and refuses what is larger", with(function(one)
    local caps = one:env().caps
    -- Where everything is one line, the words around it count too.
    local size = caps.max_command - (caps.argv and 0 or 4096)
    for _, timeout in ipairs({ false, 60 }) do
      local word = ("x"):rep(size)
      local back = one:output({ argv = { "printf", "%s", word }, timeout = timeout or nil })
      assert.equal(size, #back)
      assert.is_true(back == word)
    end
    assert.same({ "limit", "E2BIG" },
      refused(one, { argv = { "printf", "%s", ("x"):rep(caps.max_command + 1) } }))
    assert.same({ "limit", "E2BIG" },
      refused(one, { command = ": " .. ("x"):rep(caps.max_command) }))
  end))

  it("hands variables on as they are", with(function(one)
    for _, timeout in ipairs({ false, 60 }) do
      local argv = { "sh", "-c", [[for n; do eval "printf '%s\n.\n' \"\$$n\""; done]], "sh" }
      local wanted = {}
      for name, value in pairs(VARIABLES) do
        argv[#argv + 1] = name
        wanted[#wanted + 1] = value .. "\n.\n"
      end
      local back = one:output({ argv = argv, env = VARIABLES, timeout = timeout or nil })
      assert.is_true(back == table.concat(wanted))
    end
  end))

  -- Services whose protocol is JSON cannot take what is not UTF-8.
  it("hands variables on that are no text, or says that it cannot", with(function(one)
    local result, err = one:exec({ command = "printf %s \"$X\"", env = { X = "\255\254" } })
    if result then
      assert.equal("\255\254", result.stdout)
    else
      assert.equal("unsupported", err.kind)
    end
  end))

  it("hands variables with odd names on", with(function(one)
    for _, timeout in ipairs({ false, 60 }) do
      local back = one:output({ argv = { "env" }, env = ODD_VARIABLES, timeout = timeout or nil })
      for name, value in pairs(ODD_VARIABLES) do
        assert.is_truthy(("\n" .. back):find("\n" .. name .. "=" .. value .. "\n", 1, true), name)
      end
    end
  end))

  it("refuses what no system takes", with(function(one)
    assert.equal("usage", refused(one, { argv = { "echo", "a\0b" } })[1])
    assert.equal("usage", refused(one, { command = "echo a\0b" })[1])
    assert.equal("usage", refused(one, { argv = { "env" }, env = { ["A=B"] = "c" } })[1])
    assert.equal("usage", refused(one, { argv = { "env" }, env = { A = "b\0c" } })[1])
    assert.equal("usage", refused(one, { argv = { "env" }, cwd = "/\0" })[1])
  end))

  it("starts where it is told to", with(function(one)
    assert.equal("/etc\n", one:output({ command = "pwd", cwd = "/etc" }))
    local dir = "/tmp/farcall contract '\"$(id)\n-" .. one.mark
    one:output({ argv = { "mkdir", dir } })
    assert.equal(dir .. "\n", one:output({ argv = { "pwd" }, cwd = dir }))
    assert.equal(dir .. "\n", one:output({ command = "pwd", cwd = dir, timeout = 60 }))
    one:output({ argv = { "rmdir", dir } })
    local result, err = one:exec({ command = "echo here", cwd = "/no/such" })
    assert.is_true(result == nil and errors.is(err) or result and result.exit_code ~= 0)
    assert.is_true(result == nil or result.stdout == "")
  end))

  it("tells every exit code as it is", with(function(one)
    local codes = EXIT_CODES
    if one:env().caps.same_host then
      codes = {}
      for code = 0, 255 do
        codes[#codes + 1] = code
      end
    end
    local tasks = {}
    for i, code in ipairs(codes) do
      local timeout = i % 2 == 0 and 300 or nil
      tasks[i] = task.spawn(one.exec, one, { command = "exit " .. code, timeout = timeout })
    end
    for i, code in ipairs(codes) do
      local ok, result, err = tasks[i]:join()
      assert.is_true(ok and result ~= nil, tostring(err or result))
      assert.same({ code, false }, { result.exit_code, result.timed_out })
      assert.is_nil(result.signal)
    end
  end))

  it("tells signals as far as it says it does", with(function(one)
    local exact = one:env().caps.status == "exact"
    for number, name in pairs({ [9] = "KILL", [15] = "TERM" }) do
      local result = assert(one:exec({ argv = { "sh", "-c", ("kill -%d $$"):format(number) } }))
      if exact then
        assert.same({ name }, { result.signal, result.exit_code })
      elseif result.signal then
        assert.same({ name }, { result.signal, result.exit_code })
      else
        assert.equal(128 + number, result.exit_code)
      end
      -- What looks like one is none.
      assert.equal(128 + number, assert(one:exec("exit " .. 128 + number)).exit_code)
    end
  end))

  it("tells what cannot be started", with(function(one)
    local result, err = one:exec({ argv = { "/no/such/program" } })
    if result then
      assert.equal(127, result.exit_code)
      assert.equal("", result.stdout)
    else
      assert.same({ "not_found", "ENOENT" }, { err.kind, err.code })
    end
  end))

  it("answers 32 oneshots while a command of the shell sleeps", with(function(one)
    local shell = one:shell()
    local go = "/tmp/farcall-contract-" .. one.mark
    local sleeper = task.spawn(shell.run, shell,
      { command = ("until [ -e %s ]; do sleep 0.1; done; echo woken"):format(go) })
    local tasks = {}
    for i = 1, 32 do
      tasks[i] = task.spawn(one.exec, one, {
        command = "cat; echo e$0 >&2; exit " .. i, stdin = ("in%d "):format(i):rep(1000),
      })
    end
    for i = 1, 32 do
      local ok, result, err = tasks[i]:join()
      assert.is_true(ok and result ~= nil, tostring(err or result))
      assert.same({ i, ("in%d "):format(i):rep(1000) }, { result.exit_code, result.stdout })
    end
    assert.is_false(sleeper:done())
    one:output("touch " .. go)
    local ok, result = sleeper:join()
    assert.is_true(ok)
    assert.equal("woken\n", result.stdout)
    one:output("rm " .. go)
  end))

  it("keeps no more of an output than it may", with(function(one)
    local result = assert(one:exec({
      command = "head -c 3000000 /dev/zero; echo tail >&2", max_output = 1000,
    }))
    assert.same({ 1000, true, 0 }, { #result.stdout, result.truncated, result.exit_code })
    assert.equal("tail\n", one:env().caps.split and result.stderr or "tail\n")
  end))

  it("holds a writer whom nobody reads", with(function(one)
    local env = one:env()
    if env.caps.stdout ~= "stream" then
      return
    end
    local process = assert(env:start(one:started({
      argv = { "head", "-c", "400000000", "/dev/zero" },
    })))
    assert.is_true(helper.eventually(function()
      return #one:living("head -c 400000000") > 0
    end))
    local function written()
      local most = 0
      for _, pid in ipairs(one:living("head -c 400000000")) do
        local io_text = helper.read("/proc/" .. pid .. "/io") or ""
        most = math.max(most, tonumber(io_text:match("wchar: (%d+)")) or 0)
      end
      return most
    end
    local before, now = -1, 0
    assert.is_true(helper.eventually(function()
      before, now = now, written()
      task.sleep(0.4)
      return now > 0 and now == before
    end, 30))
    assert.is_true(now < 40000000, "written: " .. now)
    process:kill()
    process:wait()
    one:assert_gone()
  end))
end

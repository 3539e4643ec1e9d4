-- SPDX-License-Identifier: MIT
-- What tells about this installation: doctor, config, completion.
local build = require("spec.support.build")
local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local identity = require("farcall.identity")
local json = require("farcall.core.json")

local MACHINE = io.popen("uname -m"):read("*l")

local function findings(got)
  local by_name = {}
  for _, found in ipairs(assert(json.decode(got.out)).findings) do
    by_name[found.name] = found
  end
  return by_name
end

describe("farcall doctor", function()
  it("finds that a sound installation works", function()
    local home = cli.home()
    local got = home:run({ "doctor" })
    assert.equal(0, got.code, got.out .. got.err)
    assert.equal("", got.err)
    for _, name in ipairs({
      "versions", "configuration", "runtime", "state", "process trees", "python", "runners", "run",
      "leftovers",
    }) do
      assert.is_truthy(got.out:find("\n%w+ +" .. name) or got.out:find("^%w+ +" .. name), got.out)
    end
    local told = home:run({ "doctor", "--json" })
    assert.equal(1, select(2, told.out:gsub("\n", "")))
    assert.is_true(json.decode(told.out).ok)
    assert.matches("^a script with one call took %d+ ms, by uds$", findings(told).run.message)
    assert.matches("uds for local; stream for [^;]*docker", findings(told).runners.message)
    assert.same({}, fs.list(home.dir .. "/runtime/farcall"))
  end)

  it("says how process trees are held, and how to hold them better", function()
    local found = findings(cli.home():run({ "doctor", "--json" }))["process trees"]
    local level = found.message:match("^(%w+):")
    assert.is_truthy(level == "pidns" or level == "cgroup" or level == "subreaper")
    assert.equal(level ~= "pidns", found.hint ~= nil)
  end)

  it("finds a version manager's shim, and a Python that is not there or broken", function()
    local home = cli.home()
    local shim = home:write("bin/python3", "#!/bin/sh\nexec /usr/bin/python3 \"$@\"\n")
    assert(fs.chmod(shim, 493))
    local path = { env = { PATH = home.dir .. "/bin:/usr/bin:/bin" } }
    local python = findings(home:run({ "doctor", "--json" }, path)).python
    assert.equal("warn", python.status)
    assert.matches("looks for the real one", python.message, 1, true)
    helper.write(shim, "#!/bin/sh\nexit 1\n")
    local got = home:run({ "doctor", "--json" }, path)
    assert.equal("fail", findings(got).python.status)
    assert.equal(125, got.code)
    got = home:run({ "doctor", "--json" }, { env = { PATH = home.dir } })
    assert.equal("fail", findings(got).python.status)
    assert.matches("apt%-get install", findings(got).python.hint)
  end)

  it("finds a state directory that cannot be written and a configuration with a mistake", function()
    local home = cli.home()
    home:write("file", "")
    local got = home:run({ "doctor", "--json" }, { env = { XDG_STATE_HOME = home.dir .. "/file" } })
    assert.equal(125, got.code)
    assert.equal("fail", findings(got).state.status)
    home:write("work/conf.lua", "\nlimit { timeout = 3 }\n")
    got = home:run({ "doctor", "-C", "conf.lua", "--json" })
    assert.equal(125, got.code)
    assert.equal("fail", findings(got).configuration.status)
    assert.matches("conf.lua:2: ", findings(got).configuration.message, 1, true)
    home:write("work/farcall.lua", "")
    got = home:run({ "doctor", "--json" })
    assert.equal(125, got.code)
    assert.matches("farcall.lua: it is not trusted$", findings(got).configuration.message)
    assert.matches("farcall trust", findings(got).configuration.hint, 1, true)
    assert.equal("ok", findings(got).run.status)
  end)

  it("tells what dead engines have left", function()
    local home = cli.home()
    home:write("state/farcall/environments/farcall-box-1.json", ([[{"name":"farcall-box-1",
      "kind":"private","backend":"box","use":"docker","options":{},"created":1,"engine":"%s"}]])
      :format((identity.new():gsub("%-%x+%-", "-000000000000-", 1))))
    local found = findings(home:run({ "doctor", "--json" })).leftovers
    assert.equal("warn", found.status)
    assert.matches("environments %(1%) and directories %(0%)", found.message)
    assert.matches("farcall env gc", found.hint)
  end)

  it("looks into the environments of backends, and says how to mend them", function()
    if require("farcall.core.system").uid() ~= 0 then
      return -- The services of the specs are root's.
    end
    local bed = (os.getenv("FARCALL_TESTBED") or "/var/tmp/farcall-testbed") .. "/ssh/"
    local environment
    local function about(...)
      local told = {}
      local got = cli.home():run({ "doctor", "--json", ... }, { env = environment })
      for _, found in ipairs(assert(json.decode(got.out)).findings) do
        if found.name:find("^backend ") then
          told[#told + 1] = ("%s: %s (%s)"):format(found.status, found.message, found.hint or "")
        end
      end
      return table.concat(told, "\n"), got.code
    end
    local text, code = about("-b", "docker", "-o", "image=farcall-spec/busybox")
    assert.equal(0, code, text)
    assert.matches("ok: an exec takes %d+ ms", text)
    assert.matches("ok: calls by stream: the runner in C, for " .. MACHINE, text, 1, true)
    assert.matches("ok: a process that the runner starts takes [%d.]+ ms", text)
    assert.matches("warn: no python3 (Python scripts cannot run there", text, 1, true)
    -- As if no runner were for that machine.
    local python_only = helper.scratch()
    helper.write(python_only .. "/runner.py", helper.read("runner/runner.py"))
    environment = { FARCALL_RUNNERS = python_only }
    text, code = about("-b", "docker", "-o", "image=farcall-spec/busybox")
    assert.equal(0, code, text)
    assert.matches("warn: calls by files in /tmp, and not by stream: there is no runner for "
      .. MACHINE .. "; there is no python3 (for such a machine", text, 1, true)
    text = about("-b", "docker", "-o", "image=farcall-spec/debian")
    assert.matches(("ok: calls by stream: the runner in Python, on %s: there is no runner for %s (")
      :format(MACHINE, MACHINE), text, 1, true)
    environment = nil
    text, code = about("-b", "docker", "-o", "attach=farcall-spec-none")
    assert.equal(125, code)
    assert.matches("^fail: attach farcall%-spec%-none: there is no such container %(.+%)$", text)
    text, code = about("-b", "docker", "-o", "image=x", "-o", "socket=/nonexistent/socket")
    assert.equal(125, code)
    assert.matches("^fail: [^\n]+%([^\n]+%)$", text)
    text, code = about("-b", "ssh", "-o", "host=127.0.0.1", "-o", "user=farcall-far",
      "-o", "port=" .. helper.read(bed .. "port.main"):match("%d+"), "-o", "config=none",
      "-o", "identity=" .. bed .. "rsa", "-o", "known_hosts=" .. bed .. "known_hosts")
    assert.equal(0, code, text)
    assert.matches("warn: ssh 127.0.0.1: by OpenSSH, because libssh2[^\n]+RSA[^\n]+"
      .. "%([^\n]+ssh%-keygen %-t ed25519%)", text)
    assert.matches("ok: python3 with json, socket and select", text, 1, true)
  end)

  it("finds that the programs of runners are missing", function()
    local home = cli.home()
    local got = home:run({ "doctor", "--json" }, { env = { FARCALL_RUNNERS = "/no/such" } })
    assert.equal(0, got.code)
    local found = findings(got).runners
    assert.equal("warn", found.status)
    assert.matches("runner.py is not there: calls travel by files", found.message, 1, true)
  end)

  it("finds that the supervisor is missing", function()
    local home = cli.home()
    local got = home:run({ "doctor", "--json" }, { env = { FARCALL_SUPERVISOR = "/no/such" } })
    assert.equal(125, got.code)
    assert.equal("fail", findings(got)["process trees"].status)
    assert.matches("beside farcall", findings(got)["process trees"].hint, 1, true)
  end)
end)

describe("farcall completion", function()
  it("completes commands and options in bash", function()
    local home = cli.home()
    local got = home:run({ "completion", "bash" })
    assert.same({ 0, "" }, { got.code, got.err })
    local script = home:write("work/complete.bash", got.out)
    local function complete(...)
      local words = "farcall " .. table.concat({ ... }, " ")
      local pipe = io.popen(("bash -c 'source %s && COMP_WORDS=(%s) COMP_CWORD=%d && _farcall && "
        .. "echo ${COMPREPLY[@]}; complete -p farcall'"):format(script, words, select("#", ...)))
      local text = pipe:read("*a")
      pipe:close()
      return text:match("^([^\n]*)\n(.*)$")
    end
    local words, registered = complete("ru")
    assert.equal("run runs", words)
    assert.matches("-F _farcall farcall", registered, 1, true)
    assert.equal("--timeout --transport", (complete("run", "--t")):gsub("%-%-transport %-%-timeout",
      "--timeout --transport"), nil)
    assert.equal("--stdin", (complete("exec", "--s")))
  end)

  it("has the names of all commands for zsh and fish", function()
    local home = cli.home()
    for shell, start in pairs({ zsh = "^#compdef farcall\n", fish = "complete %-c farcall" }) do
      local got = home:run({ "completion", shell })
      assert.equal(0, got.code)
      assert.matches(start, got.out)
      for _, row in ipairs(require("farcall.cli").COMMANDS) do
        assert.is_truthy(got.out:find(row[1], 1, true), row[1])
      end
    end
  end)
end)

describe("farcall version", function()
  it("is the same everywhere", function()
    local home = cli.home()
    local version = json.decode(home:run({ "version", "--json" }).out).farcall
    assert.equal(("farcall %s\n"):format(version), home:run({ "--version" }).out)
    assert.is_truthy(helper.read("CMakeLists.txt"):find("VERSION " .. version, 1, true))
    assert.is_truthy(fs.stat(build.dir .. "/farcall-supervisor"))
  end)
end)

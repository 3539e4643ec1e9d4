-- SPDX-License-Identifier: MIT
-- `farcall batch` with real jobs on this machine: results, resuming, retries, placement.
local batches = require("spec.support.batches")
local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")
local task = require("farcall.task")

local batch, effects, lines, noting = batches.run, batches.effects, batches.lines, batches.noting
local results_of, sum_of, write_jobs = batches.results, batches.sum, batches.write

describe("farcall batch", function()
  it("runs jobs of every shape and writes down how each has ended", function()
    local home = cli.home()
    home:write("work/two.py", "import sys\nprint(sys.argv[1:])\n")
    write_jobs(home, {
      { script = "print('one')" },
      "",
      { id = "two", file = "two.py", args = { "a b", "" } },
      { id = "three", script = "echo $WORD >&2; exit 3", language = "sh", env = { WORD = "w" } },
      { id = "four", script = "import time\ntime.sleep(100)", timeout = 0.3 },
      { id = 5, script = "from farcall import terminal\nterminal('true')\nterminal('true')" },
      { id = "six", script = "from farcall import terminal", allow = { "read_file" } },
    })
    local got = batch(home, "-j", "3", "--json")
    assert.equal(1, got.code, got.err)
    local sum = sum_of(got)
    assert.same({ "error", 6, 3, 3, 0, 0, "jobs.jsonl.results.jsonl" },
      { sum.status, sum.jobs, sum.succeeded, sum.failed, sum.unknown, sum.earlier, sum.results })
    local all, last = results_of(home)
    assert.equal(12, #all)
    assert.same({ "done", "success", "one\n", 0, "uds", "local" }, {
      last["1"].state, last["1"].status, last["1"].output, last["1"].exit_code,
      last["1"].transport, last["1"].backend,
    })
    assert.equal("['a b', '']\n", last.two.output)
    assert.same({ "error", 3, "w\n" }, { last.three.status, last.three.exit_code,
      last.three.stderr })
    assert.equal("timeout", last.four.status)
    assert.equal(2, last["5"].tool_calls_made)
    assert.equal("terminal", last["5"].calls[2].tool)
    assert.matches("cannot import name 'terminal'", last.six.stderr, 1, true)
    -- Each is started before it is done, and its run can be looked at.
    local started = {}
    for _, line in ipairs(all) do
      assert.is_true(line.state == "started" or started[line.id])
      started[line.id] = true
    end
    assert.equal(0, home:run({ "runs", "show", last.two.run_id }).code)
  end)

  it("says file and line of a wrong job before anything is run", function()
    local good = { id = "good", script = "open('ran', 'w')" }
    for _, case in ipairs({
      { "{", "not JSON" },
      { "[1]", "a job is an object" },
      { { script = "x", langauge = "sh" }, "did you mean 'language'?" },
      { { script = "x", file = "y" }, "one of script and file is needed" },
      { { id = "none" }, "one of script and file is needed" },
      { { file = "not-there.py" }, "not-there.py" },
      { { script = "x", timeout = 0 }, "timeout must be" },
      { { script = "x", args = { "a", 1 } }, "args must be a list of texts" },
      { { script = "x", labels = { a = { "b" } } }, "labels must be an object of" },
      { { script = "x", backend = "dokcer" }, "did you mean docker?" },
      { { script = "x", options = { cdw = "/" } }, "cdw" },
      { { script = "x", language = "pyhton" }, "python" },
      { { script = " " }, "the script is empty" },
      { { id = "good", script = "x" }, 'a job with the id "good" already' },
      { { id = "1", script = "x" }, 'a job with the id "1" already', { script = "y" } },
    }) do
      local home = cli.home()
      write_jobs(home, { case[3] or good, case[1] })
      local got = batch(home)
      assert.is_true(got.code == 2 or got.code == 125, got.err)
      assert.matches("jobs.jsonl:2: ", got.err, 1, true)
      assert.matches(case[2], got.err, 1, true)
      assert.is_nil(fs.stat(home.work .. "/ran"))
      assert.is_nil(fs.stat(home.work .. "/jobs.jsonl.results.jsonl"))
    end
  end)

  it("goes on behind a wrong job that comes through a pipe", function()
    local home = cli.home()
    local input = lines({ { script = "print(1)" }, "nonsense", { script = "print(3)" } })
    local got = home:run({ "batch", "-" }, { stdin = input })
    assert.equal(2, got.code)
    assert.matches("--results", got.err, 1, true)
    got = home:run({ "batch", "-", "--results", "out", "--json" }, { stdin = input:sub(1, -2) })
    assert.equal(1, got.code)
    local sum = sum_of(got)
    assert.same({ 2, 1, 3 }, { sum.succeeded, sum.refused, sum.jobs })
    local all, last = results_of(home, "out")
    assert.same({ "1\n", "3\n" }, { last["1"].output, last["3"].output })
    local found
    for _, line in ipairs(all) do
      found = found or line.state == "refused" and line
    end
    assert.equal(2, found.line)
    assert.matches("standard input:2: not JSON", found.error, 1, true)
  end)

  it("begins jobs of a pipe while others are still to come", function()
    local home = cli.home()
    task.run(function()
      local running = home:start({ "batch", "-", "-r", "out" }, { stdin = "" })
      cli.finish(running)
    end)
    local fifo = home.work .. "/fifo"
    assert.equal(0, os.execute("mkfifo " .. fifo))
    task.run(function()
      local running = home:start({ "batch", "fifo", "-q" })
      local file = assert(io.open(fifo, "w"))
      file:write(lines({ noting(home, "first") }))
      file:flush()
      assert.is_truthy(helper.eventually(function()
        return effects(home).first
      end, 60))
      file:write(lines({ noting(home, "second") }))
      file:close()
      assert.same({ code = 0, out = "", err = "" }, cli.finish(running))
    end)
    assert.same({ first = 1, second = 1 }, effects(home))
  end)

  it("does not execute a job again, unless it is asked to", function()
    local home = cli.home()
    write_jobs(home, { noting(home, "a"), noting(home, "b", "exit(1)") })
    assert.equal(1, batch(home).code)
    local got = batch(home, "--json")
    assert.equal(1, got.code)
    assert.equal(2, sum_of(got).earlier)
    assert.same({ a = 1, b = 1 }, effects(home))
    assert.equal(1, batch(home, "--again", "failed").code)
    assert.same({ a = 1, b = 2 }, effects(home))
    -- Mended, it is another job, which is what is wanted here only.
    write_jobs(home, { noting(home, "a"), noting(home, "b") })
    assert.equal(2, batch(home).code)
    assert.equal(0, batch(home, "--again", "failed,unknown").code)
    assert.same({ a = 1, b = 3 }, effects(home))
    assert.equal(0, batch(home).code)
    -- One more job, and one less.
    write_jobs(home, { noting(home, "a"), noting(home, "c") })
    got = batch(home, "--json")
    assert.equal(0, got.code, got.err)
    assert.same({ 2, 1 }, { sum_of(got).succeeded, sum_of(got).earlier })
    assert.same({ a = 1, b = 3, c = 1 }, effects(home))
    assert.equal(2, batch(home, "--again", "succeeded").code)
  end)

  it("refuses a job that is not the one that was executed under its id", function()
    local home = cli.home()
    write_jobs(home, { noting(home, "a") })
    assert.equal(0, batch(home).code)
    -- The order of fields does not matter, a script in a file does.
    local job = noting(home, "a")
    home:write("work/jobs.jsonl", ('{"script":%s,"id":"a"}\n'):format(json.encode(job.script)))
    assert.equal(0, batch(home).code)
    write_jobs(home, { noting(home, "b"), noting(home, "a", "pass") })
    local got = batch(home)
    assert.equal(2, got.code)
    assert.matches("job a (line 2): it is another job", got.err, 1, true)
    assert.same({ a = 1 }, effects(home))
    home:write("work/s.py", "print(1)")
    write_jobs(home, { { id = "f", file = "s.py" } })
    assert.equal(0, batch(home).code)
    home:write("work/s.py", "print(2)")
    assert.equal(2, batch(home).code)
  end)

  it("mends a line that was cut, and leaves files of others alone", function()
    local home = cli.home()
    write_jobs(home, { noting(home, "a"), noting(home, "b") })
    assert.equal(0, batch(home).code)
    local path = home.work .. "/jobs.jsonl.results.jsonl"
    local whole = helper.read(path)
    local last = whole:match("([^\n]*)\n$")
    local id = last:match('"id":"(%w)"')
    -- The end of a job is lost: it has been started, and that is all that is known.
    helper.write(path, whole:sub(1, -20))
    local got = batch(home, "--json")
    assert.equal(1, got.code)
    assert.equal(1, sum_of(got).unknown)
    assert.equal(whole:sub(1, -2 - #last), helper.read(path))
    assert.same({ a = 1, b = 1 }, effects(home))
    got = batch(home, "--again", "unknown")
    assert.equal(0, got.code, got.err)
    assert.equal(2, effects(home)[id])
    for _, text in ipairs({ "hello\n", '{"x":1}\n', "[]\n" }) do
      helper.write(path, text)
      got = batch(home)
      assert.equal(2, got.code)
      assert.matches("results.jsonl:1: not a line of a batch's results", got.err, 1, true)
      assert.equal(text, helper.read(path))
    end
  end)

  it("removes no file that it has not made, least of all a device", function()
    local home = cli.home()
    write_jobs(home, { { id = "a", script = "print(1)" } })
    assert(os.execute(("cd '%s' && mkfifo pipe && ln -s /nonesuch link && : > empty"
      .. " && { [ \"$(id -u)\" != 0 ] || mknod device c 1 7; }"):format(home.work)) == 0)
    for _, name in ipairs({ "pipe", "link", fs.stat(home.work .. "/device") and "device" }) do
      local kind = fs.stat(home.work .. "/" .. name, true).type
      assert.not_equal(0, batch(home, "--results", name).code)
      local stat = fs.stat(home.work .. "/" .. name, true)
      assert.equal(kind, stat and stat.type, name)
    end
    home:write("work/none.jsonl", "")
    assert.equal(0, home:run({ "batch", "none.jsonl", "--results", "empty" }).code)
    assert.is_truthy(fs.stat(home.work .. "/empty"))
    assert.equal(0, home:run({ "batch", "none.jsonl" }).code)
    assert.is_nil((fs.stat(home.work .. "/none.jsonl.results.jsonl")))
  end)

  it("is alone with its results", function()
    local home = cli.home()
    write_jobs(home, { noting(home, "a", "import time\ntime.sleep(100)") })
    task.run(function()
      local running = home:start({ "batch", "jobs.jsonl" })
      assert.is_truthy(helper.eventually(function()
        return effects(home).a
      end, 60))
      local second = cli.finish(home:start({ "batch", "jobs.jsonl" }))
      assert.equal(125, second.code)
      assert.matches("another batch writes to it", second.err, 1, true)
      running.child:kill("INT")
      assert.equal(130, cli.finish(running).code)
    end)
    assert.same({ a = 1 }, effects(home))
  end)

  it("ends what runs at the first Ctrl-C, and goes on later", function()
    local home = cli.home()
    local jobs = {}
    for i = 1, 6 do
      jobs[i] = noting(home, "j" .. i, i <= 2 and "import time\ntime.sleep(100)" or "")
    end
    write_jobs(home, jobs)
    task.run(function()
      local running = home:start({ "batch", "jobs.jsonl", "-j", "2", "--json" })
      assert.is_truthy(helper.eventually(function()
        return effects(home).j1 and effects(home).j2
      end, 60))
      running.child:kill("INT")
      local got = cli.finish(running)
      assert.equal(130, got.code)
      local sum = sum_of(got)
      assert.same({ "interrupted", 2, 4, 0 },
        { sum.status, sum.interrupted, sum.not_begun, sum.succeeded })
    end)
    local _, last = results_of(home)
    assert.same({ "done", "interrupted" }, { last.j1.state, last.j1.status })
    assert.same({ j1 = 1, j2 = 1 }, effects(home))
    local sum = sum_of(batch(home, "--json"))
    assert.same({ 2, 4 }, { sum.interrupted, sum.succeeded })
    assert.same({ j1 = 1, j2 = 1, j3 = 1, j4 = 1, j5 = 1, j6 = 1 }, effects(home))
  end)

  it("is gone at the second Ctrl-C, with what it knows in the file", function()
    local home = cli.home()
    -- Ctrl-C is theirs to ignore, and the grace after it is long enough for a second one.
    write_jobs(home, { noting(home, "a", "import signal, time\n"
      .. "signal.signal(signal.SIGINT, signal.SIG_IGN)\nopen('deaf', 'w')\ntime.sleep(100)") })
    task.run(function()
      local running = home:start({ "batch", "jobs.jsonl" })
      assert.is_truthy(helper.eventually(function()
        return fs.stat(home.work .. "/deaf")
      end, 60))
      running.child:kill("INT")
      running.child:kill("INT")
      assert.equal(130, cli.finish(running).code)
    end)
    local _, last = results_of(home)
    assert.same({ "done", "interrupted" }, { last.a.state, last.a.status })
  end)

  -- A backend that cannot be opened as often as a file has bytes, and then is the local one.
  local function failing(home, kind, times)
    home:write("work/failures", ("x"):rep(times))
    home:write("backends/shaky.lua", ([[
local here = require("farcall.backends.local")
local errors = require("farcall.errors")
return {
  name = "shaky", summary = "fails at first", api = 1, options = here.options, caps = here.caps,
  open = function(options, ctx)
    local file = assert(io.open(%q))
    local left = file:read("*a")
    file:close()
    if #left > 0 then
      file = assert(io.open(%q, "w"))
      file:write(left:sub(2))
      file:close()
      return nil, errors.new(%q, "shaky", "not now")
    end
    return here.open(options, ctx)
  end,
}
]]):format(home.work .. "/failures", home.work .. "/failures", kind))
    home:write("config/farcall/config.lua", 'backend_path { "../../backends" }\n')
  end

  it("tries again what was not executed, where that can help", function()
    local home = cli.home()
    failing(home, "unavailable", 2)
    write_jobs(home, { noting(home, "a") })
    local got = batch(home, "-b", "shaky", "--pause", "0.01", "--json")
    assert.equal(0, got.code, got.err)
    assert.equal(2, sum_of(got).retried)
    local _, last = results_of(home)
    assert.equal(3, last.a.attempts)
    assert.same({ a = 1 }, effects(home))
  end)

  it("gives up on it after some attempts, and tries anew when begun again", function()
    for _, case in ipairs({ { "unavailable", 4 }, { "denied", 1 } }) do
      local home = cli.home()
      failing(home, case[1], case[2])
      write_jobs(home, { noting(home, "a") })
      local got = batch(home, "-b", "shaky", "--pause", "0.01", "--json")
      assert.equal(1, got.code, got.err)
      assert.equal(1, sum_of(got).not_run)
      local all, last = results_of(home)
      assert.equal(1, #all)
      assert.same({ "not_run", case[1], case[2] },
        { last.a.state, last.a.error_kind, last.a.attempts })
      assert.same({}, effects(home))
      -- What was not executed may have changed as well.
      write_jobs(home, { noting(home, "a", "pass") })
      got = batch(home, "-b", "shaky")
      assert.equal(0, got.code, got.err)
      assert.same({ a = 1 }, effects(home))
    end
  end)

  it("says why a job could not be started, with its last words", function()
    local home = cli.home()
    failing(home, "denied", 1)
    write_jobs(home, { noting(home, "a") })
    local got = batch(home, "-b", "shaky")
    assert.equal(1, got.code)
    local _, last = results_of(home)
    assert.matches("\ncould not be started: " .. last.a.error, got.err, 1, true)
  end)

  it("does not wait for another attempt when it is interrupted", function()
    local home = cli.home()
    failing(home, "unavailable", 3)
    write_jobs(home, { noting(home, "a"), noting(home, "b") })
    local argv = { "batch", "jobs.jsonl", "-j", "1", "-b", "shaky", "--pause", "1000", "--json" }
    task.run(function()
      local running = home:start(argv)
      assert.is_truthy(helper.eventually(function()
        return #helper.read(home.work .. "/failures") < 3
      end, 60))
      running.child:kill("TERM")
      local got = cli.finish(running)
      assert.equal(143, got.code, got.err)
      assert.equal(2, sum_of(got).not_begun)
    end)
    assert.is_nil(fs.stat(home.work .. "/jobs.jsonl.results.jsonl"))
  end)

  it("knows that a script without an interpreter was not executed", function()
    local home = cli.home()
    home:write("stubs/no_such.lua", [[
return { language = "no_such", extensions = {}, interpreter = { "no-such-interpreter" },
  transports = { uds = true }, render = function() return {} end }
]])
    home:write("config/farcall/config.lua", 'stub_path { "../../stubs" }\n')
    write_jobs(home, { { id = "a", script = "x", language = "no_such" } })
    local got = batch(home, "--json")
    assert.equal(1, got.code, got.err)
    local _, last = results_of(home)
    assert.same({ "not_run", 1 }, { last.a.state, last.a.attempts })
  end)

  it("lets policies place the jobs, by what they and the backends are labelled with", function()
    local home = cli.home()
    home:write("config/farcall/config.lua", [[
backend "small" { use = "local", labels = { size = "s" }, cost = 1 }
backend "large" { use = "local", labels = { size = "l" }, cost = 9 }
]])
    home:write("work/by_size.lua", [[
return {
  name = "by_size", summary = "s",
  place = function(job, candidates)
    if job.labels and job.labels.size == "xl" then
      return deny("nothing is so large for " .. job.id)
    end
    for _, candidate in ipairs(candidates) do
      if candidate.labels.size == (job.labels or { size = "s" }).size and candidate.cost
        and candidate.running >= 0 then
        return candidate.name
      end
    end
  end,
}]])
    local large = noting(home, "large")
    large.labels = { size = "l" }
    local huge = noting(home, "huge")
    huge.labels = { size = "xl" }
    write_jobs(home, { noting(home, "any"), large, huge })
    local got = batch(home, "--policy", "./by_size.lua", "--json")
    assert.equal(1, got.code, got.err)
    assert.same({ 2, 1 }, { sum_of(got).succeeded, sum_of(got).refused })
    local _, last = results_of(home)
    assert.same({ "small", "large", "refused" },
      { last.any.backend, last.large.backend, last.huge.state })
    assert.matches("nothing is so large for huge", last.huge.error, 1, true)
    assert.same({ any = 1, large = 1 }, effects(home))
    -- It is asked again, and may say something else.
    assert.equal(0, batch(home).code)
    assert.same({ any = 1, large = 1, huge = 1 }, effects(home))
  end)

  it("shows how far it is on a terminal, and the sum", function()
    local home = cli.home()
    local jobs = {}
    for i = 1, 4 do
      jobs[i] = { script = "import time\ntime.sleep(0.5)" }
    end
    write_jobs(home, jobs)
    local got = home:run({ "-c", 'script -qec "$0 batch jobs.jsonl -j 2" /dev/null',
      cli.program() }, { program = "/bin/sh" })
    assert.equal(0, got.code)
    assert.matches("/4 done, 2 running", got.out, 1, true)
    assert.matches("4 succeeded in", got.out, 1, true)
    assert.same({ code = 0, out = "", err = "" }, batch(home, "-q"))
    got = batch(home)
    assert.equal("", got.out)
    assert.matches("4 succeeded in .*4 of them earlier.*results in jobs.jsonl.results", got.err)
  end)

  it("does what docs/batch.md says", function()
    local home, count = cli.home(), 0
    local page = helper.read("docs/batch.md")
    for path, text in page:gmatch("<!%-%- file: (%S+) %-%->\n```%l+\n(.-)```") do
      home:write("work/" .. path, text)
      count = count + 1
    end
    assert.equal(3, count)
    home:write("work/count.py", "import sys\nprint(len(sys.argv[1].split()))\n")
    local got = batch(home, "-C", "farcall.lua", "--json")
    assert.equal(0, got.code, got.err)
    assert.equal(5, sum_of(got).succeeded)
    local _, last = results_of(home)
    assert.same({ "42\n", "hello, world\n", "3\n", "large", "small" }, {
      last["1"].output, last.greeting.output, last.words.output, last.heavy.backend,
      last.careful.backend,
    })
  end)

  it("refuses flags that make no sense", function()
    local home = cli.home()
    write_jobs(home, { { script = "x", allow = { "terminal" } } })
    for _, words in ipairs({
      { "-j", "0" }, { "-j", "1.5" }, { "--pool", "0" }, { "--again", "all" }, { "--timeout", "0" },
      { "--allow", "read_file" }, { "--env", "a b" }, { "-o", "x" }, { "--max-calls", "0.5" },
    }) do
      local got = batch(home, unpack(words))
      assert.equal(2, got.code, table.concat(words, " ") .. got.err)
    end
    assert.equal(2, home:run({ "batch", "none.jsonl" }).code)
    assert.equal(2, home:run({ "batch", "." }).code)
  end)
end)

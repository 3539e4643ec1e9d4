-- SPDX-License-Identifier: MIT
-- `farcall batch` on this machine and beyond: killed, on a full disk, over several containers; and
-- what a long one leaves behind. As root.
local batches = require("spec.support.batches")
local cli = require("spec.support.cli")
local docker = require("spec.support.docker")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local task = require("farcall.task")

local batch, effects, noting, tally = batches.run, batches.effects, batches.noting, batches.tally
local results_of, sum_of, write_jobs = batches.results, batches.sum, batches.write

local SSH = (os.getenv("FARCALL_TESTBED") or "/var/tmp/farcall-testbed") .. "/ssh/"

local PLACES = {
  { name = "this machine", words = {} },
  {
    name = "docker", setup = docker.setup,
    words = { "-b", "docker", "-o", "image=farcall-spec/debian", "--key", "batch" },
  },
  {
    name = "ssh", words = {
      "-b", "ssh", "-o", "host=127.0.0.1",
      "-o", "port=" .. ((helper.read(SSH .. "port.main") or ""):match("%d+") or "22"),
      "-o", "user=farcall-far", "-o", "identity=" .. SSH .. "ed25519",
      "-o", "known_hosts=" .. SSH .. "known_hosts", "-o", "agent=false", "-o", "config=none",
    },
  },
}

local function concat(...)
  local all = {}
  for _, list in ipairs({ ... }) do
    for _, word in ipairs(list) do
      all[#all + 1] = word
    end
  end
  return all
end

for _, place in ipairs(PLACES) do
  describe("a batch on " .. place.name .. " that is killed", function()
    local JOBS, WIDTH = 60, 4

    setup(function()
      if place.setup then
        place.setup()
      end
    end)

    teardown(function()
      os.execute("docker ps -aq --filter label=farcall.key=batch | xargs -r docker rm -f "
        .. ">/dev/null 2>&1")
    end)

    it("executes each job at most once, and all that it had not begun", function()
      local home = cli.home()
      local path = ("/tmp/farcall-batch-%d-%s"):format(os.time(), home.dir:match("%w+$"))
      local jobs = {}
      for i = 1, JOBS do
        jobs[i] = {
          id = "j" .. i, script = ("import time\nopen(%q, 'a').write('j%d\\n')\ntime.sleep(%g)")
            :format(path, i, i % 5 / 50),
        }
      end
      write_jobs(home, jobs)
      local argv = concat({ "batch", "jobs.jsonl", "-j", tostring(WIDTH), "--json" }, place.words)

      local function ended()
        local count = 0
        for line in (helper.read(home.work .. "/jobs.jsonl.results.jsonl") or "")
          :gmatch('"state":"done"')
        do
          count = count + (line and 1 or 0)
        end
        return count
      end

      task.run(function()
        for _, threshold in ipairs({ 1, 9, 25 }) do
          local running = home:start(argv)
          assert.is_truthy(helper.eventually(function()
            return ended() >= threshold or running.ended.is_set()
          end, 60))
          running.child:kill("KILL")
          cli.finish(running)
        end
      end)
      local got = home:run(argv)
      local sum = sum_of(got)
      assert.equal(sum.unknown > 0 and 1 or 0, got.code, got.err)
      assert.is_true(sum.earlier >= 25 and sum.earlier < JOBS, got.out)
      assert.is_true(sum.unknown <= 3 * WIDTH, got.out)
      assert.equal(JOBS, sum.succeeded + sum.unknown)
      local text = home:run(concat({ "exec", "-c", "cat " .. path .. "; rm " .. path },
        place.words)).out
      local times, _, last = tally(text), results_of(home)
      for i = 1, JOBS do
        local id = "j" .. i
        local wanted = last[id].state == "done" and 1 or times[id] or 0
        assert.equal(wanted, times[id] or 0, id)
        assert.is_true(wanted <= 1, id)
      end
    end)
  end)
end

describe("a batch whose disk is full", function()
  it("begins no job of which it cannot write that it did", function()
    local home = cli.home()
    local jobs = {}
    for i = 1, 60 do
      jobs[i] = noting(home, "j" .. i)
    end
    write_jobs(home, jobs)
    local got = home:run({
      "-m", "sh", "-c", "mkdir small && mount -t tmpfs -o size=16k none small && {"
        .. ' "$0" batch jobs.jsonl -r small/r -j 4; code=$?;'
        .. " cp small/r jobs.jsonl.results.jsonl; exit $code; }", cli.program(),
    }, { program = "/usr/bin/unshare" })
    assert.equal(125, got.code, got.err)
    assert.matches("results small/r: ", got.err, 1, true)
    assert.matches("\n$", helper.read(home.work .. "/jobs.jsonl.results.jsonl"))
    local _, last = results_of(home)
    local executed = 0
    for id, times in pairs(effects(home)) do
      assert.equal(1, times, id)
      assert.is_truthy(last[id], id)
      executed = executed + 1
    end
    assert.is_true(executed >= 5 and executed < 60, tostring(executed))
    -- There is room again.
    local sum = sum_of(batch(home, "--json"))
    assert.equal(60, sum.succeeded + sum.unknown)
    assert.is_true(sum.unknown <= 5, tostring(sum.unknown))
    for id, times in pairs(effects(home)) do
      assert.equal(1, times, id)
    end
  end)
end)

describe("a long batch", function()
  local JOBS, EARLY, OUTPUT = 400, 150, 40000
  -- What a run leaves in memory would be some kilobytes, a result that is kept 40.
  local GROWTH = 6 * 1024 * 1024

  setup(docker.setup)

  for _, words in ipairs({ {}, { "-b", "docker", "-o", "image=farcall-spec/debian" } }) do
    it("takes no more memory and descriptors than a short one, " .. (words[2] or "here"), function()
      local home = cli.home()
      local jobs = {}
      for i = 1, JOBS do
        -- Each its own text: equal ones are kept once.
        jobs[i] = { script = ("print('x' * %d + '%04d')"):format(OUTPUT - 5, i) }
      end
      write_jobs(home, jobs)
      local seen = {}
      local function look(running)
        local stat = fs.stat(home.work .. "/jobs.jsonl.results.jsonl")
        local done = stat and stat.size / OUTPUT or 0
        local status = helper.read(("/proc/%d/statm"):format(running.child:pid()))
        local pages = (status or ""):match("^%d+ (%d+)")
        if pages and done >= EARLY then
          seen[#seen + 1] = tonumber(pages) * 4096
        end
      end
      local got = task.run(function()
        local argv = { "batch", "jobs.jsonl", "-j", "8", "--json" }
        for _, word in ipairs(words) do
          argv[#argv + 1] = word
        end
        -- A sanitizer keeps what has been freed for a while, unless told not to.
        local running = home:start(argv, { env = { ASAN_OPTIONS = "quarantine_size_mb=1" } })
        helper.eventually(function()
          look(running)
          return running.ended.is_set()
        end, 120)
        return cli.finish(running)
      end)
      assert.equal(0, got.code, got.err)
      assert.is_true(#seen > 1)
      assert.is_true(math.max(unpack(seen)) - seen[1] < GROWTH,
        ("%d to %d"):format(seen[1], math.max(unpack(seen))))
      local _, last = results_of(home)
      assert.equal(OUTPUT, #last[tostring(JOBS)].output)
      assert.same({}, fs.list(home.dir .. "/runtime/farcall"))
    end)
  end
end)

describe("a batch over a pool of containers", function()
  setup(docker.setup)

  it("has as many as it was told, with a runner each, and leaves none", function()
    local home = cli.home()
    local jobs = {}
    for i = 1, 12 do
      jobs[i] = { script = "import time\ntime.sleep(0.2)" }
    end
    write_jobs(home, jobs)
    local got = batch(home, "-b", "docker", "-o", "image=farcall-spec/debian", "--pool", "2", "-j",
      "4", "--json")
    assert.equal(0, got.code, got.err)
    local _, last = results_of(home)
    local uses, execs, kinds = {}, 0, 0
    for _, line in pairs(last) do
      assert.equal("stream", line.transport)
      uses[line.environment] = (uses[line.environment] or 0) + 1
      execs = execs + line.execs
    end
    for name, count in pairs(uses) do
      kinds = kinds + 1
      assert.is_true(count >= 3, count .. " of 12 in " .. name)
      assert.is_false(select(2, docker.cli("inspect " .. name)))
    end
    assert.equal(2, kinds)
    -- Four that came at once can all have found that there was no runner yet.
    assert.is_true(execs <= 4, tostring(execs))
  end)
end)

describe("a batch whose container is removed", function()
  setup(docker.setup)

  it("loses what ran there, and does the rest in another one", function()
    local JOBS, WIDTH = 60, 4
    local home = cli.home()
    local jobs = {}
    for i = 1, JOBS do
      jobs[i] = { script = "import time\ntime.sleep(0.05)" }
    end
    write_jobs(home, jobs)
    local got = task.run(function()
      local running = home:start({
        "batch", "jobs.jsonl", "-b", "docker", "-o", "image=farcall-spec/debian", "-j",
        tostring(WIDTH), "--pause", "0.1", "--json",
      })
      local name = helper.eventually(function()
        local text = helper.read(home.work .. "/jobs.jsonl.results.jsonl") or ""
        local _, done = text:gsub('"state":"done"', "")
        return done >= 10 and text:match('"environment":"([%w-]+)"')
      end, 60)
      docker.cli("rm -f " .. name)
      return cli.finish(running)
    end)
    local sum = sum_of(got)
    assert.equal(JOBS, sum.succeeded + sum.failed, got.out)
    assert.is_true(sum.failed <= WIDTH, got.out)
    assert.equal(sum.failed > 0 and 1 or 0, got.code, got.err)
    local names, kinds = {}, 0
    for _, line in pairs((select(2, results_of(home)))) do
      assert.is_true(line.status == "success" or line.error_kind == "lost", line.error)
      kinds = kinds + (names[line.environment] and 0 or 1)
      names[line.environment] = true
    end
    assert.equal(2, kinds)
  end)
end)

-- SPDX-License-Identifier: MIT
local fs = require("farcall.core.fs")
local json = require("farcall.core.json")
local journal = require("farcall.journal")
local child = require("spec.support.child")
local helper = require("spec.helper")
local system = require("farcall.core.system")
local ffi = require("ffi")

describe("journal", function()
  local state
  before_each(function()
    state = helper.scratch() .. "/state"
  end)

  local function open(id, sync)
    return assert(journal.open({
      state_dir = state, run_id = id or "run-1", sync = sync,
      job = { script = "print(1)", args = json.array({}) },
    }))
  end

  it("makes ids that sort by time and are safe in a path", function()
    local one = journal.new_id(1700000000.25, "\1\2\3\4\255")
    assert.equal("20231114-221320-250-01020304ff", one)
    assert.is_true(one < journal.new_id(1700000001, "\0\0\0\0\0"))
    assert.not_equal(journal.new_id(), journal.new_id())
    assert.matches("^[0-9a-z-]+$", journal.new_id())
  end)

  it("keeps job, events and result", helper.task(function()
    local j = open()
    assert.is_true(j:event("call", { id = 1, tool = "x", arguments = json.raw('{"a":[]}') }))
    assert.is_true(j:event("bare"))
    assert.is_true(j:result({ status = "success", exit_code = 0 }))
    assert.is_true(j:close())
    assert.is_true(j:close())
    local record = assert(journal.read(state, "run-1"))
    assert.equal("print(1)", record.job.script)
    assert.equal("success", record.result.status)
    assert.equal(2, #record.events)
    local call = record.events[1]
    assert.equal("call", call.event)
    assert.equal("x", call.tool)
    assert.is_true(math.abs(call.time - os.time()) < 60)
    assert.is_true(json.is_array(call.arguments.a))
  end))

  it("is private to the user", helper.task(function()
    local j = open()
    j:event("x")
    j:result({})
    j:close()
    assert.equal(0x1C0, fs.stat(state .. "/runs").mode)
    assert.equal(0x1C0, fs.stat(j.dir).mode)
    for _, name in ipairs(fs.list(j.dir)) do
      assert.equal(0x180, fs.stat(j.dir .. "/" .. name).mode)
    end
  end))

  it("has each event out before it returns, so that SIGKILL takes none", function()
    for i = 1, 20 do
      local id = "killed-" .. i
      child.kill_after(math.random(0, 3000), function()
        local j = open(id)
        local count = assert(fs.appender(state .. "/count-" .. i, 0x180))
        while true do
          assert(j:event("call", { text = ("x"):rep(math.random(0, 2000)) }))
          count:write("x")
        end
      end)
      local record = journal.read(state, id)
      local counted = #(helper.read(state .. "/count-" .. i) or "")
      if counted > 0 then
        assert.equal("print(1)", record.job.script)
        assert.is_nil(record.result)
        assert.is_true(#record.events >= counted)
        for n = 1, counted do
          assert.equal("call", record.events[n].event)
        end
      end
    end
  end)

  it("waits for the disk at each event with sync = call", helper.task(function()
    local j = open(nil, "call")
    for i = 1, 3 do
      assert.is_true(j:event("call", { id = i }))
    end
    assert.is_true(j:close())
    assert.equal(3, #assert(journal.read(state, "run-1")).events)
  end))

  it("reads a journal whose last line is torn", helper.task(function()
    local j = open()
    j:event("whole", { n = 1 })
    j:close()
    local path = j.dir .. "/events.jsonl"
    helper.write(path, helper.read(path) .. '{"time":1,"event":"ca')
    local events = assert(journal.read(state, "run-1")).events
    assert.equal("whole", events[1].event)
    assert.same({ event = "torn", text = '{"time":1,"event":"ca' }, events[2])
    helper.write(path, "nonsense\n" .. helper.read(path))
    assert.equal(3, #assert(journal.read(state, "run-1")).events)
  end))

  it("reads one that was killed before it began", function()
    assert(fs.mkdir(state .. "/runs/empty", 0x1C0, true))
    assert.same({ events = {} }, (journal.read(state, "empty")))
    helper.write(state .. "/runs/empty/result.json", "{")
    assert.is_nil(assert(journal.read(state, "empty")).result)
  end)

  it("goes on behind an event of which a part went in", function()
    local how, code = child.run(function()
      local j = open()
      assert(j:event("first"))
      child.limit_file_size(300)
      local ok, err = j:event("large", { text = ("x"):rep(1000) })
      local none, again = j:event("small")
      return not ok and err.code == "PARTIAL" and not none and again.code == "EFBIG" and 7 or 1
    end)
    assert.same({ "exit", 7 }, { how, code })
    local path = state .. "/runs/run-1/events.jsonl"
    local events = assert(journal.read(state, "run-1")).events
    assert.same({ "first", "torn" }, { events[1].event, events[2].event })
    assert.equal(300, #helper.read(path))
  end)

  it("writes what JSON cannot hold as far as it can", helper.task(function()
    local j = open()
    assert.is_true(j:event("odd", { text = "a\255b", list = json.array({ "\254" }), nan = 0 / 0,
      fn = print, deep = { { { "\253" } } } }))
    j:close()
    local event = assert(journal.read(state, "run-1")).events[1]
    assert.equal("odd", event.event)
    assert.matches("^a.+b$", event.text)
    assert.is_true(json.is_array(event.list))
    assert.matches("^function", event.fn)
    assert.equal("nan", event.nan:match("nan"))
  end))

  it("lists runs, oldest first, ended or not", helper.task(function()
    assert.same({}, journal.list(state))
    for _, id in ipairs({ "b", "a", "c" }) do
      local j = open(id)
      if id ~= "c" then
        j:result({ status = "error" })
      end
      j:close()
    end
    helper.write(state .. "/runs/stray", "")
    assert(fs.mkdir(state .. "/runs/Bad Name", 0x1C0))
    local runs = assert(journal.list(state))
    assert.equal(3, #runs)
    local seen = {}
    for i, run in ipairs(runs) do
      seen[i] = run.run_id .. " " .. run.status
      assert.is_true(math.abs(run.started - os.time()) < 60)
    end
    assert.same({ "a error", "b error", "c running" }, seen)
  end))

  it("tells a run that goes on from one whose engine was killed", function()
    local how = child.run(function()
      open("killed")
      ffi.C.kill(system.pid(), 9)
    end)
    assert.equal("signal", how)
    assert.equal("unfinished", assert(journal.list(state))[1].status)
  end)

  it("removes the runs that ended long ago, once a day and not those that go on", helper.task(
    function()
      local runs = require("farcall.runs")
      for _, id in ipairs({ "old", "new", "on" }) do
        local j = open(id)
        j:close()
      end
      -- Its engine, this process, is alive; the others' are none that there is.
      for _, id in ipairs({ "old", "new" }) do
        helper.write(state .. "/runs/" .. id .. "/job.json", '{"engine":{"host":"x","pid":1}}')
      end
      for _, id in ipairs({ "old", "on" }) do
        os.execute(("touch -d '10 days ago' %s/runs/%s"):format(state, id))
      end
      helper.write(state .. "/runs/what is this", "")
      assert.equal(0, runs.prune(state, 0))
      assert.equal(0, runs.prune(state, 11))
      os.remove(state .. "/runs.pruned")
      assert.equal(1, runs.prune(state, 9))
      local names = fs.list(state .. "/runs")
      table.sort(names)
      assert.same({ "new", "on", "what is this" }, names)
      os.execute(("touch -d '10 days ago' %s/runs/new"):format(state))
      assert.equal(0, runs.prune(state, 9))
      assert.equal(1, runs.prune(state, 9, system.time() + 86500))
    end))

  it("takes no event after its end", helper.task(function()
    local j = open()
    j:close()
    local ok, err = j:event("late")
    assert.is_nil(ok)
    assert.equal("CLOSED", err.code)
  end))

  it("says which run is not there, and takes no path for an id", function()
    local record, err = journal.read(state, "none")
    assert.is_nil(record)
    assert.equal("not_found", err.kind)
    for _, id in ipairs({ "../x", "a/b", "", "-a", "A", ("a"):rep(65), "a\n" }) do
      record, err = journal.read(state, id)
      assert.is_nil(record)
      assert.equal("usage", err.kind)
    end
    assert.has_error(function() journal.open({ state_dir = state, run_id = "../x", job = {} }) end)
  end)

  it("does not take over the directory of another run", function()
    local j = open()
    local other, err = journal.open({ state_dir = state, run_id = "run-1", job = {} })
    assert.is_nil(other)
    assert.equal("EEXIST", err.code)
    assert.is_table(j)
  end)

  it("says why it cannot be opened", function()
    local j, err = journal.open({ state_dir = "/dev/null/x", run_id = "a", job = {} })
    assert.is_nil(j)
    assert.equal("not_found", err.kind)
  end)
end)

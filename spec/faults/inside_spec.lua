-- SPDX-License-Identifier: MIT
-- Environments that lack what a run needs: programs, modules, room to write.
local docker = require("spec.support.docker")
local faults = require("spec.support.faults")

local transport

local function run(options, job)
  local result
  local counted
  faults.with({}, function(engine, notes)
    local spec = {
      backend = "docker", options = options, language = "python", timeout = 50,
      transport = transport,
    }
    for name, value in pairs(job) do
      spec[name] = value
    end
    result = assert(engine:run(spec))
    counted = notes:count()
  end)
  assert.same({ "docker", transport }, { result.backend, result.transport })
  return result, counted
end

local CALL = "from farcall import note; print(note(text='first'))"
local CALLED = { status = "success", calls = { "note done" }, output = "first\n" }

local function specify(way)
  setup(function()
    docker.setup()
    transport = way
  end)

  it("says so where there is no Python", function()
    local result, notes = run({ image = "farcall-spec/busybox" }, { script = CALL })
    faults.ended(result, {
      status = "error", kind = "not_found", error = "has no python3", calls = {}, output = "",
    })
    assert.is_truthy(result.hint:find("another language", 1, true), result.hint)
    assert.same({}, notes)
    result = run({ image = "farcall-spec/busybox" }, {
      script = "call note text=first", language = "sh",
    })
    faults.ended(result, CALLED)
  end)

  it("says so where Python has no json", function()
    local result = run({ image = "farcall-spec/nojson" }, { script = "print('passed')" })
    faults.ended(result, { status = "success", calls = {}, output = "passed\n" })
    local notes
    result, notes = run({ image = "farcall-spec/nojson" }, { script = CALL })
    faults.ended(result, {
      status = "error", error = "exited with code 1", calls = {}, output = "",
    })
    assert.is_truthy(result.stderr:find("ToolError: this Python has no module json", 1, true),
      result.stderr)
    assert.is_truthy(result.hint:find("python3-minimal", 1, true), result.hint)
    assert.same({}, notes)
  end)

  it("finds another place where /tmp cannot be written to, or is full", function()
    faults.ended(run({ image = "farcall-spec/debian", read_only = true, tmpfs = {} },
      { script = CALL }), CALLED)
    faults.ended(run({ image = "farcall-spec/debian", tmpfs = { "/tmp:size=16k" } },
      { script = CALL }), CALLED)
  end)

  describe("that is attached to", function()
    local name

    after_each(function()
      docker.cli("rm -f " .. name)
    end)

    -- One without /dev/shm, whose root is read-only.
    local function attached(words)
      local ok
      name, ok = docker.cli("run -d --read-only --ipc none " .. words
        .. " farcall-spec/debian sleep 1000")
      assert(ok, name)
      return { attach = name }
    end

    -- What is in /tmp once the run has cleaned up, but for a runner's program that is kept.
    local function left(names)
      local list
      for _ = 1, 20 do
        list = docker.cli("exec " .. name .. " ls -A /tmp"):gsub("^farcall%-65534\n?", "")
        if list == names then
          return
        end
      end
      assert.equal(names, list)
    end

    it("says so where nothing can be written", function()
      local result, notes = run(attached("--user 65534"), { script = CALL })
      faults.ended(result, {
        status = "error", kind = "denied", error = "none of /tmp, /var/tmp, /dev/shm", calls = {},
        output = "",
      })
      assert.is_truthy(result.hint:find("need %d+ bytes"), result.hint)
      assert.same({}, notes)
    end)

    it("says so where there is too little room, and leaves no directory", function()
      local options = attached("--user 65534 --tmpfs /tmp:size=16k,mode=1777")
      local result = run(options, { script = CALL })
      faults.ended(result, { status = "error", kind = "denied", error = "none of", calls = {} })
      left("")
      docker.cli("rm -f " .. name)
      options = attached("--user 65534 --tmpfs /tmp:size=256k,mode=1777")
      assert.is_true(select(2, docker.cli("exec " .. name
        .. " sh -c 'head -c 250000 /dev/zero > /tmp/full'")))
      result = run(options, { script = CALL })
      faults.ended(result, { status = "error", kind = "denied", error = "none of", calls = {} })
      left("full")
    end)

    it("delivers a reply once there is room again, and goes on", function()
      local result, notes = run(attached("--user 65534 --tmpfs /tmp:size=1m,mode=1777"), {
        script = [[
import os, threading, time
from farcall import note, ToolError
print(note(text="first"))
got = []
thread = threading.Thread(target=lambda: got.append(note(text="x" * 100000, wait=2)))
thread.start()
time.sleep(1)
def fill():
    file = open("/tmp/full", "ab", 0)
    for size in (65536, 1):
        try:
            while True:
                file.write(b"x" * size)
        except OSError:
            pass
stop = time.monotonic() + 4
while time.monotonic() < stop:
    fill()
    time.sleep(0.01)
print(len(got))
try:
    note(text="second")
except ToolError as error:
    print(error.kind, "No space left" in str(error))
os.unlink("/tmp/full")
thread.join(10)
print(len(got), len(got[0]))
print(note(text="third"))
]],
      })
      local done, noted = { "note done", "note done", "note done" },
        { first = 1, [("x"):rep(40)] = 1, third = 1 }
      if way == "stream" then
        -- Its calls need no room.
        done[4], noted.second = "note done", 1
      end
      faults.ended(result, {
        status = "success", calls = done,
        output = way == "stream" and "first\n1\n1 100000\nthird\n"
          or "first\n0\nlost True\n1 100000\nthird\n",
      })
      assert.same(noted, notes)
      left("")
    end)

    it("ends at its deadline where a reply never finds room, if it needs any", function()
      local result, notes = run(attached("--user 65534 --tmpfs /tmp:size=1m,mode=1777"), {
        timeout = 6, script = [[
import threading, time
from farcall import note
def fill():
    time.sleep(1)
    file = open("/tmp/full", "ab", 0)
    for size in (65536, 1):
        try:
            while True:
                file.write(b"x" * size)
        except OSError:
            pass
threading.Thread(target=fill, daemon=True).start()
print(note(text="first"), flush=True)
print(len(note(text="x" * 100000, wait=2)))
]],
      })
      faults.ended(result, {
        status = way == "stream" and "success" or "timeout", calls = { "note done", "note done" },
        output = way == "stream" and "first\n100000\n" or "first\n",
      })
      assert.same({ first = 1, [("x"):rep(40)] = 1 }, notes)
      left("full")
    end)
  end)
end

for _, way in ipairs({ "stream", "file" }) do
  describe("a run in Docker by " .. way, function()
    specify(way)
  end)
end

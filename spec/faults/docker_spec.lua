-- SPDX-License-Identifier: MIT
-- A Docker engine, or a container, that goes in the middle of a run.
local docker = require("spec.support.docker")
local faults = require("spec.support.faults")
local task = require("farcall.task")

local IMAGE = "farcall-spec/debian"

-- What a broken run of faults.script leaves behind in its result.
local function broken(how)
  return {
    status = "error", kind = "lost", output = "begun first\n",
    calls = how == "calling" and { "note done", "note unknown" } or { "note done" },
  }
end

local function once(notes)
  for text, count in pairs(notes:count()) do
    assert.equal(1, count, text)
  end
end

local function again(engine, job)
  local result, err = engine:run({
    backend = job.backend, options = job.options, language = "python", transport = job.transport,
    script = "from farcall import note; print(note(text='third'))",
  })
  assert(result, tostring(err))
  faults.ended(result, { status = "success", calls = { "note done" }, output = "third\n" })
end

local function removed(way)
  setup(docker.setup)

  for _, how in ipairs({ "calling", "idle" }) do
    it("says lost when its container is removed, " .. how, function()
      local number = faults.number()
      faults.with({}, function(engine, notes)
        local job = {
          backend = "docker", options = { image = IMAGE }, script = faults.script(how, number),
          transport = way,
        }
        local name = assert(engine:environment("docker", job.options)).name
        local result, err = faults.run(engine, notes, job, function()
          faults.staying(notes, how, number)
          assert.equal(0, faults.sh("docker rm -f " .. name))
        end)
        assert(result, tostring(err))
        faults.ended(result, broken(how))
        assert.same({ "docker", way, name },
          { result.backend, result.transport, result.environment })
        once(notes)
        faults.gone(number, 5)
        -- The next one gets another container.
        again(engine, job)
        assert.is_true(name ~= assert(engine:environment("docker", job.options)).name)
      end)
    end)
  end
end

local function restarted(way)
  local engine_of

  setup(function()
    docker.setup()
    engine_of = docker.own({ "busybox", "debian" })
  end)

  teardown(function()
    engine_of.close()
  end)

  local function options()
    return { image = IMAGE, socket = engine_of.socket }
  end

  local function containers()
    local pipe = io.popen("docker -H unix://" .. engine_of.socket .. " ps -aq")
    local text = pipe:read("*a")
    pipe:close()
    return text
  end

  for what, signal in pairs({ ["is restarted"] = "TERM", ["is killed and comes back"] = "KILL" }) do
    for _, how in ipairs({ "calling", "idle" }) do
      it("says lost when that " .. what .. ", " .. how, function()
        local number = faults.number()
        faults.with({}, function(engine, notes)
          local job = {
            backend = "docker", options = options(), script = faults.script(how, number),
            transport = way,
          }
          local result, err = faults.run(engine, notes, job, function()
            faults.staying(notes, how, number)
            engine_of.stop(signal, faults.sh)
            engine_of.start(faults.sh)
          end)
          assert(result, tostring(err))
          faults.ended(result, broken(how))
          once(notes)
          faults.gone(number, 10)
          again(engine, job)
        end)
        assert.equal("", containers())
      end)
    end
  end

  it("says lost when that stays away, and then that it is not there", function()
    local number = faults.number()
    faults.with({}, function(engine, notes)
      local job = {
        backend = "docker", options = options(), script = faults.script("calling", number),
        transport = way,
      }
      local result = assert(faults.run(engine, notes, job, function()
        faults.staying(notes, "calling", number)
        engine_of.stop("KILL", faults.sh)
      end))
      faults.ended(result, broken("calling"))
      once(notes)
      job.language = "python"
      local none, err = engine:run(job)
      assert.is_nil(none)
      assert.equal("unavailable", err.kind)
      engine_of.start(faults.sh)
      faults.gone(number, 10)
    end)
    os.execute(("docker -H unix://%s ps -aq | xargs -r docker -H unix://%s rm -f >/dev/null")
      :format(engine_of.socket, engine_of.socket))
  end)

  it("goes on when that hangs for some seconds", function()
    faults.with({}, function(engine, notes)
      local result = assert(faults.run(engine, notes, {
        backend = "docker", options = options(), transport = way, script = [[
from farcall import note, parallel
print(note(text="first", wait=1))
texts = ["n%d" % i for i in range(20)]
assert parallel([(note, {"text": t, "wait": 0.2}) for t in texts], workers=4) == texts
print("good")
]],
      }, function()
        notes:await("first")
        engine_of.signal("STOP")
        task.sleep(4)
        engine_of.signal("CONT")
        notes:await("n1")
        engine_of.signal("STOP")
        task.sleep(4)
        engine_of.signal("CONT")
      end))
      assert.equal("first\ngood\n", result.output, tostring(result.error) .. result.stderr)
      assert.equal("success", result.status)
      assert.equal(21, result.tool_calls_made)
      once(notes)
    end)
    assert.equal("", containers())
  end)
end

for _, way in ipairs({ "stream", "file" }) do
  describe("a run in Docker, by " .. way, function()
    removed(way)
  end)

  describe("a run in an engine of its own, by " .. way, function()
    restarted(way)
  end)
end

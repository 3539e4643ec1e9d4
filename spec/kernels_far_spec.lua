-- SPDX-License-Identifier: MIT
-- Sessions in environments that are reached by a link, their calls by stream.
local docker = require("spec.support.docker")
local engines = require("spec.support.engines")
local helper = require("spec.helper")

local BED = (os.getenv("FARCALL_TESTBED") or "/var/tmp/farcall-testbed") .. "/ssh/"

local PLACES = {
  docker = function()
    docker.setup()
    return { image = "farcall-spec/debian" }
  end,
  ssh = function()
    return {
      host = "127.0.0.1", user = "farcall-far", config = "none", identity = BED .. "ed25519",
      port = tonumber(helper.read(BED .. "port.main"):match("%d+")),
      known_hosts = BED .. "known_hosts",
    }
  end,
}

local function with(backend, form, body)
  local options = PLACES[backend]()
  engines.with({ runner_forms = { form } }, function(one)
    return body(function(script, more)
      local job = {
        script = script, language = "python", session = "s", backend = backend, options = options,
        timeout = 50,
      }
      for key, value in pairs(more or {}) do
        job[key] = value
      end
      return assert(one:run(job))
    end)
  end)
end

for _, row in ipairs({ { "docker", "c" }, { "docker", "python" }, { "ssh", "c" } }) do
  local backend, form = unpack(row)

  describe(("sessions on %s, through the form %s,"):format(backend, form), function()
    it("keep what scripts have defined, and serve each run's calls", function()
      with(backend, form, function(run)
        local first = run("from farcall import terminal\nx = 1\n"
          .. "print(terminal('echo a')['output'])")
        assert.equal("a\n\n", first.output, first.stderr)
        assert.equal("stream", first.transport)
        assert.equal("new", first.session_state)
        for i = 2, 5 do
          local next_one = run("x += 1\nprint(x, terminal('echo b')['output'])", { max_calls = 1 })
          assert.equal(("%d b\n\n"):format(i), next_one.output, next_one.stderr)
          assert.equal("kept", next_one.session_state)
          assert.equal(first.environment, next_one.environment)
          assert.equal(0, next_one.execs)
        end
      end)
    end)

    it("interrupt what takes too long, and kill what does not stop by that", function()
      with(backend, form, function(run)
        run("import time, signal; x = 1")
        local late = run("time.sleep(1000)", { timeout = 1 })
        assert.equal("timeout", late.status)
        assert.is_nil(late.session_lost)
        assert.equal("1\n", run("print(x)").output)
        local stuck = run("while True:\n  try: time.sleep(1000)\n  except BaseException: pass",
          { timeout = 2 })
        assert.equal("timeout", stuck.status)
        assert.matches("did not stop", stuck.session_lost)
        local after = run("print('x' in globals())")
        assert.equal("False\n", after.output)
        assert.equal("lost", after.session_state)
      end)
    end)

    it("say so when what they live in has died, in a run or between two", function()
      with(backend, form, function(run)
        run("import os, signal; x = 1")
        local last = run("os.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(40)")
        assert.is_not_equal("success", last.status)
        assert.is_string(last.session_lost)
        local after = run("print('x' in globals())")
        assert.equal("False\n", after.output, after.stderr .. tostring(after.error))
        assert.equal("lost", after.session_state)
        assert.matches("session s began anew", after.hint)
      end)
    end)
  end)
end

describe("sessions in a container", function()
  it("begin anew in another one when theirs was removed", function()
    with("docker", "c", function(run)
      local first = run("x = 1")
      local _, removed = docker.cli("rm -f " .. first.environment)
      assert.is_true(removed)
      local seen
      for _ = 1, 20 do
        seen = run("print('x' in globals())")
        if seen.status == "success" then
          break
        end
        assert.is_truthy(seen.error or seen.session_lost)
      end
      assert.equal("False\n", seen.output)
      assert.equal("lost", seen.session_state)
      assert.not_equal(first.environment, seen.environment)
    end)
  end)
end)

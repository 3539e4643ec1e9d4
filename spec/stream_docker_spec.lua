-- SPDX-License-Identifier: MIT
-- Scripts by stream in containers.
local docker = require("spec.support.docker")
local engines = require("spec.support.engines")
local stream_suite = require("spec.support.stream_suite")

local IMAGE = "farcall-spec/debian"
local PLACE = { use = "docker", options = { image = IMAGE } }

describe("a script by stream, in a container,", function()
  setup(docker.setup)

  stream_suite.all(PLACE)

  it("calls through the Python runner where nothing may be executed that is put there", function()
    local place = { use = "docker", options = {
      image = IMAGE, read_only = true, tmpfs = { "/tmp:noexec,mode=1777" },
    } }
    engines.with({ backends = { box = place } }, function(one)
      local result = assert(one:run({ backend = "box", language = "sh",
        script = "call -f output terminal command='echo a'" }))
      assert.same({ "success", "a\n\n", "stream", "python" },
        { result.status, result.output, result.transport, result.runner }, result.stderr)
    end)
  end)

  for _, form in ipairs({ "c", "python" }) do
    it("has the umask and the locale of its environment, through the form " .. form, function()
      stream_suite.through(form, PLACE, function(run)
        local job = { script = "umask; env | grep -e '^LC_' -e '^LANG'; call terminal "
          .. "command=umask", language = "sh" }
        job.transport = "file"
        local bare = run(job)
        job.transport = "stream"
        local got = run(job)
        assert.matches("^0022\n{", bare.output)
        assert.equal(bare.output, got.output)
        assert.equal("", got.stderr)
      end)
    end)
  end
end)

-- SPDX-License-Identifier: MIT
-- What a script has of the runner that starts it, in each form and on each side: nothing that it
-- would not have without one.
local engines = require("spec.support.engines")

local IMAGE = "farcall-spec/debian"

local PLACES = {
  ["in a container"] = { use = "docker", options = { image = IMAGE } },
  ["here"] = { use = "local", options = {} },
}

-- Runs body(run, engine), run(job) a script by stream through a runner of this form.
local function through(form, place, body)
  return engines.with({ runner_forms = { form }, backends = { box = place } }, function(one, cfg)
    return body(function(job)
      job.backend, job.transport = "box", job.transport or "stream"
      return assert(one:run(job))
    end, one, cfg)
  end)
end

describe("a script by stream", function()
  for _, form in ipairs({ "c", "python" }) do
    it("has the umask and the locale of its environment, through the form " .. form, function()
      through(form, PLACES["in a container"], function(run)
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

-- SPDX-License-Identifier: MIT
local binds = require("farcall.binds")
local cli = require("spec.support.cli")

describe("binds", function()
  it("are taken with a place over there", function()
    assert.is_true(binds.check(nil))
    assert.is_true(binds.check({ "/a:/b", "/a b:/c:ro", "data:/data", "/x:/y:rw,z" }))
  end)

  it("without one are refused, with what to write", function()
    for text, hint in pairs({
      ["/srv/data"] = "write /srv/data:/srv/data, or /srv/data:/srv/data:ro",
      ["/srv:data"] = "write /srv:/srv, or", ["data"] = "write /HERE:/THERE",
      [":/b"] = "write /HERE:/THERE",
    }) do
      local ok, err = binds.check({ "/a:/b", text })
      assert.is_false(ok)
      assert.matches("does not say where in the container", tostring(err), 1, true)
      assert.matches(hint, err.hint, 1, true)
    end
  end)

  it("of docker and podman are looked at before anything is made", function()
    for _, backend in ipairs({ "docker", "podman" }) do
      local got = cli.home():run({ "exec", "-b", backend, "-o", "image=none", "-o", "binds=/srv",
        "--", "true" })
      assert.equal(125, got.code)
      assert.matches('option binds: "/srv" does not say where in the container', got.err, 1, true)
    end
  end)
end)

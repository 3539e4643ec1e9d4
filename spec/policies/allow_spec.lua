-- SPDX-License-Identifier: MIT

local policy = require("farcall.policy")

describe("the allow policy", function()
  local function decide(options, tool, arguments)
    local chain = assert(policy.chain({
      policies = { { name = "allow", options = options } }, run_id = "r", job = {},
    }))
    local decision = chain:before({ id = 1, tool = tool, arguments = arguments or {} })
    chain:close()
    return decision.action, decision.reason
  end

  it("lets only listed tools through", function()
    assert.equal("allow", (decide({ tools = { "a", "b" } }, "b")))
    local action, reason = decide({ tools = { "a" } }, "b")
    assert.equal("deny", action)
    assert.equal("policy allow: b is not among the tools that may be called", reason)
    assert.equal("deny", (decide({ tools = {} }, "a")))
    assert.is_nil((policy.chain({ policies = { { name = "allow" } }, run_id = "r", job = {} })))
  end)

  it("binds commands as a whole", function()
    local options = { tools = { "terminal" }, commands = { "ls [%w%-./ ]*", "git status",
      "echo .*" } }
    local function terminal(command)
      return (decide(options, "terminal", { command = command }))
    end
    for _, command in ipairs({ "ls -l src", "git status", "echo hello" }) do
      assert.equal("allow", terminal(command), command)
    end
    for _, command in ipairs({
      "rm -rf /", "git status -x", "xgit status", "echo a; rm b", "echo $(rm b)", "echo `rm b`",
      "echo a > b", "echo a && rm b", "echo a\nrm b", "echo a | sh", "echo <(x)", "",
    }) do
      assert.equal("deny", terminal(command), command)
    end
    assert.equal("allow", (decide({ tools = { "terminal" } }, "terminal", { command = "a; b" })))
    assert.equal("deny", (decide({ tools = { "terminal" }, commands = {} }, "terminal",
      { command = "ls" })))
  end)

  it("binds paths to directories", function()
    local options = { tools = { "read_file", "patch", "terminal" }, paths = { "src", "/srv/data" } }
    local function reads(path)
      return (decide(options, "read_file", { path = path }))
    end
    for _, path in ipairs({ "src", "src/a/b.c", "/srv/data/x", "src/a..b", "src/..x" }) do
      assert.equal("allow", reads(path), path)
    end
    for _, path in ipairs({
      "/etc/passwd", "srcs/a", "src/../x", "src/..", "/srv/data/../x", "/srv/database", "./src/a",
        ".",
    }) do
      assert.equal("deny", reads(path), path)
    end
    assert.equal("deny", (decide(options, "patch", { mode = "patch", patch = "..." })))
    assert.equal("deny", (decide(options, "terminal", { command = "ls", workdir = "/etc" })))
    options = { tools = { "read_file" }, paths = { "." } }
    assert.equal("allow", (decide(options, "read_file", { path = "a/b" })))
    assert.equal("deny", (decide(options, "read_file", { path = "/a" })))
    assert.equal("deny", (decide(options, "read_file", { path = "../a" })))
  end)
end)

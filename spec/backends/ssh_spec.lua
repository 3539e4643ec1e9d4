-- SPDX-License-Identifier: MIT
-- Against the servers of spec/testbed/ssh.sh, which need root.
local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local task = require("farcall.task")

local function testbed()
  local pipe = assert(io.popen("sh spec/testbed/ssh.sh"))
  local dir = assert(pipe:read("*l"), "no testbed")
  pipe:close()
  local function port(name)
    return tonumber((helper.read(dir .. "/port." .. name):match("%d+")))
  end
  return { dir = dir, main = port("main"), default = port("default") }
end

-- Options that log in, and what a spec wants otherwise; false takes one away.
local function options(bed, over)
  local all = {
    host = "127.0.0.1", port = bed.main, user = "farcall-far", identity = { bed.dir .. "/ed25519" },
    known_hosts = { bed.dir .. "/known_hosts" }, agent = false, config = "none",
    client = "libssh2",
  }
  for name, value in pairs(over or {}) do
    all[name] = value
    if value == false and name ~= "agent" then
      all[name] = nil
    end
  end
  return all
end

describe("the ssh backend", function()
  local bed

  setup(function()
    bed = testbed()
  end)

  local function exec(over, spec)
    local lines, result, err = {}, nil, nil
    engines.with({
      log = function(_, text)
        lines[#lines + 1] = text
      end,
    }, function(one)
      spec = spec or { command = "id -un" }
      spec.backend, spec.options = "ssh", options(bed, over)
      result, err = one:exec(spec)
    end)
    return result, err, lines
  end

  for _, client in ipairs({ "libssh2", "openssh" }) do
    describe("by " .. client, function()
      local function with(over)
        over = over or {}
        over.client = client
        return over
      end

      it("runs commands as the user, where it is told to", function()
        local result = assert(exec(with()))
        assert.equal("farcall-far\n", result.stdout)
        result = assert(exec(with({ cwd = "/usr" }), { command = "pwd; echo e >&2; exit 255" }))
        assert.same({ "/usr\n", "e\n", 255 }, { result.stdout, result.stderr, result.exit_code })
        result = assert(exec(with(), { argv = { "cat" }, stdin = ("\0\255x\n"):rep(300000) }))
        assert.equal(1200000, #result.stdout)
      end)

      it("takes a host only by a key that it knows, or is told to take", function()
        local known = helper.scratch() .. "/known_hosts"
        local over = with({ known_hosts = { known } })
        local result, err = exec(over)
        assert.is_nil(result)
        assert.equal("denied", err.kind)
        assert.equal("UNKNOWN_HOST", err.code)
        over.accept_new = true
        assert(exec(over))
        assert.is_truthy(helper.read(known):find("ssh-ed25519", 1, true))
        over.accept_new = false
        assert(exec(over))
        helper.write(known, ("[127.0.0.1]:%d ssh-ed25519 %s\n"):format(bed.main,
          helper.read(bed.dir .. "/ed25519.pub"):match("^%S+ (%S+)")))
        over.accept_new = true
        result, err = exec(over)
        assert.is_nil(result)
        assert.equal("HOSTKEY", err.code)
      end)

      it("says that a key is refused, that nobody listens, that a name is none", function()
        local key = helper.scratch() .. "/key"
        os.execute("ssh-keygen -q -t ed25519 -N '' -f " .. key)
        local _, err = exec(with({ identity = { key } }))
        assert.same({ "denied", "AUTH" }, { err.kind, err.code })
        _, err = exec(with({ port = 1 }))
        assert.equal("unavailable", err.kind)
        _, err = exec(with({ host = "host.invalid" }))
        assert.equal("unavailable", err.kind)
      end)

      it("lets 32 commands run where the server takes 10 at once", function()
        engines.with({}, function(one)
          local running = {}
          for i = 1, 32 do
            running[i] = task.spawn(function()
              local result = assert(one:exec({
                backend = "ssh", options = options(bed, with({ port = bed.default })),
                command = "sleep 0.1; echo " .. i,
              }))
              assert.equal(i .. "\n", result.stdout)
            end)
          end
          for _, each in ipairs(running) do
            assert(each:join())
          end
        end)
      end)
    end)
  end

  it("takes libssh2 where it can serve, else says why it takes OpenSSH", function()
    local _, _, lines = exec({ client = "auto" })
    assert.same({}, lines)
    local result
    result, _, lines = exec({ client = "auto", identity = { bed.dir .. "/rsa" } })
    assert.equal("farcall-far\n", result and result.stdout)
    assert.equal(1, #lines)
    assert.is_truthy(lines[1]:find("by OpenSSH", 1, true))
  end)

  it("finds aliases in a configuration file, and jumps by it", function()
    local config = helper.scratch() .. "/config"
    helper.write(config, ([[
Host box
  HostName 127.0.0.1
  Port %d
  User farcall-far
  IdentityFile %s/ed25519
  UserKnownHostsFile %s/known_hosts
Host behind
  HostName 127.0.0.1
  Port %d
  User farcall-far
  IdentityFile %s/ed25519
  UserKnownHostsFile %s/known_hosts
  ProxyJump box
]]):format(bed.main, bed.dir, bed.dir, bed.default, bed.dir, bed.dir))
    local short = {
      config = config, port = false, user = false, identity = false, known_hosts = false,
      client = "auto",
    }
    short.host = "box"
    local result, err, lines = exec(short)
    assert.equal("farcall-far\n", (assert(result, tostring(err))).stdout)
    assert.same({}, lines)
    short.host = "behind"
    result, err, lines = exec(short)
    assert.equal("farcall-far\n", (assert(result, tostring(err))).stdout)
    assert.is_truthy(lines[1]:find("proxyjump", 1, true))
  end)

  it("refuses names that are none", function()
    for _, host in ipairs({ "-oProxyCommand=x", "a b", "" }) do
      local result, err = exec({ host = host })
      assert.is_nil(result)
      assert.equal("config", err.kind)
    end
    assert.is_nil(fs.stat("/tmp/farcall-never"))
  end)
end)

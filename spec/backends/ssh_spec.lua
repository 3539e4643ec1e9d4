-- SPDX-License-Identifier: MIT
-- Against the servers of spec/testbed/ssh.sh, which need root, and some that a spec may spoil.
local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local sshd = require("spec.support.sshd")
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

  -- An exec with these options by an engine of its own; variables: of the operator.
  local function exec(over, spec, variables)
    local lines, result, err = {}, nil, nil
    local environ = { PATH = "/usr/bin:/bin", HOME = helper.scratch() }
    for name, value in pairs(variables or {}) do
      environ[name] = value
    end
    engines.with({
      environ = environ,
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

  -- body(engine, its options, server, link, what was logged) with a server of its own, behind a
  -- relay when there is to be a link.
  local function with_server(lines, has_link, body)
    return function()
      local logged = {}
      engines.with({
        log = function(_, text)
          logged[#logged + 1] = text
        end,
      }, function(one)
        local server = sshd.start(lines)
        local link = has_link and server:relay()
        local port = link and link.port or server.port
        helper.write(server.dir .. "/known_hosts",
          (server:known_line():gsub(":%d+", ":" .. port, 1)))
        local ok, failure = pcall(body, one, {
          host = "127.0.0.1", port = port, user = server.user, identity = { server.dir .. "/id" },
          known_hosts = { server.dir .. "/known_hosts" }, agent = false, config = "none",
        }, server, link, logged)
        server:stop()
        assert(ok, failure)
      end)
    end
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

      it("gives up a host that does not answer", with_server(nil, true, function(one, own, _, link)
        link.stall(true)
        own.client, own.connect_timeout = client, 0.5
        local result, err = one:exec({ backend = "ssh", options = own, command = "true" })
        assert.is_nil(result)
        assert.same({ "unavailable", "TIMEOUT" }, { err.kind, err.code })
      end))

      it("says so when the link breaks, runs nothing twice, and connects anew",
        with_server(nil, true, function(one, own, server, link)
          own.client = client
          local ran = server.dir .. "/ran"
          local running = task.spawn(one.exec, one, {
            backend = "ssh", options = own, timeout = 60,
            command = "echo ran >> " .. ran .. "; exec sleep 1000",
          })
          assert(helper.eventually(function()
            return helper.read(ran)
          end, 20), "it did not start")
          link.cut(true)
          local _, result, err = running:join()
          assert.is_nil(result)
          assert.equal("lost", err.kind)
          -- Nobody is there, then somebody is again.
          local again = { backend = "ssh", options = own, command = "echo again" }
          result, err = one:exec(again)
          assert.is_nil(result)
          assert.equal("unavailable", err.kind)
          link.cut(false)
          assert.equal("again\n", assert(one:exec(again)).stdout)
          assert.equal("ran\n", helper.read(ran))
        end))

      it("takes its keys from an agent, when it may", function()
        local dir = helper.scratch()
        local socket, stop = sshd.agent(dir, { bed.dir .. "/ed25519" })
        local variables = { SSH_AUTH_SOCK = socket }
        local over = with({ agent = true, identity = false })
        local result, err = exec(over, nil, variables)
        local config = helper.write(dir .. "/config", "IdentitiesOnly yes\nIdentityFile /no/key\n")
        over.config = config
        local _, none = exec(over, nil, variables)
        helper.write(config, "IdentityAgent $OTHER\n")
        local other = exec(over, nil, { OTHER = socket })
        over.agent = false
        local _, without = exec(over, nil, { OTHER = socket })
        stop()
        assert.equal("farcall-far\n", (assert(result, tostring(err))).stdout)
        assert.same({ "AUTH", "AUTH" }, { none.code, without.code })
        assert.equal("farcall-far\n", assert(other).stdout)
      end)

      it("runs scripts also where rc files print", function()
        engines.with({}, function(one)
          local result = assert(one:run({
            backend = "ssh", options = options(bed, with({ user = "farcall-noisy" })),
            language = "python",
            script = "from farcall import terminal\n"
              .. "print(terminal('id -un')['output'].split()[-1])",
          }))
          assert.equal("success", result.status, tostring(result.error))
          assert.is_truthy(result.output:find("farcall-noisy", 1, true))
        end)
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

  it("takes OpenSSH where a certificate is what counts", function()
    local ca = helper.scratch() .. "/ca"
    sshd.run("ssh-keygen -q -t ed25519 -N '' -f " .. ca)
    with_server("TrustedUserCAKeys " .. ca .. ".pub", false, function(one, own, server, _, logged)
      helper.write(server.dir .. "/authorized_keys", "")
      local spec = { backend = "ssh", options = own, command = "echo certified" }
      local result, err = one:exec(spec)
      assert.is_nil(result)
      assert.equal("AUTH", err.code)
      assert.same({}, logged)
      sshd.run(("ssh-keygen -q -s %s -I me -n %s %s/id.pub"):format(ca, server.user, server.dir))
      assert.equal("certified\n", assert(one:exec(spec)).stdout)
      assert.equal(1, #logged)
      assert.is_truthy(logged[1]:find("certificates", 1, true), logged[1])
    end)()
  end)

  it("takes OpenSSH where a host is known by a certificate", function()
    local ca = helper.scratch() .. "/ca"
    sshd.run("ssh-keygen -q -t ed25519 -N '' -f " .. ca)
    local other = helper.scratch() .. "/other"
    sshd.run("ssh-keygen -q -t ed25519 -N '' -f " .. other)
    with_server(nil, false, function(one, own, server, _, logged)
      local key = server.dir .. "/host"
      sshd.run(("ssh-keygen -q -s %s -h -I here -n 127.0.0.1 %s.pub"):format(ca, key))
      server:kill()
      helper.write(server.dir .. "/config", ("HostCertificate %s-cert.pub\n"):format(key)
        .. helper.read(server.dir .. "/config"))
      server:start()
      for _, authority in ipairs({ other, ca }) do
        helper.write(own.known_hosts[1], "@cert-authority * " .. helper.read(authority .. ".pub"))
        local result, err = one:exec({ backend = "ssh", options = own, command = "echo certified" })
        if authority == ca then
          assert.equal("certified\n", assert(result, tostring(err)).stdout)
        else
          assert.equal("denied", err.kind)
        end
      end
      assert.is_truthy(logged[1]:find("certificates", 1, true), logged[1])
    end)()
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

  it("says that a configuration file is not there", function()
    local result, err = exec({ config = "/no/such" })
    assert.is_nil(result)
    assert.same({ "config", "/no/such" }, { err.kind, err.op })
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

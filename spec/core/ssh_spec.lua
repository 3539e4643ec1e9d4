-- SPDX-License-Identifier: MIT
-- What the far side may do wrong; for what it does right see spec/clients/ssh_session_spec.lua.
local core_loop = require("farcall.core.loop")
local sock = require("farcall.core.sock")
local ssh = require("farcall.core.ssh")

describe("ssh", function()
  local loop, far, connection
  before_each(function()
    loop = assert(core_loop.new())
  end)
  after_each(function()
    if connection then
      connection:close()
      connection = nil
    end
    if far then
      far:close()
      far = nil
    end
    -- What was closed is told by a last turn.
    loop:turn(0)
    assert.same({ fds = 0, timers = 0, children = 0, wakes = 0 }, loop:census())
    loop:close()
  end)

  -- A connection whose other end is `far`.
  local function connect(options)
    local fd
    far, fd = sock.pair(loop)
    connection = assert(ssh.new(loop, fd, options))
  end

  local function turns(check)
    local deadline = core_loop.now() + 20
    while not check() and core_loop.now() < deadline do
      loop:turn(100)
    end
    return check()
  end

  -- Lets the far side say this to a handshake; returns how that ended.
  local function handshake(bytes)
    local result
    assert(connection:handshake(nil, function(ok, msg, code)
      result = { ok, msg, code }
    end))
    if bytes then
      far:write(bytes)
    end
    far:finish()
    turns(function()
      return result
    end)
    return result
  end

  it("fails when the other side is no SSH server", function()
    for _, said in ipairs({ "", "HTTP/1.1 400 Bad Request\r\n\r\n", ("x"):rep(100000),
      "SSH-2.0-x\r\n" .. ("\255"):rep(5000), "SSH-2.0-x\r\n" .. ("\0"):rep(5000) }) do
      connect()
      local result = handshake(said ~= "" and said or nil)
      assert.is_nil(result[1])
      assert.is_string(result[2])
      assert.is_truthy(("LOST KEX PROTOCOL"):find(result[3], 1, true))
      connection:close()
      far:close()
    end
  end)

  it("is dead at once when it is closed, and says so to who waits", function()
    connect()
    local result, death
    connection:on_death(function(_, code)
      death = code
    end)
    assert(connection:handshake(nil, function(_, _, code)
      result = code
    end))
    assert.is_nil(connection:death())
    connection:close()
    connection:close()
    assert.equal("CLOSED", select(2, connection:death()))
    assert.equal("CLOSED", select(3, connection:exec("true")))
    assert.equal("CLOSED", select(3, connection:handshake(nil, print)))
    turns(function()
      return result and death
    end)
    assert.same({ "CLOSED", "CLOSED" }, { result, death })
  end)

  it("takes one step at a time", function()
    connect()
    assert(connection:handshake(nil, function() end))
    assert.equal("EBUSY", select(3, connection:ask_methods("me", function() end)))
    assert.equal("CLOSED", select(3, connection:serve(0)))
    assert.is_false(connection:is_authenticated())
    assert.is_nil(connection:host_key())
  end)

  it("gives up when libssh2 would hold more than it may", function()
    local fd
    far, fd = sock.pair(loop)
    assert.equal("ENOMEM", select(3, ssh.new(loop, fd, { max_memory = 1000 })))
  end)

  it("refuses what is no option", function()
    assert.has_error(function()
      ssh.new(loop, 0, { nonsense = 1 })
    end)
    assert.has_error(function()
      ssh.new(loop, 0, { window = -1 })
    end)
  end)

  it("connects to addresses only", function()
    assert.equal("EINVAL", select(3, ssh.connect(loop, "localhost", "22", print)))
    assert.equal("EINVAL", select(3, ssh.connect(loop, "127.0.0.1", "ssh", print)))
    local refused
    assert(ssh.connect(loop, "127.0.0.1", "1", function(_, _, code)
      refused = code
    end))
    turns(function()
      return refused
    end)
    assert.equal("ECONNREFUSED", refused)
    local attempt = assert(ssh.connect(loop, "127.0.0.1", "1", error))
    attempt:close()
    attempt:close()
  end)

  it("knows hashed names", function()
    -- The example of sshd(8) and its like.
    local hashed = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg="
    assert.is_true(ssh.is_hash_of(hashed, "192.168.1.61"))
    assert.is_false(ssh.is_hash_of(hashed, "192.168.1.62"))
    for _, junk in ipairs({ "", "|", "|1|", "|1||", "|1|x|y", "|1|" .. ("A"):rep(1000), "plain",
      "|2|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=" }) do
      assert.is_false(ssh.is_hash_of(junk, "192.168.1.61"))
    end
  end)
end)

-- SPDX-License-Identifier: MIT
local helper = require("spec.helper")
local json = require("farcall.core.json")
local sock = require("farcall.core.sock")
local task = require("farcall.task")
local uds = require("farcall.transports.uds")

local TOKEN = ("ab"):rep(32)

local function request(id, more)
  local fields = { id = id, tool = "t", args = json.object({}), token = TOKEN }
  for key, value in pairs(more or {}) do
    fields[key] = value
  end
  return json.encode(fields) .. "\n"
end

-- Waits for the next line of a connection; nil at its end.
local function line_of(io)
  while true do
    local line, _, code = io:readline(1e8)
    if line then
      return line
    elseif code ~= "EAGAIN" then
      return nil
    end
    task.await(function(resume)
      io:on_readable(function()
        io:on_readable(nil)
        resume()
      end)
    end)
  end
end

-- body(connect, server): connect() gives a connection.
local function serving(on_request, body)
  return function()
    local path = helper.scratch() .. "/socket"
    task.run(function()
      local server = assert(uds.serve(path, TOKEN, on_request))
      local open = {}
      local ok, err = pcall(body, function()
        local io = assert(sock.connect(task.loop(), path))
        open[#open + 1] = io
        return io
      end, server)
      for _, io in ipairs(open) do
        io:close()
      end
      server:close()
      if not ok then
        error(err, 0)
      end
    end)
  end
end

local function echo(asked, reply)
  reply({ result = asked.args })
end

describe("uds", function()
  it("hands a request up and its reply down, by its id", serving(echo, function(connect)
    local io = connect()
    io:write(request(1, { args = { a = 1 } }) .. request("two", { args = { b = 2 } }))
    assert.same({ id = 1, result = { a = 1 } }, json.decode(line_of(io)))
    assert.same({ id = "two", result = { b = 2 } }, json.decode(line_of(io)))
  end))

  it("does not hold a quick reply back behind a slow one", serving(function(asked, reply)
    task.spawn(function()
      task.sleep(asked.args.delay)
      reply({ result = asked.args.delay })
    end)
  end, function(connect)
    local io = connect()
    io:write(request(1, { args = { delay = 0.2 } }) .. request(2, { args = { delay = 0 } }))
    assert.equal(2, json.decode(line_of(io)).id)
    assert.equal(1, json.decode(line_of(io)).id)
  end))

  it("brings 20 MB up and down", serving(echo, function(connect)
    local io = connect()
    local big = ("x"):rep(20 * 1024 * 1024)
    io:write(request(1, { args = { big = big } }))
    assert.equal(#big, #json.decode(line_of(io), { max_bytes = 1e8 }).result.big)
  end))

  it("lets large requests through a few at a time", serving(echo, function(connect)
    local big = ("y"):rep(1024 * 1024)
    local all = {}
    for i = 1, 12 do
      all[i] = connect()
      all[i]:write(request(i, { args = { big = big } }))
    end
    for i = 12, 1, -1 do
      assert.equal(i, json.decode(line_of(all[i]), { max_bytes = 1e8 }).id)
    end
  end))

  it("serves others while large requests are unfinished", serving(echo, function(connect)
    for _ = 1, 8 do
      connect():write('{"id":1,"args":{"big":"' .. ("z"):rep(500000))
    end
    task.sleep(0.05)
    local io = connect()
    io:write(request(5))
    assert.equal(5, json.decode(line_of(io)).id)
  end))

  it("ends a connection with a wrong token", serving(echo, function(connect)
    local io = connect()
    io:write(request(1, { token = ("ba"):rep(32) }) .. request(2))
    local reply = json.decode(line_of(io))
    assert.equal("denied", reply.error.kind)
    assert.equal(1, reply.id)
    assert.is_nil(line_of(io))
  end))

  it("dispatches nothing for a reply that nobody can take any more", serving(function(_, reply)
    task.spawn(function()
      task.sleep(0.05)
      assert.is_false(reply({ result = 1 }))
    end)
  end, function(connect)
    local io = connect()
    io:write(request(1))
    task.sleep(0.02)
    io:close()
    task.sleep(0.1)
  end))

  it("answers what cannot be encoded with an error", serving(function(_, reply)
    reply({ result = { bad = function() end } })
  end, function(connect)
    local io = connect()
    io:write(request(1))
    local reply = json.decode(line_of(io))
    assert.equal("failed", reply.error.kind)
    assert.matches("bad", reply.error.message)
  end))

  it("turns away more connections than a run may have", serving(echo, function(connect)
    for _ = 1, 512 do
      connect()
    end
    local io = connect()
    assert.equal("limit", json.decode(line_of(io)).error.kind)
    assert.is_nil(line_of(io))
  end))
end)

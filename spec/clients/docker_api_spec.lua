-- SPDX-License-Identifier: MIT
-- The client against the real engine, and against daemons that say what none should.
local docker = require("spec.support.docker")
local docker_api = require("farcall.clients.docker_api")
local docker_process = require("farcall.clients.docker_process")
local helper = require("spec.helper")
local task = require("farcall.task")
local web = require("spec.support.web")

local ID = ("ab"):rep(32)
local PING = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK"

-- A daemon that answers /_ping as it should and every other request by what `answers` has for
-- "METHOD /path" (without the version): a response or a function.
local function daemon(answers, fn)
  return helper.task(function()
    local server = web.serve(function(io, head, body)
      local method, path = head:match("^(%u+) (%S+)")
      local version = path:match("^/v([%d.]+)/")
      local answer = answers[method .. " " .. path:gsub("^/v[%d.]+", ""):gsub("%?.*", "")]
        or path == "/_ping" and PING
        or web.response('{"message":"page not found"}', "404 Not Found")
      if type(answer) == "function" then
        answer = answer(io, head, body, version)
      end
      if answer then
        io:write(answer)
      end
    end)
    local api, err = docker_api.connect({ socket = server.path })
    local ok, failure = pcall(fn, api, err)
    if api then
      api:close()
    end
    server.close()
    if not ok then
      error(failure, 0)
    end
    assert.same(0, task.loop():census().fds)
  end)
end

-- A daemon whose exec answers the start by `text` and then hangs up, unless `stays`.
local function exec_daemon(text, state, fn, stays)
  return daemon({
    ["POST /containers/c/exec"] = web.response('{"Id":"' .. ID .. '"}', "201 Created"),
    ["POST /exec/" .. ID .. "/start"] = function(io)
      io:write(text)
      if not stays then
        io:finish()
      end
    end,
    ["GET /exec/" .. ID .. "/json"] = function()
      return web.response(type(state) == "function" and state() or state)
    end,
    ["GET /containers/c/json"] = web.response('{"Id":"' .. ID .. '","Name":"/c","Config":'
      .. '{"Image":"i","Labels":null},"State":{"Running":true}}'),
  }, fn)
end

local UPGRADED = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
local RAN = '{"Running":false,"ExitCode":0,"Pid":7}'

local function frame(kind, bytes, size)
  size = size or #bytes
  return string.char(kind, 0, 0, 0, math.floor(size / 2 ^ 24), math.floor(size / 65536) % 256,
    math.floor(size / 256) % 256, size % 256) .. bytes
end

local function start(api)
  return docker_process.start(api, "c", { argv = { "x" } }, function() end)
end

local function drain(process, max)
  local parts = {}
  for name, bytes in function()
    return process:read(max or 65536)
  end do
    parts[#parts + 1] = name .. ":" .. bytes
  end
  return table.concat(parts, "|")
end

describe("docker_api", function()
  docker.setup()

  describe("with the real engine", function()
    local function real(fn)
      return helper.task(function()
        local api = assert(docker_api.connect({ socket = docker.SOCKET }))
        local ok, failure = pcall(fn, api)
        api:close()
        if not ok then
          error(failure, 0)
        end
      end)
    end

    it("agrees on a version", real(function(api)
      assert.is_truthy(api.version:find("^1%.%d%d$"))
      assert.is_truthy(api.server:find("Docker", 1, true))
    end))

    it("creates, starts, inspects, lists and removes", real(function(api)
      local name = "farcall-spec-api"
      api:remove_container(name)
      local description = {
        Image = "farcall-spec/busybox", Cmd = { "sleep", "1000" }, Labels = { spec = "api x" },
        HostConfig = { NetworkMode = "none" },
      }
      local id = assert(api:create_container(name, description))
      local none, err = api:create_container(name, description)
      assert.is_nil(none)
      assert.equal("409", err.code)
      assert.is_false(assert(api:inspect_container(name)).running)
      assert.is_true(api:start_container(id))
      assert.is_true(api:start_container(id))
      local container = assert(api:inspect_container(id))
      assert.same({ id, name, true, "farcall-spec/busybox", { spec = "api x" } },
        { container.id, container.name, container.running, container.image, container.labels })
      assert.same({ { name = name, labels = { spec = "api x" } } },
        assert(api:list_containers("spec")))
      assert.is_true(api:remove_container(name))
      assert.is_true(api:remove_container(name))
      none, err = api:inspect_container(name)
      assert.is_nil(none)
      assert.equal("not_found", err.kind)
      none, err = api:create_exec(name, { Cmd = { "true" } })
      assert.is_nil(none)
      assert.equal("404", err.code)
      none, err = api:start_exec(ID)
      assert.is_nil(none)
      assert.equal("404", err.code)
    end))

    it("takes a name for nothing but a name", real(function(api)
      for _, name in ipairs({ "../images/json", "a?b=c", "a b", "\0", "a\r\nX: y" }) do
        local none, err = api:inspect_container(name)
        assert.is_nil(none)
        assert.equal("config", err.kind)
      end
    end))
  end)

  describe("agreeing on a version", function()
    local function ping(headers)
      return { ["GET /_ping"] = "HTTP/1.1 200 OK\r\n" .. headers .. "Content-Length: 0\r\n\r\n" }
    end

    local function version(headers, expected)
      return daemon(ping(headers), function(api, err)
        if expected:find("%.") then
          assert.equal(expected, api.version)
        else
          assert.is_nil(api)
          assert.equal(expected, err.kind)
        end
      end)
    end

    it("takes the daemon's", version("Api-Version: 1.38\r\n", "1.38"))
    it("speaks no newer one than it knows", version("Api-Version: 1.99\r\n", "1.43"))
    it("speaks no newer one than it knows, whatever it is called",
      version("Api-Version: 2.0\r\n", "1.43"))
    it("refuses one that is too old", version("Api-Version: 1.24\r\n", "unsupported"))
    it("refuses what is none", version("Api-Version: 1.4e1/../x\r\n", "protocol"))
    it("refuses a server that says nothing of it", version("", "protocol"))
  end)

  describe("against a daemon that says", function()
    local function wrong(body)
      return daemon({
        ["GET /containers/c/json"] = web.response(body),
        ["POST /containers/create"] = web.response(body, "201 Created"),
        ["GET /containers/json"] = web.response(body),
        ["POST /containers/c/exec"] = web.response(body, "201 Created"),
        ["GET /exec/" .. ID .. "/json"] = web.response(body),
      }, function(api)
        for _, call in ipairs({
          { "inspect_container", "c" }, { "create_container", "c", { A = 1 } },
          { "create_exec", "c", { A = 1 } }, { "inspect_exec", ID },
        }) do
          local none, err = api[call[1]](api, unpack(call, 2))
          assert.is_nil(none, call[1])
          assert.equal("protocol", err.kind)
        end
        local list, err = api:list_containers("x")
        assert.is_true(err ~= nil and err.kind == "protocol" or #list == 0)
      end)
    end

    it("nothing", wrong(""))
    it("something else than JSON", wrong("<html>"))
    it("a number", wrong("5"))
    it("null", wrong("null"))
    it("an empty document", wrong("{}"))
    it("documents of wrong types", wrong('{"Id":5,"Name":[],"State":"x","Running":"no"}'))
    it("an id that leads elsewhere", wrong('{"Id":"../../containers/x"}'))
    it("JSON that is nested too deeply", wrong(("["):rep(5000)))

    it("more than is taken", daemon({
      ["GET /containers/c/json"] = web.response(("x"):rep(5 * 1024 * 1024)),
    }, function(api)
      local none, err = api:inspect_container("c")
      assert.is_nil(none)
      assert.equal("limit", err.kind)
    end))

    it("an error in many words", daemon({
      ["GET /containers/c/json"] = web.response('{"message":"a\\n\\u001b[31mb'
        .. ("x"):rep(10000) .. '"}', "500 Internal Server Error"),
    }, function(api)
      local none, err = api:inspect_container("c")
      assert.is_nil(none)
      assert.same({ "unavailable", "500" }, { err.kind, err.code })
      assert.is_true(#err.msg <= 2000)
      assert.is_nil(err.msg:find("%c"))
    end))

    it("nothing any more, once, is asked again if that does no harm", (function()
      local asked = {}
      local function hang_up(name)
        return function(io)
          asked[name] = (asked[name] or 0) + 1
          io:close()
        end
      end
      return daemon({
        ["GET /containers/c/json"] = hang_up("inspect"),
        ["POST /containers/create"] = hang_up("create"),
        ["POST /containers/c/exec"] = hang_up("exec"),
      }, function(api)
        for _, call in ipairs({
          { "inspect_container", "c" }, { "create_container", "c", { A = 1 } },
          { "create_exec", "c", { A = 1 } },
        }) do
          local none, err = api[call[1]](api, unpack(call, 2))
          assert.is_nil(none)
          assert.equal("lost", err.kind)
        end
        assert.is_true(asked.inspect >= 2)
        assert.same({ 1, 1 }, { asked.create, asked.exec })
      end)
    end)())
  end)

  describe("the stream of an exec", function()
    it("is taken apart, however it is cut", exec_daemon(UPGRADED .. frame(1, "one")
      .. frame(2, "two") .. frame(1, "") .. frame(1, ("x"):rep(10)), RAN, function(api)
        local process = assert(start(api))
        assert.equal("out:one|err:two|out:xxxx|out:xxxx|out:xx", drain(process, 4))
        assert.same({ exit = 0 }, process:wait())
      end))

    it("may come byte by byte", daemon({
      ["POST /containers/c/exec"] = web.response('{"Id":"' .. ID .. '"}', "201 Created"),
      ["POST /exec/" .. ID .. "/start"] = function(io)
        task.spawn(function()
          for byte in (UPGRADED .. frame(2, "ab") .. frame(1, "c")):gmatch(".") do
            io:write(byte)
            task.sleep(0.001)
          end
          io:finish()
        end)
      end,
      ["GET /exec/" .. ID .. "/json"] = web.response(RAN),
    }, function(api)
      local process = assert(start(api))
      assert.equal("err:ab|out:c", (drain(process):gsub("a|err:b", "ab")))
      assert.same({ exit = 0 }, process:wait())
    end))

    local function torn(bytes)
      return exec_daemon(UPGRADED .. bytes, RAN, function(api)
        local process = assert(start(api))
        drain(process)
        local status, err = process:wait()
        assert.is_nil(status)
        assert.equal("lost", err.kind)
      end)
    end

    it("that ends in a header is lost", torn("\1\0\0"))
    it("that ends in a frame is lost", torn(frame(1, "abc", 4)))
    it("with a frame of 4 GiB that does not come is lost", torn(frame(1, "abc", 4294967295)))
    it("with another stream is lost", torn(frame(3, "x") .. frame(1, "y")))
    it("with a header that is none is lost", torn("\1\0\1\0\0\0\0\1x"))

    local function refused(kind, text, state)
      return exec_daemon(text, state or RAN, function(api)
        local process, err = start(api)
        assert.is_nil(process)
        assert.equal(kind, err.kind)
      end)
    end

    it("that is no HTTP is refused", refused("protocol", "hello\r\n\r\n"))
    it("whose head does not end is refused", refused("lost", "HTTP/1.1 101 X\r\nA: b\r\n"))
    it("whose head is too long is refused", refused("protocol", UPGRADED:sub(1, -3)
      .. ("A: b\r\n"):rep(200) .. "\r\n"))
    it("whose head has too long a line is refused",
      refused("protocol", "HTTP/1.1 101 " .. ("x"):rep(10000)))
    it("that the daemon refuses is refused", refused("unavailable",
      web.response('{"message":"Container is paused"}', "409 Conflict")))
    it("whose program never started is refused", refused("not_found", UPGRADED
      .. frame(1, "OCI runtime exec failed: exec: \"x\": executable file not found in $PATH"),
      '{"Running":false,"ExitCode":127,"Pid":0}'))

    it("whose head does not come is given up", exec_daemon("HTTP/1.1", RAN, function(api)
      api.patience = 0.2
      local process, err = start(api)
      assert.is_nil(process)
      assert.equal("timeout", err.kind)
    end, true))

    it("of which is never said whether it runs is given up", exec_daemon(UPGRADED,
      '{"Running":true,"ExitCode":null,"Pid":0}', function(api)
        api.patience = 0.2
        local process, err = start(api)
        assert.is_nil(process)
        assert.equal("timeout", err.kind)
      end, true))

    it("whose exit code is none is lost", exec_daemon(UPGRADED,
      '{"Running":false,"ExitCode":1e300,"Pid":7}', function(api)
        local process = assert(start(api))
        drain(process)
        local status, err = process:wait()
        assert.is_nil(status)
        assert.equal("lost", err.kind)
      end))

    it("may end before its process", (function()
      local looks = 0
      return exec_daemon(UPGRADED, function()
        looks = looks + 1
        return looks < 8 and '{"Running":true,"ExitCode":null,"Pid":7}'
          or '{"Running":false,"ExitCode":9,"Pid":7}'
      end, function(api)
        local process = assert(start(api))
        assert.equal("", drain(process))
        assert.same({ exit = 9 }, process:wait())
      end)
    end)())
  end)
end)

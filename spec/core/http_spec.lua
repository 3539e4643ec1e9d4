-- SPDX-License-Identifier: MIT
local core_http = require("farcall.core.http")
local errors = require("farcall.errors")
local fdbuf = require("farcall.core.fdbuf")
local helper = require("spec.helper")
local http = require("farcall.clients.http")
local proc = require("farcall.core.proc")
local task = require("farcall.task")
local web = require("spec.support.web")
local ffi = require("ffi")

ffi.cdef([[
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
]])

local function every_byte(times)
  local bytes = {}
  for i = 0, 255 do
    bytes[#bytes + 1] = string.char(i)
  end
  return table.concat(bytes):rep(times or 1)
end

-- A server that always says the same and hangs up.
local function says(text, fn)
  return web.with(function(io)
    io:write(text)
    io:finish()
  end, fn)
end

describe("http", function()
  it("sends a request as it was given and returns the response", web.with(function(io, head, body)
    io:write(web.response(body, "201 Created", "X-One: 1\r\nx-two:  b \r\nX-One: 2\r\n"))
    assert(head:find("^PUT /some/path%?a=b HTTP/1.1\r\n"), head)
    assert(head:find("\r\nX%-Own: yes\r\n"), head)
    assert.is_nil(head:find("Expect"))
    assert.is_nil(head:find("Content%-Type"))
  end, function(client)
    local response = assert(client:fetch({
      url = "http://x/some/path?a=b", method = "PUT", body = every_byte(),
      headers = { "X-Own: yes" },
    }))
    assert.equal(201, response.status)
    assert.equal(every_byte(), response.body)
    assert.equal("1, 2", response.headers["x-one"])
    assert.equal("b", response.headers["x-two"])
  end))

  it("moves 8 MiB both ways", web.with(function(io, _, body)
    io:write(web.response(body))
  end, function(client)
    local bytes = every_byte(32768)
    local response = assert(client:fetch({ url = "http://x/", method = "POST", body = bytes },
      #bytes))
    assert.is_true(response.body == bytes)
    local none, err = client:fetch({ url = "http://x/", method = "POST", body = bytes }, 1000)
    assert.is_nil(none)
    assert.equal("limit", err.kind)
  end))

  it("knows methods with and without bodies", web.with(function(io, head)
    local method = head:match("^%S+")
    io:write(method == "HEAD" and "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
      or method == "DELETE" and "HTTP/1.1 204 No Content\r\n\r\n" or web.response(method .. "|"
      .. (head:lower():match("content%-length: (%d+)") or "none")))
  end, function(client)
    assert.equal("", assert(client:fetch({ url = "http://x/", method = "HEAD" })).body)
    assert.equal(204, assert(client:fetch({ url = "http://x/", method = "DELETE" })).status)
    assert.equal("GET|none", assert(client:fetch({ url = "http://x/" })).body)
    assert.equal("POST|0", assert(client:fetch({ url = "http://x/", method = "POST" })).body)
  end))

  it("passes interim responses over", says(
    "HTTP/1.1 100 Continue\r\nX-A: interim\r\n\r\n" .. web.response("end", nil, "X-B: last\r\n"),
    function(client)
      local response = assert(client:fetch({ url = "http://x/" }))
      assert.same({ 200, "end", nil, "last" }, { response.status, response.body,
        response.headers["x-a"], response.headers["x-b"] })
    end))

  it("stops the sender when nobody reads", function()
    local size, sender = 48 * 1024 * 1024, nil
    web.with(function(io)
      sender = io
      io:write(web.response(("x"):rep(size)))
    end, function(client)
      local response = assert(client:open({ url = "http://x/" }))
      local got = #assert(response:read())
      task.sleep(0.2)
      -- Our bound, and what two socket buffers hold.
      assert.is_true(sender:pending() > size - 4 * 1024 * 1024)
      local before = sender:pending()
      task.sleep(0.1)
      assert.equal(before, sender:pending())
      for bytes in function()
        return response:read(1000000)
      end do
        got = got + #bytes
      end
      assert.equal(size, got)
      response:close()
    end)()
  end)

  it("keeps a connection for the next request, unless a fresh one is wanted",
    web.with(function(io)
      io:write(web.response("x"))
    end, function(client, server)
      for _ = 1, 5 do
        assert(client:fetch({ url = "http://x/" }))
      end
      assert.equal(1, server.connections)
      assert(client:fetch({ url = "http://x/", fresh = true }))
      assert.equal(2, server.connections)
    end))

  it("keeps its connections from programs that are started", web.with(function(io)
    io:write(web.response("x"))
  end, function(client)
    local before = helper.open_fds()
    assert(client:fetch({ url = "http://x/" }))
    local count = 0
    for fd, target in pairs(helper.open_fds()) do
      local info = before[fd] ~= target and helper.read("/proc/self/fdinfo/" .. fd)
      if info then
        count = count + 1
        -- O_CLOEXEC is 02000000.
        assert.is_truthy(info:find("flags:%s+0[2367]%d%d%d%d%d%d\n"), target)
      end
    end
    assert.equal(2, count)
  end))

  it("serves many at once", web.with(function(io, head)
    io:write(web.response(head:match("/(%d+) ")))
  end, function(client)
    local tasks = {}
    for i = 1, 32 do
      tasks[i] = task.spawn(function()
        return assert(client:fetch({ url = "http://x/" .. i })).body
      end)
    end
    for i, one in ipairs(tasks) do
      assert.equal(tostring(i), (select(2, one:join())))
    end
  end))

  local function fails_with(kind, code)
    return function(client)
      local none, err = client:fetch({ url = "http://x/", method = "POST", body = "{}" })
      assert.is_nil(none)
      assert.is_true(errors.is(err))
      assert.same({ kind, code }, { err.kind, err.code })
    end
  end

  describe("against a server that", function()
    it("hangs up", says("", fails_with("lost", "ECONNRESET")))
    it("is no web server", says("220 mail\r\n", fails_with("protocol", "SYNTAX")))
    it("cuts the head", says("HTTP/1.1 200 OK\r\nContent-", fails_with("lost", "ECONNRESET")))
    it("cuts the body", says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
      fails_with("lost", "ECONNRESET")))
    it("cuts a chunk", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx",
      fails_with("lost", "ECONNRESET")))
    it("sends an endless head", says("HTTP/1.1 200 OK\r\n" .. ("X-A: " .. ("x"):rep(1000) .. "\r\n")
      :rep(100), fails_with("limit", "LIMIT")))
    it("sends a length that is none", says(
      "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", function(client)
        local none, err = client:fetch({ url = "http://x/" })
        assert.is_nil(none)
        assert.is_true(err.kind == "lost" or err.kind == "protocol")
      end))

    it("sends trailers without end after the body", says(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
      .. ("X-A: " .. ("x"):rep(1000) .. "\r\n"):rep(100) .. "\r\n", function(client)
        assert.equal("x", assert(client:fetch({ url = "http://x/" })).body)
      end))

    it("says nothing", web.with(function() end, function(client)
      local none, err = client:fetch({ url = "http://x/", timeout = 0.1 })
      assert.is_nil(none)
      assert.same({ "timeout", "TIMEOUT" }, { err.kind, err.code })
    end))
  end)

  it("tells why there is no connection", helper.task(function()
    local client = assert(http.new())
    local function code(request)
      local none, err = client:fetch(request)
      assert.is_nil(none)
      return err.code
    end
    assert.equal("ENOENT", code({ url = "http://x/", unix_path = "/nowhere/socket" }))
    assert.equal("ECONNREFUSED", code({ url = "http://127.0.0.1:1/" }))
    assert.equal("RESOLVE", code({ url = "http://no-such-host.invalid/" }))
    client:close()
  end))

  it("refuses what would be another request than it looks", helper.task(function()
    local client = assert(http.new())
    for _, request in ipairs({
      { url = "http://x/", headers = { "X: a\r\nY: b" } },
      { url = "http://x/", headers = { "no colon" } },
      { url = "http://x/", method = "GET /other HTTP/1.1\r\nX:" },
      { url = "http://x/", method = "" },
      { url = "ftp://x/" }, { url = "file:///etc/passwd" }, { url = "http://x/a b\r\n" },
    }) do
      local none, err = client:fetch(request)
      assert.is_nil(none)
      assert.equal("EINVAL", err.code)
    end
    for _, request in ipairs({
      {}, { url = 1 }, { url = "http://x/\0y" }, { url = "http://x/", nonsense = 1 },
      { url = "http://x/", body = 5 }, { url = "http://x/", headers = { 1 } },
      { url = "http://x/", timeout = -1 },
    }) do
      assert.has_error(function()
        client:open(request)
      end)
    end
    client:close()
  end))

  it("wakes those who wait when it is closed", web.with(function() end, function(client)
    local waiting = task.spawn(function()
      return client:fetch({ url = "http://x/" })
    end)
    task.sleep(0.05)
    client:close()
    local ok, none, err = waiting:join()
    assert.is_true(ok)
    assert.is_nil(none)
    assert.same({ "lost", "CLOSED" }, { err.kind, err.code })
    none, err = client:fetch({ url = "http://x/" })
    assert.is_nil(none)
    assert.equal("CLOSED", err.code)
  end))

  it("gives up when its task is cancelled", web.with(function() end, function(client, server)
    local waiting = task.spawn(function()
      return client:fetch({ url = "http://x/" })
    end)
    assert(helper.eventually(function()
      return server.connections == 1
    end))
    waiting:cancel()
    assert.is_false((waiting:join()))
  end))

  it("may be closed by what it calls", web.with(function(io)
    io:write(web.response("x"))
  end, function(_, server)
    local client = assert(core_http.new(task.loop()))
    local transfer = assert(client:request({ url = "http://x/", unix_path = server.path }))
    local other = assert(client:request({ url = "http://x/", unix_path = server.path }))
    local told = 0
    transfer:on_change(function()
      transfer:close()
      client:close()
    end)
    other:on_change(function()
      told = told + 1
    end)
    assert(helper.eventually(function()
      return told > 0
    end))
    assert.has_error(function()
      transfer:status()
    end)
  end))

  it("leaves nothing when everything is forgotten", web.with(function(io)
    io:write(web.response("x"))
  end, function(_, server)
    do
      local client = assert(core_http.new(task.loop()))
      for _ = 1, 10 do
        assert(client:request({ url = "http://x/", unix_path = server.path }))
        assert(client:request({ url = "http://127.0.0.1:1/" }))
      end
    end
    task.sleep(0.2)
    collectgarbage()
    collectgarbage()
  end))

  it("hands a connection over", web.with(function(io, head)
    io:write("HTTP/1.1 101 Yes\r\n\r\n" .. head:match("^%S+"))
    io:finish()
  end, function(client)
    local fd = assert(client:connect({ url = "http://x/" }))
    local io = assert(fdbuf.new(task.loop(), fd))
    io:write("HELLO / HTTP/1.1\r\n\r\n")
    local got = ""
    helper.eventually(function()
      local bytes, _, code = io:read()
      got = got .. (bytes or "")
      return code == "EOF"
    end)
    assert.equal("HTTP/1.1 101 Yes\r\n\r\nHELLO", got)
    io:close()
    local none, err = client:connect({ url = "http://x/", unix_path = "/nowhere" })
    assert.is_nil(none)
    assert.equal("ENOENT", err.code)
  end))

  describe("over TCP and TLS #kill", function()
    local SERVER = [[
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 1:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
]]

    local function with_server(arguments, fn)
      local child = assert(proc.spawn(task.loop(), {
        argv = { "python3", "-c", SERVER, unpack(arguments) }, stdin = "null", stdout = "pipe",
        stderr = "null",
      }))
      local out = child:stdout()
      local port
      helper.eventually(function()
        port = out:readline()
        return port
      end)
      local client = assert(http.new())
      local ok, failure = pcall(fn, client, port)
      client:close()
      out:close()
      child:kill("KILL")
      helper.eventually(function()
        return #helper.children() == 0
      end)
      child:close()
      if not ok then
        error(failure, 0)
      end
    end

    it("moves every byte, whatever the proxy variables say", helper.task(function()
      with_server({}, function(client, port)
        ffi.C.setenv("http_proxy", "http://127.0.0.1:1", 1)
        local response, err = client:fetch({
          url = "http://127.0.0.1:" .. port .. "/", method = "POST", body = every_byte(100),
        })
        ffi.C.unsetenv("http_proxy")
        assert.is_nil(err)
        assert.is_true(response.body == every_byte(100))
      end)
    end))

    it("trusts a server whose certificate it was given, and no other", helper.task(function()
      local dir = helper.scratch()
      assert.equal(0, os.execute(("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost"
        .. " -addext subjectAltName=DNS:localhost -keyout %s/key -out %s/cert 2>/dev/null")
        :format(dir, dir)))
      with_server({ dir .. "/cert", dir .. "/key" }, function(client, port)
        local request = {
          url = "https://localhost:" .. port .. "/", method = "POST", body = every_byte(4096),
        }
        local none, err = client:fetch(request)
        assert.is_nil(none)
        assert.same({ "denied", "TLS" }, { err.kind, err.code })
        request.ca_file = dir .. "/cert"
        assert.is_true(assert(client:fetch(request)).body == every_byte(4096))
        request.url = "https://127.0.0.1:" .. port .. "/"
        none, err = client:fetch(request)
        assert.is_nil(none)
        assert.equal("TLS", err.code)
      end)
    end))
  end)
end)

-- SPDX-License-Identifier: MIT
-- A web server of the specs' own, on a Unix socket of the running task's loop. It says whatever a
-- spec wants it to, also what no proper server would.

local helper = require("spec.helper")
local sock = require("farcall.core.sock")
local task = require("farcall.task")

local web = {}

---Calls answer(io, head, body) for each request; it writes the response itself. To be closed.
---@param answer fun(io: any, head: string, body: string)
---@return {path: string, connections: integer, close: fun(self: table)}
function web.serve(answer)
  local self = { path = helper.scratch() .. "/web", connections = 0 }
  local open = {}
  local listener = assert(sock.listen(task.loop(), self.path, nil, function(io)
    self.connections = self.connections + 1
    open[io] = true
    local got = ""
    io:on_readable(function()
      local bytes, _, code = io:read()
      if not bytes then
        if code ~= "EAGAIN" then
          io:close()
          open[io] = nil
        end
        return
      end
      got = got .. bytes
      local head, rest = got:match("^(.-\r\n\r\n)(.*)$")
      local length = head and tonumber(head:lower():match("content%-length: (%d+)")) or 0
      if head and #rest >= length then
        got = rest:sub(length + 1)
        answer(io, head, rest:sub(1, length))
      end
    end)
  end))
  function self.close()
    listener:close()
    for io in pairs(open) do
      io:close()
    end
  end
  return self
end

---A whole response.
function web.response(body, status, headers)
  return ("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s"):format(status or "200 OK",
    headers or "", #body, body)
end

---The body of an `it`: fn(server, client) with both closed at the end.
function web.with(answer, fn)
  local http = require("farcall.clients.http")
  return helper.task(function()
    local server = web.serve(answer)
    local client = assert(http.new({ unix_path = server.path }))
    local ok, failure = pcall(fn, client, server)
    client:close()
    server.close()
    if not ok then
      error(failure, 0)
    end
    local census = task.loop():census()
    assert(census.fds == 0 and census.timers == 0, "something is left on the loop")
  end)
end

return web

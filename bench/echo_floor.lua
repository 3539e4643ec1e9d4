-- SPDX-License-Identifier: MIT
-- The floor under a tool call, in LuaJIT: a server on a Unix socket, by ffi and poll, that decodes
-- each line as JSON and answers {"id","result": args}. As bare as it can be: one client at a time,
-- one line a read. usage: luajit bench/echo_floor.lua PATH [farcall]; with `farcall` the same goes
-- through farcall's own loop, fdbuf and json (farcall.so on LUA_CPATH, or the spec host).

local path, through = arg[1], arg[2]

local function answer(json, line)
  local request = assert(json.decode(line))
  return json.encode({ id = request.id, result = request.args }) .. "\n"
end

local function serve_farcall()
  local json = require("farcall.core.json")
  local loop = assert(require("farcall.core.loop").new())
  local listener = assert(require("farcall.core.sock").listen(loop, path, {}, function(io)
    io:on_readable(function()
      while true do
        local line, _, code = io:readline(65536)
        if line then
          io:write(answer(json, line))
        elseif code == "EAGAIN" then
          return
        else
          return io:close()
        end
      end
    end)
  end))
  loop:run()
  listener:close()
end

local function serve_bare()
  local ffi = require("ffi")
  ffi.cdef([[
    struct address { unsigned short family; char path[108]; };
    struct pollfd { int fd; short events, revents; };
    int socket(int domain, int type, int protocol);
    int bind(int fd, const struct address *address, unsigned size);
    int listen(int fd, int backlog);
    int accept(int fd, void *address, void *size);
    int poll(struct pollfd *fds, unsigned long count, int timeout);
    long read(int fd, void *bytes, size_t size);
    long write(int fd, const void *bytes, size_t size);
    int close(int fd);
  ]])
  local C = ffi.C
  local ok, json = pcall(require, "cjson")
  if not ok then
    json = require("farcall.core.json")
  end
  local address = ffi.new("struct address", { 1, path })
  local listener = C.socket(1, 1, 0)
  assert(C.bind(listener, address, ffi.sizeof(address)) == 0 and C.listen(listener, 16) == 0)
  local room = ffi.new("char[65536]")
  local wait = ffi.new("struct pollfd[1]")
  while true do
    local fd = C.accept(listener, nil, nil)
    wait[0].fd, wait[0].events = fd, 1
    while true do
      C.poll(wait, 1, -1)
      local got = C.read(fd, room, 65536)
      if got <= 0 then
        break
      end
      local text = answer(json, ffi.string(room, got))
      C.write(fd, text, #text)
    end
    C.close(fd)
  end
end

os.remove(path)
if through == "farcall" then
  serve_farcall()
else
  serve_bare()
end

-- SPDX-License-Identifier: MIT
-- The Lua stub, for Lua 5.1 to 5.4 and LuaJIT. The module that scripts require has one function per
-- tool; below it the call path and JSON, for which Lua has nothing. Nor has it sockets: LuaJIT gets
-- them by its FFI, the others by LuaSocket, where it is installed, or by a helper program; calls by
-- files need nothing.

local literal = require("farcall.literal")

local RUNTIME = [=[
-- How a call of a script reaches its farcall engine. Scripts require the module of the tools.
local json = require("_farcall_json")

local unpack = table.unpack or unpack -- luacheck: ignore 143

-- Requests beyond this are refused by the engine, and the connection with them.
local MAX_REQUEST = 64 * 1024 * 1024
-- A longer request may be what the engine refused, not the connection.
local LONG_LINE = 1024 * 1024
-- Seconds that a call waits for a connection when the engine takes no more of them.
local PATIENCE = 20
local MAX_IDLE = 8

local runtime = { return_errors = false, null = json.null, array = json.array }

---A tool call that did not end well; what is raised. kind: "refused" by a policy, "failed" in the
---tool, "usage" for wrong arguments, "limit", "timeout", "not_found", "denied", ...; "lost" when
---the engine is gone and the call was not made; "unknown" when the connection broke after the call
---had been sent: it may have been carried out.
---@class farcall.ToolError
---@field kind string
---@field message string a sentence
---@field tool? string the name of the tool
local ToolError = { __name = "ToolError" }
ToolError.__index = ToolError
runtime.ToolError = ToolError

function ToolError:__tostring()
  if self.tool then
    return self.tool .. ": " .. self.message .. " [" .. self.kind .. "]"
  end
  return self.message
end

local function tool_error(kind, message, tool)
  return setmetatable({ kind = kind, message = message, tool = tool }, ToolError)
end

---Whether a value is the error of a tool call.
---@return boolean
function runtime.is_error(value)
  return getmetatable(value) == ToolError
end

local driver, token
local last_id = 0
local idle = {}

local function load()
  local directory = os.getenv("FARCALL_RUN_DIR") or "."
  local file, problem = io.open(directory .. "/token")
  if not file then
    error(tool_error("lost", "this is not inside a farcall run: " .. problem), 0)
  end
  token = file:read("*l")
  file:close()
  file = io.open(directory .. "/turn")
  if file then
    file:close()
  end
  local reason
  driver, reason = require(file and "_farcall_file" or "_farcall_socket")(directory)
  if not driver then
    error(tool_error("unsupported", reason), 0)
  end
end

local function failure(kind, message)
  return { error = { kind = kind, message = message } }
end

local function new_id()
  last_id = last_id + 1
  return last_id
end

-- The tasks of parallel(), by coroutine.
local tasks = setmetatable({}, { __mode = "k" })

-- What a coroutine may yield across although it is written in C.
local crosses = {}
if _VERSION ~= "Lua 5.1" or rawget(_G, "jit") then
  crosses[pcall], crosses[xpcall] = true, true
end

local function may_yield()
  if coroutine.isyieldable then -- luacheck: ignore 143
    return coroutine.isyieldable() -- luacheck: ignore 143
  end
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sf")
    if not info then
      return true
    elseif info.what == "C" and not crosses[info.func] then
      return false
    end
    level = level + 1
  end
end

-- Sends a request: the connection on which its reply comes, or a reply that says why there is none.
local function send(id, line)
  local connection = table.remove(idle)
  local problem
  if not connection then
    connection, problem = driver.open(id)
    if not connection then
      return nil, failure("lost", "the engine cannot be reached, the call was not made: "
        .. tostring(problem))
    end
  end
  local sent
  sent, problem = connection.send(line, id)
  if not sent then
    -- The engine's last word, if it said one. The request's last byte has not left.
    local word = connection.receive()
    connection.close()
    local ok, reply = pcall(json.decode, word or "")
    if ok and type(reply) == "table" and reply.id == nil and type(reply.error) == "table" then
      return nil, reply, true
    end
    return nil, failure("lost", "the connection broke, the call was not made: "
      .. tostring(problem)), true
  end
  return connection
end

local function receive(connection, id)
  local line = connection.receive()
  local ok, reply = pcall(json.decode, line or "")
  if ok and type(reply) == "table" and reply.id == id then
    if driver.reusable and #idle < MAX_IDLE then
      idle[#idle + 1] = connection
    else
      connection.close()
    end
    return reply
  end
  connection.close()
  if ok and type(reply) == "table" and reply.id == nil and type(reply.error) == "table" then
    return reply, true
  end
  return failure("unknown",
    "the connection broke before the reply: the call may have been carried out")
end

-- One call there and back. In a task of parallel() the others go on while it waits.
local function exchange(id, line)
  local delay, deadline = 0.002, os.time() + PATIENCE
  while true do
    local connection, reply, refused = send(id, line)
    if connection then
      local task = tasks[coroutine.running() or false]
      if task and may_yield() then
        task.connection = connection
        coroutine.yield(task)
      end
      reply, refused = receive(connection, id)
    end
    -- Made again are only calls that the engine certainly has not taken.
    local crowded = refused and reply.error.kind == "limit" and #line < LONG_LINE
    if not crowded or os.time() > deadline then
      return reply
    end
    MAX_IDLE = 0
    for i = #idle, 1, -1 do
      table.remove(idle, i).close()
    end
    driver.sleep(delay)
    delay = math.min(delay * 2, 0.1)
  end
end

local function call_raw(tool, args)
  if type(tool) ~= "string" then
    error("the name of a tool is a string, not a " .. type(tool), 0)
  end
  local text = json.encode(args, tool)
  if not driver then
    load()
  end
  local id = (driver.new_id or new_id)()
  local line = ('{"id":%.0f,"tool":%s,"args":%s,"token":"%s"}\n')
    :format(id, json.encode(tool, "name of the tool"), text, token)
  local reply = #line > MAX_REQUEST
    and failure("limit", ("a request has at most %d bytes"):format(MAX_REQUEST))
    or exchange(id, line)
  if reply.error then
    return nil, tool_error(reply.error.kind, reply.error.message, tool)
  end
  return reply.result
end

local function answer(result, err)
  if err and not runtime.return_errors then
    error(err, 0)
  end
  return result, err
end

-- The arguments, which must end up as a JSON object.
local function object(args)
  for key in pairs(args) do
    if type(key) ~= "string" then
      error("the arguments of a tool have names: a table with strings as keys", 0)
    end
  end
  return args
end

---A call of a tool's function: the arguments by position, then perhaps a table of named ones.
function runtime.invoke(tool, names, takes_table, ...)
  local values, count = { ... }, select("#", ...)
  while count > 0 and values[count] == nil do
    count = count - 1
  end
  local args = {}
  if count > 0 and type(values[count]) == "table" and not takes_table[count]
    and values[count] ~= json.null
  then
    for key, value in pairs(object(values[count])) do
      args[key] = value
    end
    count = count - 1
  end
  if count > #names then
    error(("%s takes %d arguments by position and then a table with the others by name")
      :format(tool, #names), 0)
  end
  for i = 1, count do
    if values[i] ~= nil then
      if args[names[i]] ~= nil then
        error(("%s: %s is given twice"):format(tool, names[i]), 0)
      end
      args[names[i]] = values[i]
    end
  end
  return answer(call_raw(tool, args))
end

---Calls any tool by its name.
---@param tool string
---@param args? table<string, any>
---@return any result
function runtime.call(tool, args)
  return answer(call_raw(tool, object(args or {})))
end

---What this run may still do.
---@return {calls: integer, seconds: number}
function runtime.remaining()
  local reply, err = call_raw("farcall.remaining", {})
  if err then
    err.tool = nil
    error(err, 0)
  end
  return reply
end

-- Goes on with a task until it waits for a reply or has ended.
local function step(task)
  local back = { coroutine.resume(task.thread) }
  if coroutine.status(task.thread) == "dead" then
    task.ended = true
    if back[1] then
      task.results[task.index] = back[2]
    else
      task.failed[task.index], task.results[task.index] = true, back[2]
    end
  elseif back[2] ~= task then
    task.ended = true
    task.failed[task.index] = true
    task.results[task.index] = "a task of parallel yields to nobody"
  end
end

---Calls functions at the same time and returns a list of their results in order. Each runs until
---it calls a tool; while it waits for the reply the others go on. When all have ended the first
---error is raised, in the order of the functions; with return_errors they stand in the list in
---place of results.
---@param fns (fun(): any)[]
---@param how? {workers?: integer, return_errors?: boolean}
---@return any[]
function runtime.parallel(fns, how)
  how = how or {}
  local workers = how.workers or 16
  if type(workers) ~= "number" or workers < 1 then
    error("workers is a number from 1 on, not " .. tostring(workers), 2)
  end
  for index = 1, #fns do
    if type(fns[index]) ~= "function" then
      error(("task %d is no function"):format(index), 2)
    end
  end
  local results, failed, waiting, next_one = {}, {}, {}, 1
  while next_one <= #fns or #waiting > 0 do
    while next_one <= #fns and #waiting < workers do
      local task = { index = next_one, results = results, failed = failed }
      task.thread = coroutine.create(fns[next_one])
      tasks[task.thread] = task
      next_one = next_one + 1
      step(task)
      if not task.ended then
        waiting[#waiting + 1] = task
      end
    end
    if #waiting > 0 then
      local connections = {}
      for i, task in ipairs(waiting) do
        connections[i] = task.connection
      end
      local ready = #waiting > 1 and driver.wait(connections) or 1
      local task = waiting[ready]
      step(task)
      if task.ended then
        table.remove(waiting, ready)
      end
    end
  end
  for index = 1, #fns do
    if failed[index] and not how.return_errors then
      error(results[index], 0)
    end
  end
  return results
end

---Calls fn() until it does not raise; waits delay, 2 * delay, ... seconds in between.
---@param fn fun(): any
---@param max_attempts? integer 3 unless given
---@param delay? number 2 unless given
---@return any
function runtime.retry(fn, max_attempts, delay)
  max_attempts, delay = max_attempts or 3, delay or 2
  local attempt = 1
  while true do
    local back = { pcall(fn) }
    if back[1] then
      return unpack(back, 2, #back)
    elseif attempt >= max_attempts then
      error(back[2], 0)
    end
    if not driver then
      load()
    end
    driver.sleep(delay * 2 ^ (attempt - 1))
    attempt = attempt + 1
  end
end

---The value of a JSON text; control characters in strings and a byte order mark do no harm. A null
---in an object is absent, one in an array is farcall.null; arrays are marked as by farcall.array.
---@param text string
---@return any
function runtime.json_parse(text)
  return json.decode((text:gsub("^\239\187\191", "")))
end

---A value as JSON. An empty table is an object, unless farcall.array has marked it.
---@param value any
---@return string
function runtime.json_encode(value)
  return json.encode(value, "value")
end

---One word of a shell's command line.
---@param text string
---@return string
function runtime.shell_quote(text)
  if text:find("^[%w@%%+=:,./_-]+$") then
    return text
  end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

return runtime
]=]

local JSON = [=[
-- JSON for calls. A text is taken apart as RFC 8259 says, but that control characters in strings
-- pass.
local json = {}

local MAX_DEPTH = 200

---Stands for null in an array, and where an argument is to be null.
json.null = setmetatable({}, {
  __tostring = function()
    return "null"
  end,
  __newindex = function()
    error("null has no fields", 2)
  end,
})

local Array = { __name = "farcall.array" }

---Marks a table as an array: also an empty one is sent as such.
---@generic T: table
---@param list? T
---@return T
function json.array(list)
  return setmetatable(list or {}, Array)
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(char)
  return ESCAPES[char] or ("\\u%04x"):format(char:byte())
end

local function is_utf8(text)
  local at = text:find("[\128-\255]")
  while at do
    local _, stop = text:find("^[\195-\223\194][\128-\191]", at)
    if not stop then
      _, stop = text:find("^[\225-\239\224][\128-\191][\128-\191]", at)
      local lead, second = text:byte(at, at + 1)
      if stop and (lead == 0xE0 and second < 0xA0 or lead == 0xED and second > 0x9F) then
        return false
      end
    end
    if not stop then
      _, stop = text:find("^[\240-\244][\128-\191][\128-\191][\128-\191]", at)
      local lead, second = text:byte(at, at + 1)
      if not stop or lead == 0xF0 and second < 0x90 or lead == 0xF4 and second > 0x8F then
        return false
      end
    end
    at = text:find("[\128-\255]", stop + 1)
  end
  return true
end

local function encode_string(text, place)
  if not is_utf8(text) then
    error(place .. ": a string of JSON is UTF-8, this one is not: send it as base64", 0)
  end
  return '"' .. text:gsub('[%c"\\]', escape) .. '"'
end

local function encode_number(value, place)
  if value ~= value or value == math.huge or value == -math.huge then
    error(place .. ": JSON has no " .. tostring(value), 0)
  elseif math.type and math.type(value) == "integer" then -- luacheck: ignore 143
    return ("%d"):format(value)
  elseif value % 1 == 0 and math.abs(value) < 2 ^ 53 then
    return ("%.0f"):format(value)
  end
  return (("%.17g"):format(value):gsub(",", "."))
end

-- The length of a table that is an array; nil when it is an object.
local function length_of(value, place)
  local count, most, strings = 0, 0, 0
  for key in pairs(value) do
    if type(key) == "number" and key >= 1 and key % 1 == 0 then
      count, most = count + 1, math.max(most, key)
    elseif type(key) == "string" then
      strings = strings + 1
    else
      error(("%s: a key of an object is a string, not a %s"):format(place, type(key)), 0)
    end
  end
  local is_array = getmetatable(value) == Array
  if strings > 0 and (count > 0 or is_array) then
    error(place .. ": it is neither a list nor has it only strings as keys", 0)
  elseif most ~= count then
    error(place .. ": a list has holes: put farcall.null there", 0)
  end
  return (is_array or count > 0) and count or nil
end

local encode

local function encode_table(value, place, out, depth)
  if value == json.null then
    out[#out + 1] = "null"
    return
  elseif depth > MAX_DEPTH then
    error(place:sub(1, 40) .. "...: it contains itself, or is nested too deeply", 0)
  end
  local length = length_of(value, place)
  if length then
    for i = 1, length do
      out[#out + 1] = i == 1 and "[" or ","
      encode(value[i], place .. "[" .. i .. "]", out, depth + 1)
    end
    out[#out + 1] = length == 0 and "[]" or "]"
    return
  end
  local separator = "{"
  for key, item in pairs(value) do
    local inside = place .. "." .. key
    out[#out + 1] = separator .. encode_string(key, inside) .. ":"
    encode(item, inside, out, depth + 1)
    separator = ","
  end
  out[#out + 1] = separator == "{" and "{}" or "}"
end

function encode(value, place, out, depth)
  local kind = type(value)
  if kind == "string" then
    out[#out + 1] = encode_string(value, place)
  elseif kind == "number" then
    out[#out + 1] = encode_number(value, place)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(value)
  elseif kind == "table" then
    encode_table(value, place, out, depth)
  elseif kind == "nil" then
    out[#out + 1] = "null"
  else
    -- LuaJIT's 64-bit integers.
    local digits = kind == "cdata" and tostring(value):match("^(%-?%d+)U?LL$")
    if not digits then
      error(("%s: JSON cannot hold a %s"):format(place, kind), 0)
    end
    out[#out + 1] = digits
  end
end

---@param value any
---@param place string what it is called in errors
---@return string
function json.encode(value, place)
  local out = {}
  encode(value, place, out, 1)
  return table.concat(out)
end

local function broken(text, at, what)
  error(("no JSON: %s at byte %d of %d"):format(what, at, #text), 0)
end

local function utf8_of(point)
  local floor, char = math.floor, string.char
  if point < 0x80 then
    return char(point)
  elseif point < 0x800 then
    return char(0xC0 + floor(point / 64), 0x80 + point % 64)
  elseif point < 0x10000 then
    return char(0xE0 + floor(point / 4096), 0x80 + floor(point / 64) % 64, 0x80 + point % 64)
  end
  return char(0xF0 + floor(point / 262144), 0x80 + floor(point / 4096) % 64,
    0x80 + floor(point / 64) % 64, 0x80 + point % 64)
end

local UNESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

-- The character for an escape at `at`, behind its backslash, and what comes after it.
local function unescape(text, at)
  local char = text:sub(at, at)
  if UNESCAPES[char] then
    return UNESCAPES[char], at + 1
  end
  local digits = text:match("^u(%x%x%x%x)", at)
  if not digits then
    broken(text, at, "a wrong escape")
  end
  local point = tonumber(digits, 16)
  at = at + 5
  if point >= 0xD800 and point < 0xE000 then
    local low = tonumber(text:match("^\\u(%x%x%x%x)", at) or "0", 16)
    if point >= 0xDC00 or low < 0xDC00 or low > 0xDFFF then
      return "\239\191\189", at
    end
    return utf8_of(0x10000 + (point - 0xD800) * 1024 + low - 0xDC00), at + 6
  end
  return utf8_of(point), at
end

-- The string whose inside begins at `at`, and what comes after its quote.
local function decode_string(text, at)
  local stop = text:find('["\\]', at)
  if stop and text:byte(stop) == 0x22 then
    return text:sub(at, stop - 1), stop + 1
  end
  local parts = {}
  while stop do
    parts[#parts + 1] = text:sub(at, stop - 1)
    if text:byte(stop) == 0x22 then
      return table.concat(parts), stop + 1
    end
    parts[#parts + 1], at = unescape(text, stop + 1)
    stop = text:find('["\\]', at)
  end
  return broken(text, #text, "a string has no end")
end

local function decode_number(text, at)
  local digits = text:match("^%-?%d+%.?%d*[eE]?[+-]?%d*", at)
  local value = digits and tonumber(digits)
  if not value or digits:find("^%-?0%d") or digits:find("%.$") or digits:find("%.[eE]") then
    broken(text, at, "something unexpected")
  end
  return value, at + #digits
end

local function skip(text, at)
  return text:find("[^ \t\r\n]", at) or #text + 1
end

local decode

local function decode_array(text, at, depth)
  local list, count = json.array({}), 0
  at = skip(text, at)
  if text:byte(at) == 0x5D then
    return list, at + 1
  end
  while true do
    local value
    value, at = decode(text, at, depth + 1)
    count = count + 1
    if value == nil then
      value = json.null
    end
    list[count] = value
    at = skip(text, at)
    local byte = text:byte(at)
    if byte == 0x5D then
      return list, at + 1
    elseif byte ~= 0x2C then
      broken(text, at, "an array goes on wrongly")
    end
    at = skip(text, at + 1)
  end
end

local function decode_object(text, at, depth)
  local object = {}
  at = skip(text, at)
  if text:byte(at) == 0x7D then
    return object, at + 1
  end
  while true do
    if text:byte(at) ~= 0x22 then
      broken(text, at, "a key is missing")
    end
    local key
    key, at = decode_string(text, at + 1)
    at = skip(text, at)
    if text:byte(at) ~= 0x3A then
      broken(text, at, "a colon is missing")
    end
    object[key], at = decode(text, skip(text, at + 1), depth + 1)
    at = skip(text, at)
    local byte = text:byte(at)
    if byte == 0x7D then
      return object, at + 1
    elseif byte ~= 0x2C then
      broken(text, at, "an object goes on wrongly")
    end
    at = skip(text, at + 1)
  end
end

local WORDS = { { "true", true }, { "false", false }, { "null", nil } }

function decode(text, at, depth)
  local byte = text:byte(at)
  if byte == 0x22 then
    return decode_string(text, at + 1)
  elseif byte == 0x7B or byte == 0x5B then
    if depth > MAX_DEPTH then
      broken(text, at, "it is nested too deeply")
    end
    return (byte == 0x7B and decode_object or decode_array)(text, at + 1, depth)
  end
  for _, word in ipairs(WORDS) do
    if text:sub(at, at + #word[1] - 1) == word[1] then
      return word[2], at + #word[1]
    end
  end
  return decode_number(text, at)
end

---Raises what is wrong with the text.
---@param text string
---@return any
function json.decode(text)
  local value, at = decode(text, skip(text, 1), 1)
  at = skip(text, at)
  if at <= #text then
    broken(text, at, "something after the end")
  end
  return value
end

return json
]=]

local SOCKET = [=[
-- Connections to the engine's socket: open() gives one, with send(line), receive() and close();
-- wait(connections) the index of one that has something to read, or has ended.
local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- By the foreign function interface of LuaJIT.
local function by_ffi(directory)
  local ok, ffi = pcall(require, "ffi")
  if not ok then
    return nil
  end
  -- Under names of their own: a script may have declared the real ones in its way.
  ffi.cdef([[
    struct farcall_address { unsigned short family; char path[108]; };
    struct farcall_poll { int fd; short events; short revents; };
    int farcall_open(const char *, int, ...) __asm__("open");
    int farcall_socket(int, int, int) __asm__("socket");
    int farcall_connect(int, const void *, unsigned) __asm__("connect");
    ssize_t farcall_send(int, const void *, size_t, int) __asm__("send");
    ssize_t farcall_recv(int, void *, size_t, int) __asm__("recv");
    int farcall_close(int) __asm__("close");
    int farcall_poll_all(struct farcall_poll *, unsigned long, int) __asm__("poll");
    char *farcall_strerror(int) __asm__("strerror");
  ]])
  local C = ffi.C
  local EINTR, CLOEXEC, NOSIGNAL, POLLIN = 4, 524288, 0x4000, 1
  local ROOM = 262144
  local bytes = ffi.new("char[?]", ROOM)

  local function problem()
    return ffi.string(C.farcall_strerror(ffi.errno()))
  end

  local function connect(fd)
    local path, handle = directory .. "/socket", nil
    if #path > 107 then
      -- Beyond what an address holds: by the directory's descriptor.
      handle = C.farcall_open(directory, CLOEXEC)
      path = ("/proc/self/fd/%d/socket"):format(handle)
    end
    local address = ffi.new("struct farcall_address")
    address.family = 1
    ffi.copy(address.path, path)
    local result
    repeat
      result = C.farcall_connect(fd, address, ffi.sizeof(address))
    until result == 0 or ffi.errno() ~= EINTR
    local message = result ~= 0 and problem() or nil
    if handle then
      C.farcall_close(handle)
    end
    return message
  end

  local function open()
    local fd = C.farcall_socket(1, 1 + CLOEXEC, 0)
    if fd < 0 then
      return nil, problem()
    end
    local message = connect(fd)
    if message then
      C.farcall_close(fd)
      return nil, message
    end
    local self = { fd = fd }

    function self.send(line)
      local start, at = ffi.cast("const char *", line), 0
      while at < #line do
        local size = tonumber(C.farcall_send(fd, start + at, #line - at, NOSIGNAL))
        if size >= 0 then
          at = at + size
        elseif ffi.errno() ~= EINTR then
          return nil, problem()
        end
      end
      return true
    end

    function self.receive()
      local parts = {}
      while true do
        local size = tonumber(C.farcall_recv(fd, bytes, ROOM, 0))
        if size > 0 then
          parts[#parts + 1] = ffi.string(bytes, size)
          if bytes[size - 1] == 10 then
            return table.concat(parts)
          end
        elseif size == 0 or ffi.errno() ~= EINTR then
          return nil
        end
      end
    end

    function self.close()
      C.farcall_close(fd)
    end

    return self
  end

  local function wait(connections)
    local count = #connections
    local list = ffi.new("struct farcall_poll[?]", count)
    for i = 1, count do
      list[i - 1].fd, list[i - 1].events = connections[i].fd, POLLIN
    end
    repeat
      local ready = C.farcall_poll_all(list, count, -1)
    until ready > 0 or ffi.errno() ~= EINTR
    for i = 1, count do
      if list[i - 1].revents ~= 0 then
        return i
      end
    end
    return 1
  end

  return {
    open = open, wait = wait, reusable = true,
    sleep = function(seconds)
      C.farcall_poll_all(nil, 0, math.ceil(seconds * 1000))
    end,
  }
end

-- By LuaSocket.
local function by_luasocket(directory)
  local path = directory .. "/socket"
  local ok, unix = pcall(require, "socket.unix")
  local found, socket = pcall(require, "socket")
  if not ok or not found or #path > 107 then
    return nil
  end

  local function open()
    local handle, problem = (type(unix) == "table" and unix.stream or unix)()
    if not handle then
      return nil, problem
    end
    handle:settimeout(nil)
    local connected
    connected, problem = handle:connect(path)
    if not connected then
      handle:close()
      return nil, problem
    end
    local self = { handle = handle }

    function self.send(line)
      local sent, trouble = handle:send(line)
      return sent and true, trouble
    end

    function self.receive()
      return (handle:receive("*l"))
    end

    function self.close()
      handle:close()
    end

    return self
  end

  local function wait(connections)
    local handles = {}
    for i, connection in ipairs(connections) do
      handles[i] = connection.handle
    end
    local ready = socket.select(handles, nil)
    for i, handle in ipairs(handles) do
      if handle == ready[1] then
        return i
      end
    end
    return 1
  end

  return { open = open, wait = wait, reusable = true, sleep = socket.sleep }
end

local function sleep_by_program(seconds)
  os.execute(("sleep %.3f"):format(seconds))
end

-- By a helper program, which takes the request from a FIFO and whose output is the reply.
local function by_program(directory)
  local program = os.getenv("FARCALL_RUNNER") or ""
  if program == "" then
    return nil
  end
  local count, mark = 0, tostring({}):gsub("[^%w]", "")

  local function open()
    count = count + 1
    local fifo = ("%s/connect.%s.%d"):format(directory, mark, count)
    local made = os.execute("mkfifo -m 600 " .. quoted(fifo) .. " 2> /dev/null")
    if made ~= 0 and made ~= true then
      return nil, "there can be no FIFO"
    end
    local output = io.popen(("exec < %s; cd %s && exec %s connect socket"):format(quoted(fifo),
      quoted(directory), quoted(program)))
    local input = output and io.open(fifo, "w")
    os.remove(fifo)
    if not input then
      return nil, program .. " cannot be started"
    end
    local self = {}

    function self.send(line)
      local ok, problem = input:write(line)
      if ok then
        ok, problem = input:flush()
      end
      return ok and true, problem
    end

    function self.receive()
      return (output:read("*l"))
    end

    function self.close()
      input:close()
      output:close()
    end

    return self
  end

  return {
    open = open, reusable = true, sleep = sleep_by_program,
    -- There is no looking at several pipes: what comes on the others waits there.
    wait = function()
      return 1
    end,
  }
end

return function(directory)
  local driver = by_ffi(directory) or by_luasocket(directory) or by_program(directory)
  return driver, "this Lua has no sockets: use LuaJIT or install LuaSocket where the script runs, "
    .. "or let calls travel by files (--transport file)"
end
]=]

local FILE = [=[
-- Calls by files, for a script whose engine is beyond this machine: a request is put into the run's
-- directory, execs of the engine bring it there and put the reply beside it.

-- Bytes of a request that a shell may read by itself, byte by byte.
local SMALL = 2048
-- Seconds between looks for replies, from the first to the last.
local FIRST_LOOK, LAST_LOOK = 0.002, 0.05

-- A way to wait that starts no program, if there is one.
local function find_sleep()
  local ok, socket = pcall(require, "socket")
  if ok and type(socket) == "table" and socket.sleep then
    return socket.sleep
  end
  local found, ffi = pcall(require, "ffi")
  if found then
    ffi.cdef('int farcall_rest(void *, unsigned long, int) __asm__("poll");')
    return function(seconds)
      ffi.C.farcall_rest(nil, 0, math.ceil(seconds * 1000))
    end
  end
  return nil
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

return function(directory)
  local light_sleep = find_sleep()
  local bells = {} -- FIFOs that no call waits on: {file, name}
  local no_fifos = false
  local driver = {}

  function driver.sleep(seconds)
    if light_sleep then
      light_sleep(seconds)
    else
      os.execute(("sleep %.3f 2> /dev/null || sleep 1"):format(seconds))
    end
  end

  function driver.new_id()
    local file = assert(io.open("/dev/urandom", "rb"))
    file:setvbuf("no")
    local id = 0
    for _, byte in ipairs({ file:read(6):byte(1, 6) }) do
      id = id * 256 + byte
    end
    file:close()
    return id
  end

  local function read(name)
    local file = io.open(name, "rb")
    if not file then
      return nil
    end
    local text = file:read("*a")
    file:close()
    return text
  end

  local function ring()
    for _, name in ipairs({ "/bell.0", "/bell.1" }) do
      -- For reading too, so that it waits for nobody; it makes no file.
      local bell = io.open(directory .. name, "r+")
      if bell then
        bell:write("r\n")
        bell:close()
      end
    end
  end

  -- A FIFO of this name: one is made by a program, so it is used for many calls.
  local function bell_for(name)
    local bell = table.remove(bells)
    if bell then
      os.rename(bell.name, name)
      bell.name = name
      return bell
    elseif no_fifos then
      return nil
    end
    os.execute("mkfifo -m 600 " .. quoted(name) .. " 2> /dev/null")
    local file = io.open(name, "r+")
    no_fifos = file == nil
    return file and { file = file, name = name }
  end

  function driver.open()
    local self = {}
    local name, request, bell, reply

    function self.send(line, id)
      name = ("%s/c/%.0f"):format(directory, id)
      request = name .. (#line <= SMALL and ".req" or ".big")
      if not light_sleep then
        bell = bell_for(name .. ".bell")
      end
      local file, problem = io.open(name .. ".new", "wb")
      local ok = file
      if file then
        ok, problem = file:write(line)
        local closed, trouble = file:close()
        ok, problem = ok and closed, problem or trouble
      end
      if ok then
        ok, problem = os.rename(name .. ".new", request)
      end
      if not ok then
        os.remove(name .. ".new")
        return nil, problem
      end
      ring()
      return true
    end

    ---Whether there is something to receive.
    function self.look()
      reply = reply or name and read(name .. ".rep")
      return reply ~= nil or not read(directory .. "/token")
    end

    function self.receive()
      local delay = FIRST_LOOK
      while request and not self.look() do
        if bell then
          bell.file:read("*l")
        else
          driver.sleep(delay)
          delay = math.min(delay * 1.5, LAST_LOOK)
        end
      end
      return reply
    end

    function self.close()
      if name then
        os.remove(name .. ".rep")
        os.remove(request)
      end
      if bell then
        bells[#bells + 1] = bell
        bell = nil
      end
    end

    return self
  end

  function driver.wait(connections)
    local delay = FIRST_LOOK
    while true do
      for i, connection in ipairs(connections) do
        if connection.look() then
          return i
        end
      end
      if not light_sleep and not no_fifos then
        -- Nothing but its bell tells when one is there; what comes for the others waits.
        return 1
      end
      driver.sleep(delay)
      delay = math.min(delay * 1.5, LAST_LOOK)
    end
  end

  return driver
end
]=]

-- Older versions do not say what a table that is raised means.
local START = [=[
-- Runs the script that is named first.
local script = table.remove(arg, 1)
local dir = arg[0]:match("^(.*)/") or "."
arg[0] = script
package.path = dir .. "/?.lua;" .. package.path
-- As at a terminal: a line is seen when it is written, and not lost when the script is killed.
io.stdout:setvbuf("line")

local chunk, problem = loadfile(script)
if not chunk then
  io.stderr:write("lua: ", problem, "\n")
  os.exit(1)
end

local ok = xpcall(function()
  return chunk((table.unpack or unpack)(arg)) -- luacheck: ignore 143
end, function(reason)
  io.stderr:write("lua: ", debug.traceback(tostring(reason), 2), "\n")
end)
if not ok then
  os.exit(1)
end
]=]

local function set_of(words)
  local set = {}
  for word in words:gmatch("%S+") do
    set[word] = true
  end
  return set
end

local KEYWORDS = set_of([[
  and break do else elseif end false for function goto if in local nil not or repeat return then
  true until while]])

-- What the module itself defines; a tool of such a name gets one with an underscore behind.
local HELPERS = "ToolError array call is_error json_encode json_parse null parallel remaining "
  .. "retry shell_quote"
local OWN = set_of(HELPERS)

local TYPES = {
  string = "string", integer = "integer", number = "number", boolean = "boolean", array = "any[]",
  object = "table<string, any>", null = "nil",
}
local RETURNS = {
  dict = "table<string, any>", list = "any[]", str = "string", int = "integer", float = "number",
  bool = "boolean",
}

local function quoted(text)
  return '"' .. literal.decimal(text) .. '"'
end

-- The values of an enum as a type; nil when there is one that is more than a plain word.
local function enum_type(values)
  local names = {}
  for i, value in ipairs(type(values) == "table" and values or {}) do
    if type(value) ~= "string" or not value:find("^[%w_][%w_ .-]*$") then
      return nil
    end
    names[i] = '"' .. value .. '"'
  end
  return #names > 0 and table.concat(names, "|") or nil
end

---@return string type
---@return boolean takes_table
local function type_of(schema)
  local kinds = type(schema.type) == "table" and schema.type or { schema.type }
  local names, takes_table = {}, #kinds == 0
  for _, kind in ipairs(kinds) do
    local name = TYPES[kind]
    if not name then
      return "any", true
    end
    takes_table = takes_table or kind == "object" or kind == "array"
    if kind == "array" and type(schema.items) == "table" and TYPES[schema.items.type] then
      name = TYPES[schema.items.type] .. "[]"
    elseif kind == "string" then
      name = enum_type(schema.enum) or name
    end
    names[#names + 1] = name
  end
  return #names > 0 and table.concat(names, "|") or "any", takes_table
end

-- A name for a parameter: only the reader sees it.
local function parameter_name(name, taken)
  if not literal.identifier(name) then
    name = "arg"
  elseif KEYWORDS[name] then
    name = name .. "_"
  end
  while taken[name] do
    name = name .. "_"
  end
  taken[name] = true
  return name
end

---What goes into a tool's signature: what is given by position, and what only by name.
local function plan(tool)
  local parts = { positional = {}, named = {}, taken = {} }
  for _, parameter in ipairs(tool.parameters) do
    local kind, takes_table = type_of(parameter.schema)
    local by_position = parameter.required or tool.ordered
    table.insert(by_position and parts.positional or parts.named, {
      wire = parameter.name, required = parameter.required, kind = kind, schema = parameter.schema,
      takes_table = takes_table,
      name = by_position and parameter_name(parameter.name, parts.taken) or parameter.name,
    })
  end
  if #parts.named > 0 or tool.open then
    parts.options = parameter_name("options", parts.taken)
  end
  return parts
end

-- What is said of a parameter.
local function said_of(parameter)
  local schema, words = parameter.schema, {}
  if parameter.name ~= parameter.wire then
    words[1] = "(" .. parameter.wire .. ")"
  end
  if type(schema.description) == "string" then
    words[#words + 1] = schema.description
  end
  local values = {}
  for i, value in ipairs(type(schema.enum) == "table" and schema.enum or {}) do
    values[i] = tostring(value)
  end
  if #values > 0 then
    words[#words + 1] = "(" .. table.concat(values, ", ") .. ")"
  end
  local default = schema.default
  if type(default) == "string" or type(default) == "number" or type(default) == "boolean" then
    words[#words + 1] = "(default " .. tostring(default) .. ")"
  end
  return table.concat(words, " ")
end

-- The type of a table that holds these parameters.
local function table_type(tool, ...)
  local fields = {}
  for _, parameters in ipairs({ ... }) do
    for _, parameter in ipairs(parameters) do
      if literal.identifier(parameter.wire) and not KEYWORDS[parameter.wire] then
        fields[#fields + 1] = ("%s%s: %s"):format(parameter.wire, parameter.required and "" or "?",
          parameter.kind)
      end
    end
  end
  if tool.open or #fields == 0 then
    return "table<string, any>"
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

local function documentation(tool, parts, returned)
  local out = {}
  local function text(prefix, said)
    for i, line in ipairs(literal.comment(said)) do
      -- What a text says is no tag.
      line = i == 1 and prefix ~= "" and prefix .. line or line:gsub("^(%s*)@", "%1- @")
      out[#out + 1] = ("---" .. line):gsub("%s+$", "")
    end
  end
  text("", tool.summary)
  if tool.description ~= "" then
    text("", "\n" .. tool.description)
  end
  if parts.options and #parts.named > 0 then
    out[#out + 1] = "---"
    for _, parameter in ipairs(parts.named) do
      text("- ", parameter.wire .. ": " .. said_of(parameter))
    end
  end
  for _, parameter in ipairs(parts.positional) do
    text(("@param %s%s %s "):format(parameter.name, parameter.required and "" or "?",
      parameter.kind), said_of(parameter))
  end
  if parts.options then
    out[#out + 1] = ("---@param %s? %s"):format(parts.options, table_type(tool, parts.named))
  end
  out[#out + 1] = returned
  if #parts.positional > 0 then
    out[#out + 1] = ("---@overload fun(arguments: %s): %s"):format(
      table_type(tool, parts.positional, parts.named), RETURNS[tool.returns] or "any")
  end
  return table.concat(out, "\n")
end

local function define(out, tool, name, parts, options)
  local names, wires, tables = {}, {}, {}
  for i, parameter in ipairs(parts.positional) do
    names[i], wires[i] = parameter.name, quoted(parameter.wire)
    tables[i] = tostring(parameter.takes_table)
  end
  names[#names + 1] = parts.options
  local returns = RETURNS[tool.returns] or "any"
  local returned = options.errors == "return"
    and ("---@return %s? result\n---@return farcall.ToolError? err"):format(returns)
    or ("---@return %s result"):format(returns)
  local function braced(list)
    return #list > 0 and "{ " .. table.concat(list, ", ") .. " }" or "{}"
  end
  local given = table.concat(names, ", ")
  out[#out + 1] = ("\n%s\nfunction _module.%s(%s)\n  return _runtime.invoke(%s, %s, %s%s)\nend\n")
    :format(documentation(tool, parts, returned), name, given, quoted(tool.name), braced(wires),
      braced(tables), given ~= "" and ", " .. given or "")
end

local function usable(name)
  return literal.identifier(name) and not KEYWORDS[name] and not OWN[name]
end

-- "ticket.open" becomes ticket_open; a name that Lua or this module needs gets an underscore.
local function function_name(tool, taken)
  local name = tool.name:gsub("[.%-]", "_")
  if KEYWORDS[name] or OWN[name] then
    name = name .. "_"
  end
  if not literal.identifier(name) or taken[name] then
    return nil
  end
  taken[name] = true
  return name
end

local function module_text(tools, options)
  local functions, helpers, taken = {}, {}, {}
  -- A tool that bears a name as it is comes before one that only becomes it.
  for _, tool in ipairs(tools) do
    if usable(tool.name) then
      taken[tool.name] = tool
    end
  end
  for name in HELPERS:gmatch("%S+") do
    helpers[#helpers + 1] = ("  %s = _runtime.%s,\n"):format(name, name)
  end
  for _, tool in ipairs(tools) do
    local name = taken[tool.name] == tool and tool.name or function_name(tool, taken)
    if name then
      define(functions, tool, name, plan(tool), options)
    end
  end
  return table.concat({
    "-- The tools of this farcall run; each call is carried out on the operator's side.\n",
    'local _runtime = require("_farcall")\n',
    options.errors == "return" and "_runtime.return_errors = true\n" or "",
    "\nlocal _module = {\n", table.concat(helpers), "}\n", table.concat(functions),
    "\nreturn _module\n",
  })
end

---@type farcall.StubTemplate
return {
  language = "lua",
  summary = "A module with a typed function per tool, for Lua 5.1 to 5.4 and LuaJIT.",
  extensions = { "lua" },
  interpreter = { "luajit", "lua5.4", "lua5.3", "lua5.2", "lua5.1", "lua" },
  program = true,
  launch = function(dir, script)
    return { dir .. "/_farcall_start.lua", script }
  end,
  render = function(tools, options)
    return {
      { name = options.module .. ".lua", text = module_text(tools, options) },
      { name = "_farcall.lua", text = RUNTIME },
      { name = "_farcall_json.lua", text = JSON },
      { name = "_farcall_socket.lua", text = SOCKET },
      { name = "_farcall_file.lua", text = FILE },
      { name = "_farcall_start.lua", text = START },
    }
  end,
  environment = function(dir)
    return { LUA_PATH = dir .. "/?.lua;;" }
  end,
}

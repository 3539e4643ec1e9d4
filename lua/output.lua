-- SPDX-License-Identifier: MIT
-- What a script or command wrote: cleaned and redacted as it comes, kept head and tail within a
-- bound, and written uncut to a file when it does not fit. Memory is bounded, whatever comes.

local bytequeue = require("farcall.bytequeue")
local fs = require("farcall.core.fs")
local text = require("farcall.core.text")

local output = {}

-- Of what may be kept: the beginning says what was done, the end how it went.
local HEAD_SHARE = 0.4
-- The spill file is written in pieces of about this size.
local PIECE_BYTES = 64 * 1024

---@class farcall.Output
---@field private cleaner farcall.TextCleaner
---@field private on_text? fun(bytes: string)
---@field private head farcall.ByteQueue the oldest, up to head_max
---@field private head_max integer
---@field private tail farcall.ByteQueue the newest of what did not fit into head
---@field private tail_max integer
---@field private total integer clean bytes so far
---@field private spill? farcall.output.Spill
local Output = {}
Output.__index = Output

---@class farcall.OutputResult
---@field text string what is kept, with a line in the middle if something is left out
---@field bytes_total integer of the clean text; captured and omitted add up to it
---@field bytes_captured integer
---@field bytes_omitted integer
---@field truncated boolean
---@field spill_path? string where the uncut text is, up to spill_bytes
---@field spill_bytes? integer
---@field spill_error? string why the spill file is not complete, other than its cap
---@field counts table what was cleaned away, by kind

-- Cuts between characters. The text is valid UTF-8: a character begins with a byte below 0x80 (and
-- is that byte) or from 0xC0, and goes on with bytes from 0x80 to 0xBF.

---The first n bytes, fewer if that would split a character.
local function cut_head(bytes, n)
  bytes = bytes:sub(1, n)
  for back = 1, math.min(4, #bytes) do
    local byte = bytes:byte(-back)
    if byte < 0x80 or byte >= 0xC0 then
      local length = byte < 0x80 and 1 or byte < 0xE0 and 2 or byte < 0xF0 and 3 or 4
      return length > back and bytes:sub(1, -back - 1) or bytes
    end
  end
  return bytes
end

---The last n bytes, fewer if that would split a character.
local function cut_tail(bytes, n)
  local start = math.max(1, #bytes - n + 1)
  while (bytes:byte(start) or 0) >= 0x80 and bytes:byte(start) < 0xC0 do
    start = start + 1
  end
  return bytes:sub(start)
end

-- The spill file.

---@class farcall.output.Spill
local Spill = {}
Spill.__index = Spill

local function new_spill(path, max)
  return setmetatable({ path = path, max = max, written = 0, waiting = bytequeue.new() }, Spill)
end

local function write_out(self, bytes)
  local message
  if not self.file then
    self.file, message = fs.appender(self.path, 0x180) -- 0600
  end
  local ok = self.file
  if ok then
    ok, message = self.file:write(bytes)
  end
  if ok then
    self.written = self.written + #bytes
  else
    self.failure = message
  end
end

function Spill:flush()
  if self.waiting.size > 0 and not self.failure then
    write_out(self, self.waiting:join())
  end
  self.waiting:clear()
end

function Spill:feed(bytes)
  if self.full or self.failure then
    return
  end
  local room = self.max - self.written - self.waiting.size
  if #bytes > room then
    bytes = cut_head(bytes, room)
    self.full = true
  end
  self.waiting:push(bytes)
  if self.full or self.waiting.size >= PIECE_BYTES then
    self:flush()
  end
end

function Spill:close()
  self:flush()
  if self.file then
    self.file:close()
  end
end

local OPTIONS = {
  max_bytes = "number", spill_path = "string", spill_max = "number", redact = "boolean",
  on_text = "function",
}

---@class farcall.OutputOptions
---@field max_bytes? integer kept in memory and in the result (50000)
---@field spill_path? string a new file for the uncut text, made only when something is left out
---@field spill_max? integer the most that is written there (5000000)
---@field redact? boolean false: secrets stay (true)
---@field on_text? fun(bytes: string) gets all clean text as soon as it is known, uncut

---@param options farcall.OutputOptions
---@return farcall.Output
function output.new(options)
  for key, value in pairs(options) do
    if type(value) ~= OPTIONS[key] then
      error("output.new: bad option " .. tostring(key), 2)
    end
  end
  local max = options.max_bytes or 50000
  local head_max = math.floor(max * HEAD_SHARE)
  local self = {
    cleaner = text.cleaner({ escapes = true, utf8 = true, secrets = options.redact ~= false }),
    on_text = options.on_text, head = bytequeue.new(), head_max = head_max,
    tail = bytequeue.new(max - head_max), tail_max = max - head_max, total = 0,
  }
  if options.spill_path then
    self.spill = new_spill(options.spill_path, options.spill_max or 5000000)
  end
  return setmetatable(self, Output)
end

-- Called once, when something is about to be dropped: until then it is all here.
local function start_spill(self, clean)
  self.truncated = true
  if self.spill then
    self.spill:feed(self.head:join())
    self.spill:feed(self.tail:join())
    self.spill:feed(clean)
  end
end

local function keep(self, clean)
  if self.truncated then
    if self.spill then
      self.spill:feed(clean)
    end
  elseif self.total > self.head_max + self.tail_max then
    start_spill(self, clean)
  end
  local room = self.head_max - self.head.size
  if room > 0 then
    self.head:push(clean:sub(1, room))
    clean = clean:sub(room + 1)
  end
  if clean ~= "" then
    -- Of a large feed only its end can stay.
    self.tail:push(#clean > self.tail_max and clean:sub(-self.tail_max) or clean)
  end
end

local function take(self, clean)
  if clean == "" then
    return
  end
  self.total = self.total + #clean
  keep(self, clean)
  if self.on_text then
    self.on_text(clean)
  end
end

---Takes the next bytes, as they came.
---@param bytes string
function Output:feed(bytes)
  take(self, self.cleaner:feed(bytes))
end

local function grouped(n)
  local digits = ("%d"):format(n)
  local first = (#digits - 1) % 3 + 1
  return digits:sub(1, first) .. digits:sub(first + 1):gsub("%d%d%d", ",%0")
end

-- On a line of its own, whatever is before and after it.
local function marker(head, omitted, total)
  return ("%s[... %s of %s bytes left out here ...]\n"):format(
    (head == "" or head:sub(-1) == "\n") and "" or "\n", grouped(omitted), grouped(total))
end

---Ends it; nothing may be fed any more.
---@return farcall.OutputResult
function Output:finish()
  local rest, counts = self.cleaner:finish()
  take(self, rest)
  local result = {
    bytes_total = self.total, bytes_captured = self.total, bytes_omitted = 0,
    truncated = self.truncated or false, counts = counts,
  }
  local head, tail = self.head:join(), self.tail:join()
  if not self.truncated then
    result.text = head .. tail
    return result
  end
  head, tail = cut_head(head, self.head_max), cut_tail(tail, self.tail_max)
  result.bytes_captured = #head + #tail
  result.bytes_omitted = self.total - result.bytes_captured
  result.text = head .. marker(head, result.bytes_omitted, self.total) .. tail
  if self.spill then
    self.spill:close()
    result.spill_path = self.spill.file and self.spill.path
    result.spill_bytes, result.spill_error = self.spill.written, self.spill.failure
  end
  return result
end

return output

-- SPDX-License-Identifier: MIT
-- Bytes in pieces, added at the end; of a queue with a bound the oldest are dropped, a whole piece
-- at a time. Memory and copying stay in proportion to the bound, however small the pieces are.

local bytequeue = {}

local PIECES_MAX = 512

---@class farcall.ByteQueue
---@field size integer bytes that are there
---@field keep number bytes at the end that must stay; older ones may go
local Queue = {}
Queue.__index = Queue

---@param keep? number all, if absent
---@return farcall.ByteQueue
function bytequeue.new(keep)
  return setmetatable({ first = 1, last = 0, size = 0, keep = keep or math.huge }, Queue)
end

---All of it as one string.
---@return string
function Queue:join()
  return table.concat(self, "", self.first, self.last)
end

function Queue:clear()
  for i = self.first, self.last do
    self[i] = nil
  end
  self.first, self.last, self.size = 1, 0, 0
end

-- Many small pieces: the older half becomes one, so that a byte is copied only now and then.
local function merge(self)
  local middle = math.floor((self.first + self.last) / 2)
  local joined = table.concat(self, "", self.first, middle)
  local excess = self.size - self.keep
  if excess > 0 then
    joined = joined:sub(excess + 1)
  end
  local newer = { unpack(self, middle + 1, self.last) }
  self:clear()
  self:push(joined)
  for _, piece in ipairs(newer) do
    self:push(piece)
  end
end

---@param bytes string
function Queue:push(bytes)
  self.last = self.last + 1
  self[self.last] = bytes
  self.size = self.size + #bytes
  while self.first <= self.last and self.size - #self[self.first] >= self.keep do
    self.size = self.size - #self[self.first]
    self[self.first] = nil
    self.first = self.first + 1
  end
  if self.last - self.first >= PIECES_MAX then
    merge(self)
  end
end

return bytequeue

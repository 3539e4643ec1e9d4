-- SPDX-License-Identifier: MIT
-- Commands behind a login shell. Its start files may print before the command does: a banner in
-- ~/.bashrc, which bash reads for every command of sshd. A mark on both streams tells where the
-- command's own output begins.

local hex = require("farcall.hex")

local past_noise = {}

-- Of a stream on which the mark never comes: an account that may not log in says why.
local KEPT = 4096

---@class farcall.PastNoise: farcall.Process
local Process = {}
Process.__index = Process

---@async
---@param max integer
---@return "out"|"err"|nil stream
---@return string? bytes
function Process:read(max)
  while true do
    local stream, bytes = self.raw:read(max)
    if not stream then
      break
    end
    local held = self.held[stream]
    if not held then
      return stream, bytes
    end
    held = held .. bytes
    local _, to = held:find(self.mark, 1, true)
    self.held[stream] = not to and held:sub(-KEPT) or nil
    if to and to < #held then
      return stream, held:sub(to + 1)
    end
  end
  for stream, held in pairs(self.held) do
    self.held[stream] = nil
    if #held > 0 and not self.killed then
      return stream, held:sub(-max)
    end
  end
  return nil
end

---@async
function Process:write(bytes)
  return self.raw:write(bytes)
end

function Process:close_stdin()
  return self.raw:close_stdin()
end

---@async
function Process:wait()
  return self.raw:wait()
end

---@async
function Process:kill()
  self.killed = true
  return self.raw:kill()
end

---@class farcall.NoiseMark
---@field overhead integer bytes that a line grows by
local Mark = {}
Mark.__index = Mark

---The line that says the mark before it does what it is for. In halves: a shell that shows its
---commands does not say it.
---@param line string
---@return string
function Mark:line(line)
  return self.prefix .. line
end

---The process of such a line, without what came before the mark.
---@param process farcall.Process
---@return farcall.Process
function Mark:follow(process)
  return setmetatable({ raw = process, mark = self.text, held = { out = "", err = "" } }, Process)
end

---@return farcall.NoiseMark
function past_noise.new()
  local text = hex.random(16)
  local say = ("printf %%s%%s %s %s"):format(text:sub(1, 16), text:sub(17))
  local self = setmetatable({ text = text, prefix = say .. "; " .. say .. " >&2; " }, Mark)
  self.overhead = #self.prefix
  return self
end

return past_noise

-- SPDX-License-Identifier: MIT
-- What the exec of a cycle says: lines behind a random mark, whatever else its output holds, and
-- requests between them. transports/file_sh.lua says it.

local far = require("farcall.transports.file_sh")

local file_answer = {}

-- A header is a mark and a file's name.
local MAX_HEADER = 512

---@class farcall.file.Answer
---@field brought {name: string, text: string}[] requests; names and texts are as they came
---@field failed table<integer, true> IDs of replies that had no room
---@field put? true the replies are in place
---@field end? true that was the last word
---@field gone? true the script has ended
---@field spoiled? string what the script has put something else in the place of
---@field feed fun(bytes: string)

---Takes what one cycle says, as it comes.
---@param mark string of the cycle
---@return farcall.file.Answer
function file_answer.reader(mark)
  local pending, brought, current = "", {}, nil
  local self = { brought = brought, failed = {} }
  local header = "\n" .. mark .. " "
  local parts = {}

  local function say(line)
    local verb, rest = line:match("^(%l+) ?(.*)$")
    if current then
      current.text = table.concat(parts)
      brought[#brought + 1] = current
      current, parts = nil, {}
    end
    if verb == "request" then
      -- No exec brings more: what says so has read its mark and put it into a request.
      current = #brought < far.MOST and { name = rest } or nil
    elseif verb == "fail" then
      self.failed[tonumber(rest) or 0] = true
    elseif verb == "put" or verb == "end" or verb == "gone" then
      self[verb] = true
    elseif verb == "spoiled" then
      self.spoiled = far.FILES[rest] or "files"
    end
  end

  function self.feed(bytes)
    pending = pending .. bytes
    while true do
      local from, to = pending:find(header, 1, true)
      local stop = from and pending:find("\n", to + 1, true)
      if not stop then
        -- What could be the beginning of a header stays.
        local safe = (from or #pending - #header + 1) - 1
        if from and #pending - from > MAX_HEADER then
          safe = to
        end
        if safe > 0 then
          if current then
            parts[#parts + 1] = pending:sub(1, safe)
          end
          pending = pending:sub(safe + 1)
        end
        return
      end
      if current then
        parts[#parts + 1] = pending:sub(1, from - 1)
      end
      local line = pending:sub(to + 1, stop - 1)
      pending = pending:sub(stop + 1)
      say(line)
    end
  end

  return self
end

return file_answer

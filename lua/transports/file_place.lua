-- SPDX-License-Identifier: MIT
-- The directory of a run by files, with the token, the stub and the script in it: one exec makes it
-- and looks at what there is.

local errors = require("farcall.errors")
local far = require("farcall.transports.file_sh")
local hex = require("farcall.hex")
local lacking = require("farcall.transports.lacking")
local oneshot = require("farcall.oneshot")
local supervision = require("farcall.supervision")

local file_place = {}

local FURNISH_TIMEOUT = 60
-- Beyond the files themselves, room that the directory must have.
local ROOM = 65536

---@class farcall.file.Place
---@field dir string absolute
---@field look string how the far side can wait there: "fifo", or seconds between two looks
---@field interpreter? string of those asked for, the first that is there

---Makes it, in the first of the usual places that has the room.
---@async
---@param env farcall.Env
---@param files {name: string, text: string}[]
---@param interpreters string[]
---@return farcall.file.Place?
---@return farcall.Error? err
---@nodiscard
function file_place.make(env, files, interpreters)
  local places, size, contents = supervision.places(env), 0, {}
  local name, mark = "farcall-run-" .. hex.random(8), hex.random(16)
  local listed = {}
  for i, entry in ipairs(files) do
    contents[i] = entry.text
    size = size + #entry.text
    listed[#listed + 1] = entry.name
    listed[#listed + 1] = ("%d"):format(#entry.text)
  end
  local argv = { "sh", "-c", far.FURNISH, "sh", mark, name, ("%d"):format(size + ROOM) }
  for _, list in ipairs({ places, interpreters }) do
    argv[#argv + 1] = ("%d"):format(#list)
    for _, word in ipairs(list) do
      argv[#argv + 1] = word
    end
  end
  for _, word in ipairs(listed) do
    argv[#argv + 1] = word
  end
  local op = "directory of the run"
  local result, err = oneshot.run(env.bare, {
    argv = argv, stdin = table.concat(contents), timeout = FURNISH_TIMEOUT,
  })
  if not result then
    return nil, err
  end
  if result.timed_out then
    return nil, errors.new("timeout", op, ("not made within %d s"):format(FURNISH_TIMEOUT))
  end
  for said in result.stdout:gmatch("\n" .. mark .. " ([^\n]*)\n") do
    local place, interpreter, fifo, look = said:match("^made (%d+) (%d+) ([01]) ([%d.]+)$")
    if place and places[tonumber(place)] then
      return {
        dir = places[tonumber(place)] .. "/" .. name,
        look = fifo == "1" and "fifo" or look == "1" and "1" or "0.03",
        interpreter = interpreters[tonumber(interpreter)],
      }
    elseif said == "none" then
      return nil, lacking.place(places, size + ROOM)
    elseif said == "short" then
      return nil, errors.new("lost", op, "its files did not arrive as a whole")
    end
  end
  return nil, oneshot.failure(result, op)
    or errors.new("protocol", op, "its sh did not do what it was told")
end

return file_place

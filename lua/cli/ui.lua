-- SPDX-License-Identifier: MIT
-- What the commands share: data to stdout, everything else to stderr, tables, colours, JSON.

local json = require("farcall.core.json")
local system = require("farcall.core.system")

local ui = {}

local STDOUT, STDERR = 1, 2
local COLORS = { red = "31", green = "32", yellow = "33", bold = "1", dim = "2" }

---@class farcall.Ui
---@field quiet boolean
---@field verbose boolean
---@field json boolean
local Ui = {}
Ui.__index = Ui

---@param args table the parsed flags quiet, verbose, json, color
---@param environ table<string, string>
---@return farcall.Ui
function ui.new(args, environ)
  local color = args.color or "auto"
  if color == "auto" then
    color = not environ.NO_COLOR and environ.TERM ~= "dumb" and system.isatty(STDERR) and "always"
      or "never"
  end
  return setmetatable({
    quiet = args.quiet or false, verbose = args.verbose or false, json = args.json or false,
    color = color == "always", terminal = system.isatty(STDERR),
  }, Ui)
end

---Data, and nothing else, goes to stdout. False when its reader is gone.
function Ui.out(_, text)
  return system.write(STDOUT, text)
end

---One JSON object on one line.
function Ui:out_json(value)
  local text, message = json.encode(value)
  if not text then
    error("not JSON: " .. message)
  end
  return self:out(text .. "\n")
end

function Ui.err(_, text)
  return system.write(STDERR, text)
end

---A remark for a human: not with -q.
function Ui:say(text)
  if not self.quiet then
    self:err(text .. "\n")
  end
end

function Ui:paint(name, text)
  if not self.color then
    return text
  end
  return ("\27[%sm%s\27[0m"):format(COLORS[name], text)
end

---An error, and what to do about it.
function Ui:fail(err)
  self:err(("%s %s\n"):format(self:paint("red", "farcall:"), tostring(err)))
end

---Rows of strings in columns.
---@param rows string[][]
function Ui:columns(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, #cell)
    end
  end
  local lines = {}
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = i < #row and cell .. (" "):rep(widths[i] - #cell) or cell
    end
    lines[#lines + 1] = table.concat(cells, "  ") .. "\n"
  end
  return self:out(table.concat(lines))
end

return ui

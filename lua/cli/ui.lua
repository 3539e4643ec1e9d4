-- SPDX-License-Identifier: MIT
-- What the commands share: data to stdout, everything else to stderr, tables, colours, JSON, a
-- human's answers.

local json = require("farcall.core.json")
local system = require("farcall.core.system")
local task = require("farcall.task")
local cleaning = require("farcall.core.text")

local ui = {}

local STDIN, STDOUT, STDERR = 0, 1, 2
local EXIT_ENGINE = 125
-- What a pipe or terminal that says it is ready takes without blocking.
local ATOMIC_BYTES = 4096
local COLORS = { red = "31", green = "32", yellow = "33", bold = "1", dim = "2" }

---@class farcall.Ui
---@field quiet boolean
---@field verbose boolean
---@field json boolean
---@field private loss? string why data could not be written
---@field private abandoned boolean nobody waits any more for readers of what a script writes
local Ui = {}
Ui.__index = Ui

---@param args table the parsed flags quiet, verbose, json, color
---@param environ table<string, string>
---@return farcall.Ui
function ui.new(args, environ)
  -- What has been typed ahead stays where a poll can see it.
  io.stdin:setvbuf("no")
  local color = args.color or "auto"
  if color == "auto" then
    color = not environ.NO_COLOR and environ.TERM ~= "dumb" and system.isatty(STDERR) and "always"
      or "never"
  end
  return setmetatable({
    quiet = args.quiet or false, verbose = args.verbose or false, json = args.json or false,
    color = color == "always", terminal = system.isatty(STDERR), abandoned = false,
    input = io.stdin,
  }, Ui)
end

-- Waits until a descriptor is ready. A file always is, and cannot be waited for.
---@async
local function await_ready(fd, mode)
  task.await(function(resume)
    local watch
    watch = task.loop():watch(fd, mode, function()
      watch:close()
      resume()
    end)
    if not watch then
      resume()
      return nil
    end
    return function()
      watch:close()
    end
  end)
end

-- What could not be written is told at the end, except to whoever has stopped reading.
local function note_loss(self, message, code)
  if message and code ~= "EPIPE" and code ~= "CANCELLED" then
    self.loss = self.loss or message
  end
end

---Passes on what a script writes. While the reader takes its time only this task waits: the
---descriptor stays as it is, because a non-blocking one would be so for all who share it.
---@async
---@param fd integer
---@param bytes string
---@return boolean?
---@return string? message
---@return string? code "EPIPE" when the reader is gone
function Ui:stream(fd, bytes)
  for from = 1, #bytes, ATOMIC_BYTES do
    if self.abandoned then
      return nil, "nobody waits for it", "CANCELLED"
    end
    await_ready(fd, "w")
    local ok, message, code = system.write(fd, bytes:sub(from, from + ATOMIC_BYTES - 1))
    if not ok then
      note_loss(self, fd == STDOUT and message, code)
      return nil, message, code
    end
  end
  return true
end

---From now on output of scripts is dropped: for a second Ctrl-C while a reader does not read.
function Ui:abandon()
  self.abandoned = true
end

---The next line of standard input; nil at its end. Others go on while nothing has been typed.
---@async
---@return string?
function Ui:read_line()
  await_ready(STDIN, "r")
  return self.input:read("*l")
end

---Asks a human; without one the answer is no. One question at a time.
---@async
---@param question string
---@return boolean
function Ui:ask(question)
  if not system.isatty(STDIN) then
    return false
  end
  self.asking = self.asking or task.semaphore(1)
  self.asking.acquire()
  local ok, answer = pcall(function()
    self:err(question .. " [y/N] ")
    return self:read_line()
  end)
  self.asking.release()
  if not ok then
    error(answer, 0)
  end
  return (answer or ""):lower():find("^%s*y") ~= nil
end

---Data, and nothing else, goes to stdout.
function Ui:out(text)
  local _, message, code = system.write(STDOUT, text)
  note_loss(self, message, code)
end

---The exit code of the program, given the command's: data that could not be written is a failure.
---@param code integer
---@return integer
function Ui:exit_code(code)
  if self.loss and code == 0 then
    self:err(("farcall: standard output: %s\n"):format(self.loss))
    return EXIT_ENGINE
  end
  return code
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

---Words for a terminal that only shows them: what an environment has said may stand in them.
---@param text string
---@return string
function Ui.plain(text)
  local clean = assert(cleaning.clean(text, { secrets = false }))
  return (clean:gsub("[%z\1-\8\11-\31\127]", ""))
end

---A remark for a human: not with -q.
---@param text string
---@param color? string
function Ui:say(text, color)
  if not self.quiet then
    text = Ui.plain(text)
    self:err((color and self:paint(color, text) or text) .. "\n")
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
  self:err(("%s %s\n"):format(self:paint("red", "farcall:"), Ui.plain(tostring(err))))
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

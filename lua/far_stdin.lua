-- SPDX-License-Identifier: MIT
-- Standard input for a service that has none, or none that lives: bytes travel in commands as
-- base64, in pieces below the largest command, and are put together over there.

local base64 = require("farcall.core.base64")
local errors = require("farcall.errors")
local hex = require("farcall.hex")
local oneshot = require("farcall.oneshot")
local task = require("farcall.task")

local far_stdin = {}

-- Bytes of base64 in one argument (a multiple of four), where the service does not allow less.
local MAX_PIECE = 98304
-- What a command holds beside the piece.
local OVERHEAD = 4096
local PIECE_TIMEOUT = 120

-- $d becomes the first directory for temporary files that can be written to.
local PICK = [=[
for d in /tmp /var/tmp /dev/shm; do
  if [ -d "$d" ] && [ -w "$d" ]; then break; fi
done
umask 077
]=]

-- $1 base64; then the program.
local FROM_ARGUMENT = [=[
b=$1
shift
printf %s "$b" | base64 -d | (exec "$@")
]=]

-- $1 name of the file, $2 base64 of the next piece.
local APPEND = PICK .. [=[
printf %s "$2" | base64 -d >> "$d/$1"
]=]

-- $1 name of the file, $2 its size; then the program.
local FROM_FILE = PICK .. [=[
f=$d/$1 n=$2
shift 2
if [ "$(wc -c < "$f")" -ne "$n" ]; then
  rm -f "$f"
  echo "its standard input did not arrive as a whole" >&2
  exit 125
fi
exec < "$f"
rm -f "$f"
exec "$@"
]=]

local REMOVE = PICK .. [=[
rm -rf "$d/$1"
]=]

local MAKE_QUEUE = PICK .. [=[
mkdir "$d/$1" && mkfifo "$d/$1/bell"
]=]

-- $1 name of the queue, a directory in which what is written comes as files 1, 2, ... and then
-- `end`; then the program.
local FROM_QUEUE = PICK .. [=[
q=$d/$1
shift
feed() {
  n=1 last=
  while :; do
    while [ -e "$q/$n" ]; do
      cat "$q/$n" || return
      rm -f "$q/$n"
      n=$((n + 1))
    done
    [ -z "$last" ] || return
    if [ -e "$q/end" ]; then last=1; else read -r x <&3; fi
  done
}
exec 3<> "$q/bell"
feed | {
  (exec "$@" 3<&-)
  r=$?
  : > "$q/end"
  echo e >&3
  exit "$r"
}
r=$?
rm -rf "$q"
exit "$r"
]=]

-- $1 name of the queue, $2 number of the piece or `end`, $3 base64.
local ENQUEUE = PICK .. [=[
q=$d/$1
printf %s "$3" | base64 -d > "$q/new" && mv "$q/new" "$q/$2" && echo r 1<> "$q/bell"
]=]

local function new_name()
  return "farcall-in-" .. hex.random(8)
end

---Whether standard input must take this way.
---@param caps farcall.Caps
---@param stdin string as in a StartSpec
---@return boolean
function far_stdin.needed(caps, stdin)
  if stdin == "null" or stdin == "" then
    return false
  end
  if stdin == "pipe" then
    return caps.stdin ~= "stream"
  end
  return caps.stdin ~= "stream" and caps.stdin ~= "bytes"
end

-- Bytes before base64 that one command takes beside `size` bytes of its own.
local function piece_size(caps, size)
  local room = math.min(MAX_PIECE, (caps.max_command or 131071) - OVERHEAD - (size or 0))
  return math.floor(room / 4) * 3
end

---@async
local function run(bare, script, ...)
  local result, err = oneshot.run(bare, {
    argv = { "sh", "-c", script, "sh", ... }, timeout = PIECE_TIMEOUT,
  })
  if not result then
    return nil, err
  end
  err = oneshot.failure(result, "standard input")
  if err then
    return nil, err
  end
  return true
end

local function with(spec, script, ...)
  local adapted = { env = spec.env, cwd = spec.cwd, stdin = "null" }
  adapted.argv = { "sh", "-c", script, "sh", ... }
  for _, word in ipairs(spec.argv) do
    adapted.argv[#adapted.argv + 1] = word
  end
  return adapted
end

---Removes what an exec that has not begun would have read.
---@async
---@param bare farcall.guarded.Bare
---@param name string as adapt() gave it
function far_stdin.remove(bare, name)
  task.shield(run, bare, REMOVE, name)
end

---@async
local function ship(bare, name, bytes)
  local size = piece_size(bare.caps)
  for from = 1, #bytes, size do
    local ok, err = run(bare, APPEND, name, base64.encode(bytes:sub(from, from + size - 1)))
    if not ok then
      return nil, err
    end
  end
  return true
end

-- Does what begins to make something of this name over there.
---@async
local function make(bare, name, how, ...)
  local ok, made, err = pcall(how, bare, ...)
  if ok and made then
    return true
  end
  far_stdin.remove(bare, name)
  if not ok then
    error(made, 0)
  end
  return nil, err
end

---The process' input as a queue of files.
---@class farcall.far_stdin.Writer
local Writer = {}
Writer.__index = Writer

---@async
function Writer:write(bytes)
  local size = piece_size(self.bare.caps)
  for from = 1, #bytes, size do
    if self.closed then
      return nil, errors.new("lost", "stdin", "it is closed", { code = "EPIPE" })
    end
    self.count = self.count + 1
    local ok, err = run(self.bare, ENQUEUE, self.name, ("%d"):format(self.count),
      base64.encode(bytes:sub(from, from + size - 1)))
    if not ok then
      return nil, err
    end
  end
  return true
end

---@async
function Writer:close_stdin()
  if not self.closed then
    self.closed = true
    run(self.bare, ENQUEUE, self.name, "end", "")
  end
end

function Writer:read(max)
  return self.process:read(max)
end

---@async
function Writer:wait()
  return self.process:wait()
end

---@async
function Writer:kill()
  self.closed = true
  self.process:kill()
  run(self.bare, REMOVE, self.name)
end

function Writer:attach(process)
  self.process = process
  return self
end

---The same exec with its input brought by other means.
---@async
---@param bare farcall.guarded.Bare
---@param spec farcall.StartSpec with argv
---@return farcall.StartSpec? adapted with an empty input
---@return farcall.far_stdin.Writer|farcall.Error|nil writer to attach to the process when its input
---is a pipe; or the error
---@return string? name of what must be removed if the exec does not begin
---@nodiscard
function far_stdin.adapt(bare, spec)
  if spec.stdin == "pipe" then
    local name = new_name()
    local ok, err = make(bare, name, run, MAKE_QUEUE, name)
    if not ok then
      return nil, err
    end
    return with(spec, FROM_QUEUE, name),
      setmetatable({ bare = bare, name = name, count = 0 }, Writer), name
  end
  local own = 0
  for _, word in ipairs(spec.argv) do
    own = own + #word + 8
  end
  for name, value in pairs(spec.env or {}) do
    own = own + #name + #value + 8
  end
  if #spec.stdin <= piece_size(bare.caps, own) then
    return with(spec, FROM_ARGUMENT, base64.encode(spec.stdin))
  end
  local name = new_name()
  local ok, err = make(bare, name, ship, name, spec.stdin)
  if not ok then
    return nil, err
  end
  return with(spec, FROM_FILE, name, ("%d"):format(#spec.stdin)), nil, name
end

return far_stdin

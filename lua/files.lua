-- SPDX-License-Identifier: MIT
-- Files of an environment, through nothing but its POSIX sh and the usual small programs (busybox
-- will do). Every path travels as an argument of the script, never as a part of it.

local errors = require("farcall.errors")
local sha256 = require("farcall.core.sha256")
local system = require("farcall.core.system")

local files = {}

-- What the scripts below say by their exit code. Below 64 nothing of the system's says the same.
local EXITS = {
  [41] = { "not_found", "no such file or directory", "ENOENT" },
  [42] = { "usage", "is a directory", "EISDIR" },
  [43] = { "denied", "permission denied", "EACCES" },
  [44] = { "unsupported", "not a regular file" },
  [45] = { "unavailable", "the file was changed by somebody else meanwhile", "CHANGED" },
  [46] = { "lost", "the content did not arrive as a whole; the file is as it was" },
  [47] = { "usage", "a part of the path is not a directory", "ENOTDIR" },
}

-- Names of programs and messages in English and bytes as bytes, whatever the environment's locale.
local PRELUDE = "LC_ALL=C; export LC_ALL\n"

-- Of the path $1: there, a regular file, readable.
local CHECK_READABLE = [[
if [ -d "$1" ]; then exit 42; fi
if [ ! -e "$1" ]; then
  d=${1%/*}
  if [ -d "${d:-/}" ] && [ ! -x "${d:-/}" ]; then exit 43; fi
  exit 41
fi
if [ ! -f "$1" ]; then exit 44; fi
if [ ! -r "$1" ]; then exit 43; fi
]]

local READ = CHECK_READABLE .. [[
if [ "$2" -eq 0 ]; then exec head -c "$3" "$1"; fi
tail -c "+$(($2 + 1))" "$1" | head -c "$3"
]]

-- $1 path, $2 length of stdin, $3 suffix of the temporary name, $4 mode or "", $5 sha256 that the
-- file must still have, "absent" or "". Prints whether the file and its directory were made.
local WRITE = [[
p=$1
if [ -L "$p" ]; then
  t=$(readlink -f "$p"; printf x) || exit 41
  t=${t%x}
  p=${t%?}
  if [ -z "$p" ]; then exit 41; fi
fi
if [ -d "$p" ]; then exit 42; fi
if [ -e "$p" ] && [ ! -f "$p" ]; then exit 44; fi
d=${p%/*}
if [ "$d" = "$p" ]; then d=.; fi
made=old
if [ ! -d "${d:-/}" ]; then
  if ! mkdir -p "$d"; then
    a=$d
    while [ ! -e "$a" ]; do
      case $a in
      /*/*) a=${a%/*} ;;
      /*) a=/ ;;
      */*) a=${a%/*} ;;
      *) a=. ;;
      esac
    done
    if [ ! -d "$a" ]; then exit 47; fi
    if [ ! -w "$a" ] || [ ! -x "$a" ]; then exit 43; fi
    exit 1
  fi
  made=new
fi
t=$d/.farcall-$3
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP INT TERM
there=new
if [ -e "$p" ]; then
  there=old
  if [ ! -w "$p" ]; then exit 43; fi
  old=$(umask)
  umask 077
fi
set -C
if ! : > "$t"; then
  if [ ! -w "${d:-/}" ]; then exit 43; fi
  exit 1
fi
set +C
cat > "$t" || exit 1
if [ "$there" = old ]; then
  umask "$old"
  nl='
'
  m=$(stat -c '%s %u:%g %a' "$t" "$p") || exit 1
  ours=${m%%"$nl"*}
  theirs=${m#*"$nl"}
  if [ "${ours%% *}" -ne "$2" ]; then exit 46; fi
  ours=${ours#* }
  theirs=${theirs#* }
  if [ "${ours% *}" != "${theirs% *}" ]; then chown "${theirs% *}" "$t" 2> /dev/null; fi
  if [ "$ours" != "$theirs" ]; then chmod "${theirs#* }" "$t" || exit 1; fi
else
  if [ "$(wc -c < "$t")" -ne "$2" ]; then exit 46; fi
  if [ -n "$4" ]; then chmod "$4" "$t" || exit 1; fi
fi
case $5 in
"") ;;
absent) if [ -e "$p" ]; then exit 45; fi ;;
*)
  now=$(sha256sum < "$p" 2> /dev/null)
  if [ -n "$now" ] && [ "${now%% *}" != "$5" ]; then exit 45; fi
  if [ ! -e "$p" ]; then exit 45; fi
  ;;
esac
mv -f "$t" "$p" || exit 1
trap - EXIT
echo "$there $made"
]]

local REMOVE = [[
if [ -d "$1" ] && [ ! -L "$1" ]; then exit 42; fi
if [ ! -e "$1" ] && [ ! -L "$1" ]; then exit 41; fi
exec rm -f "$1"
]]

local function last_line(text)
  return text:gsub("%s+$", ""):match("[^\n]*$")
end

---Runs a script in the environment. Its exit codes 41-47 become the errors of the list above; any
---other failure is told with the last line of stderr.
---@async
---@param ctx farcall.ToolContext
---@param op string for the error: "read_file notes.txt"
---@param script string a constant
---@param args (string|number)[] the script's $1, $2, ...
---@param options? {stdin?: string, max_output?: integer, timeout?: number, accept?: table} accept:
---a set of exit codes that are results
---@return table? result of the oneshot
---@return farcall.Error? err
---@nodiscard
function files.sh(ctx, op, script, args, options)
  options = options or {}
  local argv = { "sh", "-c", PRELUDE .. script, "sh" }
  for _, arg in ipairs(args) do
    argv[#argv + 1] = tostring(arg)
  end
  local result, err = ctx.oneshot({
    argv = argv, stdin = options.stdin, max_output = options.max_output, timeout = options.timeout,
  })
  if not result then
    return nil, err
  end
  if result.timed_out then
    return nil, errors.new("timeout", op, ("not done within %g s"):format(options.timeout or 0))
  end
  if result.exit_code == 0 or options.accept and options.accept[result.exit_code] then
    return result
  end
  local known = EXITS[result.exit_code]
  if known then
    return nil, errors.new(known[1], op, known[2], { code = known[3] })
  end
  local said = last_line(result.stderr)
  local how = result.signal and "ended by signal " .. result.signal
    or "exit code " .. tostring(result.exit_code)
  return nil, errors.new("exec", op, said ~= "" and said or how)
end

---The absolute path that a tool's argument means: relative ones are the run's, ~ is the home
---directory over there.
---@async
---@param ctx farcall.ToolContext
---@param op string
---@param path string
---@return string? absolute
---@return farcall.Error? err
---@nodiscard
function files.resolve(ctx, op, path)
  if path == "" then
    return nil, errors.new("usage", op, "the path is empty")
  end
  if path:find("\0", 1, true) then
    return nil, errors.new("usage", op, "the path holds a NUL byte")
  end
  if path == "~" or path:sub(1, 2) == "~/" then
    local result, err = files.sh(ctx, op, [[printf %s "$HOME"]], {})
    if not result then
      return nil, err
    end
    if result.stdout:sub(1, 1) ~= "/" then
      return nil, errors.new("not_found", op, "the environment has no HOME to put for ~")
    end
    return result.stdout .. path:sub(2)
  end
  if path:sub(1, 1) == "/" then
    return path
  end
  while path:sub(1, 2) == "./" and #path > 2 do
    path = path:sub(3):gsub("^/+", "")
  end
  if path == "." then
    return ctx.cwd or "."
  end
  return (ctx.cwd or "."):gsub("/+$", "") .. "/" .. path
end

---Bytes of a regular file, at most `max` from `offset`. It never hangs on a FIFO or a device.
---@async
---@param ctx farcall.ToolContext
---@param op string
---@param path string absolute
---@param options {offset?: integer, max: integer}
---@return string? bytes
---@return farcall.Error? err
---@nodiscard
function files.read(ctx, op, path, options)
  if ctx.env and ctx.env.get then
    local bytes, err = ctx.env:get(path, { offset = options.offset or 0, max = options.max })
    if bytes then
      return bytes
    end
    if not errors.is(err) then
      return nil, errors.new("unavailable", op, tostring(err))
    end
    return nil, errors.new(err.kind, op, err.msg, { code = err.code, cause = err })
  end
  local result, err = files.sh(ctx, op, READ, { path, options.offset or 0, options.max },
    { max_output = options.max })
  return result and result.stdout, err
end

---Writes a whole file: beside it, then renamed over it, so that a reader sees the old text or the
---new one. Directories are made; an existing file keeps its mode, and its owner where that is
---permitted; a symbolic link stays one.
---@async
---@param ctx farcall.ToolContext
---@param op string
---@param path string absolute
---@param bytes string
---@param options? {mode?: integer, unless_changed?: string|false} unless_changed: the bytes that
---the file must still hold, or false: it must not be there
---@return {created: boolean, dirs_created: boolean}?
---@return farcall.Error? err code "CHANGED" when unless_changed was not so
---@nodiscard
function files.write(ctx, op, path, bytes, options)
  options = options or {}
  local expected = ""
  if options.unless_changed == false then
    expected = "absent"
  elseif options.unless_changed then
    expected = sha256.hex(options.unless_changed)
  end
  local suffix = system.random(8):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end)
  local mode = options.mode and ("%o"):format(options.mode) or ""
  local result, err = files.sh(ctx, op, WRITE, { path, #bytes, suffix, mode, expected },
    { stdin = bytes })
  if not result then
    return nil, err
  end
  local file, dirs = result.stdout:match("^(%a+) (%a+)\n$")
  return { created = file == "new", dirs_created = dirs == "new" }
end

---Removes a file, not a directory.
---@async
---@param ctx farcall.ToolContext
---@param op string
---@param path string absolute
---@return true?
---@return farcall.Error? err
---@nodiscard
function files.remove(ctx, op, path)
  local result, err = files.sh(ctx, op, REMOVE, { path })
  return result and true, err
end

---Whether the bytes look like something else than text.
---@param bytes string the beginning of a file
---@return boolean
function files.is_binary(bytes)
  return bytes:sub(1, 8192):find("\0", 1, true) ~= nil
end

---Cuts a line to at most max bytes, not in the middle of a UTF-8 character.
---@param line string
---@param max integer
---@return string line
---@return boolean was_cut
function files.clip(line, max)
  if #line <= max then
    return line, false
  end
  local stop = max
  while stop > 0 do
    local byte = line:byte(stop + 1)
    if byte < 0x80 or byte >= 0xC0 then
      break
    end
    stop = stop - 1
  end
  return line:sub(1, stop) .. "... [truncated]", true
end

return files

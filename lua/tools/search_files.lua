-- SPDX-License-Identifier: MIT
-- Search by content or by name, with find, sort, xargs and grep of the environment.

local errors = require("farcall.errors")
local files = require("farcall.files")
local json = require("farcall.core.json")
local text = require("farcall.core.text")

local MAX_LINE = 1000
local MAX_OUTPUT = 8 * 1024 * 1024
local TIMEOUT = 60

-- $1 where to begin, $2 -name or -path, $3 glob: names of files, sorted, each ended by NUL.
-- "$1/." keeps a starting directory called .git from being pruned, and follows a link to it.
local LIST = [[
if [ ! -e "$1" ]; then
  d=${1%/*}
  if [ -d "${d:-/}" ] && [ ! -x "${d:-/}" ]; then exit 43; fi
  exit 41
fi
if [ ! -r "$1" ]; then exit 43; fi
list() {
  if [ -d "$1" ]; then set -- "$1/." "$2" "$3"; fi
  find "$1" -name .git -prune -o -type f "$2" "$3" -print0 | sort -z
}
]]

local BY_NAME = LIST .. [[list "$1" "$2" "$3"]]

-- $4 mode, $5 pattern, $6 lines of output at most, $7 context or "". A grep that knows -Z says
-- which file a line is from beyond doubt; for one that does not (busybox) each file is taken by
-- itself, and its output stands between NULs.
local BY_CONTENT = LIST .. [[
echo | grep -qE -e "$5"
if [ $? -gt 1 ]; then exit 40; fi
if echo x | grep -qIZ x 2> /dev/null; then
  echo direct
  case $4 in
  content)
    list "$1" "$2" "$3" | xargs -0 grep -nHZIsE ${7:+-C "$7"} -e "$5" -- /dev/null | head -n "$6" ;;
  files_only)
    list "$1" "$2" "$3" | xargs -0 grep -lZIsE -e "$5" -- /dev/null ;;
  count)
    list "$1" "$2" "$3" | xargs -0 grep -lZIsE -e "$5" -- /dev/null |
      xargs -0 grep -cHZIsE -e "$5" -- /dev/null ;;
  esac
  exit 0
fi
echo apart
list "$1" "$2" "$3" | xargs -0 grep -lsE -e "$5" -- /dev/null | while IFS= read -r f; do
  if [ "$(head -c 8192 "$f" | wc -c)" -ne "$(head -c 8192 "$f" | tr -d '\000' | wc -c)" ]; then
    continue
  fi
  printf '%s\0' "$f"
  case $4 in
  content)
    grep -nE ${7:+-C "$7"} -e "$5" -- "$f"
    printf '\0' ;;
  count) grep -cE -e "$5" -- "$f" ;;
  esac
done | if [ "$4" = content ]; then head -n "$6"; else cat; fi
exit 0
]]

local function clean(bytes)
  return (text.clean(bytes, { escapes = false, utf8 = true, secrets = false }))
end

-- What was found is told in the words of whoever asked: "src" finds "src/a.c", "/x" finds "/x/a.c".
local function namer(asked, base)
  local prefix = asked:gsub("/+$", "") .. "/"
  if asked == "." or asked == "./" then
    prefix = ""
  end
  return function(found)
    local inside = found:sub(#base + 1):match("^/%.?/?(.*)$")
    return inside and clean(prefix .. inside) or clean(asked)
  end
end

---@return string test -name or -path
---@return string glob
local function glob_test(glob)
  if not glob then
    return "-name", "*"
  elseif glob:find("/", 1, true) then
    return "-path", "*/" .. glob:gsub("^%*%*/", ""):gsub("^%./", ""):gsub("^/+", "")
  end
  return "-name", glob
end

---A page of a list, with how many there are.
local function page(list, args)
  local part = {}
  for i = args.offset + 1, math.min(#list, args.offset + args.limit) do
    part[#part + 1] = list[i]
  end
  return json.array(part)
end

local function by_nul(bytes, name)
  local list = {}
  for path in bytes:gmatch("([^%z]+)%z") do
    list[#list + 1] = name(path)
  end
  return list
end

local function names_reply(result, args, list)
  return {
    total_count = #list, files = page(list, args),
    truncated = #list > args.offset + args.limit or result.truncated or false,
  }
end

-- One line of grep's with its number: "12:text" is a match, "12-text" is context.
local function numbered(line)
  local number, mark, content = line:match("^(%d+)([:-])(.*)$")
  if not number then
    return nil
  end
  return { line = tonumber(number), is_match = mark == ":", content = content }
end

---Lines of `grep -nHZ`: "path NUL 12:text".
local function direct_lines(bytes, at, each)
  while at <= #bytes do
    if bytes:sub(at, at + 2) == "--\n" then
      at = at + 3
    end
    local nul = bytes:find("\0", at, true)
    local stop = nul and bytes:find("\n", nul, true)
    if not stop then
      return
    end
    each(bytes:sub(at, nul - 1), bytes:sub(nul + 1, stop - 1))
    at = stop + 1
  end
end

---Bodies of `grep -n` between NULs, each after its path. A body that was cut off counts as far as
---its lines are whole.
local function apart_lines(bytes, at, each)
  while at <= #bytes do
    local nul = bytes:find("\0", at, true)
    if not nul then
      return
    end
    local path = bytes:sub(at, nul - 1)
    local stop = bytes:find("\0", nul + 1, true) or #bytes + 1
    for line in bytes:sub(nul + 1, stop - 1):gmatch("([^\n]*)\n") do
      each(path, line)
    end
    at = stop + 1
  end
end

---Lines of context around the match at index i, in the same file.
local function around(lines, i, context)
  local before, after = {}, {}
  local own = lines[i]
  for j = i - 1, math.max(1, i - context), -1 do
    if lines[j].path ~= own.path or lines[j].line < own.line - context then
      break
    end
    table.insert(before, 1, (clean(files.clip(lines[j].content, MAX_LINE))))
  end
  for j = i + 1, math.min(#lines, i + context) do
    if lines[j].path ~= own.path or lines[j].line > own.line + context then
      break
    end
    after[#after + 1] = clean(files.clip(lines[j].content, MAX_LINE))
  end
  return json.array(before), json.array(after)
end

local function matches_reply(result, args, name, at, max_lines)
  local lines, shown = {}, 0
  local read = result.stdout:sub(1, 6) == "direct" and direct_lines or apart_lines
  read(result.stdout, at, function(path, line)
    shown = shown + 1
    local entry = numbered(line)
    if entry then
      entry.path = path
      lines[#lines + 1] = entry
    end
  end)
  local found, count = {}, 0
  for i, entry in ipairs(lines) do
    if entry.is_match then
      count = count + 1
      if count > args.offset and count <= args.offset + args.limit then
        local match = {
          path = name(entry.path), line = entry.line,
          content = clean(files.clip(entry.content, MAX_LINE)),
        }
        if args.context > 0 then
          match.before, match.after = around(lines, i, args.context)
        end
        found[#found + 1] = match
      end
    end
  end
  return {
    total_count = count, matches = json.array(found),
    truncated = count > args.offset + args.limit or shown >= max_lines or result.truncated or false,
  }
end

local function counts_reply(result, args, name, at)
  local list = {}
  for path, count in result.stdout:sub(at):gmatch("([^%z]+)%z(%d+)\n") do
    list[#list + 1] = { path = name(path), count = tonumber(count) }
  end
  local counts, total = json.object({}), 0
  for i, entry in ipairs(list) do
    total = total + entry.count
    if i > args.offset and i <= args.offset + args.limit then
      counts[entry.path] = entry.count
    end
  end
  return {
    total_count = total, counts = counts,
    truncated = #list > args.offset + args.limit or result.truncated or false,
  }
end

---@async
local function by_name(args, ctx, op, base)
  local test, glob = glob_test(args.pattern)
  local result, err = files.sh(ctx, op, BY_NAME, { base, test, glob },
    { max_output = MAX_OUTPUT, timeout = TIMEOUT })
  if not result then
    return nil, err
  end
  return names_reply(result, args, by_nul(result.stdout, namer(args.path, base)))
end

---@async
local function by_content(args, ctx, op, base)
  local test, glob = glob_test(args.file_glob)
  local matches = args.offset + args.limit + 1
  local max_lines = args.context == 0 and matches or matches * (2 * args.context + 2)
  local context = args.context > 0 and args.context or ""
  local result, err = files.sh(ctx, op, BY_CONTENT,
    { base, test, glob, args.output_mode, args.pattern, max_lines, context },
    { max_output = MAX_OUTPUT, timeout = TIMEOUT, accept = { [40] = true } })
  if not result then
    return nil, err
  end
  if result.exit_code == 40 then
    local said = result.stderr:gsub("%s+$", ""):match("[^\n]*$"):gsub("^%S*grep: *", "")
    return nil, errors.new("usage", op, "not an extended regular expression: " .. said)
  end
  local at = (result.stdout:find("\n", 1, true) or 0) + 1
  local name = namer(args.path, base)
  if args.output_mode == "files_only" then
    return names_reply(result, args, by_nul(result.stdout:sub(at), name))
  elseif args.output_mode == "count" then
    return counts_reply(result, args, name, at)
  end
  return matches_reply(result, args, name, at, max_lines)
end

---@async
local function handler(args, ctx)
  local op = "search_files"
  for _, field in ipairs({ "pattern", "file_glob" }) do
    if args[field] and args[field]:find("\0", 1, true) then
      return nil, errors.new("usage", op, field .. " holds a NUL byte")
    end
  end
  local base, err = files.resolve(ctx, op, args.path)
  if not base then
    return nil, err
  end
  if base ~= "/" then
    base = base:gsub("/+$", "")
  end
  if args.target == "files" then
    return by_name(args, ctx, op, base)
  end
  return by_content(args, ctx, op, base)
end

return {
  name = "search_files",
  summary = "Search files in the script's environment by content or by name.",
  description = [[
target "content": pattern is an extended regular expression (grep -E, bytes). Returns by
output_mode "content" {"matches": [{"path", "line", "content"}], ...}, with "before" and "after"
(lists of lines) when context > 0; "files_only" {"files": [path], ...}; "count" {"counts": {path:
lines}, ...}.
target "files": pattern is a shell glob for the name ("*.py"), or for the end of the path when it
has a slash. Returns {"files": [path], ...}.
All have "total_count" and "truncated": when truncated, there is more after offset + limit, and
total_count of matches counts only what was looked at. Paths are in order of their names and
relative as path was. .git directories, binary files and unreadable files are left out; a line is
cut after 1000 bytes. No match is no error; a wrong expression or a missing path is.]],
  parameters = {
    type = "object",
    properties = {
      pattern = { type = "string", minLength = 1, description = "what to look for" },
      target = {
        type = "string", enum = { "content", "files" }, default = "content",
        description = "search in files, or for files",
      },
      path = {
        type = "string", minLength = 1, default = ".", description = "directory or file to search",
      },
      file_glob = {
        type = "string", minLength = 1, description = "only files with such names, e.g. *.c",
      },
      limit = {
        type = "integer", minimum = 1, maximum = 10000, default = 50,
        description = "so many results at most",
      },
      offset = {
        type = "integer", minimum = 0, maximum = 1000000, default = 0,
        description = "results to skip",
      },
      output_mode = {
        type = "string", enum = { "content", "files_only", "count" }, default = "content",
        description = "what to tell of the files that match",
      },
      context = {
        type = "integer", minimum = 0, maximum = 50, default = 0,
        description = "lines around each match",
      },
    },
    required = { "pattern" },
    additionalProperties = false,
  },
  order = {
    "pattern", "target", "path", "file_glob", "limit", "offset", "output_mode", "context",
  },
  returns = "dict",
  idempotent = true,
  handler = handler,
}

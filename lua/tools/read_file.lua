-- SPDX-License-Identifier: MIT
-- A page of lines of a text file.

local errors = require("farcall.errors")
local files = require("farcall.files")
local text = require("farcall.core.text")

-- A file up to this size is fetched as a whole and cut into lines here; of a larger one the
-- environment's own programs cut the page out.
local WINDOW = 256 * 1024
local MAX_LINE = 2000
local MAX_PAGE = 4 * 1024 * 1024

-- $1 path, $2 first line, $3 lines, $4 bytes of a line, $5 bytes in all. The first line of its
-- output is "newlines bytes", the second whether the last byte is a newline.
local PAGE = [[
wc -lc < "$1" || exit 43
tail -c 1 "$1" | wc -l
tail -n "+$2" "$1" | head -n "$3" | cut -b "1-$4" | head -c "$5"
]]

local function split(bytes, first, limit)
  local lines, number, at = {}, 0, 1
  while at <= #bytes do
    local stop = bytes:find("\n", at, true)
    number = number + 1
    if number >= first and #lines < limit then
      lines[#lines + 1] = bytes:sub(at, (stop or #bytes + 1) - 1)
    end
    if not stop then
      return lines, number, false
    end
    at = stop + 1
  end
  return lines, number, true
end

---@return table page {lines, total_lines, file_size, final_newline}
local function whole(bytes, args)
  local lines, total, final_newline = split(bytes, args.offset, args.limit)
  return { lines = lines, total_lines = total, file_size = #bytes, final_newline = final_newline }
end

---@async
local function paged(ctx, op, path, args)
  local result, err = files.sh(ctx, op, PAGE,
    { path, args.offset, args.limit, MAX_LINE + 4, MAX_PAGE }, { max_output = MAX_PAGE + 256 })
  if not result then
    return nil, err
  end
  local newlines, size, final, at = result.stdout:match("^%s*(%d+)%s+(%d+)%s*\n%s*(%d+)%s*\n()")
  if not at then
    return nil, errors.new("protocol", op, "wc in this environment says something unexpected")
  end
  local bytes = result.stdout:sub(at)
  local lines = split(bytes, 1, args.limit)
  if #bytes >= MAX_PAGE and #lines > 1 then
    -- The page was cut in the middle of a line: that line is the next page's first.
    lines[#lines] = nil
  end
  return {
    lines = lines, file_size = tonumber(size), final_newline = final == "1",
    total_lines = tonumber(newlines) + (final == "1" and 0 or 1),
  }
end

local function report(page, args)
  local lines, cut = page.lines, 0
  for i, line in ipairs(lines) do
    local was_cut
    lines[i], was_cut = files.clip(line, MAX_LINE)
    cut = cut + (was_cut and 1 or 0)
    if args.numbered then
      lines[i] = ("%d|%s"):format(args.offset + i - 1, lines[i])
    end
  end
  local last = args.offset + #lines - 1
  local content = table.concat(lines, "\n")
  if not args.numbered and #lines > 0 and (last < page.total_lines or page.final_newline) then
    content = content .. "\n"
  end
  local clean, counts = text.clean(content, { escapes = false, utf8 = true, secrets = false })
  local reply = {
    content = clean, total_lines = page.total_lines, file_size = page.file_size,
    truncated = last < page.total_lines and #lines > 0,
  }
  if reply.truncated then
    reply.next_offset = last + 1
  end
  if cut > 0 then
    reply.lines_cut = cut
  end
  if clean ~= content and counts then
    reply.lossy = true
  end
  return reply
end

---@async
local function handler(args, ctx)
  local op = "read_file " .. args.path
  local path, err = files.resolve(ctx, op, args.path)
  if not path then
    return nil, err
  end
  local bytes
  bytes, err = files.read(ctx, op, path, { max = WINDOW + 1 })
  if not bytes then
    return nil, err
  end
  if files.is_binary(bytes) then
    return nil, errors.new("unsupported", op, "a binary file cannot be read as text",
      { hint = "use terminal, or open it in the script itself" })
  end
  if #bytes <= WINDOW then
    return report(whole(bytes, args), args)
  end
  local page
  page, err = paged(ctx, op, path, args)
  if not page then
    return nil, err
  end
  return report(page, args)
end

return {
  name = "read_file",
  summary = "Read lines of a text file in the script's environment.",
  description = [[
Returns {"content": text of the lines, "total_lines": int, "file_size": bytes, "truncated": bool}.
While lines follow the page "truncated" is true and "next_offset" is where they begin. A line is cut
after 2000 bytes and then ends in "... [truncated]"; "lines_cut" counts such lines. Bytes that are
not UTF-8 are replaced and "lossy" is true. A page has at most 4 MiB. A missing file, a directory, a
device and a binary file (one with a NUL byte near its beginning) are errors.]],
  parameters = {
    type = "object",
    properties = {
      path = { type = "string", minLength = 1, description = "relative to the run's directory" },
      offset = {
        type = "integer", minimum = 1, default = 1, description = "the first line, counted from 1",
      },
      limit = {
        type = "integer", minimum = 1, maximum = 100000, default = 500,
        description = "so many lines at most",
      },
      numbered = {
        type = "boolean", default = false,
        description = "put its number and a bar before each line",
      },
    },
    required = { "path" },
    additionalProperties = false,
  },
  order = { "path", "offset", "limit", "numbered" },
  returns = "dict",
  idempotent = true,
  handler = handler,
}

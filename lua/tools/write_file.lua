-- SPDX-License-Identifier: MIT
-- A whole file, written at once.

local files = require("farcall.files")

---@async
local function handler(args, ctx)
  local op = "write_file " .. args.path
  local path, err = files.resolve(ctx, op, args.path)
  if not path then
    return nil, err
  end
  local written
  written, err = files.write(ctx, op, path, args.content)
  if not written then
    return nil, err
  end
  return {
    bytes_written = #args.content, path = path, created = written.created,
    dirs_created = written.dirs_created,
  }
end

return {
  name = "write_file",
  summary = "Write a text file in the script's environment, replacing what was there.",
  description = [[
Missing directories are made. The file is written beside and renamed into place: nobody sees half of
it. An existing file keeps its mode, and a symbolic link stays one.
Returns {"bytes_written": int, "path": absolute path, "created": bool, "dirs_created": bool}.]],
  parameters = {
    type = "object",
    properties = {
      path = { type = "string", minLength = 1, description = "relative to the run's directory" },
      content = { type = "string", description = "the whole new text" },
    },
    required = { "path", "content" },
    additionalProperties = false,
  },
  order = { "path", "content" },
  returns = "dict",
  idempotent = true,
  handler = handler,
}

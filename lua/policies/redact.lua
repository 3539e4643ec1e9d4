-- SPDX-License-Identifier: MIT
-- Masks secrets in what tools reply and in the run's result:
--   policy "redact" { words = { "project-falcon" }, patterns = { "%d%d%d%-%d%d%-%d%d%d%d" } }
-- farcall's own scanner (keys, tokens, passwords) is behind ctx.redact. Names of fields are left as
-- they are, and so is what the script prints into the spill file, which knows the scanner only.

local MASK = "[redacted]"

local function mask(text, ctx)
  local options = ctx.options
  if options.secrets then
    text = ctx.redact(text)
  end
  for _, word in ipairs(options.words or {}) do
    text = text:gsub((word:gsub("%W", "%%%0")), MASK)
  end
  for _, pattern in ipairs(options.patterns or {}) do
    text = text:gsub(pattern, MASK)
  end
  return text
end

local function masked(value, ctx)
  if type(value) == "string" then
    return mask(value, ctx)
  end
  if type(value) == "table" then
    for key, part in pairs(value) do
      value[key] = masked(part, ctx)
    end
  end
  return value
end

return {
  name = "redact",
  summary = "masks secrets, words and patterns in replies and in the result",
  options = {
    secrets = { type = "boolean", default = true, doc = "what looks like a key or token" },
    words = { type = "list", doc = "texts to mask as they are" },
    patterns = { type = "list", doc = "Lua patterns to mask" },
  },
  after = function(_, reply, ctx)
    reply.result = masked(reply.result, ctx)
    reply.error = masked(reply.error, ctx)
    return reply
  end,
  finish = function(result, ctx)
    for _, field in ipairs({ "output", "stderr", "error", "calls" }) do
      result[field] = masked(result[field], ctx)
    end
    return result
  end,
}

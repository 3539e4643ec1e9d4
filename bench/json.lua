-- SPDX-License-Identifier: MIT
-- The codec and the schema check beside lua-cjson: what one tool call costs, and large documents.
-- Medians of rounds that alternate between the two, and their ratio (below 1: farcall is faster).
-- Usage: farcall.so and the Lua tree on the path, luajit bench/json.lua

local cjson = require("cjson").new()
local json = require("farcall.core.json")
local schema = require("farcall.schema")
local system = require("farcall.core.system")

local ROUNDS = 15

local function median(list)
  table.sort(list)
  return list[math.floor(#list / 2) + 1]
end

-- Nanoseconds of one call of fn, over so many.
local function timed(fn, value, count)
  local began = os.clock()
  for _ = 1, count do
    fn(value)
  end
  return (os.clock() - began) / count * 1e9
end

local function compare(name, value, count, own, other)
  local mine, theirs = {}, {}
  timed(own, value, count)
  timed(other, value, count)
  for round = 1, ROUNDS do
    mine[round] = timed(own, value, count)
    theirs[round] = timed(other, value, count)
  end
  local a, b = median(mine), median(theirs)
  print(("%-34s %12.0f ns %12.0f ns %8.2f"):format(name, a, b, a / b))
end

local call = '{"id":17,"tool":"read_file","args":{"path":"src/main.py","offset":1,"limit":500},'
  .. '"token":"' .. ("0123456789abcdef"):rep(4) .. '"}'
local reply = '{"id":17,"result":{"output":"total 12\\ndrwxr-xr-x 2 me me 4096\\n","exit_code":0,'
  .. '"duration":0.25}}'

local rows = {}
for i = 1, 2000 do
  rows[i] = {
    name = "file_" .. i, size = i * 37, ratio = i / 7, tags = { "a", "b" }, ok = i % 2 == 0,
  }
end
local table_text = cjson.encode(rows)
local text = json.encode({ ("A line of plain text, as a file holds it.\n"):rep(25000) })
local foreign = json.encode({ ("Überall stehen Wörter, 文字, ещё буквы.\n"):rep(20000) })

print(("%-34s %15s %15s %8s"):format("", "farcall", "lua-cjson", "ratio"))
compare(("decode a call of %d bytes"):format(#call), call, 50000, json.decode, cjson.decode)
compare(("encode a call of %d bytes"):format(#call), json.decode(call), 50000, json.encode,
  cjson.encode)
compare(("decode a reply of %d bytes"):format(#reply), reply, 50000, json.decode, cjson.decode)
compare(("encode a reply of %d bytes"):format(#reply), json.decode(reply), 50000, json.encode,
  cjson.encode)
compare(("decode %d rows, %d KB"):format(#rows, #table_text / 1024), table_text, 5, json.decode,
  cjson.decode)
compare(("encode %d rows"):format(#rows), rows, 5, json.encode, cjson.encode)
compare(("decode %d KB of text"):format(#text / 1024), text, 20, json.decode, cjson.decode)
compare(("encode %d KB of text"):format(#text / 1024), json.decode(text), 20, json.encode,
  cjson.encode)
compare(("decode %d KB of other letters"):format(#foreign / 1024), foreign, 20, json.decode,
  cjson.decode)
compare(("encode %d KB of other letters"):format(#foreign / 1024), json.decode(foreign), 20,
  json.encode, cjson.encode)

local validator = assert(schema.compile({
  type = "object", required = { "path" }, additionalProperties = false,
  properties = {
    path = { type = "string", minLength = 1 }, limit = { type = "integer", minimum = 1 },
  },
}))
local arguments = json.decode('{"path":"src/main.py","limit":500}')
local rounds = {}
for round = 1, ROUNDS do
  rounds[round] = timed(validator, arguments, 100000)
end
print(("%-34s %12.0f ns"):format("check two arguments", median(rounds)))
print(("resident: %d MB"):format(system.rss_bytes() / 2 ^ 20))

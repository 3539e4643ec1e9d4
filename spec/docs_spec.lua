-- SPDX-License-Identifier: MIT
-- Every example of docs/scripting.md is written to its file and run.

local build = require("spec.support.build")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")
local system = require("farcall.core.system")

local function examples()
  local dir = helper.scratch()
  local text = helper.read("docs/scripting.md")
  local count = 0
  for path, code in text:gmatch("<!%-%- file: (%S+) %-%->\n```lua\n(.-)```") do
    local folder = path:match("^(.*)/")
    if folder then
      fs.mkdir(dir .. "/" .. folder, 448, true)
    end
    helper.write(dir .. "/" .. path, code)
    count = count + 1
  end
  assert.is_true(count >= 5)
  return dir
end

-- Runs the program in dir; returns what it printed and its exit code.
local function farcall(dir, arguments)
  local program = build.dir:sub(1, 1) == "/" and build.dir or system.cwd() .. "/" .. build.dir
  local command = "cd %s && HOME=%s XDG_STATE_HOME=%s/state XDG_RUNTIME_DIR=%s %s/farcall %s 2>&1;"
    .. " echo $?"
  local pipe = assert(io.popen(command:format(dir, dir, dir, dir, program, arguments)))
  local text, code = pipe:read("*a"):match("^(.-)(%d+)\n$")
  pipe:close()
  return text, tonumber(code)
end

-- Where one page sends the reader, a page is, and the place in it.
describe("the docs", function()
  -- Written by whoever writes what they are about.
  local TO_COME = { ["docs/batch.md"] = true }

  local function pages()
    local list = {}
    local pipe = assert(io.popen("ls *.md docs/*.md docs/backends/*.md"))
    for path in pipe:lines() do
      list[#list + 1] = path
    end
    pipe:close()
    return list
  end

  local function anchors_of(text)
    local anchors = {}
    for title in ("\n" .. text):gmatch("\n#+ ([^\n]+)") do
      anchors[(title:lower():gsub("[^%w%- ]", ""):gsub(" ", "-"))] = true
    end
    return anchors
  end

  it("lead to pages and places that are there", function()
    for _, page in ipairs(pages()) do
      for target in helper.read(page):gmatch("%]%(([^)%s]+)%)") do
        local path, anchor = target:match("^([^#]*)#?(.*)$")
        if not path:find("^%a+:") then
          local full = path == "" and page or (page:match("^(.*/)") or "") .. path
          full = full:gsub("[^/]+/%.%./", "")
          assert.is_truthy(TO_COME[full] or fs.stat(full), page .. " leads to " .. full)
          assert.is_truthy(anchor == "" or TO_COME[full]
            or anchors_of(helper.read(full))[anchor], page .. " leads to " .. target)
        end
      end
    end
  end)
end)

describe("docs/scripting.md", function()
  it("has a configuration that passes the check", function()
    local text, code = farcall(examples(), "check -C farcall.lua")
    assert.equal(0, code, text)
  end)

  it("has tools and a host command that scripts can call", function()
    local dir = examples()
    helper.write(dir .. "/x.py", [[
from farcall import disk_free, weather, word_count
print(word_count(text="one two three"))
print(weather(place="Oslo"))
print(disk_free(path="/")["total_kb"] > 0)
]])
    local text, code = farcall(dir, "run -C farcall.lua x.py")
    assert.equal("{'words': 3}\n{'sky': 'clear over Oslo'}\nTrue\n", text)
    assert.equal(0, code)
  end)

  it("has a policy that refuses outside its hours", function()
    local dir = examples()
    helper.write(dir .. "/x.py", "from farcall import terminal\nterminal('true')\nprint('ok')")
    local text, code = farcall(dir, "run -C farcall.lua x.py")
    assert.equal("ok\n", text)
    assert.equal(0, code)
    helper.write(dir .. "/y.py", "from farcall import write_file\nwrite_file('f', 'x')")
    text = farcall(dir, "run -C farcall.lua --policy office_hours:from=0,to=0 y.py")
    assert.matches("cannot import name 'write_file'", text)
    helper.write(dir .. "/open.lua", (helper.read(dir .. "/farcall.lua"):gsub('"terminal", ',
      '"terminal", "write_file", ')))
    text = farcall(dir, "run -C open.lua --policy office_hours:from=0,to=0 y.py")
    assert.matches("files are written from 0 to 0", text)
  end)

  it("has a backend that runs scripts at low priority", function()
    local text, code = farcall(examples(),
      "run -C farcall.lua -b scratch -c 'import os; print(os.nice(0))'")
    assert.equal(helper.niceness(10) .. "\n", text)
    assert.equal(0, code)
  end)

  it("has a stub template that is used by a file's extension", function()
    local dir = examples()
    helper.write(dir .. "/x.dash", "cat \"$FARCALL_RUN_DIR/tools.txt\"")
    local text, code = farcall(dir, "run -C farcall.lua x.dash")
    assert.matches("disk_free\nread_file\nterminal\nweather\nword_count\n", text)
    assert.equal(0, code)
  end)

  it("has scripts in other languages that run as they are", function()
    local dir = helper.scratch()
    local text = helper.read("docs/scripting.md")
    local said = {
      ["totals.js"] = "a 1\ntrue not_found\ntrue\n",
      ["totals.lua"] = "2\t1\nfalse\tnot_found\na\nb\n\n",
    }
    local count = 0
    for name, code in text:gmatch("<!%-%- script: (%S+) %-%->\n```%l+\n(.-)```") do
      helper.write(dir .. "/" .. name, code)
      local printed, status = farcall(dir, "run " .. name)
      assert.equal(said[name], printed)
      assert.equal(0, status)
      count = count + 1
    end
    assert.equal(2, count)
  end)

  it("says in --json what is there", function()
    local text = farcall(examples(), "tools -C farcall.lua --json")
    local listed = assert(json.decode((text:gsub("%s+$", ""))))
    assert.is_truthy(listed)
  end)
end)

-- SPDX-License-Identifier: MIT
local catalog = require("farcall.catalog")
local helper = require("spec.helper")

local BACKEND = [[
return { name = "NAME", summary = "s", api = 1, caps = {},
  options = {
    size = { type = "integer", default = 3, doc = "d" }, host = { type = "string", doc = "d" },
  },
  check = function(options) return options.size < 10, "size must be below 10" end,
  open = function() end }]]

local function settings(fields)
  local cfg = {
    backends = {}, policies = {}, tools = {}, enabled_tools = { "terminal" }, backend_path = {},
    policy_path = {}, tool_path = {}, stub_path = {}, origins = {}, limits = {},
  }
  for name, value in pairs(fields or {}) do
    cfg[name] = value
  end
  return cfg
end

local function new(fields)
  return catalog.new(settings(fields))
end

local function names(rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = row.name
  end
  return list
end

describe("catalog", function()
  it("lists what is built in", function()
    local all = new()
    assert.same({ "patch", "read_file", "search_files", "terminal", "write_file" },
      names(all:list("tool")))
    for _, kind in ipairs({ "backend", "policy", "tool", "stub" }) do
      local rows = all:list(kind)
      assert.is_true(#rows > 0)
      for _, row in ipairs(rows) do
        assert.is_nil(row.error)
        assert.is_string(row.summary)
        assert.is_true(row.built_in)
        assert.is_string(row.path)
      end
    end
    assert.same({}, all:check())
  end)

  it("says of each option what it is", function()
    local row = assert(new():describe("backend", "local"))
    for name, decl in pairs(row.options) do
      assert.is_string(decl.type, name)
      assert.is_string(decl.doc, name)
    end
    assert.equal("object", assert(new():describe("tool", "terminal")).parameters.type)
    local _, err = new():describe("policy", "bugdet")
    assert.equal("not_found", err.kind)
    assert.matches("did you mean budget?", tostring(err), 1, true)
  end)

  it("lists a file with a mistake too, with what is wrong", function()
    local dir = helper.scratch()
    helper.write(dir .. "/broken.lua", "return {\n  oops oops }")
    for kind, field in pairs({
      backend = "backend_path", policy = "policy_path", tool = "tool_path", stub = "stub_path",
    }) do
      local all = new({ [field] = { dir } })
      local row = assert(all:describe(kind, "broken"))
      assert.matches(dir .. "/broken.lua:2: ", row.error, 1, true)
      assert.is_false(row.built_in)
      local problems = all:check()
      assert.equal(1, #problems)
      assert.equal(dir .. "/broken.lua", problems[1].where)
    end
  end)

  it("lists the tools of a configuration beside the files", function()
    local all = new({ tools = {
      mine = { summary = "s", parameters = { type = "object" }, origin = "conf.lua:3",
        handler = function() end },
    } })
    local row = assert(all:describe("tool", "mine"))
    assert.equal("conf.lua:3", row.origin)
    assert.is_nil(row.error)
  end)

  it("puts a backend's options together: defaults, configuration, job", function()
    local dir = helper.scratch()
    helper.write(dir .. "/base.lua", (BACKEND:gsub("NAME", "base")))
    local all = new({
      backend_path = { dir }, default_backend = "box",
      backends = { box = { use = "base", options = { host = "h" }, origin = "conf.lua:1" } },
    })
    assert.same({ size = 3, host = "h" }, assert(all:backend()).options)
    assert.same({ size = 5, host = "h" }, assert(all:backend("box", { size = "5" })).options)
    assert.equal("box", all:backend().name)
    assert.same({ size = 3 }, assert(all:backend("base")).options)
    local where, err = all:backend("box", { size = 11 })
    assert.is_nil(where)
    assert.matches("size must be below 10", tostring(err), 1, true)
    err = select(2, all:backend("box", { sise = 1 }))
    assert.matches("did you mean size", tostring(err), 1, true)
    err = select(2, all:backend("bass"))
    assert.matches("did you mean base", tostring(err), 1, true)
  end)

  it("never falls back to another backend", function()
    local all = new({ default_backend = "gone" })
    local where, err = all:backend()
    assert.is_nil(where)
    assert.equal("not_found", err.kind)
    assert.equal(1, #all:check())
  end)

  it("loads a backend file once", function()
    local dir = helper.scratch()
    helper.write(dir .. "/base.lua", (BACKEND:gsub("NAME", "base")))
    local all = new({ backend_path = { dir } })
    assert.equal(all:load_backend("base"), all:load_backend("base"))
  end)

  it("chooses the stub template by language, extension, else Python", function()
    local dir = helper.scratch()
    helper.write(dir .. "/other.lua", [[return { language = "other", extensions = { "ot" },
      interpreter = { "x" }, render = function() end }]])
    local all = new({ stub_path = { dir } })
    assert.equal("python", all:template({}).language)
    assert.equal("python", all:template({ filename = "a.py" }).language)
    assert.equal("other", all:template({ filename = "dir.d/a.ot" }).language)
    assert.equal("other", all:template({ filename = "a.py", language = "other" }).language)
    local template, err = all:template({ filename = "a.cob" })
    assert.is_nil(template)
    assert.equal("usage", err.kind)
    assert.is_nil((all:template({ language = "cobol" })))
  end)

  it("reads a script's first line where its name does not tell the language", function()
    local dir = helper.scratch()
    helper.write(dir .. "/other.lua", [[return { language = "other", extensions = { "ot" },
      interpreter = { "otter5.2", "/opt/bin/weasel" }, render = function() end }]])
    local all = new({ stub_path = { dir } })
    for line, language in pairs({
      ["#!/usr/bin/python3"] = "python", ["#! /usr/bin/env python3.11 -u"] = "python",
      ["#!/usr/bin/env -S A=1 python"] = "python", ["#!/usr/bin/otter"] = "other",
      ["#!/usr/bin/env weasel"] = "other", ["#!/usr/bin/otter5.1 -x"] = "other",
      ["print('#!/bin/otter')"] = "python",
    }) do
      local template, err = all:template({ filename = "dir.d/script", script = line .. "\nx" })
      assert.equal(language, template and template.language, line .. tostring(err))
    end
    assert.equal("python", all:template({ filename = "a.py", script = "#!/bin/otter" }).language)
    assert.equal("other", all:template({ filename = "a.ot", script = "#!/bin/python" }).language)
    for _, line in ipairs({ "#!/bin/perl", "#!", "#!/usr/bin/env", "#!/usr/bin/env -S A=1" }) do
      local template, err = all:template({ filename = "script", script = line })
      assert.is_nil(template)
      assert.equal("usage", err.kind)
    end
  end)

  it("keeps a template until its file changes", function()
    local path = helper.scratch() .. "/other.lua"
    local text = [[return { language = "other", extensions = { "ot" }, interpreter = { "otter" },
      render = function() return { { name = "a.ot", text = "%d" } } end }]]
    local all = new({ stub_path = { path:match("^(.*)/") } })
    local tools = assert(all:toolset({ "terminal" }))
    assert.equal(tools, all:toolset({ "terminal" }))
    local function rendered()
      return all:stub(assert(all:template({ language = "other", script = "x" })), tools)
    end
    helper.write(path, text:format(1))
    local first = rendered()
    assert.equal("1", first[1].text)
    assert.equal(first, rendered())
    helper.write(path, text:format(2))
    assert.equal("2", rendered()[1].text)
  end)

  it("reads an operator's tool for each run", function()
    local dir = helper.scratch()
    local all = new({ tool_path = { dir } })
    for _, summary in ipairs({ "one", "two" }) do
      helper.write(dir .. "/mine.lua", ([[return { name = "mine", summary = "%s",
        handler = function() end }]]):format(summary))
      assert.equal(summary, assert(all:toolset({ "mine" })):get("mine").summary)
    end
  end)

  it("finds what is wrong with a configuration", function()
    local problems = new({
      enabled_tools = { "terminl" },
      policies = { { name = "budget", options = { max_cals = 1 }, origin = "conf.lua:2" } },
      backends = { b = { use = "local", options = { cwdd = "/" }, origin = "conf.lua:1" } },
      origins = { tools = "conf.lua:3" },
    }):check()
    assert.equal(3, #problems)
    for i, near in ipairs({ "cwd", "max_calls", "terminal" }) do
      assert.equal("conf.lua:" .. i, problems[i].where)
      assert.matches("did you mean " .. near, problems[i].message, 1, true)
    end
  end)
end)

-- SPDX-License-Identifier: MIT
-- A tool's ctx for specs: the local backend's, in a scratch directory, with the programs of this
-- machine or with busybox alone.

local backend = require("farcall.backends.local")
local build = require("spec.support.build")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local oneshot = require("farcall.oneshot")
local task = require("farcall.task")

local far_side = {}

local BUSYBOX = "/bin/busybox"
local APPLETS = [[sh cat head tail wc cut tr grep find sort xargs mkdir mv rm chmod chown stat
  readlink sha256sum printf echo sleep ls seq kill env touch true false]]

---A directory with busybox under the names of its applets, and nothing else.
local function busybox_dir()
  local dir = helper.scratch()
  for applet in APPLETS:gmatch("%S+") do
    os.execute(("ln -s %s %s/%s"):format(BUSYBOX, dir, applet))
  end
  return dir
end

---The kinds of far side that this machine can be.
function far_side.kinds()
  local kinds = { "system" }
  if fs.stat(BUSYBOX) then
    kinds[#kinds + 1] = "busybox"
  end
  return kinds
end

---Runs body(ctx, dir) as a task.
function far_side.with(kind, body)
  task.run(function()
    local dir = helper.scratch()
    local path = kind == "busybox" and busybox_dir() or "/usr/bin:/bin"
    local options = { tree = "auto", grace = 0.3, shell = kind == "busybox" and path .. "/sh"
      or "/bin/sh" }
    local env = assert(backend.open(options, {
      environ = { PATH = path, HOME = dir }, passthrough = {}, runtime_dir = "/tmp",
      supervisor = assert(fs.realpath(build.dir)) .. "/farcall-supervisor",
    }))
    local ctx = { cwd = dir, env = env, count = 0 }
    function ctx.oneshot(spec)
      ctx.count = ctx.count + 1
      local own = { cwd = dir }
      for key, value in pairs(spec) do
        own[key] = value
      end
      return oneshot.run(env, own)
    end
    local ok, failure = pcall(body, ctx, dir)
    env:close()
    if not ok then
      error(failure, 0)
    end
  end)
end

---An `it` for each kind of far side.
function far_side.it(name, body)
  for _, kind in ipairs(far_side.kinds()) do
    require("busted").it(name .. " (" .. kind .. ")", function()
      far_side.with(kind, body)
    end)
  end
end

---Calls a built-in tool with its defaults filled in.
function far_side.call(name, ctx, args)
  local tool = require("farcall.tools." .. name)
  local own = {}
  for key, schema in pairs(tool.parameters.properties) do
    own[key] = schema.default
  end
  for key, value in pairs(args) do
    own[key] = value
  end
  return tool.handler(own, ctx)
end

return far_side

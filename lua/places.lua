-- SPDX-License-Identifier: MIT
-- Where farcall's files are on this machine: configuration, state, sockets, the supervisor. The
-- environment comes from the caller.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local system = require("farcall.core.system")

local places = {}

local MODE_PRIVATE = 448 -- 0700

-- A directory out of a variable: one that is empty or not absolute is as good as not set.
local function directory(environ, name)
  local dir = environ[name]
  return dir and dir:sub(1, 1) == "/" and dir or nil
end

---@param path string
---@return string
function places.absolute(path)
  if path:sub(1, 1) == "/" then
    return path
  end
  return (system.cwd() or ".") .. "/" .. path:gsub("^%./", "")
end

---A path as a file in dir names it; absolute as dir is, without "." in it.
---@param dir string
---@param path string
---@return string
function places.beside(dir, path)
  local joined = path:sub(1, 1) == "/" and path or dir .. "/" .. path
  joined = joined:gsub("//+", "/")
  repeat
    local before = joined
    joined = joined:gsub("/%./", "/")
  until joined == before
  joined = joined:gsub("/%.$", ""):gsub("(.)/$", "%1")
  return joined == "" and "/" or joined
end

-- The directory that holds this file, absolute, with no link resolved.
places.LUA_DIR = places.absolute(debug.getinfo(1, "S").source:match("^@(.*)/places%.lua$") or "lua")

-- For those who have no directory of their own by other means; checked before it is used.
local function in_tmp()
  return ("/tmp/farcall-%d"):format(system.uid())
end

local function is_private(path)
  local stat = fs.stat(path, true)
  return stat and stat.type == "directory" and stat.uid == system.uid() and stat.mode % 64 == 0
end

---The system's configuration file and the user's, whether they are there or not.
---@param environ table<string, string>
---@return string[]
function places.config_files(environ)
  local files = { "/etc/farcall/config.lua" }
  local home = directory(environ, "HOME")
  local dir = directory(environ, "XDG_CONFIG_HOME") or home and home .. "/.config"
  files[2] = dir and dir .. "/farcall/config.lua"
  return files
end

---The configuration of the current directory; nil where there is none.
---@return string?
function places.config_here()
  local cwd = system.cwd()
  local path = cwd and (cwd == "/" and "" or cwd) .. "/farcall.lua"
  return path and fs.stat(path) and path or nil
end

---Where runs and trust are kept.
---@param environ table<string, string>
---@return string
function places.state_dir(environ)
  if (environ.FARCALL_STATE_DIR or "") ~= "" then
    return places.absolute(environ.FARCALL_STATE_DIR)
  end
  local home = directory(environ, "HOME")
  local dir = directory(environ, "XDG_STATE_HOME") or home and home .. "/.local/state"
  return dir and dir .. "/farcall" or in_tmp() .. "/state"
end

---Where sockets and the files of running scripts are. One in XDG_RUNTIME_DIR counts only when that
---is there and this user's own: it is not after su and sudo.
---@param environ table<string, string>
---@return string
function places.runtime_dir(environ)
  local dir = directory(environ, "XDG_RUNTIME_DIR")
  return dir and is_private(dir) and dir .. "/farcall" or in_tmp()
end

---Makes a directory that only this user can enter. One that somebody else owns or can enter is
---refused.
---@param path string
---@return string?
---@return farcall.Error? err
function places.make_private(path)
  local _, message, code = fs.mkdir(path, MODE_PRIVATE, true)
  if not fs.stat(path, true) then
    return nil, errors.wrap("directory " .. path, message or "it cannot be made", code)
  elseif not is_private(path) then
    return nil, errors.new("config", "directory " .. path,
      "it must be a directory of your own with mode 0700",
      { hint = "mend that, or name another one by FARCALL_RUNTIME_DIR" })
  end
  return path
end

-- The first of these that is beside the program, or where a host program finds it from the Lua
-- tree.
local function companion(names)
  local beside = (system.exe() or ""):match("^(.*)/") or "."
  -- By name: in a build folder the directory itself is a link to the sources.
  local tree = places.LUA_DIR:match("^(.*)/") or "."
  for _, dir in ipairs({ beside, tree .. "/..", tree .. "/../../../bin" }) do
    for _, name in ipairs(names) do
      if fs.stat(dir .. "/" .. name) then
        return dir .. "/" .. name
      end
    end
  end
  return nil
end

---The supervisor is installed beside the program.
---@param environ table<string, string>
---@return string?
function places.supervisor(environ)
  local set = environ.FARCALL_SUPERVISOR or ""
  return set ~= "" and set or companion({ "farcall-supervisor" })
end

---The directory with the programs that go to environments.
---@param environ table<string, string>
---@return string?
function places.runners(environ)
  local set = environ.FARCALL_RUNNERS or ""
  return set ~= "" and set or companion({ "runner", "../lib/farcall/runner" })
end

-- What a processor is called by LuaJIT, and by uname.
local MACHINES = { x64 = "x86_64", arm64 = "aarch64" }

---The static runner for this machine.
---@param dir? string directory with the programs of runners
---@return string? path nil when there is none
function places.runner(dir)
  local machine = MACHINES[jit.arch]
  local path = dir and machine and dir .. "/farcall-runner-" .. machine
  return path and fs.stat(path) and path or nil
end

return places

-- SPDX-License-Identifier: MIT
-- libfarcall through LuaJIT's FFI, declared by its own header: for specs of what a C program sees.

local build = require("spec.support.build")
local ffi = require("ffi")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local libfarcall = {}

local library

-- The header as far as FFI understands it.
local function declarations()
  local text = helper.read("core/farcall.h"):gsub("//[^\n]*", "")
  text = text:gsub("#ifdef __cplusplus.-#endif", ""):gsub("\n#[^\n]*", "\n")
  return (text:gsub("FARCALL_API ", ""))
end

---@return ffi.namespace*
function libfarcall.load()
  if not library then
    ffi.cdef(declarations())
    library = ffi.load(assert(fs.realpath(build.dir .. "/libfarcall.so")))
  end
  return library
end

-- A list of texts that ends with NULL, and what must be kept alive with it. FFI leaves the rest of
-- an array of such a type as it was.
local function texts(list)
  local array = ffi.new("const char *[?]", #list + 1, list)
  array[#list] = nil
  return array, list
end

local function pairs_of(map)
  local list, kept = {}, {}
  for name, value in pairs(map) do
    list[#list + 1] = { name, value }
    kept[#kept + 1] = name
    kept[#kept + 1] = value
  end
  local array = ffi.new("struct farcall_pair[?]", #list + 1, list)
  array[#list] = { nil, nil }
  return array, kept
end

---@class spec.Handle
local Handle = {}
Handle.__index = Handle

---Opens a handle with a home and a configuration of its own.
---@param options? {config?: string, environment?: string[], max_requests?: integer,
---max_running?: integer, lua_tree?: string}
---@return spec.Handle?
---@return string? message
---@return integer? code
function libfarcall.open(options)
  local C = libfarcall.load()
  options = options or {}
  local dir = helper.scratch()
  local config = helper.write(dir .. "/config.lua", options.config or "")
  local environment, kept = texts(options.environment
    or { "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" .. dir, "XDG_RUNTIME_DIR=" .. dir })
  local given = ffi.new("struct farcall_options", {
    config = options.path or config, environment = environment, lua_tree = options.lua_tree,
    max_requests = options.max_requests or 0, max_running = options.max_running or 0,
  })
  local out, message = ffi.new("struct farcall *[1]"), ffi.new("char[1000]")
  local code = C.farcall_open(given, out, message, 1000)
  assert(kept)
  if code ~= C.FARCALL_OK then
    return nil, ffi.string(message), code
  end
  return setmetatable({ C = C, handle = out[0], dir = dir }, Handle)
end

local function submit(self, how, type, fields)
  local all = {}
  local kept = {}
  for name, value in pairs(fields) do
    if name == "argv" or name == "args" or name == "allow" then
      all[name], kept[#kept + 1] = texts(value)
    elseif name == "options" or name == "env" then
      all[name], kept[#kept + 1] = pairs_of(value)
    elseif name == "stdin" then
      kept[#kept + 1] = value
      all.stdin_bytes, all.stdin_size = ffi.cast("const char *", value), #value
    elseif name == "user" then
      all.user = ffi.cast("void *", value)
    else
      all[name] = value
    end
    kept[#kept + 1] = all[name]
  end
  local id = ffi.new("uint64_t[1]")
  local code = how(self.handle, ffi.new(type, all), id)
  -- What was passed may go now.
  assert(kept)
  return code == self.C.FARCALL_OK and id[0] or nil, code
end

---@return ffi.cdata*? id
---@return integer code
function Handle:oneshot(fields)
  return submit(self, self.C.farcall_oneshot, "struct farcall_command", fields)
end

function Handle:shell(fields)
  return submit(self, self.C.farcall_shell, "struct farcall_command", fields)
end

function Handle:run(fields)
  return submit(self, self.C.farcall_run, "struct farcall_job", fields)
end

local function text_of(pointer, size)
  return pointer ~= nil and ffi.string(pointer, size) or nil
end

---The next result as a table; nil and the code when there is none. Waits a minute unless told.
function Handle:wait(timeout_ms)
  local out = ffi.new("struct farcall_result *[1]")
  local code = self.C.farcall_wait(self.handle, timeout_ms or 60000, out)
  if code ~= self.C.FARCALL_OK then
    return nil, code
  end
  local r = out[0]
  local result = {
    id = r.id, user = tonumber(ffi.cast("intptr_t", r.user)), exit_code = r.exit_code,
    signal = r.signal, signal_name = text_of(r.signal_name), out = text_of(r.out, r.out_size),
    err = text_of(r.err, r.err_size), timed_out = r.timed_out, truncated = r.truncated,
    restarted = r.restarted, json = text_of(r.json, r.json_size),
    error_kind = text_of(r.error_kind), error_op = text_of(r.error_op),
    error_text = text_of(r.error_text), error_hint = text_of(r.error_hint),
    error_code = text_of(r.error_code),
  }
  self.C.farcall_result_free(r)
  return result
end

function Handle:cancel(id)
  return self.C.farcall_cancel(self.handle, id)
end

function Handle:stop()
  self.C.farcall_stop(self.handle)
end

function Handle:close()
  self.C.farcall_close(self.handle)
  self.handle = nil
end

---Runs body(handle) and closes whatever happens.
function libfarcall.with(options, body)
  local handle = assert(libfarcall.open(options))
  local ok, failure = pcall(body, handle)
  if handle.handle then
    handle:close()
  end
  if not ok then
    error(failure, 0)
  end
end

return libfarcall

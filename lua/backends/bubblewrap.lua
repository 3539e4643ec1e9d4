-- SPDX-License-Identifier: MIT
-- Sandboxes of Bubblewrap on this machine: its system directories to read, a private /tmp, and
-- nothing else of it. Each exec has a sandbox of its own; those of one environment share /tmp.

local command = require("farcall.clients.command")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local rundir = require("farcall.rundir")

local NO_NAMESPACES = "user namespaces are not permitted here: see docs/backends/bubblewrap.md"
local REFUSALS = {
  { "new namespace", "denied", hint = NO_NAMESPACES },
  { "namespace.*not permitted", "denied", hint = NO_NAMESPACES },
  { "setting up uid map", "denied", hint = NO_NAMESPACES },
  { "can't find source path", "not_found" },
}

-- What programs look for in /etc; the rest of it is the machine's own business.
local ETC = [[alternatives group hosts ld.so.cache ld.so.conf ld.so.conf.d localtime mime.types
  nsswitch.conf os-release passwd protocols resolv.conf services ssl/certs ssl/openssl.cnf
  terminfo]]

---@type farcall.Backend
local backend = {
  name = "bubblewrap",
  summary = "a sandbox on this machine: its programs, a private /tmp, no network",
  api = 1,
  options = {
    program = { type = "string", default = "bwrap", doc = "the program" },
    binds = { type = "list", doc = "directories of this machine to see, as PATH or PATH:rw" },
    network = { type = "boolean", default = false, doc = "the network of this machine" },
    env = { type = "map", doc = "variables to set" },
    cwd = { type = "path", default = "/tmp", doc = "where commands start, inside" },
    grace = { type = "seconds", default = 2, doc = "between TERM and KILL" },
  },
  caps = command.CAPS,
}

local function words(program, options, ctx, tmp)
  local argv = {
    program, "--die-with-parent", "--unshare-user-try", "--unshare-ipc", "--unshare-pid",
    "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL",
    "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/usr", "/usr",
  }
  local function add(...)
    command.add(argv, ...)
  end
  if not options.network then
    add("--unshare-net")
  end
  for _, dir in ipairs({ "/bin", "/sbin", "/lib", "/lib32", "/lib64" }) do
    local target = fs.readlink(dir)
    add(unpack(target and { "--symlink", target, dir } or { "--ro-bind-try", dir, dir }))
  end
  for name in ETC:gmatch("%S+") do
    add("--ro-bind-try", "/etc/" .. name, "/etc/" .. name)
  end
  add("--bind", tmp, "/tmp", "--ro-bind", ctx.supervisor, command.SUPERVISOR)
  for _, bind in ipairs(options.binds or {}) do
    local path = bind:match("^(.*):rw$")
    add(path and "--bind" or "--ro-bind", path or bind, path or bind)
  end
  add("--chdir", "/", "--")
  return argv
end

---@async
---@param options table
---@param ctx farcall.BackendContext
---@return farcall.Env?
---@return farcall.Error? err
function backend.open(options, ctx)
  local program, err = command.find({ options.program }, ctx.environ, "apt-get install bubblewrap")
  if not program then
    return nil, err
  end
  local tmp, msg, code = rundir.create(ctx.runtime_dir, ctx.engine, "sandbox")
  if not tmp then
    return nil, errors.wrap("private /tmp", msg, code)
  end
  local function remove()
    rundir.remove(tmp)
  end
  local variables = command.variables(options, ctx)
  variables.PATH = variables.PATH or "/usr/local/bin:/usr/bin:/bin"
  variables.HOME = variables.HOME or "/tmp"
  local env = command.env({
    name = "bubblewrap", prefix = words(program, options, ctx, tmp), environ = {},
    engine_supervisor = ctx.supervisor, variables = variables, cwd = options.cwd,
    grace = options.grace, refusals = REFUSALS, remove = remove,
  })
  -- What this machine does not permit is told now, and not by the first call.
  local ok, process
  ok, process, err = pcall(env.start, env, { argv = { "true" } })
  if ok and process then
    process:wait()
    return env
  end
  remove()
  if not ok then
    error(process, 0)
  end
  return nil, err
end

return backend

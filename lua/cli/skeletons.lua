-- SPDX-License-Identifier: MIT
-- What `farcall new` writes: one file of each kind that works as it is and says what to change.
-- NAME and PATH stand for what the command line said.

---@class farcall.Skeleton
---@field text string
---@field use string the lines of a configuration that use it
---@field try string a command that shows it at work

---@type table<farcall.PluginKind, farcall.Skeleton>
local skeletons = {}

skeletons.backend = {
  use = 'backend_path { "DIR" }\nbackend "NAME" { niceness = 5 }\ndefault_backend "NAME"',
  try = "farcall exec -b NAME -- nice",
  text = [==[
-- A backend: where scripts and commands run. This one is this machine with every command put behind
-- another program; take ssh, a container or anything else that runs a command in its place.

local this_machine = require("farcall.backends.local")

---@type farcall.Backend
return {
  name = "NAME",
  summary = "this machine, every command behind nice",
  api = 1,

  -- What -o KEY=VALUE and the configuration may set; `farcall backends NAME` shows it. Types are
  -- string, integer, number, boolean, list, map, path, size and seconds; further fields are
  -- required, one_of and secret.
  options = {
    niceness = { type = "integer", default = 10, doc = "from 0 to 19; the higher, the later" },
    cwd = { type = "path", doc = "where commands start" },
  },

  -- Facts about what it can do; what is missing counts as "no". lua/meta/backend.lua lists them.
  caps = this_machine.caps,

  -- Without starting anything: false and a reason when the options make no sense.
  check = function(options)
    if options.niceness < 0 or options.niceness > 19 then
      return false, "niceness must be from 0 to 19"
    end
    return true
  end,

  -- Returns an environment with start (or exec) and close; nil and an error when it cannot.
  open = function(options, ctx)
    local env, err = this_machine.open({
      cwd = options.cwd, shell = "/bin/sh", tree = "auto", grace = 2,
    }, ctx)
    if not env then
      return nil, err
    end
    local start = env.start
    -- spec: argv or command (a line for sh), stdin, env, cwd, timeout.
    function env:start(spec)
      local inner = {}
      for key, value in pairs(spec) do
        inner[key] = value
      end
      inner.argv = { "nice", "-n", tostring(options.niceness) }
      for _, word in ipairs(spec.argv or { "/bin/sh", "-c", spec.command }) do
        table.insert(inner.argv, word)
      end
      inner.command = nil
      return start(self, inner)
    end
    return env
  end,
}
]==],
}

skeletons.policy = {
  use = 'policy "PATH" { hours = { "08", "18" } }',
  try = "farcall run --policy PATH script.py",
  text = [==[
-- A policy: asked before and after each tool call. It runs in a Lua state of its own, without io,
-- os, debug and load. An error in it refuses the call.

---@type farcall.Policy
return {
  name = "NAME",
  summary = "refuses terminal outside of working hours",

  -- What the configuration and --policy NAME:KEY=VALUE may set; it arrives as ctx.options.
  options = {
    hours = { type = "list", default = { "00", "24" }, doc = "first, and one after the last" },
  },

  -- Must return one of allow(), deny(reason), replace(arguments), answer(reply), ask(question),
  -- wait(ms). call: id, tool, arguments, idempotent. ctx: options, run (a table kept for this
  -- run), operator.get(key) and .set(key, value) (kept from run to run), now(), date, random(),
  -- calls_made.
  before = function(call, ctx)
    local first, last = tonumber(ctx.options.hours[1]), tonumber(ctx.options.hours[2])
    if call.tool == "terminal" and (ctx.date.hour < first or ctx.date.hour >= last) then
      return deny("come back in working hours")
    end
    return allow()
  end,

  -- Once for each call that passed: the reply, changed or not. reply: outcome ("done", "failed",
  -- "refused", "unknown"), result or error.
  after = function(call, reply, ctx)
    return reply
  end,
}
]==],
}

skeletons.tool = {
  use = 'tool_path { "DIR" }\n'
    .. 'tools { "NAME", "terminal", "read_file", "write_file", "search_files", "patch" }',
  try = "farcall run -c 'from farcall import NAME; print(NAME(\"world\"))'",
  text = [==[
-- A tool: a function that scripts call and that is carried out here, on the operator's side.

---@type farcall.Tool
return {
  name = "NAME",
  summary = "Greet somebody.",
  description = "Returns {\"greeting\": str}.",

  -- JSON Schema. Arguments that do not fit never reach the handler; defaults are filled in.
  parameters = {
    type = "object",
    properties = {
      who = { type = "string", minLength = 1, description = "the one to greet" },
      shout = { type = "boolean", default = false, description = "in capital letters" },
    },
    required = { "who" },
    additionalProperties = false,
  },
  -- In this order a function takes them by position.
  order = { "who", "shout" },
  returns = "dict",
  -- Doing it twice is the same as doing it once: a policy may then try again.
  idempotent = true,

  -- Returns what JSON can hold, or nil and a message. It waits only by ctx: ctx.oneshot{argv = {}}
  -- and ctx.read_file(path) act where the script runs, ctx.sleep(seconds) lets others go on.
  handler = function(args, ctx)
    local text = "hello, " .. args.who
    ctx.log("greeting " .. args.who)
    return { greeting = args.shout and text:upper() or text }
  end,
}
]==],
}

skeletons.stub = {
  use = 'stub_path { "DIR" }',
  try = "echo 'import farcall; print(farcall.call(\"terminal\", command=\"uptime\"))' > try.NAME"
    .. " && farcall run try.NAME",
  text = [==[
-- A stub template: makes what scripts of one language import to call tools. This one is Python with
-- `from farcall import call` and call(tool, **arguments); it shows all that a language needs.
--
-- A call is one JSON line to the Unix socket $FARCALL_RUN_DIR/socket:
--   {"id": 1, "tool": "terminal", "args": {"command": "uptime"}, "token": text of the file token}
-- and the reply is one line too, with {"id": 1} and "result" or "error": {"kind", "message"}.

local RUNTIME = [[
import json, os, socket

_dir = os.environ["FARCALL_RUN_DIR"]
_token = open(_dir + "/token").read().strip()


def call(tool, **arguments):
    request = {"id": 1, "tool": tool, "args": arguments, "token": _token}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(_dir + "/socket")
        stream = connection.makefile("rw", encoding="utf-8")
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        reply = json.loads(stream.readline())
    if "error" in reply:
        raise RuntimeError("%(kind)s: %(message)s" % reply["error"])
    return reply["result"]
]]

---@type farcall.StubTemplate
return {
  language = "NAME",
  summary = "Python with one function, call(tool, **arguments).",
  -- Files that end so are scripts in this language.
  extensions = { "NAME" },
  -- The first program that is there gets the script's path and arguments.
  interpreter = { "python3" },

  -- The files to put beside the script. tools: name, summary, parameters and so on of each; their
  -- texts are anything, so put none of them into code as it is (farcall.literal escapes).
  render = function(tools, options)
    return {
      { name = options.module .. ".py", text = RUNTIME },
    }
  end,

  -- Variables for the script; dir is where the files are.
  environment = function(dir)
    return { PYTHONPATH = dir, PYTHONDONTWRITEBYTECODE = "1" }
  end,
}
]==],
}

return skeletons

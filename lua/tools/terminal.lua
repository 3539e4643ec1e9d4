-- SPDX-License-Identifier: MIT
-- A command line, run in the script's environment by a shell of its own.

local errors = require("farcall.errors")
local files = require("farcall.files")
local text = require("farcall.core.text")

local DEFAULT_TIMEOUT = 180
local MAX_OUTPUT = 1024 * 1024

-- One stream, in the order of writing. bash where there is one: that is what command lines are
-- usually written for.
local SCRIPT = [[
exec 2>&1
if [ -n "$2" ]; then cd "$2" || exit 126; fi
if command -v bash > /dev/null; then exec bash -c "$1"; fi
exec sh -c "$1"
]]

local SIGNALS = {
  HUP = 1, INT = 2, QUIT = 3, ILL = 4, TRAP = 5, ABRT = 6, BUS = 7, FPE = 8, KILL = 9, USR1 = 10,
  SEGV = 11, USR2 = 12, PIPE = 13, ALRM = 14, TERM = 15, XCPU = 24, XFSZ = 25, SYS = 31,
}

local function report(result, timeout)
  local reply = {
    output = text.clean(result.stdout, { escapes = true, utf8 = true, secrets = false }),
    exit_code = result.exit_code,
  }
  if result.truncated then
    reply.truncated = true
  end
  if result.timed_out then
    reply.exit_code, reply.timed_out = 124, true
    reply.error = ("the command took longer than %g s and was killed"):format(timeout)
  elseif not result.exit_code then
    reply.exit_code = 128 + (SIGNALS[result.signal] or 0)
    reply.signal = result.signal
    reply.error = "the command was ended by signal " .. tostring(result.signal)
  end
  return reply
end

---@async
local function handler(args, ctx)
  local op = "terminal"
  if args.command:find("\0", 1, true) then
    return nil, errors.new("usage", op, "the command holds a NUL byte")
  end
  local workdir = ""
  if args.workdir then
    local resolved, err = files.resolve(ctx, op, args.workdir)
    if not resolved then
      return nil, err
    end
    workdir = resolved
  end
  local timeout = args.timeout or DEFAULT_TIMEOUT
  local result, err = ctx.oneshot({
    argv = { "sh", "-c", SCRIPT, "sh", args.command, workdir }, timeout = timeout,
    max_output = MAX_OUTPUT,
  })
  if not result then
    return nil, err
  end
  return report(result, timeout)
end

return {
  name = "terminal",
  summary = "Run a command line in the script's environment and wait for its end.",
  description = [[
The command runs in a shell of its own (bash where there is one, else sh), with an empty stdin: no
directory or variable is kept for the next one.
Returns {"output": stdout and stderr as they came, "exit_code": int}. A command that fails is no
error: look at exit_code. When it was killed after timeout seconds exit_code is 124 and "timed_out"
is true; when a signal ended it exit_code is 128 + its number and "signal" its name; both have an
"error" text. Of the output the first MiB is kept; "truncated" is true when there was more.]],
  parameters = {
    type = "object",
    properties = {
      command = { type = "string", minLength = 1, description = "the command line" },
      timeout = {
        type = "number", exclusiveMinimum = 0,
        description = "seconds until the command and all its children are killed (180)",
      },
      workdir = {
        type = "string", description = "directory to run in; relative to the run's own",
      },
    },
    required = { "command" },
    additionalProperties = false,
  },
  order = { "command", "timeout", "workdir" },
  returns = "dict",
  idempotent = false,
  handler = handler,
}

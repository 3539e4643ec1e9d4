-- SPDX-License-Identifier: MIT
-- What `farcall doctor` looks at in a backend's environment: it opens one and asks it what scripts
-- and calls will need there.

local oneshot = require("farcall.oneshot")
local task = require("farcall.task")

local examination = {}

local ANSWER_TIME = 60
-- An exec that takes longer is felt in each run, and in each call by files.
local SLOW_EXEC = 0.15
local SAMPLES = 3

-- Says one line `word value` for each thing that it looks at.
local LOOK = [=[
has() { command -v "$1" > /dev/null 2>&1; }
for program in grep base64 head tail wc mv rm mkfifo env; do
  has "$program" || echo "lacks $program"
done
for dir in /tmp /var/tmp /dev/shm; do
  if [ -d "$dir" ] && d=$(mktemp -d "$dir/farcall-doctor-XXXXXX" 2> /dev/null); then
    echo "dir $dir"
    if mkfifo "$d/fifo" 2> /dev/null; then echo "fifo yes"; else echo "fifo no"; fi
    rm -rf "$d"
    break
  fi
done
if has python3; then
  if python3 -c 'import json, socket, select' 2> /dev/null; then echo "python whole"
  else echo "python partial"; fi
else echo "python none"; fi
[ -r "/proc/$$/environ" ] && echo "proc yes"
echo "system $(uname -sm)"
]=]

local function finding(name, status, message, hint)
  return { name = name, status = status, message = message, hint = hint }
end

-- How long an exec takes, and what is printed by one that prints nothing.
---@async
local function measure(env)
  local times, noise = {}, ""
  for i = 1, SAMPLES do
    local began = task.now()
    local result, err = oneshot.run(env, { argv = { "sh", "-c", ":" }, timeout = ANSWER_TIME })
    if not result then
      return nil, err
    end
    times[i] = task.now() - began
    noise = noise .. result.stdout .. result.stderr
  end
  table.sort(times)
  return times[math.ceil(SAMPLES / 2)], noise
end

---@async
local function look(env)
  local result, err = oneshot.run(env, { argv = { "sh", "-c", LOOK }, timeout = ANSWER_TIME })
  if not result then
    return nil, err
  end
  local seen = { lacks = {} }
  for word, value in result.stdout:gmatch("(%l+) ([%w /_.-]+)\n") do
    if word == "lacks" then
      table.insert(seen.lacks, value)
    else
      seen[word] = value
    end
  end
  return seen
end

local function about_exec(name, env, seconds, noise)
  if noise ~= "" then
    return finding(name, "warn", ("each exec prints %d bytes that nobody asked for"):format(#noise),
      "the rc files of the user over there print: end them early, with [ -t 0 ] || return")
  end
  local message = ("an exec takes %.0f ms"):format(seconds * 1e3)
  if seconds > SLOW_EXEC and env.caps.isolated then
    return finding(name, "warn", message, "the service takes that long, or this machine is busy; "
      .. "a run by stream needs one, calls by files one each")
  elseif seconds > SLOW_EXEC then
    return finding(name, "warn", message, "slow rc files of the user over there (.bashrc) are read "
      .. "by each: end them early, with [ -t 0 ] || return; or the link is long")
  end
  return finding(name, "ok", message)
end

local function no_directory(name, message)
  return finding(name, "fail", message, "a run has its files in one of them: mount a tmpfs at /tmp")
end

local NO_DIRECTORY = "none of /tmp, /var/tmp, /dev/shm can be written to"

-- What keeps calls from travelling by files there, or makes them slow; nil when nothing does.
local function about_files(name, seen, why)
  if #seen.lacks > 0 then
    return finding(name, "fail", ("calls by files need %s; and not by stream: %s"):format(
      table.concat(seen.lacks, ", "), why),
      "coreutils, grep or busybox of the environment have them")
  elseif not seen.dir then
    return no_directory(name, NO_DIRECTORY .. "; and not by stream: " .. why)
  elseif seen.fifo ~= "yes" then
    return finding(name, "warn", ("calls by files in %s, which takes no FIFOs, and not by stream: "
      .. "%s"):format(seen.dir, why), "each call waits some 30 ms more: mount a tmpfs at /tmp")
  elseif seen.proc ~= "yes" then
    return finding(name, "warn", "calls by files, and not by stream: " .. why,
      "there is no /proc: processes that leave their group cannot be found and ended")
  end
  return nil
end

local FORMS = { c = "the runner in C, for %s", python = "the runner in Python, on %s" }

-- What to do about a runner that cannot be had, by what is said of it.
local MENDING = {
  { "no directory takes a program", "let the home directory, /tmp or /dev/shm hold programs (they "
    .. "are read-only, or mounted noexec), or install python3 there" },
  { "there is no runner for", "for such a machine there is the runner in Python: install python3 "
    .. "there" },
  { "say hello", "what stands between may eat standard input, or hold output back (a login shell "
    .. "that reads it, a proxy)" },
}

local function mending(err)
  for _, row in ipairs(MENDING) do
    if err.msg:find(row[1], 1, true) then
      return row[2]
    end
  end
  return err.hint
end

---By what way calls would travel, which is tried where it can be.
---@async
local function about_calls(name, env, seen)
  if env.caps.same_host then
    return finding(name, "ok", "calls by a Unix socket")
  end
  local caps = env.caps
  local live = caps.stdin == "stream" and caps.stdout == "stream"
  local one, err
  if env.bring then
    one, err = env:bring()
  else
    err = { msg = "no runner is known here" }
  end
  if one and not seen.dir then
    return no_directory(name, NO_DIRECTORY)
  elseif one then
    return finding(name, "ok", ("calls by stream: %s%s"):format(
      (FORMS[one.form] or "%s"):format(one.machine or "?"), one.why and ": " .. one.why or ""))
  end
  return about_files(name, seen, err.msg)
    or finding(name, live and "warn" or "ok",
      ("calls by files in %s, and not by stream: %s"):format(seen.dir, err.msg),
      live and (mending(err) or "each call costs an exec; `farcall run --transport stream` tells "
        .. "what goes wrong") or nil)
end

-- How long it takes from inside, once a runner is there.
---@async
local function about_inside(name, env)
  if not (env.has_runner and env:has_runner()) or env.caps.same_host then
    return nil
  end
  local seconds = measure(env)
  return seconds and finding(name, "ok",
    ("a process that the runner starts takes %.1f ms"):format(seconds * 1e3))
end

local PYTHON = {
  whole = { "ok", "python3 with json, socket and select" },
  partial = { "warn", "python3 without json, socket or select",
    "scripts may need them: install python3 whole (Debian: python3, not python3-minimal)" },
  none = { "warn", "no python3", "Python scripts cannot run there: take an image with it, install "
    .. "it, or write scripts in sh" },
}

---Findings about one backend: opens an environment and looks around in it.
---@async
---@param engine farcall.Engine
---@param backend string
---@param options? table
---@return farcall.Finding[]
function examination.backend(engine, backend, options)
  local env, err = engine:environment(backend, options)
  if not env then
    local message = (err.op ~= "" and err.op .. ": " or "") .. err.msg
    return { finding(backend, "fail", message, err.hint) }
  end
  local findings = {}
  local seconds, noise = measure(env)
  if not seconds then
    err = noise
    return { finding(backend, "fail", tostring(err), err.hint) }
  end
  findings[1] = about_exec(backend, env, seconds, noise)
  local seen
  seen, err = look(env)
  if not seen then
    findings[2] = finding(backend, "fail", tostring(err), err.hint)
    return findings
  end
  findings[2] = about_calls(backend, env, seen)
  findings[3] = about_inside(backend, env)
  local python = PYTHON[seen.python]
  if not python then
    findings[#findings + 1] = finding(backend, "fail", "its sh does not do what it is told",
      "a POSIX sh is needed there")
  else
    findings[#findings + 1] = finding(backend, unpack(python))
  end
  return findings
end

return examination

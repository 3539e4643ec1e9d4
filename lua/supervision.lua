-- SPDX-License-Identifier: MIT
-- Supervision by a few lines of sh: how process trees end in an environment that has no supervisor
-- of its own. It needs a POSIX sh, grep, sleep and rm over there (busybox will do), and /proc to
-- find what has left its process group.
--
-- A tree is known by a random mark in the variable FARCALL_MARK, which whatever it starts inherits.
-- What empties its environment is not found: the security page says so.

local errors = require("farcall.errors")
local hex = require("farcall.hex")
local oneshot = require("farcall.oneshot")

local supervision = {}

-- Where a run's directory may be, the first that can be written to.
supervision.BASES = { "/tmp", "/var/tmp", "/dev/shm" }

-- Tells the execs that wait for calls in a run's directory, $dir: t time has passed, x the end. Who
-- opens a bell and then finds `token`, which nobody writes anew, will hear the x.
local BELLS = [=[
ring() {
  for b in "$dir/bell.0" "$dir/bell.1"; do
    [ ! -p "$b" ] || echo "$1" 1<> "$b"
  done
}
dismiss() {
  cd /
  i=0
  while [ -d "$dir" ] && [ "$i" -lt 20 ]; do
    rm -f "$dir/turn" "$dir/token"
    ring x
    rm -rf "$dir" || sleep 0.1 || sleep 1
    i=$((i + 1))
  done
}
]=]

-- Ends a tree: TERM, grace, KILL, until nothing bears the mark. $m mark, $grace seconds.
local SWEEP = BELLS .. [=[
tree() {
  for p in $(grep -ls "FARCALL_MARK=$m" /proc/[0-9]*/environ); do
    p=${p#/proc/}
    echo "${p%/environ}"
  done
}
sweep() {
  if [ ! -e "/proc/$$/environ" ]; then
    trap '' TERM
    kill -TERM 0
    sleep "$grace"
    kill -KILL 0
  fi
  t=$(tree)
  [ -z "$t" ] || kill -TERM $t
  i=0
  while t=$(tree) && [ -n "$t" ]; do
    i=$((i + 1))
    [ "$i" -le $((grace * 5)) ] || kill -KILL $t
    [ "$i" -le $((grace * 5 + 50)) ] || return 1
    sleep 0.2 || sleep 1
  done
}
]=]

-- $1 mark, $2 seconds until it ends by itself or 0, $3 grace, $4 what standard input is: "data" for
-- the program, or "life": words for the supervisor, whose end ends the tree; $5 the run's directory
-- or "-", which is removed at the end; $6 seconds in which its file turn must change; then the
-- program. Time is counted in sleeps, so that a clock may jump. Its own messages (dash tells who
-- was killed) go nowhere.
local SUPERVISE = SWEEP .. [=[
m=$1 deadline=$2 grace=$3 stdin=$4 dir=$5 lease=$6
shift 6
exec 3<&0 4>&2 2>/dev/null
watch() {
  n=0 idle=0 beat=
  while [ "$deadline" -eq 0 ] || [ "$n" -lt "$deadline" ]; do
    sleep 1
    n=$((n + 1))
    [ "$dir" != - ] || continue
    # The script may have put there what is not to be opened: that is no sign of the engine.
    new=
    [ ! -f "$dir/turn" ] || [ -L "$dir/turn" ] || read -r new < "$dir/turn"
    if [ "$new" = "$beat" ]; then idle=$((idle + 1)); else idle=0 beat=$new; fi
    [ "$idle" -lt "$lease" ] || break
    [ $((n % 20)) -ne 0 ] || ring t
  done
  sweep
}
listen() {
  while read -r word <&3; do
    case $word in
    INT) t=$(tree); [ -z "$t" ] || kill -INT $t ;;
    *) break ;;
    esac
  done
  sweep
}
# A function that is called with redirections keeps copies of what it gave up: exec does not.
w= l=
if [ "$deadline" -ne 0 ] || [ "$dir" != - ]; then
  (exec < /dev/null > /dev/null 3<&- 4>&-; watch) &
  w=$!
fi
if [ "$stdin" = life ]; then
  exec < /dev/null
  (exec > /dev/null 4>&-; listen) &
  l=$!
fi
# Whoever ends the whole group means the program: what follows it is still to be done. Not sooner: a
# child that has yet to give up the trap of its parent would miss the signal below.
trap : TERM HUP INT
(FARCALL_MARK=$m; export FARCALL_MARK; exec "$@" 2>&4 3<&- 4>&-)
r=$?
kill $w $l
sweep
if [ "$dir" != - ]; then
  dismiss
fi
exit "$r"
]=]

-- $1 and $2 the mark in two halves, so that this process does not look like a supervisor, $3 grace,
-- $4 the run's directory or "-". Once its tree is gone a supervisor ends by itself: it has 5 s.
local KILL = SWEEP .. [=[
exec 2>/dev/null
m=$1$2 grace=$3 dir=$4
sweep || exit 3
i=0
while s=$(printf '%s\n' "$m" | grep -lsf - /proc/[0-9]*/cmdline) && [ -n "$s" ]; do
  i=$((i + 1))
  if [ "$i" -gt 25 ]; then
    for p in $s; do
      p=${p#/proc/}
      kill -KILL "${p%/cmdline}"
    done
  fi
  [ "$i" -le 50 ] || break
  sleep 0.2 || sleep 1
done
sweep || exit 3
[ "$dir" = - ] || dismiss
]=]

-- Ends and removes what runs have left whose engine and supervisor were both killed: directories of
-- ours that no supervisor bears in its name (scripts, and execs that wait, have them in their
-- arguments too), and inputs of execs that never began. $1 minutes that one must be old, because a
-- run that begins has no supervisor yet; then the places. Says the number.
local COLLECT = BELLS .. [=[
exec 2>/dev/null
age=$1 count=0
shift
for place; do
  for dir in "$place"/farcall-run-* "$place"/farcall-in-*; do
    [ -e "$dir" ] && [ -O "$dir" ] && [ ! -L "$dir" ] || continue
    [ -n "$(find "$dir" -prune -mmin "+$age")" ] || continue
    sign=${dir##*/}
    [ "$sign" = "${sign#farcall-run-}" ] || sign=farcall:$dir
    [ -z "$(printf '%s\n' "$sign" | grep -lsf - /proc/[0-9]*/cmdline)" ] || continue
    for p in $(grep -ls "FARCALL_RUN_DIR=$dir" /proc/[0-9]*/environ); do
      p=${p#/proc/}
      kill -KILL "${p%/environ}"
    done
    if [ -d "$dir" ]; then dismiss; else rm -f "$dir"; fi
    [ -e "$dir" ] || count=$((count + 1))
  done
done
echo "$count"
]=]

-- Seconds that the oneshot which kills may take beyond the grace.
local KILL_PATIENCE = 30

---Where a run's directory may be: the usual places, then where commands start.
---@param env farcall.Env
---@return string[] places
function supervision.places(env)
  local places = { unpack(supervision.BASES) }
  if env.cwd and env.cwd:sub(1, 1) == "/" then
    places[#places + 1] = env.cwd
  end
  return places
end

---@return string mark 32 hexadecimal digits
function supervision.new_mark()
  return hex.random(16)
end

---@class farcall.supervision.Spec
---@field mark string
---@field argv string[] the program
---@field stdin "data"|"life" "data": the program's own; "life": the tree ends when it ends
---@field grace number seconds between TERM and KILL
---@field deadline? number seconds until the tree is ended from over there
---@field dir? string directory of the run, removed at the end
---@field lease? number seconds in which the file turn in dir must change

---The program under a supervisor.
---@param spec farcall.supervision.Spec
---@return string[] argv
function supervision.argv(spec)
  local argv = {
    "sh", "-c", SUPERVISE, "farcall:" .. (spec.dir or ""), spec.mark,
    ("%d"):format(math.ceil(spec.deadline or 0)), ("%d"):format(math.ceil(spec.grace)),
    spec.stdin, spec.dir or "-", ("%d"):format(spec.lease or 0),
  }
  for _, word in ipairs(spec.argv) do
    argv[#argv + 1] = word
  end
  return argv
end

---Ends what bears the mark, by an exec of its own. Returns when nothing is left.
---@async
---@param env farcall.Env one whose execs are bare: this one must not need another to be killed
---@param spec {mark: string, grace: number, dir?: string}
---@return boolean?
---@return farcall.Error? err something is left, or the environment cannot be reached
---@nodiscard
function supervision.kill(env, spec)
  local result, err = oneshot.run(env, {
    argv = {
      "sh", "-c", KILL, "sh", spec.mark:sub(1, 16), spec.mark:sub(17),
      ("%d"):format(math.ceil(spec.grace)), spec.dir or "-",
    },
    timeout = spec.grace + KILL_PATIENCE,
  })
  if not result then
    return nil, err
  end
  if result.exit_code ~= 0 then
    return nil, errors.new("unavailable", "kill", "processes are left in the environment")
  end
  return true
end

---Removes what runs have left in an environment whose engine and supervisor were both killed.
---@async
---@param env farcall.Env
---@param min_age? integer minutes; 2 when absent
---@return integer? count of directories
---@return farcall.Error? err
---@nodiscard
function supervision.sweep(env, min_age)
  local argv = { "sh", "-c", COLLECT, "sh", ("%d"):format(min_age or 2) }
  for _, place in ipairs(supervision.BASES) do
    argv[#argv + 1] = place
  end
  local result, err = oneshot.run(env.bare or env, { argv = argv, timeout = KILL_PATIENCE })
  if not result then
    return nil, err
  end
  err = oneshot.failure(result, "sweep")
  if err then
    return nil, err
  end
  return tonumber(result.stdout:match("(%d+)%s*$")) or 0
end

return supervision

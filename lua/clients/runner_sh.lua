-- SPDX-License-Identifier: MIT
-- How a runner gets into an environment: one exec, in POSIX sh with the usual small programs, which
-- finds out what can run there, asks for it, and becomes it. Every line that is for the engine
-- begins with the random mark of that exec.

local far = {}

-- $1 mark, $2 "serve" or "attach" (to one that has lost its link), $3 GRACE_MS:LEASE_MS, $4 the
-- forms that are wanted ("c python"; "new" too when what is kept is no good), $5 word in the name
-- of the directory in which a runner with a grace waits for a new link, then machine, size and
-- SHA-256 of each program, "python" and size.
-- Says: kept, send MACHINE, send python WHY-NOT-THE-OTHER, none WORDS, ready (to attach, with what
-- was sent: whatever reads programs may have read on); then the runner itself speaks.
--
-- The program is kept in a directory of the user's own, under its hash, which is checked when it
-- arrives and said by the program itself when it was kept: a sha256sum at each start would cost
-- more than the runner's own start. Some places cannot hold a program (noexec), which only running
-- it tells.
--
-- Variables that are exported and the umask are left alone: whatever the runner starts has them.
far.BRING = [=[
mark=$1 verb=$2 grace=$3 forms=$4 link=${TMPDIR:-/tmp}/farcall-link-$5
shift 5
say() { printf '\n%s %s\n' "$mark" "$*"; }
leave() { rm -f "$1"; rmdir "${1%/*}" 2> /dev/null; }
hash_of() { sum=$(sha256sum < "$1" 2> /dev/null) && sum=${sum%% *}; }
# The words of a runner.
case $verb$grace in
attach*) rest="attach $mark" ;;
serve0:*) rest="serve $mark $grace" link= ;;
*) rest="serve $mark $grace" ;;
esac
kept=yes
case " $forms " in *" new "*) kept= ;; esac
machine= size= sum= python= why='the static runner is not wanted'
case " $forms " in *" c "*)
  # A file that there is on newer kernels is read without a process.
  read -r machine 2> /dev/null < /proc/sys/kernel/arch || machine=$(uname -m)
  why="there is no runner for $machine"
esac
while [ $# -gt 0 ]; do
  case $1 in
  python) python=$2; shift 2 ;;
  *)
    if [ "$1" = "$machine" ]; then size=$2 want=$3; fi
    shift 3
    ;;
  esac
done
if [ -n "$size" ]; then
  why='no directory takes a program' sent=
  for base in "${XDG_CACHE_HOME:-${HOME:-/}/.cache}" /tmp /var/tmp /dev/shm; do
    case $base in
    /tmp | /var/tmp | /dev/shm) dir=$base/farcall-$(id -u) ;;
    *) dir=$base/farcall ;;
    esac
    file=$dir/runner-$want
    [ -d "$dir" ] || (umask 077; mkdir -p "$dir" 2> /dev/null)
    [ -d "$dir" ] && [ ! -L "$dir" ] && [ -O "$dir" ] && [ -w "$dir" ] || continue
    if [ -x "$file" ] && [ -s "$file" ] && [ "$kept" ]; then
      say kept
      exec "$file" $rest ${link:+"$link"}
    fi
    new=$file.$$
    if [ -z "$sent" ]; then
      : > "$new" && chmod 700 "$new" && [ -x "$new" ] || { leave "$new"; continue; }
      say send "$machine"
      head -c "$size" > "$new" && sent=$new
    else
      cp "$sent" "$new"
      leave "$sent"
      sent=$new
    fi 2> /dev/null
    if hash_of "$new"; then arrived=$sum whole=$want; else arrived=$(wc -c < "$new") whole=$size; fi
    if [ "$arrived" != "$whole" ]; then
      why='it did not arrive whole: a directory may be full' sent=
      leave "$new"
      break
    fi
    if "$new" version > /dev/null 2>&1; then
      mv -f "$new" "$file"
      case $verb in attach) say ready ;; esac
      exec "$file" $rest ${link:+"$link"}
    fi
  done
  [ -z "$sent" ] || leave "$sent"
fi
case "$python $forms " in [0-9]*" python "*)
  for python3 in python3 /usr/bin/python3; do
    [ -n "$python" ] || break
    # A shell may name what it cannot start.
    python3=$(command -v "$python3") && [ -x "$python3" ] || continue
    say send python "$why"
    exec "$python3" -B -c 'import os
t = b""
while len(t) < '"$python"':
    p = os.read(0, '"$python"' - len(t))
    if not p:
        raise SystemExit(1)
    t += p
exec(compile(t.split(b"\f")[0], "farcall-runner", "exec"))' $rest ${link:+"$link"}
  done
  if [ -n "$python" ]; then why="$why; there is no python3"; fi
esac
say none "$why"
]=]

return far

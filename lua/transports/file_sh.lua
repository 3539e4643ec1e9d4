-- SPDX-License-Identifier: MIT
-- The far side of the file transport: what its execs do, in POSIX sh with the usual small programs.
-- Every line that is for the engine begins with the random mark of that exec.
--
-- The run's directory (mode 0700) over there:
--   token, stub, script       what the run was furnished with
--   c/ID.req, c/ID.big        a request, put there whole by the stub; ID is a decimal number; .big
--                             when it has more than 2 KiB. Emptied once it has arrived, removed
--                             by the stub
--   c/ID.rep                  its reply, put there whole by an exec
--   c/ID.bell                 FIFO on which the stub waits for it
--   bell.0 bell.1             FIFOs on which execs wait for requests: the exec of turn N at N % 2
--   turn                      number of the latest exec that collects; it changes at least every
--                             20 s while the engine lives
-- A word on a bell is r (a request, or a reply), t (20 s have passed), q (there is a newer turn) or
-- x (the run is over).

local far = {}

-- Requests that one cycle brings.
far.MOST = 64

-- What an exec may call spoiled, in a human's words.
far.FILES = {
  turn = "file turn", request = "requests", reply = "replies", bell = "bells",
}

-- Makes the directory. Its standard input is all files one after the other.
-- $1 mark, $2 name of the directory, $3 bytes that it must hold, $4 how many places there are to
-- try, the places, how many interpreters, the interpreters, then name and size of each file.
-- Says: made PLACE INTERPRETER FIFO LOOK, numbers from 1 on (0: none of them), 1 or 0, seconds; or
-- none PLACES, short.
far.FURNISH = [=[
mark=$1 name=$2 need=$3 n=$4
shift 4
umask 077
say() { printf '\n%s %s\n' "$mark" "$*"; }
at=0 dir= place=0
while [ "$n" -gt 0 ]; do
  at=$((at + 1)) n=$((n - 1))
  if [ -z "$dir" ] && mkdir "$1/$name" 2> /dev/null; then
    if head -c "$need" /dev/zero > "$1/$name/all" 2> /dev/null; then
      dir=$1/$name place=$at
    else
      rm -rf "${1:?}/$name"
    fi
  fi
  shift
done
if [ -z "$dir" ]; then
  cat > /dev/null
  say none
  exit 0
fi
n=$1 at=0 interpreter=0
shift
while [ "$n" -gt 0 ]; do
  at=$((at + 1)) n=$((n - 1))
  if [ "$interpreter" -eq 0 ] && command -v "$1" > /dev/null 2>&1; then interpreter=$at; fi
  shift
done
cd "$dir" || exit 1
cat > all
off=1
while [ $# -gt 0 ]; do
  tail -c "+$off" all | head -c "$2" > "$1"
  off=$((off + $2))
  shift 2
done
if [ "$(wc -c < all)" -ne $((off - 1)) ]; then
  cd /
  rm -rf "$dir"
  say short
  exit 0
fi
rm -f all
mkdir c
fifo=0 look=1
if mkfifo bell.0 bell.1 2> /dev/null; then fifo=1; else
  if sleep 0.01 2> /dev/null; then look=0.03; fi
fi
echo 0 > turn
say made "$place" "$interpreter" "$fifo" "$look"
]=]

-- One cycle: puts replies in place, waits for requests, returns them.
-- $1 mark, $2 directory, $3 turn, $4 "fifo", seconds between looks, or "none": only a sign, no
-- requests, $5 how many requests have arrived since the last cycle, their names, then "args" and
-- pairs of ID and base64, or "stdin" and triples of ID, place and size in the standard input.
-- Says: gone; fail ID; put; request NAME and, after it, the request; end; or spoiled WORD, and no
-- more, when the script has put something else in the place of one of the files.
-- A process costs more than all else here: what the shell can do by itself it does.
--
-- All that is opened is the script's, too. Opening a FIFO waits, and so nothing is opened that is
-- not known to be a plain file, or one of the bells; what is made has the mark of the exec in its
-- name, which nobody knew before.
far.CYCLE = [=[
mark=$1 dir=$2 turn=$3 look=$4 n=$5
shift 5
umask 077
LC_ALL=C
say() { printf '\n%s %s\n' "$mark" "$*"; }
exec 2> /dev/null
# $1 file or fifo, $2 name, $3 what it is called: whether it is there. Another thing: the end.
is() {
  if [ ! -L "$2" ]; then
    case $1 in
    file) [ ! -f "$2" ] || return 0 ;;
    *) [ ! -p "$2" ] || return 0 ;;
    esac
    [ -e "$2" ] || return 1
  fi
  say spoiled "$3"
  exit 0
}
if ! cd "$dir"; then
  say gone
  exit 0
fi
while [ "$n" -gt 0 ]; do
  ! is file "c/$1" request || : > "c/$1"
  n=$((n - 1))
  shift
done
way=$1
shift
[ "$way" = args ] || cat > "in.$mark"
while [ $# -gt 0 ]; do
  # Of its own: one that was given up may still be at it with the same reply.
  id=$1 new=c/$1.$mark.new
  if [ "$way" = args ]; then
    base64 -d > "$new" << EOF
$2
EOF
    ok=$?
    shift 2
  else
    tail -c "+$2" "in.$mark" | head -c "$3" > "$new" && [ "$(wc -c < "$new")" -eq "$3" ]
    ok=$?
    shift 3
  fi
  [ ! -d "c/$id.rep" ] || is file "c/$id.rep" reply
  if [ "$ok" -eq 0 ] && mv -f "$new" "c/$id.rep"; then
    ! is fifo "c/$id.bell" bell || echo r 1<> "c/$id.bell"
  else
    rm -f "$new"
    say fail "$id"
  fi
done
[ "$way" = args ] || rm -f "in.$mark"
say put
latest=
! is file turn turn || read -r latest < turn
# None: the run is over and its directory about to go.
if [ -z "$latest" ] || [ "$latest" -gt "$turn" ]; then
  say end
  exit 0
fi
# Over the old number, which is never longer: a full disk has no room for a new file.
echo "$turn" 1<> turn
if [ "$look" = none ]; then
  say end
  exit 0
fi
if [ "$look" = fifo ]; then
  for f in "bell.$(((turn + 1) % 2))" "bell.$((turn % 2))"; do
    if ! is fifo "$f" bell; then
      say end
      exit 0
    fi
    exec 4<> "$f"
    [ "$f" = "bell.$((turn % 2))" ] || echo q >&4
  done
fi
waited=0 most=20
[ "$look" = 1 ] || most=650
while :; do
  n=0
  for f in c/[0-9]*.req c/[0-9]*.big; do
    if is file "$f" request && [ -s "$f" ] && [ "$n" -lt ]=] .. far.MOST .. [=[ ]; then
      n=$((n + 1))
      say request "${f#c/}"
      case $f in
      *.req) line=; IFS= read -r line < "$f"; printf '%s\n' "$line" ;;
      *) head -c 67108865 "$f" ;;
      esac
    fi
  done
  [ "$n" -eq 0 ] || break
  [ -e token ] || break
  [ "$look" != fifo ] || [ -p "bell.$((turn % 2))" ] || break
  if [ "$look" = fifo ]; then
    read -r word <&4
  else
    sleep "$look"
    waited=$((waited + 1)) word=r
    [ "$waited" -lt "$most" ] || word=t
  fi
  if [ "$word" = x ]; then
    echo x >&4
    break
  fi
  is file turn turn || break
  read -r latest < turn || break
  if [ "$latest" != "$turn" ]; then
    [ "$look" != fifo ] || echo q >&4
    break
  fi
  [ "$word" != t ] || break
done
say end
]=]

return far

-- SPDX-License-Identifier: MIT
-- The shell stub, for POSIX sh and bash: tools are called with the command `call`. It needs awk, od
-- and mkfifo of the environment, no Python. sh has no sockets: the runner's program joins it with
-- that of the run; where there is no runner, calls travel by files.

local RUNTIME = [=[
# The command `call` for scripts of a farcall run; starts the script that is named first.
#
#   call TOOL [name=text | name:=JSON]...   prints the result: text as it is, all else as JSON
#   call -f FIELD TOOL ...                  prints one field of a result that is an object
#   call TOOL '{"name": ...}'               all arguments as one JSON object
#
# Status 1 and a line on stderr when the tool fails or is refused, 2 when the use is wrong.

farcall_quote() {
  printf '%s\n' "$1" | LC_ALL=C awk '
    BEGIN { for (i = 1; i < 32; i++) if (i != 10) code[i] = sprintf("%c", i) }
    {
      gsub(/\\/, "&&"); gsub(/"/, "\\\\&")
      if ($0 ~ /[\001-\037]/) for (i in code) gsub(code[i], sprintf("\\u%04x", i))
      printf "%s%s", (NR > 1 ? "\\n" : "\""), $0
    }
    END { printf "\"" }'
}

# A subshell of its own, so that nothing of it is left in the script. What a script sets for itself
# (-e, -u, IFS, exported names) holds no longer inside.
call() (
  set +aefuxC
  unset IFS tool args word name value
  farcall_field=
  if [ "$1" = -f ] && [ $# -gt 1 ]; then
    farcall_field=$2
    shift 2
  fi
  if [ $# -eq 0 ]; then
    echo 'call: usage: call [-f FIELD] TOOL [name=text | name:=JSON]...' >&2
    exit 2
  fi
  tool=$1 args=
  shift
  for word; do
    case $word in
    '{'*) if [ $# -eq 1 ]; then args=$word; break; fi ;;
    esac
    name=${word%%=*}
    if [ "$name" = "$word" ] || [ -z "$name" ]; then
      printf 'call: %s: an argument is name=text or name:=JSON, not %s\n' "$tool" "$word" >&2
      exit 2
    fi
    value=${word#*=}
    case $name in
    *:) name=${name%:} ;;
    *) value=$(farcall_quote "$value") ;;
    esac
    args="${args:+$args,}$(farcall_quote "$name"):$value"
  done
  case $args in '{'*) ;; *) args="{$args}" ;; esac

  umask 077
  cd "$FARCALL_RUN_DIR" || { echo 'call: this is not inside a farcall run' >&2; exit 1; }
  read -r token < token
  if [ ! -d c ]; then
    printf '{"id":1,"tool":%s,"args":%s,"token":"%s"}\n' "$(farcall_quote "$tool")" "$args" \
      "$token" |
      "$FARCALL_RUNNER" ask socket |
      LC_ALL=C awk -v tool="$tool" -v field="$farcall_field" -f farcall.awk
    exit
  fi
  # shellcheck disable=SC2046
  set -- $(od -An -N6 -tu2 /dev/urandom)
  id=$(($1 * 4294967296 + $2 * 65536 + $3))
  bell=
  if mkfifo "c/$id.bell" 2> /dev/null; then
    bell=1
    exec 9<> "c/$id.bell"
  fi
  request=c/$id.req
  [ ${#args} -lt 1500 ] || request=c/$id.big
  printf '{"id":%s,"tool":%s,"args":%s,"token":"%s"}\n' "$id" "$(farcall_quote "$tool")" "$args" \
    "$token" > "c/$id.new" && mv "c/$id.new" "$request" || exit 1
  for waiting in bell.0 bell.1; do
    [ ! -p "$waiting" ] || echo r 1<> "$waiting"
  done
  until [ -e "c/$id.rep" ]; do
    if [ -n "$bell" ]; then read -r word <&9; else sleep 0.05 2> /dev/null || sleep 1; fi
  done
  LC_ALL=C awk -v tool="$tool" -v field="$farcall_field" -f farcall.awk "c/$id.rep"
  status=$?
  rm -f "c/$id.rep" "c/$id.bell" "$request"
  exit "$status"
)

farcall_script=$1
shift
# shellcheck disable=SC1090
. "$farcall_script"
]=]

-- Reads {"id":N,"result":...} or {"id":N,"error":{...}}, one line whose fields are in this order.
local READER = [=[
function chars(point) {
  if (point < 128) return sprintf("%c", point)
  if (point < 2048) return sprintf("%c%c", 192 + int(point / 64), 128 + point % 64)
  if (point < 65536)
    return sprintf("%c%c%c", 224 + int(point / 4096), 128 + int(point / 64) % 64, 128 + point % 64)
  return sprintf("%c%c%c%c", 240 + int(point / 262144), 128 + int(point / 4096) % 64,
    128 + int(point / 64) % 64, 128 + point % 64)
}
function hex(digits, i, value) {
  for (i = 1; i <= 4; i++)
    value = value * 16 + index("0123456789abcdef", tolower(substr(digits, i, 1))) - 1
  return value
}
# The text of a JSON string with its quotes.
function text(json, out, at, kind, point) {
  json = substr(json, 2, length(json) - 2)
  while (at = index(json, "\\")) {
    out = out substr(json, 1, at - 1)
    kind = substr(json, at + 1, 1)
    if (kind == "u") {
      point = hex(substr(json, at + 2, 4))
      json = substr(json, at + 6)
      if (point >= 55296 && point < 56320 && substr(json, 1, 2) == "\\u") {
        point = 65536 + (point - 55296) * 1024 + hex(substr(json, 3, 4)) - 56320
        json = substr(json, 7)
      }
      out = out chars(point)
    } else {
      if (kind == "n") kind = "\n"
      else if (kind == "t") kind = "\t"
      else if (kind == "r") kind = "\r"
      else if (kind == "b") kind = "\b"
      else if (kind == "f") kind = "\f"
      out = out kind
      json = substr(json, at + 2)
    }
  }
  return out json
}
# The length of the JSON value that json begins with.
function extent(json, depth, size, part) {
  do {
    if (match(json, /^"([^"\\]|\\.)*"/) || match(json, /^[^]["{},:]+/) || match(json, /^[,:]/))
      part = RLENGTH
    else {
      part = 1
      depth += substr(json, 1, 1) ~ /[[{]/ ? 1 : -1
    }
    size += part
    json = substr(json, part + 1)
  } while (depth > 0)
  return size
}
# The value of a field of a JSON object, or nothing.
function member(json, wanted, size, key) {
  json = substr(json, 2)
  while (json ~ /^"/) {
    size = extent(json)
    key = text(substr(json, 1, size))
    json = substr(json, size + 2)
    size = extent(json)
    if (key == wanted) return substr(json, 1, size)
    json = substr(json, size + 2)
  }
  return ""
}
{
  answered = 1
  if (match($0, /^[{]"id":[0-9]+,"result":/)) {
    value = substr($0, RLENGTH + 1, length($0) - RLENGTH - 1)
    if (field != "") {
      value = member(value, field)
      if (value == "") {
        print ("call: " tool ": the result has no field " field) > "/dev/stderr"
        exit 1
      }
    }
    print substr(value, 1, 1) == "\"" ? text(value) : value
    exit 0
  }
  match($0, /^[{]"id":[0-9]+,"error":/)
  value = substr($0, RLENGTH + 1)
  message = text(member(value, "message"))
  if (message ~ /: expected .*, got the string/) message = message " (what is no text: name:=JSON)"
  print ("call: " tool ": " message " [" text(member(value, "kind")) "]") > "/dev/stderr"
  exit 1
}
END {
  if (!answered) {
    print ("call: " tool ": the engine has gone; the call may have been made [unknown]") \
      > "/dev/stderr"
    exit 1
  }
}
]=]

---@type farcall.StubTemplate
return {
  language = "sh",
  summary = "A command, call, for scripts in sh and bash; needs no Python in the environment.",
  extensions = { "sh", "bash" },
  interpreter = { "bash", "sh" },
  transports = { uds = "program", stream = true, file = true },
  program = true,
  launch = function(dir, script)
    return { dir .. "/farcall.sh", script }
  end,
  render = function()
    return {
      { name = "farcall.sh", text = RUNTIME },
      { name = "farcall.awk", text = READER },
    }
  end,
}

#!/bin/sh
# Many jobs of `pass` on one container, on an ssh host and on this machine, side by side: `farcall batch`,
# a shell's loop, and xargs -P with the program that one would take by hand. $1: the build folder; $2: jobs
# (1,000); $3: at once (8). As root. Prints jobs per second, and farcall's as a multiple of xargs'.
set -eu
build=$(cd "${1:-build}" && pwd)
jobs=${2:-1000}
width=${3:-8}
cd "$(dirname "$0")/.."
sh spec/testbed/up.sh
bed=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
work=$(mktemp -d)
box=farcall-bench-$$
trap 'docker rm -f "$box" >/dev/null 2>&1; ssh -S "$work/master" -O exit far 2>/dev/null; rm -rf "$work"' EXIT
port=$(cat "$bed/ssh/port.main")
export HOME="$work" PATH=/usr/bin:/bin:/usr/sbin:/sbin
unset XDG_STATE_HOME XDG_CONFIG_HOME FARCALL_STATE_DIR 2>/dev/null || true
docker run -d --init --name "$box" farcall-spec/debian sleep 3600 >/dev/null
cat >"$work/config.lua" <<END
backend "docker" { use = "docker", attach = "$box" }
backend "ssh" {
  use = "ssh", host = "127.0.0.1", port = $port, user = "farcall-far", config = "none", agent = false,
  identity = { "$bed/ssh/ed25519" }, known_hosts = { "$bed/ssh/known_hosts" },
}
END
cat >"$work/ssh_config" <<END
Host far
  HostName 127.0.0.1
  Port $port
  User farcall-far
  IdentityFile $bed/ssh/ed25519
  UserKnownHostsFile $bed/ssh/known_hosts
Host master
  HostName 127.0.0.1
  Port $port
  User farcall-far
  IdentityFile $bed/ssh/ed25519
  UserKnownHostsFile $bed/ssh/known_hosts
  ControlMaster auto
  ControlPath $work/master
  ControlPersist 60
END
seq "$jobs" | sed 's/.*/{"script": "pass"}/' >"$work/jobs.jsonl"

# Seconds that a command takes.
timed() {
  began=$(date +%s.%N)
  "$@" >/dev/null
  awk "BEGIN { print $(date +%s.%N) - $began }"
}

batch() {
  rm -f "$work/results"
  timed "$build/farcall" batch -q -C "$work/config.lua" -b "$1" -j "$width" -r "$work/results" "$work/jobs.jsonl"
}

# As many times as there are jobs, one after the other.
repeat() {
  i=0
  while [ "$i" -lt "$jobs" ]; do
    "$@" </dev/null
    i=$((i + 1))
  done
}

loop() {
  timed repeat "$@"
}

# xargs adds a number to the words; the script does not mind an argument.
parallel() {
  seq "$jobs" >"$work/numbers"
  timed xargs -a "$work/numbers" -n 1 -P "$width" "$@"
}

row() {
  awk "BEGIN { n = $jobs; printf \"%-22s %10.1f %12.1f %12.1f %9.1fx\n\", \"$1\", n / $2, n / $3, n / $4, $4 / $2 }"
}

printf '%d jobs of pass, %d at once, jobs a second:\n' "$jobs" "$width"
printf '%-22s %10s %12s %12s %10s\n' '' 'batch' 'shell loop' "xargs -P $width" 'to xargs'
row "local" "$(batch local)" "$(loop python3 -c pass)" "$(parallel python3 -c pass)"
row "docker exec" "$(batch docker)" "$(loop docker exec "$box" python3 -c pass)" \
  "$(parallel docker exec "$box" python3 -c pass)"
over_ssh=$(batch ssh)
row "ssh" "$over_ssh" "$(loop ssh -n -F "$work/ssh_config" far python3 -c pass)" \
  "$(parallel ssh -n -F "$work/ssh_config" far python3 -c pass)"
ssh -F "$work/ssh_config" -fN master
row "ssh, ControlMaster" "$over_ssh" "$(loop ssh -n -F "$work/ssh_config" master python3 -c pass)" \
  "$(parallel ssh -n -F "$work/ssh_config" master python3 -c pass)"

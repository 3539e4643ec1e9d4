#!/bin/sh
# Calls, oneshots and shipping on every backend of the specs' testbed. $1: the build folder. As root.
set -eu
build=$(cd "${1:-build}" && pwd)
cd "$(dirname "$0")/.."
sh spec/testbed/up.sh
bed=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
work=$(mktemp -d)
box=farcall-bench-$$
trap 'docker rm -f "$box" >/dev/null 2>&1; rm -rf "$work"' EXIT
port=$(cat "$bed/ssh/port.main")
cat >"$work/config.lua" <<END
backend "docker" { use = "docker", image = "farcall-spec/debian" }
backend "podman" { use = "podman", program = "$bed/podman/bin/podman", image = "farcall-spec/debian" }
backend "bubblewrap" { use = "bubblewrap" }
backend "singularity" {
  use = "singularity", program = "$bed/apptainer/bin/apptainer", image = "$bed/apptainer/debian.sif",
}
backend "ssh" {
  use = "ssh", host = "127.0.0.1", port = $port, user = "farcall-far", config = "none", agent = false,
  identity = { "$bed/ssh/ed25519" }, known_hosts = { "$bed/ssh/known_hosts" },
}
limits { max_calls = 100000 }
END
head -c 67108864 /dev/zero >"$work/64MiB"
docker run -d --name "$box" farcall-spec/debian sleep 3600 >/dev/null
FARCALL_SUPERVISOR="$build/farcall-supervisor" \
  LUA_PATH="$build/lua/?.lua;$build/lua/?/init.lua;;" LUA_CPATH="$build/?.so;$build/lib/?.so;;" \
  PATH=/usr/bin:/bin:/usr/sbin:/sbin luajit bench/remote.lua "$work/config.lua" \
  local bubblewrap ssh docker singularity podman \
  "docker=docker cp $work/64MiB $box:/tmp/64MiB" \
  "ssh=scp -q -i $bed/ssh/ed25519 -o UserKnownHostsFile=$bed/ssh/known_hosts -P $port $work/64MiB farcall-far@127.0.0.1:/tmp/64MiB"

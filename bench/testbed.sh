#!/bin/sh
# Sourced by the benchmarks that leave this machine: $work, a directory of their own, with config.lua,
# which names every backend of the specs' testbed; host, which runs a Lua program with the build in
# $build. As root.
: "${build:?the build folder}"
sh spec/testbed/up.sh
bed=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
port=$(cat "$bed/ssh/port.main")
work=$(mktemp -d)
box=farcall-bench-$$
trap 'docker rm -f "$box" >/dev/null 2>&1; rm -rf "$work"' EXIT
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
END
cat bench/config.lua >>"$work/config.lua"
host() {
  FARCALL_SUPERVISOR="$build/farcall-supervisor" FARCALL_RUNNERS="$build/runner" \
    LUA_PATH="$build/lua/?.lua;$build/lua/?/init.lua;;" LUA_CPATH="$build/?.so;$build/lib/?.so;;" \
    PATH=/usr/bin:/bin:/usr/sbin:/sbin luajit "$@"
}

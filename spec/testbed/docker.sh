#!/bin/sh
# A Docker engine with the images of the specs, from a fresh Debian 12 machine, as root. Does only what
# is missing; two callers at once wait for each other.
#   farcall-spec/debian    Debian with python3
#   farcall-spec/busybox   a static busybox with its links and nothing else
#   farcall-spec/nojson    Debian with python3-minimal, which has no module json
# DIR = ${FARCALL_TESTBED:-/var/tmp/farcall-testbed} keeps the roots they are made from (root.sh), and
# the engine's log if it was started here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
socket=/var/run/docker.sock
mkdir -p "$dir"

# The lock is held by flock alone: a daemon that inherited it would hold it as long as it lives.
if [ "${1:-}" != locked ]; then
  exec flock --close "$dir/docker.lock" sh "$here/docker.sh" locked
fi

sh "$here/../../vendor/setup.sh" test

answers() {
  docker -H "unix://$socket" version --format '{{.Server.Version}}' >/dev/null 2>&1
}

start_engine() {
  # A file that a dead daemon left keeps the new one from starting.
  for pid_file in /var/run/docker.pid /run/docker/containerd/containerd.pid; do
    if [ -f "$pid_file" ] &&
      ! grep -q -E '^(dockerd|containerd)$' "/proc/$(cat "$pid_file")/comm" 2>/dev/null; then
      rm -f "$pid_file"
    fi
  done
  setsid dockerd -H "unix://$socket" >"$dir/dockerd.log" 2>&1 </dev/null &
  waited=0
  until answers; do
    waited=$((waited + 1))
    if [ "$waited" -gt 300 ]; then
      tail -n 20 "$dir/dockerd.log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

answers || start_engine
for name in debian busybox nojson; do
  docker -H "unix://$socket" image inspect "farcall-spec/$name" >/dev/null 2>&1 && continue
  tar_file=$(sh "$here/root.sh" "$name")
  docker -H "unix://$socket" import "$tar_file" "farcall-spec/$name" >/dev/null
done

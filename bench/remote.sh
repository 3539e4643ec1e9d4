#!/bin/sh
# Calls by files, oneshots and shipping on every backend of the specs' testbed. $1: the build folder.
# As root.
set -eu
build=$(cd "${1:-build}" && pwd)
cd "$(dirname "$0")/.."
. bench/testbed.sh
head -c 67108864 /dev/zero >"$work/64MiB"
docker run -d --name "$box" farcall-spec/debian sleep 3600 >/dev/null
host bench/remote.lua "$work/config.lua" local bubblewrap ssh docker singularity podman \
  "docker=docker cp $work/64MiB $box:/tmp/64MiB" \
  "ssh=scp -q -i $bed/ssh/ed25519 -o UserKnownHostsFile=$bed/ssh/known_hosts -P $port $work/64MiB farcall-far@127.0.0.1:/tmp/64MiB"

#!/bin/sh
# The stream transport on the backends of the specs' testbed, with each form of the runner, beside
# bare execs; then calls through ssh and docker beside mitogen and execnet.
# $1: the build folder. Further arguments: only these backends. As root.
set -eu
build=$(cd "${1:-build}" && pwd)
[ $# -gt 0 ] && shift
cd "$(dirname "$0")/.."
. bench/testbed.sh
[ $# -gt 0 ] || set -- local ssh docker singularity
for form in c python; do
  echo "runner: $form"
  host bench/stream.lua "$work/config.lua" "$form" "$@"
done
docker run -d --name "$box" farcall-spec/debian sleep 3600 >/dev/null
bench/links.py "$build" "$work/config.lua" "$port" "$bed/ssh" "$box"

#!/bin/sh
# Every benchmark side by side, in the order of the README. $1: the build folder.
set -eu
build=$(cd "${1:-build}" && pwd)
cd "$(dirname "$0")/.."
cmake -S . -B "$build" -DBENCH=ON >/dev/null
cmake --build "$build" -j "$(nproc)" >/dev/null
host() {
  FARCALL_SUPERVISOR="$build/farcall-supervisor" LUA_PATH="$build/lua/?.lua;$build/lua/?/init.lua;;" \
    LUA_CPATH="$build/?.so;;" PATH=/usr/bin:/bin luajit "$@"
}
echo "== one call"
bench/calls.py "$build"
echo "== start-up"
bench/startup.py "$build"
echo "== many scripts in one engine"
host bench/scripts.lua
echo "== oneshots"
host bench/oneshots.lua "$build"
echo "== beyond this machine, by stream"
bench/stream.sh "$build"
echo "== beyond this machine, by files"
bench/remote.sh "$build"
echo "== batches"
bench/batch.sh "$build"
echo "== base64"
"$build/bench/base64"
echo "== JSON"
host bench/json.lua

#!/bin/sh
# Builds the thread stress tests with ThreadSanitizer and plainly, and runs both.
# Usage: spec/stress/run.sh [JOBS]
set -eu
cd "$(dirname "$0")/../.."
jobs=${1:-2}
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
printf 'backend "here" { use = "local" }\nbackend "own" { use = "local", own_cwd = true }\n' \
  >"$home/config.lua"

build() { # folder, sanitizer
  cmake -S . -B "$1" -DSANITIZE="$2" >/dev/null
  cmake --build "$1" -j "$jobs" \
    --target stress_oneshot stress_work stress_handoff stress_embed embed_example supervisor \
    >/dev/null
}

example() { # folder
  HOME=$home XDG_RUNTIME_DIR=$home XDG_STATE_HOME=$home "$1/examples/embed" "$home/config.lua" \
    here own
}

build build-tsan thread
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
echo "with ThreadSanitizer:"
build-tsan/spec/stress/stress_oneshot 100000
build-tsan/spec/stress/stress_work 60
build-tsan/spec/stress/stress_handoff 20000
build-tsan/spec/stress/stress_embed spec/stress/config.lua 1000 10
example build-tsan

build build-stress ""
echo "plain:"
build-stress/spec/stress/stress_oneshot
build-stress/spec/stress/stress_work
build-stress/spec/stress/stress_handoff
build-stress/spec/stress/stress_embed spec/stress/config.lua
example build-stress

#!/bin/sh
# Builds the thread stress tests with ThreadSanitizer and plainly, and runs both.
# Usage: spec/stress/run.sh [JOBS]
set -eu
cd "$(dirname "$0")/../.."
jobs=${1:-2}

build() { # folder, sanitizer
  cmake -S . -B "$1" -DSANITIZE="$2" >/dev/null
  cmake --build "$1" -j "$jobs" --target stress_oneshot stress_work >/dev/null
}

build build-tsan thread
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
echo "with ThreadSanitizer:"
build-tsan/spec/stress/stress_oneshot 100000
build-tsan/spec/stress/stress_work 60

build build-stress ""
echo "plain:"
build-stress/spec/stress/stress_oneshot
build-stress/spec/stress/stress_work

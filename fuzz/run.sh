#!/bin/sh
# Builds the fuzz targets into build-fuzz and runs each for SECONDS (60), two at a time.
# usage: fuzz/run.sh [SECONDS [TARGET...]]. Exit status 1 when any target crashed; what crashed it
# is left in build-fuzz/crash/TARGET-*.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift

mkdir -p build-fuzz/crash
build() {
  CC=clang cmake -S . -B build-fuzz -DFUZZ=ON && cmake --build build-fuzz --target fuzz -j2
}
if ! build >build-fuzz/build.log 2>&1; then
  cat build-fuzz/build.log >&2
  exit 2
fi

if [ $# -eq 0 ]; then
  for file in build-fuzz/fuzz/fuzz_*; do
    if [ -x "$file" ] && [ -f "$file" ]; then
      set -- "$@" "${file##*/fuzz_}"
    fi
  done
fi

# The corpus that grows is kept in build-fuzz; the seeds of the repository stay as they are.
one() {
  name=$1
  mkdir -p "build-fuzz/corpus/$name" "fuzz/corpus/$name"
  dictionary=fuzz/$name.dict
  [ -f "$dictionary" ] || dictionary=
  if "build-fuzz/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="build-fuzz/crash/$name-" \
    ${dictionary:+"-dict=$dictionary"} \
    "build-fuzz/corpus/$name" "fuzz/corpus/$name" >"build-fuzz/$name.log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "build-fuzz/$name.log")
    echo "$name: ok, $runs runs in $seconds s"
  else
    tail -n 40 "build-fuzz/$name.log"
    echo "$name: FAILED (build-fuzz/$name.log)"
    return 1
  fi
}

failed=0
while [ $# -gt 0 ]; do
  one "$1" &
  first=$!
  shift
  if [ $# -gt 0 ]; then
    one "$1" || failed=1
    shift
  fi
  wait "$first" || failed=1
done
exit "$failed"

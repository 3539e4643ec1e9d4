#!/bin/sh
# Builds the fuzz targets into build-fuzz and runs each for SECONDS (60), two at a time.
# usage: fuzz/run.sh [SECONDS [TARGET...]]. Exit status 1 when any target crashed; what crashed it
# is left in build-fuzz/crash/TARGET-*.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift

CC=clang cmake -S . -B build-fuzz -DFUZZ=ON >build-fuzz.log 2>&1 &&
  cmake --build build-fuzz --target fuzz -j2 >>build-fuzz.log 2>&1 || {
  cat build-fuzz.log >&2
  exit 2
}
mv build-fuzz.log build-fuzz/build.log
mkdir -p build-fuzz/crash

if [ $# -eq 0 ]; then
  set -- $(for file in build-fuzz/fuzz/fuzz_*; do [ -x "$file" ] && [ -f "$file" ] && echo "${file##*/fuzz_}"; done)
fi

# The corpus that grows is kept in build-fuzz; the seeds of the repository stay as they are.
one() {
  name=$1
  mkdir -p "build-fuzz/corpus/$name" "fuzz/corpus/$name"
  dictionary=
  [ -f "fuzz/$name.dict" ] && dictionary="-dict=fuzz/$name.dict"
  if "build-fuzz/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="build-fuzz/crash/$name-" $dictionary \
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

#!/bin/sh
# Runs every spec with the build in $1, and those of files, sockets and kills once more as an
# ordinary user when this is root. Ends with `N passed, N failed`. Further arguments: only these
# spec files.
#
# Most specs of services wait most of the time: they run beside the others, in a process of their
# own. Hundreds of tests let time pass on purpose, and such company can take a deadline from one of
# them: a file that fails is run a second time, alone, and counts as it ends then. Both are told,
# for what is unsteady is to be mended. Where more than a few files fail, nothing is tried again.
set -u
build=${1:-build}
[ $# -gt 0 ] && shift
cd "$(dirname "$0")/.." || exit 1
most_again=4

# The services that specs run against.
sh spec/testbed/up.sh || exit 1

# What a run of specs says is $logs/NAME, its counts (`FILE PASSED FAILED`) are $logs/NAME.counts.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
chmod 755 "$logs"

# counted NAME COMMAND...: what this command says, and its counts. busted ends with the number of
# failures: a process that ends otherwise (killed, or stopped by a sanitizer) is a failure too.
counted() {
  name=$1
  shift
  SPEC_COUNTS=$logs/$name.counts
  export SPEC_COUNTS
  : >"$SPEC_COUNTS"
  chmod 666 "$SPEC_COUNTS"
  "$@"
  awk -v status="$?" '{ failed += $3 } END { exit status != failed + 0 }' "$SPEC_COUNTS" ||
    echo "$name-ended-badly 0 1" >>"$SPEC_COUNTS"
}

specs() {
  "$build/spec_host" spec/run.lua -o spec/support/report.lua --helper spec/support/leaks.lua "$@"
}

# group NAME FILE...: these specs in the background; what they say is kept in a file.
groups=""
group() {
  groups="$groups $1"
  one=$1
  shift
  counted "$one" specs "$@" >"$logs/$one" 2>&1 &
}

# failed NAME: the spec files of this run that failed.
failed() {
  awk '$3 > 0 { print $1 }' "$logs/$1.counts"
}

# again NAME COMMAND...: the failed files of this run once more, alone, by this command.
again() {
  first=$1
  shift
  # shellcheck disable=SC2046 # names of files, without spaces
  counted "again-$first" "$@" $(failed "$first")
  awk -v run="$first" '$2 > 0 && $3 == 0 {
    printf "unsteady: %s (%s) failed beside the others and passed alone\n", $1, run
  }' "$logs/again-$first.counts"
}

if [ $# -gt 0 ]; then
  counted chosen specs "$@"
else
  # The contract asks services, not our C: under a sanitizer, which slows it down, it tells no more.
  # What memory the engine takes there is the sanitizer's.
  if [ "$build" != build-asan ]; then
    group contract-docker spec/backends/contract/docker_spec.lua
    group contract-ssh spec/backends/contract/ssh_spec.lua
    # shellcheck disable=SC2046 # names of files, without spaces
    group contract $(find spec/backends/contract -name '*_spec.lua' ! -name docker_spec.lua \
      ! -name ssh_spec.lua) spec/memory_spec.lua
  fi
  # shellcheck disable=SC2046 # names of files, without spaces
  group services $(find spec/backends -maxdepth 1 -name '*_spec.lua') spec/clients spec/faults \
    spec/clean_up_spec.lua spec/environments_docker_spec.lua spec/embed_spec.lua
  # shellcheck disable=SC2046
  counted here specs $(find spec -maxdepth 1 -name '*_spec.lua' ! -name clean_up_spec.lua \
    ! -name environments_docker_spec.lua ! -name embed_spec.lua ! -name memory_spec.lua | sort) \
    $(find spec -mindepth 1 -maxdepth 1 -type d ! -name backends ! -name clients ! -name faults |
      sort)
  if [ "$(id -u)" -eq 0 ]; then
    echo "as an ordinary user:"
    counted user sh spec/support/as_user.sh "$build"
  fi
  wait
  for name in $groups; do
    cat "$logs/$name"
  done

  failures=$(for name in here user $groups; do failed "$name"; done)
  # Not what could not be loaded, and not a process that ended badly.
  if [ -n "$failures" ] && ! echo "$failures" | grep -qv '_spec\.lua$' &&
    [ "$(echo "$failures" | wc -l)" -le "$most_again" ]; then
    echo "once more, alone:"
    for name in here $groups; do
      [ -z "$(failed "$name")" ] || again "$name" specs
    done
    [ -z "$(failed user)" ] || again user sh spec/support/as_user.sh "$build"
  fi
fi

# What a second try said counts instead of the first.
awk '
  FNR == 1 {
    run = FILENAME
    sub(/.*\//, "", run)
    second = sub(/^again-/, "", run)
  }
  second || !((run, $1) in tried) {
    passed[run, $1] = $2
    failed[run, $1] = $3
  }
  second { tried[run, $1] = 1 }
  END {
    for (one in passed) {
      all_passed += passed[one]
      all_failed += failed[one]
    }
    printf "%d passed, %d failed\n", all_passed, all_failed
    exit all_failed > 0
  }' "$logs"/*.counts

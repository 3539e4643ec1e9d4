#!/bin/sh
# Runs every spec with the build in $1, and those of files, sockets and kills once more as an
# ordinary user when this is root. Ends with `N passed, N failed`. Further arguments: only these
# spec files.
#
# Most specs of services wait most of the time: they run beside the others, in a process of their own.
set -u
build=${1:-build}
[ $# -gt 0 ] && shift
cd "$(dirname "$0")/.." || exit 1

# The services that specs run against.
sh spec/testbed/up.sh || exit 1

SPEC_COUNTS=$(mktemp)
export SPEC_COUNTS
chmod 666 "$SPEC_COUNTS"
logs=$(mktemp -d)
trap 'rm -rf "$SPEC_COUNTS" "$logs"' EXIT

status=0
specs() {
  "$build/spec_host" spec/run.lua -o spec/support/report.lua --helper spec/support/leaks.lua "$@"
}

# group NAME FILE...: these specs in the background; what they say is kept in a file.
groups=""
group() {
  name=$1
  shift
  (specs "$@" >"$logs/$name" 2>&1; echo $? >"$logs/$name.status") &
  groups="$groups $name"
}

if [ $# -gt 0 ]; then
  specs "$@" || status=1
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
  specs $(find spec -maxdepth 1 -name '*_spec.lua' ! -name clean_up_spec.lua \
    ! -name environments_docker_spec.lua ! -name embed_spec.lua ! -name memory_spec.lua | sort) \
    $(find spec -mindepth 1 -maxdepth 1 -type d ! -name backends ! -name clients ! -name faults |
      sort) || status=1
  if [ "$(id -u)" -eq 0 ]; then
    echo "as an ordinary user:"
    sh spec/support/as_user.sh "$build" || status=1
  fi
  wait
  for name in $groups; do
    cat "$logs/$name"
    [ "$(cat "$logs/$name.status")" = 0 ] || status=1
  done
fi

awk -v status="$status" '
  { passed += $1; failed += $2 }
  END {
    # A run that died before it could count is a failure too.
    if (status && !failed) failed = 1
    printf "%d passed, %d failed\n", passed, failed
  }' "$SPEC_COUNTS"
exit "$status"

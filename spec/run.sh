#!/bin/sh
# Runs every spec with the build in $1, and those of files, sockets and kills once more as an
# ordinary user when this is root. Ends with `N passed, N failed`. Further arguments: only these
# spec files.
set -u
build=${1:-build}
[ $# -gt 0 ] && shift
cd "$(dirname "$0")/.." || exit 1

# The services that specs run against.
sh spec/testbed/up.sh || exit 1

SPEC_COUNTS=$(mktemp)
export SPEC_COUNTS
chmod 666 "$SPEC_COUNTS"
trap 'rm -f "$SPEC_COUNTS"' EXIT

status=0
specs() {
  "$build/spec_host" spec/run.lua -o spec/support/report.lua --helper spec/support/leaks.lua "$@"
}

if [ $# -gt 0 ]; then
  specs "$@" || status=1
else
  specs spec || status=1
  if [ "$(id -u)" -eq 0 ]; then
    echo "as an ordinary user:"
    sh spec/support/as_user.sh "$build" || status=1
  fi
fi

awk -v status="$status" '
  { passed += $1; failed += $2 }
  END {
    # A run that died before it could count is a failure too.
    if (status && !failed) failed = 1
    printf "%d passed, %d failed\n", passed, failed
  }' "$SPEC_COUNTS"
exit "$status"

#!/bin/sh
# Runs specs of the core under valgrind, as far as it knows the system calls they make: tests tagged
# #kill trace their children, which valgrind cannot. Usage: spec/valgrind.sh [BUILD [SPEC_FILE...]]
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
[ $# -gt 0 ] && shift
if [ $# -eq 0 ]; then
  for name in json base64 atomicfile fs work http; do
    set -- "$@" "spec/core/${name}_spec.lua"
  done
fi

status=0
for file in "$@"; do
  echo "valgrind: $file"
  valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,possible \
    --errors-for-leak-kinds=definite,possible --suppressions=spec/valgrind.supp \
    "$build/spec_host" spec/support/interpreted.lua --helper spec/support/leaks.lua \
    --exclude-tags=kill "$file" || status=1
done
[ $status -eq 0 ] && echo "valgrind: clean"
exit $status

#!/bin/sh
# luacheck, clang-format, clang-tidy, shellcheck and the compiler's own warnings as errors.
set -eu
cd "$(dirname "$0")/.."
luacheck -q lua spec bench examples
find core examples runner fuzz bench spec -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror
find . -path './build*' -prune -o -name '*.sh' -print0 | xargs -0 shellcheck
shellcheck .ci/run
cmake -S . -B build-lint -DCMAKE_C_FLAGS=-Werror >/dev/null
cmake --build build-lint -j "$(nproc)" >/dev/null
find core runner -name '*.c' -print0 | xargs -0 -n 1 -P "$(nproc)" clang-tidy -p build-lint --quiet
echo "lint: clean"

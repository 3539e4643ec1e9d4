#!/bin/sh
# Speed of base64, each level beside OpenSSL EVP and memcpy. usage: bench/base64.sh [BUILD_DIR]
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-bench}
cmake -S . -B "$build" -DBENCH=ON >/dev/null
cmake --build "$build" --target bench_base64 -j2 >/dev/null
exec "$build/bench/base64"

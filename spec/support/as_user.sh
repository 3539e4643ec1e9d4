#!/bin/sh
# Runs the specs of files, sockets, processes and kills as an ordinary user, from a copy of the tree
# that this user can read. $1: the build folder; further arguments: only these spec files. Must be
# started by root.
set -eu
# As in spec/run.sh: under a sanitizer the contract tells no more.
contract=spec/backends/contract/local_spec.lua
[ "$1" != build-asan ] || contract=
build=$(cd "$1" && pwd)
shift
if [ $# -eq 0 ]; then
  set -- spec/core spec/transports spec/backends/local_spec.lua ${contract:+"$contract"} \
    spec/tools spec/supervisor_spec.lua spec/engine_spec.lua spec/supervision_spec.lua \
    spec/shell_spec.lua spec/journal_spec.lua spec/output_spec.lua spec/hostile_spec.lua \
    spec/cli spec/trust_spec.lua spec/places_spec.lua
fi
user=farcall-spec
id "$user" >/dev/null 2>&1 || useradd --system --no-create-home --shell /bin/sh "$user"
copy=$(mktemp -d /tmp/farcall-as-user-XXXXXX)
trap 'rm -rf "$copy"' EXIT
cp -R core runner lua spec bench fuzz examples docs CMakeLists.txt Makefile ./*.md "$copy/"
mkdir -p "$copy/build" "$copy/home"
cp "$build/spec_host" "$build/farcall" "$build/farcall-supervisor" "$build/farcall.so" "$copy/build/"
mkdir -p "$copy/build/spec/stress"
cp "$build"/spec/stress/stress_* "$copy/build/spec/stress/"
mkdir "$copy/build/lua"
cp -RL "$build/lib" "$build/runner" "$copy/build/"
ln -s "$copy/lua" "$copy/build/lua/farcall"
cp "$build/lua/farcall.bytecode" "$copy/build/lua/"
chown -R "$user" "$copy"
chmod 755 "$copy"
cd "$copy"
HOME=$copy/home setpriv --reuid="$user" --regid="$user" --init-groups \
  env -u XDG_RUNTIME_DIR -u XDG_STATE_HOME -u XDG_CONFIG_HOME \
  build/spec_host spec/run.lua -o spec/support/report.lua --helper spec/support/leaks.lua "$@"

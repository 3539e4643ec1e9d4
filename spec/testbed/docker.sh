#!/bin/sh
# A Docker engine with the images of the specs, from a fresh Debian 12 machine, as root. Does only what
# is missing; two callers at once wait for each other.
#   farcall-spec/debian    Debian with python3
#   farcall-spec/busybox   a static busybox with its links and nothing else
#   farcall-spec/nojson    Debian with python3-minimal, which has no module json
# The roots are kept as DIR/NAME.tar for other services, DIR = ${FARCALL_TESTBED:-/var/tmp/farcall-testbed}.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
socket=/var/run/docker.sock
mkdir -p "$dir"

# The lock is held by flock alone: a daemon that inherited it would hold it as long as it lives.
if [ "${1:-}" != locked ]; then
  exec flock --close "$dir/docker.lock" sh "$here/docker.sh" locked
fi

sh "$here/../../vendor/setup.sh" test

answers() {
  docker -H "unix://$socket" version --format '{{.Server.Version}}' >/dev/null 2>&1
}

start_engine() {
  # A file that a dead daemon left keeps the new one from starting.
  for pid_file in /var/run/docker.pid /run/docker/containerd/containerd.pid; do
    if [ -f "$pid_file" ] && ! kill -0 "$(cat "$pid_file")" 2>/dev/null; then
      rm -f "$pid_file"
    fi
  done
  setsid dockerd -H "unix://$socket" >"$dir/dockerd.log" 2>&1 </dev/null &
  waited=0
  until answers; do
    waited=$((waited + 1))
    if [ "$waited" -gt 300 ]; then
      tail -n 20 "$dir/dockerd.log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

# root NAME: makes DIR/NAME.tar by the function root_NAME, in a directory that is then removed.
root() {
  [ ! -f "$dir/$1.tar" ] || return 0
  tree=$(mktemp -d "$dir/root-XXXXXX")
  chmod 755 "$tree"
  "root_$1" "$tree"
  tar -C "$tree" --one-file-system -c -f "$dir/$1.tar.new" .
  mv "$dir/$1.tar.new" "$dir/$1.tar"
  rm -rf "$tree"
}

# Where this machine gets its own packages from, there is another root to be had too.
mirror() {
  # shellcheck disable=SC2016 # apt's own variable
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -m 1 -E '/debian/?$' || echo http://deb.debian.org/debian
}

bootstrap() {
  debootstrap --variant=minbase --include="$1" bookworm "$2" "$(mirror)" >"$dir/debootstrap.log" 2>&1 || {
    tail -n 20 "$dir/debootstrap.log" >&2
    return 1
  }
  rm -rf "$2"/var/cache/apt/archives/*.deb "$2"/var/lib/apt/lists/*
}

root_debian() { bootstrap python3 "$1"; }

root_nojson() {
  # python3-minimal alone: `import json` fails, as in some slim images.
  bootstrap python3-minimal "$1"
}

root_busybox() {
  mkdir -p "$1/bin" "$1/etc" "$1/proc" "$1/root" "$1/tmp"
  chmod 1777 "$1/tmp"
  cp "$(command -v busybox)" "$1/bin/busybox"
  for applet in $("$1/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
}

answers || start_engine
for name in debian busybox nojson; do
  docker image inspect "farcall-spec/$name" >/dev/null 2>&1 && continue
  root "$name"
  docker import "$dir/$name.tar" "farcall-spec/$name" >/dev/null
done

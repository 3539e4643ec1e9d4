#!/bin/sh
# Podman for the specs, from a fresh Debian 12 machine, as root, without systemd. Does only what is
# missing; two callers at once wait for each other. Prints the directory
# DIR = ${FARCALL_TESTBED:-/var/tmp/farcall-testbed}/podman:
#   DIR/bin/podman    the program, for PATH, with storage and settings of its own
#   DIR/podman.sock   its service that speaks the language of the Docker engine
# Image: farcall-spec/debian, Debian with python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
dir=$top/podman
mkdir -p "$dir/bin"

sh "$here/../../vendor/setup.sh" test >&2
exec 9>"$top/podman.lock"
flock 9

# Where root may not raise limits, those of a container must not be above this process' own.
files=$(sh -c 'ulimit -H -n')
cat >"$dir/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
END

cat >"$dir/bin/podman.new" <<END
#!/bin/sh
export CONTAINERS_CONF=$dir/containers.conf
exec /usr/bin/podman --root $dir/storage --runroot $dir/run "\$@"
END
chmod 755 "$dir/bin/podman.new"
mv "$dir/bin/podman.new" "$dir/bin/podman"

if ! "$dir/bin/podman" image exists localhost/farcall-spec/debian 9>&-; then
  tar_file=$(sh "$here/root.sh" debian)
  "$dir/bin/podman" import --quiet "$tar_file" farcall-spec/debian >/dev/null 2>&1 9>&-
fi

answers() {
  /usr/bin/podman --url "unix://$dir/podman.sock" version >/dev/null 2>&1 9>&-
}
if ! answers; then
  rm -f "$dir/podman.sock"
  setsid "$dir/bin/podman" system service --time 0 "unix://$dir/podman.sock" \
    >"$dir/service.log" 2>&1 </dev/null 9>&- &
  waited=0
  until answers; do
    waited=$((waited + 1))
    if [ "$waited" -gt 300 ]; then
      tail -n 20 "$dir/service.log" >&2
      exit 1
    fi
    sleep 0.1
  done
fi
echo "$dir"

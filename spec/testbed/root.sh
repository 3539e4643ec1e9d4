#!/bin/sh
# The root file systems of the specs' images: makes DIR/NAME.tar where it is missing and prints its
# path, DIR = ${FARCALL_TESTBED:-/var/tmp/farcall-testbed}. Two callers at once wait for each other.
#   debian     Debian with python3
#   nojson     Debian with python3-minimal: `import json` fails, as in some slim images
#   busybox    a static busybox with its links and nothing else
#   apptainer  Debian sid with Apptainer
set -eu
name=$1
dir=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
mkdir -p "$dir"

exec 9>"$dir/root.lock"
flock 9

# Where this machine gets its own packages from, there is another root to be had too.
mirror() {
  # shellcheck disable=SC2016 # the words of apt
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -m 1 -E '/debian/?$' || echo http://deb.debian.org/debian
}

# bootstrap SUITE PACKAGES DIRECTORY
bootstrap() {
  debootstrap --variant=minbase --include="$2" "$1" "$3" "$(mirror)" >"$dir/debootstrap-$1.log" 2>&1 9>&- || {
    tail -n 20 "$dir/debootstrap-$1.log" >&2
    return 1
  }
  rm -rf "$3"/var/cache/apt/archives/*.deb "$3"/var/lib/apt/lists/*
}

make_busybox() {
  mkdir -p "$1/bin" "$1/etc" "$1/proc" "$1/root" "$1/tmp"
  chmod 1777 "$1/tmp"
  cp "$(command -v busybox)" "$1/bin/busybox"
  for applet in $("$1/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
}

if [ ! -f "$dir/$name.tar" ]; then
  tree=$(mktemp -d "$dir/root-XXXXXX")
  trap 'rm -rf "$tree"' EXIT
  chmod 755 "$tree"
  case $name in
  debian) bootstrap bookworm python3 "$tree" ;;
  nojson) bootstrap bookworm python3-minimal "$tree" ;;
  busybox) make_busybox "$tree" ;;
  apptainer) bootstrap sid apptainer "$tree" ;;
  *)
    echo "no such root: $name" >&2
    exit 2
    ;;
  esac
  tar -C "$tree" --one-file-system -c -f "$dir/$name.tar.new" .
  mv "$dir/$name.tar.new" "$dir/$name.tar"
fi
echo "$dir/$name.tar"

#!/bin/sh
# The root file systems of the specs' images: makes DIR/NAME.tar where it is missing and prints its
# path, DIR = ${FARCALL_TESTBED:-/var/tmp/farcall-testbed}. Two callers at once wait for each other.
#   debian   Debian with python3
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

if [ ! -f "$dir/$name.tar" ]; then
  tree=$(mktemp -d "$dir/root-XXXXXX")
  trap 'rm -rf "$tree"' EXIT
  chmod 755 "$tree"
  case $name in
  debian) bootstrap bookworm python3 "$tree" ;;
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

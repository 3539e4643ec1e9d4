#!/bin/sh
# Apptainer for the specs, from a fresh Debian 12 machine, as root. Debian 12 has no package of it, so
# that of Debian sid runs in a sid root with a mount namespace of its own, which is pinned to a file.
# Does only what is missing; two callers at once wait for each other. Prints the directory
# DIR = ${FARCALL_TESTBED:-/var/tmp/farcall-testbed}/apptainer:
#   DIR/bin/apptainer   the program, for PATH
#   DIR/debian.sif      an image file: Debian with python3
#   DIR/debian          the same as a directory
# It sees this machine's /tmp, /var/tmp and whatever of / does not belong to a system (/home, /srv).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
dir=$top/apptainer
mkdir -p "$dir/bin" "$dir/namespace"

sh "$here/../../vendor/setup.sh" test >&2
exec 9>"$top/apptainer.lock"
flock 9

# The root of sid.
if [ ! -x "$dir/sid/usr/bin/apptainer" ]; then
  tar_file=$(sh "$here/root.sh" apptainer)
  rm -rf "$dir/sid" "$dir/sid.new"
  mkdir "$dir/sid.new"
  tar -C "$dir/sid.new" -x -f "$tar_file"
  for file in hosts resolv.conf; do
    cp "/etc/$file" "$dir/sid.new/etc/$file" 2>/dev/null || : >"$dir/sid.new/etc/$file"
  done
  mv "$dir/sid.new" "$dir/sid"
fi

# Its mount namespace. A chroot would not do: the root must be a mount point.
# shellcheck disable=SC2016 # for the shell in there
PIVOT='
  set -e
  root=$1
  mount --bind "$root" "$root"
  for place in /*/ /var/tmp/; do
    case $place in
    /bin/ | /boot/ | /etc/ | /lib*/ | /lost+found/ | /run/ | /sbin/ | /usr/ | /var/) continue ;;
    esac
    mkdir -p "$root$place"
    mount --rbind "$place" "$root$place"
  done
  mkdir -p "$root/.outside"
  pivot_root "$root" "$root/.outside"
  cd /
  umount -l /.outside
'
# One that was made before this checkout's place was there does not see it.
if ! nsenter --mount="$dir/namespace/mnt" --wdns=/ /usr/bin/test -f "$here/apptainer.sh" 2>/dev/null 9>&-; then
  # The file that pins a namespace must be on a mount that nobody shares.
  mountpoint -q "$dir/namespace" || mount --bind "$dir/namespace" "$dir/namespace"
  mount --make-private "$dir/namespace"
  umount "$dir/namespace/mnt" 2>/dev/null || true
  : >"$dir/namespace/mnt"
  unshare --mount="$dir/namespace/mnt" --propagation private \
    sh -c "$PIVOT" sh "$dir/sid" 9>&-
fi

cat >"$dir/bin/apptainer.new" <<END
#!/bin/sh
# Where root lacks CAP_SYS_RESOURCE (bit 24), Apptainer must not ask for it.
caps=\$(sed -n 's/^CapBnd:[[:space:]]*/0x/p' /proc/self/status)
[ \$((caps >> 24 & 1)) -eq 1 ] || export APPTAINER_DROP_CAPS=CAP_SYS_RESOURCE
export APPTAINER_CONFIGDIR=$dir/config
exec nsenter --mount=$dir/namespace/mnt --wdns=/ /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
  /usr/bin/apptainer "\$@"
END
chmod 755 "$dir/bin/apptainer.new"
mv "$dir/bin/apptainer.new" "$dir/bin/apptainer"

if [ ! -f "$dir/debian.sif" ]; then
  tar_file=$(sh "$here/root.sh" debian)
  rm -rf "$dir/debian" "$dir/debian.new"
  mkdir "$dir/debian.new"
  tar -C "$dir/debian.new" -x -f "$tar_file"
  "$dir/bin/apptainer" --quiet build --sandbox "$dir/debian" "$dir/debian.new" >&2 9>&-
  rm -rf "$dir/debian.new"
  "$dir/bin/apptainer" --quiet build "$dir/debian.sif.new" "$dir/debian" >&2 9>&-
  mv "$dir/debian.sif.new" "$dir/debian.sif"
fi
echo "$dir"

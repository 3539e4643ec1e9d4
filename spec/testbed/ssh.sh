#!/bin/sh
# SSH servers for the specs, on loopback, from a fresh Debian 12 machine, as root. Does only what is
# missing; two callers at once wait for each other. Prints the directory
# DIR = ${FARCALL_TESTBED:-/var/tmp/farcall-testbed}/ssh:
#   DIR/ed25519, DIR/rsa   private keys that log in as the user farcall-far, whose home is empty, and
#                          as farcall-noisy, whose rc files print
#   DIR/known_hosts        the keys of the servers
#   DIR/port.main          port of a server with room for many sessions
#   DIR/port.default       port of one with OpenSSH's own limits (MaxSessions 10)
# A link that delays, stalls or cuts: spec/support/relay.lua. An agent, a server that a spec may
# kill: spec/support/sshd.lua.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
top=${FARCALL_TESTBED:-/var/tmp/farcall-testbed}
dir=$top/ssh
mkdir -p "$dir"
chmod 755 "$top" "$dir"

if [ "${1:-}" != locked ]; then
  exec flock --close "$top/ssh.lock" sh "$here/ssh.sh" locked
fi
sh "$here/../../vendor/setup.sh" test >&2

# write FILE: standard input, all at once: others may be reading.
write() {
  cat >"$1.new"
  mv "$1.new" "$1"
}

# A home without anything in it that a shell would read.
for user in farcall-far farcall-noisy; do
  if ! id "$user" >/dev/null 2>&1; then
    useradd --create-home --home-dir "/home/$user" --skel /nonexistent --shell /bin/bash "$user"
    usermod -p '*' "$user"
  fi
done
for file in .bashrc .bash_profile; do
  write "/home/farcall-noisy/$file" <<'END'
echo "Welcome to this host"
echo "You have mail." >&2
END
done
mkdir -p /run/sshd

for kind in ed25519 rsa; do
  [ -f "$dir/$kind" ] || ssh-keygen -q -t "$kind" -N '' -C farcall-spec -f "$dir/$kind"
done
[ -f "$dir/host" ] || ssh-keygen -q -t ed25519 -N '' -C farcall-spec-host -f "$dir/host"
cat "$dir/ed25519.pub" "$dir/rsa.pub" | write "$dir/authorized_keys"

# server NAME PORT LINES: starts one unless it is there.
server() {
  write "$dir/$1.conf" <<END
Port $2
ListenAddress 127.0.0.1
HostKey $dir/host
PidFile $dir/$1.pid
AuthorizedKeysFile $dir/authorized_keys
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
$3
END
  if ! { [ -f "$dir/$1.pid" ] && kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null &&
    grep -q "$dir/$1.conf" "/proc/$(cat "$dir/$1.pid")/cmdline"; }; then
    /usr/sbin/sshd -f "$dir/$1.conf" -E "$dir/$1.log"
  fi
  echo "$2" | write "$dir/port.$1"
}
server main 22971 'MaxSessions 200
MaxStartups 200'
server default 22972 ''
for port in 22971 22972; do
  echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$dir/host.pub")"
done | write "$dir/known_hosts"
echo "$dir"

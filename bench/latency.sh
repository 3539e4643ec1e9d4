#!/bin/sh
# Calls of one script over a link that takes 20 ms more, 10 each way: of one caller, and of 8 at once;
# medians. By ssh with each of its clients, by stream and by files. $1: the build folder. As root.
set -eu
build=$(cd "${1:-build}" && pwd)
cd "$(dirname "$0")/.."
. bench/testbed.sh
mkdir "$work/relay"
python3 -I -S spec/support/relay.py "$port" "$work/relay" 0 0.01 &
relay=$!
trap 'kill "$relay"; rm -rf "$work"' EXIT
until [ -s "$work/relay/pid" ]; do sleep 0.1; done
far=$(cat "$work/relay/port")
sed "s/^\[127\.0\.0\.1\]:$port /[127.0.0.1]:$far /" "$bed/ssh/known_hosts" >"$work/known"
for client in libssh2 openssh; do
  cat >>"$work/config.lua" <<END
backend "slow-$client" {
  use = "ssh", host = "127.0.0.1", port = $far, user = "farcall-far", config = "none", agent = false,
  identity = { "$bed/ssh/ed25519" }, known_hosts = { "$work/known" }, client = "$client",
}
END
done
cat >"$work/script.py" <<'END'
import statistics, threading, time
from farcall import echo

ROUNDS, CALLS = 5, 50

def rate(callers):
    def calls():
        for i in range(CALLS):
            assert echo(n=i)["n"] == i
    threads = [threading.Thread(target=calls) for _ in range(callers)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * CALLS / (time.monotonic() - began)

echo(n=0)
one, eight = zip(*((rate(1), rate(8)) for _ in range(ROUNDS)))
one, eight = statistics.median(one), statistics.median(eight)
print("%10.1f %10.1f %8.2f" % (one, eight, eight / one))
END
printf '%-10s %-10s %10s %10s %8s\n' client transport '1 caller' '8 callers' ratio
for transport in stream file; do
  for client in libssh2 openssh; do
    printf '%-10s %-10s %s\n' "$client" "$transport" "$("$build/farcall" run -C "$work/config.lua" \
      -b "slow-$client" --transport "$transport" "$work/script.py")"
  done
done

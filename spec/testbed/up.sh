#!/bin/sh
# Everything that the specs run against, one after the other: later ones use what earlier ones made.
# Idempotent; about two minutes on a fresh machine, a second or two on one where all is up. As an
# ordinary user, who cannot, it does nothing: what needs it is not among that user's specs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" -eq 0 ] || exit 0
for name in docker podman apptainer ssh; do
  sh "$here/$name.sh" >/dev/null || { echo "spec/testbed/$name.sh failed" >&2; exit 1; }
done

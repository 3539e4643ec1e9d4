#!/bin/sh
# Installs the packages of packages.txt for the uses named as arguments (build run test lint fuzz
# bench), with apt, only where one is missing.
set -eu
here=$(dirname "$0")
missing=""
for use in "$@"; do
  # shellcheck disable=SC2013 # one word a line
  for package in $(awk -v use="$use" '$1 == use { print $2 }' "$here/packages.txt"); do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    case "$status" in
    *" installed") ;;
    *) missing="$missing $package" ;;
    esac
  done
done
[ -n "$missing" ] || exit 0
echo "installing:$missing" >&2
root=""
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install as root: apt-get install$missing" >&2; exit 1; }
  root=sudo
fi
# A package of another machine (name:machine).
for package in $missing; do
  case "$package" in
  *:*) $root dpkg --add-architecture "${package#*:}" ;;
  esac
done
$root apt-get update -qq
# sudo passes no variables on.
# shellcheck disable=SC2086 # a list of package names
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2

#!/usr/bin/env bash
# Sees to it that programs are there: need.sh WHAT=PACKAGE...
#
# WHAT is a command, a path, or the package's own name; PACKAGE is the Debian package that brings it. What is missing is
# installed with apt-get, if we are root or may become it; otherwise the command to run is printed, and the status is 1.
set -euo pipefail

missing=()
for pair in "$@"; do
  what=${pair%%=*} package=${pair#*=}
  [[ -e $what ]] || command -v "$what" >/dev/null || dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
((${#missing[@]})) || exit 0

install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
command -v apt-get >/dev/null || { echo "missing, and there is no apt-get here to install it: ${missing[*]}" >&2; exit 1; }
if ((EUID == 0)); then
  as_root=()
elif sudo -n true 2>/dev/null; then
  as_root=(sudo)
else
  echo "missing; run this first: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

echo "installing ${missing[*]}"
log=$(mktemp)
# Lists of packages may be absent or old: only then is it worth fetching them.
if ! "${as_root[@]}" "${install[@]}" >"$log" 2>&1 &&
  ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" "${install[@]}"; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  exit 1
fi
rm -f "$log"

#!/usr/bin/env bash
# Runs a command in another root: enter.sh ROOT COMMAND... What is mounted there ends with the command.
set -euo pipefail

root=${1:?usage: make/enter.sh ROOT COMMAND...}
shift
cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
mkdir -p "$root/proc"
# In containers without the right to mount, the compilers do without /proc.
alone=(unshare --mount)
"${alone[@]}" true 2>/dev/null || alone=()
exec "${alone[@]}" sh -c '[ -e "$0/proc/self" ] || mount -t proc proc "$0/proc" 2>/dev/null || true; exec chroot "$0" "$@"' "$root" "$@"

#!/usr/bin/env bash
# Builds the packages of what is committed twice, from nothing, in two directories, and compares: package_check.sh ARCH...
set -euo pipefail
cd "$(dirname "$0")/.."

export TOOLCHAIN=${TOOLCHAIN:-$PWD/out/toolchain} FRESH=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for place in "$work/one" "$work/another/place"; do
  git clone -q . "$place"
  make -C "$place" package ARCHES="$*" PARTS="${PARTS:-}"
  (cd "$place/out" && find . -type f -exec sha256sum {} + | sort -k 2) >"$place/sums"
done

if diff "$work/one/sums" "$work/another/place/sums"; then
  echo "the same $(wc -l <"$work/one/sums") files twice"
  echo "1 passed, 0 failed"
else
  echo "0 passed, 1 failed"
  exit 1
fi

#!/usr/bin/env bash
# Builds the packages of what is committed twice, from nothing, in two directories, and compares: package_check.sh ARCH...
#
# AGAINST=DIR names what a build of the same architectures left in its "out": then one more is enough.
set -euo pipefail
cd "$(dirname "$0")/.."

export TOOLCHAIN=${TOOLCHAIN:-$PWD/out/toolchain} FRESH=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The hashes of a build's files, by their names.
sums() {
  (cd "$1" && find . -type f -exec sha256sum {} + | sort -k 2)
}

build() {
  git clone -q . "$1"
  make -C "$1" package ARCHES="$2" PARTS="${PARTS:-}"
}

build "$work/another/place" "$*"
sums "$work/another/place/out" >"$work/another/sums"
if [[ ${AGAINST:-} ]]; then
  # It may hold more, and the compilers.
  (cd "$AGAINST" && awk '{ print $2 }' "$work/another/sums" | xargs sha256sum) >"$work/sums" || true
else
  build "$work/one" "$*"
  sums "$work/one/out" >"$work/sums"
fi

if diff "$work/sums" "$work/another/sums"; then
  echo "the same $(wc -l <"$work/sums") files twice"
  echo "1 passed, 0 failed"
else
  echo "0 passed, 1 failed"
  exit 1
fi

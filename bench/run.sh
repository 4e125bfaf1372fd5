#!/usr/bin/env bash
# Measures a lifecycle: bench/run.sh LIFECYCLE [ANOTHER_LIFECYCLE]. With two, both are measured in turns, for comparison.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
cargo_out=${CARGO_TARGET_DIR:-$PWD/target}
make/need.sh /usr/bin/python3=python3 /usr/lib/python3/dist-packages/pip=python3-pip busybox=busybox-static ldd=libc-bin /usr/bin/time=time \
  docker-registry=docker-registry igzip=isal
CARGO_TARGET_DIR=$cargo_out RUSTFLAGS=${RUSTFLAGS:--C target-feature=+crt-static} \
  cargo build --quiet --release --locked --target "$target" --manifest-path demo/buildpacks/assets/Cargo.toml
exec env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 bench/run.py "$cargo_out/$target/release/assets-buildpack" "$PWD/out/bench" "$@"

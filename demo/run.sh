#!/usr/bin/env bash
# From source to a running container: what `make demo` runs.
#
#   demo/run.sh LIFECYCLE [--extension]    LIFECYCLE is a directory that holds creator and launcher; with --extension
#                                          the other executables too, and an image extension is shown (as root)
#
# TARGET and RUSTFLAGS say how the Rust buildpack is compiled (the Makefile sets them: static).
set -euo pipefail
cd "$(dirname "$0")/.."

lifecycle=${1:?usage: demo/run.sh LIFECYCLE [--extension]}
out=$PWD/out/demo
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
cargo_out=${CARGO_TARGET_DIR:-$PWD/target}

make/need.sh /usr/bin/python3=python3 /usr/lib/python3/dist-packages/pip=python3-pip busybox=busybox-static \
  unshare=util-linux ldd=libc-bin /etc/ssl/certs/ca-certificates.crt=ca-certificates /usr/share/zoneinfo/UTC=tzdata
/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "demo: /usr/bin/python3 is older than 3.11" >&2
  exit 1
}

echo "Compiling the Rust buildpack (its log is in out/demo-buildpack.log) ..."
mkdir -p out
if ! CARGO_TARGET_DIR=$cargo_out RUSTFLAGS=${RUSTFLAGS:--C target-feature=+crt-static} \
  cargo build --release --locked --target "$target" --manifest-path demo/buildpacks/assets/Cargo.toml >out/demo-buildpack.log 2>&1; then
  tail -20 out/demo-buildpack.log >&2
  exit 1
fi
echo

export PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 demo/demo.py "$lifecycle" "$cargo_out/$target/release/assets-buildpack" "$out" "${@:2}"

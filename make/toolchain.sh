#!/usr/bin/env bash
# Makes a Debian root with compilers for all our architectures: toolchain.sh ROOT
#
# rustup's standard libraries are not all static, and another machine's differ. Debian bookworm's main archive changes only
# by point releases, is the same for everyone, and has Rust, Rust's standard library as source, musl, and cross compilers.
# They go into a root of their own, so that nothing of this machine changes. Needs root and a Debian mirror
# (DEBIAN_MIRROR). What has been made before is kept.
set -euo pipefail

root=${1:?usage: make/toolchain.sh ROOT}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
# The libc of a foreign musl is the only thing that comes as a package of its own architecture.
packages=(rustc-web cargo-web rust-web-src gcc libc6-dev musl-tools ca-certificates
  gcc-aarch64-linux-gnu libc6-dev-arm64-cross
  gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross
  gcc-s390x-linux-gnu libc6-dev-s390x-cross)
made="$root/etc/toolchain"

[[ $(cat "$made" 2>/dev/null) != "${packages[*]}" ]] || exit 0
((EUID == 0)) || { echo "toolchain: only root can make $root" >&2; exit 1; }
"$(dirname "$0")/need.sh" debootstrap=debootstrap /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring

echo "toolchain: installing ${packages[*]} in $root"
log=$(mktemp)
trap 'status=$?; ((status == 0)) || tail -20 "$log" >&2; rm -f "$log"' EXIT
rm -rf "$root"
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
# Nobody reads manuals here, and of Rust's source only the standard library is compiled.
printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' \
  '/usr/src/rustc-*/compiler/*' '/usr/src/rustc-*/src/*' '/usr/src/rustc-*/tests/*' >"$root/etc/dpkg/dpkg.cfg.d/lean"
debootstrap --variant=minbase bookworm "$root" "$mirror" >"$log" 2>&1

"$(dirname "$0")/enter.sh" "$root" sh -euc '
  export DEBIAN_FRONTEND=noninteractive
  dpkg --add-architecture arm64
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@"
  # As files: installed, it would bring the whole of the other architecture along.
  cd /tmp && apt-get download -qq musl-dev:arm64
  dpkg-deb --fsys-tarfile musl-dev_*_arm64.deb | tar -x -C / ./usr/include/aarch64-linux-musl ./usr/lib/aarch64-linux-musl
  rm -rf /tmp/*.deb /var/lib/apt/lists/* /var/cache/apt' sh "${packages[@]}" >>"$log" 2>&1
echo "${packages[*]}" >"$made"

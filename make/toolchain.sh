#!/usr/bin/env bash
# Makes a Debian root with compilers for these architectures: toolchain.sh ROOT ARCH...
#
# rustup's standard libraries are not all static, and another machine's differ. Debian bookworm's main archive changes only
# by point releases, is the same for everyone, and has Rust, Rust's standard library as source, musl, and cross compilers.
# They go into a root of their own, so that nothing of this machine changes. Needs root and a Debian mirror
# (DEBIAN_MIRROR). What has been made before is kept, and more is added.
set -euo pipefail
cd "$(dirname "$0")/.."

root=${1:?usage: make/toolchain.sh ROOT ARCH...}
shift
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
declare -A cross=(
  [arm64]="gcc-aarch64-linux-gnu libc6-dev-arm64-cross musl-dev:arm64"
  [ppc64le]="gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross"
  [s390x]="gcc-s390x-linux-gnu libc6-dev-s390x-cross"
)
made="$root/etc/toolchain"

missing=()
for package in rustc-web cargo-web rust-web-src gcc libc6-dev musl-tools make nasm autoconf automake libtool ca-certificates \
  $(for arch in "$@"; do echo "${cross[$arch]:-}"; done); do
  grep -qsFx "$package" "$made" || missing+=("$package")
done
((${#missing[@]})) || exit 0
((EUID == 0)) || { echo "toolchain: only root can make $root" >&2; exit 1; }

echo "toolchain: installing ${missing[*]} in $root"
log=$(mktemp)
trap 'status=$?; ((status == 0)) || tail -20 "$log" >&2; rm -f "$log"' EXIT
if [[ ! -e $made ]]; then
  make/need.sh debootstrap=debootstrap /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
  rm -rf "$root"
  mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
  # Nobody reads manuals here, and of Rust's source only the standard library is compiled.
  printf '%s\n' path-exclude=/usr/share/{doc,man,locale}/'*' path-exclude='/usr/src/rustc-*/*' \
    path-include='/usr/src/rustc-*/library/*' >"$root/etc/dpkg/dpkg.cfg.d/lean"
  debootstrap --variant=minbase bookworm "$root" "$mirror" >"$log" 2>&1
fi

# A package of another architecture is unpacked: installed, it would bring the whole of that architecture along.
make/enter.sh "$root" bash -euc '
  export DEBIAN_FRONTEND=noninteractive
  here=() foreign=()
  for package; do
    case $package in *:*) foreign+=("$package"); dpkg --add-architecture "${package#*:}" ;; *) here+=("$package") ;; esac
  done
  apt-get update -qq
  ((${#here[@]} == 0)) || apt-get install -y -qq --no-install-recommends "${here[@]}"
  for package in "${foreign[@]}"; do
    (cd /tmp && apt-get download -qq "$package")
    dpkg-deb --fsys-tarfile /tmp/*.deb | tar -x -C / ./usr/include ./usr/lib
    rm /tmp/*.deb
  done
  rm -rf /var/lib/apt/lists/* /var/cache/apt' bash "${missing[@]}" >>"$log" 2>&1
printf '%s\n' "${missing[@]}" >>"$made"

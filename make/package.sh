#!/usr/bin/env bash
# Makes the packages of the named architectures: package.sh ARCH...
#
# out/package/linux-ARCH/lifecycle: the executables and their SBOMs; out/*.tgz: what platforms take; out/lifecycle-image:
# an OCI layout. The compilers live in a root of their own (TOOLCHAIN), which needs root. FRESH=1 compiles all anew;
# PARTS=launcher compiles the launcher alone, and packs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# Rust's name of the target, and the prefix of GCC's tools. musl is smaller; Rust has it for two of the four.
declare -A targets=(
  [amd64]="x86_64-unknown-linux-musl x86_64-linux-gnu"
  [arm64]="aarch64-unknown-linux-musl aarch64-linux-gnu"
  [ppc64le]="powerpc64le-unknown-linux-gnu powerpc64le-linux-gnu"
  [s390x]="s390x-unknown-linux-gnu s390x-linux-gnu"
)
for arch in "$@"; do
  [[ ${targets[$arch]:-} ]] || { echo "package: no architecture $arch; there are ${!targets[*]}" >&2; exit 2; }
done

root=${TOOLCHAIN:-$PWD/out/toolchain}
make/need.sh /usr/bin/python3=python3 flock=util-linux
make/toolchain.sh "$root" "$@"
# One build at a time in one root.
exec 9>"$root/etc/lock"
flock 9

build=$root/build
((${FRESH:-0} == 0)) || rm -rf "$build/target"
mkdir -p "$build"
# What git knows, as it is here: no leftovers, and the times stay, so cargo compiles only what has changed.
rm -rf "$build/src"
mkdir "$build/src"
git ls-files -z --recurse-submodules | xargs -0 tar --ignore-failed-read -cf - | tar -xf - -C "$build/src"
# Ours names a compiler of rustup's.
rm -f "$build/src/rust-toolchain.toml"

library=$root/usr/lib/rustlib/src/rust/library
crates=$(cat Cargo.lock "$library/Cargo.lock" | sha256sum)
if [[ $(cat "$build/vendored" 2>/dev/null) != "$crates" ]]; then
  rm -rf "$build/vendor"
  # std's manifests use what is not stable.
  RUSTC_BOOTSTRAP=1 cargo vendor --quiet --locked --versioned-dirs --sync "$library/Cargo.toml" "$build/vendor" >/dev/null
  echo "$crates" >"$build/vendored"
fi

# The packages of Debian whose code is in every executable, as package URLs.
linked_debian() {
  local libc=musl-dev
  case $1 in ppc64le) libc=libc6-dev-ppc64el-cross ;; s390x) libc=libc6-dev-s390x-cross ;; esac
  dpkg-query --admindir="$root/var/lib/dpkg" --showformat='pkg:deb/debian/${Package}@${Version}?distro=debian-12\n' --show "$libc" rust-web-src |
    sed 's/+/%2B/g'
}

cp make/cross.sh "$build/cross.sh"
for arch in "$@"; do
  read -r target gnu <<<"${targets[$arch]}"
  echo "package: compiling for $target"
  make/enter.sh "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LIFECYCLE_COMMIT="${LIFECYCLE_COMMIT:-}" \
    LIFECYCLE_REPOSITORY="${LIFECYCLE_REPOSITORY:-}" \
    sh /build/cross.sh "$target" "$gnu" "/build/linux-$arch" ${PARTS:-launcher phases}
  lifecycle=out/package/linux-$arch/lifecycle
  rm -rf "$lifecycle"
  mkdir -p "$lifecycle"
  install "$build/linux-$arch"/* "$lifecycle"
  mapfile -t linked < <(linked_debian "$arch")
  /usr/bin/python3 -B make/sbom.py "$target" "$lifecycle" "${linked[@]}"
done
[[ ${PARTS:-} ]] || /usr/bin/python3 -B make/package.py out "$root" "$@"
ls -l out/package/*/lifecycle

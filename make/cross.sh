#!/bin/sh
# Compiles the executables of one architecture, inside the root that toolchain.sh made: cross.sh TARGET GNU OUT PART...
#
# TARGET is Rust's name for it, GNU that of GCC's tools; a PART is "launcher" or "phases". OUT takes the executables, without
# symbols; with them they are in /build/target/TARGET. /build/src is the source, /build/vendor every crate. The standard
# library is compiled along, for Debian has none for musl; that also leaves out what static, aborting programs never use.
set -eu

target=$1 gnu=$2 out=$3
shift 3
export HOME=/build CARGO_HOME=/build/cargo CARGO_TARGET_DIR=/build/target SOURCE_DATE_EPOCH=315532801
# std is compiled from source with a released compiler.
export RUSTC_BOOTSTRAP=1
export CARGO_PROFILE_RELEASE_STRIP=none
support=/build/support/$gnu
mkdir -p "$CARGO_HOME" "$support"
cat >"$CARGO_HOME/config.toml" <<CONFIG
[source.crates-io]
replace-with = "vendor"
[source.vendor]
directory = "/build/vendor"
CONFIG

cc=$gnu-gcc
# At fixed addresses, as the reference's executables are: nothing to relocate before each start, and a tenth smaller.
# Debian's musl-gcc cannot link a static executable that is position-independent, either.
flags="-C target-feature=+crt-static -C relocation-model=static"
case $target in *-musl)
  cc=$support/musl-gcc
  printf '#!/bin/sh\nexec %s-gcc "$@" -specs %s\n' "$gnu" "/usr/lib/${gnu%-gnu}-musl/musl-gcc.specs" >"$cc"
  chmod +x "$cc"
  # std links an unwinder, which glibc's GCC has; it asks for a function of glibc's. Nothing calls it: we abort.
  echo 'int _dl_find_object(void *address, void *found) { return -1; }' >"$support/stub.c"
  "$cc" -Os -c "$support/stub.c" -o "$support/stub.o"
  cp "$("$gnu-gcc" -print-file-name=libgcc_eh.a)" "$support/libunwind.a"
  "$gnu-ar" rD "$support/libunwind.a" "$support/stub.o" 2>/dev/null
  flags="$flags -C link-self-contained=no -L $support" ;;
esac

under=$(echo "$target" | tr - _)
upper=$(echo "$under" | tr a-z A-Z)
export "CC_$under=$cc" "AR_$under=$gnu-ar" "CARGO_TARGET_${upper}_LINKER=$cc"
paths="-ffile-prefix-map=/build/vendor=vendor -ffile-prefix-map=/build/src=src -ffile-prefix-map=/build/target=target"
# musl has no headers of the kernel's, which ISA-L wants there; those of the cross compiler come after its own.
case $target in aarch64-*-musl) paths="$paths -idirafter /usr/$gnu/include" ;; esac
export "CFLAGS_$under=$paths"
flags="$flags --remap-path-prefix=/build/vendor/= --remap-path-prefix=/build/src/= --remap-path-prefix=/build/target/="
flags="$flags --remap-path-prefix=/usr/lib/rustlib/src/rust/library/="

cd /build/src
std="-Z build-std=std,panic_abort"
build="cargo build --locked --offline --quiet --target $target"
take() { "$gnu-strip" --strip-all --remove-section=.comment -o "$out/$(basename "$1")" "$1"; }

rm -rf "$out"
mkdir -p "$out"
for part in "$@"; do
  case $part in
    launcher)
      RUSTFLAGS=$flags $build $std -Z build-std-features=optimize_for_size --profile launcher -p launcher
      take "$CARGO_TARGET_DIR/$target/launcher/launcher" ;;
    phases)
      RUSTFLAGS=$flags $build $std -Z build-std-features=default --release -p cmd --bins
      for phase in cmd/src/bin/*; do
        take "$CARGO_TARGET_DIR/$target/release/$(basename "$phase" .rs)"
      done ;;
  esac
done

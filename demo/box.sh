#!/usr/bin/env bash
# Runs a command in a root file system of its own, in a private mount namespace: nothing of the machine is changed.
#
#   box.sh host STAGE COMMAND...     this machine's files, with each directory of STAGE in the place of /NAME
#                                    (so STAGE/layers is /layers) and a user "cnb" with id 1000; the rest is read as it is
#   box.sh image ROOTFS COMMAND...   the files of an unpacked image, and nothing else; the command runs as 1000:1000
#   box.sh extend ROOTFS STAGE COMMAND...   the files of an unpacked image, to be changed, and the directories of STAGE;
#                                    the command runs as root
#
# As root the command of "host" starts as root (the lifecycle then drops to CNB_USER_ID); otherwise a user namespace is
# made in which the caller has the id 1000. BOX_MOUNT is an empty directory to work in; BOX_DIR is where to start.
set -euo pipefail

fail() { echo "box.sh: $*" >&2; exit 1; }

if [[ $1 != --inside ]]; then
  export BOX_WAS_ROOT=$((EUID == 0))
  mapping=()
  ((EUID == 0)) || mapping=(--user --map-root-user)
  exec unshare "${mapping[@]}" --mount --propagation private -- bash "$0" --inside "$@"
fi
shift

kind=$1 from=$2 root=${BOX_MOUNT:?names an empty directory}
shift 2

# Every top-level directory of this machine, but those that the stage brings.
mount_host() {
  local path name
  mount -t tmpfs -o mode=755 box "$root"
  for path in /*; do
    name=${path#/}
    [[ ! -e $from/$name && $name != tmp ]] || continue
    if [[ -L $path ]]; then
      cp -P "$path" "$root/$name"
    elif [[ -d $path ]]; then
      mkdir "$root/$name"
      mount --rbind "$path" "$root/$name"
    fi
  done
  for path in "$from"/*/; do
    path=${path%/} name=${path##*/}
    mkdir "$root/$name"
    mount --bind "$path" "$root/$name"
  done
  mkdir -m 1777 "$root/tmp"
  # The user that the build runs as must have a name and a home, as in every builder image.
  { grep -v ':x:1000:' /etc/passwd || true; echo "cnb:x:1000:1000::/home/cnb:/bin/sh"; } >"$root/.passwd"
  mount --bind "$root/.passwd" "$root/etc/passwd"
}

mount_image() {
  mount --bind "$from" "$root"
  mount -t tmpfs -o mode=1777 tmp "$root/tmp"
  mount --rbind /proc "$root/proc"
  mount --rbind /dev "$root/dev"
}

# What extender needs beside the image: the image's own directories stay.
mount_stage() {
  local stage=$1 name
  for name in cnb kaniko layers platform workspace; do
    mkdir -p "$root/$name"
    mount --bind "$stage/$name" "$root/$name"
  done
}

# After pivot_root nothing of the machine's old root is left to be seen, and user namespaces can still be made (not so
# after chroot). An image may have no tools of its own, so there the last step must be one program's: unshare's.
case $kind in
host)
  mount_host
  cd "$root"
  mkdir .outside
  pivot_root . .outside
  umount -l /.outside
  rmdir /.outside
  cd "${BOX_DIR:-/}"
  ((BOX_WAS_ROOT)) && exec "$@"
  exec unshare --user --map-user=1000 --map-group=1000 -- "$@"
  ;;
image)
  mount_image
  if ((BOX_WAS_ROOT)); then become=(--setgid 1000 --setuid 1000); else become=(--user --map-user=1000 --map-group=1000); fi
  exec setpriv --no-new-privs unshare "${become[@]}" --root="$root" --wd="${BOX_DIR:-/}" -- "$@"
  ;;
extend)
  mount_image
  mount_stage "$1"
  shift
  exec unshare --root="$root" --wd=/ -- "$@"
  ;;
*) fail "unknown kind of box: $kind" ;;
esac

#!/bin/sh
# Builds an image with nothing but docker or podman: a container for each phase, with the rights it needs.
#
#   BUILDER=registry.example.com/builder:1 platforms/docker-run.sh SOURCE IMAGE
#
#   SOURCE       a directory with the application
#   IMAGE        the name of the image in a registry; that is where it goes
#   BUILDER      a builder image, made by `pack builder create` or by hand
#   RUN_IMAGE    the run image, where it is not the one that the builder names
#   ENGINE       docker (default) or podman
#   NETWORK      the network of the containers; `host` for a registry on this machine
#   DOCKER_CONFIG  a directory with config.json, default ~/.docker: only the phases that need a registry get it
set -eu
source=${1:?usage: docker-run.sh SOURCE IMAGE}
image=${2:?usage: docker-run.sh SOURCE IMAGE}
builder=${BUILDER:?names the builder image}
engine=${ENGINE:-docker}
network=${NETWORK:-bridge}
credentials=${DOCKER_CONFIG:-$HOME/.docker}

build=cnb-$$
# The cache is the image's: the next build of the same name finds it.
cache=cnb-cache-$(printf %s "$image" | cksum | cut -d' ' -f1)
trap '"$engine" volume rm -f "$build-app" "$build-layers" >/dev/null' EXIT

# phase ACCESS COMMAND...: ACCESS is `registry` or `none`. The user is the one that the builder image names.
phase() {
  access=$1 command=$2
  shift 2
  set -- --entrypoint "$command" "$builder" "$@"
  if [ "$access" = registry ] && [ -f "$credentials/config.json" ]; then
    set -- --volume "$credentials:/credentials:ro" --env DOCKER_CONFIG=/credentials "$@"
  fi
  # Nothing of the root file system can be written; there are no capabilities, and no way to get one.
  "$engine" run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --network "$network" \
    --volume "$build-app:/workspace" --volume "$build-layers:/layers" --volume "$cache:/cache" \
    --env CNB_PLATFORM_API=0.13 "$@"
}

# The volumes get the source, and the user of the build.
tar -C "$source" -cf - . | "$engine" run --rm --interactive --user root --network none \
  --volume "$build-app:/workspace" --volume "$build-layers:/layers" --volume "$cache:/cache" --entrypoint /bin/sh "$builder" \
  -ec 'tar -C /workspace -xf -; chown -R "$CNB_USER_ID:$CNB_GROUP_ID" /workspace /layers /cache'

phase registry /cnb/lifecycle/analyzer -layers=/layers -run-image="${RUN_IMAGE:-}" "$image"
phase none /cnb/lifecycle/detector -app=/workspace -layers=/layers
phase registry /cnb/lifecycle/restorer -layers=/layers -cache-dir=/cache
phase none /cnb/lifecycle/builder -app=/workspace -layers=/layers
phase registry /cnb/lifecycle/exporter -app=/workspace -layers=/layers -cache-dir=/cache "$image"

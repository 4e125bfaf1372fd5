//! Builds by creator: a buildpack of one's own, and the call.
#![allow(dead_code, reason = "no test uses all of it")]

use std::process::Command;

use acceptance::tree::{
    Entry::{Dir, File},
    give_to, write_buildpack,
};

use crate::image_world::{World, is_root};

/// A user that every system has: creator looks up its home.
pub(crate) const NOBODY: u32 = 65534;

/// An app, the run image, and a buildpack `acme/jvm` with these scripts.
pub(crate) fn with_buildpack(detect: &str, build: &str) -> World {
    let world = World::new();
    world.remove("layers");
    let order = "[[order]]\n[[order.group]]\nid = \"acme/jvm\"\nversion = \"1.0.0\"\n";
    world.write(&[("layers", Dir), ("platform/env", Dir), ("cnb/order.toml", File(order)), ("extensions", Dir)]);
    write_buildpack(&world.path("buildpacks"), ("acme/jvm", "1.0.0", "0.10"), "", detect, build);
    world
}

/// Layers of each kind, a process and a slice.
pub(crate) const BUILD: &str = r#"for l in run cache both; do mkdir -p "$1/$l"; echo "contents of $l" >"$1/$l/file"; done
printf '[types]\nlaunch = true\n[metadata]\nn = 1\n' >"$1/run.toml"
printf '[types]\ncache = true\n' >"$1/cache.toml"
printf '[types]\nlaunch = true\ncache = true\n' >"$1/both.toml"
cat >"$1/launch.toml" <<END
[[processes]]
type = "web"
command = ["cat"]
args = ["main.txt"]
default = true
[[slices]]
paths = ["static/*"]
END
echo said by build"#;

/// creator for an image of this name in the registry.
pub(crate) fn creator(world: &World, api: &str, image: &str) -> Command {
    creator_with(world, api, &[], &world.name(image))
}

/// creator with these flags, for an image of this whole name.
pub(crate) fn creator_with(world: &World, api: &str, flags: &[&str], image: &str) -> Command {
    let mut call = world.call("creator", api);
    for (variable, path) in [
        ("CNB_ORDER_PATH", "cnb/order.toml"),
        ("CNB_BUILDPACKS_DIR", "buildpacks"),
        ("CNB_EXTENSIONS_DIR", "extensions"),
        ("CNB_PLATFORM_DIR", "platform"),
        ("CNB_SYSTEM_PATH", "cnb/system.toml"),
    ] {
        call.env(variable, world.path(path));
    }
    if is_root() {
        call.env("CNB_USER_ID", NOBODY.to_string()).env("CNB_GROUP_ID", NOBODY.to_string());
        for dir in ["app", "layers", "cache", "tmp", "layout"].into_iter().filter(|dir| world.exists(dir)) {
            give_to(&world.path(dir), NOBODY, NOBODY);
        }
        std::os::unix::fs::chown(world.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    call.args(flags).arg("-launcher").arg(world.path("cnb/launcher")).arg(image);
    call
}

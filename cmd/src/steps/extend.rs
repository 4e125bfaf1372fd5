//! extend

use std::path::Path;

use platform_api::{
    Analyzed, ExitCode, Failure, Flags, Group,
    inputs::{BuilderInputs, ExtenderInputs},
};

use super::timed;
use crate::{in_phase, privileges};

/// Set to `true`, it allows to extend a machine that is not known to be a container.
const OUTSIDE_CONTAINER: &str = "CNB_EXTEND_OUTSIDE_CONTAINER";

/// Extending changes the file system that we run in: refused on a machine that is not a container, and where we could
/// not do it whole. Exit code 102.
pub fn guard_machine(flags: &Flags) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::new(ExitCode::Extend, format!("failed to extend: {why}")));
    if flags.env(OUTSIDE_CONTAINER) != Some("true") && !is_container(flags) {
        return refuse(&format!(
            "the extender should only be run inside of a container: Dockerfiles change the file system it runs in; \
             {OUTSIDE_CONTAINER}=true allows it here"
        ));
    }
    if !privileges::is_privileged() {
        return refuse("the extender must run as root");
    }
    Ok(())
}

/// What container engines leave for those inside to see.
fn is_container(flags: &Flags) -> bool {
    let left = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container", "/.dockerinit"];
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let engines = ["docker", "kubepods", "containerd", "libpod", "lxc", "garden", "buildkit", "podman", "crio"];
    let named = |text: &str| engines.iter().any(|engine| text.contains(engine));
    left.iter().any(|path| Path::new(path).exists())
        || flags.env("container").is_some_and(|value| !value.is_empty())
        || flags.env("KUBERNETES_SERVICE_HOST").is_some_and(|value| !value.is_empty())
        || named(&read("/proc/1/cgroup"))
        || read("/proc/self/mountinfo").lines().any(is_layered_root)
}

/// Engines put layers together for the root; a machine's own root lies on a disk.
fn is_layered_root(mount: &str) -> bool {
    let (point, rest) = mount.split_once(" - ").unwrap_or((mount, ""));
    let kind = rest.split(' ').next().unwrap_or_default();
    point.split(' ').nth(4) == Some("/") && (kind == "overlay" || kind.starts_with("fuse.fuse-overlay"))
}

/// Extends the image we run in; returns the environment of the extended image. Exit code 102.
pub fn extend(i: &ExtenderInputs, group: &Group, analyzed: &Analyzed) -> Result<Vec<(String, String)>, Failure> {
    let failed = |e: std::io::Error| Failure::new(ExitCode::Extend, format!("failed to extend: chdir /: {e}"));
    std::env::set_current_dir("/").map_err(failed)?;
    timed("Extender", || phases::extend::extend(i, group, analyzed, Path::new("/")))
        .map_err(|e| in_phase(ExitCode::Extend, "extend", &e))
}

/// What the build in an extended image is called with: the image's environment, and the home of who we have become.
pub fn extended_inputs(i: &ExtenderInputs, env: Vec<(String, String)>) -> Result<BuilderInputs, Failure> {
    let mut builder = i.builder.clone();
    let home = privileges::home_of(i.user.uid)?;
    let env = env.into_iter().map(|(name, value)| (name.into(), value.into()));
    for (name, value) in env.chain(home.map(|(name, value)| (name.into(), value))) {
        builder.inherited.retain(|(known, _)| *known != name);
        builder.inherited.push((name, value));
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_containers() {
        for (line, expected) in [
            ("22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw", true),
            ("22 1 0:20 / / rw - fuse.fuse-overlayfs fuse-overlayfs rw", true),
            ("22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw", false),
            ("30 22 0:30 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw", false),
            ("", false),
        ] {
            assert_eq!(is_layered_root(line), expected, "{line}");
        }
    }
}

//! A container as platforms make it, without a container engine: a root directory with the paths that platforms use
//! (`/layers`, `/workspace`, `/platform`, `/cnb`), the volumes being mounts of their own, seen by one process and its
//! children only. Needs root.
#![allow(dead_code, reason = "each test executable uses its part")]
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a harness panics, and says what it leaves out")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use acceptance::{
    registry::Options,
    run::{as_root, command, executable},
    tree::{Entry, give_to, write_buildpack},
};

use crate::image_world::{USER, World};

/// Directories that a platform mounts, each a volume that belongs to the build's user.
const VOLUMES: [&str; 6] = ["layers", "workspace", "platform", "var/report", "builder/home", "cache"];

/// Mounts what the container sees, and goes there: `$1` is its root, `$2` the folder of the executables.
const ENTER: &str = r#"root=$1 bin=$2; shift 2; umask 022
for d in usr bin sbin lib lib64; do [ -L "$root/$d" ] || [ ! -d "$root/$d" ] || mount --bind "/$d" "$root/$d"; done
for d in proc dev; do mount --rbind "/$d" "$root/$d"; done
for d in layers workspace platform var/report builder/home cache; do mount --bind "$root/$d" "$root/$d"; done
mount --bind "$bin" "$root/cnb/lifecycle"
exec chroot "$root" "$@""#;

pub(crate) struct Root {
    pub(crate) world: World,
}

/// Which rights the process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// root, as the first containers of a pod.
    Root,
    /// The build's user, without any capability and without a way to get one.
    User,
}

impl Root {
    /// `None`, with the reason printed, where the system does not let us.
    pub(crate) fn new(options: &Options<'_>) -> Option<Self> {
        if !as_root() {
            return None;
        }
        let quiet = |call: &mut Command| call.stdout(Stdio::null()).stderr(Stdio::null()).status();
        for program in ["unshare", "setpriv", "chroot"] {
            if quiet(Command::new(program).arg("--version")).is_err() {
                eprintln!("skipped: needs {program}");
                return None;
            }
        }
        if !quiet(Command::new("unshare").args(["-m", "true"])).is_ok_and(|status| status.success()) {
            eprintln!("skipped: needs the right to make mount namespaces");
            return None;
        }
        let root = Self { world: World::with(options) };
        root.make();
        Some(root)
    }

    fn make(&self) {
        for path in ["proc", "dev", "cnb/lifecycle"].into_iter().chain(VOLUMES) {
            self.write(&[(path, Entry::Dir)]);
        }
        self.write(&[
            ("tmp", Entry::Dir),
            ("etc/passwd", Entry::File(PASSWD)),
            ("etc/group", Entry::File("cnb:x:1000:\n")),
        ]);
        fs::set_permissions(self.path("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).expect("chmod");
        for dir in ["usr", "bin", "sbin", "lib", "lib64"] {
            let host = Path::new("/").join(dir);
            match fs::read_link(&host) {
                Ok(target) => symlink(target, self.path(dir)).expect("link a system directory"),
                Err(_) if host.is_dir() => self.write(&[(dir, Entry::Dir)]),
                Err(_) => {}
            }
        }
        self.fresh_volumes();
    }

    /// Empty volumes, as a new pod has them; the cache stays.
    pub(crate) fn fresh_volumes(&self) {
        for volume in VOLUMES.iter().filter(|volume| **volume != "cache") {
            self.world.remove(&format!("root/{volume}"));
            self.write(&[(volume, Entry::Dir)]);
        }
        self.give_volumes();
    }

    /// All that is in volumes becomes the build's user's.
    pub(crate) fn give_volumes(&self) {
        for volume in VOLUMES {
            give_to(&self.path(volume), USER, USER);
        }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.world.path("root").join(path)
    }

    pub(crate) fn write(&self, entries: &[(&str, Entry)]) {
        acceptance::tree::write(&self.world.path("root"), entries);
    }

    pub(crate) fn read(&self, path: &str) -> String {
        self.world.read(&format!("root/{path}"))
    }

    /// What a builder image has: one buildpack, the order, and the names of run images.
    pub(crate) fn builder(&self, build: &str) {
        write_buildpack(&self.path("cnb/buildpacks"), ("acme/jvm", "1.0.0", "0.7"), "", "exit 0", build);
        let run_image = format!("image = {:?}\n", self.world.name("run:latest"));
        self.write(&[
            ("cnb/order.toml", Entry::File("[[order]]\n[[order.group]]\nid = \"acme/jvm\"\nversion = \"1.0.0\"\n")),
            ("cnb/stack.toml", Entry::File(&format!("[run-image]\n{run_image}"))),
            ("cnb/run.toml", Entry::File(&format!("[[images]]\n{run_image}"))),
        ]);
    }

    /// `/cnb/lifecycle/<name>` in the container, with this environment, and what builder images have in theirs.
    pub(crate) fn call(&self, rights: Rights, name: &str, environment: &[(&str, &str)], args: &[&str]) -> Command {
        let program = executable(name);
        self.call_in(program.parent().expect("a folder"), rights, name, environment, args)
    }

    pub(crate) fn call_in(
        &self,
        folder: &Path,
        rights: Rights,
        name: &str,
        environment: &[(&str, &str)],
        args: &[&str],
    ) -> Command {
        let mut call = command("unshare");
        call.args(["-m", "--propagation", "private", "sh", "-ec", ENTER, "sh"]).arg(self.path("")).arg(folder);
        if rights == Rights::User {
            let user = USER.to_string();
            call.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
            call.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]);
        }
        call.arg("env").args(["-i", "PATH=/usr/local/bin:/usr/bin:/bin"]);
        // Every builder image has these in its environment.
        call.args(["CNB_USER_ID=1000", "CNB_GROUP_ID=1000"]);
        call.args(environment.iter().map(|(key, value)| format!("{key}={value}")));
        call.arg(format!("/cnb/lifecycle/{name}")).args(args);
        call
    }
}

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n";

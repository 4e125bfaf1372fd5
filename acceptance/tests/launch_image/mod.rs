//! An app image as the launcher sees it: `<layers>` with metadata.toml, and `<app>`.
#![allow(dead_code, reason = "each test executable uses its part")]
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a harness panics, and says what it leaves out")]

use std::{fmt::Write as _, fs, ops::Deref, os::unix::process::CommandExt, path::Path, process::Command};

use acceptance::{
    run::{as_root, command, executable, run},
    tree::{Entry, TempTree},
};

/// The tables of metadata.toml for buildpacks of these IDs and APIs.
pub(crate) fn buildpacks(list: &[(&str, &str)]) -> String {
    list.iter().fold(String::new(), |mut text, (id, api)| {
        let _ = writeln!(text, "[[buildpacks]]\nid = \"{id}\"\nversion = \"1.0.0\"\napi = \"{api}\"");
        text
    })
}

/// The table of metadata.toml for a process of this buildpack. Direct, if its keys do not say `direct` and its command
/// is an array.
pub(crate) fn process(buildpack: &str, r#type: &str, keys: &str) -> String {
    let direct = if keys.contains("[\"") && !keys.contains("command = \"") { "direct = true\n" } else { "" };
    let direct = if r#type == "text" { "direct = true\n" } else { direct };
    format!("[[processes]]\ntype = \"{type}\"\nbuildpack-id = \"{buildpack}\"\n{direct}{keys}\n")
}

/// The image's directories.
pub(crate) struct LaunchImage {
    dir: TempTree,
}

impl Deref for LaunchImage {
    type Target = TempTree;

    fn deref(&self) -> &TempTree {
        &self.dir
    }
}

impl LaunchImage {
    /// With this metadata.toml and an empty app directory.
    pub(crate) fn new(metadata: &str) -> Self {
        let entries = [("layers/config/metadata.toml", Entry::File(metadata)), ("app", Entry::Dir)];
        Self { dir: TempTree::new(&entries) }
    }

    /// A call of the launcher by its own name.
    pub(crate) fn launcher(&self, args: &[&str]) -> Command {
        self.launch("launcher", args)
    }

    /// A call of the launcher by the name of a process.
    pub(crate) fn launch(&self, name: &str, args: &[&str]) -> Command {
        let mut call = command(executable("launcher"));
        call.arg0(format!("/cnb/process/{name}")).args(args);
        self.environment(&mut call);
        call
    }

    /// What the image and a platform set.
    pub(crate) fn environment(&self, call: &mut Command) {
        call.env("CNB_PLATFORM_API", "0.15")
            .env("CNB_LAYERS_DIR", self.path("layers"))
            .env("CNB_APP_DIR", self.path("app"))
            .env("CNB_NO_COLOR", "true");
    }

    /// A call of the launcher in a root directory that holds the image, the launcher and a static `busybox`, and
    /// nothing else (but the launcher's libraries, where it has any). `None` where we may not or cannot.
    pub(crate) fn in_chroot(&self, user: Option<&str>) -> Option<Command> {
        let busybox = Path::new("/bin/busybox");
        if !as_root() || !busybox.exists() {
            eprintln!("skipped: needs root and a static busybox");
            return None;
        }
        let root = self.path("");
        let copy = |from: &Path, to: &str| {
            let to = root.join(to.trim_start_matches('/'));
            if !to.exists() {
                fs::create_dir_all(to.parent().expect("a parent")).expect("make the directory");
                fs::copy(from, to).expect("copy the file");
            }
        };
        copy(&executable("launcher"), "cnb/lifecycle/launcher");
        copy(busybox, "bin/busybox");
        let libraries = run(command("ldd").arg(executable("launcher"))).stdout();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), library);
        }
        let mut call = command("chroot");
        call.args(user.map(|user| format!("--userspec={user}"))).arg(root).arg("/cnb/lifecycle/launcher");
        call.env("PATH", "/usr/sbin:/usr/bin:/bin")
            .env("CNB_PLATFORM_API", "0.15")
            .env("CNB_LAYERS_DIR", "/layers")
            .env("CNB_APP_DIR", "/app")
            .env("CNB_NO_COLOR", "true");
        Some(call)
    }
}

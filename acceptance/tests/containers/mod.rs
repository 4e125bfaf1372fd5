//! Images for container engines, made of files of this machine: a build image, run images and the lifecycle's own,
//! with busybox and the libraries that the executables under test ask for.
#![allow(dead_code, reason = "each test executable uses its part")]
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a harness panics, and says what it leaves out")]

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use acceptance::{
    run::{Outcome, as_root, command, executable, run},
    tree::{Entry, give_to, temp_dir, write},
};
use tempfile::TempDir;

/// User and group of the build.
pub(crate) const USER: u32 = 1000;

/// What the packages of a lifecycle hold.
pub(crate) const EXECUTABLES: [&str; 9] =
    ["analyzer", "builder", "creator", "detector", "exporter", "extender", "launcher", "rebaser", "restorer"];

const TOOLS: [&str; 10] = ["sh", "cat", "mkdir", "id", "echo", "chmod", "chown", "env", "grep", "tar"];
/// What builder images have in their environment. Podman takes one variable at a time.
pub(crate) const BUILDER: [&str; 3] = ["ENV CNB_USER_ID=1000", "ENV CNB_GROUP_ID=1000", "ENV PATH=/bin"];
/// Podman's own defaults are more than a process in a container may have.
const PODMAN_LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n";
const TARGET: &str = "LABEL io.buildpacks.base.distro.name=acme io.buildpacks.base.distro.version=1";

/// Where a program is on the caller's PATH; says so where it is not.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: needs {program} on PATH");
    }
    found
}

/// The engine that makes the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Docker,
    Podman,
}

/// An engine, and the images of one test in it; they are removed on drop.
pub(crate) struct Containers {
    pub(crate) engine: Engine,
    pub(crate) dir: TempDir,
    /// What the names of its images begin with.
    pub(crate) prefix: String,
}

impl Containers {
    /// `None`, with the reason printed, where the engine makes no containers here.
    pub(crate) fn new(engine: Engine, test: &str) -> Option<Self> {
        if !as_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs root and /bin/busybox (Debian package busybox-static)");
            return None;
        }
        let (domain, id) = (if engine == Engine::Podman { "localhost/" } else { "" }, std::process::id());
        let containers = Self { engine, dir: temp_dir(), prefix: format!("{domain}acceptance-{id}-{test}") };
        let mut info = containers.command();
        let answers = info.arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !answers.is_ok_and(|status| status.success()) {
            eprintln!("skipped: needs {engine:?}");
            return None;
        }
        containers.import();
        let probe = run(containers.container(&["--network", "none"], "build:1").args(["/bin/sh", "-c", "exit 0"]));
        if probe.code() != 0 {
            eprintln!("skipped: {engine:?} runs no containers here: {}", probe.stderr());
            return None;
        }
        Some(containers)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, entries: &[(&str, Entry)]) {
        write(self.dir.path(), entries);
    }

    /// A call of the engine, without arguments. Podman gets a storage of its own, and what it needs within containers.
    pub(crate) fn command(&self) -> Command {
        let mut call = command(if self.engine == Engine::Docker { "docker" } else { "podman" });
        if self.engine == Engine::Podman {
            call.arg("--root").arg(self.path("podman/root")).arg("--runroot").arg(self.path("podman/run"));
            call.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]);
        }
        call.env("HOME", self.dir.path());
        if let Some(host) = env::var_os("DOCKER_HOST") {
            call.env("DOCKER_HOST", host);
        }
        call
    }

    /// A container of this image of the test, to which the command is still to be added.
    pub(crate) fn container(&self, flags: &[&str], image: &str) -> Command {
        let mut call = self.command();
        call.args(["run", "--rm"]);
        if self.engine == Engine::Podman {
            call.args(PODMAN_LIMITS);
        }
        call.args(flags).arg(self.name(image));
        call
    }

    pub(crate) fn call(&self, args: &[&str]) -> Outcome {
        run(self.command().args(args))
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn import(&self) {
        self.root_directory("root");
        self.import_as("build:1", &[&["USER 1000:1000", TARGET], &BUILDER[..]].concat());
        self.import_run("run:1", "one");
    }

    /// A run image with a file `/os` of this content.
    pub(crate) fn import_run(&self, name: &str, content: &str) {
        self.write(&[("root/os", Entry::File(content))]);
        self.import_as(name, &["USER 1000:1000", "ENV PATH=/bin", TARGET, "LABEL io.buildpacks.rebasable=true"]);
    }

    /// A root directory: busybox, the user, and the libraries.
    fn root_directory(&self, dir: &str) {
        let root = self.path(dir);
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        for dir in ["bin", "etc", "tmp", "proc", "dev", "root", "home/cnb", "layers", "workspace", "platform", "cache"]
        {
            fs::create_dir_all(at(dir)).expect("make a directory of the image");
        }
        fs::copy("/bin/busybox", at("bin/busybox")).expect("copy busybox");
        for tool in TOOLS {
            symlink("busybox", at("bin").join(tool)).expect("link a tool");
        }
        fs::set_permissions(at("tmp"), fs::Permissions::from_mode(0o1777)).expect("permissions of /tmp");
        fs::write(at("etc/passwd"), PASSWD).expect("write /etc/passwd");
        fs::write(at("etc/group"), "root:x:0:\ncnb:x:1000:\n").expect("write /etc/group");
        // A static executable has none.
        let libraries = run(command("ldd").arg(executable("creator"))).stdout();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            fs::create_dir_all(at(library).parent().expect("a parent")).expect("make the library's directory");
            fs::copy(library, at(library)).expect("copy a library");
        }
        for dir in ["home/cnb", "layers", "workspace", "cache"] {
            give_to(&at(dir), USER, USER);
        }
    }

    fn import_as(&self, name: &str, changes: &[&str]) {
        self.import_tree("root", name, changes);
    }

    /// Makes an image of the files of a directory, with changes as a Dockerfile has them.
    pub(crate) fn import_tree(&self, dir: &str, name: &str, changes: &[&str]) {
        let tar = self.path("image.tar");
        run(command("tar").args(["--numeric-owner", "-cf"]).arg(&tar).arg("-C").arg(self.path(dir)).arg(".")).ok();
        let mut import = self.command();
        import.arg("import");
        // What is made of this image has its labels, and is found by them in the end.
        import.args(["--change", &format!("LABEL acceptance={}", self.prefix)]);
        for change in changes {
            import.args(["--change", change]);
        }
        run(import.arg(&tar).arg(self.name(name))).ok();
        fs::remove_file(tar).expect("remove the tar");
    }

    /// A folder of the nine executables under test, and nothing else.
    pub(crate) fn executables(&self, dir: &str) -> PathBuf {
        let folder = self.path(dir);
        fs::create_dir_all(&folder).expect("make the folder");
        for name in EXECUTABLES {
            fs::copy(executable(name), folder.join(name)).unwrap_or_else(|e| panic!("copy {name}: {e}"));
        }
        folder
    }

    /// The image of the lifecycle, as platforms run phases from it: the root directory and `/cnb/lifecycle`.
    pub(crate) fn import_lifecycle(&self, name: &str, changes: &[&str]) {
        self.root_directory("lifecycle-root");
        self.executables("lifecycle-root/cnb/lifecycle");
        self.import_tree("lifecycle-root", name, changes);
    }

    /// A program that is called as the engine is, for scripts: with what [`Containers::command`] adds.
    pub(crate) fn wrapper(&self, program: &Path) -> PathBuf {
        let mut call = self.command();
        call.args(["\"$command\""]);
        let words: Vec<_> = call.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let host = env::var("DOCKER_HOST").map(|host| format!("export DOCKER_HOST={host}\n")).unwrap_or_default();
        let limits = if self.engine == Engine::Podman { PODMAN_LIMITS.join(" ") } else { String::new() };
        let body = format!(
            "command=$1; shift\n{host}[ \"$command\" != run ] || set -- {limits} \"$@\"\nexec {} {} \"$@\"",
            program.display(),
            words.join(" ")
        );
        self.write(&[("engine", Entry::Script(&body))]);
        self.path("engine")
    }

    /// Removes all that the engine has of this test.
    fn clean(&self) {
        let label = format!("label=acceptance={}", self.prefix);
        for image in self.call(&["images", "-aq", "--filter", &label]).stdout().lines() {
            self.call(&["rmi", "-f", image]);
        }
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.clean();
    }
}

//! Container engines, docker and podman, for tests of what runs inside of containers.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use acceptance::run::{command, run};
use tempfile::TempDir;

/// An engine that can run containers here.
pub(crate) struct Engine {
    program: &'static str,
    /// What stands before its commands.
    global: Vec<String>,
    /// What its `run` needs on machines like this.
    run: &'static [&'static str],
    /// Podman's own storage: nothing of the machine's is touched.
    _storage: Option<TempDir>,
}

impl Engine {
    /// `None`, said on stderr, where no daemon answers.
    pub(crate) fn docker() -> Option<Self> {
        let engine = Self { program: "docker", global: Vec::new(), run: &[], _storage: None };
        let answers = engine.call().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let answers = answers.is_ok_and(|status| status.success());
        if !answers {
            eprintln!("skipped: needs a docker daemon");
        }
        answers.then_some(engine)
    }

    /// `None`, said on stderr, where it cannot run `/bin/sh` of the image that `import` makes under a name.
    #[allow(dead_code, reason = "not every test asks for it")]
    pub(crate) fn podman(import: impl FnOnce(&Self, &str)) -> Option<Self> {
        let storage = tempfile::tempdir().unwrap();
        let at = |name: &str| storage.path().join(name).display().to_string();
        let answers = |call: &mut Command| call.stdout(Stdio::null()).stderr(Stdio::null()).status();
        // Copies of all files, where layers cannot be put over each other: within a container, for one.
        let drivers: [&[&str]; 2] = [
            &["--storage-driver", "overlay", "--storage-opt", "overlay.skip_mount_home=true"],
            &["--storage-driver", "vfs"],
        ];
        let probe = |n: usize, driver: &[&str]| {
            let (root, run) = (at(&format!("root-{n}")), at(&format!("run-{n}")));
            let own = ["--root", &root, "--runroot", &run, "--cgroup-manager", "cgroupfs", "--runtime", "runc"];
            let global: Vec<String> = own.iter().chain(driver).map(|&word| word.to_owned()).collect();
            let works = answers(command("podman").args(&global).arg("info")).is_ok_and(|status| status.success());
            works.then_some(global)
        };
        let global = drivers.iter().enumerate().find_map(|(n, driver)| probe(n, driver)).unwrap_or_default();
        // Its defaults are higher than what a process in a container may have.
        let run = &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let engine = Self { program: "podman", global, run, _storage: Some(storage) };
        let mut works = !engine.global.is_empty();
        if works {
            import(&engine, "localhost/probe");
            let mut probe = engine.container("localhost/probe", &["--network", "none"]);
            works = acceptance::run::run(probe.args(["/bin/sh", "-c", "exit 0"])).code() == 0;
        }
        if !works {
            eprintln!("skipped: needs podman and runc, and a machine where they run as root");
        }
        works.then_some(engine)
    }

    fn call(&self) -> Command {
        let mut call = command(self.program);
        call.args(&self.global).envs(std::env::var_os("DOCKER_HOST").map(|host| ("DOCKER_HOST", host)));
        call
    }

    /// The engine with these words after its name.
    #[allow(dead_code, reason = "not every test asks for more")]
    pub(crate) fn does(&self, words: &[&str]) -> acceptance::run::Outcome {
        run(self.call().args(words)).ok()
    }

    /// Makes an image of one layer of the files in `root`.
    #[allow(dead_code, reason = "not every test has its files in a directory")]
    pub(crate) fn import(&self, root: &Path, image: &str, changes: &[&str]) {
        let mut tar = command("tar").arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
        self.import_from(tar.stdout.take().unwrap(), image, changes);
        assert!(tar.wait().unwrap().success(), "tar {}", root.display());
    }

    /// Makes an image of one layer of a tar.
    #[allow(dead_code, reason = "not every test has its files in a tar")]
    pub(crate) fn import_tar(&self, tar: &Path, image: &str, changes: &[&str]) {
        self.import_from(File::open(tar).unwrap(), image, changes);
    }

    fn import_from(&self, content: impl Into<Stdio>, image: &str, changes: &[&str]) {
        let mut import = self.call();
        import.arg("import").args(changes.iter().flat_map(|change| ["--change", change])).args(["-", image]);
        let status = import.stdin(content).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{import:?}");
    }

    /// `push` or `pull`, of a registry on this machine that speaks no TLS.
    #[allow(dead_code, reason = "not every test has a registry")]
    pub(crate) fn transfer(&self, how: &str, image: &str) {
        let flags: &[&str] = if self.program == "podman" { &["--tls-verify=false"] } else { &[] };
        self.does(&[&[how, "-q"], flags, &[image]].concat());
    }

    pub(crate) fn remove(&self, image: &str) {
        let _ = self.call().args(["rmi", "-f", image]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    /// A call to which the command is still to be added.
    pub(crate) fn container(&self, image: &str, flags: &[&str]) -> Command {
        let mut call = self.call();
        call.args(["run", "--rm"]).args(self.run).args(flags).arg(image);
        call
    }
}

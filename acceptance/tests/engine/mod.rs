//! Container engines, docker and podman, for tests of what runs inside of containers.

use std::{
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

    /// `None`, said on stderr, where it cannot run this image's `/bin/sh`.
    #[allow(dead_code, reason = "not every test needs both")]
    pub(crate) fn podman(root: &Path) -> Option<Self> {
        let storage = tempfile::tempdir().unwrap();
        let at = |name: &str| storage.path().join(name).display().to_string();
        let global = ["--root", &at("root"), "--runroot", &at("run"), "--storage-driver", "vfs", "--cgroup-manager"];
        let global = global.into_iter().chain(["cgroupfs", "--runtime", "runc"]).map(str::to_owned).collect();
        // Its defaults are higher than what a process in a container may have.
        let run = &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let engine = Self { program: "podman", global, run, _storage: Some(storage) };
        let installed = Command::new("podman").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let mut works = installed.is_ok_and(|status| status.success());
        if works {
            engine.import(root, "localhost/probe", &[]);
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
    pub(crate) fn import(&self, root: &Path, image: &str, changes: &[&str]) {
        let mut tar = command("tar").arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
        let mut import = self.call();
        import.arg("import").args(changes.iter().flat_map(|change| ["--change", change])).args(["-", image]);
        let content = tar.stdout.take().unwrap();
        let status = import.stdin(content).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success() && tar.wait().unwrap().success(), "{import:?}");
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

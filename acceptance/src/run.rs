//! Finding the executables under test, and running them.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// Held for reading while an executable file is written, for writing while a process starts: a process that starts
/// would hold the file open, and the system executes no file that is open for writing.
pub(crate) static STARTS: RwLock<()> = RwLock::new(());

/// All supported Platform APIs, oldest first.
pub const PLATFORM_APIS: [&str; 9] = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15"];

/// All supported Buildpack APIs, oldest first.
pub const BUILDPACK_APIS: [&str; 6] = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12"];

/// Whether `api` is `since` or newer; both are `<major>.<minor>`.
/// # Panics
/// Where one of them is not.
pub fn at_least(api: &str, since: &str) -> bool {
    let parts = |text: &str| -> (u64, u64) {
        let (major, minor) = text.split_once('.').expect("<major>.<minor>");
        (major.parse().expect("a number"), minor.parse().expect("a number"))
    };
    parts(api) >= parts(since)
}

/// The root directory of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// The folder of the executables under test, or the two places where a build leaves them: beside the running test
/// (cargo's target directory), and `out/linux-<arch>/lifecycle`.
fn folders() -> Vec<PathBuf> {
    if let Some(folder) = env::var_os("LIFECYCLE") {
        return vec![PathBuf::from(folder)];
    }
    let mut folders = Vec::new();
    if let Some(target) = env::current_exe().ok().as_deref().and_then(Path::parent).and_then(Path::parent) {
        folders.push(target.to_path_buf());
    }
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    folders.push(workspace().join(format!("out/linux-{arch}/lifecycle")));
    folders
}

/// The executable of this name, where it has been built.
pub fn find_executable(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The executable of this name.
/// # Panics
/// Where it has not been built: a test of an executable that is not there must not pass.
pub fn executable(name: &str) -> PathBuf {
    find_executable(name).unwrap_or_else(|| {
        panic!("no {name} in {:?}: build it, or set LIFECYCLE to the folder of the executables", folders())
    })
}

/// Whether the executables under test are not this workspace's, so that a row may be left out that a conforming
/// implementation need not pass. `because` says why it need not, and is printed.
pub fn may_differ(because: &str) -> bool {
    static OTHERS: OnceLock<bool> = OnceLock::new();
    let others = *OTHERS.get_or_init(|| env::var_os("LIFECYCLE").is_some_and(|folder| !is_ours(Path::new(&folder))));
    if others {
        eprintln!("not compared: {because}");
    }
    others
}

/// Ours are in the workspace, or say that they have its version.
fn is_ours(folder: &Path) -> bool {
    let in_workspace = fs::canonicalize(folder).is_ok_and(|folder| folder.starts_with(workspace()));
    in_workspace || {
        let mut detector = command(folder.join("detector"));
        let version = detector.arg("-version").env("CNB_PLATFORM_API", "0.15").output();
        version.is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.trim().split('+').next() == Some(env!("CARGO_PKG_VERSION"))
        })
    }
}

/// Whether the tests run as root; says so where not, for the tests that need it and end early.
pub fn as_root() -> bool {
    let uid = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| Some(status.lines().find(|l| l.starts_with("Uid:"))?.split_whitespace().nth(2)?.to_owned()));
    let root = uid.as_deref() == Some("0");
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// A call of `program` with nothing in its environment but `PATH`.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Makes the call one of this user and group, without supplementary groups. Needs root.
pub fn as_user(command: &mut Command, uid: u32, gid: u32) {
    command.uid(uid).gid(gid);
}

/// What a call came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// The exit code; 128 + n where signal n ended it, as shells have it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// Standard output, what is not UTF-8 replaced.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error, likewise.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Both, stdout first: for texts of which the implementations differ in the stream.
    pub fn all(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// Exit code 0, or panics with all that is known.
    /// # Panics
    /// With the outcome, where it is another.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// This exit code, or panics with all that is known.
    /// # Panics
    /// With the outcome, where it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(
            self.code() == code,
            "exit code {} instead of {code}\nstdout:\n{}\nstderr:\n{}",
            self.code(),
            self.stdout(),
            self.stderr()
        );
        self
    }

    /// Has this text in either stream, or panics.
    /// # Panics
    /// With the outcome, where neither has it.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.all().contains(text), "no '{text}' in\nstdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr());
        self
    }
}

/// Runs it to its end, with no input.
/// # Panics
/// Where it cannot be started.
pub fn run(command: &mut Command) -> Outcome {
    run_with_input(command, b"")
}

/// Runs it to its end with this on its standard input.
/// # Panics
/// Where it cannot be started.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let pipe = child.stdin.take();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // One that ends without reading its input is no error of the harness.
            let _ = pipe.map(|mut pipe| pipe.write_all(input));
        });
        let output = child.wait_with_output().unwrap_or_else(|e| panic!("wait for {command:?}: {e}"));
        Outcome { status: output.status, stdout: output.stdout, stderr: output.stderr }
    })
}

fn start(command: &mut Command) -> Child {
    let _alone = STARTS.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"))
}

/// Runs it to its own end with no input, but no longer than `limit`, whatever it leaves behind: processes that keep
/// its output open are not waited for, and are killed. Returns its peak memory in KiB, too.
/// # Panics
/// Where it cannot be started, or did not end in time.
pub fn run_limited(command: &mut Command, limit: Duration) -> (Outcome, u64) {
    let dir = tempfile::tempdir().expect("a directory for the output");
    let file = |name: &str| fs::File::create(dir.path().join(name)).expect("a file for the output");
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).process_group(0);
    let mut child = start(command);
    let status_file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let end = Instant::now() + limit;
    let mut peak = 0;
    let status = loop {
        // The high-water mark only rises, so that looking often is as good as looking last.
        peak = fs::read_to_string(&status_file).ok().as_deref().and_then(high_water_mark).unwrap_or(peak);
        if let Some(status) = child.try_wait().unwrap_or_else(|e| panic!("wait for {command:?}: {e}")) {
            break Some(status);
        }
        if Instant::now() > end {
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // Its process group may have ended with it.
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let read = |name: &str| fs::read(dir.path().join(name)).expect("the output");
    let Some(status) = status else {
        let _ = child.wait();
        let text = String::from_utf8_lossy(&read("stderr")).into_owned();
        panic!("{command:?} did not end within {limit:?}; its standard error:\n{text}");
    };
    (Outcome { status, stdout: read("stdout"), stderr: read("stderr") }, peak)
}

/// `VmHWM` of /proc/<pid>/status, in KiB.
fn high_water_mark(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

//! `RUN`: a process in the file system that is being changed, and nothing of it left afterwards.

use std::{
    ffi::{CString, OsString},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    sys::wait::{WaitStatus, waitpid},
    unistd::{Gid, Pid, Uid},
};

use crate::{Error, Result, users::User};

/// What to run.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// The file system; `/` is the one we are in.
    pub(crate) root: &'a Path,
    pub(crate) words: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Absolute.
    pub(crate) workdir: &'a str,
    pub(crate) user: User,
}

/// How long what was left running may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Runs it to its end; its output is ours.
    ///
    /// # Errors
    /// It cannot be started, or its exit status is not 0.
    pub(crate) fn run(&self) -> Result<()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let others = children()?;
        // What outlives its parent becomes ours, so that it can be found and ended.
        nix::sys::prctl::set_child_subreaper(true).map_err(|e| Error::new(format!("become subreaper: {e}")))?;
        let mut command = self.command()?;
        let started = command.spawn().map_err(|e| Error::new(format!("start {:?}: {e}", self.words)));
        let status = started
            .and_then(|mut child| child.wait().map_err(|e| Error::new(format!("wait for {:?}: {e}", self.words))));
        let left = end_the_rest(&others);
        let _ = nix::sys::prctl::set_child_subreaper(false);
        let status = status?;
        if left? > 0 {
            tracing::warn!("Processes that {:?} left running were ended", self.words);
        }
        if status.success() {
            return Ok(());
        }
        Err(Error::new(format!("the command {:?} failed: {status}", self.words)))
    }

    fn command(&self) -> Result<Command> {
        let (program, arguments) = self.words.split_first().ok_or_else(|| Error::new("no command to run"))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.env.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        command.process_group(0);
        let path = |path: &[u8]| CString::new(path).map_err(|_| Error::new("a path with a NUL in it"));
        let root = (self.root != Path::new("/")).then(|| path(self.root.as_os_str().as_bytes())).transpose()?;
        let workdir = path(self.workdir.as_bytes())?;
        let groups: Vec<Gid> =
            std::iter::once(self.user.gid).chain(self.user.groups.iter().copied()).map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        let become_user = move || {
            if let Some(root) = &root {
                nix::unistd::chroot(root.as_c_str())?;
            }
            nix::unistd::setgroups(&groups)?;
            nix::unistd::setgid(gid)?;
            nix::unistd::setuid(uid)?;
            nix::unistd::chdir(workdir.as_c_str())?;
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made; everything they need was allocated before.
        #[allow(unsafe_code, reason = "std can set user and group of a child, but not its further groups")]
        unsafe {
            command.pre_exec(become_user)
        };
        Ok(command)
    }
}

/// Ends all children we have but those others; how many there were.
fn end_the_rest(others: &[Pid]) -> Result<usize> {
    let started = Instant::now();
    let mut ended = 0;
    loop {
        let mut children = children()?;
        children.retain(|child| !others.contains(child));
        if children.is_empty() {
            return Ok(ended);
        }
        for child in &children {
            // It may have ended in the meantime.
            let _ = kill(*child, Signal::SIGKILL);
            if let Ok(WaitStatus::Signaled(..)) = waitpid(*child, None) {
                ended += 1;
            }
        }
        if started.elapsed() > PATIENCE {
            return Err(Error::new("processes left running cannot be ended"));
        }
    }
}

/// Processes whose parent we are.
fn children() -> Result<Vec<Pid>> {
    let failed = |e: std::io::Error| Error::at("read", Path::new("/proc"), &e);
    let own = std::process::id().to_string();
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let name: OsString = entry.map_err(failed)?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read(format!("/proc/{id}/stat")) else { continue };
        // The name before may have anything in it, parentheses too.
        let after = stat.iter().rposition(|b| *b == b')').map_or(&b""[..], |at| &stat[at + 1..]);
        let text = String::from_utf8_lossy(after);
        if text.split_whitespace().nth(1) == Some(own.as_str()) {
            children.push(Pid::from_raw(id));
        }
    }
    Ok(children)
}

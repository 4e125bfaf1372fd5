//! Running programs beside each other and keeping what they printed, in the order it came and in bounded memory.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant, SystemTime},
};

use crate::piped::{self, CHECK};

/// How much is kept of the beginning, and again of the end, in bytes.
const KEPT: usize = 512 * 1024;

/// How long output may still come after the program has exited: from `>(tee log)` and its like, which end with it,
/// but not from a daemon it left behind with our pipe open.
const GRACE: Duration = Duration::from_secs(1);

/// A program that runs with no input and with stdout and stderr in one pipe.
#[derive(Debug)]
pub(crate) struct Captured {
    child: Child,
    /// `None` when all was read.
    output: Option<File>,
    kept: Kept,
    /// When to read no more, once the program has exited.
    deadline: Option<Instant>,
    began: SystemTime,
    since: Instant,
    /// Known when all was read.
    took: Option<Duration>,
}

impl Captured {
    /// # Errors
    /// It could not be started.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let (began, since) = (SystemTime::now(), Instant::now());
        command.stdin(Stdio::null());
        let (child, output) = piped::start(command)?;
        Ok(Self { child, output: Some(output), kept: Kept::default(), deadline: None, began, since, took: None })
    }

    /// When it was started, and how long it ran: until its output ended.
    pub(crate) fn time(&self) -> (SystemTime, Duration) {
        (self.began, self.took.unwrap_or_else(|| self.since.elapsed()))
    }

    fn end_output(&mut self) {
        self.output = None;
        self.took = Some(self.since.elapsed());
    }

    /// Waits for its end. Where [`read_all`] did not read its output to the end, what came later is lost.
    pub(crate) fn wait(mut self) -> io::Result<(ExitStatus, Vec<u8>)> {
        drop(self.output);
        Ok((self.child.wait()?, self.kept.into_bytes()))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self.output.as_mut().map_or(Ok(0), |output| output.read(buffer)) {
            Ok(0) => self.end_output(),
            Ok(size) => self.kept.push(buffer.get(..size).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives a program that has exited its last [`GRACE`], and ends the reading when that is over.
    fn check(&mut self, now: Instant) -> io::Result<()> {
        if let Some(deadline) = self.deadline {
            if deadline <= now {
                self.end_output();
            }
        } else if self.child.try_wait()?.is_some() {
            self.deadline = Some(now + GRACE);
        }
        Ok(())
    }
}

/// Reads what all of them print, until each has closed its output or has exited a while ago. One thread does it, for a
/// process of many threads is slow to fork, and there may be a hundred buildpacks.
pub(crate) fn read_all(running: &mut [&mut Captured]) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut next_check = Instant::now() + CHECK;
    loop {
        let mut open: Vec<&mut Captured> =
            running.iter_mut().map(|captured| &mut **captured).filter(|captured| captured.output.is_some()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let ready = piped::wait_for(open.iter().filter_map(|captured| captured.output.as_ref()))?;
        for (captured, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            captured.read(&mut buffer)?;
        }
        let now = Instant::now();
        if now >= next_check {
            open.iter_mut().try_for_each(|captured| captured.check(now))?;
            next_check = now + CHECK;
        }
    }
}

/// The beginning and the end of a stream.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..over);
        self.cut += u64::try_from(over).unwrap_or(u64::MAX);
    }

    fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.head;
        if self.cut > 0 {
            bytes.extend_from_slice(format!("\n[... {} bytes of output left out ...]\n", self.cut).as_bytes());
        }
        bytes.extend(self.tail);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> (ExitStatus, String) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut captured = Captured::start(command).unwrap();
        read_all(&mut [&mut captured]).unwrap();
        let (status, output) = captured.wait().unwrap();
        (status, String::from_utf8(output).unwrap())
    }

    #[test]
    fn both_streams_come_in_their_order() {
        let (status, output) = sh("echo 1; echo 2 >&2; echo 3; echo 4 >/dev/stderr; echo 5; exit 7");
        assert_eq!((status.code(), output.as_str()), (Some(7), "1\n2\n3\n4\n5\n"));
        assert_eq!(sh("cat; echo done").1, "done\n", "stdin is empty");
    }

    #[test]
    fn all_run_beside_each_other() {
        // Each of the two ends only if the other runs.
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let start = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).env("FIFO", &fifo);
            Captured::start(command).unwrap()
        };
        let [mut one, mut other] = [start("read x <\"$FIFO\"; echo \"$x\""), start("echo told >\"$FIFO\"; echo ended")];
        read_all(&mut [&mut one, &mut other]).unwrap();
        assert_eq!(one.wait().unwrap().1, b"told\n");
        assert_eq!(other.wait().unwrap().1, b"ended\n");
    }

    #[test]
    fn much_output_is_cut_in_the_middle() {
        let (status, output) = sh("echo first; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last");
        assert!(status.success());
        assert!(output.starts_with("first\nxxx") && output.ends_with("xxx\nlast\n"));
        assert!(output.len() < 2 * KEPT + 100, "{}", output.len());
        let cut = 5_000_012 - 2 * KEPT;
        assert!(output.contains(&format!("x\n[... {cut} bytes of output left out ...]\nx")));

        let all = "y".repeat(2 * KEPT);
        let mut kept = Kept::default();
        all.as_bytes().chunks(1000).for_each(|chunk| kept.push(chunk));
        assert_eq!(kept.into_bytes(), all.as_bytes());
    }

    #[test]
    fn what_ends_with_the_program_is_read_and_what_stays_is_not_waited_for() {
        // The background process is waited for by nobody; it ends when the test's FIFO is closed.
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let keep = File::options().read(true).write(true).open(&fifo).unwrap();
        let (status, output) = sh(&format!("(read x <'{}'; echo late) & echo main", fifo.display()));
        assert_eq!((status.code(), output.as_str()), (Some(0), "main\n"));
        drop(keep);

        let (status, output) = sh("(while kill -0 $$ 2>/dev/null; do :; done; echo after) & echo main");
        assert!(status.success());
        assert_eq!(output, "main\nafter\n");
    }
}

//! Running a program and keeping what it printed, in the order it came and in bounded memory.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::pipe2,
};

/// How much is kept of the beginning, and again of the end, in bytes.
const KEPT: usize = 512 * 1024;

/// How long output may still come after the program has exited: from `>(tee log)` and its like, which end with it,
/// but not from a daemon it left behind with our pipe open.
const GRACE: Duration = Duration::from_secs(1);

/// Runs a program to its end with no input and with stdout and stderr in one pipe.
/// # Errors
/// It could not be started, or not be read from.
pub(crate) fn run_captured(mut command: Command) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (output, for_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let for_stderr = for_stdout.try_clone()?;
    let (exited, exit_signal) = pipe2(OFlag::O_CLOEXEC)?;
    let mut child = command.stdin(Stdio::null()).stdout(for_stdout).stderr(for_stderr).spawn()?;
    // It holds our ends for writing: while they are open the pipe has no end.
    drop(command);

    std::thread::scope(|scope| {
        let waiting = std::thread::Builder::new().spawn_scoped(scope, move || {
            let status = child.wait();
            drop(exit_signal);
            status
        })?;
        let kept = read_until_exit(&File::from(output), &File::from(exited));
        let status = waiting.join().map_err(|_| io::Error::other("waiting for it failed"))??;
        Ok((status, kept?.into_bytes()))
    })
}

/// Reads `output` to its end, or for [`GRACE`] after `exited` was closed.
fn read_until_exit(mut output: &File, exited: &File) -> io::Result<Kept> {
    let mut kept = Kept::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut deadline: Option<Instant> = None;
    loop {
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if timeout.is_some_and(|left| left.is_zero()) {
            return Ok(kept);
        }
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            // Rounded up, or the last millisecond would be spent asking again and again.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN), PollFd::new(exited.as_fd(), PollFlags::POLLIN)];
        // Once the exit is known its pipe would be ready for ever.
        let watched = if deadline.is_some() { 1 } else { 2 };
        match poll(fds.split_at_mut(watched).0, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        if ready(0) {
            match output.read(&mut buffer) {
                Ok(0) => return Ok(kept),
                Ok(size) => kept.push(buffer.get(..size).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if deadline.is_none() && ready(1) {
            deadline = Some(Instant::now() + GRACE);
        }
    }
}

/// The beginning and the end of a stream.
#[derive(Default)]
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
        let (status, output) = run_captured(command).unwrap();
        (status, String::from_utf8(output).unwrap())
    }

    #[test]
    fn both_streams_come_in_their_order() {
        let (status, output) = sh("echo 1; echo 2 >&2; echo 3; echo 4 >/dev/stderr; echo 5; exit 7");
        assert_eq!((status.code(), output.as_str()), (Some(7), "1\n2\n3\n4\n5\n"));
        assert_eq!(sh("cat; echo done").1, "done\n", "stdin is empty");
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

//! Running a program whose output is ours, but for its colours.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus},
    time::Instant,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::pipe2,
};

use crate::{
    output::{CHECK, GRACE},
    plain::Plain,
};

/// One of the program's two streams.
struct Stream {
    /// `None` at its end.
    from: Option<File>,
    plain: Plain,
    to: Box<dyn Write>,
}

impl Stream {
    fn new(to: impl Write + 'static) -> io::Result<(Self, OwnedFd)> {
        let (from, for_program) = pipe2(OFlag::O_CLOEXEC)?;
        Ok((Self { from: Some(File::from(from)), plain: Plain::default(), to: Box::new(to) }, for_program))
    }

    fn pass_on(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self.from.as_mut().map_or(Ok(0), |from| from.read(buffer)) {
            Ok(0) => self.from = None,
            Ok(size) => {
                let text = self.plain.strip(buffer.get(..size).unwrap_or_default());
                // Who reads our output may be gone, which is no reason to fail a build.
                let _ = self.to.write_all(&text).and_then(|()| self.to.flush());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Runs it to its end. What it leaves in the background is heard a little longer.
pub(crate) fn run_without_colours(mut command: Command) -> io::Result<ExitStatus> {
    let (stdout, for_stdout) = Stream::new(io::stdout())?;
    let (stderr, for_stderr) = Stream::new(io::stderr())?;
    let mut child = command.stdout(for_stdout).stderr(for_stderr).spawn()?;
    // Its ends of the pipes for writing: while they are open there is no end.
    drop(command);
    let passed = pass_on(&mut child, &mut [stdout, stderr]);
    let status = child.wait()?;
    passed.map(|()| status)
}

fn pass_on(child: &mut Child, streams: &mut [Stream]) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut deadline = None;
    loop {
        let mut open: Vec<&mut Stream> = streams.iter_mut().filter(|stream| stream.from.is_some()).collect();
        if open.is_empty() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(());
        }
        let ready: Vec<bool> = {
            let files = open.iter().filter_map(|stream| stream.from.as_ref());
            let mut fds: Vec<PollFd> = files.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, PollTimeout::try_from(CHECK).unwrap_or(PollTimeout::MAX)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()
        };
        for (stream, _) in open.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
            stream.pass_on(&mut buffer)?;
        }
        if deadline.is_none() && !ready.contains(&true) && child.try_wait()?.is_some() {
            deadline = Some(Instant::now() + GRACE);
        }
    }
}

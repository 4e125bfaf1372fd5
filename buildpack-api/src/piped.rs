//! Programs that print into one pipe, so that stdout and stderr stay in their order.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    process::{Child, Command},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::pipe2,
};

/// How often it is asked whether a program has exited although its pipe is open.
pub(crate) const CHECK: Duration = Duration::from_millis(100);

/// Starts it; what it prints can be read from the file.
/// # Errors
/// It could not be started.
pub(crate) fn start(mut command: Command) -> io::Result<(Child, File)> {
    let (output, for_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let for_stderr = for_stdout.try_clone()?;
    // Our ends for writing go with `command`: while they are open the pipe has no end.
    let child = command.stdout(for_stdout).stderr(for_stderr).spawn()?;
    Ok((child, File::from(output)))
}

/// Waits until there is something to read, or an end, but not longer than [`CHECK`]; says of each whether there is.
pub(crate) fn wait_for<'a>(outputs: impl Iterator<Item = &'a File>) -> io::Result<Vec<bool>> {
    let mut fds: Vec<PollFd> = outputs.map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut fds, PollTimeout::try_from(CHECK).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect())
}

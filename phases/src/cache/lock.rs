//! Advisory locks on files of a cache directory, so that builds that share a volume wait for each other. The kernel
//! drops them when their process ends, however it ends.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// Held until dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "it unlocks when dropped")] Flock<File>);

/// Alone, or together with others that only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

impl Lock {
    /// Waits for the lock. `None` where the directory has no locks to give (read-only, or a file system without
    /// them): then we do as well as builds did that knew no lock.
    pub(crate) fn wait(path: &Path, mode: Mode) -> Option<Self> {
        let open = |write: bool| {
            // Whoever the next build runs as must be able to lock as well.
            OpenOptions::new().read(true).write(write).create(write).truncate(false).mode(0o666).open(path)
        };
        let file = open(true).or_else(|_| open(false)).ok()?;
        let (now, waiting) = match mode {
            Mode::Shared => (FlockArg::LockSharedNonblock, FlockArg::LockShared),
            Mode::Exclusive => (FlockArg::LockExclusiveNonblock, FlockArg::LockExclusive),
        };
        match Flock::lock(file, now) {
            Ok(lock) => Some(Self(lock)),
            Err((file, Errno::EWOULDBLOCK)) => {
                tracing::info!("Waiting for another build that uses the cache: {}", path.display());
                Self::wait_quietly(file, waiting)
            }
            Err(_) => None,
        }
    }

    fn wait_quietly(file: File, mode: FlockArg) -> Option<Self> {
        let mut file = file;
        loop {
            match Flock::lock(file, mode) {
                Ok(lock) => return Some(Self(lock)),
                Err((again, Errno::EINTR)) => file = again,
                Err(_) => return None,
            }
        }
    }
}

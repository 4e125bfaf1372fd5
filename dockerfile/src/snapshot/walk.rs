//! The walk over everything below a root: directories are read by several threads at once.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

use super::{DIRECTORY, Entry, Ignore, KIND};
use crate::{Error, Result};

const SOCKET: u32 = 0o140_000;

/// Directories still to be read, and how many are being read.
struct Queue {
    dirs: Vec<PathBuf>,
    active: usize,
    failed: bool,
}

/// All files but the ignored ones, in no order.
pub(super) fn walk(root: &Path, ignore: &Ignore) -> Result<Vec<Entry>> {
    let queue = Mutex::new(Queue { dirs: vec![PathBuf::new()], active: 0, failed: false });
    let more = Condvar::new();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || work(root, ignore, &queue, &more);
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let panicked = || Err(Error::new("walking the file system: a thread panicked"));
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| panicked())).collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

fn work(root: &Path, ignore: &Ignore, queue: &Mutex<Queue>, more: &Condvar) -> Result<Vec<Entry>> {
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    loop {
        let mut state = lock();
        let dir = loop {
            if let Some(dir) = state.dirs.pop() {
                break dir;
            }
            if state.active == 0 || state.failed {
                return Ok(found);
            }
            state = more.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.active += 1;
        drop(state);
        let mut below = Vec::new();
        let read = read_dir(root, &dir, ignore, &mut found, &mut below);
        let mut state = lock();
        state.active -= 1;
        state.dirs.append(&mut below);
        state.failed |= read.is_err();
        more.notify_all();
        drop(state);
        read.map_err(|e| Error::at("read", &root.join(&dir), &e))?;
    }
}

fn read_dir(
    root: &Path,
    dir: &Path,
    ignore: &Ignore,
    found: &mut Vec<Entry>,
    below: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let entries = match fs::read_dir(root.join(dir)) {
        Err(e) if gone(&e) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        if ignore.has(&path) {
            continue;
        }
        let metadata = match entry.metadata() {
            Err(e) if gone(&e) => continue,
            metadata => metadata?,
        };
        let mode = metadata.mode();
        if mode & KIND == DIRECTORY {
            below.push(path.clone());
        }
        if mode & KIND == SOCKET {
            continue;
        }
        found.push(Entry {
            path,
            mode,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            // Of directories it depends on how the file system keeps them.
            size: if mode & KIND == DIRECTORY { 0 } else { metadata.size() },
            owner: (metadata.uid(), metadata.gid()),
            inode: metadata.ino(),
        });
    }
    Ok(())
}

//! What a daemon gave of a saved image, kept for as long as the process lives.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Deserialize;

use crate::{Error, Result};

/// Bytes moved at a time.
const BUFFER: usize = 256 << 10;
/// No manifest or config is longer; what is shorter is kept in memory.
const MAX_DOCUMENT: u64 = 4 << 20;
const KEEP: u64 = 64 << 10;

/// A layer as the daemon gave it (compressed or not), in memory or in a file that has no name any more: nothing is
/// left of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) enum Stored {
    Bytes(Vec<u8>),
    File(File),
}

impl Stored {
    pub(super) fn take(from: &mut dyn Read, size: u64, dir: &Path) -> io::Result<Self> {
        if size <= KEEP {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes)?;
            return Ok(Self::Bytes(bytes));
        }
        let mut file = nameless_file(dir)?;
        copy(from, &mut file).map_err(|e| io::Error::new(e.kind(), format!("write to {}: {e}", dir.display())))?;
        Ok(Self::File(file))
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }

    /// From the start, any number of times.
    pub(super) fn reader(&self) -> StoredReader<'_> {
        StoredReader { stored: self, at: 0 }
    }

    /// A small file, parsed.
    pub(super) fn document<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T> {
        let mut bytes = Vec::new();
        let read = self.reader().take(MAX_DOCUMENT).read_to_end(&mut bytes);
        read.map_err(|e| Error::Io(format!("read {name}: {e}")))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Corrupt(format!("parse {name}: {e}")))
    }
}

fn nameless_file(dir: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let named = |path: &Path, e: &io::Error| io::Error::new(e.kind(), format!("create {}: {e}", path.display()));
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".layer-{}-{number}.tmp", std::process::id()));
        match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path).map_err(|e| named(&path, &e))?;
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(named(&path, &e)),
        }
    }
}

pub(super) struct StoredReader<'a> {
    stored: &'a Stored,
    at: u64,
}

impl Read for StoredReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = match self.stored {
            Stored::Bytes(bytes) => {
                let rest = usize::try_from(self.at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                (&mut &*rest).read(out)?
            }
            Stored::File(file) => file.read_at(out, self.at)?,
        };
        self.at += n as u64;
        Ok(n)
    }
}

/// Everything there is to read.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(buffer.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

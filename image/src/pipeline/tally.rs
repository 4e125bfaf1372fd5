//! What is done with every byte of a layer's tar, and what one reading of it came to.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    Event, LayerJob,
    blocks::{KEEP, Shared},
    job::Context,
};
use crate::{BlockSums, Digest, Error, Result, Summing, temp::TempFile};

/// What one reading of the layer came to.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) diff_id: Digest,
    /// Bytes of the tar.
    pub(super) size: u64,
    pub(super) tar_written: bool,
    pub(super) sums: Option<BlockSums>,
}

impl Pass {
    /// A layer that was recognised.
    pub(super) fn known(diff_id: &Digest, sums: &BlockSums) -> Self {
        Self { diff_id: diff_id.clone(), size: sums.size(), tar_written: false, sums: Some(sums.clone()) }
    }

    /// An error where an earlier reading came to something else.
    pub(super) fn same_as(&self, job: &LayerJob, diff_id: Option<&Digest>, sums: Option<&BlockSums>) -> Result<()> {
        if diff_id.is_some_and(|before| *before != self.diff_id) || sums.is_some_and(|_| self.sums.as_ref() != sums) {
            return Err(Error::Io(format!("layer {}: its files changed while they were read", job.name)));
        }
        Ok(())
    }
}

/// What is done with every byte of a tar: count, hash, sum up by blocks, and write to the volume cache.
pub(super) struct Tally<'a> {
    /// `None` where checksums are all that is wanted.
    pub(super) hasher: Option<Sha256>,
    pub(super) sums: Option<Summing>,
    pub(super) size: u64,
    total: u64,
    pub(super) tar: Option<(TempFile, &'a (PathBuf, PathBuf))>,
    pub(super) name: &'a str,
    shared: &'a Shared,
    pub(super) on_event: &'a (dyn Fn(Event<'_>) + Sync),
}

impl<'a> Tally<'a> {
    pub(super) fn new(context: &Context<'a, '_>, job: &'a LayerJob, write_tar: bool, total: u64) -> io::Result<Self> {
        let tar = match job.tar_to.as_ref().filter(|_| write_tar) {
            Some(dirs) => Some((TempFile::new(&dirs.0)?, dirs)),
            None => None,
        };
        let sums = job.known.is_some().then(Summing::new);
        let (shared, on_event) = (context.shared, context.on_event);
        Ok(Self { hasher: Some(Sha256::new()), sums, size: 0, total, tar, name: &job.name, shared, on_event })
    }

    pub(super) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shared.check()?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if let Some(sums) = &mut self.sums {
            sums.add(bytes);
        }
        if let Some((file, (staging, _))) = &mut self.tar {
            file.write_all(bytes).map_err(|e| crate::tar_stream::on_path("write to", staging, &e))?;
        }
        self.size += bytes.len() as u64;
        (self.on_event)(Event::Read { layer: self.name, done: self.size, total: self.total });
        Ok(())
    }

    pub(super) fn end(self) -> io::Result<Pass> {
        let diff_id = Digest::from_hasher(self.hasher.unwrap_or_default());
        let mut tar_written = false;
        if let Some((file, (staging, committed))) = self.tar {
            if !tar_path(committed, &diff_id).exists() {
                file.persist(&tar_path(staging, &diff_id))?;
                tar_written = true;
            }
        }
        Ok(Pass { diff_id, size: self.size, tar_written, sums: self.sums.map(Summing::finish) })
    }
}

/// Takes a tar on the thread that reads it, and keeps it while it is small.
pub(super) struct Kept<'a> {
    pub(super) tally: Tally<'a>,
    pub(super) bytes: Option<Vec<u8>>,
}

impl Write for Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tally.add(bytes)?;
        keep(&mut self.bytes, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds to what is kept; what would be too much is not kept at all.
pub(super) fn keep(kept: &mut Option<Vec<u8>>, bytes: &[u8]) {
    match kept {
        Some(kept) if kept.len() + bytes.len() <= KEEP => kept.extend_from_slice(bytes),
        kept => *kept = None,
    }
}

pub(super) fn tar_path(dir: &Path, diff_id: &Digest) -> PathBuf {
    dir.join(format!("{diff_id}.tar"))
}

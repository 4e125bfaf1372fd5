//! Where compressed layers go: a registry, while they are still being compressed, or a layout's blobs.

use std::{
    io::{self, Read, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use sha2::{Digest as _, Sha256};

use super::{Destination, blocks::Block, tally::Pass};
use crate::{
    Blob, BlobSource, Digest, Error, Result, layout, manifest, registry::StreamedBlob, tar_stream::on_path,
    temp::TempFile,
};

/// What the reader of a layer sends, in order.
pub(super) enum Item {
    /// To come from a worker.
    Block(Receiver<Block>),
    End(Pass),
    Failed(io::Error),
}

/// How the last reading ended, for the job.
type Outcome = Arc<Mutex<Option<io::Result<Pass>>>>;

/// Compressed bytes taken so far.
pub(super) type Sent = Arc<AtomicU64>;

/// The compressed bytes of a layer, as they are made.
pub(super) struct Compressed {
    items: Receiver<Item>,
    outcome: Outcome,
    block: Option<Block>,
    used: usize,
    at_end: bool,
    hasher: Sha256,
    size: u64,
    sent: Sent,
}

impl Compressed {
    pub(super) fn new(items: Receiver<Item>, outcome: Outcome, sent: Sent) -> Self {
        *outcome.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Self { items, outcome, block: None, used: 0, at_end: false, hasher: Sha256::new(), size: 0, sent }
    }

    /// The next gzip member; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Block>> {
        let cancelled = |_| io::Error::other("cancelled");
        match self.items.recv().map_err(cancelled)? {
            Item::Block(waiting) => {
                let block = waiting.recv().map_err(cancelled)?;
                self.hasher.update(block.bytes());
                self.size += block.bytes().len() as u64;
                self.sent.store(self.size, Ordering::Relaxed);
                Ok(Some(block))
            }
            Item::End(pass) => {
                *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ok(pass));
                Ok(None)
            }
            Item::Failed(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(error));
                Err(copy)
            }
        }
    }
}

impl Read for Compressed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.block.as_ref().and_then(|block| block.bytes().get(self.used..)).unwrap_or_default();
            if !rest.is_empty() {
                let n = rest.len().min(out.len());
                out[..n].copy_from_slice(&rest[..n]);
                self.used += n;
                return Ok(n);
            }
            // Before the wait for the next one, so that its buffer is free.
            self.block = None;
            self.used = 0;
            if self.at_end {
                return Ok(0);
            }
            self.block = self.next()?;
            self.at_end = self.block.is_none();
        }
    }
}

impl StreamedBlob for Compressed {
    fn finish(&mut self) -> Result<(Digest, u64)> {
        if self.at_end {
            Ok((Digest::from_hasher(self.hasher.clone()), self.size))
        } else {
            Err(Error::Io("a layer was not read to its end".to_owned()))
        }
    }
}

/// Makes the blob and puts it there. `open` starts the compression, once more for every retry.
pub(super) fn send(to: &Destination, docker: bool, open: &mut dyn FnMut() -> Result<Compressed>) -> Result<Blob> {
    let (digest, size, source) = match to {
        Destination::Registry(registry, repository) => {
            let mut boxed = || open().map(|blob| Box::new(blob) as Box<dyn StreamedBlob>);
            let (digest, size) = registry.upload_stream(repository, &mut boxed)?;
            (digest, size, BlobSource::Registry(repository.clone()))
        }
        Destination::Layout(dir) => {
            let mut blob = open()?;
            let (digest, size) = to_layout(dir, &mut blob).map_err(|e| Error::Io(e.to_string()))?;
            (digest, size, BlobSource::Layout(dir.clone()))
        }
    };
    Ok(Blob { digest, size, media_type: manifest::layer_type(docker).to_owned(), source })
}

fn to_layout(dir: &Path, blob: &mut Compressed) -> io::Result<(Digest, u64)> {
    let mut file = TempFile::new(&layout::blobs(dir))?;
    while let Some(block) = blob.next()? {
        file.write_all(block.bytes()).map_err(|e| on_path("write to", dir, &e))?;
    }
    let digest = Digest::from_hasher(blob.hasher.clone());
    file.persist(&layout::blob_path(dir, &digest))?;
    Ok((digest, blob.size))
}

/// Gives the blob to a second place too. `from` is the destination it was made for.
pub(super) fn copy(blob: &Blob, from: Option<&Destination>, to: &Destination) -> Result<()> {
    match (to, &blob.source) {
        (Destination::Registry(registry, repository), _) => registry.ensure_blob(repository, blob),
        (Destination::Layout(dir), BlobSource::Layout(_)) => layout::copy_blob(blob, dir).map(|_| ()),
        (Destination::Layout(dir), source) => match (source, from) {
            (BlobSource::Registry(repository), Some(Destination::Registry(registry, _))) => {
                layout::put_blob(dir, blob, registry.read_blob(repository, blob)?.as_mut())
            }
            _ => Err(Error::NotFound(format!("blob {}: where it is stored is not known here", blob.digest))),
        },
    }
}

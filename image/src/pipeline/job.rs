//! One job: what has to be made of the layer, and the passes over it that takes.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, Scope},
};

use sha2::{Digest as _, Sha256};

use super::{
    Destination, Event, LayerJob, LayerResult,
    blocks::{BLOCK, Block, KEEP, Shared, Task},
    sinks::{self, Compressed, Item},
};
use crate::{
    Blob, BlockSums, Digest, Error, Recipe, Result, Summing,
    tar_stream::{Sink, TarStream},
    temp::TempFile,
};

/// Bytes hashed at a time where nothing is compressed: they fit a core's own cache.
const HASH_SIZE: usize = 256 << 10;
/// How many such buffers: one is filled, one is hashed, two even out that small files take longer to read.
const HASH_BUFFERS: usize = 4;

/// Everything a job needs of its run.
pub(super) struct Context<'scope, 'env: 'scope> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) shared: &'scope Shared,
    pub(super) tasks: Sender<Task>,
    pub(super) docker: bool,
    pub(super) on_event: &'scope (dyn Fn(Event<'_>) + Sync),
}

/// What one reading of the layer came to.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) diff_id: Digest,
    /// Bytes of the tar.
    size: u64,
    tar_written: bool,
    sums: Option<BlockSums>,
}

impl Pass {
    /// A layer that was recognised.
    fn known(diff_id: &Digest, sums: &BlockSums) -> Self {
        Self { diff_id: diff_id.clone(), size: sums.size(), tar_written: false, sums: Some(sums.clone()) }
    }

    /// An error where an earlier reading came to something else.
    fn same_as(&self, job: &LayerJob, diff_id: Option<&Digest>, sums: Option<&BlockSums>) -> Result<()> {
        if diff_id.is_some_and(|before| *before != self.diff_id) || sums.is_some_and(|_| self.sums.as_ref() != sums) {
            return Err(Error::Io(format!("layer {}: its files changed while they were read", job.name)));
        }
        Ok(())
    }
}

/// Where the tar comes from.
#[derive(Clone)]
enum Source<'a> {
    Recipe(&'a Recipe),
    /// A small layer, kept from the first pass.
    Kept(Arc<Vec<u8>>),
}

impl Source<'_> {
    fn stream(&self, sink: &mut dyn Sink) -> io::Result<()> {
        let mut tar = TarStream::new(sink);
        match self {
            Self::Recipe(recipe) => recipe.stream(&mut tar),
            Self::Kept(bytes) => tar.bytes(bytes).and_then(|()| tar.flush()),
        }
    }
}

impl<'scope> Context<'scope, '_> {
    pub(super) fn run(&self, job: &'scope LayerJob) -> Result<LayerResult> {
        let blob_to = job.to.as_ref().or(job.cache_to.as_ref().map(|(to, _)| to));
        let mut look_first = look_first(job);
        let keep = if look_first { self.shared.keep() } else { None };
        let mut source = Source::Recipe(&job.recipe);
        let mut first = None;
        let mut seen = None;
        if look_first && may_be_known(job) {
            let (sums, kept) = self.sum(job, keep.is_some())?;
            source = kept.map_or(source, |bytes| Source::Kept(Arc::new(bytes)));
            first = job.known.as_ref().and_then(|known| known.find(&sums)).map(|diff_id| Pass::known(diff_id, &sums));
            // Nobody knows it: a layer that has changed is worth no reading for its diff ID alone.
            look_first = first.is_some();
            seen = Some(sums);
        }
        if let Some(to) = blob_to.filter(|_| !look_first) {
            let total = seen.as_ref().map_or(0, BlockSums::size);
            let (pass, blob) = self.compress(job, &source, to, job.tar_to.is_some(), total)?;
            pass.same_as(job, None, seen.as_ref())?;
            if job.to.is_some() && wants_cache(job, &pass.diff_id) {
                self.copy_to_cache(job, &blob)?;
            }
            return Ok(result(pass, false, Some(blob)));
        }

        let first = match first {
            Some(known) => known,
            None => {
                let keep = keep.is_some() && seen.is_none();
                let (first, kept) = self.hash(job, &source, keep, !look_first, 0)?;
                first.same_as(job, None, seen.as_ref())?;
                source = kept.map_or(source, |bytes| Source::Kept(Arc::new(bytes)));
                first
            }
        };
        let reused = job.reusable.contains(&first.diff_id);
        let to = job.to.as_ref().filter(|_| !reused);
        let cache = job.cache_to.as_ref().map(|(cache, _)| cache).filter(|_| wants_cache(job, &first.diff_id));
        let tar = look_first
            && job.tar_to.as_ref().is_some_and(|(_, committed)| !tar_path(committed, &first.diff_id).exists());
        let (second, blob) = match to.or(cache) {
            Some(to) => {
                let (pass, blob) = self.compress(job, &source, to, tar, first.size)?;
                (pass, Some(blob))
            }
            None if tar => (self.hash(job, &source, false, true, first.size)?.0, None),
            None => return Ok(result(first, reused, None)),
        };
        second.same_as(job, Some(&first.diff_id), None)?;
        if let (Some(_), Some(_), Some(blob)) = (to, cache, &blob) {
            self.copy_to_cache(job, blob)?;
        }
        Ok(result(second, reused, blob))
    }

    /// Reads for the checksums of blocks alone, on this thread: they take less time than handing the bytes on.
    /// `keep`: a small tar is returned too.
    fn sum(&self, job: &'scope LayerJob, keep: bool) -> Result<(BlockSums, Option<Vec<u8>>)> {
        let summed = Tally::new(self, job, false, 0).and_then(|mut tally| {
            tally.hasher = None;
            let mut out = Kept { tally, bytes: keep.then(Vec::new) };
            job.recipe.write_to(&mut out)?;
            Ok((out.tally.sums.unwrap_or_default().finish(), out.bytes))
        });
        summed.map_err(|e| in_layer(job, &e))
    }

    fn copy_to_cache(&self, job: &LayerJob, blob: &Blob) -> Result<()> {
        self.shared.check().map_err(|e| in_layer(job, &e))?;
        match &job.cache_to {
            Some((cache, _)) => sinks::copy(blob, job.to.as_ref(), cache),
            None => Ok(()),
        }
    }

    /// Reads without compressing, and hashes on a thread of its own. `keep`: a small tar is returned too.
    fn hash(
        &self,
        job: &'scope LayerJob,
        source: &Source<'_>,
        keep: bool,
        write_tar: bool,
        total: u64,
    ) -> Result<(Pass, Option<Vec<u8>>)> {
        let tally = Tally::new(self, job, write_tar, total).map_err(|e| in_layer(job, &e))?;
        let (full, filled) = sync_channel(HASH_BUFFERS);
        let (free, spares) = channel();
        let hashed = thread::scope(|scope| {
            let hashing = scope.spawn(move || hash_all(tally, &filled, &free, keep));
            let mut sink = HashSink { full, spares, left: HASH_BUFFERS };
            let streamed = source.stream(&mut sink);
            drop(sink);
            let hashed = hashing.join().unwrap_or_else(|_| Err(io::Error::other("cancelled")));
            // Where hashing fails streaming does too, and says less.
            hashed.and_then(|hashed| streamed.map(|()| hashed))
        });
        hashed.and_then(|(tally, kept)| Ok((tally.end()?, kept))).map_err(|e| in_layer(job, &e))
    }

    /// Reads, compresses and sends.
    fn compress(
        &self,
        job: &'scope LayerJob,
        source: &Source<'scope>,
        to: &Destination,
        write_tar: bool,
        total: u64,
    ) -> Result<(Pass, Blob)> {
        let outcome = Arc::new(Mutex::new(None));
        let sent = sinks::Sent::default();
        let mut open = || {
            if let Some(Err(error)) = &*outcome.lock().unwrap_or_else(PoisonError::into_inner) {
                // What cannot be read will not be readable on a second try.
                return Err(in_layer(job, error));
            }
            self.shared.check().map_err(|e| in_layer(job, &e))?;
            let tally = Tally::new(self, job, write_tar, total).map_err(|e| in_layer(job, &e))?;
            let (items, receiver) = sync_channel(self.shared.per_job);
            let (source, shared, tasks) = (source.clone(), self.shared, self.tasks.clone());
            let counted = Arc::clone(&sent);
            self.scope.spawn(move || {
                let mut sink = BlockSink { tally, shared, tasks, items: items.clone(), block: None, sent: counted };
                let item = match source.stream(&mut sink).and_then(|()| sink.tally.end()) {
                    Ok(pass) => Item::End(pass),
                    Err(error) => Item::Failed(error),
                };
                // Who waits no longer has been cancelled, or tries again.
                let _ = items.send(item);
            });
            Ok(Compressed::new(receiver, Arc::clone(&outcome), Arc::clone(&sent)))
        };
        let made = sinks::send(to, self.docker, &mut open);
        let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (made, outcome) {
            (_, Some(Err(error))) => Err(in_layer(job, &error)),
            (Ok(blob), Some(Ok(pass))) => {
                (self.on_event)(Event::Sent { layer: &job.name, done: blob.size });
                Ok((pass, blob))
            }
            (Ok(_), None) => Err(Error::Io(format!("layer {}: not read to its end", job.name))),
            (Err(error), _) => Err(error),
        }
    }
}

fn result(pass: Pass, reused: bool, blob: Option<Blob>) -> LayerResult {
    let Pass { diff_id, size, tar_written, sums } = pass;
    LayerResult { diff_id, size, reused, blob, tar_written, sums }
}

fn in_layer(job: &LayerJob, error: &io::Error) -> Error {
    Error::Io(format!("layer {}: {error}", job.name))
}

fn wants_cache(job: &LayerJob, diff_id: &Digest) -> bool {
    job.cache_to.as_ref().is_some_and(|(_, has)| !has.contains(diff_id))
}

/// Whether the layer may be one that is known, and worth knowing.
fn may_be_known(job: &LayerJob) -> bool {
    let in_cache = |diff_id: &Digest| job.tar_to.as_ref().is_some_and(|(_, dir)| tar_path(dir, diff_id).exists());
    let useful = |diff_id: &Digest| job.reusable.contains(diff_id) || in_cache(diff_id);
    job.known.as_ref().is_some_and(|known| known.any(useful))
}

/// Whether the layer may turn out to need nothing: then its diff ID comes first.
fn look_first(job: &LayerJob) -> bool {
    if job.to.is_some() || !job.reusable.is_empty() {
        return !job.reusable.is_empty();
    }
    let cached = job.cache_to.as_ref().is_some_and(|(_, has)| !has.is_empty());
    let committed = job.tar_to.as_ref().is_some_and(|(_, committed)| {
        committed.read_dir().is_ok_and(|mut dir| {
            dir.any(|entry| entry.is_ok_and(|entry| Path::new(&entry.file_name()).extension() == Some("tar".as_ref())))
        })
    });
    cached || committed
}

fn tar_path(dir: &Path, diff_id: &Digest) -> PathBuf {
    dir.join(format!("{diff_id}.tar"))
}

/// What is done with every byte of a tar: count, hash, sum up by blocks, and write to the volume cache.
struct Tally<'a> {
    /// `None` where checksums are all that is wanted.
    hasher: Option<Sha256>,
    sums: Option<Summing>,
    size: u64,
    total: u64,
    tar: Option<(TempFile, &'a (PathBuf, PathBuf))>,
    name: &'a str,
    shared: &'a Shared,
    on_event: &'a (dyn Fn(Event<'_>) + Sync),
}

impl<'a> Tally<'a> {
    fn new(context: &Context<'a, '_>, job: &'a LayerJob, write_tar: bool, total: u64) -> io::Result<Self> {
        let tar = match job.tar_to.as_ref().filter(|_| write_tar) {
            Some(dirs) => Some((TempFile::new(&dirs.0)?, dirs)),
            None => None,
        };
        let sums = job.known.is_some().then(Summing::new);
        let (shared, on_event) = (context.shared, context.on_event);
        Ok(Self { hasher: Some(Sha256::new()), sums, size: 0, total, tar, name: &job.name, shared, on_event })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
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

    fn end(self) -> io::Result<Pass> {
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
struct Kept<'a> {
    tally: Tally<'a>,
    bytes: Option<Vec<u8>>,
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
fn keep(kept: &mut Option<Vec<u8>>, bytes: &[u8]) {
    match kept {
        Some(kept) if kept.len() + bytes.len() <= KEEP => kept.extend_from_slice(bytes),
        kept => *kept = None,
    }
}

/// Takes a tar that is only hashed: the next buffer is filled while another thread hashes those before.
struct HashSink {
    full: SyncSender<(Vec<u8>, usize)>,
    spares: Receiver<Vec<u8>>,
    /// Buffers that may still be made.
    left: usize,
}

impl Sink for HashSink {
    fn buffer(&mut self) -> io::Result<(Vec<u8>, usize)> {
        let buffer = match self.spares.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.left > 0 => {
                self.left -= 1;
                vec![0; HASH_SIZE]
            }
            Err(_) => self.spares.recv().map_err(|_| io::Error::other("cancelled"))?,
        };
        Ok((buffer, HASH_SIZE))
    }

    fn full(&mut self, buffer: Vec<u8>, length: usize) -> io::Result<()> {
        self.full.send((buffer, length)).map_err(|_| io::Error::other("cancelled"))
    }
}

/// The other end of a [`HashSink`].
fn hash_all<'a>(
    mut tally: Tally<'a>,
    filled: &Receiver<(Vec<u8>, usize)>,
    free: &Sender<Vec<u8>>,
    keep: bool,
) -> io::Result<(Tally<'a>, Option<Vec<u8>>)> {
    let mut kept = keep.then(Vec::new);
    for (buffer, length) in filled {
        let bytes = &buffer[..length];
        tally.add(bytes)?;
        self::keep(&mut kept, bytes);
        // Who reads is at the end.
        let _ = free.send(buffer);
    }
    Ok((tally, kept))
}

/// Takes a tar that is hashed here and compressed by the workers.
struct BlockSink<'a> {
    tally: Tally<'a>,
    shared: &'a Shared,
    tasks: Sender<Task>,
    items: SyncSender<Item>,
    block: Option<Block>,
    sent: sinks::Sent,
}

impl Sink for BlockSink<'_> {
    fn buffer(&mut self) -> io::Result<(Vec<u8>, usize)> {
        let mut block = self.shared.block()?;
        let buffer = block.take_buffer();
        self.block = Some(block);
        Ok((buffer, BLOCK))
    }

    fn full(&mut self, buffer: Vec<u8>, length: usize) -> io::Result<()> {
        let Some(mut block) = self.block.take() else { return Ok(()) };
        block.fill(buffer, length);
        self.tally.add(block.bytes())?;
        let (done, waiting) = sync_channel(1);
        let gone = || io::Error::other("cancelled");
        self.tasks.send(Task { block, done }).map_err(|_| gone())?;
        self.items.send(Item::Block(waiting)).map_err(|_| gone())?;
        // From here, as what sends may outlive the run's borrows.
        let done = self.sent.load(Ordering::Relaxed);
        (self.tally.on_event)(Event::Sent { layer: self.tally.name, done });
        Ok(())
    }
}

//! One job: what has to be made of the layer, and the passes over it that takes.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, Scope},
};

use super::{
    Destination, Event, LayerJob, LayerResult,
    blocks::{BLOCK, Block, KEEP, Shared, Task},
    sinks::{self, Compressed, Item},
    tally::{Kept, Pass, Tally, keep, tar_path},
};
use crate::{
    Blob, BlockSums, Digest, Error, KnownLayers, Recipe, Result,
    tar_stream::{Sink, TarStream},
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

/// What there is to go on with after looking for the layer among those that are known.
struct Look<'a> {
    /// Whether the diff ID is wanted before anything is made: the layer may turn out to need nothing.
    diff_id_first: bool,
    /// What the reading came to, if there was one.
    seen: Option<BlockSums>,
    /// The layer was recognised.
    first: Option<Pass>,
    source: Source<'a>,
}

impl<'scope> Context<'scope, '_> {
    pub(super) fn run(&self, job: &'scope LayerJob) -> Result<LayerResult> {
        let blob_to = job.to.as_ref().or(job.cache_to.as_ref().map(|(to, _)| to));
        let look_first = look_first(job);
        let keep = if look_first { self.shared.keep() } else { None };
        let Look { diff_id_first: look_first, seen, first, mut source } = self.look(job, look_first, keep.is_some())?;
        if let Some(to) = blob_to.filter(|_| !look_first) {
            let total = seen.as_ref().map_or(0, BlockSums::size);
            let (pass, blob) = self.compress(job, &source, to, job.tar_to.is_some(), total)?;
            pass.same_as(job, None, seen.as_ref())?;
            if job.to.is_some() && wants_cache(job, &pass.diff_id) {
                self.copy_to_cache(job, &blob)?;
            }
            return Ok(result(pass, false, Some(blob)));
        }

        let first = if let Some(known) = first {
            known
        } else {
            let (first, kept) = self.hash(job, &source, keep.is_some() && seen.is_none(), !look_first, 0)?;
            first.same_as(job, None, seen.as_ref())?;
            source = kept.map_or(source, |bytes| Source::Kept(Arc::new(bytes)));
            first
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

    /// Looks for a layer that may be known. Nobody knows it: then it has changed, and is worth no reading for its diff ID
    /// alone.
    fn look(&self, job: &'scope LayerJob, look_first: bool, keep: bool) -> Result<Look<'scope>> {
        let source = Source::Recipe(&job.recipe);
        let known = job.known.as_ref().filter(|_| look_first);
        let smallest = known.and_then(|known| smallest_known(job, known));
        let Some((known, smallest)) = known.zip(smallest) else {
            return Ok(Look { diff_id_first: look_first, seen: None, first: None, source });
        };
        // A layer that was large before will hardly be one that can be kept.
        let room = usize::try_from(smallest).ok().filter(|size| keep && *size <= KEEP);
        let (sums, kept) = self.sum(job, room)?;
        let first = known.find(&sums).map(|diff_id| Pass::known(diff_id, &sums));
        let source = kept.map_or(source, |bytes| Source::Kept(Arc::new(bytes)));
        Ok(Look { diff_id_first: first.is_some(), seen: Some(sums), first, source })
    }

    /// Reads for the checksums of blocks alone, on this thread: they take less time than handing the bytes on.
    /// `keep`: a small tar is returned too, and will have about this many bytes.
    fn sum(&self, job: &'scope LayerJob, keep: Option<usize>) -> Result<(BlockSums, Option<Vec<u8>>)> {
        let summed = Tally::new(self, job, false, 0).and_then(|mut tally| {
            tally.hasher = None;
            let mut out = Kept { tally, bytes: keep.map(Vec::with_capacity) };
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

/// The size of the smallest layer that this one may be, and that is worth knowing.
fn smallest_known(job: &LayerJob, known: &KnownLayers) -> Option<u64> {
    let in_cache = |diff_id: &Digest| job.tar_to.as_ref().is_some_and(|(_, dir)| tar_path(dir, diff_id).exists());
    known.sizes(|diff_id| job.reusable.contains(diff_id) || in_cache(diff_id)).min()
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

//! The export pipeline: many layers side by side on all cores; each is read once, hashed once, compressed at most
//! once, and goes straight to where it belongs. Memory is bounded by workers × block size. The bytes made depend on
//! nothing but the content (blocks of 1 MiB, one gzip member each, ISA-L level 1).
//!
//! Threads: one per job that is under way (it hashes, or takes compressed blocks in order and sends them), one more
//! per job that reads what is compressed, and `workers` that compress the blocks of all jobs.

mod blocks;
mod gzip;
mod job;
mod sinks;
mod tally;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{Blob, BlockSums, Digest, Error, KnownLayers, Recipe, Reference, Registry, Result};

/// One layer to make.
#[derive(Debug)]
pub struct LayerJob {
    /// For progress and errors, e.g. `acme/jvm:jdk`.
    pub name: String,
    pub recipe: Recipe,
    /// Diff IDs whose blobs need not be made for `to` (the previous image has them). Where the layer comes out as one
    /// of them nothing is compressed or sent. Where this is empty, compression starts at once.
    pub reusable: Vec<Digest>,
    /// Where the compressed blob goes. `None`: nowhere (a daemon; a layer only cached in a volume).
    pub to: Option<Destination>,
    /// A second place for the same blob: the cache image, with the diff IDs that image has already.
    pub cache_to: Option<(Destination, Vec<Digest>)>,
    /// The volume cache's staging directory: gets `<diff id>.tar`, unless the second path (the committed directory) has
    /// that file already.
    pub tar_to: Option<(PathBuf, PathBuf)>,
    /// What a volume cache knows of layers made before. Where one of them may be this layer, the first reading looks for
    /// it by its checksums and computes no diff ID. `None`: no checksums are made.
    pub known: Option<Arc<KnownLayers>>,
}

/// Where blobs go.
#[derive(Clone, Debug)]
pub enum Destination {
    Registry(Registry, Reference),
    /// A layout's directory.
    Layout(PathBuf),
}

/// What a job came to.
#[derive(Clone, Debug)]
pub struct LayerResult {
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub size: u64,
    /// The diff ID was among `reusable`: no blob was made for `to`.
    pub reused: bool,
    /// Made for `to` or `cache_to`.
    pub blob: Option<Blob>,
    /// The tar was written to `tar_to`'s staging directory (else: it is in the committed one, or none was asked).
    pub tar_written: bool,
    /// Those of the tar's blocks, where something is `known`.
    pub sums: Option<BlockSums>,
}

/// What goes on, for logs and progress. Called from worker threads.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Bytes of a layer's tar read so far, and in all (0 while that is not known). A layer that is read to learn
    /// whether it changed, and again to compress it, starts anew.
    Read { layer: &'a str, done: u64, total: u64 },
    /// Compressed bytes sent so far.
    Sent { layer: &'a str, done: u64 },
    /// The layer is where it belongs, or was there before.
    Done { layer: &'a str },
}

/// Runs jobs.
pub struct Pipeline<'a> {
    /// Threads; the number of cores.
    pub workers: usize,
    /// Docker's media types instead of OCI's.
    pub docker: bool,
    pub on_event: &'a (dyn Fn(Event<'_>) + Sync),
}

/// Jobs under way at once, at least: uploads wait for the network, not for a core.
const JOBS_AT_ONCE: usize = 4;

impl Pipeline<'_> {
    /// All jobs, results in their order. The first error ends the run: nothing half-made stays.
    ///
    /// # Errors
    /// The first one, naming the layer and the path, image or blob.
    #[allow(clippy::needless_pass_by_value, reason = "a job is used up by being run")]
    pub fn run(&self, jobs: Vec<LayerJob>) -> Result<Vec<LayerResult>> {
        let workers = self.workers.max(1);
        let at_once = workers.max(JOBS_AT_ONCE).min(jobs.len());
        let shared = blocks::Shared::new(workers, at_once);
        let (tasks, queue) = blocks::queue();
        let results: Vec<Mutex<Option<LayerResult>>> = jobs.iter().map(|_| Mutex::default()).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..workers.min(jobs.len().saturating_mul(workers)) {
                let queue = queue.clone();
                scope.spawn(move || blocks::work(&queue));
            }
            for _ in 0..at_once {
                let context = job::Context {
                    scope,
                    shared: &shared,
                    tasks: tasks.clone(),
                    docker: self.docker,
                    on_event: self.on_event,
                };
                let (jobs, next, results) = (&jobs, &next, &results);
                scope.spawn(move || {
                    while let Some((job, result)) = take(next, jobs, results) {
                        match context.run(job) {
                            Ok(done) => {
                                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
                                (self.on_event)(Event::Done { layer: &job.name });
                            }
                            Err(error) => context.shared.fail(error),
                        }
                        if context.shared.cancelled() {
                            break;
                        }
                    }
                });
            }
            drop(tasks);
        });
        if let Some(error) = shared.failure() {
            return Err(error);
        }
        results
            .into_iter()
            .map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::Io("a layer was not made".to_owned()))
    }
}

fn take<'a, A, B>(next: &AtomicUsize, jobs: &'a [A], results: &'a [B]) -> Option<(&'a A, &'a B)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(index).zip(results.get(index))
}

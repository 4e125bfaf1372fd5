//! Blocks of tars: a bounded number of buffers, and the workers that turn each into one gzip member.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
};

use super::gzip;
use crate::Error;

/// Bytes of tar in one gzip member.
pub(super) const BLOCK: usize = 1 << 20;
/// A buffer can hold the block's member too, however badly it compresses.
const CAPACITY: usize = gzip::bound(BLOCK);
/// What layers may keep in memory between the pass that hashes and the one that compresses: each, and all together.
pub(super) const KEEP: usize = 8 << 20;
const KEEP_ALL: usize = 16 << 20;

/// What the threads of one run share.
#[derive(Debug)]
pub(super) struct Shared {
    buffers: Arc<Buffers>,
    kept: AtomicUsize,
    failure: Mutex<Option<Error>>,
    /// Blocks one job may have under way.
    pub(super) per_job: usize,
}

#[derive(Debug)]
struct Buffers {
    state: Mutex<BufferState>,
    freed: Condvar,
    cancelled: AtomicBool,
}

#[derive(Debug)]
struct BufferState {
    free: Vec<Vec<u8>>,
    /// How many more may be handed out.
    left: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(workers: usize, jobs: usize) -> Self {
        let state = BufferState { free: Vec::new(), left: 2 * workers + jobs.max(2) };
        Self {
            buffers: Arc::new(Buffers {
                state: Mutex::new(state),
                freed: Condvar::new(),
                cancelled: AtomicBool::new(false),
            }),
            kept: AtomicUsize::new(0),
            failure: Mutex::new(None),
            per_job: workers + 2,
        }
    }

    /// The first error stays; everybody stops.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        self.buffers.cancelled.store(true, Ordering::Relaxed);
        // Under the lock, so that nobody is between looking and waiting.
        let _state = lock(&self.buffers.state);
        self.buffers.freed.notify_all();
    }

    pub(super) fn failure(self) -> Option<Error> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cancelled(&self) -> bool {
        self.buffers.cancelled.load(Ordering::Relaxed)
    }

    /// An error that is nobody's fault: it never becomes the run's, as there is one already.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Waits for a free buffer.
    pub(super) fn block(&self) -> io::Result<Block> {
        let mut state = lock(&self.buffers.state);
        loop {
            self.check()?;
            if state.left > 0 {
                state.left -= 1;
                let buffer = state.free.pop().unwrap_or_else(|| vec![0; CAPACITY]);
                return Ok(Block { buffer, length: 0, home: Arc::clone(&self.buffers) });
            }
            state = self.buffers.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Leave to keep one layer of up to [`KEEP`] bytes in memory.
    pub(super) fn keep(&self) -> Option<Keep<'_>> {
        let room = |kept: usize| (kept + KEEP <= KEEP_ALL).then_some(kept + KEEP);
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok().map(|_| Keep(self))
    }
}

fn cancelled() -> io::Error {
    io::Error::other("cancelled")
}

/// Given back when dropped.
pub(super) struct Keep<'a>(&'a Shared);

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(KEEP, Ordering::Relaxed);
    }
}

/// A buffer and how much of it counts; it goes back when dropped, wherever that happens.
#[derive(Debug)]
pub(super) struct Block {
    buffer: Vec<u8>,
    length: usize,
    home: Arc<Buffers>,
}

impl Block {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// The buffer itself, to be filled; [`Block::fill`] brings it back.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(super) fn fill(&mut self, buffer: Vec<u8>, length: usize) {
        self.length = length.min(buffer.len());
        self.buffer = buffer;
    }

    /// Replaces the content by one gzip member, which `spare` takes; it becomes the buffer, and the buffer the spare one.
    fn compress(&mut self, spare: &mut Vec<u8>) {
        let length = gzip::member(self.bytes(), spare);
        std::mem::swap(&mut self.buffer, spare);
        self.length = length;
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let buffer = self.take_buffer();
        let mut state = lock(&self.home.state);
        state.left += 1;
        if !buffer.is_empty() {
            state.free.push(buffer);
        }
        drop(state);
        self.home.freed.notify_one();
    }
}

/// A block to be compressed, and who waits for it.
pub(super) struct Task {
    pub(super) block: Block,
    pub(super) done: SyncSender<Block>,
}

/// The queue of all workers. It needs no bound: there are only so many buffers.
pub(super) fn queue() -> (Sender<Task>, Arc<Mutex<Receiver<Task>>>) {
    let (sender, receiver) = mpsc::channel();
    (sender, Arc::new(Mutex::new(receiver)))
}

/// Compresses until no job can send any more.
pub(super) fn work(queue: &Mutex<Receiver<Task>>) {
    let mut spare = vec![0; CAPACITY];
    loop {
        let next = lock(queue).recv();
        let Ok(mut task) = next else { return };
        task.block.compress(&mut spare);
        // Who waits no longer has been cancelled.
        let _ = task.done.send(task.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_wakes_who_waits_for_a_buffer() {
        let shared = Shared::new(1, 1);
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(shared.block().unwrap());
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| shared.block().map(|_| ()));
            shared.fail(Error::Io("first".to_owned()));
            shared.fail(Error::Io("second".to_owned()));
            assert!(waiting.join().unwrap().is_err());
        });
        assert_eq!(shared.failure().unwrap().to_string(), "first");
    }
}

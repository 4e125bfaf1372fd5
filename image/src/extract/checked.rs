//! Unpacking a tar whose blocks have checksums, by several threads. One walks the headers, makes directories and links,
//! and tells for each block what of it goes where; the others read a block each, check it, and write what is in it.
//! So each byte is read once, and what is written is what was checked.
//!
//! Threads cannot keep the order of entries, and need not: every name has to be new. A tar that names a thing twice, or
//! puts one into another that is no directory, comes to an error here, in whichever order it happens.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use nix::sys::stat::Mode;
use tar::EntryType;

use super::{Fault, Item, Put, Target, corrupt, create, doing, umask};
use crate::{
    Error, Result, TarEntry, TarReader,
    sums::{BLOCK, BlockSums},
};

/// More do not help: they wait for the file system.
const MAX_WORKERS: usize = 8;
/// Directories that one block's files may keep open.
const DIRS: usize = 32;

/// As [`super::extract`], but stricter: nothing of the tar may be there yet, and nothing twice in the tar. `on_read`
/// hears how many bytes were read.
///
/// On an error, which does not say whether tar or checksums are at fault, what was written so far stays, and is not to be
/// trusted.
///
/// # Errors
/// As [`super::extract`], and where a block is not what its checksum says.
pub fn extract_checked(
    tar: &File,
    sums: &BlockSums,
    root: &Path,
    within: &[&Path],
    on_read: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let mut target = Target::new(root, within, true)?;
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let blocks = usize::try_from(sums.size().div_ceil(BLOCK as u64)).unwrap_or(usize::MAX);
    let workers = cores.clamp(2, MAX_WORKERS).min(blocks.max(1));
    let (jobs, queue) = sync_channel(workers);
    let shared = Shared { tar, sums, umask: umask(), queue: Mutex::new(queue), failure: Mutex::default() };
    let read = AtomicU64::new(0);
    let walked = thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                shared.work(&|bytes| on_read(read.fetch_add(bytes, Ordering::Relaxed) + bytes));
            });
        }
        let mut walk = Walk { target: &mut target, jobs, shared: &shared, job: Job::default(), links: Vec::new() };
        let walked = walk.all();
        walked.map(|()| walk.links)
    });
    let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The first error is the workers': the walk ends where one of them does.
    let linked = failure.map_or(walked, Err).and_then(|links| {
        let mut link =
            |(doing, item): (String, Item)| target.put(&item, &mut |_, _| Ok(())).map_err(|fault| fault.on(&doing));
        links.into_iter().try_for_each(&mut link)
    });
    // Also after an error: directories above `within` stay.
    let finished = target.finish();
    linked.and(finished)
}

/// What of a block goes where.
#[derive(Default)]
struct Job {
    number: usize,
    pieces: Vec<Piece>,
    /// How often the directory changes from one piece to the next.
    dirs: usize,
}

/// Bytes of one block.
enum Piece {
    /// All of a file.
    Whole { dir: Arc<OwnedFd>, name: OsString, mode: Mode, range: Range<usize> },
    /// Of a file that lies in several blocks, and where in the file they belong.
    Part { file: Arc<File>, at: u64, range: Range<usize> },
}

/// What all threads use.
struct Shared<'a> {
    tar: &'a File,
    sums: &'a BlockSums,
    umask: Mode,
    queue: Mutex<Receiver<Job>>,
    failure: Mutex<Option<Error>>,
}

impl Shared<'_> {
    /// Takes jobs until there are no more. After a failure they are taken, and not done.
    fn work(&self, on_read: &dyn Fn(u64)) {
        let mut buffer = vec![0; BLOCK];
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            if self.failed() {
                continue;
            }
            match self.write(&job, &mut buffer) {
                Ok(bytes) => on_read(bytes),
                Err(fault) => {
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(fault.on(&format!("extract block {}", job.number)));
                }
            }
        }
    }

    fn failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn write(&self, job: &Job, buffer: &mut [u8]) -> Put<u64> {
        let start = job.number as u64 * BLOCK as u64;
        let length = usize::try_from(self.sums.size().saturating_sub(start)).unwrap_or(BLOCK).min(BLOCK);
        let outside = || Fault::Tar("it lies outside of the tar".to_owned());
        let block = buffer.get_mut(..length).ok_or_else(outside)?;
        self.tar.read_exact_at(block, start).map_err(|e| Fault::Tar(format!("read layer tar: {e}")))?;
        if !self.sums.fits(job.number, block) {
            return Err(Fault::Tar("it does not have its checksum".to_owned()));
        }
        for piece in &job.pieces {
            match piece {
                Piece::Whole { dir, name, mode, range } => {
                    let file = create(dir.as_fd(), name, *mode, self.umask)?;
                    file.write_all_at(block.get(range.clone()).ok_or_else(outside)?, 0)?;
                }
                Piece::Part { file, at, range } => {
                    file.write_all_at(block.get(range.clone()).ok_or_else(outside)?, *at)?;
                }
            }
        }
        Ok(length as u64)
    }
}

/// The walk over the headers.
struct Walk<'a, 'b> {
    target: &'a mut Target<'b>,
    jobs: SyncSender<Job>,
    shared: &'a Shared<'a>,
    /// The block that is not complete yet.
    job: Job,
    /// To be made when all files are there.
    links: Vec<(String, Item)>,
}

impl Walk<'_, '_> {
    fn all(&mut self) -> Result<()> {
        let size = self.shared.sums.size();
        let mut tar = TarReader::seeking(Window::new(self.shared.tar, size));
        for index in 0.. {
            let Some(entry) = tar.next_entry().map_err(|e| corrupt(&e))? else { break };
            self.put(index, &entry).map_err(|fault| fault.on(&doing(index, &entry)))?;
        }
        // The last blocks hold no file, and are checked too.
        self.up_to(size.div_ceil(BLOCK as u64)).map_err(|fault| fault.on("extract"))
    }

    fn put(&mut self, index: usize, entry: &TarEntry) -> Put<()> {
        let item = Item::of(entry)?;
        if item.kind == EntryType::Link {
            self.links.push((doing(index, entry), item));
            return Ok(());
        }
        let start = entry.position;
        let end = start.checked_add(entry.size).filter(|end| *end <= self.shared.sums.size());
        let end = end.ok_or_else(|| Fault::Tar("its content: the tar ends before it".to_owned()))?;
        let mut file = None;
        self.target.put(&item, &mut |dir, name| {
            file = Some((Arc::clone(dir), name.to_owned()));
            Ok(())
        })?;
        match file {
            Some((dir, name)) => self.put_file(&dir, &name, item.mode, start..end),
            None => Ok(()),
        }
    }

    fn put_file(&mut self, dir: &Arc<OwnedFd>, name: &OsStr, mode: Mode, content: Range<u64>) -> Put<()> {
        let first = content.start / BLOCK as u64;
        let last = content.end.saturating_sub(1).max(content.start) / BLOCK as u64;
        if first == last {
            let piece =
                Piece::Whole { dir: Arc::clone(dir), name: name.to_owned(), mode, range: within(first, &content) };
            return self.add(first, piece);
        }
        let file = create(dir.as_fd(), name, mode, self.shared.umask)?;
        // Blocks may come in any order: none of them should make the file longer.
        file.set_len(content.end - content.start)?;
        let file = Arc::new(file);
        for number in first..=last {
            let at = (number * BLOCK as u64).saturating_sub(content.start);
            self.add(number, Piece::Part { file: Arc::clone(&file), at, range: within(number, &content) })?;
        }
        Ok(())
    }

    fn add(&mut self, number: u64, piece: Piece) -> Put<()> {
        self.up_to(number)?;
        let same = match (self.job.pieces.last(), &piece) {
            (Some(Piece::Whole { dir: last, .. }), Piece::Whole { dir, .. }) => Arc::ptr_eq(last, dir),
            _ => false,
        };
        self.job.dirs += usize::from(!same);
        self.job.pieces.push(piece);
        if self.job.dirs == DIRS {
            // The block is read once more for its other files: there are only so many that can be open.
            let rest = Job { number: self.job.number, ..Job::default() };
            self.send(rest)?;
        }
        Ok(())
    }

    /// Hands over the blocks before this one.
    fn up_to(&mut self, number: u64) -> Put<()> {
        while (self.job.number as u64) < number {
            let next = Job { number: self.job.number + 1, ..Job::default() };
            self.send(next)?;
        }
        Ok(())
    }

    fn send(&mut self, next: Job) -> Put<()> {
        let gone = || Fault::Tar("stopped by an error elsewhere".to_owned());
        if self.shared.failed() {
            return Err(gone());
        }
        self.jobs.send(std::mem::replace(&mut self.job, next)).map_err(|_| gone())
    }
}

/// The part of a range of the tar that lies in a block.
fn within(number: u64, range: &Range<u64>) -> Range<usize> {
    let start = number * BLOCK as u64;
    let part = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(BLOCK).min(BLOCK);
    part(range.start)..part(range.end)
}

/// Bytes read at a time when headers are read: those of small files lie close together.
const WINDOW: usize = 16 << 10;

/// A file that is read in small parts, here and there.
struct Window<'a> {
    file: &'a File,
    size: u64,
    at: u64,
    /// What was read last, and where it lies in the file.
    bytes: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, size: u64) -> Self {
        Self { file, size, at: 0, bytes: Vec::new(), start: 0 }
    }

    fn rest(&self) -> &[u8] {
        let from = self.at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(from..)).unwrap_or_default()
    }
}

impl Read for Window<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.rest().is_empty() {
            self.bytes.resize(WINDOW, 0);
            self.start = self.at;
            let read = self.file.read_at(&mut self.bytes, self.at);
            self.bytes.truncate(read.as_ref().copied().unwrap_or_default());
            read?;
        }
        let rest = self.rest();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

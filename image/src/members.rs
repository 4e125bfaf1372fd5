//! Inflating layers. Ours are gzip members of up to 1 MiB of tar, each of which says in its header how long it is (an extra
//! field of RFC 1952, as BGZF has one), so that members can be told apart without inflating them, and are inflated by
//! several threads. Everything else is inflated as a stream.
//!
//! The lengths come from whoever made the blob: they are believed within bounds, and only until the member has shown
//! what it is. Memory: four members of 2 MiB for each layer that is read.

use std::{
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use flate2::read::MultiGzDecoder;
use libdeflater::Decompressor;

use crate::{
    fill,
    read_ahead::{Blocks, read_ahead},
};

/// Of a member that tells its length: ten bytes as in every member, then the extra field.
const HEADER: usize = 20;
/// The extra field, but for the length itself: eight bytes, which are one subfield "CN" of four bytes.
const EXTRA: [u8; 6] = [8, 0, b'C', b'N', 4, 0];
/// Of a member that tells its length: the least, and the most that is read at once.
const LENGTHS: std::ops::RangeInclusive<usize> = HEADER + 8..=(1 << 20) + (64 << 10);
/// The most that a member is inflated to at once.
const MAX_INFLATED: usize = 1 << 20;
/// A layer's threads: more would wait for the one that hashes what they make.
const MAX_WORKERS: usize = 3;
/// Members waiting to be used, besides one in use and one on its way: see the bound above.
const WAITING: usize = 2;
/// Bytes inflated at a time where members do not tell their length.
const BLOCK: usize = 256 << 10;

/// What one member was inflated to, when it is.
type Waiting = Receiver<io::Result<Vec<u8>>>;

/// A member to be inflated.
struct Task {
    member: Vec<u8>,
    inflated: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// The bytes of a layer, inflated ahead of whoever reads them.
pub(crate) fn inflated(stored: impl Read + Send + 'static) -> impl Read + Send {
    let (items, members) = sync_channel(WAITING);
    let (used_up, spare) = channel();
    thread::spawn(move || Splitter { stored, items, spare, workers: None }.all());
    Blocks::new(move |used| {
        // Who would use it again is at the end when nobody takes it.
        let _ = used_up.send(used);
        let Ok(member) = members.recv() else { return Ok(None) };
        let inflated: io::Result<_> = member.recv().unwrap_or_else(|_| Err(gone()));
        inflated.map(Some)
    })
}

fn gone() -> io::Error {
    io::Error::other("a layer was not inflated to its end")
}

/// Cuts a blob into members.
struct Splitter<R> {
    stored: R,
    items: SyncSender<Waiting>,
    spare: Receiver<Vec<u8>>,
    /// Started when the first member tells its length.
    workers: Option<Sender<Task>>,
}

/// Who reads has gone.
struct Gone;

impl<R: Read + Send + 'static> Splitter<R> {
    fn all(mut self) {
        loop {
            let mut member = vec![0; HEADER];
            let next = fill(&mut self.stored, &mut member).and_then(|read| {
                member.truncate(read);
                let length = length(&member).unwrap_or(read);
                member.resize(length, 0);
                let rest = member.get_mut(read..).unwrap_or_default();
                let read = read + fill(&mut self.stored, rest)?;
                member.truncate(read);
                // A member that is cut off, or claims too much, is for who can say what is wrong with it.
                Ok((read == length && length >= *LENGTHS.start()).then(|| inflated_size(&member)).flatten())
            });
            let sent = match next {
                Ok(Some(size)) => self.inflate(member, size),
                Ok(None) if member.is_empty() => return,
                Ok(None) => return self.stream(member),
                Err(error) => return self.fail(error),
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// Has a worker inflate a member.
    fn inflate(&mut self, member: Vec<u8>, size: usize) -> Result<(), Gone> {
        let mut inflated = self.spare.try_recv().unwrap_or_default();
        inflated.resize(size, 0);
        let (done, waiting) = sync_channel(1);
        self.workers.get_or_insert_with(start_workers).send(Task { member, inflated, done }).map_err(|_| Gone)?;
        self.items.send(waiting).map_err(|_| Gone)
    }

    /// Inflates what is left, of which these bytes were read.
    fn stream(self, read: Vec<u8>) {
        let Self { stored, items, spare, .. } = self;
        // Inflating takes long enough: what is stored is received, and checked, by another thread.
        let mut rest = MultiGzDecoder::new(read_ahead(io::Cursor::new(read).chain(stored)));
        loop {
            let mut block = spare.try_recv().unwrap_or_default();
            block.resize(BLOCK, 0);
            let filled = fill(&mut rest, &mut block);
            if matches!(filled, Ok(0)) {
                return;
            }
            let at_end = filled.is_err();
            block.truncate(filled.as_ref().copied().unwrap_or_default());
            if send(&items, filled.map(|_| block)).is_err() || at_end {
                return;
            }
        }
    }

    fn fail(&self, error: io::Error) {
        // Who reads has gone, or hears it.
        let _ = send(&self.items, Err(error));
    }
}

/// Hands over what is inflated already.
fn send(items: &SyncSender<Waiting>, block: io::Result<Vec<u8>>) -> Result<(), Gone> {
    let (done, waiting) = sync_channel(1);
    done.send(block).map_err(|_| Gone)?;
    items.send(waiting).map_err(|_| Gone)
}

/// How long the member with this header is, if it tells and can be believed.
fn length(header: &[u8]) -> Option<usize> {
    // Deflate, and an extra field but nothing else.
    let plain = header.starts_with(&[0x1f, 0x8b, 8, 4]) && header.get(10..16) == Some(&EXTRA);
    let length = usize::try_from(u32_at(header, 16)?).ok()?;
    (plain && LENGTHS.contains(&length)).then_some(length)
}

/// What the member says it is inflated to, if that can be done at once.
fn inflated_size(member: &[u8]) -> Option<usize> {
    let size = usize::try_from(u32_at(member, member.len().checked_sub(4)?)?).ok()?;
    (length(member) == Some(member.len()) && size <= MAX_INFLATED).then_some(size)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn start_workers() -> Sender<Task> {
    let (tasks, queue) = channel();
    let queue = Arc::new(Mutex::new(queue));
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for _ in 0..cores.min(MAX_WORKERS) {
        let queue = Arc::clone(&queue);
        thread::spawn(move || work(&queue));
    }
    tasks
}

fn work(queue: &Mutex<Receiver<Task>>) {
    let mut gunzip = Decompressor::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { member, mut inflated, done }) = next else { return };
        // Checks length and checksum, too.
        let made = match gunzip.gzip_decompress(&member, &mut inflated) {
            Ok(made) if made == inflated.len() => Ok(inflated),
            Ok(_) => Err("it is shorter than it says".to_owned()),
            Err(e) => Err(e.to_string()),
        };
        let made = made.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("inflate a gzip member: {e}")));
        // Who waits no longer has gone.
        let _ = done.send(made);
    }
}

#[cfg(test)]
mod tests {
    use libdeflater::{CompressionLvl, Compressor};

    use super::*;

    const BLOCK: usize = 1 << 20;

    fn plain_member(content: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::new(1).unwrap());
        let mut member = vec![0; compressor.gzip_compress_bound(content.len())];
        let length = compressor.gzip_compress(content, &mut member).unwrap();
        member.truncate(length);
        member
    }

    /// A member that tells its length.
    fn member(content: &[u8]) -> Vec<u8> {
        let mut member = plain_member(content);
        member[3] = 4;
        let length = u32::try_from(member.len() + 10).unwrap();
        let extra = EXTRA.into_iter().chain(length.to_le_bytes());
        member.splice(10..10, extra);
        member
    }

    fn text(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|n| (n * (n >> 7) + seed).to_le_bytes()[0] & 0x3f).collect()
    }

    fn inflate(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        inflated(io::Cursor::new(blob.to_vec())).read_to_end(&mut all)?;
        Ok(all)
    }

    /// Which of a blob's members are inflated side by side.
    fn told_apart(blob: &[u8]) -> bool {
        length(blob).is_some()
    }

    #[test]
    fn members_that_tell_their_length_and_others_in_any_order() {
        let (one, two, three) = (text(BLOCK, 1), text(BLOCK, 2), text(777, 3));
        let told = [member(&one), member(&two), member(&[]), member(&three)].concat();
        assert!(told_apart(&told));
        let mut header = flate2::read::GzDecoder::new(&told[..]);
        assert_eq!(header.header().and_then(|h| h.extra()).map(<[u8]>::len), Some(8), "any other tool reads them, too");
        header.read_exact(&mut [0]).unwrap();
        let all = [&one[..], &two, &three].concat();
        assert_eq!(inflate(&told).unwrap(), all);
        assert_eq!(inflate(&[plain_member(&one), plain_member(&two), plain_member(&three)].concat()).unwrap(), all);
        assert_eq!(inflate(&[member(&one), plain_member(&two), member(&three)].concat()).unwrap(), all);
        assert_eq!(inflate(&plain_member(&all)).unwrap(), all, "one member of more than is inflated at once");
        assert_eq!(inflate(&member(&all)).unwrap(), all, "also where it tells its length");
        assert_eq!(inflate(&[]).unwrap(), b"");
    }

    #[test]
    fn many_members_keep_their_order() {
        let contents: Vec<Vec<u8>> = (0..50).map(|n| text(1000 * (50 - n), n)).collect();
        let blob: Vec<u8> = contents.iter().flat_map(|content| member(content)).collect();
        assert_eq!(inflate(&blob).unwrap(), contents.concat());
    }

    #[test]
    fn other_extra_fields_are_no_lengths() {
        let good = member(b"content");
        for (at, byte) in [(2, 9), (3, 0), (3, 12), (10, 9), (12, b'B'), (13, b'C'), (14, 5), (19, 1), (16, 27)] {
            let mut other = good.clone();
            other[at] = byte;
            assert!(!told_apart(&other), "{at}");
        }
        let mut bgzf = good;
        bgzf[12] = b'B';
        assert_eq!(inflate(&bgzf).unwrap(), b"content");
    }

    #[test]
    fn damage_is_an_error() {
        let blob = [member(&text(5000, 1)), member(&text(5000, 2))].concat();
        let first = length(&blob).unwrap();
        for cut in [first + 1, first + HEADER, first + HEADER + 3, blob.len() - 1] {
            assert!(inflate(&blob[..cut]).is_err(), "cut at {cut}");
        }
        // Content, checksum, size.
        for at in [HEADER + 40, first - 8, first - 4] {
            let mut bad = blob.clone();
            bad[at] ^= 1;
            let mut reader = inflated(io::Cursor::new(bad));
            let mut all = Vec::new();
            let error = reader.read_to_end(&mut all).expect_err(&at.to_string());
            assert_eq!(reader.read(&mut [0]).unwrap_err().to_string(), error.to_string(), "it stays broken");
        }
        // A length that is not true: whatever comes out is right.
        for (at, by) in [(16, 1), (16, 255), (17, 1), (17, 255), (18, 1)] {
            let mut bad = blob.clone();
            bad[at] = bad[at].wrapping_add(by);
            assert!(inflate(&bad).map_or(true, |all| all == [text(5000, 1), text(5000, 2)].concat()), "{at} {by}");
        }
        let failing = io::Cursor::new(member(b"x")).chain(Broken);
        assert_eq!(inflated(failing).read_to_end(&mut Vec::new()).unwrap_err().to_string(), "broken");
    }

    #[test]
    fn a_size_that_is_not_true_costs_no_memory() {
        let mut bomb = member(&vec![0; 5000]);
        let at = bomb.len() - 4;
        bomb[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(inflated_size(&bomb), None);
        assert!(inflate(&bomb).is_err());
        bomb[at..].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        assert!(inflate(&bomb).is_err());
    }

    #[test]
    fn whoever_stops_reading_stops_everything() {
        let blob: Vec<u8> = (0..30).flat_map(|n| member(&text(BLOCK, n))).collect();
        let mut reader = inflated(io::Cursor::new(blob));
        reader.read_exact(&mut [0; 10]).unwrap();
        drop(reader);
    }

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
}

//! The digest of what is read (and checksums of its blocks, where wanted), computed while it is read.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
};

use image::{BlockSums, Digest, Summing, fill};
use sha2::{Digest as _, Sha256};

/// Bytes read and hashed at a time: as many as are written at a time, and two such blocks fit a core's own cache.
const BLOCK: usize = 512 << 10;
/// Blocks in all: one that is read from, one that is hashed, and what evens the two out.
const BLOCKS: usize = 3;

/// Passes bytes on, while a thread of its own hashes them.
pub(crate) struct Hashing<R> {
    inner: R,
    block: Arc<Vec<u8>>,
    used: usize,
    /// Blocks that may still be made.
    left: usize,
    full: SyncSender<Arc<Vec<u8>>>,
    hashed: Receiver<Arc<Vec<u8>>>,
    thread: JoinHandle<Hashed>,
}

/// What came of the bytes.
struct Hashed {
    hash: Sha256,
    sums: Option<Summing>,
}

impl<R: Read> Hashing<R> {
    /// With `sums`, checksums are made too.
    pub(crate) fn new(inner: R, sums: bool) -> Self {
        let (full, blocks) = sync_channel(BLOCKS);
        let (done, hashed) = channel();
        let hashed_with = Hashed { hash: Sha256::new(), sums: sums.then(Summing::new) };
        let thread = thread::spawn(move || hash(hashed_with, &blocks, &done));
        Self { inner, block: Arc::default(), used: 0, left: BLOCKS, full, hashed, thread }
    }

    /// Reads what is left and gives the digest of all of it.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, Option<BlockSums>)> {
        while self.next()? {}
        drop(self.full);
        let hashed = self.thread.join().map_err(|_| gone())?;
        Ok((Digest::from_hasher(hashed.hash), hashed.sums.map(Summing::finish)))
    }

    /// The next block; `false` at the end.
    fn next(&mut self) -> io::Result<bool> {
        self.used = 0;
        let mut block = self.spare()?;
        block.resize(BLOCK, 0);
        let length = fill(&mut self.inner, &mut block)?;
        block.truncate(length);
        self.block = Arc::new(block);
        if length > 0 {
            self.full.send(Arc::clone(&self.block)).map_err(|_| gone())?;
        }
        Ok(length > 0)
    }

    /// An empty block: a used one, once there are as many as there may be.
    fn spare(&mut self) -> io::Result<Vec<u8>> {
        self.block = Arc::default();
        if self.left > 0 {
            self.left -= 1;
            return Ok(Vec::with_capacity(BLOCK));
        }
        let block = self.hashed.recv().map_err(|_| gone())?;
        Ok(Arc::try_unwrap(block).unwrap_or_default())
    }
}

fn gone() -> io::Error {
    io::Error::other("a layer was not hashed to its end")
}

fn hash(mut hashed: Hashed, blocks: &Receiver<Arc<Vec<u8>>>, done: &Sender<Arc<Vec<u8>>>) -> Hashed {
    for block in blocks {
        hashed.hash.update(block.as_slice());
        if let Some(sums) = &mut hashed.sums {
            sums.add(block.as_slice());
        }
        // Who reads is at the end.
        let _ = done.send(block);
    }
    hashed
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.used == self.block.len() && !self.next()? {
            return Ok(0);
        }
        let n = self.block.get(self.used..).unwrap_or_default().read(buf)?;
        self.used += n;
        Ok(n)
    }
}

/// The digest of everything there is to read.
pub(crate) fn digest_of(content: impl Read) -> io::Result<Digest> {
    Ok(Hashing::new(content, false).finish()?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_and_hashes_every_byte() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK + 5] {
            let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
            let mut reader = Hashing::new(bytes.as_slice(), true);
            let mut start = Vec::new();
            (&mut reader).take(length as u64 / 2).read_to_end(&mut start).unwrap();
            assert_eq!(start, bytes[..length / 2]);
            let mut sums = Summing::new();
            sums.add(&bytes);
            let expected = (Digest::of(&bytes), Some(sums.finish()));
            assert_eq!(reader.finish().unwrap(), expected, "what nobody read is hashed too");
            let mut all = Vec::new();
            let mut reader = Hashing::new(bytes.as_slice(), false);
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(reader.finish().unwrap(), (expected.0, None));
            assert_eq!(all, bytes);
        }
    }

    #[test]
    fn what_cannot_be_read_has_no_digest() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let content = io::repeat(7).take(3 * BLOCK as u64).chain(Broken);
        assert_eq!(digest_of(content).unwrap_err().to_string(), "broken");
    }
}

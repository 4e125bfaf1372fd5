//! Reading on another thread than the one that uses what is read.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread,
};

const BLOCK: usize = 256 << 10;
/// Blocks read and not used yet.
const AHEAD: usize = 3;

/// Bytes that come in blocks, each of them made by another thread. Who makes them gets used ones back.
pub(crate) struct Blocks<N> {
    /// Takes the used block and gives the next one, `None` at the end.
    next: N,
    block: Vec<u8>,
    used: usize,
    /// Why there is no more, for whoever asks again.
    failed: Option<(io::ErrorKind, String)>,
}

impl<N: FnMut(Vec<u8>) -> io::Result<Option<Vec<u8>>>> Blocks<N> {
    pub(crate) fn new(next: N) -> Self {
        Self { next, block: Vec::new(), used: 0, failed: None }
    }
}

impl<N: FnMut(Vec<u8>) -> io::Result<Option<Vec<u8>>>> Read for Blocks<N> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // A block may be empty.
        while self.used == self.block.len() {
            if let Some((kind, text)) = &self.failed {
                return Err(io::Error::new(*kind, text.clone()));
            }
            self.used = 0;
            let next = (self.next)(std::mem::take(&mut self.block));
            match next.inspect_err(|e| self.failed = Some((e.kind(), e.to_string())))? {
                Some(block) => self.block = block,
                None => return Ok(0),
            }
        }
        let n = self.block.get(self.used..).unwrap_or_default().read(out)?;
        self.used += n;
        Ok(n)
    }
}

/// The bytes of another reader, read ahead by a thread of its own; no more than a few blocks.
pub(crate) fn read_ahead(inner: impl Read + Send + 'static) -> impl Read + Send {
    let (full, filled) = sync_channel(AHEAD);
    let (used_up, empty) = channel();
    thread::spawn(move || read_all(inner, &full, &empty));
    Blocks::new(move |used| {
        // Who reads ahead is at the end when nobody takes it.
        let _ = used_up.send(used);
        filled.recv().map_or(Ok(None), |block: io::Result<_>| block.map(Some))
    })
}

fn read_all(mut inner: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut block = empty.try_recv().unwrap_or_default();
        block.resize(BLOCK, 0);
        // With half a layer nothing can be done, where the rest cannot be read.
        let read = fill(&mut inner, &mut block);
        let at_end = !matches!(read, Ok(n) if n > 0);
        block.truncate(read.as_ref().copied().unwrap_or_default());
        // An end is what the channel's closing says.
        if matches!(read, Ok(0)) || full.send(read.map(|_| block)).is_err() || at_end {
            return;
        }
    }
}

/// Reads until the buffer is full or nothing is left, and says how many bytes there were.
///
/// # Errors
/// The reader's. What was read before is lost.
pub fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::InvalidData, "broken"))
        }
    }

    #[test]
    fn every_byte_in_order_and_the_error_after_them() {
        for length in [0, 1, BLOCK, BLOCK + 1, 7 * BLOCK + 3] {
            let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
            let mut all = Vec::new();
            read_ahead(io::Cursor::new(bytes.clone())).read_to_end(&mut all).unwrap();
            assert_eq!(all, bytes);
        }
        let mut reader = read_ahead(io::repeat(7).take(2 * BLOCK as u64).chain(Broken));
        let mut all = Vec::new();
        let error = reader.read_to_end(&mut all).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::InvalidData, "broken"));
        assert_eq!(all.len(), 2 * BLOCK);
        assert_eq!(reader.read(&mut [0]).unwrap_err().to_string(), "broken", "it stays broken");
    }
}

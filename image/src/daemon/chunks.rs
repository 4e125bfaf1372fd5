//! The body of a request whose length is not known before: in chunks, as HTTP has them.

use std::io::{self, Write};

use super::host::Stream;

/// Bytes of small writes gathered into one chunk.
pub(super) const GATHER: usize = 64 << 10;

/// A body in chunks.
pub(super) struct Chunks<'a> {
    out: &'a mut Stream,
    /// Small writes, until they are worth a chunk.
    gathered: Vec<u8>,
    /// Why the connection takes no more.
    pub(super) broken: Option<io::Error>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(out: &'a mut Stream) -> Self {
        Self { out, gathered: Vec::new(), broken: None }
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut send = || {
            self.out.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
            self.out.write_all(bytes)?;
            self.out.write_all(b"\r\n")
        };
        send().inspect_err(|e| self.broken = Some(io::Error::new(e.kind(), e.to_string())))
    }

    fn send_gathered(&mut self) -> io::Result<()> {
        let mut gathered = std::mem::take(&mut self.gathered);
        if !gathered.is_empty() {
            self.chunk(&gathered)?;
            gathered.clear();
            self.gathered = gathered;
        }
        Ok(())
    }

    /// Says that there is no more.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.send_gathered()?;
        self.out.write_all(b"0\r\n\r\n").inspect_err(|e| self.broken = Some(io::Error::new(e.kind(), e.to_string())))
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.len() + bytes.len() <= GATHER {
            self.gathered.extend_from_slice(bytes);
        } else {
            self.send_gathered()?;
            self.chunk(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_gathered()
    }
}

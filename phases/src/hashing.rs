//! The digest of what is read, computed while it is read.

use std::io::{self, Read};

use image::Digest;
use sha2::{Digest as _, Sha256};

/// Passes bytes on and hashes them.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// Reads what is left and gives the digest of all of it.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::from_hasher(self.hash))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(buf.get(..n).unwrap_or_default());
        Ok(n)
    }
}

/// The digest of everything there is to read.
pub(crate) fn digest_of(content: impl Read) -> io::Result<Digest> {
    // Large reads: a cached layer may have gigabytes.
    Hashing::new(io::BufReader::with_capacity(1 << 20, content)).finish()
}

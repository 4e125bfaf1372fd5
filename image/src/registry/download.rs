//! Blobs on their way in: checked to the last byte (unless who reads them does that), and taken up again where a
//! connection broke.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use ureq::http::{Method, StatusCode, header};

use super::{
    failure::{Attempt, Failure},
    http::Patience,
    repository::{Call, Repository},
};
use crate::{Blob, Digest, Error};

/// How often one blob's transfer is taken up again.
const RESUMES: usize = 5;

/// A blob's bytes. Ends in an error where they are not the ones the digest promises.
pub(super) struct BlobReader {
    repository: Repository,
    digest: Digest,
    size: u64,
    body: Box<dyn Read + Send>,
    offset: u64,
    /// None: the content is not compared with the digest.
    hash: Option<Sha256>,
    resumes: usize,
}

impl BlobReader {
    pub(super) fn open(repository: &Repository, blob: &Blob) -> Attempt<Self> {
        let body = body_from(repository, &blob.digest, 0).inspect_err(|failure| {
            if failure.is(StatusCode::NOT_FOUND) {
                repository.distrust();
            }
        })?;
        repository.remember_blob(&blob.digest);
        Ok(Self {
            repository: repository.clone(),
            digest: blob.digest.clone(),
            size: blob.size,
            body,
            offset: 0,
            hash: Some(Sha256::new()),
            resumes: RESUMES,
        })
    }

    /// Leaves the digest to who reads this.
    pub(super) fn unchecked(mut self) -> Self {
        self.hash = None;
        self
    }

    fn check(&self) -> io::Result<()> {
        self.hash.as_ref().map_or(Ok(()), |hash| check(hash, &self.digest, || self.name()))
    }

    fn name(&self) -> String {
        format!("blob {} of {}", self.digest, self.repository.context())
    }

    fn resume(&mut self, why: &str) -> io::Result<()> {
        let give_up = |text: String| Err(io::Error::other(Error::Remote(text)));
        if self.resumes == 0 {
            return give_up(format!("{}: {why} at byte {} of {}", self.name(), self.offset, self.size));
        }
        self.resumes -= 1;
        tracing::debug!("{}: {why} at byte {} of {}, going on from there", self.name(), self.offset, self.size);
        match body_from(&self.repository, &self.digest, self.offset) {
            Ok(body) => {
                self.body = body;
                Ok(())
            }
            Err(failure) => Err(io::Error::other(failure.error)),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.offset == self.size {
                return self.check().map(|()| 0);
            }
            let room = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..room).unwrap_or_default();
            match self.body.read(part) {
                Ok(0) => self.resume("the connection was closed")?,
                Ok(n) => {
                    if let Some(hash) = &mut self.hash {
                        hash.update(part.get(..n).unwrap_or_default());
                    }
                    self.offset += n as u64;
                    // Before the last bytes are given away: a receiver of known length asks for no more.
                    if self.offset == self.size {
                        self.check()?;
                        // Only a body whose end was seen leaves its connection to the next call.
                        let _ = self.body.read(&mut [0]);
                    }
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.resume(&e.to_string())?,
            }
        }
    }
}

fn body_from(repository: &Repository, digest: &Digest, offset: u64) -> Attempt<Box<dyn Read + Send>> {
    let range = format!("bytes={offset}-");
    let headers = [("range", range.as_str())];
    let call = Call {
        method: Method::GET,
        url: repository.blob_url(digest)?,
        headers: if offset > 0 { &headers } else { &[] },
        scopes: &[repository.pull()],
        patience: Patience::Normal,
    };
    let answer = repository.get(&call)?;
    let partial = answer.status == StatusCode::PARTIAL_CONTENT
        && answer.header(header::CONTENT_RANGE).is_some_and(|r| r.starts_with(&format!("bytes {offset}-")));
    let mut body: Box<dyn Read + Send> = Box::new(answer.body);
    if offset > 0 && !partial {
        // No ranges here: from the start, to the same place.
        let skipped = io::copy(&mut (&mut body).take(offset), &mut io::sink());
        if skipped.map_or(true, |n| n < offset) {
            let text = format!("blob {digest} of {}: it broke off before byte {offset}", repository.context());
            return Err(Failure::temporary(Error::Remote(text)));
        }
    }
    Ok(body)
}

/// Whether the content was the one the digest promises.
fn check(hash: &Sha256, digest: &Digest, name: impl Fn() -> String) -> io::Result<()> {
    let found = format!("sha256:{}", hex(&hash.clone().finalize()));
    if found == digest.as_str() {
        return Ok(());
    }
    let text = format!("{}: its content has digest {found}", name());
    Err(io::Error::new(io::ErrorKind::InvalidData, Error::Corrupt(text)))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A file that must have this digest, read from a layout.
pub(super) struct CheckedFile {
    file: std::fs::File,
    name: String,
    digest: Digest,
    hash: Sha256,
    /// Bytes.
    pub(super) size: u64,
    offset: u64,
}

impl CheckedFile {
    pub(super) fn open(path: &std::path::Path, digest: &Digest) -> crate::Result<Self> {
        let opened = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::NotFound(format!("{}: {e}", path.display())),
            _ => Error::Io(format!("{}: {e}", path.display())),
        })?;
        let name = path.display().to_string();
        Ok(Self { file, name, digest: digest.clone(), hash: Sha256::new(), size, offset: 0 })
    }
}

impl Read for CheckedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.name)))?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        self.offset += n as u64;
        if self.offset == self.size || n == 0 && !buffer.is_empty() {
            check(&self.hash, &self.digest, || self.name.clone())?;
        }
        Ok(n)
    }
}

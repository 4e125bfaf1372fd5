//! Blobs on their way out.

use std::{
    io::{self, Read},
    sync::atomic::Ordering,
};

use ureq::http::{Method, StatusCode, Uri, header};

use super::{
    StreamedBlob,
    auth::Scope,
    download::{BlobReader, CheckedFile},
    failure::{Attempt, Failure, content_error},
    http::{Answer, Body, Patience},
    repository::{Call, Repository},
    retry,
    url::with_query,
};
use crate::{Blob, BlobSource, Digest, Error, Result};

/// Content up to this size is held in memory: its digest is known before anything is sent, so that what the registry
/// has already is not sent, and what it has not goes in one request less.
const SMALL: u64 = 1 << 20;

/// To ask whether content up to this size is there takes as long as to send it.
const TINY: usize = 256 << 10;

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

/// How an upload began.
pub(super) enum Started {
    /// The registry took the blob from another repository of its own.
    Mounted,
    Session(Uri),
}

/// What one attempt leaves to the next.
#[derive(Default)]
struct Progress {
    partial: Option<Partial>,
    /// That of an attempt that came to the end of its content.
    digest: Option<Digest>,
    /// Bytes of the whole content, where the registry wants to know before.
    size: Option<u64>,
    /// The registry may want to know, by the last answer.
    measure: bool,
}

/// An upload that broke off, and how far it came.
struct Partial {
    session: Uri,
    offset: u64,
}

impl Repository {
    /// Uploads content of unknown digest and size.
    pub(super) fn upload_stream(
        &self,
        open: &mut dyn FnMut() -> Result<Box<dyn StreamedBlob>>,
    ) -> Attempt<(Digest, u64)> {
        let mut progress = Progress::default();
        retry(&self.shared.settings, || {
            let mut blob = open().map_err(Failure::lasting)?;
            if progress.size.is_none() && (progress.measure || self.host.wants_lengths.load(Ordering::Relaxed)) {
                // It is made twice rather than kept: it may be larger than memory and what there is of a disk.
                io::copy(&mut blob, &mut io::sink()).map_err(|e| Failure::lasting(content_error(e)))?;
                progress.size = Some(self.finish(blob.as_mut(), &mut progress)?.1);
                drop(blob);
                blob = open().map_err(Failure::lasting)?;
            }
            let mut start = Vec::new();
            (&mut blob).take(SMALL).read_to_end(&mut start).map_err(|e| Failure::lasting(content_error(e)))?;
            let (digest, size) = if (start.len() as u64) < SMALL {
                let (digest, size) = self.finish(blob.as_mut(), &mut progress)?;
                self.upload_bytes(&digest, &start)?;
                (digest, size)
            } else {
                self.stream(&start, blob.as_mut(), &mut progress)?
            };
            self.remember_blob(&digest);
            Ok((digest, size))
        })
    }

    /// Digest and size, the same ones in every attempt: else the image would be one that was never built.
    fn finish(&self, blob: &mut dyn StreamedBlob, progress: &mut Progress) -> Attempt<(Digest, u64)> {
        let (digest, size) = blob.finish().map_err(Failure::lasting)?;
        match progress.digest.replace(digest.clone()) {
            Some(before) if before != digest => {
                let text =
                    format!("content for {}: it changed between two attempts: {before}, {digest}", self.context());
                Err(Failure::lasting(Error::Corrupt(text)))
            }
            _ => Ok((digest, size)),
        }
    }

    fn stream(&self, start: &[u8], blob: &mut dyn StreamedBlob, progress: &mut Progress) -> Attempt<(Digest, u64)> {
        let (session, offset) = match progress.partial.take() {
            Some(partial) => (partial.session, partial.offset),
            None => match self.start()? {
                Started::Session(session) => (session, 0),
                Started::Mounted => {
                    let text = format!("{}: an upload was answered as a mount", self.context());
                    return Err(Failure::lasting(Error::Remote(text)));
                }
            },
        };
        let mut content = start.chain(&mut *blob);
        let skipped = io::copy(&mut (&mut content).take(offset), &mut io::sink());
        if skipped.map_err(|e| Failure::lasting(content_error(e)))? < offset {
            let text = format!("{}: the registry claims to have more of the blob than there is", self.context());
            return Err(Failure::temporary(Error::Remote(text)));
        }
        let length = progress.size.map(|size| size.saturating_sub(offset));
        let session = match self.patch(&session, &mut Body::Stream { content: &mut content, length }) {
            Ok(session) => session,
            Err(failure) => return Err(self.interrupted(failure, session, offset, progress)),
        };
        // What is sent with its length is not read beyond it.
        io::copy(&mut content, &mut io::sink()).map_err(|e| Failure::lasting(content_error(e)))?;
        let (digest, size) = self.finish(blob, progress)?;
        self.commit(&session, &digest).map_err(|failure| Self::restartable(failure, offset))?;
        Ok((digest, size))
    }

    /// Why the content did not arrive, and in `progress` what another attempt has to know.
    fn interrupted(&self, mut failure: Failure, session: Uri, offset: u64, progress: &mut Progress) -> Failure {
        if let Some(session) = failure.moved.take() {
            progress.partial = Some(Partial { session: *session, offset });
            return failure;
        }
        let status = failure.status.map_or(0, |status| status.as_u16());
        if progress.size.is_none() && matches!(status, 400 | 411 | 501) {
            // The length is what may have been missing, and in two of the cases it is nothing else.
            self.host.wants_lengths.fetch_or(status != 400, Ordering::Relaxed);
            progress.measure = true;
            return Failure { temporary: true, ..failure };
        }
        // A resumed upload that fails is not resumed again, nor is one that the registry refused.
        if failure.temporary && failure.status.is_none() && offset == 0 {
            progress.partial = self.received(session);
        }
        Self::restartable(failure, offset)
    }

    /// What went wrong with a resumed upload may go right from the start; so may an upload the registry lost.
    fn restartable(mut failure: Failure, offset: u64) -> Failure {
        let lost = ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"].iter().any(|c| failure.codes.iter().any(|f| f == c));
        failure.temporary |= offset > 0 && failure.status.is_some() || lost;
        failure
    }

    /// How far the registry says the upload came; `None` where it says nothing, or nothing arrived.
    fn received(&self, session: Uri) -> Option<Partial> {
        let call = Call {
            method: Method::GET,
            url: session.clone(),
            headers: &[],
            scopes: &[self.push()],
            patience: Patience::Normal,
        };
        let answer = self.call_once(&call, &mut Body::None).ok()?;
        let range = answer.header(header::RANGE)?;
        let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.parse().ok()?;
        let offset = last.checked_add(1)?;
        let session = self.place(&answer).ok()?.unwrap_or(session);
        (last > 0).then_some(Partial { session, offset })
    }

    /// Uploads small content, unless it is there. What is tiny is not asked for first.
    pub(super) fn upload_bytes(&self, digest: &Digest, bytes: &[u8]) -> Attempt<()> {
        if self.must_have(digest) || bytes.len() > TINY && self.has_blob(digest)? {
            return Ok(());
        }
        retry(&self.shared.settings, || {
            if let Started::Session(session) = self.start()? {
                self.put_content(&session, digest, &mut Body::Bytes(bytes)).map_err(|f| Self::restartable(f, 0))?;
            }
            Ok(())
        })?;
        self.remember_blob(digest);
        Ok(())
    }

    /// Makes the repository have the blob.
    pub(super) fn ensure_blob(&self, blob: &Blob) -> Attempt<()> {
        let digest = &blob.digest;
        let source = match &blob.source {
            BlobSource::Layout(_) => None,
            BlobSource::Registry(reference) => Some(Self::new(&self.shared, reference)),
        };
        let neighbour = source.as_ref().filter(|source| source.host.name == self.host.name);
        let same = neighbour.is_some_and(|source| source.name == self.name);
        // A mount of what is there already does no harm, and tells as much as the question whether it is.
        let mount_first = neighbour.is_some() && !same;
        if self.must_have(digest) || !mount_first && self.has_blob(digest)? {
            return Ok(());
        }
        if same {
            let text = format!("blob {digest} of {}: it is not there any more", self.context());
            return Err(Failure::lasting(Error::NotFound(text)));
        }
        let mut session = match neighbour.and_then(|source| self.mount(digest, source)) {
            Some(Started::Mounted) => {
                self.remember_blob(digest);
                return Ok(());
            }
            Some(Started::Session(session)) => Some(session),
            None => None,
        };
        // Before it is sent: the registry may have it, and no way to mount it.
        if mount_first && self.has_blob(digest)? {
            return Ok(());
        }
        retry(&self.shared.settings, || {
            let place = match session.take() {
                Some(session) => session,
                None => match self.start()? {
                    Started::Session(session) => session,
                    Started::Mounted => return Ok(()),
                },
            };
            self.copy(&place, blob, source.as_ref()).map_err(|mut failure| {
                session = failure.moved.take().map(|place| *place);
                Self::restartable(failure, 0)
            })
        })?;
        self.remember_blob(digest);
        Ok(())
    }

    /// Asks for the blob of another repository. `None` where the registry will not have it that way: then it is sent, which
    /// is the better second attempt where the registry fails at this one.
    fn mount(&self, digest: &Digest, source: &Repository) -> Option<Started> {
        let from = [("mount", digest.as_str()), ("from", source.name.as_str())];
        let started = retry(&self.shared.settings, || {
            self.start_anew(&[self.push(), source.pull()], Some(from)).map_err(|failure| {
                let ill = failure.status.is_some_and(|status| status.is_server_error());
                Failure { temporary: failure.temporary && !ill, ..failure }
            })
        });
        started.inspect_err(|f| tracing::debug!("mounting {digest} from {}: {}", source.context(), f.error)).ok()
    }

    /// Streams a blob of known size and digest from where it is.
    fn copy(&self, session: &Uri, blob: &Blob, source: Option<&Repository>) -> Attempt<()> {
        let (mut content, size): (Box<dyn Read + Send>, u64) = match (&blob.source, source) {
            (BlobSource::Layout(dir), _) => {
                let path = dir.join("blobs").join("sha256").join(blob.digest.hex());
                let file = CheckedFile::open(&path, &blob.digest).map_err(Failure::lasting)?;
                let size = file.size;
                (Box::new(file), size)
            }
            (BlobSource::Registry(_), Some(source)) => (Box::new(BlobReader::open(source, blob)?), blob.size),
            (BlobSource::Registry(reference), None) => {
                (Box::new(BlobReader::open(&Self::new(&self.shared, reference), blob)?), blob.size)
            }
        };
        self.put_content(session, &blob.digest, &mut Body::Stream { content: &mut content, length: Some(size) })
    }

    /// Begins an upload, or takes one that was begun.
    fn start(&self) -> Attempt<Started> {
        match self.begun() {
            Some(session) => Ok(Started::Session(session)),
            None => self.start_anew(&[self.push()], None),
        }
    }

    /// Begins an upload, or asks for a mount.
    pub(super) fn start_anew(&self, scopes: &[Scope], mount: Option<[(&str, &str); 2]>) -> Attempt<Started> {
        let mut url = self.url("blobs/uploads/")?;
        for (name, value) in mount.into_iter().flatten() {
            url = with_query(&url, name, value).unwrap_or(url);
        }
        let call = Call { method: Method::POST, url, headers: &[], scopes, patience: Patience::Normal };
        let answer = self.call_once(&call, &mut Body::None)?;
        if answer.status == StatusCode::CREATED {
            answer.finish();
            return Ok(Started::Mounted);
        }
        let Some(session) = self.place(&answer)? else {
            let text = format!("POST to {}: no place to upload to in the answer ({})", self.context(), answer.status);
            return Err(Failure::lasting(Error::Remote(text)));
        };
        answer.finish();
        Ok(Started::Session(session))
    }

    /// Sends the whole blob and finishes the upload: in one request, but to registries that know no such request.
    fn put_content(&self, session: &Uri, digest: &Digest, body: &mut Body<'_>) -> Attempt<()> {
        if self.host.patches_only.load(Ordering::Relaxed) {
            let session = self.patch(session, body)?;
            return self.commit(&session, digest);
        }
        self.put(session, digest, body).map_err(|failure| {
            let status = failure.status.map_or(0, |status| status.as_u16());
            // An upload that the registry forgot has a code.
            let unknown = matches!(status, 405 | 501) || status == 404 && failure.codes.is_empty();
            self.host.patches_only.fetch_or(unknown, Ordering::Relaxed);
            Failure { temporary: failure.temporary || unknown, ..failure }
        })
    }

    /// Sends content that the upload is not finished with; where it is to be finished.
    fn patch(&self, session: &Uri, body: &mut Body<'_>) -> Attempt<Uri> {
        let url = session.clone();
        let call =
            Call { method: Method::PATCH, url, headers: &[OCTETS], scopes: &[self.push()], patience: Patience::Long };
        let answer = self.call_once(&call, body)?;
        let session = self.place(&answer)?.unwrap_or_else(|| session.clone());
        answer.finish();
        Ok(session)
    }

    /// Where the upload goes on, if the answer says it.
    fn place(&self, answer: &Answer) -> Attempt<Option<Uri>> {
        let place = answer.location();
        if let Some(place) = &place {
            self.host.check_target(place, "the place to upload to")?;
        }
        Ok(place)
    }

    /// A request that finishes the upload, with the whole blob or nothing.
    fn put(&self, session: &Uri, digest: &Digest, body: &mut Body<'_>) -> Attempt<()> {
        // A place that the registry sent us on to has it already.
        let told = session.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("digest=")));
        let url = if told { None } else { with_query(session, "digest", digest.as_str()) };
        let url = url.unwrap_or_else(|| session.clone());
        let call =
            Call { method: Method::PUT, url, headers: &[OCTETS], scopes: &[self.push()], patience: Patience::Long };
        self.call_once(&call, body)?.finish();
        Ok(())
    }

    /// Finishes a streamed upload. An answer that got lost does not cost the upload: the blob may well be there.
    fn commit(&self, session: &Uri, digest: &Digest) -> Attempt<()> {
        let mut first = true;
        retry(&self.shared.settings, || match self.put(session, digest, &mut Body::None) {
            Err(failure) if !first && self.has_blob(digest).unwrap_or(false) => {
                tracing::debug!("{}; but the blob is there", failure.error);
                Ok(())
            }
            result => {
                first = false;
                result
            }
        })
    }
}

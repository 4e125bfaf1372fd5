//! What can go wrong with images. Every text names the image, blob, URL or path.

/// The kinds are those that callers branch on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such image or blob.
    #[error("{0}")]
    NotFound(String),
    /// Refused: 401 or 403.
    #[error("{0}")]
    Unauthorized(String),
    /// Content that is not what its digest, size or format says.
    #[error("{0}")]
    Corrupt(String),
    /// A name that is not an image reference.
    #[error("{0}")]
    Reference(String),
    /// The registry or daemon answered something else than success, or not at all.
    #[error("{0}")]
    Remote(String),
    /// A file could not be read or written.
    #[error("{0}")]
    Io(String),
}

//! Dockerfiles of image extensions: parsed as Docker parses them, and applied to the file system we run in, without a
//! daemon and without any other tool. Knows Dockerfiles and images; has never heard of phases, and pulls no image.
//!
//! <https://docs.docker.com/reference/dockerfile/>

pub mod apply;
mod archive;
mod cache;
mod context;
mod copy;
mod dockerignore;
mod fetch;
mod layer;
pub mod parse;
mod run;
mod snapshot;
mod time;
mod unpack;
mod users;
mod words;
mod work;

pub use apply::{Applied, Applier, Setting, base_of};
pub use cache::Cache;
pub use parse::{Dockerfile, Instruction, Step, parse};
pub use snapshot::{Ignore, Snapshot};
pub use work::Work;

/// What went wrong, in one sentence; it names the line of the Dockerfile, or the path.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// `<action> <path>: <why>`
    pub(crate) fn at(action: &str, path: &std::path::Path, why: &impl std::fmt::Display) -> Self {
        Self(format!("{action} {}: {why}", path.display()))
    }
}

impl From<image::Error> for Error {
    fn from(error: image::Error) -> Self {
        Self(error.to_string())
    }
}

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

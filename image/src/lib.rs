//! OCI images, wherever they live: the image as a value, layers as recipes that are streamed, and the three places
//! images are found and saved: registry, daemon, layout. Knows OCI; has never heard of buildpacks.

pub mod config;
pub mod daemon;
pub mod digest;
pub mod error;
pub mod extract;
pub mod glob;
pub mod image;
mod json;
pub mod keychain;
pub mod layout;
mod manifest;
mod members;
pub mod pipeline;
mod read_ahead;
pub mod recipe;
pub mod reference;
pub mod registry;
mod save;
mod sums;
mod tar_copy;
mod tar_header;
pub mod tar_reader;
mod tar_stream;
mod temp;
mod unverified;

pub use config::{Config, History};
pub use daemon::Daemon;
pub use digest::Digest;
pub use error::Error;
pub use glob::Glob;
pub use image::{Blob, BlobSource, Image, ImageId, Images, Layer, SaveResult, Saved};
pub use json::escaped_like_go;
pub use keychain::Keychain;
pub use layout::Layout;
pub use pipeline::{Destination, Event, LayerJob, LayerResult, Pipeline};
pub use read_ahead::fill;
pub use recipe::{Owner, Recipe, clean_path};
pub use reference::Reference;
pub use registry::Registry;
pub use sums::{BlockSums, KnownLayers, Summing};
pub use tar_reader::{TarEntry, TarReader};

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

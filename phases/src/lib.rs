//! The lifecycle's phases, as functions from values to values. A phase does not parse flags, read environment
//! variables, print, exit or drop privileges; it logs with `tracing` and returns what it found.
//!
//! Spec: <https://github.com/buildpacks/spec/blob/main/platform.md>

pub mod analyze;
pub mod build;
pub mod cache;
pub mod detect;
pub mod export;
pub mod extend;
pub mod generate;
mod hashing;
pub mod labels;
mod layers_dir;
mod os_release;
mod parallel;
pub mod rebase;
pub mod restore;
pub mod run_image;
mod sbom;
pub mod span;
mod target;

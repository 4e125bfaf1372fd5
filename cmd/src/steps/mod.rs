//! For each phase: read what it needs, call it, write what it made. The single executables and creator call the same
//! functions, so they cannot differ.

mod analysis;
mod build;
mod export;
mod extend;
mod images;
mod rebase;
mod restore;

pub use analysis::{Analysis, begin_analysis};
pub use build::{
    Attempt, Detection, attempt, build, detect, generate, read_order, read_plan, set_home, target_of, write_detected,
};
pub use export::{export, exporter_images, is_extended, read_build_metadata};
pub use extend::{extend, extended_inputs, guard_machine};
pub use images::{
    Places, analyze, analyzer_images, offered_run_images, open, open_cache, read_run_images, restore_sbom,
};
pub use rebase::{rebase, rebaser_images};
pub use restore::{resolve_images, restore, restorer_images, restorer_offer};

use std::path::Path;

use platform_api::{Analyzed, Failure, Group, file};

use crate::{log, otel};

/// Reads and parses a required file; exit code 1, `failed to read <what> file: …`.
fn required<T, E: std::fmt::Display>(
    what: &str,
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Failure> {
    file::parse(path, parse).map_err(|e| Failure::failed(format!("failed to read {what} file: {e}")))
}

/// Writes a file; exit code 1.
fn write(what: &str, path: &Path, text: &str) -> Result<(), Failure> {
    file::write(path, text).map_err(|e| Failure::failed(format!("failed to write {what}: {e}")))
}

/// The failure of a file that inputs come from.
pub fn unresolved(failure: &Failure) -> Failure {
    Failure::invalid_args(format!("failed to resolve inputs: {}", failure.text))
}

/// group.toml, with every API in it checked.
pub fn read_group(path: &Path) -> Result<Group, Failure> {
    let group = required("group", path, Group::parse)?;
    group.check_apis()?;
    Ok(group)
}

/// analyzed.toml; empty, with a warning, where there is none.
pub fn read_analyzed(path: &Path) -> Result<Analyzed, Failure> {
    let found = file::parse_if_exists(path, Analyzed::parse)
        .map_err(|e| Failure::failed(format!("failed to read analyzed file: {e}")))?;
    Ok(found.unwrap_or_else(|| {
        tracing::warn!("No analyzed metadata found at path {:?}", path);
        Analyzed::default()
    }))
}

/// analyzed.toml, written by the phases that refine it.
pub fn write_analyzed(path: &Path, analyzed: &Analyzed) -> Result<(), Failure> {
    write("analyzed metadata", path, &analyzed.to_toml())
}

/// Says at debug when a phase started and how long it took, and in the trace, if one is wanted.
fn timed<T, E>(name: &'static str, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let span = otel::begin(log::enter(name));
    let start = std::time::Instant::now();
    tracing::debug!("Timer: {name} started at {}", log::now());
    let made = act();
    let took = start.elapsed();
    let (took_nanos, passed) = (u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), made.is_ok());
    tracing::debug!(took_nanos, passed, "Timer: {name} ran for {took:?} and ended at {}", log::now());
    if let Some(span) = span {
        span.end(passed);
    }
    made
}

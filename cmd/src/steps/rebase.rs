//! rebase

use platform_api::{
    ExitCode, Failure, Flags,
    inputs::{ImageLocation, RebaserInputs},
};

use super::{Places, images, open, timed, write};
use crate::in_phase;

/// Checks the names of a rebase and opens the places of its images.
pub fn rebaser_images(i: &RebaserInputs, flags: &Flags) -> Result<Places, Failure> {
    let run_image = i.run_image.as_deref().unwrap_or_default();
    let outputs: Vec<&str> = i.output_images.iter().map(String::as_str).collect();
    let others = match i.location {
        ImageLocation::Registry | ImageLocation::Daemon => vec![&*i.previous_image, run_image],
        ImageLocation::Layout(_) => Vec::new(),
    };
    images::check_names(&outputs, &others, &i.location)?;
    open(&i.location, &i.insecure_registries, flags, outputs.into_iter().chain([&*i.previous_image, run_image]))
}

/// Rebases and writes report.toml.
pub fn rebase(i: &RebaserInputs, places: &Places) -> Result<(), Failure> {
    let report = timed("Rebaser", || phases::rebase::rebase(i, &places.images))
        .map_err(|e| in_phase(ExitCode::Rebase, "rebase", &e))?;
    write("rebase report", &i.report, &report.to_toml()).map_err(|failure| Failure::new(ExitCode::Rebase, failure.text))
}

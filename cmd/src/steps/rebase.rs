//! rebase

use image::{Images, Reference};
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
    let mut names = outputs;
    names.extend([&*i.previous_image, run_image]);
    let places = open(&i.location, &i.insecure_registries, flags, names.iter().copied())?;
    if i.run_image.is_some() || !matches!(places.images, Images::Registry(_)) {
        return Ok(places);
    }
    // The app image names the run image; credentials for its registries may be root's to read, too.
    let offered = phases::rebase::run_images_of_label(i, &places.images);
    let registry = |name: &str| Reference::parse(name).map(|r| r.registry).ok();
    let known: Vec<_> = names.iter().map(|name| registry(name)).collect();
    if offered.iter().all(|name| known.contains(&registry(name))) {
        return Ok(places);
    }
    names.extend(offered.iter().map(String::as_str));
    open(&i.location, &i.insecure_registries, flags, names.iter().copied())
}

/// Rebases and writes report.toml.
pub fn rebase(i: &RebaserInputs, places: &Places) -> Result<(), Failure> {
    let report = timed("Rebaser", || phases::rebase::rebase(i, &places.images))
        .map_err(|e| in_phase(ExitCode::Rebase, "rebase", &e))?;
    write("rebase report", &i.report, &report.to_toml()).map_err(|failure| Failure::new(ExitCode::Rebase, failure.text))
}

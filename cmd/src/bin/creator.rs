//! creator: from source to image in one call; the map of the program. platform.md "Creator"

use std::thread::{self, Scope};

use cmd::{
    log, privileges,
    steps::{self, Places},
};
use phases::{
    analyze::{Found, Needed},
    cache::Cache,
};
use platform_api::{ExitCode, Failure, inputs::CreatorInputs};

fn main() -> std::process::ExitCode {
    // Buildpacks run as the same user: they must not read this process's environment, which may hold credentials.
    privileges::hide_from_children();
    cmd::run(
        "creator",
        CreatorInputs::from_flags,
        |i| (i.log, &i.warnings),
        |mut i, flags| {
            let offered = steps::offered_run_images(&i.analyzer)?;
            let places = steps::analyzer_images(&i.analyzer, &offered, flags)?;
            let directories = [i.cache.dir.as_deref(), i.exporter.launch_cache.as_deref(), Some(&*i.exporter.layers)];
            privileges::become_user(i.user, &directories)?;
            // Buildpacks never run as root: what they leave would be root's, in this container and in the app image.
            privileges::refuse_root("build")?;
            steps::set_home(&mut i)?;
            let cache = steps::open_cache(&i.cache, &places, i.api)?;

            log::banner("ANALYZING");
            let found = steps::analyze(&i.analyzer, &offered, &places, Needed::Irreplaceable)?;
            thread::scope(|scope| from_detect_on(scope, &i, &places, cache, found))
        },
    )
}

/// What comes after analyze, whose last steps go on meanwhile.
fn from_detect_on<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    i: &'env CreatorInputs,
    places: &'env Places,
    cache: Option<Cache>,
    found: Found,
) -> Result<(), Failure> {
    let target = found.analyzed.clone();
    let (analyzed, rest) = steps::finish_analysis(scope, &i.analyzer, places, found);

    log::banner("DETECTING");
    let detected = steps::detect(&i.detector, &steps::read_order(&i.detector)?, &target)?;
    steps::write_detected(&i.detector, &detected)?;
    if !detected.group.extensions.is_empty() {
        let text = "failed to detect: detected order contains extensions which is not supported by the creator";
        return Err(Failure::new(ExitCode::Detect, text));
    }

    let analyzed =
        analyzed.recv().unwrap_or_else(|_| Err(Failure::failed("analyze: a thread ended before its work")))?;
    if !i.skip_restore || i.api.skip_restore_keeps_store() {
        log::banner("RESTORING");
        steps::restore(&i.restorer, &detected.group, &analyzed.metadata, cache.as_ref())?;
    }

    log::banner("BUILDING");
    let metadata = steps::build(&i.builder, &detected.group, detected.plan, &analyzed)?;

    log::banner("EXPORTING");
    let _ = rest.join();
    steps::export(&i.exporter, &detected.group, &analyzed, &metadata, places, cache)
}

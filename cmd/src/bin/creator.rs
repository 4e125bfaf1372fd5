//! creator: from source to image in one call; the map of the program. platform.md "Creator"

use std::thread::{self, ScopedJoinHandle};

use cmd::{
    log, privileges,
    steps::{self, Analysis, Places},
};
use phases::cache::Cache;
use platform_api::{ExitCode, Failure, TargetData, inputs::CreatorInputs};

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

            log::banner("ANALYZING");
            let created = thread::scope(|scope| {
                let opening = scope.spawn(|| steps::open_cache(&i.cache, &places, i.api));
                let analysis = steps::begin_analysis(scope, &i.analyzer, &offered, &places);
                from_detect_on(&i, &places, opening, &analysis)
            });
            places.registry.cancel_uploads();
            created
        },
    )
}

/// What comes after analyze begins, which goes on meanwhile: detection asks for nothing but the base, restore for the
/// previous image, and export for its layers.
fn from_detect_on(
    i: &CreatorInputs,
    places: &Places,
    opening: ScopedJoinHandle<'_, Result<Option<Cache>, Failure>>,
    analysis: &Analysis,
) -> Result<(), Failure> {
    let attempt = |target: Option<&TargetData>| {
        let detection = steps::read_order(&i.detector)?;
        Ok::<_, Failure>(steps::attempt(&i.detector, &detection, target))
    };
    let early = analysis.base().map(|target| log::hold(|| attempt(target.as_ref())));
    // What detection has to say comes after what analyze has, if that has not failed.
    let found = analysis.found()?;
    let cache = opening.join().unwrap_or_else(|_| Err(Failure::failed("opening the cache: a thread panicked")))?;
    log::banner("DETECTING");
    let attempted = match early {
        Some((attempted, held)) => {
            held.print();
            attempted?
        }
        None => attempt(steps::target_of(&found))?,
    };
    let detected = attempted.told()?;
    steps::write_detected(&i.detector, &detected)?;
    if !detected.group.extensions.is_empty() {
        let text = "failed to detect: detected order contains extensions which is not supported by the creator";
        return Err(Failure::new(ExitCode::Detect, text));
    }

    let analyzed = analysis.restored()?;
    if !i.skip_restore || i.api.skip_restore_keeps_store() {
        log::banner("RESTORING");
        steps::restore(&i.restorer, &detected.group, &analyzed.metadata, cache.as_ref())?;
    }

    log::banner("BUILDING");
    let metadata = steps::build(&i.builder, &detected.group, detected.plan, &analyzed)?;

    log::banner("EXPORTING");
    analysis.look_for_layers();
    steps::export(&i.exporter, &detected.group, &analyzed, &metadata, places, || Ok(cache))
}

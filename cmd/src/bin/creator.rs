//! creator: from source to image in one call; the map of the program. platform.md "Creator"

use std::thread;

use cmd::{log, privileges, steps};
use phases::analyze::Needed;
use platform_api::{ExitCode, Failure, inputs::CreatorInputs};

fn main() -> std::process::ExitCode {
    // Buildpacks run as the same user: they must not read this process's environment, which may hold credentials.
    privileges::hide_from_children();
    cmd::run(
        "creator",
        CreatorInputs::from_flags,
        |i| (i.log, &i.warnings),
        |mut i, flags| {
            let offered = steps::read_run_images(&i.analyzer.run, i.api)?;
            let places = steps::analyzer_images(&i.analyzer, &offered, flags)?;
            let directories = [i.cache.dir.as_deref(), i.exporter.launch_cache.as_deref(), Some(&*i.exporter.layers)];
            privileges::become_user(i.user, &directories)?;
            // Buildpacks never run as root: what they leave would be root's, in this container and in the app image.
            privileges::refuse_root("build")?;
            steps::set_home(&mut i)?;
            let cache = steps::open_cache(&i.cache, &places, i.api)?;

            log::banner("ANALYZING");
            let found = steps::analyze(&i.analyzer, &offered, &places, Needed::Irreplaceable)?;
            let looking = steps::look_for_layers(&places, &found);

            log::banner("DETECTING");
            let target = found.analyzed.clone();
            let (analyzed, detected) = thread::scope(|scope| {
                let analyzed = scope.spawn(|| steps::restore_sbom(&i.analyzer, &places, found));
                let order = steps::read_order(&i.detector);
                let detected = order.and_then(|order| steps::detect(&i.detector, &order, &target));
                (analyzed.join(), detected)
            });
            let analyzed = analyzed.unwrap_or_else(|_| Err(Failure::failed("restoring SBOMs: a thread panicked")))?;
            let detected = detected?;
            steps::write_detected(&i.detector, &detected)?;
            if !detected.group.extensions.is_empty() {
                let text = "failed to detect: detected order contains extensions which is not supported by the creator";
                return Err(Failure::new(ExitCode::Detect, text));
            }

            if !i.skip_restore || i.api.skip_restore_keeps_store() {
                log::banner("RESTORING");
                steps::restore(&i.restorer, &detected.group, &analyzed.metadata, cache.as_ref())?;
            }

            log::banner("BUILDING");
            let metadata = steps::build(&i.builder, &detected.group, detected.plan, &analyzed)?;

            log::banner("EXPORTING");
            let _ = looking.join();
            steps::export(&i.exporter, &detected.group, &analyzed, &metadata, &places, cache)
        },
    )
}

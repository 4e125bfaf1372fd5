//! creator: from source to image in one call; the map of the program. platform.md "Creator"

use cmd::{log, privileges, steps};
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
            let analyzed = steps::analyze(&i.analyzer, &offered, &places)?;

            log::banner("DETECTING");
            let detected = steps::detect(&i.detector, &steps::read_order(&i.detector)?, &analyzed)?;
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
            steps::export(&i.exporter, &detected.group, &analyzed, &metadata, &places, cache)
        },
    )
}

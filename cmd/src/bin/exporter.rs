//! exporter: the app image. platform.md "Exporter"

use cmd::{privileges, steps};
use platform_api::{ExperimentalFeature, inputs::ExporterInputs};

fn main() -> std::process::ExitCode {
    cmd::run(
        "exporter",
        ExporterInputs::from_flags,
        |i| (i.log, &i.warnings),
        |i, flags| {
            let group = steps::read_group(&i.group)?;
            if steps::is_extended(&i.extended) && !i.api.extensions_stable() {
                cmd::guard_experimental(flags, ExperimentalFeature::Dockerfiles)?;
            }
            let analyzed = steps::read_analyzed(&i.analyzed).map_err(|failure| steps::unresolved(&failure))?;
            let places = steps::exporter_images(&i, &analyzed, flags)?;
            privileges::become_user(i.user, &[i.cache.dir.as_deref(), i.launch_cache.as_deref()])?;
            let metadata = steps::read_build_metadata(&i.layers)?;
            steps::export(&i, &group, &analyzed, &metadata, &places, || steps::open_cache(&i.cache, &places, i.api))
        },
    )
}

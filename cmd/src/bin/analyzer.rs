//! analyzer: what is there already. platform.md "Analyzer"

use cmd::{privileges, steps};
use phases::analyze::Needed;
use platform_api::inputs::AnalyzerInputs;

fn main() -> std::process::ExitCode {
    cmd::run(
        "analyzer",
        AnalyzerInputs::from_flags,
        |i| (i.log, &i.warnings),
        |i, flags| {
            let offered = steps::offered_run_images(&i)?;
            let places = steps::analyzer_images(&i, &offered, flags)?;
            privileges::become_user(i.user, &[Some(&i.layers), i.cache.dir.as_deref(), i.launch_cache.as_deref()])?;
            let found = steps::analyze(&i, &offered, &places, Needed::All, &|_| {})?;
            steps::restore_sbom(&i, &places, found).map(drop)
        },
    )
}

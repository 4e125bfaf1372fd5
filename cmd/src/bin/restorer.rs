//! restorer: what earlier builds left for this one. platform.md "Restorer"

use cmd::{privileges, steps};
use platform_api::{Analyzed, inputs::RestorerInputs};

fn main() -> std::process::ExitCode {
    cmd::run(
        "restorer",
        RestorerInputs::from_flags,
        |i| (i.log, &i.warnings),
        |i, flags| {
            let group = steps::read_group(&i.group)?;
            let analyzed = steps::read_analyzed(&i.analyzed);
            let offered = steps::restorer_offer(&i)?;
            let places = steps::restorer_images(&i, analyzed.as_ref().ok(), &offered, flags)?;
            privileges::become_user(i.user, &[Some(&i.layers), i.cache.dir.as_deref(), Some(&i.kaniko)])?;
            let analyzed = match analyzed {
                Ok(analyzed) => steps::resolve_images(&i, &group, analyzed, &offered, &places)?,
                Err(failure) => {
                    // The log shows what is said under the names of our crates, and this executable is named by itself.
                    tracing::warn!(target: "cmd", "Not using analyzed data, usable file not found: {}", failure.text);
                    Analyzed::default()
                }
            };
            let cache = steps::open_cache(&i.cache, &places, i.api)?;
            steps::restore(&i, &group, &analyzed.metadata, cache.as_ref())
        },
    )
}

//! rebaser: an app image on another run image. platform.md "Rebaser"

use cmd::{privileges, steps};
use platform_api::inputs::RebaserInputs;

fn main() -> std::process::ExitCode {
    cmd::run(
        "rebaser",
        RebaserInputs::from_flags,
        |i| (i.log, &i.warnings),
        |i, flags| {
            let places = steps::rebaser_images(&i, flags)?;
            privileges::become_user(i.user, &[])?;
            steps::rebase(&i, &places)
        },
    )
}

//! builder: runs the buildpacks. platform.md "Builder"

use cmd::{privileges, steps};
use platform_api::inputs::BuilderInputs;

fn main() -> std::process::ExitCode {
    cmd::run(
        "builder",
        BuilderInputs::from_flags,
        |i| (i.log, &i.warnings),
        |i, _| {
            privileges::refuse_root("build")?;
            let group = steps::read_group(&i.group)?;
            let plan = steps::read_plan(&i.plan)?;
            let analyzed = steps::read_analyzed(&i.analyzed)?;
            steps::build(&i, &group, plan, &analyzed).map(drop)
        },
    )
}

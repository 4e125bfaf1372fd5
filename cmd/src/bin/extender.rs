//! extender: applies the Dockerfiles of image extensions, and builds in the extended build image.
//! platform.md "extender"

use cmd::{privileges, steps};
use platform_api::inputs::{ExtendKind, ExtenderInputs};

fn main() -> std::process::ExitCode {
    cmd::run(
        "extender",
        ExtenderInputs::from_flags,
        |i| (i.log, &i.warnings),
        |i, flags| {
            steps::guard_machine(flags)?;
            let group = steps::read_group(&i.group)?;
            let analyzed = steps::read_analyzed(&i.analyzed)?;
            let env = steps::extend(&i, &group, &analyzed)?;
            if i.kind == ExtendKind::Run {
                return Ok(());
            }
            privileges::become_user(i.user, &[Some(&i.builder.layers)])?;
            let builder = steps::extended_inputs(&i, env)?;
            privileges::refuse_root("build")?;
            let plan = steps::read_plan(&builder.plan)?;
            steps::build(&builder, &group, plan, &analyzed).map(drop)
        },
    )
}

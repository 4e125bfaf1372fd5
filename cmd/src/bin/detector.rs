//! detector: which buildpacks build this app. platform.md "Detector"

use cmd::{privileges, steps};
use platform_api::{ExperimentalFeature, inputs::DetectorInputs};

fn main() -> std::process::ExitCode {
    cmd::run(
        "detector",
        DetectorInputs::from_flags,
        |i| (i.log, &i.warnings),
        |i, flags| {
            privileges::refuse_root("detect")?;
            let detection = steps::read_order(&i)?;
            if !detection.order.order_extensions.0.is_empty() && !i.api.extensions_stable() {
                cmd::guard_experimental(flags, ExperimentalFeature::Dockerfiles)?;
            }
            let analyzed = steps::read_analyzed(&i.analyzed)?;
            let detected = steps::detect(&i, &detection, &analyzed)?;
            steps::write_detected(&i, &detected)?;
            if detected.group.extensions.is_empty() { Ok(()) } else { steps::generate(&i, detected, analyzed) }
        },
    )
}

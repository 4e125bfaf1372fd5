//! detect and build

use phases::detect::{Detected, Transcript};
use platform_api::{
    Analyzed, BuildMetadata, ExitCode, Failure, Group, OrderFile, Plan, System, TargetData, file,
    inputs::{BuilderInputs, CreatorInputs, DetectorInputs, LogLevel},
};

use super::{read_run_images, required, timed, write, write_analyzed};
use crate::{in_phase, log, privileges};

/// What detection goes by.
#[derive(Debug)]
pub struct Detection {
    pub order: OrderFile,
    pub system: System,
}

/// order.toml and, where the platform has it, system.toml.
pub fn read_order(i: &DetectorInputs) -> Result<Detection, Failure> {
    let initialize = |text: String| Failure::failed(format!("failed to initialize detector: {text}"));
    let order = file::parse(&i.order, OrderFile::parse)
        .map_err(|e| initialize(format!("reading order: failed to read order file: {e}")))?;
    let system = if i.api.system_buildpacks() {
        file::parse_if_exists(&i.system, System::parse)
            .map_err(|e| initialize(format!("reading system: failed to read system file: {e}")))?
            .unwrap_or_default()
    } else {
        System::default()
    };
    Ok(Detection { order, system })
}

/// A detection that is over, and of whose group nothing is said yet.
#[derive(Debug)]
pub struct Attempt {
    detected: Result<Detected, Failure>,
    transcript: Transcript,
}

/// Detects for a base of this target.
#[must_use]
pub fn attempt(i: &DetectorInputs, detection: &Detection, target: Option<&TargetData>) -> Attempt {
    let mut transcript = Transcript::default();
    let detected =
        timed("Detector", || phases::detect::detect(i, &detection.order, &detection.system, target, &mut transcript));
    Attempt { detected: detected.map_err(|e| in_phase(ExitCode::Detect, "detect", &e)), transcript }
}

impl Attempt {
    /// Shows the transcript at its levels, or whole where detection failed.
    pub fn told(self) -> Result<Detected, Failure> {
        match &self.detected {
            Ok(_) => show(self.transcript),
            Err(_) => log::whole(|| show(self.transcript)),
        }
        self.detected
    }
}

/// Detects, and says what was detected.
pub fn detect(i: &DetectorInputs, detection: &Detection, analyzed: &Analyzed) -> Result<Detected, Failure> {
    attempt(i, detection, target_of(analyzed)).told()
}

/// What buildpacks learn of the base.
#[must_use]
pub fn target_of(analyzed: &Analyzed) -> Option<&TargetData> {
    analyzed.run_image.as_ref().and_then(|run_image| run_image.target.as_ref())
}

fn show(transcript: Transcript) {
    for (level, line) in transcript.0 {
        match level {
            LogLevel::Debug => tracing::debug!("{line}"),
            LogLevel::Info => tracing::info!("{line}"),
            LogLevel::Warn => tracing::warn!("{line}"),
            LogLevel::Error | LogLevel::Fatal => tracing::error!("{line}"),
        }
    }
}

/// group.toml and plan.toml.
pub fn write_detected(i: &DetectorInputs, detected: &Detected) -> Result<(), Failure> {
    write("group file", &i.group, &detected.group.to_toml())?;
    write("plan file", &i.plan, &detected.plan.to_toml())
}

/// Builds and writes metadata.toml.
pub fn build(i: &BuilderInputs, group: &Group, plan: Plan, analyzed: &Analyzed) -> Result<BuildMetadata, Failure> {
    let metadata = timed("Builder", || phases::build::build(i, group, plan, target_of(analyzed)))
        .map_err(|e| in_phase(ExitCode::Build, "build", &e))?;
    write("build metadata file", &i.layers.join("config").join("metadata.toml"), &metadata.to_toml(i.api))?;
    Ok(metadata)
}

/// plan.toml
pub fn read_plan(path: &std::path::Path) -> Result<Plan, Failure> {
    required("plan", path, Plan::parse)
}

/// Runs the extensions of the group; writes analyzed.toml and plan.toml anew.
pub fn generate(i: &DetectorInputs, detected: Detected, analyzed: Analyzed) -> Result<(), Failure> {
    let run = read_run_images(&i.run, i.api)?;
    let (detected, analyzed) = timed("Generator", || phases::generate::generate(i, detected, analyzed, &run))
        .map_err(|e| in_phase(ExitCode::Generate, "build", &e))?;
    write_analyzed(&i.analyzed, &analyzed)?;
    write("plan file", &i.plan, &detected.plan.to_toml())
}

/// Buildpacks see `HOME` and `USER` of the user that creator has become, not root's.
pub fn set_home(i: &mut CreatorInputs) -> Result<(), Failure> {
    for (name, value) in privileges::home_of(i.user.uid)? {
        for inherited in [&mut i.detector.inherited, &mut i.builder.inherited] {
            inherited.retain(|(key, _)| key != name);
            inherited.push((name.into(), value.clone()));
        }
    }
    Ok(())
}

//! exporter

use std::path::PathBuf;

use super::{CacheInputs, ImageLocation, LogInputs, RunFile, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, names, values::Line};

/// What `exporter` is called with.
#[derive(Clone, Debug)]
pub struct ExporterInputs {
    pub api: PlatformApi,
    pub log: LogInputs,
    pub user: UserInputs,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    pub cache: CacheInputs,
    pub exec_env: String,
    pub extended: PathBuf,
    pub group: PathBuf,
    pub insecure_registries: Vec<String>,
    pub launch_cache: Option<PathBuf>,
    pub launcher: PathBuf,
    pub launcher_sbom: PathBuf,
    pub layers: PathBuf,
    pub location: ImageLocation,
    /// The first is the primary name.
    pub output_images: Vec<String>,
    pub parallel: bool,
    pub process_type: Option<String>,
    pub project_metadata: PathBuf,
    pub report: PathBuf,
    pub run: RunFile,
    /// `SOURCE_DATE_EPOCH` in seconds, where given and valid.
    pub source_date_epoch: Option<i64>,
    /// Sentences for the user, to be logged as warnings.
    pub warnings: Vec<String>,
}

impl ExporterInputs {
    /// Reads flags and environment. Syntax errors and unknown flags are exit code 2, wrong values 3.
    pub fn from_flags(flags: &Flags, api: PlatformApi) -> Result<Parsed<Self>, Failure> {
        flags.parse(Executable::Exporter, api, |line| {
            let images = common::images(line)?;
            refuse_run_image(line)?;
            let (mut inputs, epoch_warning) = Self::read(line, images)?;
            inputs.warnings = common::warnings(
                line,
                [
                    common::no_cache_warning(&inputs.cache),
                    common::launch_cache_warning(line, &inputs.location),
                    epoch_warning,
                ],
            );
            Ok(inputs)
        })
    }

    /// The inputs, and the warning about an epoch that is no number.
    pub(super) fn read(line: &Line<'_>, output_images: Vec<String>) -> Result<(Self, Option<String>), Failure> {
        let location = common::location(line)?;
        let (source_date_epoch, warning) = source_date_epoch(line);
        let inputs = Self {
            api: line.api,
            log: line.log,
            user: common::user(line),
            analyzed: line.path("analyzed"),
            app: line.dir_or_default("app"),
            cache: common::cache(line),
            exec_env: common::exec_env(line),
            extended: line.path("extended"),
            group: line.path("group"),
            insecure_registries: line.list("insecure-registry"),
            launch_cache: common::launch_cache(line, &location),
            launcher: line.path("launcher"),
            launcher_sbom: line.path("launcher-sbom"),
            layers: line.layers.clone(),
            location,
            output_images,
            parallel: line.is_set("parallel"),
            process_type: line.text("process-type"),
            project_metadata: line.path("project-metadata"),
            report: line.path("report"),
            run: common::run_file(line),
            source_date_epoch,
            warnings: Vec::new(),
        };
        Ok((inputs, warning))
    }
}

/// The run image comes from analyzed.toml alone. Only a flag is refused: platforms set the variable for all phases.
fn refuse_run_image(line: &Line<'_>) -> Result<(), Failure> {
    let from_env = line.flags.env(names::env::RUN_IMAGE);
    if line.given("run-image").is_some_and(|given| given.to_str() != from_env) {
        return Err(common::unresolved("-run-image is unsupported"));
    }
    if line.given("image").is_some() {
        return Err(common::unresolved("-image is unsupported"));
    }
    Ok(())
}

fn source_date_epoch(line: &Line<'_>) -> (Option<i64>, Option<String>) {
    match line.flags.env(names::env::SOURCE_DATE_EPOCH).filter(|_| line.api.source_date_epoch()) {
        None => (None, None),
        Some(text) => match text.parse() {
            Ok(seconds) => (Some(seconds), None),
            Err(_) => (None, Some("Ignoring invalid SOURCE_DATE_EPOCH".to_owned())),
        },
    }
}

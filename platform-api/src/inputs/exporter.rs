//! exporter

use std::path::PathBuf;

use super::{CacheInputs, ImageLocation, LogInputs, RunFile, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, names, values::Line};

/// What `exporter` is called with.
#[derive(Clone, Debug)]
pub struct ExporterInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `-log-level`, `-no-color`
    pub log: LogInputs,
    /// `-uid`, `-gid`
    pub user: UserInputs,
    /// `-analyzed`: analyzed.toml
    pub analyzed: PathBuf,
    /// `-app`, absolute
    pub app: PathBuf,
    /// `-cache-dir`, `-cache-image`
    pub cache: CacheInputs,
    /// `CNB_EXEC_ENV`
    pub exec_env: String,
    /// `-extended`
    pub extended: PathBuf,
    /// `-group`: group.toml
    pub group: PathBuf,
    /// `CNB_INSECURE_REGISTRIES`, then `-insecure-registry`
    pub insecure_registries: Vec<String>,
    /// `-launch-cache`; a daemon's only
    pub launch_cache: Option<PathBuf>,
    /// `-launcher`
    pub launcher: PathBuf,
    /// `-launcher-sbom`
    pub launcher_sbom: PathBuf,
    /// `-layers`, absolute
    pub layers: PathBuf,
    /// `-daemon`, `-layout`, `-layout-dir`
    pub location: ImageLocation,
    /// The first is the primary name.
    pub output_images: Vec<String>,
    /// `-parallel`
    pub parallel: bool,
    /// `-process-type`
    pub process_type: Option<String>,
    /// `-project-metadata`: project-metadata.toml
    pub project_metadata: PathBuf,
    /// `-report`: report.toml
    pub report: PathBuf,
    /// `-run`, or `-stack` before Platform API 0.12
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

/// The years 0 to 9999 in seconds: clients cannot read an image that is dated otherwise (in milliseconds, say).
const DATES: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

fn source_date_epoch(line: &Line<'_>) -> (Option<i64>, Option<String>) {
    match line.flags.env(names::env::SOURCE_DATE_EPOCH).filter(|_| line.api.source_date_epoch()) {
        None => (None, None),
        Some(text) => match text.parse().ok().filter(|seconds| DATES.contains(seconds)) {
            Some(seconds) => (Some(seconds), None),
            None => (None, Some("Ignoring invalid SOURCE_DATE_EPOCH".to_owned())),
        },
    }
}

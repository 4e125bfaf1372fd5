//! analyzer

use std::path::PathBuf;

use super::{CacheInputs, ImageLocation, LogInputs, RunFile, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, values::Line};

/// What `analyzer` is called with.
#[derive(Clone, Debug)]
pub struct AnalyzerInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `-log-level`, `-no-color`
    pub log: LogInputs,
    /// `-uid`, `-gid`
    pub user: UserInputs,
    /// `-analyzed`: analyzed.toml
    pub analyzed: PathBuf,
    /// `-cache-dir`, `-cache-image`
    pub cache: CacheInputs,
    /// `CNB_INSECURE_REGISTRIES`, then `-insecure-registry`
    pub insecure_registries: Vec<String>,
    /// `-launch-cache`; a daemon's only
    pub launch_cache: Option<PathBuf>,
    /// `-layers`, absolute
    pub layers: PathBuf,
    /// `-daemon`, `-layout`, `-layout-dir`
    pub location: ImageLocation,
    /// The image to make.
    pub output_image: String,
    /// `-previous-image`; else the image itself
    pub previous_image: String,
    /// `-run`, or `-stack` before Platform API 0.12
    pub run: RunFile,
    /// `-run-image`
    pub run_image: Option<String>,
    /// `-skip-layers`, or `-skip-restore` of creator
    pub skip_layers: bool,
    /// `-tag`: further names of the image
    pub tags: Vec<String>,
    /// Sentences for the user, to be logged as warnings.
    pub warnings: Vec<String>,
}

impl AnalyzerInputs {
    /// Reads flags and environment. Syntax errors and unknown flags are exit code 2, wrong values 3.
    pub fn from_flags(flags: &Flags, api: PlatformApi) -> Result<Parsed<Self>, Failure> {
        flags.parse(Executable::Analyzer, api, |line| {
            let mut inputs = Self::read(line, common::one_image(line)?)?;
            inputs.warnings = common::warnings(
                line,
                [common::launch_cache_warning(line, &inputs.location), common::parallel_warning(line, &inputs.cache)],
            );
            Ok(inputs)
        })
    }

    pub(super) fn read(line: &Line<'_>, output_image: String) -> Result<Self, Failure> {
        let location = common::location(line)?;
        Ok(Self {
            api: line.api,
            log: line.log,
            user: common::user(line),
            analyzed: line.path("analyzed"),
            cache: common::cache(line),
            insecure_registries: line.list("insecure-registry"),
            launch_cache: common::launch_cache(line, &location),
            layers: line.layers.clone(),
            location,
            previous_image: line.text("previous-image").unwrap_or_else(|| output_image.clone()),
            output_image,
            run: common::run_file(line),
            run_image: line.text("run-image"),
            skip_layers: common::skip_layers(line, "skip-layers"),
            tags: line.list("tag"),
            warnings: Vec::new(),
        })
    }
}

//! analyzer

use std::path::PathBuf;

use super::{CacheInputs, ImageLocation, LogInputs, RunFile, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, values::Line};

/// What `analyzer` is called with.
#[derive(Clone, Debug)]
pub struct AnalyzerInputs {
    pub api: PlatformApi,
    pub log: LogInputs,
    pub user: UserInputs,
    pub analyzed: PathBuf,
    pub cache: CacheInputs,
    pub insecure_registries: Vec<String>,
    pub launch_cache: Option<PathBuf>,
    pub layers: PathBuf,
    pub location: ImageLocation,
    pub output_image: String,
    pub previous_image: String,
    pub run: RunFile,
    pub run_image: Option<String>,
    pub skip_layers: bool,
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

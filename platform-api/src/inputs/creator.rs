//! creator: the inputs of five executables, parsed once and handed out by part.

use super::{
    AnalyzerInputs, BuilderInputs, CacheInputs, DetectorInputs, ExporterInputs, LogInputs, RestorerInputs, UserInputs,
    common,
};
use crate::{
    Executable, Failure, Flags, Parsed, PlatformApi,
    values::{Line, unique},
};

/// What `creator` is called with.
#[derive(Clone, Debug)]
pub struct CreatorInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `-log-level`, `-no-color`
    pub log: LogInputs,
    /// `-uid`, `-gid`
    pub user: UserInputs,
    /// `-cache-dir`, `-cache-image`
    pub cache: CacheInputs,
    /// `-skip-restore`
    pub skip_restore: bool,
    /// What its analyze step is called with.
    pub analyzer: AnalyzerInputs,
    /// What its detect step is called with.
    pub detector: DetectorInputs,
    /// What its restore step is called with.
    pub restorer: RestorerInputs,
    /// What its build step is called with.
    pub builder: BuilderInputs,
    /// What its export step is called with.
    pub exporter: ExporterInputs,
    /// Sentences for the user, to be logged as warnings.
    pub warnings: Vec<String>,
}

impl CreatorInputs {
    /// Reads flags and environment. Syntax errors and unknown flags are exit code 2, wrong values 3.
    pub fn from_flags(flags: &Flags, api: PlatformApi) -> Result<Parsed<Self>, Failure> {
        flags.parse(Executable::Creator, api, Self::read)
    }

    fn read(line: &Line<'_>) -> Result<Self, Failure> {
        let image = common::one_image(line)?;
        let skip_restore = common::skip_layers(line, "skip-restore");
        let analyzer = AnalyzerInputs { skip_layers: skip_restore, ..AnalyzerInputs::read(line, image.clone())? };
        let restorer = RestorerInputs { skip_layers: skip_restore, ..RestorerInputs::read(line)? };
        let names = unique([image].into_iter().chain(analyzer.tags.iter().cloned()));
        let (exporter, epoch_warning) = ExporterInputs::read(line, names)?;
        let cache = common::cache(line);
        let warnings = common::warnings(
            line,
            [
                common::no_cache_warning(&cache),
                common::launch_cache_warning(line, &analyzer.location),
                common::parallel_warning(line, &cache),
                epoch_warning,
            ],
        );
        Ok(Self {
            api: line.api,
            log: line.log,
            user: common::user(line),
            cache,
            skip_restore,
            analyzer,
            detector: DetectorInputs::read(line),
            restorer,
            builder: BuilderInputs::read(line),
            exporter,
            warnings,
        })
    }
}

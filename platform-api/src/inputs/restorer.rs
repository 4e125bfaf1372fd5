//! restorer

use std::path::PathBuf;

use super::{CacheInputs, ImageLocation, LogInputs, RunFile, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, values::Line};

/// What `restorer` is called with.
#[derive(Clone, Debug)]
pub struct RestorerInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `-log-level`, `-no-color`
    pub log: LogInputs,
    /// `-uid`, `-gid`
    pub user: UserInputs,
    /// `-analyzed`: analyzed.toml
    pub analyzed: PathBuf,
    /// `-build-image`
    pub build_image: Option<String>,
    /// `-cache-dir`, `-cache-image`
    pub cache: CacheInputs,
    /// `-generated`, absolute
    pub generated: PathBuf,
    /// `-group`: group.toml
    pub group: PathBuf,
    /// `CNB_INSECURE_REGISTRIES`, then `-insecure-registry`
    pub insecure_registries: Vec<String>,
    /// `/kaniko`
    pub kaniko: PathBuf,
    /// `-layers`, absolute
    pub layers: PathBuf,
    /// `-daemon`, `-layout`, `-layout-dir`
    pub location: ImageLocation,
    /// `-run`, or `-stack` before Platform API 0.12
    pub run: RunFile,
    /// `-skip-layers`, or `-skip-restore` of creator
    pub skip_layers: bool,
    /// Sentences for the user, to be logged as warnings.
    pub warnings: Vec<String>,
}

impl RestorerInputs {
    /// Reads flags and environment. Syntax errors and unknown flags are exit code 2, wrong values 3.
    pub fn from_flags(flags: &Flags, api: PlatformApi) -> Result<Parsed<Self>, Failure> {
        flags.parse(Executable::Restorer, api, |line| {
            if !line.positionals().is_empty() {
                return Err(common::unparsed("received unexpected Args"));
            }
            let mut inputs = Self::read(line)?;
            inputs.warnings = common::warnings(line, [common::no_cache_warning(&inputs.cache)]);
            Ok(inputs)
        })
    }

    pub(super) fn read(line: &Line<'_>) -> Result<Self, Failure> {
        Ok(Self {
            api: line.api,
            log: line.log,
            user: common::user(line),
            analyzed: line.path("analyzed"),
            build_image: line.text("build-image"),
            cache: common::cache(line),
            generated: line.dir_or_default("generated"),
            group: line.path("group"),
            insecure_registries: line.list("insecure-registry"),
            kaniko: line.dir_or_default("(kaniko)"),
            layers: line.layers.clone(),
            location: common::location(line)?,
            run: common::run_file(line),
            skip_layers: common::skip_layers(line, "skip-layers"),
            warnings: Vec::new(),
        })
    }
}

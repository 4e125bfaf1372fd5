//! detector

use std::path::PathBuf;

use super::{LogInputs, RunFile, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, values::Line};

/// What `detector` is called with.
#[derive(Clone, Debug)]
pub struct DetectorInputs {
    pub api: PlatformApi,
    pub log: LogInputs,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    pub build_config: PathBuf,
    pub dirs: crate::ModuleDirs,
    pub exec_env: String,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    pub order: PathBuf,
    pub plan: PathBuf,
    pub platform: PathBuf,
    pub run: RunFile,
    pub system: PathBuf,
    /// The environment the executable was started with.
    pub inherited: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Sentences for the user, to be logged as warnings.
    pub warnings: Vec<String>,
}

impl DetectorInputs {
    /// Reads flags and environment. Syntax errors and unknown flags are exit code 2, wrong values 3.
    pub fn from_flags(flags: &Flags, api: PlatformApi) -> Result<Parsed<Self>, Failure> {
        flags.parse(Executable::Detector, api, |line| {
            common::no_arguments(line)?;
            Ok(Self { warnings: common::warnings(line, []), ..Self::read(line) })
        })
    }

    pub(super) fn read(line: &Line<'_>) -> Self {
        Self {
            api: line.api,
            log: line.log,
            analyzed: line.path("analyzed"),
            app: line.dir_or_default("app"),
            build_config: line.dir_or_default("build-config"),
            dirs: common::modules(line),
            exec_env: common::exec_env(line),
            generated: line.dir_or_default("generated"),
            group: line.path("group"),
            layers: line.layers.clone(),
            order: common::order(line),
            plan: line.path("plan"),
            platform: line.dir_or_default("platform"),
            run: common::run_file(line),
            system: line.path("system"),
            inherited: common::inherited(line),
            warnings: Vec::new(),
        }
    }
}

//! detector

use std::path::PathBuf;

use super::{LogInputs, RunFile, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, values::Line};

/// What `detector` is called with.
#[derive(Clone, Debug)]
pub struct DetectorInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `-log-level`, `-no-color`
    pub log: LogInputs,
    /// `-analyzed`: analyzed.toml
    pub analyzed: PathBuf,
    /// `-app`, absolute
    pub app: PathBuf,
    /// `-build-config`, absolute
    pub build_config: PathBuf,
    /// `-buildpacks`, `-extensions`
    pub dirs: crate::ModuleDirs,
    /// `CNB_EXEC_ENV`
    pub exec_env: String,
    /// `-generated`, absolute
    pub generated: PathBuf,
    /// `-group`: group.toml
    pub group: PathBuf,
    /// `-layers`, absolute
    pub layers: PathBuf,
    /// `-order`: order.toml
    pub order: PathBuf,
    /// `-plan`: plan.toml
    pub plan: PathBuf,
    /// `-platform`, absolute
    pub platform: PathBuf,
    /// `-run`, or `-stack` before Platform API 0.12
    pub run: RunFile,
    /// `-system`: system.toml
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

//! extender

use std::path::PathBuf;

use super::{BuilderInputs, LogInputs, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi};

/// What `extender` is called with.
#[derive(Clone, Debug)]
pub struct ExtenderInputs {
    pub api: PlatformApi,
    pub log: LogInputs,
    pub user: UserInputs,
    pub analyzed: PathBuf,
    /// What the build part needs, for `-kind build`.
    pub builder: super::BuilderInputs,
    pub cache_ttl: std::time::Duration,
    pub extended: PathBuf,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub kaniko: PathBuf,
    pub kind: ExtendKind,
    /// Sentences for the user, to be logged as warnings.
    pub warnings: Vec<String>,
}

impl ExtenderInputs {
    /// Reads flags and environment. Syntax errors and unknown flags are exit code 2, wrong values 3.
    pub fn from_flags(flags: &Flags, api: PlatformApi) -> Result<Parsed<Self>, Failure> {
        flags.parse(Executable::Extender, api, |line| {
            common::no_arguments(line)?;
            Ok(Self {
                api,
                log: line.log,
                user: common::user(line),
                analyzed: line.path("analyzed"),
                builder: BuilderInputs::read(line),
                cache_ttl: line.duration("kaniko-cache-ttl"),
                extended: line.path("extended"),
                generated: line.dir_or_default("generated"),
                group: line.path("group"),
                kaniko: line.dir_or_default("(kaniko)"),
                kind: match line.text("kind").as_deref() {
                    Some("build") => ExtendKind::Build,
                    Some("run") => ExtendKind::Run,
                    other => {
                        let kind = other.unwrap_or_default();
                        return Err(common::unparsed(format!("unknown kind '{kind}', expected 'build' or 'run'")));
                    }
                },
                warnings: common::warnings(line, []),
            })
        })
    }
}

/// Which image `extender` extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendKind {
    Build,
    Run,
}

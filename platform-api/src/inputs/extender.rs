//! extender

use std::path::PathBuf;

use super::{BuilderInputs, LogInputs, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi};

/// What `extender` is called with.
#[derive(Clone, Debug)]
pub struct ExtenderInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `-log-level`, `-no-color`
    pub log: LogInputs,
    /// `-uid`, `-gid`
    pub user: UserInputs,
    /// `-analyzed`: analyzed.toml
    pub analyzed: PathBuf,
    /// What the build part needs, for `-kind build`.
    pub builder: super::BuilderInputs,
    /// `-kaniko-cache-ttl`
    pub cache_ttl: std::time::Duration,
    /// `-extended`
    pub extended: PathBuf,
    /// `-generated`, absolute
    pub generated: PathBuf,
    /// `-group`: group.toml
    pub group: PathBuf,
    /// `-kaniko`
    pub kaniko: PathBuf,
    /// `-kind`
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
    /// The one buildpacks run in, which is the one we run in.
    Build,
    /// The app image's base.
    Run,
}

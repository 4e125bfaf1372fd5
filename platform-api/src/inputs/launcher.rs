//! launcher: environment only, no flags.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use crate::{Failure, Flags, PlatformApi, names, values::parse_bool};

/// The execution environment where none is named.
const DEFAULT_EXEC_ENV: &str = "production";

/// What `launcher` is called with.
#[derive(Clone, Debug)]
pub struct LauncherInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `CNB_APP_DIR`
    pub app: PathBuf,
    /// `CNB_LAYERS_DIR`
    pub layers: PathBuf,
    /// `CNB_EXEC_ENV`
    pub exec_env: String,
    /// `CNB_PROCESS_TYPE`, which is only warned about.
    pub process_type: Option<String>,
    /// `CNB_NO_COLOR`
    pub no_color: bool,
    /// The user's arguments.
    pub args: Vec<OsString>,
    /// The environment the launcher was started with.
    pub inherited: Vec<(OsString, OsString)>,
}

impl LauncherInputs {
    /// Fails only where the Platform API is missing or unsupported (exit code 11).
    pub fn from_flags(flags: &Flags) -> Result<Self, Failure> {
        let path = |name: &str, default: &str| {
            let value = flags.env.get(OsStr::new(name)).filter(|v| !v.is_empty());
            value.map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Ok(Self {
            api: flags.platform_api()?,
            app: path(names::env::APP_DIR, names::path::APP),
            layers: path(names::env::LAYERS_DIR, names::path::LAYERS),
            exec_env: flags.env(names::env::EXEC_ENV).unwrap_or(DEFAULT_EXEC_ENV).to_owned(),
            process_type: flags.env(names::env::PROCESS_TYPE).map(str::to_owned),
            no_color: flags.env(names::env::NO_COLOR).and_then(parse_bool) == Some(true),
            args: flags.args.clone(),
            inherited: flags.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }
}

//! rebaser

use std::path::PathBuf;

use super::{ImageLocation, LogInputs, UserInputs, common};
use crate::{Executable, Failure, Flags, Parsed, PlatformApi, names, values::Line};

/// What `rebaser` is called with.
#[derive(Clone, Debug)]
pub struct RebaserInputs {
    /// The Platform API asked for.
    pub api: PlatformApi,
    /// `-log-level`, `-no-color`
    pub log: LogInputs,
    /// `-uid`, `-gid`
    pub user: UserInputs,
    /// `-force`
    pub force: bool,
    /// `CNB_INSECURE_REGISTRIES`, then `-insecure-registry`
    pub insecure_registries: Vec<String>,
    /// `-daemon`, `-layout`, `-layout-dir`
    pub location: ImageLocation,
    /// The first is the primary name.
    pub output_images: Vec<String>,
    /// `-previous-image`; else the image itself
    pub previous_image: String,
    /// `-report`: report.toml
    pub report: PathBuf,
    /// `-run-image`
    pub run_image: Option<String>,
    /// Sentences for the user, to be logged as warnings.
    pub warnings: Vec<String>,
}

impl RebaserInputs {
    /// Reads flags and environment. Syntax errors and unknown flags are exit code 2, wrong values 3.
    pub fn from_flags(flags: &Flags, api: PlatformApi) -> Result<Parsed<Self>, Failure> {
        flags.parse(Executable::Rebaser, api, |line| {
            let output_images = common::images(line)?;
            Ok(Self {
                api,
                log: line.log,
                user: common::user(line),
                force: line.is_set("force"),
                insecure_registries: line.list("insecure-registry"),
                location: if line.is_set("daemon") { ImageLocation::Daemon } else { ImageLocation::Registry },
                previous_image: line
                    .text("previous-image")
                    .or_else(|| output_images.first().cloned())
                    .unwrap_or_default(),
                output_images,
                report: line.path("report"),
                run_image: run_image(line)?,
                warnings: common::warnings(line, []),
            })
        })
    }
}

/// The old name of the flag goes before the variable, but not together with the new name.
fn run_image(line: &Line<'_>) -> Result<Option<String>, Failure> {
    let Some(image) = line.text("image") else { return Ok(line.text("run-image")) };
    if line.given("run-image").is_some_and(|given| given.to_str() != line.flags.env(names::env::RUN_IMAGE)) {
        return Err(common::unresolved("supply only one of -run-image or (deprecated) -image"));
    }
    Ok(Some(image))
}

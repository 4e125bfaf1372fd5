//! Parts that several executables share.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    Failure, ModuleDirs, names,
    values::{Line, unique},
};

/// `-log-level`, `-no-color`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogInputs {
    /// The least severe messages to show.
    pub level: LogLevel,
    /// Without colour.
    pub no_color: bool,
}

/// The levels of the reference, least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything, also what only developers ask for.
    Debug,
    /// What a build is about.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
    /// Only what ends the process.
    Fatal,
}

/// `-uid`, `-gid`: who to become. 0: stay who we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserInputs {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// Where app images are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageLocation {
    /// In the registry their names tell.
    Registry,
    /// `-daemon`
    Daemon,
    /// `-layout-dir`
    Layout(PathBuf),
}

/// `-cache-dir`, `-cache-image`. At most one is set: the image wins where both are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheInputs {
    /// A volume, absolute.
    pub dir: Option<PathBuf>,
    /// A reference.
    pub image: Option<String>,
}

/// `-run`, or `-stack` before Platform API 0.12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFile(pub PathBuf);

pub(super) fn user(line: &Line<'_>) -> UserInputs {
    UserInputs { uid: line.id("uid"), gid: line.id("gid") }
}

/// A layout goes before a daemon. A layout without a directory would silently be a registry's image: refused.
pub(super) fn location(line: &Line<'_>) -> Result<ImageLocation, Failure> {
    if line.is_set("layout") {
        let dir = line.path("layout-dir");
        if dir.as_os_str().is_empty() {
            return Err(unresolved("-layout-dir is required with -layout"));
        }
        return Ok(ImageLocation::Layout(dir));
    }
    Ok(if line.is_set("daemon") { ImageLocation::Daemon } else { ImageLocation::Registry })
}

pub(super) fn cache(line: &Line<'_>) -> CacheInputs {
    match line.text("cache-image") {
        Some(image) => CacheInputs { dir: None, image: Some(image) },
        None => CacheInputs { dir: line.dir("cache-dir"), image: None },
    }
}

pub(super) fn run_file(line: &Line<'_>) -> RunFile {
    RunFile(line.path(if line.api.run_toml() { "run" } else { "stack" }))
}

/// Either of the two flags' variables counts for both.
pub(super) fn skip_layers(line: &Line<'_>, name: &str) -> bool {
    if line.given(name).is_some() {
        line.is_set(name)
    } else {
        line.is_set("skip-layers") || line.is_set("skip-restore")
    }
}

/// A daemon's layers; nothing else has use for the directory.
pub(super) fn launch_cache(line: &Line<'_>, location: &ImageLocation) -> Option<PathBuf> {
    line.dir("launch-cache").filter(|_| *location == ImageLocation::Daemon)
}

pub(super) fn modules(line: &Line<'_>) -> ModuleDirs {
    ModuleDirs { buildpacks: line.dir_or_default("buildpacks"), extensions: line.dir_or_default("extensions") }
}

pub(super) fn exec_env(line: &Line<'_>) -> String {
    line.text("(exec-env)").unwrap_or_default()
}

pub(super) fn inherited(line: &Line<'_>) -> Vec<(OsString, OsString)> {
    line.flags.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// order.toml: the default is the layers directory's where there is one, else the builder's.
pub(super) fn order(line: &Line<'_>) -> PathBuf {
    let order = line.path("order");
    let is_default = line.given("order").is_none() && line.flags.env(names::env::ORDER_PATH).is_none();
    if is_default && !order.exists() {
        return Path::new(names::path::ORDER).to_owned();
    }
    order
}

/// Exit code 3, for arguments that are wrong in number or kind.
pub(super) fn unparsed(why: impl std::fmt::Display) -> Failure {
    Failure::invalid_args(format!("failed to parse arguments: {why}"))
}

/// Exit code 3, for arguments that do not go together.
pub(super) fn unresolved(why: impl std::fmt::Display) -> Failure {
    Failure::invalid_args(format!("failed to resolve inputs: {why}"))
}

/// Of an executable that takes no positional argument.
pub(super) fn no_arguments(line: &Line<'_>) -> Result<(), Failure> {
    if line.positionals().is_empty() { Ok(()) } else { Err(too_many(line, "received unexpected arguments")) }
}

/// Says which of them look like flags, as whoever wrote them behind an argument will wonder.
fn too_many(line: &Line<'_>, why: &str) -> Failure {
    let mut parts = vec![why.to_owned()];
    parts.extend(crate::values::positional_warnings(line));
    unparsed(parts.join("; "))
}

/// Of an executable that takes one image.
pub(super) fn one_image(line: &Line<'_>) -> Result<String, Failure> {
    match images_as_given(line)?.as_slice() {
        [image] if image.is_empty() => Err(unresolved("image argument is required")),
        [image] => Ok(image.clone()),
        all => Err(too_many(line, &format!("received {} arguments, but expected 1", all.len()))),
    }
}

/// Of an executable that takes one image or more; the first is the primary name.
pub(super) fn images(line: &Line<'_>) -> Result<Vec<String>, Failure> {
    let all = images_as_given(line)?;
    match all.first() {
        None => Err(unparsed("at least one image argument is required")),
        Some(first) if first.is_empty() => Err(unresolved("image argument is required")),
        Some(_) => Ok(unique(all)),
    }
}

fn images_as_given(line: &Line<'_>) -> Result<Vec<String>, Failure> {
    let text = |arg: &OsString| {
        arg.to_str().map(str::to_owned).ok_or_else(|| unparsed(format!("'{}' is not UTF-8", arg.to_string_lossy())))
    };
    line.positionals().iter().map(text).collect()
}

pub(super) fn no_cache_warning(cache: &CacheInputs) -> Option<String> {
    (*cache == CacheInputs::default()).then(|| "No cached data will be used, no cache specified.".to_owned())
}

pub(super) fn launch_cache_warning(line: &Line<'_>, location: &ImageLocation) -> Option<String> {
    (line.dir("launch-cache").is_some() && *location != ImageLocation::Daemon)
        .then(|| "Ignoring -launch-cache, only intended for use with -daemon".to_owned())
}

pub(super) fn parallel_warning(line: &Line<'_>, cache: &CacheInputs) -> Option<String> {
    (line.is_set("parallel") && *cache == CacheInputs::default()).then(|| {
        "Parallel export has been enabled, but it has not taken effect because no cache has been specified.".to_owned()
    })
}

/// The warnings every executable has, then these.
pub(super) fn warnings(line: &Line<'_>, more: impl IntoIterator<Item = Option<String>>) -> Vec<String> {
    let mut all = crate::values::positional_warnings(line);
    all.extend(more.into_iter().flatten());
    all
}

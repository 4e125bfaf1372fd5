//! Every flag, once, and which executable has it at which Platform API: data, so that parsing, usage texts and
//! documentation agree.
//!
//! Spec: platform.md, the "Inputs" table of each executable.

use crate::{Executable, PlatformApi, names::env, names::path};

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    /// Any text.
    Text,
    /// A file's path, used as given.
    File,
    /// A directory's path, made absolute.
    Dir,
    /// A directory's path, used as given.
    PlainDir,
    /// `true` or `false`; the flag alone means true.
    Bool,
    /// A user's or group's number.
    Id,
    /// A span of time, e.g. `336h` or `1h30m`.
    Duration,
    /// Text; the flag can be repeated.
    List,
}

impl FlagKind {
    /// The word that stands for the value in a usage text; empty where the flag stands alone.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::File => "path",
            Self::Dir | Self::PlainDir => "directory",
            Self::Bool => "",
            Self::Id => "int",
            Self::Duration => "duration",
            Self::List => "value",
        }
    }
}

/// One flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagInfo {
    /// Without a dash.
    pub name: &'static str,
    /// What its value is.
    pub kind: FlagKind,
    /// The variable that stands in for it.
    pub env: Option<&'static str>,
    /// The value where neither is given, empty where there is none; `<layers>` stands for the layers directory.
    pub default: &'static str,
    /// A sentence without a full stop.
    pub help: &'static str,
}

/// The flags an executable has at this Platform API, sorted by name.
pub fn describe(executable: Executable, api: PlatformApi) -> Vec<FlagInfo> {
    let mut found: Vec<_> = EVERYWHERE
        .iter()
        .chain(gates(executable).iter().filter(|(_, has)| has(api)).map(|(name, _)| name))
        .filter_map(|name| find(name))
        .map(|flag| FlagInfo { help: help_of(executable, flag), ..flag })
        .collect();
    found.sort_by_key(|flag| flag.name);
    found
}

/// What a flag says of itself, where an executable does something of its own with it.
fn help_of(executable: Executable, flag: FlagInfo) -> &'static str {
    use Executable::{Analyzer, Detector, Exporter, Extender, Rebaser, Restorer};
    match (executable, flag.name) {
        (Analyzer, "cache-image") => "the image that exporter will keep layers in; it is checked that this can be done",
        (Analyzer, "launch-cache") => {
            "with -daemon: layers of the previous image that need not be read from the daemon"
        }
        (Analyzer, "skip-layers") => "do not bring back the SBOMs of the previous image",
        (Analyzer, "tag") => "another name that the image will have; may be repeated",
        (Detector, "run") => "run.toml: run images that extensions may switch to, with their mirrors",
        (Exporter, "image" | "run-image") => "refused: the run image is that of analyzed.toml",
        (Extender, "app") => "the application's source, for the build that follows in an extended build image",
        (Rebaser, "daemon") => "the images are in a Docker or podman daemon, not in a registry",
        (Rebaser, "previous-image") => "the image to rebase; without it the first <image>",
        (Rebaser, "run-image") => "the new run image; without it the one that the image's label names, by its mirrors",
        (Restorer, "cache-dir") => "restore layers from this directory",
        (Restorer, "cache-image") => "restore layers from this image of a registry; goes before -cache-dir",
        (Restorer, "run") => "run.toml: where to look for a mirror, should the run image not be accessible",
        _ => flag.help,
    }
}

/// A flag by its name.
pub(crate) fn find(name: &str) -> Option<FlagInfo> {
    FLAGS.iter().find(|flag| flag.name == name).copied()
}

const fn row(
    name: &'static str,
    kind: FlagKind,
    env: &'static str,
    default: &'static str,
    help: &'static str,
) -> FlagInfo {
    FlagInfo { name, kind, env: if env.is_empty() { None } else { Some(env) }, default, help }
}

use FlagKind::{Bool, Dir, Duration, File, Id, List, PlainDir, Text};

#[rustfmt::skip]
static FLAGS: [FlagInfo; 45] = [
    row("analyzed", File, env::ANALYZED_PATH, "<layers>/analyzed.toml", "analyzed.toml: what is known of the previous image and the run image"),
    row("app", Dir, env::APP_DIR, path::APP, "the application's source; buildpacks run in it"),
    row("build-config", Dir, env::BUILD_CONFIG_DIR, path::BUILD_CONFIG, "what the operator gives to buildpacks: its env directory holds variables"),
    row("build-image", Text, env::BUILD_IMAGE, "", "the build image, looked up for extensions that will extend it"),
    row("buildpacks", Dir, env::BUILDPACKS_DIR, path::BUILDPACKS, "where buildpacks are, each in <id>/<version> with / in the ID as _"),
    row("cache-dir", Dir, env::CACHE_DIR, "", "keep layers for the next build in this directory"),
    row("cache-image", Text, env::CACHE_IMAGE, "", "keep layers for the next build in this image of a registry; goes before -cache-dir"),
    row("daemon", Bool, env::USE_DAEMON, "false", "the application image is in a Docker or podman daemon, not in a registry"),
    row("extended", PlainDir, env::EXTENDED_DIR, "<layers>/extended", "where the extended run image is kept"),
    row("extensions", Dir, env::EXTENSIONS_DIR, path::EXTENSIONS, "where image extensions are, each in <id>/<version> with / in the ID as _"),
    row("force", Bool, env::FORCE_REBASE, "false", "rebase even if the application may not work on the new run image"),
    row("generated", Dir, env::GENERATED_DIR, "<layers>/generated", "what image extensions generate: their Dockerfiles and contexts"),
    row("gid", Id, env::GROUP_ID, "0", "group to become, which owns what is written; 0: stay who we are"),
    row("group", File, env::GROUP_PATH, "<layers>/group.toml", "group.toml: the buildpacks and extensions of this build"),
    row("image", Text, "", "", "old name of -run-image"),
    row("insecure-registry", List, env::INSECURE_REGISTRIES, "", "a registry that may be spoken to by HTTP or with a certificate that nobody vouches for; may be repeated, the variable has commas"),
    row("kaniko-cache-ttl", Duration, env::KANIKO_CACHE_TTL, "336h", "how long cached layers of extended images are used, e.g. 90m or 336h"),
    row("kind", Text, env::EXTEND_KIND, "build", "the image to extend: build or run"),
    row("launch-cache", Dir, env::LAUNCH_CACHE_DIR, "", "with -daemon: keep the image's layers in this directory, so that they need not be read from the daemon"),
    row("launcher", File, "", path::LAUNCHER, "the launcher that is put into the image"),
    row("launcher-sbom", PlainDir, "", path::LIFECYCLE, "a directory of SBOMs to put into the image as the launcher's, instead of those that came with it"),
    row("layers", Dir, env::LAYERS_DIR, path::LAYERS, "where buildpacks make their layers, and where the files between phases are unless told otherwise"),
    row("layout", Bool, env::USE_LAYOUT, "false", "images are in OCI layout directories (experimental: CNB_EXPERIMENTAL_MODE)"),
    row("layout-dir", PlainDir, env::LAYOUT_DIR, "", "where those directories are; required with -layout"),
    row("log-level", Text, env::LOG_LEVEL, "info", "the least severe messages shown: debug, info, warn, error or fatal"),
    row("no-color", Bool, env::NO_COLOR, "false", "show messages without colour"),
    row("order", File, env::ORDER_PATH, "<layers>/order.toml", "order.toml: the groups of buildpacks to try; /cnb/order.toml where the default does not exist"),
    row("parallel", Bool, env::PARALLEL_EXPORT, "false", "taken for compatibility: image and cache are always made side by side"),
    row("plan", File, env::PLAN_PATH, "<layers>/plan.toml", "plan.toml: what the buildpacks of the group provide and require"),
    row("platform", Dir, env::PLATFORM_DIR, path::PLATFORM, "what the platform gives to buildpacks: its env directory holds the user's variables"),
    row("previous-image", Text, env::PREVIOUS_IMAGE, "", "the image of an earlier build, whose layers are used again where they did not change; without it <image>"),
    row("process-type", Text, env::PROCESS_TYPE, "", "the process that the image starts by default"),
    row("project-metadata", File, env::PROJECT_METADATA_PATH, "<layers>/project-metadata.toml", "project-metadata.toml: where the source is from; becomes a label"),
    row("report", File, env::REPORT_PATH, "<layers>/report.toml", "report.toml: tells the platform which image was made"),
    row("run", File, env::RUN_PATH, path::RUN, "run.toml: the run images to choose from, with their mirrors"),
    row("run-image", Text, env::RUN_IMAGE, "", "the run image; without it the first of run.toml (stack.toml) that fits"),
    row("skip-layers", Bool, env::SKIP_LAYERS, "false", "restore no layers and no metadata of layers: every buildpack starts anew"),
    row("skip-restore", Bool, env::SKIP_RESTORE, "false", "restore no layers and no metadata of layers: every buildpack starts anew"),
    row("stack", File, env::STACK_PATH, path::STACK, "stack.toml: the run image, with its mirrors"),
    row("system", File, env::SYSTEM_PATH, path::SYSTEM, "system.toml: buildpacks that run before and after every group"),
    row("tag", List, "", "", "another name for the image; may be repeated"),
    row("uid", Id, env::USER_ID, "0", "user to become, who owns what is written; 0: stay who we are"),
    row("version", Bool, "", "false", "print the version and exit"),
    // Not flags, but values with a variable and a default like theirs.
    row("(exec-env)", Text, env::EXEC_ENV, "production", "what the build is for"),
    row("(kaniko)", Dir, "", path::KANIKO, "where base images to extend are"),
];

const EVERYWHERE: [&str; 3] = ["log-level", "no-color", "version"];

type Gate = (&'static str, fn(PlatformApi) -> bool);

fn always(_: PlatformApi) -> bool {
    true
}

fn gates(executable: Executable) -> &'static [Gate] {
    match executable {
        Executable::Analyzer => &ANALYZER,
        Executable::Detector => &DETECTOR,
        Executable::Restorer => &RESTORER,
        Executable::Extender => &EXTENDER,
        Executable::Builder => &BUILDER,
        Executable::Exporter => &EXPORTER,
        Executable::Creator => &CREATOR,
        Executable::Rebaser => &REBASER,
    }
}

static ANALYZER: [Gate; 16] = [
    ("analyzed", always),
    ("cache-image", always),
    ("daemon", always),
    ("gid", always),
    ("insecure-registry", PlatformApi::insecure_registries),
    ("launch-cache", PlatformApi::analyzer_skips_layers),
    ("layers", always),
    ("layout", PlatformApi::layout),
    ("layout-dir", PlatformApi::layout),
    ("previous-image", always),
    ("run", PlatformApi::run_toml),
    ("run-image", always),
    ("skip-layers", PlatformApi::analyzer_skips_layers),
    ("stack", PlatformApi::stack_toml),
    ("tag", always),
    ("uid", always),
];

static DETECTOR: [Gate; 13] = [
    ("analyzed", PlatformApi::image_extensions),
    ("app", always),
    ("build-config", PlatformApi::build_config),
    ("buildpacks", always),
    ("extensions", PlatformApi::image_extensions),
    ("generated", PlatformApi::image_extensions),
    ("group", always),
    ("layers", always),
    ("order", always),
    ("plan", always),
    ("platform", always),
    ("run", PlatformApi::run_toml),
    ("system", PlatformApi::system_buildpacks),
];

static RESTORER: [Gate; 15] = [
    ("analyzed", always),
    ("build-image", PlatformApi::image_extensions),
    ("cache-dir", always),
    ("cache-image", always),
    ("daemon", PlatformApi::restorer_daemon),
    ("generated", PlatformApi::run_image_extension),
    ("gid", always),
    ("group", always),
    ("insecure-registry", PlatformApi::insecure_registries),
    ("layers", always),
    ("layout", PlatformApi::layout),
    ("layout-dir", PlatformApi::layout),
    ("run", PlatformApi::restorer_resolves_run_image),
    ("skip-layers", always),
    ("uid", always),
];

static EXTENDER: [Gate; 13] = [
    ("analyzed", always),
    ("app", always),
    ("buildpacks", always),
    ("extended", PlatformApi::run_image_extension),
    ("generated", always),
    ("gid", always),
    ("group", always),
    ("kaniko-cache-ttl", always),
    ("kind", PlatformApi::run_image_extension),
    ("layers", always),
    ("plan", always),
    ("platform", always),
    ("uid", always),
];

static BUILDER: [Gate; 8] = [
    ("analyzed", PlatformApi::target_data),
    ("app", always),
    ("build-config", PlatformApi::build_config),
    ("buildpacks", always),
    ("group", always),
    ("layers", always),
    ("plan", always),
    ("platform", always),
];

/// `-parallel` belongs to Platform API 0.13, but platforms rely on the reference, which takes it at every one.
/// `-image` and `-run-image` are read only to be refused with a sentence of their own.
static EXPORTER: [Gate; 24] = [
    ("analyzed", always),
    ("app", always),
    ("cache-dir", always),
    ("cache-image", always),
    ("daemon", always),
    ("extended", PlatformApi::run_image_extension),
    ("gid", always),
    ("group", always),
    ("image", always),
    ("insecure-registry", PlatformApi::insecure_registries),
    ("launch-cache", always),
    ("launcher", always),
    ("launcher-sbom", PlatformApi::lifecycle_sboms),
    ("layers", always),
    ("layout", PlatformApi::layout),
    ("layout-dir", PlatformApi::layout),
    ("parallel", always),
    ("process-type", always),
    ("project-metadata", always),
    ("report", always),
    ("run", PlatformApi::run_toml),
    ("run-image", always),
    ("stack", PlatformApi::stack_toml),
    ("uid", always),
];

/// `-stack` is taken at every Platform API, as platforms pass it regardless.
static CREATOR: [Gate; 28] = [
    ("app", always),
    ("build-config", PlatformApi::build_config),
    ("buildpacks", always),
    ("cache-dir", always),
    ("cache-image", always),
    ("daemon", always),
    ("gid", always),
    ("insecure-registry", PlatformApi::insecure_registries),
    ("launch-cache", always),
    ("launcher", always),
    ("launcher-sbom", PlatformApi::lifecycle_sboms),
    ("layers", always),
    ("layout", PlatformApi::layout),
    ("layout-dir", PlatformApi::layout),
    ("order", always),
    ("parallel", always),
    ("platform", always),
    ("previous-image", always),
    ("process-type", always),
    ("project-metadata", always),
    ("report", always),
    ("run", PlatformApi::run_toml),
    ("run-image", always),
    ("skip-restore", always),
    ("stack", always),
    ("system", PlatformApi::system_buildpacks),
    ("tag", always),
    ("uid", always),
];

static REBASER: [Gate; 9] = [
    ("daemon", always),
    ("force", PlatformApi::rebase_force),
    ("gid", always),
    ("image", always),
    ("insecure-registry", PlatformApi::insecure_registries),
    ("previous-image", PlatformApi::rebase_from_previous),
    ("report", always),
    ("run-image", always),
    ("uid", always),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_names_a_flag() {
        for executable in Executable::ALL {
            for (name, _) in gates(executable) {
                assert!(find(name).is_some(), "{executable:?} -{name}");
            }
        }
    }

    #[test]
    fn every_flag_is_some_executables() {
        for flag in FLAGS.iter().filter(|flag| !flag.name.starts_with('(') && !EVERYWHERE.contains(&flag.name)) {
            let owners = Executable::ALL.into_iter().filter(|e| gates(*e).iter().any(|(name, _)| *name == flag.name));
            assert!(owners.count() > 0, "-{}", flag.name);
        }
    }
}

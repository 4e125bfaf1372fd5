//! What the flags' table does not say of an executable: what it is for, which variables without a flag it reads, which
//! files it reads and writes, and what it exits with. `-h` and the pages of `docs/reference` are made of both.
//!
//! Spec: platform.md, "Phases", "Exit Codes".

use std::fmt::Write as _;

use crate::{
    Executable, ExitCode, PlatformApi, flags,
    names::env::{
        ANALYZED_PATH, APP_DIR, DEPRECATION_MODE, EXEC_ENV, EXPERIMENTAL_MODE, GROUP_PATH, LAYERS_DIR, LOG_FORMAT,
        NO_COLOR, OTEL_DIR, OTEL_TRACEPARENT, PLAN_PATH, PLATFORM_API, PROCESS_TYPE, REGISTRY_AUTH, SOURCE_DATE_EPOCH,
    },
};

/// What there is to know of an executable besides its flags.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// A sentence.
    pub about: &'static str,
    /// The groups of variables that it reads without a flag.
    pub variables: &'static [&'static [VariableInfo]],
    /// The files it reads and writes, besides those that flags of other names lead to.
    pub files: &'static [FileUse],
    /// What it exits with, besides what all executables do.
    pub exit_codes: &'static [ExitCode],
}

/// A variable that no flag stands for.
#[derive(Clone, Copy, Debug)]
pub struct VariableInfo {
    /// Its name, or names that mean one thing.
    pub name: &'static str,
    /// A sentence without a full stop.
    pub help: &'static str,
}

/// A file or a directory that an executable uses.
#[derive(Clone, Copy, Debug)]
pub struct FileUse {
    /// Its place; `-name` stands for the value of that flag.
    pub path: &'static str,
    /// `reads`, `writes`, `reads and writes`
    pub how: &'static str,
    /// When, or what of it; a sentence without a full stop, or empty.
    pub note: &'static str,
}

impl Reference {
    /// All exit codes, by number.
    pub fn all_exit_codes(&self) -> impl Iterator<Item = ExitCode> {
        // The launcher alone has none, and ends only where it fails.
        let has_flags = !self.exit_codes.contains(&ExitCode::Launch);
        ExitCode::ALL.into_iter().filter(move |code| match code {
            ExitCode::Failed | ExitCode::PlatformApi => true,
            ExitCode::Success | ExitCode::Usage | ExitCode::InvalidArgs => has_flags,
            own => self.exit_codes.contains(own),
        })
    }
}

/// What `-h` shows.
pub fn help(executable: Executable, api: PlatformApi) -> String {
    let reference = reference(executable);
    let mut text = flags::usage(executable, api);
    if let Some(end) = text.find('\n') {
        text.insert_str(end + 1, &format!("\n{}\n\n", reference.about));
    }
    text.push_str("\nA flag is written -name value, -name=value or --name; it goes before its variable, that before the default.\n");
    text.push_str("\nVariables without a flag:\n");
    for variable in reference.variables.iter().copied().flatten() {
        let _ = writeln!(text, "  {}\n    \t{}", variable.name, variable.help);
    }
    text.push_str("\nExit codes:\n");
    for code in reference.all_exit_codes() {
        let _ = writeln!(text, "  {:>3}  {}", code as u8, code.meaning());
    }
    text
}

/// What there is to know of this executable.
pub fn reference(executable: Executable) -> &'static Reference {
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

const fn variable(name: &'static str, help: &'static str) -> VariableInfo {
    VariableInfo { name, help }
}

const fn file(path: &'static str, how: &'static str, note: &'static str) -> FileUse {
    FileUse { path, how, note }
}

#[rustfmt::skip]
static ALL: [VariableInfo; 4] = [
    variable(PLATFORM_API, "the Platform API that the platform speaks, 0.7 to 0.15; required"),
    variable(LOG_FORMAT, "text or json: one JSON object for each message; text unless told otherwise"),
    variable(OTEL_DIR, "write OpenTelemetry traces to lifecycle/<phase>.jsonl in this directory; none unless told so"),
    variable(OTEL_TRACEPARENT, "the trace that ours is a part of, as W3C's traceparent"),
];

#[rustfmt::skip]
static IMAGES: [VariableInfo; 12] = [
    variable(REGISTRY_AUTH, "credentials: a JSON object from registry to the value of an Authorization header"),
    variable("DOCKER_CONFIG, HOME", "where Docker's config.json is: $DOCKER_CONFIG, else $HOME/.docker"),
    variable("REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR, XDG_CONFIG_HOME", "where podman's auth.json is, read where there is no config.json"),
    variable("CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_AMAZON, CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_AZURE, CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_GOOGLE", "true: do not ask that vendor's credential helper"),
    variable("PATH", "where credential helpers are looked for"),
    variable("DOCKER_HOST", "with -daemon: the daemon's address; the usual sockets unless told otherwise"),
    variable("DOCKER_CERT_PATH", "with -daemon: the directory of ca.pem, cert.pem and key.pem, for TLS to a daemon at tcp://"),
    variable("DOCKER_TLS_VERIFY", "with -daemon: if set, TLS must be used, and ca.pem must vouch for the daemon"),
    variable("DOCKER_API_VERSION", "with -daemon: the version to speak instead of the newest that both know"),
    variable("SSL_CERT_FILE, SSL_CERT_DIR", "certificate authorities to trust, instead of the system's"),
    variable("HTTP_PROXY, HTTPS_PROXY, http_proxy, https_proxy", "proxies on the way to registries"),
    variable("NO_PROXY, no_proxy", "hosts that are reached without a proxy"),
];

#[rustfmt::skip]
static LAYOUT: [VariableInfo; 1] = [variable(EXPERIMENTAL_MODE, "whether images may be in OCI layout directories: error (unless told otherwise), warn, or silent (also quiet)")];

static PROGRESS: [VariableInfo; 1] = [variable("TERM", "whether stderr, where it is a terminal, can show progress")];

#[rustfmt::skip]
static BUILD: [VariableInfo; 2] = [
    variable(EXEC_ENV, "what the build is for, e.g. production (unless told otherwise) or test; from Platform API 0.15"),
    variable("HOME, HOSTNAME, CNB_STACK_ID, PATH, LD_LIBRARY_PATH, LIBRARY_PATH, CPATH, PKG_CONFIG_PATH, HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "all of the environment that buildpacks get (proxies in small letters, too), with what <platform>/env has"),
];

static EXPORT: [VariableInfo; 1] =
    [variable(SOURCE_DATE_EPOCH, "when the image was created, in seconds since 1970; from Platform API 0.9")];

static ANALYZER: Reference = Reference {
    about: "Looks up the previous image and chooses the run image, and checks that the result can be written.",
    variables: &[&ALL, &IMAGES, &LAYOUT],
    files: &[
        file("-run, -stack", "reads", "if it is there"),
        file("-analyzed", "writes", ""),
        file("<layers>/sbom/launch", "writes", "the SBOMs of the previous image, from Platform API 0.8"),
    ],
    exit_codes: &[ExitCode::Analyze],
};

#[rustfmt::skip]
static DETECTOR: Reference = Reference {
    about: "Finds the first group of buildpacks that fits the application, and runs its image extensions.",
    variables: &[&ALL, &BUILD, &[variable(EXPERIMENTAL_MODE, "whether image extensions may be used before Platform API 0.13: error (unless told otherwise), warn, or silent (also quiet)")]],
    files: &[
        file("-order", "reads", ""),
        file("-system", "reads", "if it is there"),
        file("-run", "reads", "if it is there, where there are extensions"),
        file("-buildpacks, -extensions", "reads", "buildpack.toml and extension.toml of what the order names; runs bin/detect and bin/generate"),
        file("-app, -platform, -build-config", "reads", "as do buildpacks and extensions"),
        file("-analyzed", "reads and writes", "reads the target; writes the run image that extensions chose"),
        file("-group", "writes", ""),
        file("-plan", "writes", ""),
        file("-generated", "writes", "where there are extensions"),
    ],
    exit_codes: &[ExitCode::BuildpackApi, ExitCode::NoDetection, ExitCode::DetectionErrored, ExitCode::Detect, ExitCode::ExtensionGenerate, ExitCode::Generate],
};

#[rustfmt::skip]
static RESTORER: Reference = Reference {
    about: "Brings back what earlier builds left: layers of the cache, metadata of layers, SBOMs; fetches images that extensions extend.",
    variables: &[&ALL, &IMAGES, &LAYOUT, &PROGRESS],
    files: &[
        file("-group", "reads", ""),
        file("-analyzed", "reads and writes", "completes what is known of the run image"),
        file("-generated", "reads", "where there are extensions"),
        file("-run", "reads", "if it is there"),
        file("-cache-dir", "reads", "the layers, each checked by its digest"),
        file("<layers>/<buildpack>", "writes", "layers and their <layer>.toml, store.toml"),
        file("/kaniko", "writes", "images to extend, and cached layers of extended images"),
    ],
    exit_codes: &[ExitCode::BuildpackApi, ExitCode::Restore],
};

#[rustfmt::skip]
static EXTENDER: Reference = Reference {
    about: "Applies the Dockerfiles of image extensions to the image it runs in; for a build image, then builds.",
    variables: &[&ALL, &BUILD, &[
        variable("CNB_EXTEND_OUTSIDE_CONTAINER", "true: also extend what does not look like a container; it changes the file system"),
        variable("container, KUBERNETES_SERVICE_HOST", "set in containers: how one is known"),
    ]],
    files: &[
        file("-analyzed", "reads", "the images to extend"),
        file("-group", "reads", ""),
        file("-plan", "reads", "for a build image"),
        file("-generated", "reads", "Dockerfiles and contexts"),
        file("-app, -platform, -buildpacks", "reads", "as builder does"),
        file("-extended", "writes", "for a run image: its new layers"),
        file("/kaniko", "reads and writes", "images to extend, and cached layers of extended images"),
        file("/", "writes", "whatever the Dockerfiles say"),
        file("<layers>/config/metadata.toml", "writes", "for a build image, as builder does"),
    ],
    exit_codes: &[ExitCode::BuildpackApi, ExitCode::BuildpackBuild, ExitCode::Build, ExitCode::Extend],
};

#[rustfmt::skip]
static BUILDER: Reference = Reference {
    about: "Runs bin/build of the group's buildpacks, one after the other, and collects what they say of the image.",
    variables: &[&ALL, &BUILD],
    files: &[
        file("-group", "reads", ""),
        file("-plan", "reads", ""),
        file("-analyzed", "reads", "the target, if it is there"),
        file("-buildpacks", "reads", "runs bin/build"),
        file("-app, -platform, -build-config", "reads", "as do buildpacks; they may change the application"),
        file("<layers>/<buildpack>", "reads and writes", "layers, launch.toml, build.toml, store.toml, SBOMs"),
        file("<layers>/sbom", "writes", "the SBOMs, sorted by what they are for"),
        file("<layers>/config/metadata.toml", "writes", ""),
    ],
    exit_codes: &[ExitCode::BuildpackApi, ExitCode::BuildpackBuild, ExitCode::Build],
};

#[rustfmt::skip]
static EXPORTER: Reference = Reference {
    about: "Makes the application image from what the buildpacks left, saves it, and keeps layers for the next build.",
    variables: &[&ALL, &IMAGES, &LAYOUT, &PROGRESS, &[variable(EXEC_ENV, "what the build was for; from Platform API 0.15")], &EXPORT],
    files: &[
        file("-analyzed", "reads", "which run image and which previous image"),
        file("-group", "reads", ""),
        file("<layers>/config/metadata.toml", "reads", ""),
        file("<layers>/<buildpack>", "reads", "the layers"),
        file("<layers>/sbom", "reads and writes", "adds the SBOMs of lifecycle and launcher"),
        file("-app", "reads", "becomes a layer, or several"),
        file("-extended", "reads", "where the run image was extended"),
        file("-launcher, -launcher-sbom", "reads", ""),
        file("-project-metadata", "reads", "if it is there"),
        file("-run, -stack", "reads", "if it is there"),
        file("-cache-dir", "reads and writes", ""),
        file("-launch-cache", "reads and writes", "with -daemon"),
        file("-report", "writes", ""),
    ],
    exit_codes: &[ExitCode::BuildpackApi, ExitCode::Export],
};

#[rustfmt::skip]
static CREATOR: Reference = Reference {
    about: "Runs all phases in one process: analyze, detect, restore, build, export. For buildpacks that are trusted; it applies no image extensions.",
    variables: &[&ALL, &IMAGES, &LAYOUT, &PROGRESS, &BUILD, &EXPORT, &[
        variable(ANALYZED_PATH, "where analyzed.toml goes; in <layers> unless told otherwise"),
        variable(GROUP_PATH, "where group.toml goes; in <layers> unless told otherwise"),
        variable(PLAN_PATH, "where plan.toml goes; in <layers> unless told otherwise"),
    ]],
    files: &[
        file("-order", "reads", ""),
        file("-system, -run, -stack, -project-metadata", "reads", "if it is there"),
        file("-buildpacks", "reads", "runs bin/detect and bin/build"),
        file("-app, -platform, -build-config", "reads", "as do buildpacks; they may change the application"),
        file("-launcher, -launcher-sbom", "reads", ""),
        file("-cache-dir", "reads and writes", ""),
        file("-launch-cache", "reads and writes", "with -daemon"),
        file("<layers>", "reads and writes", "layers, and the files between phases: analyzed.toml, group.toml, plan.toml, config/metadata.toml"),
        file("-report", "writes", ""),
    ],
    exit_codes: &[
        ExitCode::BuildpackApi, ExitCode::NoDetection, ExitCode::DetectionErrored, ExitCode::Detect, ExitCode::Analyze,
        ExitCode::Restore, ExitCode::BuildpackBuild, ExitCode::Build, ExitCode::Export,
    ],
};

static REBASER: Reference = Reference {
    about: "Puts an application image on another run image, without building: only its manifest and config are new.",
    variables: &[
        &ALL,
        &IMAGES,
        &[variable(LAYERS_DIR, "where report.toml goes unless -report says otherwise; /layers unless told otherwise")],
    ],
    files: &[file("-report", "writes", "")],
    exit_codes: &[ExitCode::Rebase],
};

/// The launcher, which has no flags.
#[rustfmt::skip]
pub static LAUNCHER: Reference = Reference {
    about: "Starts a process of the application image in the environment that its buildpacks made, and becomes it.",
    variables: &[&[
        variable(PLATFORM_API, "the Platform API; exporter puts it into the image"),
        variable(LAYERS_DIR, "where layers are; /layers unless told otherwise; exporter puts it into the image"),
        variable(APP_DIR, "where the application is; /workspace unless told otherwise; exporter puts it into the image"),
        variable(DEPRECATION_MODE, "what a deprecated API comes to: quiet, warn or error; exporter puts quiet into the image"),
        variable(EXEC_ENV, "which processes are meant, e.g. production (unless told otherwise) or test; from Platform API 0.15"),
        variable(PROCESS_TYPE, "not supported since Platform API 0.4: warned of"),
        variable(NO_COLOR, "true: messages without colour"),
    ]],
    files: &[
        file("<layers>/config/metadata.toml", "reads", "the processes"),
        file("<layers>/<buildpack>/<layer>", "reads", "env, env.launch, exec.d, profile.d"),
        file("<app>/.profile", "reads", "for processes that are not direct"),
    ],
    exit_codes: &[ExitCode::BuildpackApi, ExitCode::Launch],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlagKind, describe};

    #[test]
    fn every_flag_of_a_file_is_told_of() {
        for executable in Executable::ALL {
            let told: Vec<&str> = reference(executable).files.iter().flat_map(|file| file.path.split(", ")).collect();
            for api in PlatformApi::ALL {
                for flag in describe(executable, api) {
                    let is_file = matches!(flag.kind, FlagKind::File);
                    if is_file {
                        assert!(told.contains(&&*format!("-{}", flag.name)), "{executable:?} -{}", flag.name);
                    }
                }
            }
            for path in told.into_iter().filter_map(|path| path.strip_prefix('-')) {
                let has = |api: PlatformApi| describe(executable, api).iter().any(|flag| flag.name == path);
                assert!(PlatformApi::ALL.into_iter().any(has), "{executable:?} -{path}");
            }
        }
    }

    #[test]
    fn every_exit_code_is_some_executables() {
        let all = Executable::ALL.map(reference).into_iter().chain([&LAUNCHER]);
        let told: Vec<ExitCode> = all.flat_map(Reference::all_exit_codes).collect();
        for code in ExitCode::ALL {
            assert!(told.contains(&code), "{code:?}");
        }
        assert!(ExitCode::ALL.windows(2).all(|pair| (pair[0] as u8) < pair[1] as u8), "sorted");
    }
}

//! The contract on one page: every environment variable, label and well-known path, with what it is for.
//!
//! Spec: platform.md, "Inputs" of each executable, "Labels" and "Data Format".

/// Variables that the lifecycle reads.
pub mod env {
    /// The Platform API the platform speaks; required.
    pub const PLATFORM_API: &str = "CNB_PLATFORM_API";
    /// What to do when a deprecated API is asked for: `quiet`, `warn` or `error`.
    pub const DEPRECATION_MODE: &str = "CNB_DEPRECATION_MODE";
    /// What to do when an experimental feature is asked for: `silent` (or `quiet`), `warn` or `error`.
    pub const EXPERIMENTAL_MODE: &str = "CNB_EXPERIMENTAL_MODE";
    /// Which messages are shown: `debug`, `info`, `warn`, `error` or `fatal`.
    pub const LOG_LEVEL: &str = "CNB_LOG_LEVEL";
    /// How messages are written: `text` or `json`. Not of the specification.
    pub const LOG_FORMAT: &str = "CNB_LOG_FORMAT";
    /// The directory that OpenTelemetry traces are written below. Not of the specification (RFC 0131).
    pub const OTEL_DIR: &str = "CNB_OTEL_DIR";
    /// The platform's trace, which ours is a part of: a W3C `traceparent`. Not of the specification (RFC 0131).
    pub const OTEL_TRACEPARENT: &str = "CNB_OTEL_TRACEPARENT";
    /// Messages without colour.
    pub const NO_COLOR: &str = "CNB_NO_COLOR";

    /// The application's directory.
    pub const APP_DIR: &str = "CNB_APP_DIR";
    /// The layers directory.
    pub const LAYERS_DIR: &str = "CNB_LAYERS_DIR";
    /// The platform directory, whose `env` holds the user's variables.
    pub const PLATFORM_DIR: &str = "CNB_PLATFORM_DIR";
    /// The operator's directory, whose `env` holds the operator's variables.
    pub const BUILD_CONFIG_DIR: &str = "CNB_BUILD_CONFIG_DIR";
    /// Where buildpacks are.
    pub const BUILDPACKS_DIR: &str = "CNB_BUILDPACKS_DIR";
    /// Where image extensions are.
    pub const EXTENSIONS_DIR: &str = "CNB_EXTENSIONS_DIR";
    /// Where generated Dockerfiles go.
    pub const GENERATED_DIR: &str = "CNB_GENERATED_DIR";
    /// Where extended run images go.
    pub const EXTENDED_DIR: &str = "CNB_EXTENDED_DIR";

    /// Where analyzed.toml is.
    pub const ANALYZED_PATH: &str = "CNB_ANALYZED_PATH";
    /// Where group.toml is.
    pub const GROUP_PATH: &str = "CNB_GROUP_PATH";
    /// Where order.toml is.
    pub const ORDER_PATH: &str = "CNB_ORDER_PATH";
    /// Where plan.toml is.
    pub const PLAN_PATH: &str = "CNB_PLAN_PATH";
    /// Where project-metadata.toml is.
    pub const PROJECT_METADATA_PATH: &str = "CNB_PROJECT_METADATA_PATH";
    /// Where report.toml goes.
    pub const REPORT_PATH: &str = "CNB_REPORT_PATH";
    /// Where run.toml is.
    pub const RUN_PATH: &str = "CNB_RUN_PATH";
    /// Where stack.toml is.
    pub const STACK_PATH: &str = "CNB_STACK_PATH";
    /// Where system.toml is.
    pub const SYSTEM_PATH: &str = "CNB_SYSTEM_PATH";

    /// The build image, as extensions will extend it.
    pub const BUILD_IMAGE: &str = "CNB_BUILD_IMAGE";
    /// The image whose layers may be reused.
    pub const PREVIOUS_IMAGE: &str = "CNB_PREVIOUS_IMAGE";
    /// The run image.
    pub const RUN_IMAGE: &str = "CNB_RUN_IMAGE";
    /// App images are a daemon's.
    pub const USE_DAEMON: &str = "CNB_USE_DAEMON";
    /// App images are in OCI layout directories.
    pub const USE_LAYOUT: &str = "CNB_USE_LAYOUT";
    /// Where those directories are.
    pub const LAYOUT_DIR: &str = "CNB_LAYOUT_DIR";
    /// Registries that may be spoken to without a verified certificate, separated by commas.
    pub const INSECURE_REGISTRIES: &str = "CNB_INSECURE_REGISTRIES";

    /// The cache, as a directory.
    pub const CACHE_DIR: &str = "CNB_CACHE_DIR";
    /// The cache, as an image.
    pub const CACHE_IMAGE: &str = "CNB_CACHE_IMAGE";
    /// Layers of a daemon's app images.
    pub const LAUNCH_CACHE_DIR: &str = "CNB_LAUNCH_CACHE_DIR";
    /// How long cached layers of extended images are good for.
    pub const KANIKO_CACHE_TTL: &str = "CNB_KANIKO_CACHE_TTL";
    /// Export image and cache side by side.
    pub const PARALLEL_EXPORT: &str = "CNB_PARALLEL_EXPORT";
    /// Do not restore layers; means the same as [`SKIP_RESTORE`].
    pub const SKIP_LAYERS: &str = "CNB_SKIP_LAYERS";
    /// Do not restore layers; means the same as [`SKIP_LAYERS`].
    pub const SKIP_RESTORE: &str = "CNB_SKIP_RESTORE";

    /// The build user's ID.
    pub const USER_ID: &str = "CNB_USER_ID";
    /// The build user's group.
    pub const GROUP_ID: &str = "CNB_GROUP_ID";
    /// What the build is for: `production`, `test`, …
    pub const EXEC_ENV: &str = "CNB_EXEC_ENV";
    /// Which base image to extend: `build` or `run`.
    pub const EXTEND_KIND: &str = "CNB_EXTEND_KIND";
    /// The default process.
    pub const PROCESS_TYPE: &str = "CNB_PROCESS_TYPE";
    /// Rebase although it is not known to be safe.
    pub const FORCE_REBASE: &str = "CNB_FORCE_REBASE";
    /// Seconds since 1970, the creation time of images. Not one of ours: <https://reproducible-builds.org/specs/source-date-epoch/>.
    pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
    /// Registry credentials, as a JSON object from registry to header.
    pub const REGISTRY_AUTH: &str = "CNB_REGISTRY_AUTH";
    /// The ID of the stack, for buildpacks that still ask for it.
    pub const STACK_ID: &str = "CNB_STACK_ID";
}

/// Labels of images.
pub mod label {
    /// What built the image: buildpacks, processes, launcher (platform.md, "Build Metadata").
    pub const BUILD_METADATA: &str = "io.buildpacks.build.metadata";
    /// Which layer is whose, for the next build and for rebase (platform.md, "Lifecycle Metadata").
    pub const LIFECYCLE_METADATA: &str = "io.buildpacks.lifecycle.metadata";
    /// Where the source is from (platform.md, "Project Metadata").
    pub const PROJECT_METADATA: &str = "io.buildpacks.project.metadata";
    /// Which layers a cache has; also the name of a cache volume's metadata file.
    pub const CACHE_METADATA: &str = "io.buildpacks.lifecycle.cache.metadata";
    /// The execution environment of the build (from Platform API 0.15).
    pub const EXEC_ENV: &str = "io.buildpacks.exec-env";
    /// Whether the image may be rebased without force.
    pub const REBASABLE: &str = "io.buildpacks.rebasable";
    /// What all labels of a base image's identity begin with.
    pub const BASE_PREFIX: &str = "io.buildpacks.base.";
    /// A base image's own name for what it is.
    pub const BASE_ID: &str = "io.buildpacks.base.id";
    /// A base image's distribution.
    pub const DISTRO_NAME: &str = "io.buildpacks.base.distro.name";
    /// The version of that distribution.
    pub const DISTRO_VERSION: &str = "io.buildpacks.base.distro.version";
    /// What all labels of a stack begin with.
    pub const STACK_PREFIX: &str = "io.buildpacks.stack.";
    /// A base image's stack (before Platform API 0.12).
    pub const STACK_ID: &str = "io.buildpacks.stack.id";
    /// What a base image has beyond its stack, as a JSON list (before Platform API 0.12).
    pub const STACK_MIXINS: &str = "io.buildpacks.stack.mixins";
}

/// Well-known paths.
pub mod path {
    /// Where the app is, unless told otherwise.
    pub const APP: &str = "/workspace";
    /// Where layers are, unless told otherwise.
    pub const LAYERS: &str = "/layers";
    /// Where the platform directory is, unless told otherwise.
    pub const PLATFORM: &str = "/platform";
    /// Where the operator's directory is, unless told otherwise.
    pub const BUILD_CONFIG: &str = "/cnb/build-config";
    /// Where buildpacks are, unless told otherwise.
    pub const BUILDPACKS: &str = "/cnb/buildpacks";
    /// Where image extensions are, unless told otherwise.
    pub const EXTENSIONS: &str = "/cnb/extensions";
    /// The builder's order, used where the layers directory has none.
    pub const ORDER: &str = "/cnb/order.toml";
    /// The builder's run images.
    pub const RUN: &str = "/cnb/run.toml";
    /// The builder's run image, before Platform API 0.12.
    pub const STACK: &str = "/cnb/stack.toml";
    /// The builder's system buildpacks.
    pub const SYSTEM: &str = "/cnb/system.toml";
    /// Lifecycle, launcher and their SBOMs in the build image; the launcher in the app image.
    pub const LIFECYCLE: &str = "/cnb/lifecycle";
    /// The launcher, in the build image and in the app image.
    pub const LAUNCHER: &str = "/cnb/lifecycle/launcher";
    /// Links named like processes, in the app image.
    pub const PROCESS: &str = "/cnb/process";
    /// Base images to extend, and the cache of their layers.
    pub const KANIKO: &str = "/kaniko";
    /// Stands for the layers directory in default values.
    pub const LAYERS_PLACEHOLDER: &str = "<layers>";
}

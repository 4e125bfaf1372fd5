//! Exit codes, and the failures that have one of their own.

/// What an executable exits with. platform.md, "Exit Codes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All went well, or `-h`, or `-version`.
    Success = 0,
    /// Anything that has no number of its own.
    Failed = 1,
    /// A flag that is unknown or malformed.
    Usage = 2,
    /// Arguments that are wrong in number, or do not go together.
    InvalidArgs = 3,
    /// The Platform API is missing or not supported.
    PlatformApi = 11,
    /// A module's Buildpack API is not supported.
    BuildpackApi = 12,
    /// No group passed, and no module failed otherwise.
    NoDetection = 20,
    /// No group passed, and a module failed otherwise.
    DetectionErrored = 21,
    /// Any other failure of detect.
    Detect = 22,
    /// Any failure of analyze.
    Analyze = 32,
    /// Any failure of restore.
    Restore = 42,
    /// A buildpack's `bin/build` failed.
    BuildpackBuild = 51,
    /// Any other failure of build.
    Build = 52,
    /// Any failure of export.
    Export = 62,
    /// Any failure of rebase.
    Rebase = 72,
    /// Any failure of launch.
    Launch = 82,
    /// An extension's `bin/generate` failed.
    ExtensionGenerate = 91,
    /// Any other failure of generate.
    Generate = 92,
    /// Any failure of extend.
    Extend = 102,
}

impl ExitCode {
    /// All of them, by number.
    pub const ALL: [Self; 19] = [
        Self::Success,
        Self::Failed,
        Self::Usage,
        Self::InvalidArgs,
        Self::PlatformApi,
        Self::BuildpackApi,
        Self::NoDetection,
        Self::DetectionErrored,
        Self::Detect,
        Self::Analyze,
        Self::Restore,
        Self::BuildpackBuild,
        Self::Build,
        Self::Export,
        Self::Rebase,
        Self::Launch,
        Self::ExtensionGenerate,
        Self::Generate,
        Self::Extend,
    ];

    /// What it means, in a few words without a full stop.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done; or -h, or -version",
            Self::Failed => {
                "a failure without a number of its own: a file that cannot be read, credentials, privileges"
            }
            Self::Usage => "a flag that is unknown or has a wrong value",
            Self::InvalidArgs => "arguments that are wrong in number, are no image names, or do not go together",
            Self::PlatformApi => "CNB_PLATFORM_API is missing or not supported",
            Self::BuildpackApi => "the Buildpack API of a buildpack or extension is not supported",
            Self::NoDetection => "no group of buildpacks fits the application",
            Self::DetectionErrored => "no group fits, and a buildpack's bin/detect failed",
            Self::Detect => "detect failed otherwise",
            Self::Analyze => "analyze failed",
            Self::Restore => "restore failed",
            Self::BuildpackBuild => "a buildpack's bin/build failed",
            Self::Build => "build failed otherwise",
            Self::Export => "export failed",
            Self::Rebase => "rebase failed or was refused",
            Self::Launch => "the process could not be started",
            Self::ExtensionGenerate => "an extension's bin/generate failed",
            Self::Generate => "generate failed otherwise",
            Self::Extend => "extend failed",
        }
    }
}

/// The failures that the Platform spec (or the reference) gives a number of their own, wherever they happen.
/// Every other error takes its phase's number. The text is the whole sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What the process exits with.
    pub code: ExitCode,
    /// The whole sentence for the user.
    pub text: String,
}

impl Failure {
    /// A failure with a code of its own.
    pub fn new(code: ExitCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
    /// Exit code 3.
    pub fn invalid_args(text: impl Into<String>) -> Self {
        Self::new(ExitCode::InvalidArgs, text)
    }
    /// Exit code 1.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(ExitCode::Failed, text)
    }
}

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

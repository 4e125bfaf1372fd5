//! Exit codes, and the failures that have one of their own.

/// What an executable exits with. platform.md, "Exit Codes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Success = 0,
    Failed = 1,
    Usage = 2,
    InvalidArgs = 3,
    PlatformApi = 11,
    BuildpackApi = 12,
    NoDetection = 20,
    DetectionErrored = 21,
    Detect = 22,
    Analyze = 32,
    Restore = 42,
    BuildpackBuild = 51,
    Build = 52,
    Export = 62,
    Rebase = 72,
    Launch = 82,
    ExtensionGenerate = 91,
    Generate = 92,
    Extend = 102,
}

/// The failures that the Platform spec (or the reference) gives a number of their own, wherever they happen.
/// Every other error takes its phase's number. The text is the whole sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub code: ExitCode,
    pub text: String,
}

impl Failure {
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

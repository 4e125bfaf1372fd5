//! What the lifecycle does when something deprecated or experimental is asked for.

use crate::{Failure, Flags, names};

/// A decision about something asked for, for the caller to log and obey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Go on, say nothing.
    Nothing,
    /// Go on, with this warning.
    Warn(String),
    /// Log these errors and stop.
    Refuse(Vec<String>),
}

/// `CNB_DEPRECATION_MODE`. platform.md, "Platform API Compatibility".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeprecationMode {
    /// Say nothing.
    Quiet,
    /// Say so.
    Warn,
    /// Stop.
    Error,
}

impl DeprecationMode {
    /// Warn by default, and for any word that is not a mode.
    pub fn from_flags(flags: &Flags) -> Self {
        match flags.env(names::env::DEPRECATION_MODE) {
            Some("quiet" | "silent") => Self::Quiet,
            Some("error") => Self::Error,
            _ => Self::Warn,
        }
    }

    /// What to do about a deprecated API; `request` is a sentence such as `Platform requested deprecated API '0.7'`.
    /// After a refusal the caller fails as for an unsupported API.
    pub fn decide(self, request: &str) -> Notice {
        match self {
            Self::Quiet => Notice::Nothing,
            Self::Warn => Notice::Warn(request.to_owned()),
            Self::Error => Notice::Refuse(vec![
                request.to_owned(),
                format!("Deprecated APIs are disabled by {}=error", names::env::DEPRECATION_MODE),
            ]),
        }
    }
}

/// `CNB_EXPERIMENTAL_MODE`. platform.md, "Experimental features".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExperimentalMode {
    /// Say nothing.
    Silent,
    /// Say so.
    Warn,
    /// Stop.
    Error,
}

/// What is experimental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExperimentalFeature {
    /// Image extensions, before Platform API 0.13.
    Dockerfiles,
    /// `-layout`
    Layout,
}

impl ExperimentalFeature {
    fn name(self) -> &'static str {
        match self {
            Self::Dockerfiles => "Dockerfiles",
            Self::Layout => "export to OCI layout format",
        }
    }
}

impl ExperimentalMode {
    /// Error by default, warn for any word that is not a mode; `quiet` is another word for `silent`.
    pub fn from_flags(flags: &Flags) -> Self {
        match flags.env(names::env::EXPERIMENTAL_MODE) {
            Some("silent" | "quiet") => Self::Silent,
            None | Some("error") => Self::Error,
            Some(_) => Self::Warn,
        }
    }

    /// What to do about an experimental feature. After a refusal the caller fails with [`ExperimentalMode::failure`].
    pub fn decide(self, feature: ExperimentalFeature) -> Notice {
        let request = format!("Platform requested experimental feature '{}'", feature.name());
        match self {
            Self::Silent => Notice::Nothing,
            Self::Warn => Notice::Warn(request),
            Self::Error => Notice::Refuse(vec![request]),
        }
    }

    /// Exit code 1.
    pub fn failure() -> Failure {
        Failure::failed(format!("experimental features are disabled by {}=error", names::env::EXPERIMENTAL_MODE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(name: &str, value: &str) -> Flags {
        Flags { env: [(name.into(), value.into())].into(), ..Flags::default() }
    }

    #[test]
    fn deprecation_mode_is_warn_unless_told_otherwise() {
        for (word, mode) in [
            ("", DeprecationMode::Warn),
            ("quiet", DeprecationMode::Quiet),
            ("warn", DeprecationMode::Warn),
            ("error", DeprecationMode::Error),
            ("other", DeprecationMode::Warn),
        ] {
            assert_eq!(DeprecationMode::from_flags(&flags("CNB_DEPRECATION_MODE", word)), mode, "{word}");
        }
        assert_eq!(DeprecationMode::Quiet.decide("x"), Notice::Nothing);
        assert_eq!(DeprecationMode::Warn.decide("x"), Notice::Warn("x".into()));
        assert!(matches!(DeprecationMode::Error.decide("x"), Notice::Refuse(lines) if lines.len() == 2));
    }

    #[test]
    fn experimental_mode_is_error_unless_told_otherwise() {
        for (word, mode) in [
            ("", ExperimentalMode::Error),
            ("error", ExperimentalMode::Error),
            ("warn", ExperimentalMode::Warn),
            ("silent", ExperimentalMode::Silent),
            ("quiet", ExperimentalMode::Silent),
            ("other", ExperimentalMode::Warn),
        ] {
            assert_eq!(ExperimentalMode::from_flags(&flags("CNB_EXPERIMENTAL_MODE", word)), mode, "{word}");
        }
        assert_eq!(
            ExperimentalMode::Warn.decide(ExperimentalFeature::Dockerfiles),
            Notice::Warn("Platform requested experimental feature 'Dockerfiles'".into())
        );
        assert_eq!(
            ExperimentalMode::failure().text,
            "experimental features are disabled by CNB_EXPERIMENTAL_MODE=error"
        );
    }
}

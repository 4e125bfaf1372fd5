//! Buildpack API versions and what differs between them. No other file of the workspace compares versions.

use std::{fmt, str::FromStr};

/// A version of the Buildpack API that this lifecycle supports; an unsupported one cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuildpackApi {
    V0_7,
    V0_8,
    V0_9,
    V0_10,
    V0_11,
    V0_12,
}

/// Why an API version cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Not of the form `<major>[.<minor>]`.
    #[error("'{0}' is not an API version")]
    Malformed(String),
    /// A version, but not one of ours.
    #[error("API version '{0}' is incompatible with the lifecycle")]
    Unsupported(String),
}

/// `<major>.<minor>`, compared as numbers (0.10 is newer than 0.9). Accepts `v0.9`, `0.9`, `1`, `1.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u64,
    pub minor: u64,
}

impl ApiVersion {
    /// Whether a lifecycle that has `self` can serve a request for `wanted`: below 1.0 only the same version will do,
    /// from then on a newer minor version includes the older ones.
    pub fn includes(self, wanted: Self) -> bool {
        if self.major == 0 { self == wanted } else { self.major == wanted.major && self.minor >= wanted.minor }
    }
}

impl FromStr for ApiVersion {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let number = |digits: &str| {
            if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
        };
        let version = text.strip_prefix('v').unwrap_or(text);
        let (major, minor) = version.split_once('.').unwrap_or((version, ""));
        match (number(major), if minor.is_empty() { Some(0) } else { number(minor) }) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(ApiError::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl BuildpackApi {
    /// All supported versions, oldest first.
    pub const ALL: [Self; 6] = [Self::V0_7, Self::V0_8, Self::V0_9, Self::V0_10, Self::V0_11, Self::V0_12];

    /// Supported versions that will go; asking for one is told to the user as `CNB_DEPRECATION_MODE` says.
    pub const DEPRECATED: [Self; 0] = [];

    /// Whether this version will go (see [`Self::DEPRECATED`]).
    pub fn is_deprecated(self) -> bool {
        Self::DEPRECATED.contains(&self)
    }

    /// `CNB_PLATFORM_DIR`, `CNB_BUILD_PLAN_PATH`, `CNB_BP_PLAN_PATH`, `CNB_LAYERS_DIR` are in the environment.
    pub fn dirs_in_env(self) -> bool {
        self >= Self::V0_8
    }

    /// A process may name its working directory.
    pub fn working_dir(self) -> bool {
        self >= Self::V0_8
    }

    /// `command` in launch.toml is an array, and `direct` is gone.
    pub fn command_array(self) -> bool {
        self >= Self::V0_9
    }

    /// Arguments of the user replace a process's default arguments, instead of following them.
    pub fn default_args_replaced(self) -> bool {
        self >= Self::V0_9
    }

    /// `[[targets]]` and `CNB_TARGET_*`.
    pub fn targets(self) -> bool {
        self >= Self::V0_10
    }

    /// Execution environments: `exec-env` and `CNB_EXEC_ENV`.
    pub fn exec_env(self) -> bool {
        self >= Self::V0_12
    }

    fn version(self) -> ApiVersion {
        let minor = match self {
            Self::V0_7 => 7,
            Self::V0_8 => 8,
            Self::V0_9 => 9,
            Self::V0_10 => 10,
            Self::V0_11 => 11,
            Self::V0_12 => 12,
        };
        ApiVersion { major: 0, minor }
    }
}

impl FromStr for BuildpackApi {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let wanted: ApiVersion = text.parse()?;
        Self::ALL
            .into_iter()
            .find(|api| api.version().includes(wanted))
            .ok_or_else(|| ApiError::Unsupported(text.to_owned()))
    }
}

impl fmt::Display for BuildpackApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_grammar() {
        for (text, major, minor) in [
            ("0.7", 0, 7),
            ("v0.10", 0, 10),
            ("1", 1, 0),
            ("1.", 1, 0),
            ("09", 9, 0),
            ("0.07", 0, 7),
            ("18446744073709551615.0", u64::MAX, 0),
        ] {
            assert_eq!(text.parse(), Ok(ApiVersion { major, minor }), "{text}");
        }
        for text in
            ["", " ", "v", ".7", "0.7.1", "0.7 ", "+1", "0.+7", "-1", "0.x", "vv1", "V1", "18446744073709551616", "٣"]
        {
            assert_eq!(text.parse::<ApiVersion>(), Err(ApiError::Malformed(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        let version = |text: &str| text.parse::<ApiVersion>().unwrap();
        assert!(version("0.10") > version("0.9"));
        assert!(version("1") > version("0.99"));
        for (ours, wanted, included) in [
            ("0.9", "0.9", true),
            ("0.9", "0.8", false),
            ("0.9", "0.10", false),
            ("1.3", "1", true),
            ("1.3", "1.3", true),
            ("1.3", "1.4", false),
            ("2.0", "1.0", false),
        ] {
            assert_eq!(version(ours).includes(version(wanted)), included, "{ours} {wanted}");
        }
    }

    #[test]
    fn only_supported_versions_can_be_held() {
        for api in BuildpackApi::ALL {
            assert_eq!(api.to_string().parse(), Ok(api));
            assert!(!api.is_deprecated());
        }
        assert_eq!("v0.12".parse(), Ok(BuildpackApi::V0_12));
        for text in ["0.6", "0.13", "1", "12"] {
            assert_eq!(text.parse::<BuildpackApi>(), Err(ApiError::Unsupported(text.to_owned())));
        }
        assert_eq!("".parse::<BuildpackApi>(), Err(ApiError::Malformed(String::new())));
    }

    #[test]
    fn every_difference_begins_where_the_spec_has_it() {
        for (name, is_on, since) in [
            ("dirs_in_env", BuildpackApi::dirs_in_env as fn(BuildpackApi) -> bool, "0.8"),
            ("working_dir", BuildpackApi::working_dir, "0.8"),
            ("command_array", BuildpackApi::command_array, "0.9"),
            ("default_args_replaced", BuildpackApi::default_args_replaced, "0.9"),
            ("targets", BuildpackApi::targets, "0.10"),
            ("exec_env", BuildpackApi::exec_env, "0.12"),
        ] {
            let first = BuildpackApi::ALL.into_iter().find(|api| is_on(*api)).map(|api| api.to_string());
            assert_eq!(first.as_deref(), Some(since), "{name}");
        }
    }
}

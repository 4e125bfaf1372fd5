//! Platform API versions and what differs between them. No other file of the workspace compares versions.
//!
//! Spec: the versions of platform.md tagged `platform/v0.7` to `platform/v0.15`.

use std::{fmt, str::FromStr};

use buildpack_api::{ApiError, ApiVersion};

/// A version of the Platform API that this lifecycle supports; an unsupported one cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlatformApi {
    /// Platform API 0.7
    V0_7,
    /// Platform API 0.8
    V0_8,
    /// Platform API 0.9
    V0_9,
    /// Platform API 0.10
    V0_10,
    /// Platform API 0.11
    V0_11,
    /// Platform API 0.12
    V0_12,
    /// Platform API 0.13
    V0_13,
    /// Platform API 0.14
    V0_14,
    /// Platform API 0.15
    V0_15,
}

impl PlatformApi {
    /// All supported versions, oldest first.
    pub const ALL: [Self; 9] = [
        Self::V0_7,
        Self::V0_8,
        Self::V0_9,
        Self::V0_10,
        Self::V0_11,
        Self::V0_12,
        Self::V0_13,
        Self::V0_14,
        Self::V0_15,
    ];

    /// Supported versions whose use is deprecated (platform.md, "Platform API Compatibility").
    pub const DEPRECATED: [Self; 0] = [];

    /// Whether platforms should stop asking for this version.
    pub fn is_deprecated(self) -> bool {
        Self::DEPRECATED.contains(&self)
    }

    /// SBOM files are collected, exported, cached and restored (0.8; platform.md, "Build", Outputs).
    pub fn sbom_layers(self) -> bool {
        self >= Self::V0_8
    }
    /// `SOURCE_DATE_EPOCH` sets the creation time (0.9; platform.md, "Export", Outputs).
    pub fn source_date_epoch(self) -> bool {
        self >= Self::V0_9
    }
    /// The legacy bom is no longer in metadata.toml, label and report, but in `sbom.legacy.json` (0.9; platform.md,
    /// "metadata.toml").
    pub fn bom_out_of_metadata(self) -> bool {
        self >= Self::V0_9
    }
    /// analyzer knows `-skip-layers` and `-launch-cache` (0.9; platform.md, "Analyze", Inputs).
    pub fn analyzer_skips_layers(self) -> bool {
        self >= Self::V0_9
    }
    /// Image extensions (0.10; platform.md, "Generate" and "Extend").
    pub fn image_extensions(self) -> bool {
        self >= Self::V0_10
    }
    /// A process's `command` is an array in metadata.toml and the build label (0.10; platform.md, "metadata.toml").
    pub fn command_array(self) -> bool {
        self >= Self::V0_10
    }
    /// Arguments of the user may replace a process's, for Buildpack API 0.9 and newer (0.10; platform.md, "Launch").
    pub fn user_args_may_replace(self) -> bool {
        self >= Self::V0_10
    }
    /// With skip-restore store.toml is restored all the same (0.10; platform.md, "Create", Inputs).
    pub fn skip_restore_keeps_store(self) -> bool {
        self >= Self::V0_10
    }
    /// The operator's build-config directory has a flag (0.11; platform.md, "Operator-provided variables").
    pub fn build_config(self) -> bool {
        self >= Self::V0_11
    }
    /// SBOMs of lifecycle and launcher are exported (0.11; platform.md, "Export", Inputs).
    pub fn lifecycle_sboms(self) -> bool {
        self >= Self::V0_11
    }
    /// rebaser knows `-previous-image` (0.11; platform.md, "Rebase", Inputs).
    pub fn rebase_from_previous(self) -> bool {
        self >= Self::V0_11
    }
    /// run.toml replaces stack.toml (0.12; platform.md, "run.toml").
    pub fn run_toml(self) -> bool {
        self >= Self::V0_12
    }
    /// stack.toml tells the run image (before 0.12; platform.md, "stack.toml").
    pub fn stack_toml(self) -> bool {
        !self.run_toml()
    }
    /// analyzed.toml holds the run image's name and target; targets replace stacks (0.12; platform.md, "analyzed.toml").
    pub fn target_data(self) -> bool {
        self >= Self::V0_12
    }
    /// `-layout`, `-layout-dir` (0.12; platform.md, "Map an image reference to a path in the layout directory").
    pub fn layout(self) -> bool {
        self >= Self::V0_12
    }
    /// restorer may be told that images are a daemon's (0.12; platform.md, "Restore", Inputs).
    pub fn restorer_daemon(self) -> bool {
        self >= Self::V0_12
    }
    /// The run image can be extended (0.12; platform.md, "Extend").
    pub fn run_image_extension(self) -> bool {
        self >= Self::V0_12
    }
    /// The exported image keeps its base's history and has its own (0.12; platform.md, "Export", Outputs).
    pub fn history(self) -> bool {
        self >= Self::V0_12
    }
    /// The lifecycle label's `runImage` holds `image` and `mirrors` (0.12; platform.md,
    /// "io.buildpacks.lifecycle.metadata").
    pub fn run_image_in_label(self) -> bool {
        self >= Self::V0_12
    }
    /// rebaser knows `-force` (0.12; platform.md, "Rebase", Inputs).
    pub fn rebase_force(self) -> bool {
        self >= Self::V0_12
    }
    /// `<generated>/<extension>/…`, with context directories (0.13; platform.md, "Generate", Outputs).
    pub fn generated_contexts(self) -> bool {
        self >= Self::V0_13
    }
    /// `-insecure-registry` (0.13; platform.md, "Analyze", Inputs).
    pub fn insecure_registries(self) -> bool {
        self >= Self::V0_13
    }
    /// Extensions are no longer experimental (0.13; platform.md, "Experimental features").
    pub fn extensions_stable(self) -> bool {
        self >= Self::V0_13
    }
    /// The replaced cache image is not deleted (0.13; platform.md, "Export", Outputs).
    pub fn cache_image_kept(self) -> bool {
        self >= Self::V0_13
    }
    /// restorer finds the run image in run.toml (0.14; platform.md, "Restore", Inputs).
    pub fn restorer_resolves_run_image(self) -> bool {
        self >= Self::V0_14
    }
    /// Metadata of launch+cache layers comes from the cache where the app image lacks it (0.14; platform.md, "Layer
    /// Metadata Restoration").
    pub fn restore_uncached_launch_metadata(self) -> bool {
        self >= Self::V0_14
    }
    /// system.toml (0.15; platform.md, "system.toml").
    pub fn system_buildpacks(self) -> bool {
        self >= Self::V0_15
    }
    /// Whether an image that was built with the Platform API `text` (its `CNB_PLATFORM_API`) is rebased by its target,
    /// not by its stack. Also of versions that this lifecycle does not support (0.12; platform.md, "Rebase").
    pub fn image_has_target(text: &str) -> bool {
        text.parse::<ApiVersion>().is_ok_and(|api| api >= ApiVersion { major: 0, minor: 12 })
    }
    /// Execution environments filter detection and processes, and are a label (0.15; platform.md, "Detect", Inputs).
    pub fn exec_env(self) -> bool {
        self >= Self::V0_15
    }

    fn text(self) -> &'static str {
        match self {
            Self::V0_7 => "0.7",
            Self::V0_8 => "0.8",
            Self::V0_9 => "0.9",
            Self::V0_10 => "0.10",
            Self::V0_11 => "0.11",
            Self::V0_12 => "0.12",
            Self::V0_13 => "0.13",
            Self::V0_14 => "0.14",
            Self::V0_15 => "0.15",
        }
    }
}

impl FromStr for PlatformApi {
    type Err = ApiError;
    /// Below 1.0 every version stands for itself alone, so only equal numbers are the same version.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let asked: ApiVersion = text.parse()?;
        Self::ALL
            .into_iter()
            .find(|api| api.text().parse() == Ok(asked))
            .ok_or_else(|| ApiError::Unsupported(text.to_owned()))
    }
}

impl fmt::Display for PlatformApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(PlatformApi::V0_10 > PlatformApi::V0_9);
        for api in PlatformApi::ALL {
            assert_eq!(api.to_string().parse(), Ok(api));
            assert_eq!(format!("v{api}").parse(), Ok(api));
            assert!(!api.is_deprecated());
        }
    }

    #[test]
    fn only_listed_versions_are_supported() {
        for text in ["0.6", "0.16", "1.0", "0", "0.120"] {
            assert_eq!(text.parse::<PlatformApi>(), Err(ApiError::Unsupported(text.into())), "{text}");
        }
        for text in ["", "x", "0.9.1", "-1", "0.9 "] {
            assert!(matches!(text.parse::<PlatformApi>(), Err(ApiError::Malformed(_))), "{text:?}");
        }
    }
}

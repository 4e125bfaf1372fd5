//! The Platform Interface, as types and rules: the inputs of every executable, the files between the phases, the
//! labels of images, exit codes, and every difference between Platform APIs. No network, no logging, no exit.
//!
//! Spec: <https://github.com/buildpacks/spec/blob/main/platform.md>

#![warn(missing_docs)]

mod analyzed;
mod analyzed_keys;
mod build_label;
mod build_metadata;
mod build_metadata_keys;
mod data;
mod executable;
mod exit;
pub mod file;
mod flag_table;
mod flags;
mod group;
pub mod inputs;
mod labels;
mod metadata_text;
mod modes;
mod modules;
pub mod names;
mod order;
mod plan;
mod print;
mod project_metadata;
mod reference;
mod report;
mod run;
mod system;
mod values;
mod version;

pub use analyzed::{Analyzed, BuildImage, RunImage, TargetData};
pub use build_label::{BuildLabel, LauncherInfo};
pub use build_metadata::BuildMetadata;
pub use data::Data;
pub use executable::Executable;
pub use exit::{ExitCode, Failure};
pub use flag_table::{FlagInfo, FlagKind, describe};
pub use flags::{Flags, Parsed, usage};
pub use group::{Group, GroupEntry};
pub use labels::{
    BuildpackLayers, CacheMetadata, LayerData, LayerSha, LayersMetadata, RunImageForLabel, RunImageLabel, StackLabel,
};
pub use modes::{DeprecationMode, ExperimentalFeature, ExperimentalMode, Notice};
pub use modules::ModuleDirs;
pub use order::OrderFile;
pub use plan::{Plan, PlanEntry, Provider};
pub use project_metadata::ProjectMetadata;
pub use reference::{FileUse, LAUNCHER, Reference, VariableInfo, help, reference};
pub use report::{BuildReport, ImageReport, Report};
pub use run::{RunImageMirrors, RunImages};
pub use system::System;
pub use version::PlatformApi;

//! The Buildpack Interface, as types and rules: every file a buildpack or extension reads or writes, every
//! difference between Buildpack APIs, the build environment, and how `bin/detect`, `bin/generate` and `bin/build`
//! are called. Nothing here knows platforms, images or the network.
//!
//! Spec: <https://github.com/buildpacks/spec/blob/main/buildpack.md>

mod build;
mod descriptor;
mod dir;
mod env;
mod env_dir;
mod exec_d;
mod exec_env;
mod executable;
mod extend_config;
mod first_process;
mod id;
mod launch;
mod layer;
mod order;
mod output;
mod parse;
mod pass_on;
mod piped;
mod plain;
mod plan;
mod sbom;
mod store;
mod target;
mod temp_plan;
mod version;

pub use build::BuildToml;
pub use descriptor::{Buildpack, BuildpackKind, Extension, Kind};
pub use dir::{Dir, EntryKind};
pub use env::{Env, EnvDirDefault};
pub use exec_d::parse_exec_d_output;
pub use exec_env::exec_env_applies;
pub use executable::{Context, DetectOutcome, DetectResult, Module, RunError, build, detect, generate};
pub use extend_config::{ExtendArg, ExtendArgs, ExtendConfig};
pub use first_process::end_when_told;
pub use id::{BuildpackId, ProcessType, is_file_name, is_layer_name};
pub use launch::{BOM_IS_DEPRECATED, BomEntry, Label, Launch, Process, Slice};
pub use layer::{LayerToml, LayerTypes};
pub use order::{Order, OrderElement, OrderGroup};
pub use parse::{MAX_FILE_SIZE, ParseError, io_text, parse_toml, read_bounded, read_toml_bounded};
pub use plain::without_colours;
pub use plan::{BuildPlan, BuildpackPlan, Require, Sections};
pub use sbom::{SbomFormat, SbomName};
pub use store::Store;
pub use target::{Distro, Target};
pub use version::{ApiError, ApiVersion, BuildpackApi};

//! Which Dockerfiles are to be applied, with which arguments and to which context.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use buildpack_api::{ExtendConfig, read_bounded};
use dockerfile::Dockerfile;
use platform_api::{
    Group,
    inputs::{ExtendKind, ExtenderInputs},
};

use super::kind_name;
use crate::layers_dir::read_own_toml;

/// A Dockerfile of an extension.
#[derive(Debug)]
pub(super) struct ToApply {
    /// The extension's ID.
    pub(super) extension: String,
    pub(super) path: PathBuf,
    pub(super) parsed: Dockerfile,
    /// Those of extend-config.toml.
    pub(super) args: Vec<(String, String)>,
    pub(super) context: PathBuf,
}

/// Those of the group's extensions, in its order. All are read before the first is applied.
pub(super) fn find(i: &ExtenderInputs, group: &Group) -> anyhow::Result<Vec<ToApply>> {
    let kind = kind_name(i.kind);
    let mut found = Vec::new();
    for entry in &group.extensions {
        let escaped = entry.id.escaped();
        let (path, dir) = if i.api.generated_contexts() {
            let dir = i.generated.join(escaped);
            (dir.join(format!("{kind}.Dockerfile")), dir)
        } else {
            let dir = i.generated.join(kind).join(escaped);
            (dir.join("Dockerfile"), dir)
        };
        let Some(bytes) = read_bounded(&path)? else { continue };
        let parsed =
            dockerfile::parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("parse {}", path.display()))?;
        let args = args(&dir.join("extend-config.toml"), i.kind)?;
        let context = context(i, &dir, kind);
        found.push(ToApply { extension: entry.id.to_string(), path, parsed, args, context });
    }
    Ok(found)
}

fn args(path: &Path, kind: ExtendKind) -> anyhow::Result<Vec<(String, String)>> {
    let config = read_own_toml(path, ExtendConfig::parse)?.unwrap_or_default();
    let args = if kind == ExtendKind::Build { config.build } else { config.run };
    Ok(args.args.into_iter().map(|arg| (arg.name, arg.value)).collect())
}

/// The kind's own, the shared one, or the app.
fn context(i: &ExtenderInputs, dir: &Path, kind: &str) -> PathBuf {
    let own = [format!("context.{kind}"), "context".to_owned()].map(|name| dir.join(name));
    let own = own.into_iter().find(|dir| i.api.generated_contexts() && dir.is_dir());
    own.unwrap_or_else(|| i.builder.app.clone())
}

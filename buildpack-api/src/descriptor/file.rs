//! buildpack.toml and extension.toml as they are written, and the targets that they stand for.

use std::path::{Path, PathBuf};

use super::Kind;
use crate::{ApiError, BuildpackApi, BuildpackId, Distro, Order, ParseError, Target, parse_toml};

/// The keys that say who the module is. Of a module whose API we do not know, they are all that is read: the rest may
/// have a shape of its own.
#[derive(serde::Deserialize)]
struct HeadFile {
    #[serde(default)]
    api: String,
    buildpack: Option<Head>,
    extension: Option<Head>,
}

#[derive(serde::Deserialize)]
pub(super) struct Head {
    pub(super) id: BuildpackId,
    #[serde(default)]
    pub(super) version: String,
}

#[derive(serde::Deserialize)]
struct BodyFile {
    #[serde(default)]
    buildpack: Body,
    #[serde(default)]
    extension: Body,
    #[serde(default)]
    order: Order,
    #[serde(default)]
    targets: Vec<TargetEntry>,
    #[serde(default)]
    stacks: Vec<StackEntry>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Body {
    pub(super) homepage: Option<String>,
    #[serde(default)]
    pub(super) clear_env: bool,
    #[serde(default, deserialize_with = "crate::exec_env::deserialize")]
    pub(super) exec_env: Vec<String>,
    #[serde(default)]
    pub(super) sbom_formats: Vec<String>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TargetEntry {
    #[serde(default)]
    os: String,
    #[serde(default)]
    arch: String,
    /// The spec's key.
    #[serde(default)]
    variant: String,
    /// The key in use.
    #[serde(default)]
    arch_variant: String,
    #[serde(default)]
    distros: Vec<Distro>,
}

/// Deprecated: of stacks only those count that say something of the target.
#[derive(serde::Deserialize)]
struct StackEntry {
    #[serde(default)]
    id: String,
}

/// What the two kinds of descriptors have in common.
pub(super) struct Module {
    pub(super) root: PathBuf,
    pub(super) api_text: String,
    pub(super) api: Result<BuildpackApi, ApiError>,
    pub(super) head: Head,
    pub(super) body: Body,
    pub(super) order: Order,
    targets: Vec<TargetEntry>,
    stacks: Vec<StackEntry>,
}

impl Module {
    pub(super) fn parse(kind: Kind, root: &Path, text: &str) -> Result<Self, ParseError> {
        let file: HeadFile = parse_toml(text)?;
        let (head, table) = match kind {
            Kind::Buildpack => (file.buildpack, "buildpack"),
            Kind::Extension => (file.extension, "extension"),
        };
        let head = head.ok_or_else(|| ParseError(format!("table [{table}] is missing")))?;
        let api: Result<BuildpackApi, ApiError> = file.api.parse();
        let file_body: BodyFile = parse_toml(if api.is_ok() { text } else { "" })?;
        let mut body = match kind {
            Kind::Buildpack => file_body.buildpack,
            Kind::Extension => file_body.extension,
        };
        if !api.as_ref().is_ok_and(|api| api.exec_env()) {
            body.exec_env.clear();
        }
        body.homepage = body.homepage.filter(|text| !text.is_empty());
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let BodyFile { order, targets, mut stacks, .. } = file_body;
        if kind == Kind::Extension {
            // Only buildpacks have ever had stacks.
            stacks.clear();
        }
        Ok(Self { root, api_text: file.api, api, head, body, order, targets, stacks })
    }

    /// Declared targets, else those that deprecated stacks stand for, else what an executable in `bin` tells.
    pub(super) fn targets(&self, executables: &[&str]) -> Vec<Target> {
        let mut targets: Vec<Target> = self.targets.iter().map(Target::from).collect();
        if targets.is_empty() {
            let has_targets = self.api.as_ref().is_ok_and(|api| api.targets());
            let only_stack = self.stacks.len() == 1;
            targets.extend(self.stacks.iter().filter_map(|stack| match stack.id.as_str() {
                "io.buildpacks.stacks.bionic" if has_targets || only_stack => Some(bionic()),
                "*" => Some(Target::default()),
                _ => None,
            }));
        }
        if targets.is_empty()
            && executables.iter().any(|name| self.root.join("bin").join(name).symlink_metadata().is_ok())
        {
            targets.push(Target { os: "linux".to_owned(), ..Target::default() });
        }
        targets
    }
}

fn bionic() -> Target {
    Target {
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        variant: String::new(),
        distros: vec![Distro { name: "ubuntu".to_owned(), version: "18.04".to_owned() }],
    }
}

impl From<&TargetEntry> for Target {
    fn from(entry: &TargetEntry) -> Self {
        let variant = if entry.variant.is_empty() { &entry.arch_variant } else { &entry.variant };
        Self {
            os: entry.os.clone(),
            arch: entry.arch.clone(),
            variant: variant.clone(),
            distros: entry.distros.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Buildpack, BuildpackKind, Extension,
            tests::{HEAD, target},
        },
        *,
    };

    fn targets_of(buildpack: Buildpack) -> Vec<Target> {
        match buildpack.kind {
            BuildpackKind::Component { targets, .. } => targets,
            BuildpackKind::Composite { .. } => panic!("not a component"),
        }
    }

    #[test]
    fn targets_are_inferred() {
        let bare = tempfile::tempdir().unwrap();
        let with = |name: &str| {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("bin")).unwrap();
            std::fs::write(root.path().join("bin").join(name), "").unwrap();
            root
        };
        let build = with("build");
        let bionic = "[[stacks]]\nid = 'io.buildpacks.stacks.bionic'\n";
        let other = "[[stacks]]\nid = 'other'\n";
        let ubuntu = "linux/amd64//ubuntu@18.04";
        for (api, rest, root, expected) in [
            ("0.10", String::new(), &bare, &[][..]),
            ("0.10", String::new(), &build, &["linux"]),
            ("0.10", bionic.to_owned(), &build, &[ubuntu]),
            ("0.10", format!("{bionic}{other}"), &build, &[ubuntu]),
            ("0.9", bionic.to_owned(), &build, &[ubuntu]),
            ("0.9", format!("{bionic}{other}"), &build, &["linux"]),
            ("0.9", "[[stacks]]\nid = '*'\n".to_owned(), &build, &[""]),
            ("0.9", other.to_owned(), &build, &["linux"]),
            ("0.9", format!("{bionic}[[targets]]\nos = 'windows'"), &build, &["windows"]),
        ] {
            let buildpack = Buildpack::parse(root.path(), &format!("api = '{api}'\n{HEAD}{rest}")).unwrap();
            let expected: Vec<_> = expected.iter().map(|text| target(text)).collect();
            assert_eq!(targets_of(buildpack), expected, "{api} {rest}");
        }

        let head = "api = '0.9'\n[extension]\nid = 'e'\nversion = '1'\n";
        for (root, expected) in
            [(&bare, &[][..]), (&build, &[]), (&with("detect"), &["linux"]), (&with("generate"), &["linux"])]
        {
            let extension = Extension::parse(root.path(), head).unwrap();
            assert_eq!(extension.targets, expected.iter().map(|text| target(text)).collect::<Vec<_>>());
        }
    }
}

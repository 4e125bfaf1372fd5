//! buildpack.toml and extension.toml.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{ApiError, BuildpackApi, BuildpackId, Distro, Order, ParseError, Target, parse_toml};

/// Which of the two kinds of module something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Buildpack,
    Extension,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Buildpack => "Buildpack",
            Self::Extension => "Extension",
        })
    }
}

/// A buildpack, as its buildpack.toml describes it.
#[derive(Clone, Debug)]
pub struct Buildpack {
    /// Where its files are; absolute.
    pub root: PathBuf,
    /// `api` as written, and what it means. An unsupported one is kept, for the caller to report with exit code 12.
    pub api_text: String,
    pub api: Result<BuildpackApi, ApiError>,
    pub id: BuildpackId,
    pub version: String,
    pub homepage: Option<String>,
    /// No user-provided environment variables.
    pub clear_env: bool,
    /// Execution environments it is for (see [`exec_env_applies`](crate::exec_env_applies)); empty before Buildpack
    /// API 0.12.
    pub exec_env: Vec<String>,
    pub kind: BuildpackKind,
}

/// A buildpack either does something itself or is an order of others.
#[derive(Clone, Debug)]
pub enum BuildpackKind {
    Component {
        /// Declared or inferred; empty: any.
        targets: Vec<Target>,
        /// Media types as declared, parameters included.
        sbom_formats: Vec<String>,
    },
    Composite {
        order: Order,
    },
}

/// An image extension, as its extension.toml describes it.
#[derive(Clone, Debug)]
pub struct Extension {
    /// Where its files are; absolute.
    pub root: PathBuf,
    /// As a buildpack's.
    pub api_text: String,
    pub api: Result<BuildpackApi, ApiError>,
    pub id: BuildpackId,
    pub version: String,
    pub homepage: Option<String>,
    /// No user-provided environment variables.
    pub clear_env: bool,
    /// As a buildpack's.
    pub exec_env: Vec<String>,
    /// Declared or inferred; empty: any.
    pub targets: Vec<Target>,
}

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
struct Head {
    id: BuildpackId,
    #[serde(default)]
    version: String,
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
struct Body {
    homepage: Option<String>,
    #[serde(default)]
    clear_env: bool,
    #[serde(default, deserialize_with = "crate::exec_env::deserialize")]
    exec_env: Vec<String>,
    #[serde(default)]
    sbom_formats: Vec<String>,
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
struct Module {
    root: PathBuf,
    api_text: String,
    api: Result<BuildpackApi, ApiError>,
    head: Head,
    body: Body,
    order: Order,
    targets: Vec<TargetEntry>,
    stacks: Vec<StackEntry>,
}

impl Module {
    fn parse(kind: Kind, root: &Path, text: &str) -> Result<Self, ParseError> {
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
        let BodyFile { order, targets, stacks, .. } = file_body;
        Ok(Self { root, api_text: file.api, api, head, body, order, targets, stacks })
    }

    /// Declared targets, else those that deprecated stacks stand for, else what an executable in `bin` tells.
    fn targets(&self, executables: &[&str]) -> Vec<Target> {
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

impl Buildpack {
    /// Parses buildpack.toml: `api` first, so that a wrong API is told as such and not as a TOML error.
    /// `root` is looked at for `bin/build` (target inference).
    /// # Errors
    /// Malformed TOML, a value of the wrong kind, an ID that is missing or not allowed.
    pub fn parse(root: &Path, text: &str) -> Result<Self, ParseError> {
        let module = Module::parse(Kind::Buildpack, root, text)?;
        let targets = module.targets(&["build"]);
        let Module { root, api_text, api, head, body, order, .. } = module;
        let Body { homepage, clear_env, exec_env, sbom_formats } = body;
        let kind = if order.0.is_empty() {
            BuildpackKind::Component { targets, sbom_formats }
        } else {
            BuildpackKind::Composite { order }
        };
        Ok(Self { root, api_text, api, id: head.id, version: head.version, homepage, clear_env, exec_env, kind })
    }

    /// `<id>@<version>`
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}

impl Extension {
    /// Parses extension.toml. `root` is looked at for `bin/detect` and `bin/generate` (target inference).
    /// # Errors
    /// As [`Buildpack::parse`].
    pub fn parse(root: &Path, text: &str) -> Result<Self, ParseError> {
        let mut module = Module::parse(Kind::Extension, root, text)?;
        module.stacks.clear();
        let targets = module.targets(&["detect", "generate"]);
        let Module { root, api_text, api, head, body, .. } = module;
        let Body { homepage, clear_env, exec_env, .. } = body;
        Ok(Self { root, api_text, api, id: head.id, version: head.version, homepage, clear_env, exec_env, targets })
    }

    /// `<id>@<version>`
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let mut target = Target { os: next(), arch: next(), variant: next(), distros: vec![] };
        target.distros.extend(parts.map(|text| {
            let (name, version) = text.split_once('@').unwrap();
            Distro { name: name.to_owned(), version: version.to_owned() }
        }));
        target
    }

    fn targets_of(buildpack: Buildpack) -> Vec<Target> {
        match buildpack.kind {
            BuildpackKind::Component { targets, .. } => targets,
            BuildpackKind::Composite { .. } => panic!("not a component"),
        }
    }

    const HEAD: &str = "[buildpack]\nid = 'a/b'\nversion = '1'\n";

    #[test]
    fn a_component_with_all_its_keys() {
        let text = r#"
            api = "0.12"
            unknown = 1
            [buildpack]
            id = "a/b"
            name = "B"
            version = "1.2.3"
            homepage = "https://example.com"
            clear-env = true
            description = "d"
            keywords = ["k"]
            sbom-formats = ["application/spdx+json;version=1"]
            [[buildpack.licenses]]
            type = "MIT"
            [[buildpack.exec-env]]
            name = "test"
            [[buildpack.exec-env]]
            name = "production"
            [[targets]]
            os = "linux"
            arch = "arm"
            variant = "v7"
            [[targets.distros]]
            name = "ubuntu"
            version = "22.04"
            [[targets]]
            arch-variant = "v8"
            [metadata]
            x = 1
        "#;
        let buildpack = Buildpack::parse(Path::new("/bp"), text).unwrap();
        assert_eq!(buildpack.root, Path::new("/bp"));
        assert_eq!((buildpack.api_text.as_str(), &buildpack.api), ("0.12", &Ok(BuildpackApi::V0_12)));
        assert_eq!(buildpack.full_name(), "a/b@1.2.3");
        assert_eq!(buildpack.homepage.as_deref(), Some("https://example.com"));
        assert!(buildpack.clear_env);
        assert_eq!(buildpack.exec_env, ["test", "production"]);
        let BuildpackKind::Component { targets, sbom_formats } = buildpack.kind else { panic!("not a component") };
        assert_eq!(sbom_formats, ["application/spdx+json;version=1"]);
        assert_eq!(targets, [target("linux/arm/v7/ubuntu@22.04"), target("//v8")]);
    }

    #[test]
    fn a_composite_is_an_order() {
        let text = format!("api = '0.9'\n{HEAD}[[order]]\n[[order.group]]\nid = 'c'\nversion = '2'");
        let buildpack = Buildpack::parse(Path::new("/bp"), &text).unwrap();
        let BuildpackKind::Composite { order } = buildpack.kind else { panic!("not a composite") };
        assert_eq!(order.0[0].group[0].id.as_str(), "c");
        assert!(!buildpack.clear_env);
        assert_eq!(buildpack.homepage, None);
    }

    #[test]
    fn exec_env_counts_from_api_0_12_in_both_forms() {
        for (api, exec_env, expected) in [
            ("0.12", "exec-env = ['test', '*']", &["test", "*"][..]),
            ("0.12", "[[buildpack.exec-env]]\nname = 'test'", &["test"]),
            ("0.12", "exec-env = []", &[]),
            ("0.12", "", &[]),
            ("0.11", "exec-env = ['test']", &[]),
        ] {
            let text = format!("api = '{api}'\n{HEAD}{exec_env}");
            assert_eq!(Buildpack::parse(Path::new("/bp"), &text).unwrap().exec_env, expected, "{text}");
        }
        for exec_env in ["exec-env = 'test'", "exec-env = [1]", "[[buildpack.exec-env]]\nid = 'x'"] {
            assert!(Buildpack::parse(Path::new("/bp"), &format!("api = '0.12'\n{HEAD}{exec_env}")).is_err());
        }
    }

    #[test]
    fn a_wrong_api_is_kept_and_the_rest_is_not_judged() {
        for (api, expected) in [
            ("api = '0.99'", ApiError::Unsupported("0.99".to_owned())),
            ("api = 'x'", ApiError::Malformed("x".to_owned())),
            ("", ApiError::Malformed(String::new())),
        ] {
            let text = format!("{api}\n{HEAD}exec-env = 7\n[targets]\nnew = 'shape'");
            let buildpack = Buildpack::parse(Path::new("/bp"), &text).unwrap();
            assert_eq!(buildpack.api, Err(expected));
            assert_eq!(buildpack.full_name(), "a/b@1");
        }
    }

    #[test]
    fn errors() {
        for (text, error) in [
            ("api = '0.9'", "table [buildpack] is missing"),
            ("api = '0.9'\n[extension]\nid = 'x'", "table [buildpack] is missing"),
            ("api = '0.9'\n[buildpack]\nversion = '1'", "toml: line 2: missing field `id`"),
            ("api = '0.9'\n[buildpack]\nid = '..'", "toml: line 3: buildpack ID '..' is not allowed"),
        ] {
            assert_eq!(Buildpack::parse(Path::new("/bp"), text).unwrap_err().to_string(), error);
        }
        assert!(Buildpack::parse(Path::new("/bp"), &format!("api = '0.9'\n{HEAD}clear-env = 'x'")).is_err());
        assert!(Buildpack::parse(Path::new("/bp"), &format!("api = 9\n{HEAD}")).is_err());
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

    #[test]
    fn an_extension_with_its_keys() {
        let text = "api = '0.12'\n[extension]\nid = 'e'\nversion = '1'\nclear-env = true\nhomepage = 'h'\n\
                    exec-env = ['test']\n[[targets]]\nos = 'linux'";
        let extension = Extension::parse(Path::new("/ext"), text).unwrap();
        assert_eq!(extension.full_name(), "e@1");
        assert!(extension.clear_env);
        assert_eq!(extension.homepage.as_deref(), Some("h"));
        assert_eq!(extension.exec_env, ["test"]);
        assert_eq!(extension.targets, [target("linux")]);
    }
}

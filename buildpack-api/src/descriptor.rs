//! buildpack.toml and extension.toml (buildpack.md, "buildpack.toml"; `image_extension.md`).

mod file;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use self::file::{Body, Module};
use crate::{ApiError, BuildpackApi, BuildpackId, Order, ParseError, Target};

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
        let module = Module::parse(Kind::Extension, root, text)?;
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
    use crate::Distro;

    pub(super) fn target(text: &str) -> Target {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let mut target = Target { os: next(), arch: next(), variant: next(), distros: vec![] };
        target.distros.extend(parts.map(|text| {
            let (name, version) = text.split_once('@').unwrap();
            Distro { name: name.to_owned(), version: version.to_owned() }
        }));
        target
    }

    pub(super) const HEAD: &str = "[buildpack]\nid = 'a/b'\nversion = '1'\n";

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

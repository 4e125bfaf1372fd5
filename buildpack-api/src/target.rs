//! Targets: what a module can build for, and what a run image is.

use crate::Env;

/// An operating system distribution; an empty part in a module's target matches anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Distro {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub version: String,
}

/// An operating system, an architecture and, where known, its variant and distributions. Empty parts match anything.
/// As JSON (in messages) it has the keys the platforms know.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Target {
    pub os: String,
    pub arch: String,
    #[serde(rename = "arch-variant", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// A module may name many; a run image has one at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distros: Vec<Distro>,
}

impl Distro {
    /// The distribution that the text of `/etc/os-release` names (`ID`, `VERSION_ID`), if it does.
    /// Format: os-release(5): shell assignments, values bare or in single or double quotes.
    pub fn from_os_release(text: &str) -> Option<Self> {
        let mut distro = Self::default();
        for line in text.lines() {
            match line.trim().split_once('=') {
                Some(("ID", value)) => distro.name = unquoted(value),
                Some(("VERSION_ID", value)) => distro.version = unquoted(value),
                _ => {}
            }
        }
        (distro != Self::default()).then_some(distro)
    }
}

/// A value as a shell would read it.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let mut text = String::new();
    let mut chars = inner.unwrap_or(value).chars();
    let escapes = !value.starts_with('\'');
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' && escapes { chars.next() } else { Some(c) });
    }
    text
}

impl Target {
    /// Whether a module for `self` can run on (build for) the run image `base`.
    pub fn matches(&self, base: &Target) -> bool {
        let same = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
        let same_distro = |distro: &Distro| {
            base.distros
                .first()
                .is_some_and(|base| same(&distro.name, &base.name) && same(&distro.version, &base.version))
        };
        same(&self.os, &base.os)
            && same(&self.arch, &base.arch)
            && same(&self.variant, &base.variant)
            && (self.distros.is_empty() || self.distros.iter().any(same_distro))
    }

    /// Sets the `CNB_TARGET_*` variables; those of a variant and a distribution only where these are known.
    pub fn set_env(&self, env: &mut Env) {
        env.set("CNB_TARGET_OS", &self.os);
        env.set("CNB_TARGET_ARCH", &self.arch);
        let distro = self.distros.first().cloned().unwrap_or_default();
        for (name, value) in [
            ("CNB_TARGET_ARCH_VARIANT", &self.variant),
            ("CNB_TARGET_DISTRO_NAME", &distro.name),
            ("CNB_TARGET_DISTRO_VERSION", &distro.version),
        ] {
            if !value.is_empty() {
                env.set(name, value);
            }
        }
    }

    /// A run image's target with what is unknown of it taken from the machine we run on: its distribution from the
    /// text of `/etc/os-release` (where given), its OS and architecture from ours.
    #[must_use]
    pub fn or_host(mut self, os_release: Option<&str>) -> Self {
        if self.os.is_empty() {
            "linux".clone_into(&mut self.os);
        }
        if self.arch.is_empty() {
            host_arch().clone_into(&mut self.arch);
        }
        if self.distros.is_empty() {
            self.distros.extend(os_release.and_then(Distro::from_os_release));
        }
        self
    }
}

/// The architecture of this machine, in the OCI image specification's word.
pub(crate) fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(os: &str, arch: &str, variant: &str, distros: &[(&str, &str)]) -> Target {
        let distro =
            |(name, version): &(&str, &str)| Distro { name: (*name).to_owned(), version: (*version).to_owned() };
        Target {
            os: os.to_owned(),
            arch: arch.to_owned(),
            variant: variant.to_owned(),
            distros: distros.iter().map(distro).collect(),
        }
    }

    #[test]
    fn matching() {
        let ubuntu = target("linux", "amd64", "", &[("ubuntu", "22.04")]);
        let arm = target("linux", "arm", "v7", &[]);
        for (module, base, expected) in [
            (target("", "", "", &[]), &ubuntu, true),
            (target("linux", "", "", &[]), &ubuntu, true),
            (target("windows", "", "", &[]), &ubuntu, false),
            (target("linux", "arm64", "", &[]), &ubuntu, false),
            (target("linux", "amd64", "v3", &[]), &ubuntu, true),
            (target("linux", "arm", "v6", &[]), &arm, false),
            (target("linux", "arm", "v7", &[]), &arm, true),
            (target("linux", "arm", "", &[]), &arm, true),
            (target("linux", "amd64", "", &[("ubuntu", "22.04")]), &ubuntu, true),
            (target("linux", "amd64", "", &[("debian", "12"), ("ubuntu", "22.04")]), &ubuntu, true),
            (target("linux", "amd64", "", &[("ubuntu", "")]), &ubuntu, true),
            (target("linux", "amd64", "", &[("", "22.04")]), &ubuntu, true),
            (target("linux", "amd64", "", &[("ubuntu", "18.04"), ("debian", "22.04")]), &ubuntu, false),
            (target("linux", "arm", "", &[("ubuntu", "22.04")]), &arm, false),
            (target("linux", "", "", &[("ubuntu", "22.04")]), &Target::default(), false),
            (target("linux", "arm64", "v8", &[]), &Target::default(), true),
        ] {
            assert_eq!(module.matches(base), expected, "{module:?} on {base:?}");
        }
    }

    #[test]
    fn variables() {
        let variables = |target: Target| {
            let mut env = Env::default();
            target.set_env(&mut env);
            env.iter().map(|(n, v)| format!("{}={}", n.to_string_lossy(), v.to_string_lossy())).collect::<Vec<_>>()
        };
        assert_eq!(variables(target("linux", "amd64", "", &[])), ["CNB_TARGET_ARCH=amd64", "CNB_TARGET_OS=linux"]);
        assert_eq!(
            variables(target("linux", "arm", "v7", &[("ubuntu", "22.04")])),
            [
                "CNB_TARGET_ARCH=arm",
                "CNB_TARGET_ARCH_VARIANT=v7",
                "CNB_TARGET_DISTRO_NAME=ubuntu",
                "CNB_TARGET_DISTRO_VERSION=22.04",
                "CNB_TARGET_OS=linux",
            ]
        );
    }

    #[test]
    fn os_release() {
        for (text, expected) in [
            ("NAME=\"Ubuntu\"\nID=ubuntu\nVERSION_ID=\"22.04\"\n", Some(("ubuntu", "22.04"))),
            ("ID='debian'\r\nVERSION_ID='12'", Some(("debian", "12"))),
            ("ID=alpine\nVERSION_ID=3.19.0\nBUG=\"https://x?a=b\"", Some(("alpine", "3.19.0"))),
            ("ID=\"a=b\"", Some(("a=b", ""))),
            ("ID=\"a\\\"b\"", Some(("a\"b", ""))),
            ("ID\nVERSION_ID=1\n# ID=x", Some(("", "1"))),
            ("ID_LIKE=debian\nNAME=x", None),
            ("", None),
        ] {
            let expected =
                expected.map(|(name, version)| Distro { name: name.to_owned(), version: version.to_owned() });
            assert_eq!(Distro::from_os_release(text), expected, "{text:?}");
        }
    }

    #[test]
    fn unknown_parts_come_from_the_host() {
        let host = Target::default().or_host(Some("ID=x"));
        assert_eq!((host.os.as_str(), host.arch.as_str()), ("linux", host_arch()));
        assert_eq!(host.distros, [Distro { name: "x".to_owned(), version: String::new() }]);
        let known = target("windows", "mips", "", &[("y", "")]);
        assert_eq!(known.clone().or_host(Some("ID=x")), known);
    }
}

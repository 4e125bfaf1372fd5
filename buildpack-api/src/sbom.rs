//! The SBOM formats and the names of their files.

/// A format of a Software Bill of Materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SbomFormat {
    CycloneDx,
    Spdx,
    Syft,
}

impl SbomFormat {
    /// All formats of the spec.
    pub const ALL: [Self; 3] = [Self::CycloneDx, Self::Spdx, Self::Syft];

    /// `cdx.json`, `spdx.json`, `syft.json`
    pub fn extension(self) -> &'static str {
        match self {
            Self::CycloneDx => "cdx.json",
            Self::Spdx => "spdx.json",
            Self::Syft => "syft.json",
        }
    }

    /// Without parameters.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::CycloneDx => "application/vnd.cyclonedx+json",
            Self::Spdx => "application/spdx+json",
            Self::Syft => "application/vnd.syft+json",
        }
    }

    /// Whether a buildpack's `sbom-formats` name this format. Parameters (`;version=1.4`) do not count.
    pub fn is_declared(self, declared: &[String]) -> bool {
        declared.iter().any(|media_type| {
            let essence = media_type.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case(self.media_type())
        })
    }
}

/// What the name of an SBOM file (`<of>.sbom.<format>.json`) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SbomName<'a> {
    /// `launch`, `build`, or the name of a layer (which may hold dots).
    pub of: &'a str,
    /// `None`: a format we do not know, which is an error of the buildpack.
    pub format: Option<SbomFormat>,
}

impl<'a> SbomName<'a> {
    /// `None` where the file is no SBOM.
    pub fn parse(file_name: &'a str) -> Option<Self> {
        let (of, format) = file_name.strip_suffix(".json")?.rsplit_once(".sbom.")?;
        let format = SbomFormat::ALL.into_iter().find(|known| known.extension().strip_suffix(".json") == Some(format));
        Some(Self { of, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (name, expected) in [
            ("launch.sbom.cdx.json", Some(("launch", Some(SbomFormat::CycloneDx)))),
            ("build.sbom.spdx.json", Some(("build", Some(SbomFormat::Spdx)))),
            ("jdk.sbom.syft.json", Some(("jdk", Some(SbomFormat::Syft)))),
            ("jdk-1.8.sbom.syft.json", Some(("jdk-1.8", Some(SbomFormat::Syft)))),
            ("jdk.sbom.other.json", Some(("jdk", None))),
            ("jdk.sbom.x.y.json", Some(("jdk", None))),
            ("jdk.sbom.json", None),
            ("sbom.cdx.json", None),
            ("jdk.sbom.cdx.xml", None),
            ("jdk.toml", None),
        ] {
            assert_eq!(SbomName::parse(name), expected.map(|(of, format)| SbomName { of, format }), "{name}");
        }
    }

    #[test]
    fn declared_media_types() {
        let declared =
            ["application/vnd.cyclonedx+json;version=1.4", " Application/SPDX+json ; a=b"].map(str::to_owned);
        assert!(SbomFormat::CycloneDx.is_declared(&declared));
        assert!(SbomFormat::Spdx.is_declared(&declared));
        assert!(!SbomFormat::Syft.is_declared(&declared));
        assert!(!SbomFormat::CycloneDx.is_declared(&[]));
    }
}

//! report.toml. Spec: platform.md, "report.toml".

use buildpack_api::BomEntry;
use serde::Serialize;

use crate::{
    build_metadata_keys::{BomKeys, bom_keys},
    print::to_toml,
};

/// What export or rebase made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// `[image]`
    pub image: ImageReport,
    /// Platform API before 0.9.
    pub build: Option<BuildReport>,
}

/// The image that was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageReport {
    /// The names saved, as the platform gave them.
    pub tags: Vec<String>,
    /// Daemon only, hex.
    pub image_id: Option<String>,
    /// Registry only, `sha256:…`. No other line of the file may contain the word (platforms grep for it).
    pub digest: Option<String>,
    /// Bytes; never 0.
    pub manifest_size: Option<u64>,
}

/// What buildpacks said of the build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildReport {
    /// With `(id, version)` of the buildpack each entry is from.
    pub bom: Vec<(BomEntry, (String, String))>,
}

#[derive(Serialize)]
struct ReportKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<BuildKeys>,
    image: ImageKeys,
}

#[derive(Serialize)]
struct BuildKeys {
    bom: Vec<BomKeys>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ImageKeys {
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_size: Option<u64>,
}

impl Report {
    /// The file's text. An image's name may contain the word `digest`; it is then spelt with an escape.
    pub fn to_toml(&self) -> String {
        let image = &self.image;
        let text = to_toml(&ReportKeys {
            // An empty table would say that there was something to say.
            build: self
                .build
                .as_ref()
                .filter(|build| !build.bom.is_empty())
                .map(|build| BuildKeys { bom: bom_keys(&build.bom) }),
            image: ImageKeys {
                tags: image.tags.clone(),
                image_id: image.image_id.clone(),
                digest: image.digest.clone(),
                manifest_size: image.manifest_size.filter(|size| *size > 0),
            },
        });
        text.split_inclusive('\n').map(without_the_word).collect()
    }
}

/// The line, if it is one of names, without the word that only the digest's line may have.
fn without_the_word(line: &str) -> String {
    // Image names hold neither quotes nor backslashes, so the encoder writes them between double quotes.
    if line.starts_with("tags = ") && !line.contains('\'') {
        line.replace("digest", "d\\u0069gest")
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_with_digest(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.contains("digest")).collect()
    }

    #[test]
    fn the_digest_has_a_line_of_its_own() {
        let report = Report {
            image: ImageReport {
                tags: vec!["reg/digest-app:1".into(), "reg/x".into()],
                digest: Some("sha256:abc".into()),
                manifest_size: Some(7),
                image_id: None,
            },
            build: None,
        };
        let text = report.to_toml();
        assert_eq!(lines_with_digest(&text), ["digest = \"sha256:abc\""]);
        let file: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(file["image"]["tags"][0].as_str(), Some("reg/digest-app:1"));
        assert_eq!(file["image"]["manifest-size"].as_integer(), Some(7));
        assert!(!file.contains_key("build"));
    }

    #[test]
    fn what_is_unknown_is_not_written() {
        let image = ImageReport { tags: vec!["a".into()], image_id: Some("abc".into()), ..Default::default() };
        for build in [None, Some(BuildReport::default())] {
            let text = Report { image: image.clone(), build }.to_toml();
            assert_eq!(text, "[image]\ntags = [\"a\"]\nimage-id = \"abc\"\n");
        }
    }

    #[test]
    fn the_legacy_bom() {
        let entry = BomEntry { name: "dep".into(), metadata: Some(toml::from_str("v = 1").unwrap()) };
        let build = BuildReport { bom: vec![(entry, ("a/b".into(), "1".into()))] };
        let text = Report { build: Some(build), ..Report::default() }.to_toml();
        let file: toml::Table = toml::from_str(&text).unwrap();
        let expected = "name = 'dep'\n[metadata]\nv = 1\n[buildpack]\nid = 'a/b'\nversion = '1'";
        assert_eq!(file["build"]["bom"][0], toml::from_str(expected).unwrap());
    }
}

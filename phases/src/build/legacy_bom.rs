//! sbom.legacy.json: the bill of materials as it was before there were SBOMs.

use anyhow::Context as _;
use buildpack_api::BomEntry;
use platform_api::Data;
use serde::Serialize;

use crate::labels;

/// The entries of buildpacks, each with ID and version of its own.
pub(super) type Bom = Vec<(BomEntry, (String, String))>;

/// The text of sbom.legacy.json.
pub(super) fn legacy_json(bom: &[(BomEntry, (String, String))]) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Source<'a> {
        id: &'a str,
        version: &'a str,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        name: &'a str,
        metadata: Option<Data>,
        buildpack: Source<'a>,
    }
    if bom.is_empty() {
        return Ok("null\n".to_owned());
    }
    let entries = bom.iter().map(|(entry, (id, version))| Entry {
        name: &entry.name,
        metadata: entry.metadata.clone().map(Data),
        buildpack: Source { id, version },
    });
    Ok(labels::to_json(&entries.collect::<Vec<_>>()).context("encode the bill of materials")? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_bill_of_materials() {
        assert_eq!(legacy_json(&[]).unwrap(), "null\n");
        let metadata = toml::from_str("n = 1\nat = 2020-01-02T03:04:05Z").ok();
        let entry = BomEntry { name: "jdk".to_owned(), metadata };
        let bare = BomEntry { name: "x".to_owned(), metadata: None };
        let from = || ("a".to_owned(), "1".to_owned());
        assert_eq!(
            legacy_json(&[(entry, from()), (bare, from())]).unwrap(),
            "[{\"name\":\"jdk\",\"metadata\":{\"at\":\"2020-01-02T03:04:05Z\",\"n\":1},\
             \"buildpack\":{\"id\":\"a\",\"version\":\"1\"}},\
             {\"name\":\"x\",\"metadata\":null,\"buildpack\":{\"id\":\"a\",\"version\":\"1\"}}]\n"
        );
    }
}

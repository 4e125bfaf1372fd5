//! Where buildpacks and extensions are: `/cnb/buildpacks/<escaped id>/<version>`. Spec: platform.md, "Buildpacks
//! Directory Layout".

use std::path::{Path, PathBuf};

use buildpack_api::{Buildpack, BuildpackId, Extension, ParseError, is_file_name};

use crate::file::{self, FileError};

/// The two directories modules are found in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleDirs {
    /// `-buildpacks`
    pub buildpacks: PathBuf,
    /// `-extensions`
    pub extensions: PathBuf,
}

impl ModuleDirs {
    /// Reads and parses `<buildpacks>/<escaped id>/<version>/buildpack.toml`.
    pub fn buildpack(&self, id: &BuildpackId, version: &str) -> Result<Buildpack, FileError> {
        descriptor(&self.buildpacks, id, version, "buildpack.toml", Buildpack::parse)
    }

    /// Reads and parses `<extensions>/<escaped id>/<version>/extension.toml`.
    pub fn extension(&self, id: &BuildpackId, version: &str) -> Result<Extension, FileError> {
        descriptor(&self.extensions, id, version, "extension.toml", Extension::parse)
    }
}

fn descriptor<T>(
    modules: &Path,
    id: &BuildpackId,
    version: &str,
    name: &str,
    parse: impl FnOnce(&Path, &str) -> Result<T, ParseError>,
) -> Result<T, FileError> {
    if !is_file_name(version) {
        return Err(FileError(format!("'{id}@{version}': the version cannot be a directory's name")));
    }
    let root = modules.join(id.escaped()).join(version);
    file::parse(&root.join(name), |text| parse(&root, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_by_escaped_id_and_version() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("some_bp/1.2");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("buildpack.toml"), "api = '0.9'\n[buildpack]\nid = 'some/bp'\nversion = '1.2'")
            .unwrap();
        std::fs::write(root.join("extension.toml"), "api = '0.9'\n[extension]\nid = 'some/bp'\nversion = '1.2'")
            .unwrap();
        let dirs = ModuleDirs { buildpacks: dir.path().into(), extensions: dir.path().into() };
        let id = BuildpackId::try_from("some/bp".to_owned()).unwrap();
        assert_eq!(dirs.buildpack(&id, "1.2").unwrap().root, root);
        assert_eq!(dirs.extension(&id, "1.2").unwrap().full_name(), "some/bp@1.2");

        let missing = dirs.buildpack(&id, "2").unwrap_err().0;
        let path = dir.path().join("some_bp/2/buildpack.toml");
        assert_eq!(missing, format!("open {}: no such file or directory", path.display()));
        std::fs::write(root.join("buildpack.toml"), "api = ").unwrap();
        let bad = dirs.buildpack(&id, "1.2").unwrap_err().0;
        assert!(bad.starts_with(&format!("{}: toml: line 1: ", root.join("buildpack.toml").display())), "{bad}");
        for version in ["", "..", "../1.2", "1/2"] {
            assert!(dirs.buildpack(&id, version).unwrap_err().0.contains("cannot be a directory's name"), "{version}");
        }
    }
}

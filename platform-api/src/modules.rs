//! Where buildpacks and extensions are: `/cnb/buildpacks/<escaped id>/<version>`. Spec: platform.md, "Buildpacks
//! Directory Layout".

use std::path::{Path, PathBuf};

use buildpack_api::{Buildpack, BuildpackId, Extension, ParseError};

use crate::file::{self, FileError};

/// The two directories modules are found in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleDirs {
    pub buildpacks: PathBuf,
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
    let root = modules.join(id.escaped()).join(version);
    file::parse(&root.join(name), |text| parse(&root, text))
}

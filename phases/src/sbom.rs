//! The files of a Software Bill of Materials: how a buildpack names them, and where they go.
//!
//! Spec: buildpack.md "Software-Bill-of-Materials".

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use buildpack_api::{BuildpackId, LayerTypes, SbomFormat, SbomName};
use nix::fcntl::OFlag;

/// What an SBOM describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SbomOf {
    /// `launch.sbom.*`: the app image, beyond its layers.
    Launch,
    /// `build.sbom.*`: the build environment.
    Build,
    /// `<layer>.sbom.*`
    Layer(String),
}

/// An SBOM file in a buildpack's layers directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SbomFile {
    pub(crate) path: PathBuf,
    pub(crate) of: SbomOf,
    /// `None`: not one of the formats the spec knows.
    pub(crate) format: Option<SbomFormat>,
}

/// The parts of `<layers>/sbom`, and who takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SbomDir {
    /// Goes into the app image.
    Launch,
    /// Stays, for the platform.
    Build,
    /// Goes into the cache.
    Cache,
}

impl SbomDir {
    /// The name under `<layers>/sbom`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Build => "build",
            Self::Cache => "cache",
        }
    }

    /// `<layers>/sbom/<name>`
    pub(crate) fn path(self, layers: &Path) -> PathBuf {
        layers.join("sbom").join(self.name())
    }

    /// `<layers>/sbom/<name>/<escaped id>[/<layer>]/sbom.<extension>`
    pub(crate) fn file(self, layers: &Path, id: &BuildpackId, layer: Option<&str>, format: SbomFormat) -> PathBuf {
        let mut path = self.path(layers).join(id.escaped());
        path.extend(layer);
        path.join(format!("sbom.{}", format.extension()))
    }

    /// Where the legacy bill of materials is kept (launch and build only, Platform API 0.9).
    pub(crate) fn legacy_file(self, layers: &Path) -> PathBuf {
        self.path(layers).join("sbom.legacy.json")
    }
}

impl SbomFile {
    /// The file `name` in `dir`, where the name has the form `*.sbom.*.json`. A layer's name may have dots.
    pub(crate) fn from_name(dir: &Path, name: &str) -> Option<Self> {
        let parsed = SbomName::parse(name)?;
        let of = match parsed.of {
            "launch" => SbomOf::Launch,
            "build" => SbomOf::Build,
            layer => SbomOf::Layer(layer.to_owned()),
        };
        Some(Self { path: dir.join(name), of, format: parsed.format })
    }

    /// `<dir>/<layer>.sbom.<extension>`: how restore names a layer's SBOM.
    pub(crate) fn path_for_layer(dir: &Path, layer: &str, format: SbomFormat) -> PathBuf {
        dir.join(format!("{layer}.sbom.{}", format.extension()))
    }

    /// The layer it is of, and the directories it belongs into. `types` are the layer's; a layer that is launched
    /// counts as launch, any other as build, and a cached one is also kept with the cache.
    pub(crate) fn destinations(&self, types: LayerTypes) -> (Option<&str>, Vec<SbomDir>) {
        match &self.of {
            SbomOf::Launch => (None, vec![SbomDir::Launch]),
            SbomOf::Build => (None, vec![SbomDir::Build]),
            SbomOf::Layer(layer) => {
                let mut dirs = vec![if types.launch { SbomDir::Launch } else { SbomDir::Build }];
                if types.cache {
                    dirs.push(SbomDir::Cache);
                }
                (Some(layer), dirs)
            }
        }
    }

    /// The format, which must be among those the buildpack declares (media types; parameters are ignored).
    pub(crate) fn checked_format(&self, module: &str, declared: &[String]) -> anyhow::Result<SbomFormat> {
        let path = self.path.display();
        let Some(format) = self.format else { bail!("unsupported SBOM file format: '{path}'") };
        if !format.is_declared(declared) {
            let media_type = format.media_type();
            bail!(
                "validating SBOM file '{path}' for buildpack: '{module}': undeclared SBOM media type: '{media_type}'"
            );
        }
        Ok(format)
    }
}

/// Copies a regular file (its mode is 0666 & umask) and missing parents (0777 & umask). What is at `to` is replaced, never
/// followed.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    // Without O_NONBLOCK a named pipe would hold us until somebody writes into it.
    let mut source = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(from)
        .with_context(|| format!("open {}", from.display()))?;
    let meta = source.metadata().with_context(|| format!("stat {}", from.display()))?;
    if !meta.is_file() {
        bail!("{} is not a regular file", from.display());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("mkdir {}", parent.display()))?;
    }
    match fs::remove_file(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).context(format!("remove {}", to.display())),
        _ => {}
    }
    let mut copy = || -> io::Result<()> {
        let mut target = fs::File::create_new(to)?;
        io::copy(&mut source, &mut target).map(drop)
    };
    copy().with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_of_sbom_files() {
        use SbomFormat::{CycloneDx, Spdx, Syft};
        let layer = |name: &str| SbomOf::Layer(name.to_owned());
        for (name, of, format) in [
            ("launch.sbom.cdx.json", SbomOf::Launch, Some(CycloneDx)),
            ("build.sbom.spdx.json", SbomOf::Build, Some(Spdx)),
            ("jre.sbom.syft.json", layer("jre"), Some(Syft)),
            ("jre.21.sbom.syft.json", layer("jre.21"), Some(Syft)),
            ("x.sbom.sbom.cdx.json", layer("x.sbom"), Some(CycloneDx)),
            ("jre.sbom.some.json", layer("jre"), None),
        ] {
            let file = SbomFile::from_name(Path::new("/l"), name).unwrap();
            assert_eq!((file.of, file.format), (of, format), "{name}");
        }
        for name in ["jre.toml", "sbom.cdx.json", "jre.sbom.json", "jre.sbom.cdx.xml"] {
            assert_eq!(SbomFile::from_name(Path::new("/l"), name), None, "{name}");
        }
    }

    #[test]
    fn where_sbom_files_go() {
        use SbomDir::{Build, Cache, Launch};
        let jre = SbomFile::from_name(Path::new("/l"), "jre.sbom.cdx.json").unwrap();
        let types = |launch, build, cache| LayerTypes { launch, build, cache };
        for (types, dirs) in [
            (types(true, true, true), vec![Launch, Cache]),
            (types(true, false, false), vec![Launch]),
            (types(false, true, true), vec![Build, Cache]),
            (types(false, false, false), vec![Build]),
        ] {
            assert_eq!(jre.destinations(types), (Some("jre"), dirs), "{types:?}");
        }
        let id = BuildpackId::try_from("some/bp".to_owned()).unwrap();
        let path = Launch.file(Path::new("/layers"), &id, Some("jre"), SbomFormat::CycloneDx);
        assert_eq!(path, Path::new("/layers/sbom/launch/some_bp/jre/sbom.cdx.json"));
        let path = Build.file(Path::new("/layers"), &id, None, SbomFormat::Spdx);
        assert_eq!(path, Path::new("/layers/sbom/build/some_bp/sbom.spdx.json"));
    }

    #[test]
    fn a_format_must_be_declared() {
        let file = SbomFile::from_name(Path::new("/l"), "jre.sbom.cdx.json").unwrap();
        let declared = ["application/vnd.cyclonedx+json;version=1.4".to_owned()];
        assert_eq!(file.checked_format("a@1", &declared).unwrap(), SbomFormat::CycloneDx);
        assert_eq!(
            file.checked_format("a@1", &[]).unwrap_err().to_string(),
            "validating SBOM file '/l/jre.sbom.cdx.json' for buildpack: 'a@1': undeclared SBOM media type: \
             'application/vnd.cyclonedx+json'"
        );
        let file = SbomFile::from_name(Path::new("/l"), "jre.sbom.some.json").unwrap();
        let error = file.checked_format("a@1", &declared).unwrap_err().to_string();
        assert_eq!(error, "unsupported SBOM file format: '/l/jre.sbom.some.json'");
    }

    #[test]
    fn a_copy_replaces_a_link_and_can_be_read() {
        let tmp = tempfile::tempdir().unwrap();
        let (from, to, other) = (tmp.path().join("from"), tmp.path().join("d/to"), tmp.path().join("other"));
        fs::write(&from, "new").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&other, "kept").unwrap();
        fs::create_dir(tmp.path().join("d")).unwrap();
        std::os::unix::fs::symlink(&other, &to).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
        // As every other file is made, whatever the umask is.
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&to), mode(&other));
    }
}

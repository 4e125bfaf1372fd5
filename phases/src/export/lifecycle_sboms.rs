//! The SBOMs of lifecycle and launcher, which come with the lifecycle and go into the image and to the platform.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use buildpack_api::SbomFormat;
use platform_api::names;

use crate::sbom::{self, SbomDir};

/// Copies them below `<layers>/sbom`. `launcher_sbom` is where those of the launcher are.
pub(super) fn copy(layers: &Path, launcher_sbom: &Path) -> anyhow::Result<()> {
    let own = |dir: SbomDir| dir.path(layers).join("buildpacksio_lifecycle");
    let installed = Path::new(names::path::LIFECYCLE);
    copy_component("lifecycle", installed, &own(SbomDir::Build))?;
    let to = own(SbomDir::Launch).join("launcher");
    if launcher_sbom.as_os_str().is_empty() || launcher_sbom == installed {
        copy_component("launcher", installed, &to)
    } else {
        copy_all(launcher_sbom, &to)
    }
}

/// `<component>.sbom.<format>` as `sbom.<format>`.
fn copy_component(component: &str, from: &Path, to: &Path) -> anyhow::Result<()> {
    for format in SbomFormat::ALL {
        let file = format!("sbom.{}", format.extension());
        let (name, target) = (format!("{component}.{file}"), to.join(&file));
        let source = from.join(&name);
        if !source.try_exists().with_context(|| format!("stat {}", source.display()))? {
            tracing::warn!("Did not find SBOM {name} in {}", from.display());
            continue;
        }
        tracing::debug!("Copying SBOM {name} to {}", target.display());
        sbom::copy(&source, &target)?;
    }
    Ok(())
}

/// Everything in a directory of the platform's that is an SBOM by name, as it is named.
fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    let failed = |e: io::Error| anyhow::Error::new(e).context(format!("list contents of directory {}", from.display()));
    for entry in fs::read_dir(from).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let is_sbom = |format: &SbomFormat| {
            name.to_str().is_some_and(|name| name.ends_with(&format!("sbom.{}", format.extension())))
        };
        if SbomFormat::ALL.iter().any(is_sbom) {
            sbom::copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

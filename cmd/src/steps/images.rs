//! Where images are, opened with the credentials they need, and analyze.

use std::path::Path;

use image::{Daemon, Images, Keychain, Layout, Reference, Registry};
use phases::{
    analyze::{Found, Needed},
    cache::{Cache, ImageCache, LaunchCache, VolumeCache},
};
use platform_api::{
    Analyzed, ExitCode, ExperimentalFeature, Failure, Flags, PlatformApi, RunImages, TargetData, file,
    inputs::{AnalyzerInputs, CacheInputs, ImageLocation, RunFile},
    names,
};

use super::{timed, write_analyzed};
use crate::{guard_experimental, in_phase};

/// Where app images are, and the registries beside it: cache images are always there.
#[derive(Debug)]
pub struct Places {
    pub images: Images,
    pub registry: Registry,
}

impl Places {
    /// A daemon need not be asked for layers that are in the launch cache.
    #[must_use]
    pub fn with_launch_cache(self, dir: Option<&Path>) -> Self {
        let images = match (self.images, dir) {
            (Images::Daemon(daemon), Some(dir)) => Images::Daemon(daemon.with_layers(LaunchCache::layers_in(dir))),
            (images, _) => images,
        };
        Self { images, ..self }
    }
}

/// Opens the places of images, while still privileged: credentials may be readable for root only. `names` are all the
/// images the executable may touch; names that are no references are left for the phase to complain of.
pub fn open<'a>(
    location: &ImageLocation,
    insecure: &[String],
    flags: &Flags,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Places, Failure> {
    let mut repositories: Vec<String> =
        names.into_iter().filter_map(|n| Reference::parse(n).ok()).map(|r| r.context()).collect();
    repositories.sort();
    repositories.dedup();
    let env = |name: &str| flags.env(name).map(str::to_owned);
    let keychain = Keychain::resolve(flags.env(names::env::REGISTRY_AUTH), &repositories, &env)
        .map_err(|e| Failure::failed(format!("failed to resolve keychain: {e}")))?;
    let registry = Registry::new(keychain, insecure.to_vec());
    if matches!(location, ImageLocation::Layout(_)) {
        guard_experimental(flags, ExperimentalFeature::Layout)?;
    }
    let images = match location {
        ImageLocation::Registry => Images::Registry(registry.clone()),
        ImageLocation::Layout(dir) => Images::Layout(Layout { dir: dir.clone() }),
        ImageLocation::Daemon => Daemon::open(&env)
            .map(Images::Daemon)
            .map_err(|e| Failure::failed(format!("failed to initialize docker client: {e}")))?,
    };
    Ok(Places { images, registry })
}

/// The output names must be references, and of one registry.
pub(super) fn check_names(outputs: &[&str], others: &[&str], location: &ImageLocation) -> Result<(), Failure> {
    let invalid = |text: String| Failure::invalid_args(format!("failed to resolve inputs: {text}"));
    let parse = |name: &&str| Reference::parse(name).map_err(|e| invalid(e.to_string()));
    let registries = outputs.iter().map(|name| parse(name).map(|r| r.registry)).collect::<Result<Vec<_>, _>>()?;
    others.iter().filter(|name| !name.is_empty()).try_for_each(|name| parse(name).map(drop))?;
    if *location != ImageLocation::Daemon && registries.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(invalid("writing to multiple registries is unsupported".to_owned()));
    }
    Ok(())
}

/// run.toml or stack.toml; empty, with a line of information, where there is none.
pub fn read_run_images(run: &RunFile, api: PlatformApi) -> Result<RunImages, Failure> {
    let what = if api.run_toml() { "run" } else { "stack" };
    let found = file::parse_if_exists(&run.0, |text| RunImages::parse(text, api))
        .map_err(|e| Failure::failed(format!("failed to read {what} file: {e}")))?;
    Ok(found.unwrap_or_else(|| {
        tracing::info!("No {what} metadata found at path {:?}", run.0);
        RunImages::default()
    }))
}

/// Which run images an analyze may choose from; none where it is told one, whatever the file is.
pub fn offered_run_images(i: &AnalyzerInputs) -> Result<RunImages, Failure> {
    if i.run_image.is_some() {
        return Ok(RunImages::default());
    }
    read_run_images(&i.run, i.api).map_err(|failure| super::unresolved(&failure))
}

/// Checks the names of an analyze and opens the places of its images.
pub fn analyzer_images(i: &AnalyzerInputs, offered: &RunImages, flags: &Flags) -> Result<Places, Failure> {
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    let (run_image, cache_image) = (text(&i.run_image), text(&i.cache.image));
    let outputs: Vec<&str> = std::iter::once(&i.output_image).chain(&i.tags).map(String::as_str).collect();
    let in_layout = matches!(i.location, ImageLocation::Layout(_));
    // In a layout the names of base and previous image may be paths.
    let others =
        if in_layout { vec![cache_image.as_str()] } else { vec![&*i.previous_image, &*run_image, &*cache_image] };
    check_names(&outputs, &others, &i.location)?;
    let others = [&*i.previous_image, &*run_image, &*cache_image];
    let names = outputs.iter().copied().chain(others).chain(offered_names(offered));
    let places = open(&i.location, &i.insecure_registries, flags, names)?;
    Ok(places.with_launch_cache(i.launch_cache.as_deref()))
}

/// Every name a run image may be found under.
pub(super) fn offered_names(offered: &RunImages) -> impl Iterator<Item = &str> {
    offered.images.iter().flat_map(|offer| std::iter::once(&offer.image).chain(&offer.mirrors)).map(String::as_str)
}

/// Chooses the run image and analyzes. [`restore_sbom`] comes next. `on_base`: see [`phases::analyze::analyze`].
pub fn analyze(
    i: &AnalyzerInputs,
    offered: &RunImages,
    places: &Places,
    needed: Needed,
    on_base: &(dyn Fn(Option<TargetData>) + Sync),
) -> Result<Found, Failure> {
    let run_image =
        phases::run_image::resolve(i.run_image.as_deref(), offered, &i.output_image, &places.images, i.api)?;
    let analyze = || phases::analyze::analyze(i, &places.images, &places.registry, &run_image, needed, on_base);
    let found = timed("Analyzer", analyze).inspect_err(|_| places.registry.cancel_uploads());
    found.map_err(|e| in_phase(ExitCode::Analyze, "analyze", &e))
}

/// Restores the SBOMs of the previous image, writes analyzed.toml.
pub fn restore_sbom(i: &AnalyzerInputs, places: &Places, found: Found) -> Result<Analyzed, Failure> {
    let restored = found.restore_sbom(i, &places.images);
    let analyzed = restored.map_err(|e| in_phase(ExitCode::Analyze, "analyze", &e))?;
    write_analyzed(&i.analyzed, &analyzed)?;
    Ok(analyzed)
}

/// The cache, where one is given; exit code 1 where it cannot be opened.
pub fn open_cache(cache: &CacheInputs, places: &Places, api: PlatformApi) -> Result<Option<Cache>, Failure> {
    let failed = |e: anyhow::Error| Failure::failed(crate::chain(&e));
    if let Some(name) = &cache.image {
        return ImageCache::open(name, &places.registry, api).map(|c| Some(Cache::Image(c))).map_err(failed);
    }
    let open_volume = |dir: &Path| VolumeCache::open(dir).map(Cache::Volume).map_err(failed);
    cache.dir.as_deref().map(open_volume).transpose()
}

//! A Dockerfile applied to a file system and to the image it came from, one instruction after another. What an
//! instruction changed becomes a layer; layers of earlier runs are taken from the cache, and unpacked only when
//! something has to see their files.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use image::{Blob, BlobSource, Digest, History, Image, Layer};
use sha2::{Digest as _, Sha256};

use crate::{
    Cache, Dockerfile, Error, Ignore, Instruction, Result, Snapshot, Step,
    cache::{self, Cached},
    context::Lazy,
    layer, parse, unpack, users,
};

mod content;
mod mounts;
mod start;
mod state;

use state::State;
pub use state::base_of;

/// Where Dockerfiles are applied.
#[derive(Debug)]
pub struct Setting {
    /// The file system; `/` in production.
    pub root: PathBuf,
    /// What snapshots leave out.
    pub ignore: Ignore,
    /// An own directory for layers.
    pub work: PathBuf,
    pub cache: Option<Cache>,
    /// `USER` has to name somebody; else nobody is root, with a warning.
    pub user_required: bool,
}

/// What a Dockerfile came to.
#[derive(Debug)]
pub struct Applied {
    /// With the new layers, whose history is `created_by` their instruction, and the new config.
    pub image: Image,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// Applies Dockerfiles, each to what the one before it left.
#[derive(Debug)]
pub struct Applier {
    setting: Setting,
    /// The digest of all that the next layer depends on.
    chain: Digest,
    /// The cache has no further layers for us.
    missed: bool,
    /// Cached layers whose files nobody needed yet.
    pending: Vec<PathBuf>,
    /// How the file system was last.
    snapshot: Option<Snapshot>,
    made: usize,
}

impl Applier {
    /// `base`: the digest of the image whose file system it is.
    pub fn new(setting: Setting, base: &Digest) -> Self {
        Self { setting, chain: base.clone(), missed: false, pending: Vec::new(), snapshot: None, made: 0 }
    }

    /// Applies a Dockerfile, which is at `path`, to the image; `FROM` is taken for that image, whatever it says.
    ///
    /// # Errors
    /// Naming line and instruction.
    pub fn apply(
        &mut self,
        dockerfile: &Dockerfile,
        image: Image,
        args: &[(String, String)],
        path: &Path,
        context: &Path,
    ) -> Result<Applied> {
        let mut stages = dockerfile.steps.iter().filter(|s| matches!(s.instruction, Instruction::From { .. }));
        match (stages.next(), stages.next()) {
            (None, _) => return Err(Error::new("there is no FROM")),
            (_, Some(step)) => {
                return Err(Error::new(format!("line {}: multistage builds are not supported", step.line)));
            }
            _ => {}
        }
        let context = Lazy::new(context, path);
        let mut state = State::new(image, dockerfile.escape, args);
        state.user_required = self.setting.user_required;
        for step in &dockerfile.steps {
            let failed = |e| Error::new(format!("line {}: {}: {e}", step.line, short(&step.text)));
            self.step(&mut state, step, &context).map_err(failed)?;
            if matches!(step.instruction, Instruction::From { .. }) {
                self.triggers(&mut state, step.line, &context).map_err(failed)?;
            }
        }
        Ok(Applied { image: state.image, warnings: state.warnings })
    }

    /// Unpacks what was not needed so far.
    ///
    /// # Errors
    /// Naming the layer.
    pub fn finish(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.pending) {
            let file = File::open(&path).map_err(|e| Error::at("read", &path, &e))?;
            let file = std::io::BufReader::with_capacity(1 << 20, file);
            unpack::unpack(file, &self.setting.root, unpack::Kind::Layer)?;
            self.snapshot = None;
        }
        Ok(())
    }

    /// Whether this user of an image's config is root, by whatever name or number. Who has which number may be in a layer
    /// that was not needed so far.
    ///
    /// # Errors
    /// Naming the layer that cannot be unpacked.
    pub fn is_root(&mut self, user: &str) -> Result<bool> {
        let name = user.split_once(':').map_or(user, |(name, _)| name);
        if let Ok(id) = name.parse::<u32>() {
            return Ok(id == 0);
        }
        if name.is_empty() || name == "root" {
            return Ok(true);
        }
        self.finish()?;
        // Nobody can be who is not there.
        Ok(users::find(&self.setting.root, name).is_ok_and(|user| user.uid == 0))
    }

    /// Those that `ONBUILD` left in the base.
    fn triggers(&mut self, state: &mut State<'_>, line: usize, context: &Lazy<'_>) -> Result<()> {
        for text in state.take_triggers() {
            let failed = |e| Error::new(format!("ONBUILD {}: {e}", short(&text)));
            let step = parse::trigger(&text, line).map_err(failed)?;
            self.step(state, &step, context).map_err(failed)?;
        }
        Ok(())
    }

    fn step(&mut self, state: &mut State<'_>, step: &Step, context: &Lazy<'_>) -> Result<()> {
        match &step.instruction {
            Instruction::Run { flags, command, documents } => {
                let mounts = mounts::parse(flags, state, context)?;
                self.run(state, step, &mounts, command, documents)
            }
            Instruction::Copy(copy) => self.copy(state, step, copy, context.open()?, false),
            Instruction::Add(copy) => self.copy(state, step, copy, context.open()?, true),
            Instruction::Workdir(path) => self.workdir(state, step, path),
            other => state.configure(other),
        }
    }

    /// An instruction that may change files. `material`: what the change depends on, beside the files before.
    fn change(
        &mut self,
        state: &mut State<'_>,
        step: &Step,
        material: &[&[u8]],
        act: impl FnOnce(&Setting) -> Result<()>,
    ) -> Result<()> {
        self.change_apart(state, step, (material, &[]), act)
    }

    /// The same, with places (relative to the root) where what changes is not the image's.
    fn change_apart(
        &mut self,
        state: &mut State<'_>,
        step: &Step,
        (material, apart): (&[&[u8]], &[PathBuf]),
        act: impl FnOnce(&Setting) -> Result<()>,
    ) -> Result<()> {
        let key = chained(&self.chain, material);
        let cache = self.setting.cache.as_ref().filter(|_| !self.missed);
        let found = cache.map(|cache| cache.find(&key, &self.setting.work));
        let layer = match found {
            Some(Some(Cached(layer))) => {
                tracing::info!("Using caching version of cmd: {}", step.text);
                self.pending.extend(layer.as_ref().map(cache::layer_path).transpose()?);
                layer
            }
            found => {
                if found.is_some() {
                    tracing::info!("No cached layer found for cmd {}", step.text);
                }
                self.missed = true;
                let layer = self.make(state, apart, act)?;
                if let Some(cache) = &self.setting.cache {
                    // The next build is slower then; this one is none the worse.
                    if let Err(error) = cache.put(&key, layer.as_ref()) {
                        tracing::warn!("Not caching the layer of {}: {error}", short(&step.text));
                    }
                }
                layer
            }
        };
        let result = layer.as_ref().map_or("", |layer| layer.diff_id.as_str());
        self.chain = chained(&key, &[result.as_bytes()]);
        if let Some(layer) = layer {
            let created_by = Some(step.text.clone());
            state.image.push(layer, History { created_by, ..History::default() });
        }
        Ok(())
    }

    /// Acts, and makes a layer of what that changed.
    fn make(
        &mut self,
        state: &State<'_>,
        apart: &[PathBuf],
        act: impl FnOnce(&Setting) -> Result<()>,
    ) -> Result<Option<Layer>> {
        self.finish()?;
        let Setting { root, ignore, work, .. } = &self.setting;
        let before = self.snapshot.take().map_or_else(|| Snapshot::take(root, ignore), Ok)?;
        act(&self.setting)?;
        let after = Snapshot::take(root, ignore)?;
        let changes = after.since(&before).without(apart);
        self.snapshot = Some(after);
        if changes.is_empty() {
            return Ok(None);
        }
        let blobs = work.join("blobs").join("sha256");
        fs::create_dir_all(&blobs).map_err(|e| Error::at("create", &blobs, &e))?;
        self.made += 1;
        let new = work.join(format!("layer-{}.tar", self.made));
        let tar = layer::write(root, &changes, &new)?;
        let path = blobs.join(tar.digest.hex());
        fs::rename(&new, &path).map_err(|e| Error::at("create", &path, &e))?;
        let blob = Blob {
            digest: tar.digest.clone(),
            size: tar.size,
            media_type: media_type(state.image.docker).to_owned(),
            source: BlobSource::Layout(work.clone()),
        };
        Ok(Some(Layer { diff_id: tar.digest, blob: Some(blob), recipe: None }))
    }
}

/// Of a layer that is not compressed.
fn media_type(docker: bool) -> &'static str {
    if docker { "application/vnd.docker.image.rootfs.diff.tar" } else { "application/vnd.oci.image.layer.v1.tar" }
}

fn chained(chain: &Digest, parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new_with_prefix(chain.as_str());
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Digest::from_hasher(hash)
}

/// The first line, not too long.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(100) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

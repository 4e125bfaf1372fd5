//! `RUN --mount`: directories of their own in the place of the image's, for as long as a `RUN` runs. Nothing can be
//! mounted in an ordinary container, so what is there steps aside, and what a cache keeps is carried in and out.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use image::{Digest, clean_path};
use nix::errno::Errno;

use super::State;
use crate::{
    Error, Ignore, Result, Snapshot, layer,
    parse::Flag,
    unpack::{self, Kind},
};

/// A directory to be put in.
#[derive(Debug)]
pub(super) struct Mount {
    /// Absolute.
    target: PathBuf,
    /// What it is kept by from one build to the next.
    id: Option<String>,
    mode: u32,
    owner: (u32, u32),
}

/// The directories that the flags of a `RUN` ask for.
///
/// # Errors
/// Flags that nobody knows, and mounts that it cannot do without and we cannot do.
pub(super) fn parse(flags: &[Flag], state: &mut State<'_>) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for flag in flags {
        match flag.name.as_str() {
            "mount" => mounts.extend(one(&state.expand(&flag.value)?, state)?),
            name @ ("network" | "security") => {
                state.warnings.push(format!("RUN --{name} is not supported, and has no effect"));
            }
            name => return Err(Error::new(format!("unknown flag: --{name}"))),
        }
    }
    Ok(mounts)
}

fn one(value: &str, state: &mut State<'_>) -> Result<Option<Mount>> {
    let field = |names: &[&str]| {
        let mut fields = value.split(',').filter_map(|field| field.split_once('='));
        fields.find(|(name, _)| names.contains(name)).map(|(_, value)| value)
    };
    let number = |name: &str, radix: u32, default: u32| match field(&[name]) {
        None => Ok(default),
        Some(text) => {
            u32::from_str_radix(text, radix).map_err(|_| Error::new(format!("RUN --mount: {name}={text} is no number")))
        }
    };
    let kind = field(&["type"]).unwrap_or("bind");
    let target = field(&["target", "dst", "destination"]);
    match (kind, target) {
        ("cache" | "tmpfs", Some(target)) if field(&["from"]).is_none() => {
            let target = clean_path(&PathBuf::from(state.workdir()).join(target));
            let id = (kind == "cache").then(|| field(&["id"]).map_or(target.display().to_string(), str::to_owned));
            let owner = (number("uid", 10, 0)?, number("gid", 10, 0)?);
            Ok(Some(Mount { target, id, mode: number("mode", 8, 0o755)? & 0o7777, owner }))
        }
        ("secret" | "ssh", _) if field(&["required"]) != Some("true") => {
            state.warnings.push(format!("RUN --mount=type={kind} is not supported, and has no effect"));
            Ok(None)
        }
        _ => Err(Error::new(format!("RUN --mount=type={kind} is not supported"))),
    }
}

/// Directories in their places.
#[derive(Debug)]
pub(super) struct Mounted {
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    target: PathBuf,
    /// Where the image's own directory is meanwhile.
    aside: Aside,
    /// Directories above it that were missing, the deepest first.
    made: Vec<PathBuf>,
    /// The tar that its files are kept in.
    kept: Option<PathBuf>,
}

/// How what the image has is kept out of sight.
#[derive(Debug)]
enum Aside {
    /// It has nothing there.
    Nothing,
    /// Under another name.
    Renamed(PathBuf),
    /// In a tar: overlay file systems rename no directory of a lower layer. Mode and owner are the directory's own.
    Packed { tar: PathBuf, mode: u32, owner: (u32, u32) },
}

/// The places, relative to the root: what changes there is not the image's.
pub(super) fn places(mounts: &[Mount]) -> Vec<PathBuf> {
    mounts.iter().map(|mount| mount.target.strip_prefix("/").unwrap_or(&mount.target).to_owned()).collect()
}

impl Mounted {
    /// Puts the directories in. `kept`: where caches are kept; `None`: they are not. `work`: a directory for what
    /// steps aside.
    ///
    /// # Errors
    /// Naming the directory that could not be made.
    pub(super) fn new(root: &Path, mounts: &[Mount], kept: Option<&Path>, work: &Path) -> Result<Self> {
        let mut mounted = Self { places: Vec::new() };
        for (n, mount) in mounts.iter().enumerate() {
            let id = mount.id.as_ref().zip(kept);
            let kept = id.map(|(id, dir)| dir.join(format!("{}.tar", Digest::of(id.as_bytes()).hex())));
            let target = root.join(mount.target.strip_prefix("/").unwrap_or(&mount.target));
            let above = mount.target.parent().ok_or_else(|| Error::new("RUN --mount: target=/ is the image itself"))?;
            let made = super::content::make_dirs(root, &[above.to_owned()])?;
            mounted.places.push(Place { target, aside: Aside::Nothing, made, kept });
            let Some(place) = mounted.places.last_mut() else { continue };
            place.step_aside(n, work)?;
            place.put(mount).map_err(|e| Error::at("mount on", &mount.target, &e))?;
            place.load()?;
        }
        Ok(mounted)
    }

    /// Takes them out again, and keeps what caches have now.
    ///
    /// # Errors
    /// Naming the directory that could not be put back or kept.
    pub(super) fn finish(self) -> Result<()> {
        for place in self.places.iter().rev() {
            if let Err(error) = place.keep() {
                // The next build is slower then; this one is none the worse.
                tracing::warn!("Not keeping what a RUN cached: {error}");
            }
            place.take_out()?;
        }
        Ok(())
    }
}

impl Place {
    fn step_aside(&mut self, n: usize, work: &Path) -> Result<()> {
        let failed = |e: io::Error| Error::at("mount on", &self.target, &e);
        let found = match self.target.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        if !found.is_dir() {
            return Err(failed(io::Error::other("it is no directory")));
        }
        let aside = self.target.with_file_name(format!(".aside-{}-{n}", std::process::id()));
        self.aside = match fs::rename(&self.target, &aside) {
            Ok(()) => Aside::Renamed(aside),
            Err(e) if e.raw_os_error() == Some(Errno::EXDEV as i32) => {
                fs::create_dir_all(work).map_err(|e| Error::at("create", work, &e))?;
                let tar = work.join(format!("aside-{n}.tar"));
                pack(&self.target, &tar)?;
                empty(&self.target).map_err(failed)?;
                Aside::Packed { tar, mode: found.mode() & 0o7777, owner: (found.uid(), found.gid()) }
            }
            Err(e) => return Err(failed(e)),
        };
        Ok(())
    }

    fn put(&self, mount: &Mount) -> io::Result<()> {
        if !matches!(self.aside, Aside::Packed { .. }) {
            fs::create_dir(&self.target)?;
        }
        give(&self.target, mount.mode, mount.owner)
    }

    /// What earlier builds left; a damaged file is as good as none.
    fn load(&self) -> Result<()> {
        let Some(file) = self.kept.as_ref().and_then(|path| File::open(path).ok()) else { return Ok(()) };
        let file = io::BufReader::with_capacity(1 << 20, file);
        unpack::unpack(file, &self.target, Kind::Archive(None))
            .or_else(|error| {
                tracing::warn!("Not using what earlier builds cached: {error}");
                empty(&self.target)
            })
            .map_err(|e: io::Error| Error::at("empty", &self.target, &e))
    }

    fn keep(&self) -> Result<()> {
        let Some(path) = &self.kept else { return Ok(()) };
        let dir = path.parent().unwrap_or(path);
        fs::create_dir_all(dir).map_err(|e| Error::at("create", dir, &e))?;
        let new = path.with_extension(std::process::id().to_string());
        pack(&self.target, &new)?;
        fs::rename(&new, path).map_err(|e| Error::at("create", path, &e))
    }

    fn take_out(&self) -> Result<()> {
        let failed = |e: io::Error| Error::at("take out", &self.target, &e);
        if let Aside::Packed { tar, mode, owner } = &self.aside {
            empty(&self.target).map_err(failed)?;
            let file = File::open(tar).map_err(|e| Error::at("read", tar, &e))?;
            unpack::unpack(io::BufReader::new(file), &self.target, Kind::Archive(None))?;
            return give(&self.target, *mode, *owner).and_then(|()| fs::remove_file(tar)).map_err(failed);
        }
        fs::remove_dir_all(&self.target).map_err(failed)?;
        if let Aside::Renamed(aside) = &self.aside {
            fs::rename(aside, &self.target).map_err(failed)?;
        }
        self.made.iter().try_for_each(|dir| match fs::remove_dir(dir) {
            // The command itself put something beside the target: that stays.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.map_err(failed),
        })
    }
}

fn give(dir: &Path, mode: u32, owner: (u32, u32)) -> io::Result<()> {
    lchown(dir, Some(owner.0), Some(owner.1))?;
    fs::set_permissions(dir, Permissions::from_mode(mode))
}

fn empty(dir: &Path) -> io::Result<()> {
    fs::read_dir(dir)?.try_for_each(|entry| unpack::remove(&entry?.path(), true))
}

/// All that is in a directory, as a tar.
fn pack(dir: &Path, to: &Path) -> Result<()> {
    let all = Snapshot::take(dir, &Ignore::default())?.since(&Snapshot::default());
    layer::write(dir, &all, to).map(drop)
}

//! `RUN --mount`: files of their own in the place of the image's, for as long as a `RUN` runs. Nothing can be mounted in
//! an ordinary container, so what is there steps aside, what is bound is a copy, and what a cache keeps is carried in
//! and out.

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
    Error, Ignore, Result, Snapshot, Work,
    context::{Context, Found, Lazy},
    copy::Plan,
    layer,
    parse::Flag,
    unpack::{self, Kind},
};

/// What is to be put in.
#[derive(Debug)]
pub(super) struct Mount<'a> {
    /// Absolute.
    target: PathBuf,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    /// An own directory.
    Own {
        /// What it is kept by from one build to the next.
        id: Option<String>,
        mode: u32,
        owner: (u32, u32),
    },
    /// A file or directory of the context: a copy, so that what the command writes there is lost with it.
    Bound { context: &'a Context, source: Found },
}

/// What the flags of a `RUN` ask for.
///
/// # Errors
/// Flags that nobody knows, mounts that it cannot do without and we cannot do, sources that are not in the context.
pub(super) fn parse<'a>(flags: &[Flag], state: &mut State<'_>, context: &'a Lazy<'_>) -> Result<Vec<Mount<'a>>> {
    let mut mounts = Vec::new();
    for flag in flags {
        match flag.name.as_str() {
            "mount" => {
                let value = state.expand(&flag.value)?;
                let one = one(&value, state, context);
                mounts.extend(one.map_err(|e| Error::new(format!("RUN --mount={value}: {e}")))?);
            }
            name @ ("network" | "security") => {
                state.warnings.push(format!("RUN --{name} is not supported, and has no effect"));
            }
            name => return Err(Error::new(format!("unknown flag: --{name}"))),
        }
    }
    Ok(mounts)
}

const KEYS: [&str; 19] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "id",
    "mode",
    "uid",
    "gid",
    "sharing",
    "size",
    "env",
    "required",
    "ro",
    "readonly",
    "rw",
    "readwrite",
];

/// The options of a mount, by name. One without a value is true.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn parse(value: &'a str) -> Result<Self> {
        let option = |text: &'a str| match text.split_once('=').unwrap_or((text, "true")) {
            (name, value) if KEYS.contains(&name) => Ok((name, value)),
            (name, _) => Err(Error::new(format!("unexpected key {name:?}"))),
        };
        value.split(',').map(option).collect::<Result<_>>().map(Self)
    }

    fn get(&self, names: &[&str]) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| names.contains(name)).map(|(_, value)| *value)
    }

    fn number(&self, name: &str, radix: u32, default: u32) -> Result<u32> {
        let number =
            |text| u32::from_str_radix(text, radix).map_err(|_| Error::new(format!("{name}={text} is no number")));
        self.get(&[name]).map_or(Ok(default), number)
    }
}

fn one<'a>(value: &str, state: &mut State<'_>, context: &'a Lazy<'_>) -> Result<Option<Mount<'a>>> {
    let options = Options::parse(value)?;
    let kind = options.get(&["type"]).unwrap_or("bind");
    if options.get(&["from"]).is_some() {
        return Err(Error::new("from is not supported: there is no other stage or image"));
    }
    if let "secret" | "ssh" = kind {
        let optional = ["0", "f", "F", "false", "False", "FALSE"];
        if options.get(&["required"]).is_some_and(|text| !optional.contains(&text)) {
            return Err(Error::new(format!("type={kind} is not supported")));
        }
        state.warnings.push(format!("RUN --mount=type={kind} is not supported, and has no effect"));
        return Ok(None);
    }
    let target = options.get(&["target", "dst", "destination"]);
    let target = target.map(|target| clean_path(&PathBuf::from(state.workdir()).join(target)));
    let missing = || Error::new("it needs a target");
    let what = match kind {
        "cache" | "tmpfs" => {
            let id = || options.get(&["id"]).or(target.as_ref().and_then(|target| target.to_str())).map(str::to_owned);
            Content::Own {
                id: if kind == "cache" { id() } else { None },
                mode: options.number("mode", 8, 0o755)? & 0o7777,
                owner: (options.number("uid", 10, 0)?, options.number("gid", 10, 0)?),
            }
        }
        "bind" => {
            let (context, source) = (context.open()?, options.get(&["source", "src"]).unwrap_or("."));
            match <[Found; 1]>::try_from(context.find(source)?) {
                Ok([source]) => Content::Bound { context, source },
                Err(found) if found.is_empty() => return Err(Error::new(format!("{source} is no file at all"))),
                Err(_) => return Err(Error::new(format!("{source} is more than one file"))),
            }
        }
        _ => return Err(Error::new(format!("type={kind} is not supported"))),
    };
    Ok(Some(Mount { target: target.ok_or_else(missing)?, content: what }))
}

/// The digests of what is bound; empty where nothing is.
pub(super) fn digests(mounts: &[Mount<'_>]) -> Result<String> {
    let bound = mounts.iter().filter_map(|mount| match &mount.content {
        Content::Bound { context, source } => Some(context.digest(std::slice::from_ref(source))),
        Content::Own { .. } => None,
    });
    bound.map(|digest| digest.map(|digest| digest.as_str().to_owned())).collect()
}

/// What was put in, in its place.
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

impl Mount<'_> {
    fn is_dir(&self) -> bool {
        match &self.content {
            Content::Own { .. } => true,
            Content::Bound { source, .. } => source.path.is_dir(),
        }
    }
}

/// The places, relative to the root: what changes there is not the image's.
pub(super) fn places(mounts: &[Mount<'_>]) -> Vec<PathBuf> {
    mounts.iter().map(|mount| mount.target.strip_prefix("/").unwrap_or(&mount.target).to_owned()).collect()
}

impl Mounted {
    /// Puts the directories in. `kept`: where caches are kept; `None`: they are not. `work`: a directory for what
    /// steps aside.
    ///
    /// # Errors
    /// Naming the directory that could not be made.
    pub(super) fn new(root: &Path, mounts: &[Mount<'_>], kept: Option<&Path>, work: &Path) -> Result<Self> {
        let mut mounted = Self { places: Vec::new() };
        for (n, mount) in mounts.iter().enumerate() {
            let id = if let Content::Own { id, .. } = &mount.content { id.as_ref() } else { None };
            let kept = id.zip(kept).map(|(id, dir)| dir.join(format!("{}.tar", Digest::of(id.as_bytes()).hex())));
            let target = root.join(mount.target.strip_prefix("/").unwrap_or(&mount.target));
            let above = mount.target.parent().ok_or_else(|| Error::new("RUN --mount: target=/ is the image itself"))?;
            let made = super::content::make_dirs(root, &[above.to_owned()])?;
            mounted.places.push(Place { target, aside: Aside::Nothing, made, kept });
            let Some(place) = mounted.places.last_mut() else { continue };
            place.step_aside(n, work, mount.is_dir())?;
            place.put(root, mount).map_err(|e| Error::at("mount on", &mount.target, &e))?;
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
    fn step_aside(&mut self, n: usize, work: &Path, for_dir: bool) -> Result<()> {
        let failed = |e: io::Error| Error::at("mount on", &self.target, &e);
        let found = match self.target.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        if found.is_dir() != for_dir {
            let why = if for_dir { "it is no directory" } else { "it is a directory, and what is bound is none" };
            return Err(failed(io::Error::other(why)));
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

    fn put(&self, root: &Path, mount: &Mount<'_>) -> Result<()> {
        match &mount.content {
            Content::Own { mode, owner, .. } => {
                let made = if self.target.is_dir() { Ok(()) } else { fs::create_dir(&self.target) };
                made.and_then(|()| give(&self.target, *mode, *owner)).map_err(|e| Error::new(e.to_string()))
            }
            Content::Bound { context, source } => {
                let destination = mount.target.display().to_string();
                Plan { sources: vec![source.clone()], destination, ..Plan::default() }.run(context, root)
            }
        }
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
        let own = Work::new(path.parent().unwrap_or(path), ".new-")?;
        let new = own.path().join("tar");
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
        unpack::remove(&self.target, true).map_err(failed)?;
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

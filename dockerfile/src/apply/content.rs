//! The instructions that change files.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use image::{Digest, clean_path};

use super::{
    Applier, Setting, State,
    mounts::{self, Mount, Mounted},
};
use crate::{
    Error, Result, Step,
    context::Context,
    copy::{Plan, destination, within},
    fetch::{self, Fetched},
    parse::{Command, Copy, Document, Flag},
    run::Run,
    users,
};

/// Differs from run to run; only who mentions it wants to run every time.
const BUILD_ID: &str = "build_id";

impl Applier {
    pub(super) fn run(
        &mut self,
        state: &mut State<'_>,
        step: &Step,
        mounts: &[Mount<'_>],
        command: &Command,
        documents: &[Document],
    ) -> Result<()> {
        let (words, script) = command_line(state, command, documents);
        let mut env = environment(state);
        let workdir = state.workdir();
        let user = state.image.config.user.clone();
        let known: Vec<String> = env
            .iter()
            .filter(|(name, _)| name != BUILD_ID || step.text.contains(BUILD_ID))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let material = format!("{}\0{}\0{user}\0{workdir}\0{}", step.text, words.join("\0"), known.join("\0"));
        let bound = mounts::digests(mounts)?;
        let parts: [&[u8]; 3] = [b"RUN", material.as_bytes(), bound.as_bytes()];
        // What has no such files has the key that it always had.
        let parts = if bound.is_empty() { &parts[..2] } else { &parts[..] };
        self.change_apart(state, step, (parts, &mounts::places(mounts)), |setting| {
            tracing::info!("{}", step.text);
            let root = &setting.root;
            let user = users::find(root, &user)?;
            if !env.iter().any(|(name, _)| name == "HOME") {
                env.push(("HOME".to_owned(), user.home.clone()));
            }
            let kept = setting.cache.as_ref().map(|cache| cache.dir.with_file_name("mounts"));
            let mounted = Mounted::new(root, mounts, kept.as_deref(), &setting.work)?;
            // Not before: it may lie in what was mounted.
            make_dir(root, Path::new(&workdir))?;
            let script = script.map(|text| Script::write(root, &text)).transpose()?;
            let words = script.as_ref().map_or(words, |script| vec![script.name.clone()]);
            let ran = Run { root, words, env, workdir: &workdir, user }.run();
            drop(script);
            // What a command that failed has left is not kept; the image is lost with it.
            ran.and_then(|()| mounted.finish())
        })
    }

    pub(super) fn copy(
        &mut self,
        state: &mut State<'_>,
        step: &Step,
        copy: &Copy,
        context: &Context,
        unpack: bool,
    ) -> Result<()> {
        let options = copy_options(state, &copy.flags)?;
        let sources = copy.sources.iter().map(|s| state.expand(s)).collect::<Result<Vec<_>>>()?;
        let mut files = Vec::new();
        let mut urls = Vec::new();
        for source in &sources {
            if unpack && fetch::is_remote(source)? {
                urls.push(source.clone());
            } else {
                files.extend(context.find(source)?);
            }
        }
        let mut remote = Remote::new(urls, options.checksum.clone(), &self.setting.work)?;
        let text = |d: &Document| if d.expand { state.expand_text(&d.content) } else { Ok(d.content.clone()) };
        let documents = copy.documents.iter().map(|d| Ok((d.name.clone(), text(d)?))).collect::<Result<Vec<_>>>()?;
        let destination = destination(&state.workdir(), &state.expand(&copy.destination)?);
        let digest = context.digest(&files)?;
        let digests = remote.digests();
        let material = format!("{sources:?} {documents:?} {destination} {options:?} {unpack} {digests:?}");
        let parts: [&[u8]; 3] = [b"COPY", material.as_bytes(), digest.as_str().as_bytes()];
        self.change(state, step, &parts, |setting| {
            tracing::info!("{}", step.text);
            let owner = options.owner.map(|spec| users::owner(&setting.root, &spec)).transpose()?;
            let fetched = remote.fetch(&setting.work)?;
            Plan { sources: files, fetched, documents, destination, owner, mode: options.mode, unpack }
                .run(context, &setting.root)
        })
    }

    pub(super) fn workdir(&mut self, state: &mut State<'_>, step: &Step, path: &str) -> Result<()> {
        let dir = clean_path(&PathBuf::from(state.workdir()).join(state.expand(path)?));
        state.image.config.working_dir = dir.display().to_string();
        let user = state.image.config.user.clone();
        let material = format!("{}\0{user}", dir.display());
        self.change(state, step, &[b"WORKDIR", material.as_bytes()], |Setting { root, .. }| {
            let user = users::find(root, &user)?;
            for made in make_dir(root, &dir)? {
                lchown(&made, Some(user.uid), Some(user.gid)).map_err(|e| Error::at("chown", &made, &e))?;
            }
            Ok(())
        })
    }
}

/// What `ADD` takes from elsewhere. Where a checksum says what it must be, it is not fetched unless it is needed.
struct Remote {
    urls: Vec<String>,
    checksum: Option<Digest>,
    fetched: Vec<Fetched>,
}

impl Remote {
    fn new(urls: Vec<String>, checksum: Option<Digest>, work: &Path) -> Result<Self> {
        if checksum.is_some() && urls.len() != 1 {
            return Err(Error::new("--checksum is for one URL"));
        }
        let fetched = if checksum.is_some() { Vec::new() } else { Self::fetch_all(&urls, work)? };
        Ok(Self { urls, checksum, fetched })
    }

    fn fetch_all(urls: &[String], work: &Path) -> Result<Vec<Fetched>> {
        urls.iter().map(|url| fetch::fetch(url, work)).collect()
    }

    fn digests(&self) -> Vec<&str> {
        self.checksum.iter().chain(self.fetched.iter().map(|file| &file.digest)).map(Digest::as_str).collect()
    }

    fn fetch(&mut self, work: &Path) -> Result<Vec<Fetched>> {
        let Some(checksum) = &self.checksum else { return Ok(std::mem::take(&mut self.fetched)) };
        let fetched = Self::fetch_all(&self.urls, work)?;
        match fetched.iter().find(|file| file.digest != *checksum) {
            Some(file) => Err(Error::new(format!("{}: its digest is {}, not {checksum}", file.url, file.digest))),
            None => Ok(fetched),
        }
    }
}

/// Makes the directory that a path leads to, and those above it; returns those that were missing.
fn make_dir(root: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = within(root, dir)?;
    make_dirs(root, &[dir.strip_prefix(root).unwrap_or(&dir).to_owned()])
}

/// Makes directories that are missing; returns those that were made, the deepest first.
pub(super) fn make_dirs(root: &Path, dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for dir in dirs {
        let mut path = root.to_owned();
        for part in dir.strip_prefix("/").unwrap_or(dir).components() {
            path.push(part);
            if path.is_dir() {
                continue;
            }
            fs::create_dir(&path).map_err(|e| Error::at("create", &path, &e))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(|e| Error::at("create", &path, &e))?;
            made.push(path.clone());
        }
    }
    made.reverse();
    Ok(made)
}

/// A here-document that is a program of its own.
struct Script {
    path: PathBuf,
    /// As seen in the root.
    name: String,
}

impl Script {
    fn write(root: &Path, text: &str) -> Result<Self> {
        let name = format!("/tmp/.dockerfile-run-{}", std::process::id());
        let script = Self { path: root.join(&name[1..]), name };
        let failed = |e| Error::at("write", &script.path, &e);
        // Whatever is there is not ours to follow.
        let _ = fs::remove_file(&script.path);
        let mut file = fs::File::create_new(&script.path).map_err(failed)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
        fs::set_permissions(&script.path, Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The words to run, or the text of a script with its own interpreter.
fn command_line(state: &State<'_>, command: &Command, documents: &[Document]) -> (Vec<String>, Option<String>) {
    let text = match command {
        Command::Exec(words) => return (words.clone(), None),
        Command::Shell(text) => text,
    };
    let shell = |text: String| state.shell().into_iter().chain([text]).collect();
    let [document] = documents else {
        let text = documents.iter().fold(text.clone(), |t, d| format!("{t}\n{}{}", d.content, d.name));
        return (shell(text), None);
    };
    if text.split_whitespace().count() > 1 {
        return (shell(format!("{text}\n{}{}", document.content, document.name)), None);
    }
    let untabbed = |text: &str| text.lines().map(|l| l.trim_start_matches('\t').to_owned() + "\n").collect::<String>();
    let content = if document.chomp { untabbed(&document.content) } else { document.content.clone() };
    if content.starts_with("#!") {
        return (Vec::new(), Some(content));
    }
    (shell(content), None)
}

/// The image's own and the build arguments, sorted.
fn environment(state: &State<'_>) -> Vec<(String, String)> {
    let mut env = state.args.clone();
    for (name, value) in state.image.config.env.iter().filter_map(|entry| entry.split_once('=')) {
        env.insert(name.to_owned(), value.to_owned());
    }
    env.into_iter().collect()
}

#[derive(Debug, Default)]
struct CopyOptions {
    owner: Option<String>,
    mode: Option<u32>,
    checksum: Option<Digest>,
}

fn copy_options(state: &State<'_>, flags: &[Flag]) -> Result<CopyOptions> {
    let mut options = CopyOptions::default();
    for flag in flags {
        let value = state.expand(&flag.value)?;
        match flag.name.as_str() {
            "chown" => options.owner = Some(value),
            "chmod" => {
                let mode = u32::from_str_radix(&value, 8).ok().filter(|mode| *mode <= 0o7777);
                options.mode = Some(mode.ok_or_else(|| Error::new(format!("--chmod={value} is not an octal mode")))?);
            }
            "checksum" => {
                let digest = Digest::parse(&value).map_err(|e| Error::new(format!("--checksum={value}: {e}")))?;
                options.checksum = Some(digest);
            }
            // Layers are independent of each other here in any case.
            "link" => {}
            "from" => return Err(Error::new("--from is not supported: there is no other stage or image")),
            other => return Err(Error::new(format!("flag --{other} is not supported"))),
        }
    }
    Ok(options)
}

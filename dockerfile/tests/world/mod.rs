//! busybox in a root of its own, and Dockerfiles applied to it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use dockerfile::{Applier, Cache, Ignore, Setting, parse};
use image::{BlobSource, Config, Digest, Image, Layer};

/// A base image, its file system, and a build context.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) image: Image,
    /// The root of this run.
    pub(crate) run: usize,
}

impl World {
    /// `None`, with a sentence, where the test cannot run.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::getuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs root and /bin/busybox");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        let config =
            Config { env: vec!["PATH=/bin".into(), "FROM_BASE=yes".into()], os: "linux".into(), ..Config::default() };
        let mut world = Self { dir, image: Image { config, ..Image::default() }, run: 0 };
        world.fresh_root();
        Some(world)
    }

    /// Another file system of the same base.
    pub(crate) fn fresh_root(&mut self) {
        self.run += 1;
        let root = self.root();
        for dir in ["bin", "etc", "tmp", "dev", "proc", "data/old"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "rm", "mkdir", "ln", "chmod", "chown", "mknod", "mkfifo", "sleep", "id", "setsid", "test",
            "touch", "echo", "ls",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\ncnb:x:1000:1001::/home/cnb:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nadm:x:4:cnb\ncnb:x:1001:\n").unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(root.join("data/old/file"), "old").unwrap();
        File::create(root.join("dev/null")).unwrap();
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join(format!("root-{}", self.run))
    }

    pub(crate) fn context(&self, name: &str, content: &str) {
        let path = self.dir.path().join("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn apply(&self, text: &str, args: &[(&str, &str)]) -> dockerfile::Result<Image> {
        let root = self.root();
        let cache = Cache { dir: self.dir.path().join("cache"), ttl: Duration::from_secs(600) };
        let setting = Setting {
            ignore: Ignore::new(&root, &[PathBuf::from("/ignored")]).unwrap(),
            root,
            work: self.dir.path().join(format!("work-{}", self.run)),
            cache: Some(cache),
            user_required: false,
        };
        let mut applier = Applier::new(setting, &Digest::of(b"base"));
        let args: Vec<_> = args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let text = format!("ARG base_image\nFROM ${{base_image}}\n{text}");
        let done = applier.apply(
            &parse(&text)?,
            self.image.clone(),
            &args,
            &self.dir.path().join("Dockerfile"),
            &self.dir.path().join("context"),
        )?;
        applier.finish()?;
        Ok(done.image)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }
}

pub(crate) fn tar_of(layer: &Layer) -> tar::Archive<File> {
    let blob = layer.blob.as_ref().unwrap();
    let BlobSource::Layout(dir) = &blob.source else { panic!("{blob:?}") };
    let path = dir.join("blobs/sha256").join(blob.digest.hex());
    assert_eq!(path.metadata().unwrap().len(), blob.size);
    tar::Archive::new(File::open(path).unwrap())
}

/// Name → type, mode, uid, gid, link.
pub(crate) fn entries(layer: &Layer) -> BTreeMap<String, (u8, u32, u64, u64, String)> {
    let mut archive = tar_of(layer);
    let describe = |entry: std::io::Result<tar::Entry<'_, File>>| {
        let entry = entry.unwrap();
        let header = entry.header();
        let link = entry.link_name().unwrap().map(|l| l.display().to_string()).unwrap_or_default();
        let path = entry.path().unwrap().display().to_string();
        let kind = header.entry_type().as_byte();
        (path, (kind, header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap(), link))
    };
    archive.entries().unwrap().map(describe).collect()
}

//! What the phases that touch images work on: a real registry with a run image in it, and the files of a build, all
//! below one temporary directory. Images are put and read in the registry's storage, so that no client is trusted.
#![allow(dead_code, reason = "each test executable uses its part")]
#![allow(clippy::expect_used, reason = "a harness panics")]

pub(crate) mod storage;

use std::{fmt::Write as _, fs, ops::Deref, os::unix::fs::MetadataExt, path::Path, process::Command};

use acceptance::{
    image::LayoutImage,
    registry::{Options, RegistryServer},
    run::{command, executable},
    tree::{Entry, TempTree, give_to, write},
};
use serde_json::{Value, json};

/// User and group of the build, where the tests run as root.
pub(crate) const USER: u32 = 1000;

/// The files of the run image `run:latest`, one list for each layer.
pub(crate) const RUN_FILES: &[&[(&str, &str)]] = &[&[("etc/os", "one")], &[("etc/more", "two")]];

pub(crate) struct World {
    dir: TempTree,
    pub(crate) registry: RegistryServer,
    /// What names of images begin with: the registry, or a server in front of it.
    pub(crate) host: String,
}

impl Deref for World {
    type Target = TempTree;

    fn deref(&self) -> &TempTree {
        &self.dir
    }
}

impl World {
    /// A registry without passwords; one buildpack, `acme/jvm`, in the group; a little app; no layers.
    pub(crate) fn new() -> Self {
        Self::with(&Options::default())
    }

    pub(crate) fn with(options: &Options<'_>) -> Self {
        let registry = RegistryServer::start(options);
        let world = Self { dir: TempTree::new(&[]), host: registry.host(), registry };
        world.write(&[
            ("app/main.txt", Entry::File("hello")),
            ("app/static/page.html", Entry::File("<p>")),
            ("cnb/launcher", Entry::Mode(0o755, "launch")),
            ("layers/config/metadata.toml", Entry::File(METADATA)),
            ("layers/acme_jvm", Entry::Dir),
            ("cache", Entry::Dir),
            ("home", Entry::Dir),
            ("tmp", Entry::Dir),
        ]);
        world.group(&["acme/jvm"]);
        world.push("run:latest", &run_image(), RUN_FILES);
        world.run_images(&[world.name("run:latest")]);
        world
    }

    /// Removes a file or a tree, where there is one.
    pub(crate) fn remove(&self, path: &str) {
        if self.exists(path) {
            self.dir.remove(path);
        }
    }

    /// A name in this registry.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// group.toml: buildpacks of version 1.0.0 and Buildpack API 0.10.
    pub(crate) fn group(&self, ids: &[&str]) {
        let mut text = String::new();
        for id in ids {
            let _ = writeln!(text, "[[group]]\nid = \"{id}\"\nversion = \"1.0.0\"\napi = \"0.10\"");
            self.write(&[(&format!("layers/{}", id.replace('/', "_")), Entry::Dir)]);
        }
        self.write(&[("layers/group.toml", Entry::File(&text))]);
    }

    /// run.toml, and stack.toml for older Platform APIs: the first is the image, the others are its mirrors.
    pub(crate) fn run_images(&self, names: &[String]) {
        let body = format!("image = {:?}\nmirrors = {:?}\n", names[0], &names[1..]);
        self.write(&[
            ("cnb/run.toml", Entry::File(&format!("[[images]]\n{body}"))),
            ("cnb/stack.toml", Entry::File(&format!("[run-image]\n{body}"))),
        ]);
    }

    /// A layer of `acme/jvm`: its types and metadata as TOML, and its files (`None`: no directory).
    pub(crate) fn layer(&self, name: &str, types: &str, files: Option<&[(&str, Entry)]>) {
        self.layer_of("acme_jvm", name, types, files);
    }

    pub(crate) fn layer_of(&self, buildpack: &str, name: &str, types: &str, files: Option<&[(&str, Entry)]>) {
        let dir = format!("layers/{buildpack}/{name}");
        self.write(&[(&format!("{dir}.toml"), Entry::File(&format!("[types]\n{types}\n")))]);
        self.remove(&dir);
        if let Some(files) = files {
            self.write(&[(&dir, Entry::Dir)]);
            write(&self.path(&dir), files);
        }
    }

    /// Removes what buildpacks left, as between two builds.
    pub(crate) fn clear_layers(&self) {
        let ids: Vec<String> = self.toml("layers/group.toml")["group"]
            .as_array()
            .expect("a group")
            .iter()
            .map(|b| b["id"].as_str().expect("an id").to_owned())
            .collect();
        for id in ids {
            let dir = format!("layers/{}", id.replace('/', "_"));
            self.remove(&dir);
            self.write(&[(&dir, Entry::Dir)]);
        }
        self.remove("layers/sbom");
    }

    /// A call with all paths in variables; as root it is told to become the build's user, who gets all the files.
    pub(crate) fn call(&self, name: &str, api: &str) -> Command {
        self.call_program(&executable(name), api)
    }

    /// The same, of any executable.
    pub(crate) fn call_program(&self, program: &Path, api: &str) -> Command {
        let mut call = command(program);
        call.env("CNB_PLATFORM_API", api).env("CNB_NO_COLOR", "true").env("TMPDIR", self.path("tmp"));
        for (variable, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_LAYERS_DIR", "layers"),
            ("CNB_RUN_PATH", "cnb/run.toml"),
            ("CNB_STACK_PATH", "cnb/stack.toml"),
        ] {
            call.env(variable, self.path(path));
        }
        let (uid, gid) = self.user();
        call.env("CNB_USER_ID", uid.to_string()).env("CNB_GROUP_ID", gid.to_string());
        if is_root() {
            for dir in ["app", "layers", "cache", "home", "tmp"] {
                if self.exists(dir) {
                    give_to(&self.path(dir), USER, USER);
                }
            }
            // Of the directory itself only the owner changes, so that report files may be written there.
            std::os::unix::fs::chown(self.path(""), Some(USER), Some(USER)).expect("chown the world's directory");
        }
        call
    }

    /// User and group that own what is built.
    pub(crate) fn user(&self) -> (u32, u32) {
        if is_root() {
            return (USER, USER);
        }
        let metadata = fs::metadata(self.path("")).expect("the world's directory");
        (metadata.uid(), metadata.gid())
    }

    /// analyzer for one image of this registry.
    pub(crate) fn analyzer(&self, api: &str, image: &str) -> Command {
        let mut call = self.call("analyzer", api);
        call.arg(self.name(image));
        call
    }

    pub(crate) fn restorer(&self, api: &str) -> Command {
        self.call("restorer", api)
    }

    /// exporter for images of this registry.
    pub(crate) fn exporter(&self, api: &str, images: &[&str]) -> Command {
        let mut call = self.call("exporter", api);
        call.arg("-launcher").arg(self.path("cnb/launcher"));
        call.args(images.iter().map(|image| self.name(image)));
        call
    }

    pub(crate) fn rebaser(&self, api: &str, images: &[&str]) -> Command {
        let mut call = self.call("rebaser", api);
        call.args(images.iter().map(|image| self.name(image)));
        call
    }

    /// analyzed.toml as analyzer leaves it where there is no previous image.
    pub(crate) fn analyzed(&self) {
        let image = self.name("run:latest");
        let reference = self.name(&format!("run@{}", self.digest("run:latest").expect("the run image")));
        let text = format!(
            "[run-image]\nreference = \"{reference}\"\nimage = \"{image}\"\n[run-image.target]\nos = \
             \"linux\"\narch = \"amd64\"\n"
        );
        self.write(&[("layers/analyzed.toml", Entry::File(&text))]);
    }

    /// Puts an image into the registry: a config without rootfs, and the files of its layers.
    pub(crate) fn push(&self, name: &str, config: &Value, layers: &[&[(&str, &str)]]) -> String {
        storage::push(&self.registry.storage(), name, config, layers)
    }

    /// The digest of a tag, where the registry has it.
    pub(crate) fn digest(&self, name: &str) -> Option<String> {
        storage::digest(&self.registry.storage(), name)
    }

    /// The image of a tag, checked whole.
    pub(crate) fn image(&self, name: &str) -> LayoutImage {
        let image = self.image_unchecked(name);
        image.validate();
        image
    }

    /// The same; its blobs may be damaged.
    pub(crate) fn image_unchecked(&self, name: &str) -> LayoutImage {
        storage::as_layout(&self.registry.storage(), name, &self.path("images"))
    }

    /// Digests of all blobs of the registry, sorted.
    pub(crate) fn blobs(&self) -> Vec<String> {
        storage::blobs(&self.registry.storage())
    }

    /// Whether every blob of a tag's image is in its repository: what a client that pulls it needs.
    pub(crate) fn is_whole(&self, name: &str) -> bool {
        storage::is_whole(&self.registry.storage(), name)
    }
}

/// metadata.toml that build leaves for one process.
pub(crate) const METADATA: &str = r#"buildpack-default-process-type = "web"

[[buildpacks]]
id = "acme/jvm"
version = "1.0.0"
api = "0.10"

[[processes]]
type = "web"
command = ["/bin/true"]
args = ["a"]
direct = true
buildpack-id = "acme/jvm"
"#;

/// The config of `run:latest`, without its rootfs.
pub(crate) fn run_image() -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "author": "acme",
        "created": "2020-01-01T00:00:00Z",
        "history": [
            {"created": "2020-01-01T00:00:00Z", "created_by": "base"},
            {"created": "2020-01-01T00:00:00Z", "created_by": "ENV A=1", "empty_layer": true},
            {"created": "2020-01-01T00:00:00Z", "created_by": "more"}
        ],
        "config": {
            "User": "1000:1000",
            "Env": ["A=1", "PATH=/usr/bin:/bin", "B=2"],
            "Cmd": ["/bin/sh"],
            "WorkingDir": "/",
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {
                "io.buildpacks.base.distro.name": "debian",
                "io.buildpacks.base.distro.version": "12",
                "io.buildpacks.base.id": "base.one",
                "io.buildpacks.rebasable": "true",
                "io.buildpacks.stack.id": "stack.one",
                "io.buildpacks.stack.mixins": "[\"git\"]",
                "maintainer": "acme <a@b>"
            }
        }
    })
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// A value that must be a text.
pub(crate) fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// The path in a layer's tar of something in the world: absolute, as build wrote it.
pub(crate) fn in_tar(path: &Path) -> String {
    path.to_str().expect("a path of letters").to_owned()
}

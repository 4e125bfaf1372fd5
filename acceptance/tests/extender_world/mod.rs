//! The directories of an extender, and containers of the image it extends: busybox, and no network.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use acceptance::{
    image::LayoutImage,
    run::{Outcome, as_root, command, executable, run},
    tree::{
        Entry::{self, Dir, File},
        give_to, temp_dir, write, write_buildpack,
    },
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::engine::Engine;

const USER: u32 = 1000;
const TOOLS: [&str; 10] = ["sh", "cat", "rm", "mkdir", "id", "sleep", "echo", "chmod", "touch", "test"];
const GROUP: &str = r#"
[[group]]
id = "acme/bp"
version = "1.0.0"
api = "0.10"
[[group-extensions]]
id = "acme/one"
version = "1"
api = "0.10"
[[group-extensions]]
id = "acme/two"
version = "1"
api = "0.10"
"#;
const BUILD: &str = r#"
tool; id -u; echo "home $HOME, user $USER"
printf '[[processes]]\ntype = "web"\ncommand = ["tool"]\n' >"$CNB_LAYERS_DIR/launch.toml"
"#;

/// The directories of a build, and the image it runs in.
pub(crate) struct World {
    dir: TempDir,
    engine: Engine,
    image: String,
    pub(crate) api: &'static str,
}

impl World {
    /// With docker; `None`, said on stderr, where a container cannot be had.
    pub(crate) fn new(name: &str, api: &'static str) -> Option<Self> {
        Self::with(name, api, |_| Engine::docker())
    }

    /// `engine` gets the root file system of the base.
    pub(crate) fn with(name: &str, api: &'static str, engine: impl FnOnce(&Path) -> Option<Engine>) -> Option<Self> {
        if !as_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs root and /bin/busybox");
            return None;
        }
        let dir = temp_dir();
        make_root(&dir.path().join("root"));
        let engine = engine(&dir.path().join("root"))?;
        let image = format!("acceptance-extender/{}-{name}", std::process::id());
        let world = Self { dir, engine, image, api };
        world.engine.import(&world.path("root"), &world.image, &["USER 1000:1000"]);
        for dir in ["layers", "workspace", "platform", "kaniko", "cnb/lifecycle"] {
            world.write(dir, Dir);
        }
        fs::copy(executable("extender"), world.path("cnb/lifecycle/extender")).unwrap();
        write_buildpack(&world.path("cnb/buildpacks"), ("acme/bp", "1.0.0", "0.10"), "", "exit 0", BUILD);
        world.write("layers/group.toml", File(GROUP));
        world.write("layers/plan.toml", File(""));
        world.keep_base();
        give_to(&world.path("layers"), USER, USER);
        Some(world)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, entry: Entry<'_>) {
        write(self.dir.path(), &[(path, entry)]);
    }

    /// What a restorer leaves of the base: its manifest and its config, no layer.
    fn keep_base(&self) {
        let digest = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
        let layer = format!("sha256:{}", digest(b"the base's layer"));
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer]},
            "config": {"User": "1000:1000", "Env": ["PATH=/bin", "BASE=a=b"], "Labels": {"io.buildpacks.rebasable": "true"}},
        });
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(),
                "digest": format!("sha256:{}", digest(config.as_bytes()))},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": 1, "digest": layer}],
        });
        let manifest = manifest.to_string();
        let base = format!("sha256:{}", digest(manifest.as_bytes()));
        let index = json!({"schemaVersion": 2, "manifests": [{"size": manifest.len(), "digest": base,
            "mediaType": "application/vnd.oci.image.manifest.v1+json"}]});
        let at = |name: &str| format!("kaniko/cache/base/{base}/{name}");
        self.write(&at("oci-layout"), File(r#"{"imageLayoutVersion":"1.0.0"}"#));
        self.write(&at("index.json"), File(&index.to_string()));
        self.write(&at(&format!("blobs/sha256/{}", digest(config.as_bytes()))), File(&config));
        self.write(&at(&format!("blobs/sha256/{}", digest(manifest.as_bytes()))), File(&manifest));
        let reference = format!("reference = \"a.example/base@{base}\"\n");
        let analyzed = format!("[build-image]\n{reference}[run-image]\n{reference}extend = true\n");
        self.write("layers/analyzed.toml", File(&analyzed));
    }

    /// The Dockerfile of an extension of this kind, after its first two lines.
    pub(crate) fn dockerfile(&self, extension: &str, kind: &str, text: &str) {
        let text = format!("ARG base_image\nFROM ${{base_image}}\n{text}\n");
        let generated = "layers/generated";
        let path = match self.api {
            "0.10" | "0.11" | "0.12" => format!("{generated}/{kind}/acme_{extension}/Dockerfile"),
            _ => format!("{generated}/acme_{extension}/{kind}.Dockerfile"),
        };
        self.write(&path, File(&text));
    }

    /// In a new container of the base.
    pub(crate) fn extend(&self, kind: &str) -> Outcome {
        self.extend_with(kind, &[])
    }

    pub(crate) fn extend_with(&self, kind: &str, further: &[&str]) -> Outcome {
        let api = format!("CNB_PLATFORM_API={}", self.api);
        let mut flags = vec!["--network", "none", "-u", "0", "-e", &api];
        flags.extend(["-e", "CNB_USER_ID=1000", "-e", "CNB_GROUP_ID=1000", "-e", "CNB_LOG_LEVEL=debug"]);
        flags.extend(further);
        let volumes = ["layers", "workspace", "platform", "kaniko", "cnb"];
        let volumes = volumes.map(|name| format!("{}:/{name}", self.path(name).display()));
        flags.extend(volumes.iter().flat_map(|volume| ["-v", volume]));
        let mut container = self.engine.container(&self.image, &flags);
        container.arg("/cnb/lifecycle/extender");
        // Platform APIs before 0.12 extend build images only, and have no such flag.
        if !["0.10", "0.11"].contains(&self.api) {
            container.args(["-kind", kind]);
        }
        run(&mut container)
    }

    /// Without what earlier runs have made.
    pub(crate) fn clear(&self) {
        for dir in ["layers/config", "layers/extended", "kaniko/cache/layers"] {
            let _ = fs::remove_dir_all(self.path(dir));
        }
    }

    /// No result, and nothing half. `after`: what was tried.
    pub(crate) fn has_no_result(&self, after: &str) {
        self.holds_nothing_half(after);
        for path in ["layers/config", "layers/extended/run"] {
            assert!(!self.path(path).exists(), "{after}: {path}");
        }
    }

    /// Layers in the cache are whole, and nothing lies beside them and beside the result.
    pub(crate) fn holds_nothing_half(&self, after: &str) {
        let names = |dir: &str| -> Vec<String> {
            let entries = fs::read_dir(self.path(dir)).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names("kaniko"), ["cache"], "{after}");
        let known = |name: &String| ["base", "layers"].contains(&name.as_str());
        assert!(names("kaniko/cache").iter().all(known), "{after}: {:?}", names("kaniko/cache"));
        for entry in names("kaniko/cache/layers") {
            assert!(entry.starts_with("cached:"), "{after}: {entry}");
            LayoutImage::open(&self.path(&format!("kaniko/cache/layers/{entry}"))).validate();
        }
        assert!(names("layers/extended").iter().all(|name| name == "run"), "{after}: {:?}", names("layers/extended"));
    }

    /// The one image in `<extended>/run`.
    pub(crate) fn extended(&self) -> LayoutImage {
        let entries: Vec<_> =
            fs::read_dir(self.path("layers/extended/run")).unwrap().map(|e| e.unwrap().path()).collect();
        let [dir] = entries.as_slice() else { panic!("{entries:?}") };
        let image = LayoutImage::open(dir);
        assert!(dir.ends_with(image.digest()), "{}", dir.display());
        image
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.engine.remove(&self.image);
    }
}

/// busybox, and the libraries that the executable under test asks for.
pub(crate) fn make_root(root: &Path) {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    for dir in ["bin", "etc", "tmp", "proc", "dev", "root", "home/cnb", "old"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::copy("/bin/busybox", at("bin/busybox")).unwrap();
    for tool in TOOLS {
        symlink("busybox", at("bin").join(tool)).unwrap();
    }
    fs::set_permissions(at("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(at("old/file"), "old").unwrap();
    fs::write(at("etc/passwd"), "root:x:0:0::/root:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n").unwrap();
    fs::write(at("etc/group"), "cnb:x:1000:\n").unwrap();
    let libraries = run(command("ldd").arg(executable("extender"))).stdout();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        fs::create_dir_all(at(library).parent().unwrap()).unwrap();
        fs::copy(library, at(library)).unwrap();
    }
}

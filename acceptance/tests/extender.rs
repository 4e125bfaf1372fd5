//! extender, in containers of the image it extends, without a network. Needs root, docker (or podman) and busybox.
//! platform.md "extender"
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

mod engine;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use acceptance::{
    image::LayoutImage,
    run::{Outcome, as_root, command, executable, run},
    tree::{
        Entry::{Bytes, Dir, File, Link},
        give_to, temp_dir, write, write_buildpack,
    },
};
use engine::Engine;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

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
struct World {
    dir: TempDir,
    engine: Engine,
    image: String,
    api: &'static str,
}

impl World {
    /// With docker; `None`, said on stderr, where a container cannot be had.
    fn new(name: &str, api: &'static str) -> Option<Self> {
        Self::with(name, api, |_| Engine::docker())
    }

    /// `engine` gets the root file system of the base.
    fn with(name: &str, api: &'static str, engine: impl FnOnce(&Path) -> Option<Engine>) -> Option<Self> {
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

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, entry: acceptance::tree::Entry<'_>) {
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
    fn dockerfile(&self, extension: &str, kind: &str, text: &str) {
        let text = format!("ARG base_image\nFROM ${{base_image}}\n{text}\n");
        let generated = "layers/generated";
        let path = match self.api {
            "0.10" | "0.11" | "0.12" => format!("{generated}/{kind}/acme_{extension}/Dockerfile"),
            _ => format!("{generated}/acme_{extension}/{kind}.Dockerfile"),
        };
        self.write(&path, File(&text));
    }

    /// In a new container of the base.
    fn extend(&self, kind: &str) -> Outcome {
        let api = format!("CNB_PLATFORM_API={}", self.api);
        let mut flags = vec!["--network", "none", "-u", "0", "-e", &api];
        flags.extend(["-e", "CNB_USER_ID=1000", "-e", "CNB_GROUP_ID=1000", "-e", "CNB_LOG_LEVEL=debug"]);
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

    /// The one image in `<extended>/run`.
    fn extended(&self) -> LayoutImage {
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
fn make_root(root: &Path) {
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

#[test]
fn a_build_sees_what_extensions_installed() {
    for api in ["0.10", "0.12", "0.13", "0.15"] {
        let Some(world) = World::new(&format!("build-{api}"), api) else { return };
        sees_what_was_installed(&world);
    }
}

#[test]
fn podman_is_a_container_too() {
    let Some(world) =
        World::with("podman", "0.13", |root| Engine::podman(|engine, image| engine.import(root, image, &[])))
    else {
        return;
    };
    sees_what_was_installed(&world);
}

/// A build in the extended image, and another one with what the first left in the cache.
fn sees_what_was_installed(world: &World) {
    let api = world.api;
    let tool = r"RUN printf '#!/bin/sh\necho the tool of $BASE\n' >/bin/tool && chmod 755 /bin/tool";
    world.dockerfile("one", "build", &format!("ARG user_id\nUSER root\n{tool}\nUSER ${{user_id}}"));
    world.dockerfile("two", "build", "RUN tool\nENV PATH=$PATH:/more");
    for (seen, unseen) in [
        ("No cached layer found for cmd RUN printf", "Using caching"),
        ("Using caching version of cmd: RUN tool", "No cached"),
    ] {
        let outcome = world.extend("build").ok().says("the tool of").says("\n1000\n").says("home /home/cnb").says(seen);
        assert!(!outcome.all().contains(unseen), "{api}: {}", outcome.all());
    }
    let metadata = fs::read_to_string(world.path("layers/config/metadata.toml")).unwrap();
    assert!(metadata.contains("\"web\""), "{metadata}");
    let left: Vec<_> = fs::read_dir(world.path("kaniko")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["cache"], "{api}");
}

#[test]
fn a_run_image_gets_layers_for_the_exporter() {
    for api in ["0.12", "0.14"] {
        let Some(world) = World::new(&format!("run-{api}"), api) else { return };
        let rebasable = "LABEL io.buildpacks.rebasable=true";
        world.write("workspace/from-app", File("app"));
        world.dockerfile("one", "run", &format!("{rebasable}\nUSER root\nRUN rm -r /old && echo 1 >/one"));
        world.dockerfile("two", "run", &format!("{rebasable}\nENV X=1\nCOPY from-app /copied\nUSER 1000:1000"));
        world
            .extend("run")
            .ok()
            .says("changed the user ID from 1000 to root")
            .says("No cached layer found for cmd RUN rm");
        let image = world.extended();
        let names = |n: usize| image.layer(n).into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(
            (names(1), names(2)),
            (vec![".wh.old".to_owned(), "one".to_owned()], vec!["copied".to_owned()]),
            "{api}"
        );
        let history: Vec<_> =
            image.config["history"].as_array().unwrap().iter().map(|h| h["created_by"].clone()).collect();
        assert_eq!(history.len(), image.diff_ids().len());
        assert_eq!(history[1], "Layer: 'RUN rm -r /old && echo 1 >/one', Created by extension: acme/one");
        assert_eq!(history[2], "Layer: 'COPY from-app /copied', Created by extension: acme/two");
        assert_eq!(image.label("io.buildpacks.rebasable").as_deref(), Some("true"));
        assert_eq!(image.env("X").as_deref(), Some("1"));
        assert_eq!(image.config["config"]["User"], "1000:1000");
        let base = image.manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        assert!(!image.dir.join(base).exists());

        // All from the cache: the same image.
        let outcome =
            world.extend("run").ok().says("Using caching version of cmd: RUN rm").says("version of cmd: COPY");
        assert!(!outcome.all().contains("No cached layer"), "{}", outcome.all());
        assert_eq!(world.extended().digest(), image.digest());

        // The base's label is not the extension's.
        world.dockerfile("two", "run", "COPY from-app /copied\nUSER 1000");
        world.extend("run").ok();
        assert_eq!(world.extended().label("io.buildpacks.rebasable").as_deref(), Some("false"));
    }
}

/// The directory is of a lower layer, which overlay file systems rename for nobody.
#[test]
fn what_run_mounts_is_in_no_layer() {
    let Some(world) = World::new("mounts", "0.13") else { return };
    let mount = "RUN --mount=type=cache,target=/old";
    let text = format!(
        "USER root\n{mount} test ! -e /old/file && touch /old/kept /made\n{mount} test -e /old/kept && touch /made2\n\
         RUN test -e /old/file && touch /made3\nUSER 1000"
    );
    world.dockerfile("one", "run", &text);
    world.extend("run").ok();
    let image = world.extended();
    for (n, name) in [(1, "made"), (2, "made2"), (3, "made3")] {
        assert_eq!(image.layer(n).into_iter().map(|e| e.path).collect::<Vec<_>>(), [name]);
    }
}

/// A link, and a file through it.
fn evil_tar() -> Vec<u8> {
    let header = |kind, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_link(&mut header(tar::EntryType::Symlink, 0), "link", "/etc").unwrap();
    tar.append_data(&mut header(tar::EntryType::Regular, 1), "link/passwd", &b"x"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// In a root file system of its own that is no container's: a tmpfs, with nothing that an engine would leave there.
#[test]
fn outside_of_a_container_it_refuses() {
    if !as_root() || !Path::new("/bin/busybox").exists() {
        return;
    }
    let dir = temp_dir();
    make_root(&dir.path().join("root"));
    fs::copy(executable("extender"), dir.path().join("root/bin/extender")).unwrap();
    let script = r#"mount -t tmpfs box "$1/mnt" && cp -a "$1/root/." "$1/mnt" && mount -t proc proc "$1/mnt/proc" || exit 77
        exec unshare --root="$1/mnt" /bin/extender -kind run"#;
    fs::create_dir(dir.path().join("mnt")).unwrap();
    for (allowed, expected) in [("", "should only be run inside of a container"), ("true", "group.toml")] {
        let mut call = command("unshare");
        call.args(["--mount", "--pid", "--fork", "--cgroup", "sh", "-c", script, "sh"]).arg(dir.path());
        call.env("CNB_PLATFORM_API", "0.13").env("CNB_EXTEND_OUTSIDE_CONTAINER", allowed);
        let outcome = run(call.env("CNB_USER_ID", "1000").env("CNB_GROUP_ID", "1000"));
        if outcome.code() == 77 || outcome.stderr().contains("unshare failed") {
            eprintln!("skipped: no mounts here: {}", outcome.stderr());
            return;
        }
        assert!(outcome.code() != 0);
        outcome.says(expected);
    }
}

#[test]
fn what_goes_wrong_is_exit_code_102_and_leaves_nothing() {
    let Some(world) = World::new("hostile", "0.13") else { return };
    let context = "layers/generated/acme_one/context";
    world.write(&format!("{context}/file"), File("x"));
    world.write(&format!("{context}/out"), Link("../../../analyzed.toml"));
    world.write(&format!("{context}/evil.tar"), Bytes(&evil_tar()));
    for (text, expected) in [
        ("USER root\nRUN touch /x", "the final user ID is root (root); please add another extension"),
        ("USER 0", "the final user ID is 0 (root)"),
        ("RUN exit 3", "exit status: 3"),
        ("RUM x", "unknown instruction: RUM"),
        ("FROM other\nRUN x", "multistage builds are not supported"),
        ("COPY ../../group.toml /", "forbidden path outside the build context"),
        ("COPY out /", "forbidden path outside the build context: out leads to"),
        ("COPY none /", "no such file in the build context"),
        ("ADD evil.tar /", "leads through a symlink of the same archive"),
        ("ADD http://127.0.0.1:1/x /", "GET http://127.0.0.1:1/x: "),
        ("USER root\nRUN rm /bin/sh\nRUN echo", "line 5: RUN echo"),
        ("USER nobody\nRUN x", "unable to find user nobody"),
    ] {
        world.dockerfile("one", "run", text);
        world.extend("run").exits(102).says(expected);
        assert!(!world.path("layers/extended/run").exists(), "{text}");
        assert!(!fs::read_dir(world.path("kaniko")).unwrap().any(|e| e.unwrap().file_name() != "cache"), "{text}");
    }
    // Only the first may switch the base.
    world.dockerfile("one", "run", "LABEL a=b");
    world.write("layers/generated/acme_two/run.Dockerfile", File("FROM other.example/base\nRUN x\n"));
    world.extend("run").exits(102).says("FROM other.example/base: it is applied to the image before it");
    fs::remove_file(world.path("layers/generated/acme_two/run.Dockerfile")).unwrap();
    // What a RUN leaves running is ended, and no error.
    world.dockerfile("one", "run", "RUN sleep 1234 & echo started");
    world.extend("run").ok().says("left running were ended");
    fs::remove_dir_all(world.path("kaniko/cache/base")).unwrap();
    world.extend("run").exits(102).says("getting run image to extend");
    world.extend("none").exits(3);
}

//! Whole builds with the extensions of `acceptance/extensions`, in docker and in podman, on an image that debootstrap
//! made: a Debian package in build and run image, another run image, and a rebase afterwards. Containers have the
//! rights that every container has. Needs root, docker or podman, docker-registry, debootstrap and a Debian mirror
//! (`DEBIAN_MIRROR`).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

mod debian;
mod engine;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use acceptance::{
    registry::RegistryServer,
    run::{Outcome, command, executable, run, workspace},
    tree::{
        Entry::{Dir, File},
        give_to, temp_dir, write, write_buildpack,
    },
};
use engine::Engine;
use tempfile::TempDir;

const API: &str = "0.14";
const EXECUTABLES: [&str; 8] =
    ["analyzer", "builder", "detector", "exporter", "extender", "launcher", "rebaser", "restorer"];
const ORDER: &str = r#"
[[order-extensions]]
[[order-extensions.group]]
id = "samples/apt"
version = "1.0.0"
optional = true
[[order-extensions.group]]
id = "samples/note"
version = "1.0.0"
optional = true
[[order-extensions.group]]
id = "samples/switch"
version = "1.0.0"
optional = true
[[order]]
[[order.group]]
id = "acme/bp"
version = "1.0.0"
"#;
/// Uses the package and the note at build time, and makes both the app's.
const BUILD: &str = r#"
hello; cat /etc/note; id -u
printf '[[processes]]\ntype = "web"\ncommand = ["sh", "-c", "hello; cat /etc/note; echo by $NOTE_BY"]\ndefault = true\n' \
    >"$CNB_LAYERS_DIR/launch.toml"
"#;

/// The directories of a build, and images in a registry.
struct World {
    dir: TempDir,
    engine: Engine,
    registry: RegistryServer,
}

impl World {
    /// `None`, said on stderr, where something is missing.
    fn new(engine: impl FnOnce(&Path) -> Option<Engine>) -> Option<Self> {
        let root = debian::root()?;
        let world = Self { dir: temp_dir(), engine: engine(root)?, registry: RegistryServer::plain() };
        let changes =
            ["USER 1000:1000", "LABEL io.buildpacks.rebasable=true", "ENV CNB_USER_ID=1000", "ENV CNB_GROUP_ID=1000"];
        let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        world.engine.import_tar(root, &world.name("base:0"), &[&changes[..], &[path]].concat());
        world.engine.does(&["tag", &world.name("base:0"), &world.name("base:1")]);
        world.engine.transfer("push", &world.name("base:1"));
        world.push_newer("base:2");
        for dir in ["workspace", "platform/env", "kaniko", "cnb/lifecycle"] {
            write(world.dir.path(), &[(dir, Dir)]);
        }
        for name in EXECUTABLES {
            fs::copy(executable(name), world.path("cnb/lifecycle").join(name)).unwrap();
        }
        write_buildpack(&world.path("cnb/buildpacks"), ("acme/bp", "1.0.0", "0.10"), "", "exit 0", BUILD);
        for sample in ["apt", "note", "switch"] {
            let to = world.path(&format!("cnb/extensions/samples_{sample}"));
            fs::create_dir_all(&to).unwrap();
            let from = workspace().join("acceptance/extensions").join(sample);
            run(command("cp").arg("-r").arg(from).arg(to.join("1.0.0"))).ok();
        }
        let run_toml = format!("[[images]]\nimage = \"{}\"\n", world.name("base:1"));
        write(&world.path("cnb"), &[("order.toml", File(ORDER)), ("run.toml", File(&run_toml))]);
        Some(world)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.registry.host())
    }

    /// The first base with one layer more: a file `/etc/patched` that names it.
    fn push_newer(&self, image: &str) {
        write(self.dir.path(), &[("patched", File(image))]);
        let does = |words: &[&str]| self.engine.does(words).stdout().trim().to_owned();
        let container = does(&["create", "--network", "none", &self.name("base:0"), "true"]);
        does(&["cp", &self.path("patched").display().to_string(), &format!("{container}:/etc/patched")]);
        does(&["commit", &container, &self.name(image)]);
        does(&["rm", &container]);
        self.engine.transfer("push", &self.name(image));
    }

    /// An executable in a new container of this image.
    fn phase(&self, image: &str, executable: &str, arguments: &[&str]) -> Outcome {
        let api = format!("CNB_PLATFORM_API={API}");
        // Those that run what buildpacks bring refuse to be root.
        let user = if ["detector", "builder"].contains(&executable) { "1000:1000" } else { "0" };
        let mut flags = vec!["--network", "host", "-u", user, "-w", "/workspace", "-e", &api];
        flags.extend(["-e", "CNB_USER_ID=1000", "-e", "CNB_GROUP_ID=1000"]);
        let volumes = ["layers", "workspace", "platform", "kaniko", "cnb"];
        let volumes = volumes.map(|name| format!("{}:/{name}", self.path(name).display()));
        flags.extend(volumes.iter().flat_map(|volume| ["-v", volume]));
        let mut call = self.engine.container(&self.name(image), &flags);
        run(call.arg(format!("/cnb/lifecycle/{executable}")).args(arguments)).ok()
    }

    fn prepare(&self) {
        let _ = fs::remove_dir_all(self.path("layers"));
        fs::create_dir(self.path("layers")).unwrap();
        give_to(&self.path("layers"), 1000, 1000);
        self.phase("base:1", "analyzer", &[&self.name("app")]);
        self.phase("base:1", "detector", &[]);
        self.phase("base:1", "restorer", &["-build-image", &self.name("base:1")]);
    }

    /// What these words say in a container of the app; without words, the app itself.
    fn in_app(&self, words: &[&str]) -> String {
        let app = self.name("app");
        self.engine.transfer("pull", &app);
        let (program, arguments) = words.split_first().unzip();
        let entrypoint: Vec<_> = program.iter().flat_map(|program| ["--entrypoint", *program]).collect();
        let mut call = self.engine.container(&app, &[&["--network", "none"], &entrypoint[..]].concat());
        let said = run(call.args(arguments.unwrap_or_default())).ok().stdout();
        self.engine.remove(&app);
        said
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for image in ["base:0", "base:1", "base:2"] {
            self.engine.remove(&self.name(image));
        }
    }
}

/// The bytes of the files below a directory.
fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| if e.path().is_dir() { bytes(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

const NOTE: &str = "Hello, world!\na note for the run image\nby the extension's run argument\n";

#[test]
fn packages_for_the_build_and_for_the_app() {
    let Some(world) = World::new(|_| Engine::docker()) else { return };
    packages(&world);
    another_run_image(&world);
}

#[test]
fn packages_in_podman() {
    let podman = |root: &Path| Engine::podman(|engine, image| engine.import_tar(root, image, &[]));
    let Some(world) = World::new(podman) else { return };
    packages(&world);
}

/// Two builds, the second with what the first left in the cache, and a rebase.
fn packages(world: &World) {
    write(&world.path("workspace"), &[("apt.txt", File("hello\n"))]);
    let mut digests = BTreeSet::new();
    for first in [true, false] {
        world.prepare();
        for kind in ["run", "build"] {
            // Both are extended from the same base, so the build image takes what was made for the run image.
            let runs = first && kind == "run";
            let seen = if runs {
                "No cached layer found for cmd RUN apt-get"
            } else {
                "Using caching version of cmd: RUN apt-get"
            };
            let started = Instant::now();
            let outcome = world.phase("base:1", "extender", &["-kind", kind]).says(seen);
            eprintln!("first: {first}: extended the {kind} image in {:?}, its container included", started.elapsed());
            assert_eq!(outcome.all().contains("Setting up hello"), runs, "{}", outcome.all());
            if kind == "build" {
                outcome.says("Hello, world!\na note for the build image\n1000");
            }
        }
        let sizes = ["kaniko/cache/layers", "layers/extended/run"].map(|dir| bytes(&world.path(dir)));
        eprintln!("first: {first}: bytes of cached layers, and of the extended run image: {sizes:?}");
        world.phase("base:1", "exporter", &[&world.name("app")]);
        let report = fs::read_to_string(world.path("layers/report.toml")).unwrap();
        digests.extend(report.lines().find(|line| line.contains("digest")).map(str::to_owned));
        assert_eq!(world.in_app(&[]), NOTE);
    }
    // From the cache comes the same image.
    assert_eq!(digests.len(), 1, "{digests:?}");

    // The base has a newer version. All said that they may be rebased, so nobody has to be forced.
    world.push_newer("base:1");
    world.phase("base:1", "rebaser", &[&world.name("app")]);
    assert_eq!(world.in_app(&[]), NOTE);
    assert_eq!(world.in_app(&["cat", "/etc/patched"]), "base:1");
}

fn another_run_image(world: &World) {
    fs::remove_file(world.path("workspace/apt.txt")).unwrap();
    let new = world.name("base:2");
    write(&world.path("platform"), &[("env/NEW_RUN_IMAGE", File(&new))]);
    world.prepare();
    let analyzed = fs::read_to_string(world.path("layers/analyzed.toml")).unwrap();
    assert!(analyzed.contains(&new), "{analyzed}");
    // The note comes before the switch, so it has no effect on the run image: there is nothing to extend.
    assert!(!world.path("layers/generated/samples_note/run.Dockerfile").exists());
    assert!(!analyzed.split("[run-image]").nth(1).unwrap().contains("extend = true"), "{analyzed}");
    let build = "printf '[[processes]]\\ntype = \"web\"\\ncommand = [\"cat\", \"/etc/patched\"]\\ndefault = true\\n' >\"$CNB_LAYERS_DIR/launch.toml\"";
    write_buildpack(&world.path("cnb/buildpacks"), ("acme/bp", "1.0.0", "0.10"), "", "exit 0", build);
    world.phase("base:1", "builder", &[]);
    world.phase("base:1", "exporter", &[&world.name("app")]);
    assert_eq!(world.in_app(&[]), "base:2");
}

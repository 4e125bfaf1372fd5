//! Whole builds with the extensions of `acceptance/extensions`: Debian packages in build and run image, another run
//! image, and a rebase afterwards. The images are made of this machine's files, the package comes from a repository
//! inside of them, and the registry is on this machine: no network is needed. Needs root, docker, docker-registry and
//! a Debian to take apt from.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

mod engine;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Instant,
};

use acceptance::{
    registry::RegistryServer,
    run::{Outcome, as_root, command, executable, run, workspace},
    tree::{
        Entry::{Dir, File},
        give_to, temp_dir, write, write_buildpack,
    },
};
use engine::Engine;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const API: &str = "0.14";
const EXECUTABLES: [&str; 8] =
    ["analyzer", "builder", "detector", "exporter", "extender", "launcher", "rebaser", "restorer"];
/// What apt and dpkg call, and what the samples' scripts do.
const PROGRAMS: [&str; 22] = [
    "apt-get",
    "apt-config",
    "diff",
    "cat",
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "dpkg-split",
    "ldconfig",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sh",
    "start-stop-daemon",
    "tar",
    "test",
    "touch",
    "tr",
    "true",
    "id",
    "env",
];
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
greet; cat /etc/note; id -u
printf '[[processes]]\ntype = "web"\ncommand = ["sh", "-c", "greet; cat /etc/note; echo by $NOTE_BY"]\ndefault = true\n' \
    >"$CNB_LAYERS_DIR/launch.toml"
"#;

struct World {
    dir: TempDir,
    engine: Engine,
    registry: RegistryServer,
}

impl World {
    fn new() -> Option<Self> {
        let debian = ["/usr/bin/apt-get", "/usr/lib/apt/methods/file"].iter().all(|path| Path::new(path).exists());
        if !as_root() || !debian {
            eprintln!("skipped: needs root on a Debian");
            return None;
        }
        let engine = Engine::docker()?;
        let world = Self { dir: temp_dir(), engine, registry: RegistryServer::plain() };
        let root = world.path("root");
        make_root(&root);
        world.push_base("base:1");
        fs::write(root.join("etc/patched"), "yes").unwrap();
        world.push_base("base:2");
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

    fn push_base(&self, image: &str) {
        let changes =
            ["USER 1000:1000", "LABEL io.buildpacks.rebasable=true", "ENV PATH=/usr/bin:/usr/sbin:/bin:/sbin"];
        let changes = changes.into_iter().chain(["ENV CNB_USER_ID=1000", "ENV CNB_GROUP_ID=1000"]).collect::<Vec<_>>();
        self.engine.import(&self.path("root"), &self.name(image), &changes);
        self.engine.does(&["push", "-q", &self.name(image)]);
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

    /// What the app says in a container of its own.
    fn run_app(&self) -> String {
        let app = self.name("app");
        self.engine.does(&["pull", "-q", &app]);
        let said = run(&mut self.engine.container(&app, &["--network", "none"])).ok().stdout();
        self.engine.remove(&app);
        said
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for image in ["base:1", "base:2"] {
            self.engine.remove(&self.name(image));
        }
    }
}

/// apt, dpkg and a shell with their libraries, a repository with one package, and nothing installed.
fn make_root(root: &Path) {
    for name in ["bin", "sbin", "lib", "lib64"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            fs::create_dir_all(root.join(&target)).unwrap();
            symlink(target, root.join(name)).unwrap();
        }
    }
    let dirs =
        ["tmp", "proc", "dev", "sys", "root", "home/cnb", "etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/log"];
    let state = [
        "lib/dpkg/info",
        "lib/dpkg/updates",
        "lib/dpkg/triggers",
        "lib/apt/lists/partial",
        "cache/apt/archives/partial",
    ];
    for dir in dirs.into_iter().map(PathBuf::from).chain(state.map(|dir| Path::new("var").join(dir))) {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        let places = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|dir| Path::new(dir).join(program));
        files.insert(places.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("there is no {program}")));
    }
    files.extend(["file", "copy", "store"].map(|method| Path::new("/usr/lib/apt/methods").join(method)));
    files.extend(["cputable", "ostable", "tupletable"].map(|table| Path::new("/usr/share/dpkg").join(table)));
    let libraries = run(command("ldd").args(&files).args(EXECUTABLES.map(executable))).stdout();
    files.extend(
        libraries.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from),
    );
    for file in files {
        let to = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, &to).unwrap();
    }
    write(
        root,
        &[
            (
                "etc/passwd",
                File("root:x:0:0::/root:/bin/sh\n_apt:x:42:65534::/:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n"),
            ),
            ("etc/group", File("root:x:0:\ncnb:x:1000:\nnogroup:x:65534:\n")),
            ("etc/apt/sources.list", File("deb [trusted=yes] file:/srv/debs ./\n")),
            ("etc/os-release", File("ID=debian\nVERSION_ID=\"12\"\n")),
            ("var/lib/dpkg/status", File("")),
        ],
    );
    let package = "Package: greet\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <a@b>\nDescription: greets\n";
    let tree = root.with_file_name("greet");
    write(
        &tree,
        &[
            ("DEBIAN/control", File(package)),
            ("usr/bin/greet", acceptance::tree::Entry::Script("echo greetings from a package")),
        ],
    );
    let debs = root.join("srv/debs");
    fs::create_dir_all(&debs).unwrap();
    run(command("dpkg-deb").args(["--root-owner-group", "-Zgzip", "--build"]).arg(tree).arg(debs.join("greet.deb")))
        .ok();
    let deb = fs::read(debs.join("greet.deb")).unwrap();
    let mut index = package.to_owned();
    write!(index, "Filename: ./greet.deb\nSize: {}\nSHA256: {:x}\n", deb.len(), Sha256::digest(&deb)).unwrap();
    fs::write(debs.join("Packages"), index).unwrap();
}

const NOTE: &str = "greetings from a package\na note for the run image\nby the extension's run argument\n";

#[test]
fn packages_for_the_build_and_for_the_app() {
    let Some(world) = World::new() else { return };
    write(&world.path("workspace"), &[("apt.txt", File("greet\n"))]);
    let mut digests = BTreeSet::new();
    let ran = "Setting up greet";
    for first in [true, false] {
        world.prepare();
        let started = Instant::now();
        for kind in ["run", "build"] {
            // Both are extended from the same base, so the build image takes what was made for the run image.
            let runs = first && kind == "run";
            let seen = if runs {
                "No cached layer found for cmd RUN apt-get"
            } else {
                "Using caching version of cmd: RUN apt-get"
            };
            let outcome = world.phase("base:1", "extender", &["-kind", kind]).says(seen);
            assert_eq!(outcome.all().contains(ran), runs, "{}", outcome.all());
            if kind == "build" {
                outcome.says("greetings from a package\na note for the build image\n1000");
            }
        }
        println!("extended both images in {:?}, two containers included", started.elapsed());
        world.phase("base:1", "exporter", &[&world.name("app")]);
        let report = fs::read_to_string(world.path("layers/report.toml")).unwrap();
        digests.extend(report.lines().find(|line| line.contains("digest")).map(str::to_owned));
        assert_eq!(world.run_app(), NOTE);
    }
    // From the cache comes the same image.
    assert_eq!(digests.len(), 1, "{digests:?}");

    // The base has a newer version. All said that they may be rebased, so nobody has to be forced.
    world.push_base("base:1");
    world.phase("base:1", "rebaser", &[&world.name("app")]);
    assert_eq!(world.run_app(), NOTE);
    let app = world.name("app");
    world.engine.does(&["pull", "-q", &app]);
    let patched =
        world.engine.container(&app, &["--network", "none", "--entrypoint", "cat"]).arg("/etc/patched").output();
    assert_eq!(patched.unwrap().stdout, b"yes");
    world.engine.remove(&app);
}

#[test]
fn another_run_image() {
    let Some(world) = World::new() else { return };
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
    assert_eq!(world.run_app(), "yes");
}

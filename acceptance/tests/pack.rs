//! pack itself, with a builder made of the executables under test: `builder create`, `build` in one container and in
//! one for each phase, `--publish`, `--cache-image`, extensions, `rebase`, `sbom download`. Needs pack on PATH, docker
//! (on this machine, if `DOCKER_HOST` is set), root and busybox; uses no network but this machine's own.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod containers;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use acceptance::{
    registry::RegistryServer,
    run::{Outcome, command, run, workspace},
    tree::{
        Entry::{File, Script},
        write_buildpack,
    },
};
use containers::{Containers, Engine, on_path};
use serde_json::Value;

/// Builds side by side only slow each other down.
static ONE: Mutex<()> = Mutex::new(());

/// pack takes the parts it uses to be there since this version of the reference: creator, an image of the lifecycle,
/// and extensions.
const OLDEST: (u32, u32) = (0, 19);

const DESCRIPTOR: &str = "sbom-formats = [\"application/vnd.cyclonedx+json\"]\n[[targets]]\nos = \"linux\"\n";
const BUILD: &str = r#"set -e
[ -e "$1/dep/file" ] && echo "dep came back"
[ -x /bin/tool ] && tool
mkdir -p "$1/dep" "$1/run"
echo dep >"$1/dep/file"; echo run >"$1/run/file"
printf '[types]\ncache = true\nbuild = true\n' >"$1/dep.toml"
printf '[types]\nlaunch = true\ncache = true\n' >"$1/run.toml"
printf '{"bomFormat":"CycloneDX","specVersion":"1.4","components":[]}' >"$1/run.sbom.cdx.json"
printf '[[processes]]\ntype = "web"\ncommand = ["cat"]\nargs = ["/os", "main.txt"]\ndefault = true\n' >"$1/launch.toml""#;
const GENERATE: &str = r#"cat >"$CNB_OUTPUT_DIR/build.Dockerfile" <<'D'
ARG base_image
FROM ${base_image}
ARG user_id
USER root
RUN printf '#!/bin/sh\necho the tool of the extension\n' >/bin/tool && chmod 755 /bin/tool
USER ${user_id}
D
cat >"$CNB_OUTPUT_DIR/run.Dockerfile" <<'D'
ARG base_image
FROM ${base_image}
ARG user_id
USER root
RUN echo extended >/extended
USER ${user_id}
D"#;

/// pack, docker with the images that builders are made of, and a registry.
struct World {
    docker: Containers,
    pack: PathBuf,
    registry: RegistryServer,
}

impl World {
    /// `None`, with the reason printed, without pack or docker.
    fn new(test: &str) -> Option<Self> {
        let pack = on_path("pack")?;
        on_path("docker")?;
        let docker = Containers::new(Engine::Docker, test)?;
        let world = Self { docker, pack, registry: RegistryServer::plain() };
        let at = world.docker.path("buildpacks");
        write_buildpack(&at, ("acme/one", "1.0.0", "0.10"), DESCRIPTOR, "exit 0", BUILD);
        world.docker.write(&[
            ("extension/extension.toml", File("api = \"0.10\"\n[extension]\nid = \"acme/ext\"\nversion = \"1.0.0\"\n")),
            ("extension/bin/detect", Script("exit 0")),
            ("extension/bin/generate", Script(GENERATE)),
            ("app/main.txt", File("hello")),
        ]);
        world.package();
        Some(world)
    }

    fn command(&self) -> Command {
        let mut pack = command(&self.pack);
        pack.env("HOME", self.docker.dir.path()).env("PACK_HOME", self.docker.path("pack-home"));
        pack.env("PACK_VOLUME_KEY", "acceptance").current_dir(self.docker.dir.path());
        if let Some(host) = env::var_os("DOCKER_HOST") {
            pack.env("DOCKER_HOST", host);
        }
        pack
    }

    fn pack(&self, args: &[&str]) -> Outcome {
        run(self.command().args(args))
    }

    /// `pack build` of the app. Without `--docker-host` its containers get the socket of the usual place.
    fn build(&self, app: &str, builder: &str, args: &[&str]) -> Outcome {
        let mut pack = self.command();
        pack.args(["build", app, "--path", "app", "--builder", builder]).args(args);
        if env::var_os("DOCKER_HOST").is_some() {
            pack.args(["--docker-host", "inherit"]);
        }
        run(&mut pack)
    }

    /// Our package, `lifecycle.tgz`, as `make package` makes it.
    fn package(&self) {
        let arch = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let out = self.docker.path("out");
        self.docker.executables(&format!("out/package/linux-{arch}/lifecycle"));
        run(command("python3").arg(workspace().join("make/package.py")).arg(&out).args(["/", arch])).ok();
        let mut files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let tgz = files.find(|path| path.extension().is_some_and(|e| e == "tgz"));
        let tgz = tgz.unwrap();
        let text = run(command("tar").arg("-xzOf").arg(&tgz).arg("lifecycle.toml")).ok().stdout();
        let version = text.parse::<toml::Table>().unwrap()["lifecycle"]["version"].as_str().unwrap().to_owned();
        let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or_default());
        let known = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(known >= OLDEST, "pack would take version {version} for an old one that lacks what we have");
        self.docker.write(&[("lifecycle.toml", File(&text))]);
        fs::copy(tgz, self.docker.path("lifecycle.tgz")).unwrap();
    }

    /// builder.toml of these images, with or without the extension.
    fn builder_toml(&self, build: &str, run: &str, extension: bool) {
        let order = "[[order]]\n[[order.group]]\nid = \"acme/one\"\nversion = \"1.0.0\"\n";
        let extension = if extension {
            "[[extensions]]\nuri = \"extension\"\n[[order-extensions]]\n[[order-extensions.group]]\nid = \
             \"acme/ext\"\nversion = \"1.0.0\"\n"
        } else {
            ""
        };
        let text = format!(
            "[[buildpacks]]\nuri = \"buildpacks/acme_one/1.0.0\"\n{order}{extension}[build]\nimage = \
             \"{build}\"\n[run]\n[[run.images]]\nimage = \"{run}\"\n[lifecycle]\nuri = \"lifecycle.tgz\"\n"
        );
        self.docker.write(&[("builder.toml", File(&text))]);
    }

    /// The image that phases with rights run from, with the label that pack reads.
    fn lifecycle_image(&self, name: &str) {
        let text = fs::read_to_string(self.docker.path("lifecycle.toml")).unwrap();
        let apis = serde_json::to_string(&text.parse::<toml::Table>().unwrap()["apis"]).unwrap();
        self.docker.import_lifecycle(name, &[&format!("LABEL io.buildpacks.lifecycle.apis='{apis}'")]);
    }

    /// A name in the registry.
    fn remote(&self, name: &str) -> String {
        format!("{}/{}", self.registry.host(), self.docker.name(name))
    }

    /// Puts an image of the daemon into the registry, and returns its name there.
    fn push(&self, name: &str) -> String {
        let to = self.remote(name);
        self.docker.call(&["tag", &self.docker.name(name), &to]).ok();
        self.docker.call(&["push", "-q", &to]).ok();
        to
    }

    fn output_of(&self, image: &str) -> String {
        self.docker.call(&["run", "--rm", "--network", "none", image]).ok().stdout()
    }

    fn label(&self, image: &str, name: &str) -> Value {
        let format = format!("{{{{index .Config.Labels {name:?}}}}}");
        serde_json::from_str(&self.docker.call(&["inspect", "--format", &format, image]).ok().stdout()).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // pack names the volumes of a build after its image.
        let filter = format!("name={}", self.docker.prefix);
        for volume in self.docker.call(&["volume", "ls", "-q", "--filter", &filter]).stdout().lines() {
            self.docker.call(&["volume", "rm", "-f", volume]);
        }
    }
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("read {}: {e}", dir.display()));
    entries.map(|e| e.unwrap().path()).map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

#[test]
fn a_trusted_builder_builds_rebuilds_and_rebases() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(world) = World::new("trusted") else { return };
    let (app, builder) = (world.docker.name("app:1"), world.docker.name("builder:1"));
    world.builder_toml(&world.docker.name("build:1"), &world.docker.name("run:1"), false);
    world.pack(&["builder", "create", &builder, "--config", "builder.toml", "--pull-policy", "never"]).ok();
    let local = ["--trust-builder", "--pull-policy", "never", "--network", "none"];
    let outcome = world.build(&app, &builder, &[&local[..], &["--sbom-output-dir", "sbom", "-v"]].concat()).ok();
    outcome.says("/cnb/lifecycle/creator").says("Adding layer 'acme/one:run'").says("Successfully built image");
    assert_eq!(world.output_of(&app), "onehello");
    assert!(world.docker.path("sbom/launch/acme_one/run/sbom.cdx.json").is_file());

    let outcome = world.build(&app, &builder, &local).ok().says("dep came back").says("Reusing layer 'acme/one:run'");
    assert!(!outcome.all().contains("Adding layer"), "{}", outcome.all());
    world.build(&app, &builder, &[&local[..], &["--clear-cache"]].concat()).ok();

    world.pack(&["sbom", "download", &app, "--output-dir", "downloaded"]).ok();
    assert!(files_below(&world.docker.path("downloaded")) > 0);

    // The run image's name stays, what is in it is patched. pack rebases with the reference as a library.
    world.docker.import_run("run:1", "two");
    let before = world.label(&app, "io.buildpacks.lifecycle.metadata");
    world.pack(&["rebase", &app, "--pull-policy", "never"]).ok();
    let after = world.label(&app, "io.buildpacks.lifecycle.metadata");
    assert_eq!(world.output_of(&app), "twohello");
    assert_ne!(after["runImage"]["topLayer"], before["runImage"]["topLayer"]);
    assert_eq!(after["buildpacks"], before["buildpacks"]);

    // And the next build goes on from what pack made.
    world.build(&app, &builder, &local).ok().says("Reusing layer 'acme/one:run'");
    assert_eq!(world.output_of(&app), "twohello");
}

#[test]
fn an_untrusted_builder_has_a_container_for_each_phase() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(world) = World::new("untrusted") else { return };
    let (build, run) = (world.push("build:1"), world.push("run:1"));
    world.lifecycle_image("lifecycle:1");
    let lifecycle = world.push("lifecycle:1");
    let [app, builder, cache] = ["app:1", "builder:1", "cache:1"].map(|name| world.remote(name));
    world.builder_toml(&build, &run, false);
    world.pack(&["builder", "create", &builder, "--config", "builder.toml", "--publish"]).ok();

    let apart = ["--trust-builder=false", "--lifecycle-image", &lifecycle, "--network", "host"];
    let publish = [&apart[..], &["--publish", "--cache-image", &cache]].concat();
    world.build(&app, &builder, &publish).ok().says("[exporter] Adding layer 'acme/one:run'");
    let outcome = world.build(&app, &builder, &publish).ok();
    outcome.says("[builder] dep came back").says("[exporter] Reusing cache layer 'acme/one:dep'");
    world.docker.call(&["pull", "-q", &app]).ok();
    assert_eq!(world.output_of(&app), "onehello");
    world.pack(&["sbom", "download", &app, "--remote", "--output-dir", "downloaded"]).ok();
    assert!(files_below(&world.docker.path("downloaded")) > 0);

    world.docker.import_run("run:1", "two");
    world.push("run:1");
    world.pack(&["rebase", &app, "--publish"]).ok();
    world.docker.call(&["pull", "-q", &app]).ok();
    assert_eq!(world.output_of(&app), "twohello");

    // The same phases with the daemon instead of the registry.
    let local = world.docker.name("app:2");
    world.build(&local, &builder, &apart).ok().says("[exporter] Saving");
    assert_eq!(world.output_of(&local), "twohello");
}

#[test]
fn extensions_extend_build_and_run_image() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(world) = World::new("extensions") else { return };
    let (build, run) = (world.push("build:1"), world.push("run:1"));
    world.lifecycle_image("lifecycle:1");
    let lifecycle = world.push("lifecycle:1");
    let [app, builder] = ["app:1", "builder:1"].map(|name| world.remote(name));
    world.builder_toml(&build, &run, true);
    world.pack(&["config", "experimental", "true"]).ok();
    world.pack(&["builder", "create", &builder, "--config", "builder.toml", "--publish"]).ok();
    let args = ["--trust-builder=false", "--lifecycle-image", &lifecycle, "--network", "host", "--publish"];
    for cached in [false, true] {
        let outcome = world.build(&app, &builder, &[&args[..], &["--pull-policy", "always"]].concat()).ok();
        let outcome = outcome.says("the tool of the extension").says("Adding layer 'acme/ext:extended-layer-1'");
        assert_eq!(outcome.all().contains("Using caching version of cmd: RUN echo"), cached, "{}", outcome.all());
    }
    world.docker.call(&["pull", "-q", &app]).ok();
    assert_eq!(world.output_of(&app), "onehello");
    let cat = ["run", "--rm", "--network", "none", "--entrypoint", "cat", &app, "/extended"];
    assert_eq!(world.docker.call(&cat).ok().stdout(), "extended\n");
}

//! Each phase in a container of its own, with the rights that clusters give: no root, no capability, no new
//! privileges, a root file system that cannot be written, volumes that belong to a group. Only the phases that need a
//! registry have a network and credentials. Then the image runs, with as little. With docker and with podman.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod containers;

use std::{fs, os::unix::fs::PermissionsExt};

use acceptance::{
    registry::{Options, RegistryServer},
    run::{Outcome, may_differ, run},
    tree::{
        Entry::{Dir, File},
        write_buildpack,
    },
};
use containers::{Containers, Engine, USER, on_path};

const BUILD: &str = r#"set -e
[ -e "$1/dep/file" ] && echo "dep came back"
[ ! -e /credentials ] || exit 9
mkdir -p "$1/dep"
echo dep >"$1/dep/file"
printf '[types]\nlaunch = true\nbuild = true\ncache = true\n' >"$1/dep.toml"
printf '[[processes]]\ntype = "web"\ncommand = ["sh"]\nargs = ["-c", "cat main.txt; id -u"]\ndefault = true\n' >"$1/launch.toml"
printf '[[processes]]\ntype = "worker"\ncommand = ["echo"]\nargs = ["work"]\n' >>"$1/launch.toml""#;

/// What takes rights away; nothing gives any.
const BARE: [&str; 5] = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];

struct World {
    containers: Containers,
    registry: RegistryServer,
    /// The user of all containers, and their supplementary group: that of the volumes.
    user: &'static str,
}

impl World {
    fn new(engine: Engine, user: &'static str) -> Option<Self> {
        on_path(if engine == Engine::Docker { "docker" } else { "podman" })?;
        let containers = Containers::new(engine, &format!("apart-{}", user.replace(':', "-")))?;
        let registry = RegistryServer::start(&Options { users: &[("user", "secret")], tls: false });
        let world = Self { containers, registry, user };
        let host = world.registry.host();
        let auth = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"dXNlcjpzZWNyZXQ=\"}}}}}}");
        // The engines' own clients look there, too.
        world.containers.write(&[
            ("credentials/config.json", File(&auth)),
            (".docker/config.json", File(&auth)),
            ("cache", Dir),
            ("lifecycle-root/cnb/order.toml", File("[[order]]\n[[order.group]]\nid = \"acme/one\"\nversion = \"1\"\n")),
            ("lifecycle-root/cnb/run.toml", File(&format!("[[images]]\nimage = \"{host}/run:1\"\n"))),
        ]);
        let buildpacks = world.containers.path("lifecycle-root/cnb/buildpacks");
        write_buildpack(&buildpacks, ("acme/one", "1", "0.10"), "", "exit 0", BUILD);
        world.containers.import_lifecycle("builder:1", &containers::BUILDER);
        world.push("run:1");
        Some(world)
    }

    /// `--tls-verify=false` is podman's way to speak plain HTTP to this machine; docker does so by itself.
    fn registry_call(&self, args: &[&str], image: &str) {
        let mut call = self.containers.command();
        call.args(args).args((self.containers.engine == Engine::Podman).then_some("--tls-verify=false")).arg(image);
        call.env("REGISTRY_AUTH_FILE", self.containers.path("credentials/config.json"));
        run(&mut call).ok();
    }

    fn push(&self, name: &str) {
        let to = format!("{}/{name}", self.registry.host());
        self.containers.call(&["tag", &self.containers.name(name), &to]).ok();
        self.registry_call(&["push", "-q"], &to);
    }

    /// Volumes as a pod has them: a new app and new layers, owned by root and, through its bits, by a group.
    fn fresh_volumes(&self) {
        for volume in ["layers", "workspace"] {
            let _ = fs::remove_dir_all(self.containers.path(volume));
        }
        self.containers.write(&[("layers", Dir), ("workspace/main.txt", File("hello\n"))]);
        for volume in ["layers", "workspace", "cache"] {
            let path = self.containers.path(volume);
            std::os::unix::fs::chown(&path, Some(0), Some(USER)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o2775)).unwrap();
        }
    }

    fn phase(&self, with_registry: bool, words: &[&str]) -> Outcome {
        let mut flags = BARE.to_vec();
        let at = |dir: &str, mount: &str| format!("{}:{mount}", self.containers.path(dir).display());
        let mut volumes = vec![at("layers", "/layers"), at("workspace", "/workspace"), at("cache", "/cache")];
        flags.extend(["--user", self.user, "--group-add", "1000", "-e", "CNB_PLATFORM_API=0.13"]);
        if with_registry {
            volumes.push(at("credentials", "/credentials:ro"));
            flags.extend(["--network", "host", "-e", "DOCKER_CONFIG=/credentials"]);
        } else {
            // What is decided in detect is kept in the place for temporary files until the phase ends.
            flags.extend(["--network", "none", "--tmpfs", "/tmp"]);
        }
        flags.extend(volumes.iter().flat_map(|volume| ["-v", volume.as_str()]));
        let program = format!("/cnb/lifecycle/{}", words[0]);
        run(self.containers.container(&flags, "builder:1").arg(program).args(&words[1..])).ok()
    }

    /// All phases; whether the builder found its layer again, and what exporter said.
    fn build(&self) -> (bool, String) {
        self.fresh_volumes();
        let app = format!("{}/app:1", self.registry.host());
        self.phase(true, &["analyzer", &app]);
        self.phase(false, &["detector"]);
        self.phase(true, &["restorer", "-cache-dir", "/cache"]);
        let came_back = self.phase(false, &["builder"]).all().contains("dep came back");
        (came_back, self.phase(true, &["exporter", "-cache-dir", "/cache", &app]).all())
    }

    fn start(&self, flags: &[&str], words: &[&str]) -> String {
        let flags = [&BARE[..], &["--network", "none"], flags].concat();
        run(self.containers.container(&flags, "app:1").args(words)).ok().stdout()
    }
}

fn each_phase_has_a_container(engine: Engine, user: &'static str) {
    let Some(world) = World::new(engine, user) else { return };
    let (came_back, said) = world.build();
    assert!(!came_back && said.contains("Adding layer 'acme/one:dep'"), "{said}");
    let (came_back, said) = world.build();
    assert!(came_back && said.contains("Reusing layer 'acme/one:dep'"), "{said}");

    let app = format!("{}/app:1", world.registry.host());
    world.registry_call(&["pull", "-q"], &app);
    world.containers.call(&["tag", &app, &world.containers.name("app:1")]).ok();
    assert_eq!(world.start(&[], &[]), "hello\n1000\n");
    assert_eq!(world.start(&["--user", "1000650000:0"], &[]), "hello\n1000650000\n", "a user without a name");
    assert_eq!(world.start(&["--entrypoint", "/cnb/process/worker"], &[]), "work\n");
    let launcher = ["--entrypoint", "/cnb/lifecycle/launcher", "-e", "A=of the platform"];
    assert!(world.start(&launcher, &["--", "env"]).contains("A=of the platform\n"));
}

#[test]
fn with_docker_as_kpack_has_it() {
    each_phase_has_a_container(Engine::Docker, "1000:1000");
}

#[test]
fn with_docker_and_a_user_that_the_cluster_made_up() {
    if may_differ("it tries to become the user that the builder image names, where the cluster chose another one") {
        return;
    }
    each_phase_has_a_container(Engine::Docker, "1000650000:0");
}

#[test]
fn with_podman_as_kpack_has_it() {
    each_phase_has_a_container(Engine::Podman, "1000:1000");
}

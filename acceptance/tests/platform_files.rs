//! The definitions in platforms/ cannot rot: their calls are taken out of the files and understood by the executables,
//! those of Tekton's tasks are run with a cluster's rights, the script for docker and podman is run as it is.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod containers;
mod image_world;
mod platform_root;

use std::{fs, path::Path};

use acceptance::{
    registry::{Options, RegistryServer},
    run::{command, executable, may_differ, run, workspace},
    tree::{Entry::File, write_buildpack},
};
use containers::{Containers, Engine, on_path};
use platform_root::{Rights, Root};

const FILES: [&str; 7] = [
    "docker-run.sh",
    "gitlab-ci.yml",
    "circleci.yml",
    "github-actions.yml",
    "Jenkinsfile",
    "tekton/task-creator.yaml",
    "tekton/task-phases.yaml",
];
/// What all definitions say; it must be one that an executable supports.
const API: &str = "0.13";

const BUILD: &str = r#"set -e
mkdir -p "$1/dep"; echo dep >"$1/dep/file"
printf '[types]\nlaunch = true\ncache = true\n' >"$1/dep.toml"
printf '[[processes]]\ntype = "web"\ncommand = ["cat"]\nargs = ["main.txt"]\ndefault = true\n' >"$1/launch.toml""#;

fn text(file: &str) -> String {
    fs::read_to_string(workspace().join("platforms").join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Name and arguments of each call of an executable in a file: the words that follow it, or where it is the `command`
/// of a step, the lines of its `args`.
fn calls(file: &str) -> Vec<(String, Vec<String>)> {
    let text = text(file).replace("\\\n", " ").replace("$(id -u)", "1000").replace("$(id -g)", "1000");
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some((_, rest)) = line.split_once("/cnb/lifecycle/") else { continue };
        if line.trim_start().starts_with("command:") {
            let name = rest.trim_end_matches("\"]").to_owned();
            assert_eq!(lines.next().map(str::trim), Some("args:"), "{file}: {line}");
            let mut args = Vec::new();
            while let Some(arg) = lines.next_if(|line| line.trim_start().starts_with("- \"")) {
                args.push(serde_json::from_str(arg.trim_start().trim_start_matches("- ")).unwrap());
            }
            found.push((name, args));
        } else {
            let mut words = rest.split_whitespace().map(|word| word.replace('"', ""));
            found.push((words.next().unwrap(), words.collect()));
        }
    }
    found
}

#[test]
fn executables_know_the_flags_of_the_definitions() {
    for file in FILES {
        let calls = calls(file);
        assert!(text(file).contains(API) && !calls.is_empty(), "{file}");
        for (name, args) in calls {
            // What the file's own variables stand for is a number where a number is asked for.
            let flags = args.iter().filter(|arg| arg.starts_with('-')).map(|flag| match flag.split_once("=$") {
                Some((flag, _)) => format!("{flag}=1000"),
                None => flag.clone(),
            });
            let mut call = command(executable(&name));
            run(call.env("CNB_PLATFORM_API", API).args(flags).arg("-version")).ok();
        }
    }
}

#[test]
fn credentials_of_ci_systems_become_what_the_lifecycle_reads() {
    for (file, registry) in [
        ("gitlab-ci.yml", "r.example"),
        ("circleci.yml", "r.example"),
        ("github-actions.yml", "ghcr.io"),
        ("Jenkinsfile", "r.example"),
    ] {
        let text = text(file);
        let line = text.lines().find_map(|line| line.split_once("export CNB_REGISTRY_AUTH=")).unwrap().1;
        // A string of Groovy has its own backslashes.
        let value = if file == "Jenkinsfile" { line.replace("\\\\", "\\") } else { line.to_owned() };
        let mut shell = command("sh");
        for name in ["CI_REGISTRY", "REGISTRY"] {
            shell.env(name, "r.example");
        }
        for name in ["CI_REGISTRY_USER", "REGISTRY_USER", "NAME"] {
            shell.env(name, "user");
        }
        // Long enough for base64 to break the line.
        for name in ["CI_REGISTRY_PASSWORD", "REGISTRY_PASSWORD", "PASSWORD", "TOKEN"] {
            shell.env(name, "secret".repeat(20));
        }
        let said = run(shell.args(["-ec", &format!("export A={value}; printf %s \"$A\"")])).ok().stdout();
        let auth: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{file}: {e}: {said}"));
        let header = auth[registry].as_str().unwrap_or_else(|| panic!("{file}: {said}"));
        let mut base64 = command("base64");
        let plain =
            acceptance::run::run_with_input(base64.arg("-d"), header.strip_prefix("Basic ").unwrap().as_bytes());
        assert_eq!(plain.ok().stdout(), format!("user:{}", "secret".repeat(20)), "{file}");
    }
}

#[test]
fn the_steps_of_tekton_build_an_image() {
    for file in ["tekton/task-creator.yaml", "tekton/task-phases.yaml"] {
        let Some(root) = Root::new(&Options { users: &[("user", "secret")], tls: false }) else { return };
        root.builder(&BUILD.replace("[\"cat\"]", "\"cat\"").replace("default", "direct = true\\ndefault"));
        for adding in [true, false] {
            root.fresh_volumes();
            let auth = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"dXNlcjpzZWNyZXQ=\"}}}}}}", root.world.host);
            root.write(&[("workspace/main.txt", File("hello")), ("platform/config.json", File(&auth))]);
            root.give_volumes();
            let (mut said, calls) = (String::new(), calls(file));
            for (name, args) in calls {
                let args: Vec<String> = args.iter().map(|arg| in_a_run(arg, &root)).collect();
                let mut environment = vec![("CNB_PLATFORM_API", API)];
                if !["detector", "builder"].contains(&&*name) {
                    environment.push(("DOCKER_CONFIG", "/platform"));
                }
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                said += &run(&mut root.call(Rights::User, &name, &environment, &args)).ok().all();
            }
            assert_eq!(said.contains("Adding layer 'acme/jvm:dep'"), adding, "{file}: {said}");
            assert!(root.world.is_whole("app:1") && root.world.is_whole("cache:1"), "{file}");
            assert!(root.read("layers/report.toml").contains(&root.world.digest("app:1").unwrap()));
        }
    }
}

/// What Tekton puts in for its variables.
fn in_a_run(arg: &str, root: &Root) -> String {
    let arg = arg
        .replace("$(workspaces.source.path)/$(params.source-subpath)", "/workspace/.")
        .replace("$(params.image)", &root.world.name("app:1"))
        .replace("$(params.cache-image)", &root.world.name("cache:1"))
        .replace("$(params.run-image)", "");
    assert!(!arg.contains("$("), "{arg}: a variable that the test does not know");
    arg
}

fn the_script_builds(engine: Engine) {
    let name = if engine == Engine::Docker { "docker" } else { "podman" };
    let (Some(program), Some(containers)) = (on_path(name), Containers::new(engine, "script")) else { return };
    let registry = RegistryServer::start(&Options { users: &[("user", "secret")], tls: false });
    let host = registry.host();
    let storage = registry.storage();
    image_world::storage::push(&storage, "run:1", &image_world::run_image(), image_world::RUN_FILES);
    containers.write(&[
        ("app/main.txt", File("hello")),
        (".docker/config.json", File(&format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"dXNlcjpzZWNyZXQ=\"}}}}}}"))),
        ("lifecycle-root/cnb/order.toml", File("[[order]]\n[[order.group]]\nid = \"acme/one\"\nversion = \"1\"\n")),
        ("lifecycle-root/cnb/run.toml", File(&format!("[[images]]\nimage = \"{host}/run:1\"\n"))),
    ]);
    let buildpacks = containers.path("lifecycle-root/cnb/buildpacks");
    write_buildpack(&buildpacks, ("acme/one", "1", "0.10"), "", "exit 0", BUILD);
    containers.import_lifecycle("builder:1", &[&["USER 1000:1000"], &containers::BUILDER[..]].concat());
    let image = format!("{host}/{name}/app:1");
    let script = |source: &Path| {
        let mut script = command(workspace().join("platforms/docker-run.sh"));
        script.env("HOME", containers.dir.path()).env("NETWORK", "host").env("ENGINE", containers.wrapper(&program));
        script.env("BUILDER", containers.name("builder:1")).arg(source).arg(&image);
        run(&mut script).ok()
    };
    script(&containers.path("app")).says("Adding layer 'acme/one:dep'");
    script(&containers.path("app")).says("Reusing layer 'acme/one:dep'").says("Restoring data for \"acme/one:dep\"");
    assert!(image_world::storage::is_whole(&storage, &format!("{name}/app:1")));
    let volumes = containers.call(&["volume", "ls", "-q"]).ok().stdout();
    for volume in volumes.lines().filter(|volume| volume.starts_with("cnb-cache-")) {
        // The script keeps it; its name is a sum of the image's, whose port is this test's.
        containers.call(&["volume", "rm", volume]);
    }
}

#[test]
fn the_script_builds_with_docker() {
    if !may_differ("a script is no test of another lifecycle") {
        the_script_builds(Engine::Docker);
    }
}

#[test]
fn the_script_builds_with_podman() {
    if !may_differ("a script is no test of another lifecycle") {
        the_script_builds(Engine::Podman);
    }
}

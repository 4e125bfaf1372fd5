//! The calls of real platforms, replayed: the same flags, variables, users, rights and paths. Tekton's task
//! `buildpacks` (creator), its task `buildpacks-phases`, and the five phases of kpack.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;
mod platform_root;

use std::process::Command;

use acceptance::{
    registry::Options,
    run::{Outcome, may_differ, run},
    tree::Entry::File,
};
use image_world::string;
use platform_root::{Rights, Root};
use serde_json::json;

/// A launch layer, a cached one, and a process. A layer that comes back is not made again.
const BUILD: &str = r#"[ -e "$1/dep/file" ] && echo "dep came back"
mkdir -p "$1/dep" "$1/run"
echo dep >"$1/dep/file"; echo run >"$1/run/file"
printf '[types]\ncache = true\nbuild = true\n' >"$1/dep.toml"
printf '[types]\nlaunch = true\ncache = true\n' >"$1/run.toml"
printf '[[processes]]\ntype = "web"\ncommand = "cat"\nargs = ["/workspace/source/app/main.txt"]\ndirect = true\ndefault = true\n' >"$1/launch.toml""#;

const USERS: Options<'static> = Options { users: &[("user", "secret")], tls: false };

/// config.json of docker for this registry.
fn docker_config(root: &Root) -> String {
    json!({"auths": {&root.world.host: {"auth": "dXNlcjpzZWNyZXQ="}}}).to_string()
}

fn source(root: &Root, dir: &str) {
    root.write(&[(&format!("{dir}/main.txt"), File("hello")), (&format!("{dir}/.hidden"), File(""))]);
    root.give_volumes();
}

/// What Tekton's results step does.
fn digest_as_tekton_reads_it(root: &Root) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", "grep \"digest\" report.toml | cut -d'\"' -f2 | tr -d '\\n'"]).current_dir(root.path("layers"));
    run(&mut shell).ok().stdout()
}

fn creator_of_tekton(root: &Root, environment: &[(&str, &str)]) -> Outcome {
    let image = root.world.name("app");
    let mut variables = vec![("CNB_PLATFORM_API", "0.9")];
    variables.extend(environment);
    let previous = format!("-previous-image={image}");
    run(&mut root.call(
        Rights::User,
        "creator",
        &variables,
        &[
            "-app=/workspace/source/app",
            "-cache-dir=",
            "-cache-image=",
            "-uid=1000",
            "-gid=1000",
            "-layers=/layers",
            "-platform=/platform",
            "-report=/layers/report.toml",
            "-process-type=web",
            "-skip-restore=false",
            &previous,
            "-run-image=",
            &image,
        ],
    ))
}

#[test]
fn tekton_calls_creator() {
    let Some(root) = Root::new(&Options::default()) else { return };
    root.builder(BUILD);
    source(&root, "workspace/source/app");
    // The previous image does not exist yet. No HOME; DOCKER_CONFIG is there, and empty.
    creator_of_tekton(&root, &[("DOCKER_CONFIG", "")]).ok();
    let digest = root.world.digest("app:latest").unwrap();
    assert_eq!(digest_as_tekton_reads_it(&root), digest);
    let image = root.world.image("app:latest");
    assert_eq!(image.config["config"]["Entrypoint"], json!(["/cnb/process/web"]));
    assert_eq!(image.config["config"]["WorkingDir"], "/workspace/source/app");
    assert_eq!(image.env("CNB_LAYERS_DIR").as_deref(), Some("/layers"));

    // The next pipeline run: new volumes, the same source, the same image.
    root.fresh_volumes();
    source(&root, "workspace/source/app");
    let outcome = creator_of_tekton(&root, &[("DOCKER_CONFIG", "")]).ok();
    outcome.says("Reusing layer 'acme/jvm:run'").says("Reused 1/1 app layer(s)");
    assert_eq!(root.world.digest("app:latest"), Some(digest.clone()));
    assert_eq!(digest_as_tekton_reads_it(&root), digest);
}

#[test]
fn tektons_credentials_come_by_workspace_or_by_service_account() {
    let Some(root) = Root::new(&USERS) else { return };
    root.builder(BUILD);
    for (dir, variable) in [("workspace/dockerconfig", "DOCKER_CONFIG"), ("builder/home/.docker", "HOME")] {
        root.fresh_volumes();
        source(&root, "workspace/source/app");
        let outcome = creator_of_tekton(&root, &[("DOCKER_CONFIG", "")]);
        assert_ne!(outcome.code(), 0, "without credentials: {}", outcome.all());
        root.write(&[(&format!("{dir}/config.json"), File(&docker_config(&root)))]);
        root.give_volumes();
        let value = if variable == "HOME" { "/builder/home" } else { "/workspace/dockerconfig" };
        creator_of_tekton(&root, &[(variable, value)]).ok();
        assert!(root.world.is_whole("app:latest"), "{variable}");
    }
}

#[test]
fn tekton_calls_each_phase() {
    let Some(root) = Root::new(&Options::default()) else { return };
    root.builder(BUILD);
    let image = root.world.name("app:tag");
    let builder_image = root.world.name("run:latest");
    let environment = [("CNB_PLATFORM_API", "0.13"), ("HOME", "/builder/home")];
    for round in 0..2 {
        root.fresh_volumes();
        source(&root, "workspace/source");
        let phase = |name: &str, args: &[&str]| run(&mut root.call(Rights::User, name, &environment, args)).ok();
        phase(
            "analyzer",
            &["-layers=/layers", "-tag=", "-insecure-registry=", "-cache-image=", "-skip-layers=false", &image],
        );
        phase("detector", &["-app=/workspace/source", "-group=/layers/group.toml", "-plan=/layers/plan.toml"]);
        let build_image = format!("-build-image={builder_image}");
        let restorer =
            [&build_image, "-group=/layers/group.toml", "-insecure-registry=", "-cache-image=", "-skip-layers=false"];
        // Its volume /kaniko is empty, and open to the user.
        root.write(&[("kaniko", acceptance::tree::Entry::Dir)]);
        acceptance::tree::give_to(&root.path("kaniko"), image_world::USER, image_world::USER);
        phase("restorer", &restorer);
        let analyzed = root.read("layers/analyzed.toml");
        assert!(analyzed.contains("[build-image]"), "{analyzed}");
        phase(
            "builder",
            &["-app=/workspace/source", "-layers=/layers", "-group=/layers/group.toml", "-plan=/layers/plan.toml"],
        );
        let outcome = phase(
            "exporter",
            &["-app=/workspace/source", "-insecure-registry=", "-cache-image=", "-report=/layers/report.toml", &image],
        );
        assert_eq!(outcome.all().contains("Reusing layer 'acme/jvm:run'"), round == 1, "{}", outcome.all());
        let report: toml::Table = toml::from_str(&root.read("layers/report.toml")).unwrap();
        let report = report["image"].as_table().unwrap();
        assert_eq!(report["digest"].as_str(), root.world.digest("app:tag").as_deref());
        assert_eq!(report["tags"].as_array().unwrap()[0].as_str(), Some(&*image));
        assert!(report["manifest-size"].as_integer().is_some_and(|size| size > 0));
    }
}

/// One build as kpack runs it; `last` is the digest reference of the last one's image, and of its cache.
fn kpack_build(root: &Root, last: Option<(&str, &str)>) -> (String, String) {
    let world = &root.world;
    let run_digest = world.digest("run:latest").unwrap();
    let (image, second, cache) = (world.name("app:latest"), world.name("app:b1"), world.name("cache:latest"));
    let environment = [("CNB_PLATFORM_API", "0.9"), ("HOME", "/builder/home")];
    let phase = |name: &str, args: &[&str]| run(&mut root.call(Rights::User, name, &environment, args)).ok();
    let run_image = format!("-run-image={}", world.name(&format!("run@{run_digest}")));
    let tag = format!("-tag={second}");
    let previous = last.map(|(image, _)| format!("-previous-image={image}"));
    let last_cache = last.map(|(_, cache)| format!("-cache-image={cache}"));
    let mut analyzer = vec!["-layers=/layers", "-analyzed=/layers/analyzed.toml", &run_image];
    analyzer.extend(last_cache.as_deref());
    analyzer.push(&tag);
    analyzer.extend(previous.as_deref());
    analyzer.push(&image);
    phase("analyzer", &analyzer);
    phase("detector", &["-app=/workspace", "-group=/layers/group.toml", "-plan=/layers/plan.toml"]);
    let mut restorer = vec!["-group=/layers/group.toml", "-layers=/layers"];
    restorer.extend(last_cache.as_deref());
    restorer.push("-analyzed=/layers/analyzed.toml");
    phase("restorer", &restorer);
    let built = phase(
        "builder",
        &["-layers=/layers", "-app=/workspace", "-group=/layers/group.toml", "-plan=/layers/plan.toml"],
    );
    assert_eq!(built.all().contains("dep came back"), last.is_some(), "{}", built.all());
    let run_image = world.name(&format!("run:latest@{run_digest}"));
    let environment = [("CNB_PLATFORM_API", "0.9"), ("HOME", "/builder/home"), ("CNB_RUN_IMAGE", &run_image)];
    let cache_flag = format!("-cache-image={cache}");
    let exporter = [
        "-layers=/layers",
        "-app=/workspace",
        "-group=/layers/group.toml",
        "-analyzed=/layers/analyzed.toml",
        "-project-metadata=/layers/project-metadata.toml",
        &cache_flag,
        "-report=/var/report/report.toml",
        &image,
        &second,
    ];
    run(&mut root.call(Rights::User, "exporter", &environment, &exporter)).ok();
    let report: toml::Table = toml::from_str(&root.read("var/report/report.toml")).unwrap();
    let digest = report["image"]["digest"].as_str().unwrap().to_owned();
    let cache_digest = world.digest("cache:latest").unwrap();
    (world.name(&format!("app@{digest}")), world.name(&format!("cache@{cache_digest}")))
}

#[test]
fn kpack_calls_five_phases() {
    let Some(root) = Root::new(&USERS) else { return };
    root.builder(BUILD);
    let prepare = || {
        root.fresh_volumes();
        let project = "[source]\ntype = \"git\"\n[source.version]\ncommit = \"abc\"\n";
        root.write(&[
            ("builder/home/.docker/config.json", File(&docker_config(&root))),
            ("layers/project-metadata.toml", File(project)),
        ]);
        source(&root, "workspace");
    };
    prepare();
    let first = kpack_build(&root, None);
    let blobs = root.world.blobs();
    prepare();
    let second = kpack_build(&root, Some((&first.0, &first.1)));
    assert_eq!(second.0, first.0, "the same image");
    if !may_differ("its cache image gets every reused layer once more") {
        assert_eq!(second.1, first.1, "the same cache");
        assert_eq!(root.world.blobs(), blobs);
    }
    let image = root.world.image("app:b1");
    assert_eq!(root.world.digest("app:b1"), root.world.digest("app:latest"));
    // What kpack reads of an image.
    let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
    assert_eq!(string(&label["stack"]["runImage"]["image"]), root.world.name("run:latest"));
    assert!(image.diff_ids().contains(&string(&label["runImage"]["topLayer"])), "{label}");
    let project = image.label_json("io.buildpacks.project.metadata").unwrap();
    assert_eq!(project["source"]["version"]["commit"], "abc");
    let build = image.label_json("io.buildpacks.build.metadata").unwrap();
    let version = run(&mut root.call(Rights::User, "exporter", &[("CNB_PLATFORM_API", "0.9")], &["-version"])).ok();
    assert_eq!(build["launcher"]["version"].as_str(), version.stdout().trim().split('+').next());
}

#[test]
fn the_user_is_the_one_the_cluster_chose_or_the_one_root_becomes() {
    use std::os::unix::fs::MetadataExt;
    let Some(root) = Root::new(&Options::default()) else { return };
    root.builder(BUILD);
    source(&root, "workspace");
    let environment = [("CNB_PLATFORM_API", "0.12")];
    let image = root.world.name("app");
    let owner = || {
        let metadata = std::fs::metadata(root.path("layers/analyzed.toml")).unwrap();
        (metadata.uid(), metadata.gid())
    };
    // Root starts it, and it goes on as the user.
    run(&mut root.call(Rights::Root, "analyzer", &environment, &["-uid=1000", "-gid=1000", &image])).ok();
    assert_eq!(owner(), (1000, 1000));
    if may_differ("it tries to become the user that the builder image names, where the cluster chose another one") {
        return;
    }
    root.fresh_volumes();
    run(&mut root.call(Rights::User, "analyzer", &environment, &["-uid=1001", "-gid=1001", &image])).ok();
    assert_eq!(owner(), (1000, 1000));
}

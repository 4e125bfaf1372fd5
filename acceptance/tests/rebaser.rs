//! rebaser, from outside: when it refuses, and what a rebased image is. platform.md "rebaser", "Rebasing".
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;

use acceptance::{
    fault::{FaultServer, Reply},
    image::LayoutImage,
    run::{PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::File,
};
use image_world::{World, run_image};
use serde_json::{Value, json};

/// The files of the other run image.
const NEW_FILES: &[&[(&str, &str)]] = &[&[("etc/os", "three")], &[("etc/patch", "1")], &[("etc/more", "2")]];

/// `app:latest` upon `run:latest`, and the run image `run:new` beside it.
fn exported(api: &str) -> World {
    let world = World::new();
    world.analyzed();
    world.layer("jdk", "launch = true\n[metadata]\nversion = 17", Some(&[("bin/java", File("java"))]));
    run(&mut world.exporter(api, &["app"])).ok();
    world.remove("layers/report.toml");
    world.push("run:latest", &new_run_image(), NEW_FILES);
    world
}

fn new_run_image() -> Value {
    let mut config = run_image();
    config["history"] = json!([{"created_by": "new 1"}, {"created_by": "new 2"}, {"created_by": "new 3"}]);
    config["config"]["Env"] = json!(["PATH=/new", "NEW=1"]);
    config["config"]["Labels"]["io.buildpacks.base.distro.version"] = json!("12");
    config["config"]["Labels"]["io.buildpacks.base.description"] = json!("new");
    config["config"]["Labels"]["io.buildpacks.stack.released"] = json!("2024");
    config["config"]["Labels"]["maintainer"] = json!("other");
    config
}

fn metadata(image: &LayoutImage) -> Value {
    image.label_json("io.buildpacks.lifecycle.metadata").unwrap()
}

#[test]
fn arguments_are_checked() {
    let world = exported("0.12");
    run(&mut world.rebaser("0.12", &[])).exits(3).says("at least one image argument is required");
    let mut call = world.rebaser("0.12", &[]);
    run(call.args(["-image", "a", "-run-image", "b"]).arg(world.name("app")))
        .exits(3)
        .says("supply only one of -run-image or (deprecated) -image");
    run(world.rebaser("0.12", &["app"]).arg("other.example/app"))
        .exits(3)
        .says("writing to multiple registries is unsupported");
    run(&mut world.rebaser("0.12", &["no-such"])).exits(72).says("failed to access image to rebase");
    for (flag, since) in [("-force", "0.12"), ("-previous-image=", "0.11"), ("-insecure-registry=x", "0.13")] {
        for api in PLATFORM_APIS {
            let mut call = world.rebaser(api, &[]);
            let expected = if at_least(api, since) { 0 } else { 2 };
            call.args([flag, "-run-image", &world.name("run:latest")]).arg(world.name("app"));
            run(&mut call).exits(expected);
        }
    }
}

#[test]
fn the_base_is_replaced_and_the_rest_kept() {
    for api in PLATFORM_APIS {
        let world = exported(api);
        let before = world.image("app:latest");
        run(&mut world.rebaser(api, &["app"])).ok().says(&format!("Saving {}...", world.name("app")));
        let after = world.image("app:latest");
        let base = world.image("run:latest");
        assert_eq!(after.diff_ids()[..3], base.diff_ids()[..], "{api}");
        assert_eq!(after.diff_ids()[3..], before.diff_ids()[2..], "{api}");

        let (old, new) = (metadata(&before), metadata(&after));
        let reference = world.name(&format!("run@{}", world.digest("run:latest").unwrap()));
        let mut expected = old.clone();
        expected["runImage"]["topLayer"] = json!(base.diff_ids()[2]);
        expected["runImage"]["reference"] = json!(reference);
        assert_eq!(new, expected, "{api}");

        // The app's config stays, but for what tells of the base.
        let (old, new) = (&before.config["config"], &after.config["config"]);
        for key in ["Env", "Entrypoint", "User", "WorkingDir", "ExposedPorts"] {
            assert_eq!(new[key], old[key], "{api} {key}");
        }
        let label = |key: &str| after.label(key);
        assert_eq!(label("maintainer").as_deref(), Some("acme <a@b>"), "{api}");
        assert_eq!(label("io.buildpacks.stack.released").as_deref(), Some("2024"), "{api}");
        let description = at_least(api, "0.12").then_some("new");
        assert_eq!(label("io.buildpacks.base.description").as_deref(), description, "{api}");
        assert_eq!(label("io.buildpacks.build.metadata"), before.label("io.buildpacks.build.metadata"), "{api}");
        assert_eq!(after.config["created"], "1980-01-01T00:00:01Z", "{api}");

        // Once more changes nothing.
        let digest = world.digest("app:latest");
        run(&mut world.rebaser(api, &["app"])).ok();
        assert_eq!(world.digest("app:latest"), digest, "{api}");
    }
}

#[test]
fn history_is_kept() {
    let world = exported("0.12");
    if may_differ("it empties the history") {
        return;
    }
    run(&mut world.rebaser("0.12", &["app"])).ok();
    let image = world.image("app:latest");
    let history = image.config["history"].as_array().unwrap();
    let texts: Vec<&str> = history.iter().map(|h| h["created_by"].as_str().unwrap_or_default()).collect();
    assert_eq!(texts[..3], ["new 1", "new 2", "new 3"]);
    assert_eq!(texts[3], "Layer: 'jdk', Created by buildpack: acme/jvm@1.0.0");
    assert_eq!(texts.len(), image.diff_ids().len());
    assert_eq!(image.config["author"], "acme");
}

#[test]
fn the_result_is_the_image_that_export_would_make() {
    // Layers above the base are the same blobs: nothing is uploaded but config and manifest.
    let world = exported("0.12");
    let before = world.blobs().len();
    run(&mut world.rebaser("0.12", &["app"])).ok();
    assert_eq!(world.blobs().len(), before + 2);
    let image = world.image("app:latest");
    let base = world.image("run:latest");
    assert_eq!(image.manifest["layers"].as_array().unwrap()[..3], base.manifest["layers"].as_array().unwrap()[..]);
}

#[test]
fn every_name_gets_it_and_stands_in_the_report() {
    for api in PLATFORM_APIS {
        let world = exported(api);
        let old = world.digest("app:latest");
        let names = ["new:v1", "new:v2"];
        let mut call = world.rebaser(api, &[]);
        call.env("CNB_PREVIOUS_IMAGE", world.name("app"));
        call.args(["-report", &world.text("layers/r.toml")]).args(names.map(|n| world.name(n)));
        run(&mut call).ok();
        let digest = world.digest("new:v1").unwrap();
        assert_eq!(world.digest("new:v2").as_ref(), Some(&digest), "{api}");
        assert_eq!(world.digest("app:latest"), old, "{api}: the image that was rebased stays as it is");
        let report = world.toml("layers/r.toml");
        assert_eq!(report.keys().collect::<Vec<_>>(), ["image"], "{api}");
        let tags: Vec<&str> = report["image"]["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        assert_eq!(tags, names.map(|n| world.name(n)), "{api}");
        assert_eq!(report["image"]["digest"].as_str(), Some(&*digest), "{api}");
        // Without the flag it is in the layers' directory.
        run(&mut world.rebaser(api, &["app"])).ok();
        assert!(world.exists("layers/report.toml"), "{api}");
    }
}

#[test]
fn a_run_image_that_is_not_there_is_an_error_with_its_name() {
    let world = exported("0.12");
    let mut call = world.rebaser("0.12", &[]);
    let outcome = run(call.args(["-run-image", &world.name("gone")]).arg(world.name("app")));
    if may_differ("it does not name the image, and its code is that of any failure") {
        return;
    }
    outcome.exits(72).says("failed to access run image").says("gone");
    assert!(!world.exists("layers/report.toml"));
}

/// What is other in the config of the new run image.
type Change = fn(&mut Value);

/// Rebases upon what `change` makes of the new run image.
fn rebase_upon(world: &World, api: &str, flags: &[&str], change: impl Fn(&mut Value)) -> acceptance::run::Outcome {
    let mut config = new_run_image();
    change(&mut config);
    world.push("run:latest", &config, NEW_FILES);
    run(world.rebaser(api, &[]).args(flags).arg(world.name("app")))
}

#[test]
fn another_target_is_refused_unless_forced() {
    let rows: [(&str, Change); 5] = [
        ("os", |c| c["os"] = json!("windows")),
        ("arch", |c| c["architecture"] = json!("s390x")),
        ("distro", |c| c["config"]["Labels"]["io.buildpacks.base.distro.name"] = json!("alpine")),
        ("version", |c| c["config"]["Labels"]["io.buildpacks.base.distro.version"] = json!("13")),
        ("none", |_| {}),
    ];
    for api in ["0.12", "0.13", "0.14", "0.15"] {
        let world = exported("0.12");
        for (what, change) in rows {
            let outcome = rebase_upon(&world, api, &[], change);
            if what == "none" {
                outcome.ok();
                continue;
            }
            outcome
                .exits(72)
                .says("unable to satisfy target os/arch constraints")
                .says("please provide -force to override");
        }
        for (_, change) in rows.into_iter().skip(2) {
            rebase_upon(&world, api, &["-force"], change).ok();
        }
    }
}

#[test]
fn a_forced_rebase_upon_another_architecture_says_so_in_the_config() {
    let world = exported("0.12");
    let other = |c: &mut Value| {
        c["architecture"] = json!("arm64");
        c["variant"] = json!("v8");
    };
    rebase_upon(&world, "0.12", &["-force"], other).ok().says("unable to satisfy target os/arch constraints");
    let image = world.image("app:latest");
    assert_eq!(image.config["architecture"], "arm64");
    assert!(image.config["variant"] == "v8" || may_differ("it keeps the old variant"));
}

#[test]
fn stacks_of_older_images_must_match() {
    let rows: [(&str, Change, &str); 5] = [
        (
            "stack",
            |c| c["config"]["Labels"]["io.buildpacks.stack.id"] = json!("stack.two"),
            "incompatible stack: 'stack.two' is not compatible with 'stack.one'",
        ),
        (
            "no stack",
            |c| {
                c["config"]["Labels"].as_object_mut().unwrap().remove("io.buildpacks.stack.id");
            },
            "stack",
        ),
        (
            "mixin",
            |c| c["config"]["Labels"]["io.buildpacks.stack.mixins"] = json!("[\"curl\"]"),
            "missing required mixin(s): git",
        ),
        ("stage", |c| c["config"]["Labels"]["io.buildpacks.stack.mixins"] = json!("[\"run:git\",\"curl\"]"), ""),
        ("same", |_| {}, ""),
    ];
    // The version of the app image decides, not that of the call.
    for api in ["0.7", "0.11", "0.12", "0.15"] {
        for (what, change, text) in rows {
            let world = exported("0.11");
            let outcome = rebase_upon(&world, api, &[], change);
            if text.is_empty() {
                assert_eq!(outcome.code(), 0, "{api} {what}: {}", outcome.all());
            } else {
                outcome.exits(72).says(text);
                assert!(!world.exists("layers/report.toml"));
            }
        }
    }
    // And there, stacks do not matter.
    let world = exported("0.12");
    rebase_upon(&world, "0.12", &[], rows[0].1).ok();
}

#[test]
fn an_image_that_is_not_rebasable_is_refused_unless_forced() {
    for value in ["true", "false"] {
        let world = World::new();
        let mut config = run_image();
        config["config"]["Labels"]["io.buildpacks.rebasable"] = json!(value);
        world.push("run:latest", &config, image_world::RUN_FILES);
        world.analyzed();
        run(&mut world.exporter("0.12", &["app"])).ok();
        let outcome = rebase_upon(&world, "0.12", &[], |_| {});
        if value == "true" {
            outcome.ok();
            continue;
        }
        outcome.exits(72).says("app image is not marked as rebasable; please provide -force to override");
        let warned = rebase_upon(&world, "0.12", &["-force"], |_| {}).ok();
        warned.says("Warning: app image is not marked as rebasable");
    }
}

#[test]
fn a_run_image_the_app_does_not_know_is_refused_unless_forced() {
    let world = exported("0.12");
    world.push("else/run:latest", &new_run_image(), NEW_FILES);
    let other = world.name("else/run:latest");
    for api in ["0.12", "0.15"] {
        let mut call = world.rebaser(api, &[]);
        let outcome = run(call.args(["-run-image", &other]).arg(world.name("app"))).exits(72);
        outcome
            .says(&format!("new base image '{other}' not found in existing run image metadata"))
            .says("please provide -force to override");
    }
    // Before, any run image is taken.
    run(world.rebaser("0.11", &[]).args(["-run-image", &other]).arg(world.name("app"))).ok();
    let mut call = world.rebaser("0.12", &[]);
    run(call.args(["-force", "-run-image", &other]).arg(world.name("app"))).ok().says("Warning: ");
    let label = metadata(&world.image("app:latest"));
    assert_eq!(label["runImage"]["image"], other);
    assert_eq!(label["stack"]["runImage"]["image"], other);
    assert!(label["runImage"].get("mirrors").is_none_or(|m| m.as_array().is_some_and(Vec::is_empty)), "{label}");
}

#[test]
fn an_image_without_its_base_cannot_be_rebased() {
    let world = exported("0.12");
    let mut config = world.image("app:latest").config;
    let mut label: Value = metadata(&world.image("app:latest"));
    label["runImage"]["topLayer"] = json!(format!("sha256:{}", "0".repeat(64)));
    config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"] = json!(label.to_string());
    config.as_object_mut().unwrap().remove("history");
    world.push("app:latest", &config, &[&[("a", "b")], &[("c", "d")]]);
    run(&mut world.rebaser("0.12", &["app"])).exits(72).says("could not find base layer in image");
    let labels = config["config"]["Labels"].as_object_mut().unwrap();
    labels.remove("io.buildpacks.lifecycle.metadata");
    world.push("app:latest", &config, &[&[("a", "b")]]);
    let code = if may_differ("its code is that of a failed rebase, not that of arguments") { 72 } else { 3 };
    run(&mut world.rebaser("0.12", &["app"]))
        .exits(code)
        .says("-run-image is required when there is no run image metadata available");
}

#[test]
fn what_older_lifecycles_wrote_about_the_app_survives() {
    if may_differ("it does not read what older lifecycles wrote") {
        return;
    }
    let world = exported("0.12");
    let image = world.image("app:latest");
    let base = world.image("run:latest");
    for app in [json!({"sha": "sha256:1"}), json!("text"), Value::Null] {
        let mut config = image.config.clone();
        let mut label = metadata(&image);
        label["app"] = app.clone();
        let (bytes, diff_id) = image_world::storage::layer_of(&[("old", "1")]);
        drop(bytes);
        label["runImage"]["topLayer"] = json!(diff_id);
        config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"] = json!(label.to_string());
        config.as_object_mut().unwrap().remove("history");
        world.push("app:latest", &config, &[&[("old", "1")], &[("app", "2")]]);
        run(&mut world.rebaser("0.12", &["app"])).ok();
        let after = world.image("app:latest");
        assert_eq!(metadata(&after)["app"], app);
        assert_eq!(after.diff_ids().len(), base.diff_ids().len() + 1);
    }
}

#[test]
fn a_rebase_costs_few_requests() {
    if may_differ("what is asked of a registry is no part of the specification") {
        return;
    }
    let world = exported("0.12");
    let front = FaultServer::start(&world.host, |_| Reply::Forward);
    let mut call = world.rebaser("0.12", &[]);
    let name = |rest: &str| format!("{}/{rest}", front.host());
    run(call.args(["-force", "-run-image", &name("run:latest")]).arg(name("app"))).ok();
    let seen = front.seen();
    // Manifest and config of both images; a mount for each new layer; the config in two requests, the manifest in one.
    assert_eq!(seen.iter().filter(|s| s.path == "/v2/").count(), 0, "the first request tells as much: {seen:#?}");
    assert_eq!((front.count("GET", "/manifests/"), front.count("GET", "/blobs/")), (2, 2), "{seen:#?}");
    assert_eq!(front.count("HEAD", ""), 0, "the app image names what it has: {seen:#?}");
    assert_eq!((front.count("POST", "mount="), front.count("POST", "")), (NEW_FILES.len(), NEW_FILES.len() + 1));
    assert_eq!((front.count("PUT", "/uploads/"), front.count("PUT", "/manifests/")), (1, 1), "{seen:#?}");
}

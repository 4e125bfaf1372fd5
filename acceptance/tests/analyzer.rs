//! analyzer, from outside: its arguments, the previous image, and analyzed.toml.
//! platform.md "analyzer", "analyzed.toml (TOML)".

mod image_world;

use std::fs;

use acceptance::{
    run::{PLATFORM_APIS, as_root, at_least, may_differ, run},
    tree::Entry::{Dir, File},
};
use image_world::{World, run_image, storage};
use serde_json::json;

#[test]
fn one_image_is_expected() {
    let world = World::new();
    for (images, count) in [(&[][..], 0), (&["a", "b"][..], 2)] {
        let mut call = world.call("analyzer", "0.15");
        call.args(images.iter().map(|i| world.name(i)));
        run(&mut call).exits(3).says(&format!("received {count} arguments, but expected 1"));
    }
    assert!(!world.exists("layers/analyzed.toml"));
}

#[test]
fn every_reference_must_parse() {
    let world = World::new();
    for image in ["UPPER/case", "a b", "x:y:z", ""] {
        let mut call = world.call("analyzer", "0.12");
        run(call.arg(image)).exits(3);
    }
    for flag in ["-tag", "-previous-image", "-cache-image"] {
        let outcome = run(world.analyzer("0.12", "app").args([&format!("{flag}=A:B:C")]));
        // The flag stands behind the image, where it is no flag any more.
        outcome.exits(3).says("expected 1");
        let mut call = world.call("analyzer", "0.12");
        let outcome = run(call.args([flag, "A:B:C"]).arg(world.name("app"))).exits(3);
        assert!(outcome.all().contains("A:B:C"), "{flag}: {}", outcome.all());
    }
}

#[test]
fn images_are_in_one_registry() {
    let world = World::new();
    for api in PLATFORM_APIS {
        let mut call = world.call("analyzer", api);
        run(call.args(["-tag", "other.example/app"]).arg(world.name("app")))
            .exits(3)
            .says("writing to multiple registries is unsupported");
    }
}

#[test]
fn analyzed_is_written_where_nothing_was_found() {
    let world = World::new();
    let digest = world.digest("run:latest").unwrap();
    for api in PLATFORM_APIS {
        world.remove("layers/analyzed.toml");
        run(&mut world.analyzer(api, "app")).ok().says(&format!("Image with name \"{}\" not found", world.name("app")));
        let analyzed = world.toml("layers/analyzed.toml");
        assert_eq!(analyzed["image"]["reference"].as_str(), Some(""), "{api}");
        let run_image = analyzed["run-image"].as_table().unwrap();
        assert_eq!(run_image["reference"].as_str(), Some(&*world.name(&format!("run@{digest}"))), "{api}");
        let name = run_image.get("image").and_then(toml::Value::as_str);
        if at_least(api, "0.12") {
            assert_eq!(name, Some(&*world.name("run:latest")), "{api}");
            let target = &run_image["target"];
            assert_eq!(target["os"].as_str(), Some("linux"), "{api}");
            assert_eq!(target["arch"].as_str(), Some("amd64"), "{api}");
            assert_eq!(target["id"].as_str(), Some("base.one"), "{api}");
            assert_eq!(target["distro"]["name"].as_str(), Some("debian"), "{api}");
            assert_eq!(target["distro"]["version"].as_str(), Some("12"), "{api}");
        } else {
            assert_eq!(name, None, "{api}");
            assert!(!run_image.contains_key("target"), "{api}");
        }
    }
}

#[test]
fn the_path_of_analyzed_is_a_flag_or_a_variable() {
    let world = World::new();
    world.write(&[("out", Dir)]);
    let mut call = world.call("analyzer", "0.12");
    call.env("CNB_ANALYZED_PATH", world.path("layers/by-variable.toml"));
    run(call.arg(world.name("app"))).ok();
    assert!(world.exists("layers/by-variable.toml") && !world.exists("layers/analyzed.toml"));
    let mut call = world.call("analyzer", "0.12");
    call.env("CNB_ANALYZED_PATH", world.path("layers/by-variable-2.toml"));
    call.arg("-analyzed").arg(world.path("layers/new/by-flag.toml")).arg(world.name("app"));
    run(&mut call).ok();
    assert!(world.exists("layers/new/by-flag.toml") && !world.exists("layers/by-variable-2.toml"));
    // A flag with an empty value is an absent one.
    let mut call = world.call("analyzer", "0.12");
    run(call.args(["-cache-image=", "-tag=", "-run-image="]).arg(world.name("app"))).ok();
    assert!(world.exists("layers/analyzed.toml"));
}

#[test]
fn analyzed_that_cannot_be_written_is_an_error() {
    let world = World::new();
    world.write(&[("layers/a-file", File(""))]);
    let mut call = world.call("analyzer", "0.12");
    call.arg("-analyzed").arg(world.path("layers/a-file/analyzed.toml")).arg(world.name("app"));
    run(&mut call).exits(1).says("/layers/a-file");
}

/// A build of two layers exported as `app`.
fn exported(api: &str) -> World {
    let world = World::new();
    world.layer("jdk", "launch = true\n[metadata]\nversion = 17", Some(&[("bin/java", File("java"))]));
    world.write(&[
        ("layers/sbom/launch/acme_jvm/jdk/sbom.cdx.json", File("{}")),
        ("layers/sbom/launch/acme_jvm/sbom.cdx.json", File("{\"b\":1}")),
    ]);
    world.analyzed();
    run(&mut world.exporter(api, &["app"])).ok();
    world.remove("layers/analyzed.toml");
    world.clear_layers();
    world
}

#[test]
fn the_previous_image_is_the_output_image_or_another() {
    let world = exported("0.12");
    let reference = world.name(&format!("app@{}", world.digest("app:latest").unwrap()));
    for api in PLATFORM_APIS {
        let outcome = run(world.call("analyzer", api).args(["-log-level", "debug"]).arg(world.name("app"))).ok();
        outcome.says(&format!("Found image with identifier \"{reference}\""));
        let analyzed = world.toml("layers/analyzed.toml");
        assert_eq!(analyzed["image"]["reference"].as_str(), Some(&*reference), "{api}");
        let metadata = &analyzed["metadata"];
        assert_eq!(metadata["app"].as_array().map(Vec::len), Some(1), "{api}");
        let buildpack = &metadata["buildpacks"][0];
        assert_eq!(buildpack["key"].as_str(), Some("acme/jvm"), "{api}");
        assert_eq!(buildpack["layers"]["jdk"]["launch"].as_bool(), Some(true), "{api}");

        world.remove("layers/analyzed.toml");
        let mut call = world.call("analyzer", api);
        run(call.args(["-previous-image", &world.name("app"), &world.name("new")])).ok();
        assert_eq!(world.toml("layers/analyzed.toml")["image"]["reference"].as_str(), Some(&*reference), "{api}");
        world.remove("layers/analyzed.toml");
        let mut call = world.call("analyzer", api);
        run(call.args(["-previous-image", &world.name("new"), &world.name("app")])).ok();
        assert_eq!(world.toml("layers/analyzed.toml")["image"]["reference"].as_str(), Some(""), "{api}");
    }
}

#[test]
fn bills_of_materials_come_back_from_the_previous_image() {
    let world = exported("0.15");
    for api in PLATFORM_APIS {
        world.clear_layers();
        let outcome = run(&mut world.analyzer(api, "app")).ok();
        let restored = world.exists("layers/sbom/launch/acme_jvm/jdk/sbom.cdx.json");
        assert_eq!(restored, at_least(api, "0.8"), "{api}");
        let said = outcome.all().contains("Restoring data for SBOM from previous image");
        assert_eq!(said, at_least(api, "0.8"), "{api}");
        if at_least(api, "0.9") {
            world.clear_layers();
            run(world.call("analyzer", api).arg("-skip-layers").arg(world.name("app"))).ok();
            assert!(!world.exists("layers/sbom"), "{api}");
            run(world.call("analyzer", api).env("CNB_SKIP_LAYERS", "1").arg(world.name("app"))).ok();
            assert!(!world.exists("layers/sbom"), "{api}");
        }
    }
}

#[test]
fn a_corrupt_previous_image_is_none() {
    let world = exported("0.12");
    let image = world.image("app:latest");
    let last = image.manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
    storage::lose(&world.registry.storage(), &last);
    run(&mut world.analyzer("0.12", "app"))
        .ok()
        .says(&format!("Ignoring image \"{}\" because it was corrupt", world.name("app")));
    let analyzed = world.toml("layers/analyzed.toml");
    assert_eq!(analyzed["image"]["reference"].as_str(), Some(""));
    assert!(analyzed["metadata"].get("buildpacks").is_none(), "{analyzed}");
}

#[test]
fn a_label_that_is_no_metadata_is_none() {
    let world = World::new();
    for label in ["no json", "{\"buildpacks\": 7}"] {
        let mut config = run_image();
        config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"] = json!(label);
        world.push("app:latest", &config, &[&[("a", "b")]]);
        let outcome = run(&mut world.analyzer("0.12", "app")).ok();
        if !may_differ("it says nothing of it") {
            outcome.says("Warning: Ignoring the metadata of image").says("app");
        }
        let analyzed = world.toml("layers/analyzed.toml");
        assert!(analyzed["metadata"].get("buildpacks").is_none(), "{label}: {analyzed}");
        assert_eq!(analyzed["image"]["reference"].as_str(), Some(""), "{label}");
    }
    // An image that no lifecycle made.
    world.push("app:latest", &run_image(), &[&[("a", "b")]]);
    run(&mut world.analyzer("0.12", "app")).ok();
    assert!(world.toml("layers/analyzed.toml")["metadata"].get("buildpacks").is_none());
}

#[test]
fn a_run_image_without_os_is_an_error() {
    let world = World::new();
    let mut config = run_image();
    config["os"] = json!("");
    world.push("run:latest", &config, &[&[("a", "b")]]);
    run(&mut world.analyzer("0.12", "app")).exits(32).says("failed to find OS in run image config");
}

#[test]
fn an_index_stands_for_its_image_for_this_machine() {
    let world = World::new();
    let storage_dir = world.registry.storage();
    let mut manifests = Vec::new();
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    for arch in ["s390x", host] {
        let mut config = run_image();
        config["architecture"] = json!(arch);
        let digest = world.push(&format!("run:{arch}"), &config, &[&[("arch", arch)]]);
        let size = fs::metadata(storage::blob(&storage_dir, &digest)).unwrap().len();
        manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": arch}
        }));
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests
    });
    storage::put_manifest(&storage_dir, "run:latest", &index);
    run(&mut world.analyzer("0.12", "app")).ok();
    let analyzed = world.toml("layers/analyzed.toml");
    assert_eq!(analyzed["run-image"]["target"]["arch"].as_str(), Some(host));
}

#[test]
fn flags_that_have_no_use_here_are_warned_of() {
    let world = World::new();
    for api in ["0.9", "0.15"] {
        let mut call = world.call("analyzer", api);
        call.arg("-launch-cache").arg(world.path("cache")).arg(world.name("app"));
        run(&mut call).ok().says("Ignoring -launch-cache, only intended for use with -daemon");
    }
    let mut call = world.call("analyzer", "0.13");
    call.env("CNB_PARALLEL_EXPORT", "true").arg(world.name("app"));
    let outcome = run(&mut call).ok();
    assert!(outcome.all().to_lowercase().contains("parallel"), "{}", outcome.all());
}

#[test]
fn files_belong_to_the_builds_user() {
    use std::os::unix::fs::MetadataExt;
    if !as_root() {
        return;
    }
    let world = World::new();
    let mut call = world.analyzer("0.12", "app");
    // A volume that nobody chowned yet.
    acceptance::tree::give_to(&world.path("layers"), 0, 0);
    run(&mut call).ok();
    for path in ["layers", "layers/acme_jvm", "layers/analyzed.toml"] {
        let metadata = fs::metadata(world.path(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1000, 1000), "{path}");
    }
    // An earlier build by another user left this in a volume that is the build's.
    if !may_differ("it looks at the volume's own directory only") {
        let mut call = world.analyzer("0.12", "app");
        acceptance::tree::give_to(&world.path("layers/acme_jvm"), 0, 0);
        run(&mut call).ok();
        assert_eq!(fs::metadata(world.path("layers/acme_jvm")).unwrap().uid(), 1000);
    }
}

#[test]
fn an_unused_previous_image_costs_few_requests() {
    if may_differ("how often a manifest is asked for is no part of the specification") {
        return;
    }
    let world = exported("0.12");
    let front = acceptance::fault::FaultServer::start(&world.host, |_| acceptance::fault::Reply::Forward);
    let mut call = world.call("analyzer", "0.12");
    call.args(["-run-image", &world.name("run:latest"), &format!("{}/app", front.host())]);
    run(&mut call).ok();
    let gets = front.count("GET", "/manifests/") + front.count("HEAD", "/manifests/");
    assert!(gets <= 3, "{gets} requests for one manifest: {:?}", front.seen());
}

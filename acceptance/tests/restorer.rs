//! restorer, from outside: which metadata and data come back to the layers' directories.
//! platform.md "restorer"; buildpack.md "Layer Types" (the table), "store.toml (TOML)".

mod image_world;

use acceptance::{
    run::{PLATFORM_APIS, as_root, at_least, may_differ, run},
    tree::Entry::{Dir, File},
};
use image_world::World;

/// Words of types, as a layer's `[types]`.
fn types(words: &str) -> String {
    let line = |word: &str| format!("{word} = {}\n", words.contains(word));
    line("build") + &line("cache") + &line("launch")
}

#[test]
fn arguments_and_inputs_are_checked() {
    let world = World::new();
    for api in PLATFORM_APIS {
        run(world.restorer(api).arg("x")).exits(3).says("received unexpected");
        run(&mut world.restorer(api)).ok().says("No cached data will be used, no cache specified.");
    }
    let group = world.read("layers/group.toml");
    for (text, code) in [("no toml", 1), (&*group.replace("0.10", "0.6"), 12), (&*group.replace("0.10", "x"), 12)] {
        world.write(&[("layers/group.toml", File(text))]);
        run(&mut world.restorer("0.12")).exits(code);
    }
    world.remove("layers/group.toml");
    run(&mut world.restorer("0.12")).exits(1).says("failed to read group");
}

#[test]
fn flags_are_those_of_the_platform_api() {
    let world = World::new();
    for (flag, since) in [
        ("-build-image=", "0.10"),
        ("-daemon=false", "0.12"),
        ("-generated=x", "0.12"),
        ("-layout=false", "0.12"),
        ("-insecure-registry=x", "0.13"),
        ("-run=x", "0.14"),
    ] {
        for api in PLATFORM_APIS {
            let expected = if at_least(api, since) { 0 } else { 2 };
            run(world.restorer(api).arg(flag)).exits(expected);
        }
    }
}

#[test]
fn analyzed_that_cannot_be_used_is_a_warning() {
    let world = World::new();
    for text in ["no toml", ""] {
        world.write(&[("layers/analyzed.toml", File(text))]);
        let outcome = run(&mut world.restorer("0.12")).ok();
        assert_eq!(outcome.all().contains("Not using analyzed data"), !text.is_empty(), "{}", outcome.all());
    }
}

#[test]
fn that_no_run_images_are_offered_is_said_once() {
    let world = World::new();
    world.analyzed();
    let outcome = run(world.restorer("0.14").args(["-run", "/no/run.toml"])).ok();
    assert_eq!(outcome.all().matches("No run metadata found").count(), 1, "{}", outcome.all());
}

/// What comes back of a layer of each kind, per the table of the specification: metadata, and data.
#[test]
fn each_kind_of_layer_comes_back_as_the_table_says() {
    let kinds = [
        ("build cache launch", true, true),
        ("build cache", true, true),
        ("build launch", false, false),
        ("build", false, false),
        ("cache launch", true, true),
        ("cache", true, true),
        ("launch", true, false),
    ];
    for api in PLATFORM_APIS {
        let world = World::new();
        world.analyzed();
        let name = |kind: &str| format!("of-{}", kind.replace(' ', "-"));
        for (kind, ..) in kinds {
            let metadata = types(kind) + "[metadata]\nkind = 1\n";
            world.layer(&name(kind), &metadata, Some(&[("file", File(kind))]));
        }
        let cache = world.text("cache");
        run(world.exporter(api, &[]).args(["-cache-dir", &cache]).arg(world.name("app"))).ok();
        run(&mut world.analyzer(api, "app")).ok();
        world.clear_layers();
        run(world.restorer(api).args(["-cache-dir", &cache])).ok();
        for (kind, metadata, data) in kinds {
            let path = format!("layers/acme_jvm/{}", name(kind));
            assert_eq!(world.exists(&format!("{path}.toml")), metadata, "{api} {kind}: metadata");
            assert_eq!(world.exists(&format!("{path}/file")), data, "{api} {kind}: data");
            if metadata {
                let toml = world.toml(&format!("{path}.toml"));
                assert!(toml.contains_key("metadata") && !toml.contains_key("types"), "{api} {kind}: {toml}");
            }
        }

        // Without the app image: cached layers come back; those that are for launch, too, from 0.14 on.
        world.remove("layers/analyzed.toml");
        world.clear_layers();
        run(world.restorer(api).args(["-cache-dir", &cache])).ok();
        for (kind, ..) in kinds {
            let path = format!("layers/acme_jvm/{}", name(kind));
            let expected = kind.contains("cache") && (!kind.contains("launch") || at_least(api, "0.14"));
            assert_eq!(world.exists(&format!("{path}.toml")), expected, "{api} {kind}: metadata from the cache");
            assert_eq!(world.exists(&format!("{path}/file")), expected, "{api} {kind}: data from the cache");
        }

        // Without the cache: what is for launch, and in no cache.
        run(&mut world.analyzer(api, "app")).ok();
        world.clear_layers();
        run(&mut world.restorer(api)).ok();
        for (kind, ..) in kinds {
            let path = format!("layers/acme_jvm/{}", name(kind));
            assert_eq!(world.exists(&format!("{path}.toml")), kind == "launch", "{api} {kind}: without cache");
            assert!(!world.exists(&format!("{path}/file")), "{api} {kind}: data without cache");
        }
    }
}

#[test]
fn skipped_layers_leave_the_store() {
    for api in PLATFORM_APIS {
        let world = World::new();
        world.analyzed();
        world.layer("jdk", "launch = true\ncache = true", Some(&[("a", File("a"))]));
        world.write(&[("layers/acme_jvm/store.toml", File("[metadata]\nseen = 3\n[metadata.deep]\nlist = [1, 2]\n"))]);
        let cache = world.text("cache");
        run(world.exporter(api, &[]).args(["-cache-dir", &cache]).arg(world.name("app"))).ok();
        run(&mut world.analyzer(api, "app")).ok();
        world.clear_layers();
        let outcome = run(world.restorer(api).args(["-skip-layers", "-cache-dir", &cache])).ok();
        outcome.says("Skipping buildpack layer analysis");
        let store = world.toml("layers/acme_jvm/store.toml");
        let seen = &store["metadata"]["seen"];
        assert!(seen == &toml::Value::Integer(3) || may_differ("it makes integers floats"), "{api}: {store}");
        assert_eq!(store["metadata"]["deep"]["list"].as_array().map(Vec::len), Some(2), "{api}");
        assert!(!world.exists("layers/acme_jvm/jdk.toml") && !world.exists("layers/acme_jvm/jdk"), "{api}");
    }
}

/// Buildpacks on libcnb.rs take a store.toml without `[metadata]` for a broken one.
#[test]
fn a_store_of_nothing_is_a_store() {
    for api in PLATFORM_APIS {
        let world = World::new();
        world.analyzed();
        world.layer("jdk", "launch = true", Some(&[("a", File("a"))]));
        world.write(&[("layers/acme_jvm/store.toml", File("[metadata]\n"))]);
        run(world.exporter(api, &[]).arg(world.name("app"))).ok();
        run(&mut world.analyzer(api, "app")).ok();
        let analyzed = world.toml("layers/analyzed.toml");
        let kept = analyzed["metadata"]["buildpacks"][0]["store"].get("metadata").and_then(toml::Value::as_table);
        assert!(kept.is_some_and(toml::Table::is_empty), "{api}: {analyzed}");
        world.clear_layers();
        run(&mut world.restorer(api)).ok();
        assert_eq!(world.read("layers/acme_jvm/store.toml"), "[metadata]\n", "{api}");
    }
}

#[test]
fn only_the_groups_buildpacks_get_their_layers() {
    let world = World::new();
    world.analyzed();
    world.group(&["acme/jvm", "acme/node"]);
    for buildpack in ["acme_jvm", "acme_node"] {
        world.layer_of(buildpack, "one", "launch = true\ncache = true", Some(&[("a", File("a"))]));
    }
    let cache = world.text("cache");
    run(world.exporter("0.12", &[]).args(["-cache-dir", &cache]).arg(world.name("app"))).ok();
    run(&mut world.analyzer("0.12", "app")).ok();
    world.remove("layers/acme_node");
    world.group(&["acme/jvm"]);
    world.clear_layers();
    run(world.restorer("0.12").args(["-cache-dir", &cache])).ok();
    assert!(world.exists("layers/acme_jvm/one/a"));
    assert!(!world.exists("layers/acme_node"));
}

#[test]
fn data_that_the_app_image_does_not_have_is_not_restored() {
    let world = World::new();
    world.analyzed();
    let cache = world.text("cache");
    world.layer("jdk", "launch = true\ncache = true", Some(&[("a", File("one"))]));
    run(world.exporter("0.12", &[]).args(["-cache-dir", &cache]).arg(world.name("app"))).ok();
    // Another app of the same cache.
    world.layer("jdk", "launch = true\ncache = true", Some(&[("a", File("two"))]));
    run(world.exporter("0.12", &[]).args(["-cache-dir", &cache]).arg(world.name("other"))).ok();
    run(&mut world.analyzer("0.12", "app")).ok();
    world.clear_layers();
    run(world.restorer("0.12").args(["-cache-dir", &cache])).ok().says("Removing \"acme/jvm:jdk\", wrong sha");
    assert!(!world.exists("layers/acme_jvm/jdk.toml") && !world.exists("layers/acme_jvm/jdk"));
}

#[test]
fn a_mirror_stands_in_for_a_run_image_that_has_gone() {
    if may_differ("it does not look at mirrors, it only checks what analyzer chose") {
        return;
    }
    let world = World::new();
    world.analyzed();
    let closed = acceptance::registry::RegistryServer::start(&acceptance::registry::Options {
        users: &[("user", "secret")],
        tls: false,
    });
    let gone = format!("{}/run", closed.host());
    let digest = world.digest("run:latest").unwrap();
    for api in PLATFORM_APIS.into_iter().filter(|api| at_least(api, "0.14")) {
        let chosen = format!("[run-image]\nreference = \"{gone}@{digest}\"\nimage = \"{gone}\"\n");
        world.write(&[("layers/analyzed.toml", File(&chosen))]);
        world.run_images(&[gone.clone(), world.name("run:latest")]);
        run(&mut world.restorer(api)).ok();
        let run_image = world.toml("layers/analyzed.toml")["run-image"].clone();
        assert_eq!(run_image["image"].as_str(), Some(&*world.name("run:latest")), "{api}");
        assert_eq!(run_image["reference"].as_str(), Some(&*world.name(&format!("run@{digest}"))), "{api}");
    }
}

#[test]
fn a_run_image_that_has_gone_is_an_error_from_0_14_on() {
    let world = World::new();
    world.analyzed();
    let closed = acceptance::registry::RegistryServer::start(&acceptance::registry::Options {
        users: &[("user", "secret")],
        tls: false,
    });
    let name = format!("{}/run", closed.host());
    let digest = world.digest("run:latest").unwrap();
    world.write(&[(
        "layers/analyzed.toml",
        File(&format!("[run-image]\nreference = \"{name}@{digest}\"\nimage = \"{name}\"\n")),
    )]);
    world.run_images(&[name]);
    for api in PLATFORM_APIS {
        let outcome = run(&mut world.restorer(api));
        if at_least(api, "0.14") {
            outcome.exits(1).says("is not accessible");
        } else {
            outcome.ok();
        }
    }
}

#[test]
fn a_build_image_is_kept_for_extension() {
    if !as_root() {
        return;
    }
    let world = World::new();
    let mut call = world.restorer("0.12");
    run(call.args(["-build-image", &world.name("no-such")]))
        .exits(1)
        .says("failed to pull builder image")
        .says("no-such");
}

#[test]
fn extraction_does_not_leave_the_layers() {
    // A cache volume that somebody else can write: its tars name places outside of the layers' directory.
    let world = World::new();
    world.write(&[("outside", Dir)]);
    let cache = world.text("cache");
    world.analyzed();
    world.layer("deps", "cache = true", Some(&[("a", File("a"))]));
    run(world.exporter("0.12", &[]).args(["-cache-dir", &cache]).arg(world.name("app"))).ok();
    let file = "cache/committed/io.buildpacks.lifecycle.cache.metadata";
    let mut metadata: serde_json::Value = serde_json::from_str(&world.read(file)).unwrap();
    let target = format!("{}/evil", world.text("outside"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(4);
    header.as_mut_bytes()[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    tar.append(&header, &b"evil"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    let sha = format!("sha256:{:x}", <sha2::Sha256 as sha2::Digest>::digest(&bytes));
    metadata["buildpacks"][0]["layers"]["deps"]["sha"] = serde_json::json!(sha);
    std::fs::write(world.path(&format!("cache/committed/{sha}.tar")), bytes).unwrap();
    world.write(&[(file, File(&metadata.to_string()))]);
    run(&mut world.analyzer("0.12", "app")).ok();
    world.clear_layers();
    if may_differ("it extracts a tar wherever the tar says") {
        return;
    }
    if image_world::is_root() {
        acceptance::tree::give_to(&world.path("outside"), 1000, 1000);
    }
    run(world.restorer("0.12").args(["-cache-dir", &cache])).ok().says("Skipping restore for layer acme/jvm:deps");
    assert!(!world.exists("outside/evil"));
}

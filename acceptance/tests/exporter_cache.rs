//! exporter and restorer, from outside: cache volume and cache image, and that a cache in trouble fails no build.
//! platform.md "exporter", "restorer"; buildpack.md "Layer Types".

mod image_world;

use std::fs;

use acceptance::{
    fault::{FaultServer, Reply},
    run::{Outcome, PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::File,
};
use image_world::{World, storage};
use serde_json::{Value, json};

const METADATA_FILE: &str = "cache/committed/io.buildpacks.lifecycle.cache.metadata";

fn ready() -> World {
    let world = World::new();
    world.analyzed();
    fill(&world);
    world
}

fn fill(world: &World) {
    world.layer("jdk", "launch = true\ncache = true\n[metadata]\nversion = 17", Some(&[("bin/java", File("java"))]));
    world.layer("deps", "cache = true\nbuild = true", Some(&[("a.jar", File("jar"))]));
    world.layer("tool", "build = true", Some(&[("tool", File("tool"))]));
    world.write(&[("layers/sbom/cache/acme_jvm/deps/sbom.cdx.json", File("{\"c\":1}"))]);
}

fn export_to(world: &World, api: &str, cache: &[&str]) -> Outcome {
    let mut call = world.exporter(api, &[]);
    call.args(cache).arg(world.name("app"));
    run(&mut call).ok()
}

fn restore_from(world: &World, api: &str, cache: &[&str]) -> Outcome {
    world.clear_layers();
    run(world.restorer(api).args(cache)).ok()
}

/// The files of the cache in force, but for what only ours keeps there: checksums of layers' blocks.
fn committed(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path("cache/committed")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.ends_with(".tar.sums")).collect()
}

#[test]
fn a_volume_keeps_layers_as_tars_by_diff_id() {
    for api in PLATFORM_APIS {
        let world = ready();
        let dir = world.text("cache");
        let cache = ["-cache-dir", &*dir];
        let outcome = export_to(&world, api, &cache);
        outcome.says("Adding cache layer 'acme/jvm:deps'").says("Adding cache layer 'acme/jvm:jdk'");
        let metadata: Value = serde_json::from_str(&world.read(METADATA_FILE)).unwrap();
        let layers = metadata["buildpacks"][0]["layers"].as_object().unwrap();
        assert_eq!(layers.keys().collect::<Vec<_>>(), ["deps", "jdk"], "{api}");
        assert_eq!(layers["jdk"]["data"], json!({"version": 17}), "{api}");
        assert_eq!(layers["jdk"]["cache"], true, "{api}");
        let app = world.image("app:latest").label_json("io.buildpacks.lifecycle.metadata").unwrap();
        assert_eq!(layers["jdk"]["sha"], app["buildpacks"][0]["layers"]["jdk"]["sha"], "{api}");
        let mut shas: Vec<String> = layers.values().map(|l| l["sha"].as_str().unwrap().to_owned()).collect();
        let bill = metadata["sbom"]["sha"].as_str().unwrap_or_default();
        assert_eq!(!bill.is_empty(), at_least(api, "0.8"), "{api}");
        shas.extend((!bill.is_empty()).then(|| bill.to_owned()));
        for sha in &shas {
            assert!(world.exists(&format!("cache/committed/{sha}.tar")), "{api} {sha}");
        }

        let outcome = export_to(&world, api, &cache);
        outcome.says("Reusing cache layer 'acme/jvm:deps'").says("Reusing cache layer 'acme/jvm:jdk'");
        let names = committed(&world);
        assert_eq!(names.len(), shas.len() + 1, "{api}: {names:?}");
        // What no build needs any more, goes.
        world.remove("layers/acme_jvm/deps.toml");
        world.remove("layers/acme_jvm/deps");
        world.remove("layers/sbom");
        export_to(&world, api, &cache);
        assert_eq!(committed(&world).len(), 2, "{api}");
    }
}

#[test]
fn a_cache_image_does_not_grow_and_shares_blobs() {
    for api in PLATFORM_APIS {
        let world = ready();
        let name = world.name("cache");
        let cache = ["-cache-image", &*name];
        export_to(&world, api, &cache);
        let first = world.image("cache:latest");
        let count = if at_least(api, "0.8") { 3 } else { 2 };
        assert_eq!(first.diff_ids().len(), count, "{api}");
        let label = first.label_json("io.buildpacks.lifecycle.cache.metadata").unwrap();
        let sha = label["buildpacks"][0]["layers"]["jdk"]["sha"].as_str().unwrap().to_owned();
        assert!(first.diff_ids().contains(&sha), "{api}");
        let old = world.digest("cache:latest").unwrap();

        let blobs = world.blobs();
        run(&mut world.analyzer(api, "app")).ok();
        let outcome = export_to(&world, api, &cache);
        outcome.says("Reusing cache layer 'acme/jvm:jdk'");
        if !may_differ("its cache image gets every reused layer once more") {
            assert_eq!(world.digest("cache:latest"), Some(old.clone()), "{api}");
            assert_eq!(world.blobs(), blobs, "{api}");
        }

        world.layer("deps", "cache = true\nbuild = true", Some(&[("a.jar", File("new"))]));
        export_to(&world, api, &cache);
        assert!(world.is_whole("cache:latest"), "{api}");
        assert_ne!(world.digest("cache:latest"), Some(old.clone()), "{api}");
        let revision = format!("docker/registry/v2/repositories/cache/_manifests/revisions/sha256/{}/link", &old[7..]);
        if !may_differ("its cache images differ in each build") {
            assert_eq!(world.registry.storage().join(revision).exists(), at_least(api, "0.13"), "{api}: the old one");
        }
    }
}

#[test]
fn what_was_cached_is_restored() {
    for api in PLATFORM_APIS {
        let world = ready();
        let (dir, name) = (world.text("cache"), world.name("cache"));
        for cache in [["-cache-dir", &*dir], ["-cache-image", &*name]] {
            fill(&world);
            export_to(&world, api, &cache);
            run(&mut world.analyzer(api, "app")).ok();
            let outcome = restore_from(&world, api, &cache);
            outcome
                .says("Restoring metadata for \"acme/jvm:jdk\" from app image")
                .says("Restoring metadata for \"acme/jvm:deps\" from cache")
                .says("Restoring data for \"acme/jvm:jdk\" from cache")
                .says("Restoring data for \"acme/jvm:deps\" from cache");
            assert_eq!(world.read("layers/acme_jvm/jdk/bin/java"), "java", "{api} {cache:?}");
            assert_eq!(world.read("layers/acme_jvm/deps/a.jar"), "jar", "{api} {cache:?}");
            let toml = world.toml("layers/acme_jvm/jdk.toml");
            let version = toml["metadata"]["version"].clone();
            assert!(version == toml::Value::Integer(17) || may_differ("it makes integers floats"), "{api}: {version}");
            assert!(!toml.contains_key("types"), "{api}");
            assert!(!world.exists("layers/acme_jvm/tool.toml") && !world.exists("layers/acme_jvm/tool"), "{api}");
            let bill = world.exists("layers/acme_jvm/deps.sbom.cdx.json");
            assert_eq!(bill, at_least(api, "0.8"), "{api} {cache:?}");
        }
    }
}

#[test]
fn a_damaged_volume_costs_layers_but_no_build() {
    let world = ready();
    let dir = world.text("cache");
    let cache = ["-cache-dir", &*dir];
    export_to(&world, "0.12", &cache);
    run(&mut world.analyzer("0.12", "app")).ok();
    let metadata: Value = serde_json::from_str(&world.read(METADATA_FILE)).unwrap();
    let sha = |layer: &str| metadata["buildpacks"][0]["layers"][layer]["sha"].as_str().unwrap().to_owned();
    let tar = |layer: &str| format!("cache/committed/{}.tar", sha(layer));
    let mut bytes = fs::read(world.path(&tar("deps"))).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    fs::write(world.path(&tar("deps")), &bytes).unwrap();
    world.remove(&tar("jdk"));
    let outcome = restore_from(&world, "0.12", &cache);
    outcome.says("Skipping restore for layer acme/jvm:deps").says("Skipping restore for layer acme/jvm:jdk");
    assert!(!world.exists("layers/acme_jvm/deps") && !world.exists("layers/acme_jvm/jdk"));
    if !may_differ("it leaves the metadata of a layer that it could not restore") {
        assert!(!world.exists("layers/acme_jvm/deps.toml") && !world.exists("layers/acme_jvm/jdk.toml"));
    }
    // The next export makes it whole.
    fill(&world);
    export_to(&world, "0.12", &cache).says("expected layer contents to have SHA");
    let outcome = restore_from(&world, "0.12", &cache);
    assert!(!outcome.all().contains("Skipping restore"), "{}", outcome.all());
    assert_eq!(world.read("layers/acme_jvm/deps/a.jar"), "jar");

    world.write(&[(METADATA_FILE, File("no json"))]);
    restore_from(&world, "0.12", &cache);
    fill(&world);
    export_to(&world, "0.12", &cache);
    restore_from(&world, "0.12", &cache).says("Restoring data for \"acme/jvm:deps\" from cache");
}

/// A layer of several blocks, in a directory and in an image: each bit counts, and none is left of what was written
/// before the damage was found.
#[test]
fn a_damaged_cache_costs_a_big_layer_but_no_build() {
    let world = ready();
    let text: String =
        (0..2_000_000_u64).map(|n| char::from_digit(u32::try_from(n * n % 9_973 % 10).unwrap(), 10).unwrap()).collect();
    let (dir, name) = (world.text("cache"), world.name("cache"));
    for cache in [["-cache-dir", &*dir], ["-cache-image", &*name]] {
        world.layer("deps", "cache = true\nbuild = true", Some(&[("a.jar", File(&text)), ("b.jar", File(&text))]));
        export_to(&world, "0.12", &cache);
        run(&mut world.analyzer("0.12", "app")).ok();
        let outcome = restore_from(&world, "0.12", &cache);
        assert!(!outcome.all().contains("Skipping restore"), "{}", outcome.all());
        assert!(world.read("layers/acme_jvm/deps/b.jar") == text, "{cache:?}");

        let (path, at) = if cache[0] == "-cache-dir" {
            let metadata: Value = serde_json::from_str(&world.read(METADATA_FILE)).unwrap();
            let sha = metadata["buildpacks"][0]["layers"]["deps"]["sha"].as_str().unwrap().to_owned();
            (world.path(&format!("cache/committed/{sha}.tar")), 3 << 19)
        } else {
            let layers = world.image("cache:latest").manifest["layers"].as_array().unwrap().clone();
            let biggest = layers.iter().max_by_key(|layer| layer["size"].as_u64()).unwrap();
            let path = storage::blob(&world.registry.storage(), biggest["digest"].as_str().unwrap());
            let half = usize::try_from(fs::metadata(&path).unwrap().len() / 2).unwrap();
            (path, half)
        };
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let outcome = restore_from(&world, "0.12", &cache);
        outcome.says("Skipping restore for layer acme/jvm:deps");
        assert!(!world.exists("layers/acme_jvm/deps"), "{cache:?}");
        if !may_differ("it leaves the metadata of a layer that it could not restore") {
            assert!(!world.exists("layers/acme_jvm/deps.toml"), "{cache:?}");
        }
        fs::write(&path, &good).unwrap();
        restore_from(&world, "0.12", &cache);
        assert!(world.read("layers/acme_jvm/deps/a.jar") == text, "{cache:?}");
        fill(&world);
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let mut world = ready();
    let front = FaultServer::start(&world.host, |seen| {
        if seen.is("PUT", "/v2/cache/manifests/") || seen.is("POST", "/v2/cache/blobs") {
            Reply::status(403)
        } else {
            Reply::Forward
        }
    });
    world.host = front.host();
    world.analyzed();
    for api in ["0.7", "0.12", "0.15"] {
        for extra in [None, Some("-parallel")] {
            let mut call = world.exporter(api, &[]);
            call.args(["-cache-image", &world.name("cache")]).args(extra).arg(world.name("app"));
            run(&mut call).ok().says("Warning: Failed to export cache");
            assert!(world.is_whole("app:latest") && world.exists("layers/report.toml"), "{api}");
            assert_eq!(world.digest("cache:latest"), None);
        }
    }
}

#[test]
fn a_cache_volume_must_exist() {
    let world = ready();
    for name in ["exporter", "restorer"] {
        let mut call = world.call(name, "0.12");
        call.args(["-cache-dir", &world.text("no-such")]);
        if name == "exporter" {
            call.arg("-launcher").arg(world.path("cnb/launcher")).arg(world.name("app"));
        }
        let outcome = run(&mut call).exits(1).says("failed to create").says("no-such");
        assert!(!outcome.all().contains("failed to export"), "{}", outcome.all());
    }
    // Of two caches the image is taken.
    export_to(&world, "0.12", &["-cache-dir", &world.text("cache"), "-cache-image", &world.name("cache")]);
    assert!(world.is_whole("cache:latest") && !world.exists(METADATA_FILE));
}

#[test]
fn a_cache_image_that_lost_a_blob_is_made_anew() {
    let world = ready();
    let name = world.name("cache");
    let cache = ["-cache-image", &*name];
    export_to(&world, "0.12", &cache);
    for descriptor in world.image("cache:latest").manifest["layers"].as_array().unwrap() {
        storage::lose(&world.registry.storage(), descriptor["digest"].as_str().unwrap());
    }
    restore_from(&world, "0.12", &cache);
    assert!(!world.exists("layers/acme_jvm/deps"));
    fill(&world);
    world.analyzed();
    run(world.exporter("0.12", &[]).args(cache).arg(world.name("fresh"))).ok();
    assert!(world.is_whole("fresh:latest"));
    if may_differ("it leaves the damaged cache image as it is") {
        return;
    }
    assert!(world.is_whole("cache:latest"));
    restore_from(&world, "0.12", &cache);
    assert_eq!(world.read("layers/acme_jvm/deps/a.jar"), "jar");
}

#[test]
fn parallel_export_is_the_same_export() {
    let world = ready();
    for api in PLATFORM_APIS {
        run(&mut world.exporter(api, &["app:plain"])).ok();
        let mut call = world.exporter(api, &[]);
        call.args(["-parallel", "-cache-dir", &world.text("cache")]).arg(world.name("app:parallel"));
        run(&mut call).ok();
        assert_eq!(world.digest("app:plain"), world.digest("app:parallel"), "{api}");
        assert!(world.exists(METADATA_FILE), "{api}");
        world.remove("cache");
        world.write(&[("cache", acceptance::tree::Entry::Dir)]);
    }
}

//! One lifecycle builds, another goes on: nothing is sent again, and labels mean the same. With the reference at hand
//! (`PEER=<folder of its executables>`) in both directions; without it, against facts that were recorded from it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;
mod platform_root;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use acceptance::{
    image::LayoutImage,
    registry::Options,
    run::{PLATFORM_APIS, at_least, executable, run, workspace},
    tree::Entry::{Bytes, File, Link, Mode},
};
use image_world::{METADATA, World, storage};
use platform_root::{Rights, Root};
use serde_json::{Map, Value, json};

/// Without keys of tables that hold nothing: a list without elements may be `null`, empty, or not there.
fn without_empty_lists(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, v| !(v.is_null() || v.as_array().is_some_and(Vec::is_empty)));
            object.values_mut().for_each(without_empty_lists);
        }
        Value::Array(array) => array.iter_mut().for_each(without_empty_lists),
        _ => {}
    }
}

/// Labels and documents that may differ between lifecycles, taken away before they are compared.
fn comparable(key: &str, mut value: Value) -> Value {
    without_empty_lists(&mut value);
    if let Some(object) = value.as_object_mut() {
        match key {
            // The version of the lifecycle and where its source is.
            "io.buildpacks.build.metadata" => {
                object.remove("launcher");
                // The specification lists the buildpack's API, which not every lifecycle writes.
                for list in ["buildpacks", "extensions"] {
                    for buildpack in object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                        buildpack.as_object_mut().map(|b| b.remove("api"));
                    }
                }
            }
            // The specification has it here since 0.15; others have a label of its own only.
            "io.buildpacks.lifecycle.metadata" => {
                object.remove("exec-env");
            }
            _ => {}
        }
    }
    value
}

/// Labels by name, those that are JSON parsed.
fn labels(image: &LayoutImage) -> Map<String, Value> {
    let labels = image.config["config"]["Labels"].as_object().expect("labels");
    let parse = |key: &str, value: &Value| {
        let text = value.as_str().expect("a text");
        comparable(key, serde_json::from_str(text).unwrap_or_else(|_| value.clone()))
    };
    labels.iter().map(|(key, value)| (key.clone(), parse(key, value))).collect()
}

fn fill(world: &World) {
    let lots: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    world.layer("both", "launch = true\ncache = true\n[metadata]\nn = \"1\"", Some(&[("big", Bytes(&lots))]));
    world.layer("deps", "build = true\ncache = true\n[metadata]\nn = \"2\"", Some(&[("jar", File("jar"))]));
    world.layer("run", "launch = true", Some(&[("file", File("run")), ("to", Link("file"))]));
    world.write(&[
        ("layers/acme_jvm/store.toml", File("[metadata]\nseen = \"yes\"\n")),
        ("layers/sbom/launch/acme_jvm/run/sbom.cdx.json", File("{\"a\":1}")),
        ("layers/sbom/cache/acme_jvm/deps/sbom.cdx.json", File("{\"b\":1}")),
        ("layers/config/metadata.toml", File(&format!("{METADATA}[[slices]]\npaths = [\"static\"]\n"))),
    ]);
}

/// The phases around a build by one lifecycle, in directories where another was before.
fn rebuild(world: &World, folder: &Path, api: &str, cache: &[&str]) -> String {
    let phase = |name: &str| world.call_program(&folder.join(name), api);
    let image = world.name("app");
    run(phase("analyzer").arg(&image)).ok();
    let restored = run(phase("restorer").args(cache)).ok().all();
    fill(world);
    let export =
        |call: &mut Command| run(call.arg("-launcher").arg(world.path("cnb/launcher")).args(cache).arg(&image));
    let exported = export(&mut phase("exporter")).ok().all();
    world.clear_layers();
    restored + &exported
}

#[test]
fn each_goes_on_where_the_other_stopped() {
    let Some(peer) = env::var_os("PEER").filter(|dir| !dir.is_empty()).map(PathBuf::from) else {
        eprintln!("skipped: needs PEER, the folder of another lifecycle's executables");
        return;
    };
    let ours = executable("exporter").parent().unwrap().to_path_buf();
    for api in PLATFORM_APIS {
        for [first, second] in [[&peer, &ours], [&ours, &peer]] {
            for kind in ["-cache-dir", "-cache-image"] {
                let world = World::new();
                let place = if kind == "-cache-dir" { world.text("cache") } else { world.name("cache") };
                let cache = [kind, &*place];
                let what = format!("{api} {kind}: {} after {}", second.display(), first.display());
                rebuild(&world, first, api, &cache);
                let (before, blobs) = (world.image("app:latest"), layer_blobs(&world));
                let said = rebuild(&world, second, api, &cache);
                let after = world.image("app:latest");
                assert_eq!(after.diff_ids(), before.diff_ids(), "{what}");
                assert_eq!(digests(&after), digests(&before), "{what}: blobs");
                // The reference compresses a cache image's reused layers once more, and adds them.
                if !(said.contains("Reusing cache layer 'acme/jvm:both'\nAdding cache layer 'acme/jvm:both'")) {
                    assert_eq!(layer_blobs(&world), blobs, "{what}: no layer is in the registry twice\n{said}");
                }
                assert_eq!(labels(&after), labels(&before), "{what}");
                let mut configs = [&before, &after].map(|image| image.config.clone());
                for config in &mut configs {
                    config["config"].as_object_mut().unwrap().remove("Labels");
                }
                assert_eq!(configs[0], configs[1], "{what}");
                for text in [
                    "Restoring data for \"acme/jvm:both\" from cache",
                    "Restoring data for \"acme/jvm:deps\" from cache",
                    "Reusing layer 'acme/jvm:both'",
                    "Reusing layer 'acme/jvm:run'",
                    "Reused 2/2 app layer(s)",
                    "Reusing cache layer 'acme/jvm:both'",
                ] {
                    assert!(said.contains(text), "{what}: no \"{text}\" in\n{said}");
                }
            }
        }
    }
}

fn digests(image: &LayoutImage) -> Vec<Value> {
    image.manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect()
}

/// Digests of the blobs that are layers: all but JSON.
fn layer_blobs(world: &World) -> Vec<String> {
    let storage = world.registry.storage();
    let is_layer = |digest: &String| {
        let bytes = fs::read(storage::blob(&storage, digest)).expect("a blob");
        bytes.first() != Some(&b'{')
    };
    world.blobs().into_iter().filter(is_layer).collect()
}

const GOLDEN: &str = "acceptance/testdata/golden/export.json";

/// A build in the paths that all platforms use, the same to the last bit each time.
fn golden_tree(root: &Root) {
    root.fresh_volumes();
    root.write(&[
        ("workspace/main.txt", File("hello")),
        ("workspace/bin/run", Mode(0o755, "#!/bin/sh\n")),
        ("workspace/a/b", File("1")),
        ("workspace/a-b", File("2")),
        ("workspace/static/page.html", File("<p>")),
        ("workspace/link", Link("main.txt")),
        ("layers/group.toml", File("[[group]]\nid = \"acme/jvm\"\nversion = \"1.0.0\"\napi = \"0.10\"\n")),
        (
            "layers/config/metadata.toml",
            File(&format!("{METADATA}[[slices]]\npaths = [\"static\"]\n[[labels]]\nkey = \"k\"\nvalue = \"<v>\"\n")),
        ),
        (
            "layers/acme_jvm/both.toml",
            File("[types]\nlaunch = true\ncache = true\n[metadata]\nn = \"1\"\nlist = [\"a\", \"b\"]\n"),
        ),
        ("layers/acme_jvm/both/bin/java", Mode(0o755, "java")),
        ("layers/acme_jvm/both/lib/ünïcode.txt", File("u")),
        ("layers/acme_jvm/deps.toml", File("[types]\nbuild = true\ncache = true\n")),
        ("layers/acme_jvm/deps/jar", File("jar")),
        ("layers/acme_jvm/store.toml", File("[metadata]\nseen = \"yes\"\n")),
        ("layers/sbom/launch/acme_jvm/both/sbom.cdx.json", File("{\"a\":1}")),
        ("layers/sbom/cache/acme_jvm/deps/sbom.cdx.json", File("{\"b\":1}")),
        ("layers/project-metadata.toml", File("[source]\ntype = \"git\"\n[source.version]\ncommit = \"abc\"\n")),
        ("cnb/test-launcher", Mode(0o755, "launch")),
        ("cnb/sboms/launcher.sbom.cdx.json", File("{\"l\":1}")),
    ]);
    let long = format!("workspace/{}/{}", "long".repeat(30), "name".repeat(30));
    root.write(&[(&long, File("long"))]);
    // Whatever the umask of who runs the test.
    let mut chmod = Command::new("chmod");
    chmod.args(["-R", "u=rwX,go=rX"]).args(["workspace", "layers"].map(|dir| root.path(dir)));
    run(&mut chmod).ok();
    root.give_volumes();
}

/// What one export left, as facts that do not depend on the registry's port and on compression.
fn facts(root: &Root, api: &str) -> Value {
    golden_tree(root);
    root.world.remove("root/cache");
    root.write(&[("cache", acceptance::tree::Entry::Dir)]);
    root.give_volumes();
    let (app, environment) = (root.world.name("app"), [("CNB_PLATFORM_API", api)]);
    run(&mut root.call(Rights::User, "analyzer", &environment, &[&app])).ok();
    let mut args =
        vec!["-uid=1000", "-gid=1000", "-app=/workspace", "-cache-dir=/cache", "-launcher=/cnb/test-launcher"];
    if at_least(api, "0.11") {
        args.push("-launcher-sbom=/cnb/sboms");
    }
    args.push(&app);
    run(&mut root.call(Rights::User, "exporter", &environment, &args)).ok();
    let image = root.world.image("app:latest");
    let mut config = image.config.clone();
    config["config"]["Labels"] = Value::Object(labels(&image));
    let toml = |path: &str| -> Value {
        let table: toml::Table = toml::from_str(&root.read(path)).expect("TOML");
        serde_json::to_value(table).expect("JSON")
    };
    let mut report = toml("layers/report.toml");
    // Both follow from the compressed bytes.
    report["image"].as_object_mut().map(|image| (image.remove("digest"), image.remove("manifest-size")));
    // A table that holds nothing but an empty list.
    without_empty_lists(&mut report);
    if report["build"] == json!({}) {
        report.as_object_mut().map(|report| report.remove("build"));
    }
    let metadata = root.read("cache/committed/io.buildpacks.lifecycle.cache.metadata");
    let mut cache: Vec<String> = fs::read_dir(root.path("cache/committed"))
        .expect("the cache")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        // The reference has none, and reads no file that it does not know.
        .filter(|name| !name.ends_with(".tar.sums"))
        .collect();
    cache.sort();
    let mut facts = json!({
        "config": config,
        "report": report,
        "analyzed": toml("layers/analyzed.toml"),
        "cache": cache,
        "cache-metadata": serde_json::from_str::<Value>(&metadata).expect("JSON")
    });
    let digest = root.world.digest("run:latest").expect("the run image");
    without_empty_lists(&mut facts);
    let text = facts.to_string().replace(&digest, "RUN-DIGEST").replace(&root.world.host, "REGISTRY");
    serde_json::from_str(&text).expect("JSON")
}

/// With `RECORD_GOLDEN` set, writes the file instead: run it so with `LIFECYCLE=<folder of the reference>`.
#[test]
fn an_export_has_the_layers_and_labels_of_the_reference() {
    let Some(root) = Root::new(&Options::default()) else { return };
    root.builder("");
    let path = workspace().join(GOLDEN);
    let mut found = Map::new();
    for api in PLATFORM_APIS {
        // Without the image of the version before.
        let repositories = root.world.registry.storage().join("docker/registry/v2/repositories");
        let _ = fs::remove_dir_all(repositories.join("app"));
        found.insert(api.to_owned(), facts(&root, api));
    }
    if env::var_os("RECORD_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
        return;
    }
    let golden: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (api, facts) in &golden {
        for (key, expected) in facts.as_object().unwrap() {
            assert_eq!(&found[api][key], expected, "{api} {key}");
        }
    }
    assert_eq!(golden.len(), PLATFORM_APIS.len());
}

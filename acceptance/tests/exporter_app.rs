//! exporter, from outside: layers that are reused, app slices, and bills of materials.
//! platform.md "exporter"; buildpack.md "Layer Types", "launch.toml (TOML)" slices, "Software-Bill-of-Materials".
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;

use acceptance::{
    image::LayoutImage,
    run::{PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::{Dir, File, Link},
};
use image_world::{METADATA, World, in_tar};

fn ready() -> World {
    let world = World::new();
    world.analyzed();
    world
}

fn sha(image: &LayoutImage, layer: &str) -> Option<String> {
    let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
    label["buildpacks"][0]["layers"][layer]["sha"].as_str().map(str::to_owned)
}

#[test]
fn a_layer_without_contents_is_taken_from_the_previous_image() {
    for api in PLATFORM_APIS {
        let world = ready();
        world.layer("jdk", "launch = true\n[metadata]\nversion = 1", Some(&[("bin/java", File("java"))]));
        world.layer("jre", "launch = true", Some(&[("bin/jre", File("jre"))]));
        run(&mut world.exporter(api, &["app"])).ok().says("Adding layer 'acme/jvm:jdk'");
        let first = world.image("app:latest");
        run(&mut world.analyzer(api, "app")).ok();

        // One without its files, and with other metadata; the other as it was, made again.
        world.layer("jdk", "launch = true\nbuild = true\n[metadata]\nversion = 2", None);
        world.layer("jre", "launch = true", Some(&[("bin/jre", File("jre"))]));
        let outcome = run(&mut world.exporter(api, &["app"])).ok();
        outcome
            .says("Reusing layer 'acme/jvm:jdk'")
            .says("Reusing layer 'acme/jvm:jre'")
            .says("Reused 1/1 app layer(s)");
        let second = world.image("app:latest");
        assert_eq!(second.diff_ids(), first.diff_ids(), "{api}");
        assert_eq!(second.manifest["layers"], first.manifest["layers"], "{api}: the same blobs");
        let label = second.label_json("io.buildpacks.lifecycle.metadata").unwrap();
        let layer = &label["buildpacks"][0]["layers"]["jdk"];
        assert_eq!(layer["data"]["version"], 2, "{api}");
        assert_eq!(layer["build"], true, "{api}");

        // Changed contents are a new layer, and a layer that has gone from the buildpack goes from the image.
        run(&mut world.analyzer(api, "app")).ok();
        world.layer("jre", "launch = true", Some(&[("bin/jre", File("other"))]));
        world.remove("layers/acme_jvm/jdk.toml");
        run(&mut world.exporter(api, &["app"])).ok().says("Adding layer 'acme/jvm:jre'");
        let third = world.image("app:latest");
        assert_eq!(sha(&third, "jdk"), None, "{api}");
        assert_ne!(sha(&third, "jre"), sha(&first, "jre"), "{api}");
        assert_eq!(third.diff_ids().len(), first.diff_ids().len() - 1, "{api}");
    }
}

#[test]
fn a_layer_without_contents_needs_a_previous_one() {
    for api in PLATFORM_APIS {
        let world = ready();
        world.layer("jdk", "launch = true", None);
        run(&mut world.exporter(api, &["app"]))
            .exits(62)
            .says("cannot reuse 'acme/jvm:jdk', previous image has no metadata for layer 'acme/jvm:jdk'");
        world.layer("jdk", "launch = true\ncache = true", None);
        run(&mut world.exporter(api, &["app"]))
            .exits(62)
            .says("layer 'acme/jvm:jdk' is cache=true but has no contents");
        world.write(&[("layers/acme_jvm/jdk.toml", File("no toml"))]);
        run(&mut world.exporter(api, &["app"])).exits(62).says("failed to parse metadata for layers '[acme/jvm:jdk]'");
        assert_eq!(world.digest("app:latest"), None);
        // One that is not for the app image needs nothing.
        world.layer("jdk", "build = true", None);
        run(&mut world.exporter(api, &["app"])).ok();
    }
}

#[test]
fn a_previous_image_that_has_gone_is_an_error_with_its_name() {
    let world = ready();
    world.layer("jdk", "launch = true", Some(&[("a", File("a"))]));
    run(&mut world.exporter("0.12", &["app"])).ok();
    run(&mut world.analyzer("0.12", "app")).ok();
    let repositories = world.registry.storage().join("docker/registry/v2/repositories");
    std::fs::remove_dir_all(repositories.join("app/_manifests")).unwrap();
    world.layer("jdk", "launch = true", None);
    if may_differ("it crashes where the previous image has gone") {
        return;
    }
    let outcome = run(&mut world.exporter("0.12", &["app"]));
    assert!(outcome.code() == 62 && outcome.all().contains("acme/jvm:jdk"), "{}: {}", outcome.code(), outcome.all());
    assert_eq!(world.digest("app:latest"), None);
}

/// The app's layers, each as the paths below the app's directory.
fn app_layers(world: &World, image: &LayoutImage, count: usize) -> Vec<Vec<String>> {
    let app = in_tar(&world.path("app"));
    let below = |path: &String| path.strip_prefix(&format!("{app}/")).map(str::to_owned);
    (2..2 + count).map(|n| image.layer(n).iter().filter_map(|e| below(&e.path)).collect()).collect()
}

#[test]
fn slices_cut_the_app() {
    let world = ready();
    world.write(&[
        ("app/a/deep/x.js", File("1")),
        ("app/a/x.js", File("2")),
        ("app/b.txt", File("3")),
        ("app/empty", Dir),
        ("app/link", Link("b.txt")),
        ("app/static/css/all.css", File("4")),
    ]);
    let absolute = format!("{}/*.txt", world.text("app"));
    let slices = |paths: &[&str]| {
        let tables: Vec<String> = paths.iter().map(|p| format!("[[slices]]\npaths = [{p}]\n")).collect();
        METADATA.to_owned() + &tables.concat()
    };
    let rows: &[(&[&str], &[&[&str]])] = &[
        // A directory takes what is below; its parents come with it.
        (
            &["\"static\""],
            &[
                &["static", "static/css", "static/css/all.css", "static/page.html"],
                &["a", "a/deep", "a/deep/x.js", "a/x.js", "b.txt", "empty", "link", "main.txt"],
            ],
        ),
        // A star stays in its directory; what an earlier slice took is taken.
        (
            &["\"*.txt\"", "\"b*\", \"a/*.js\""],
            &[
                &["b.txt", "main.txt"],
                &["a", "a/x.js"],
                &[
                    "a",
                    "a/deep",
                    "a/deep/x.js",
                    "empty",
                    "link",
                    "static",
                    "static/css",
                    "static/css/all.css",
                    "static/page.html",
                ],
            ],
        ),
        // No match, an empty layer.
        (
            &["\"none/*\""],
            &[
                &[],
                &[
                    "a",
                    "a/deep",
                    "a/deep/x.js",
                    "a/x.js",
                    "b.txt",
                    "empty",
                    "link",
                    "main.txt",
                    "static",
                    "static/css",
                    "static/css/all.css",
                    "static/page.html",
                ],
            ],
        ),
    ];
    for api in ["0.7", "0.12", "0.15"] {
        for (paths, expected) in rows {
            world.write(&[("layers/config/metadata.toml", File(&slices(paths)))]);
            run(&mut world.exporter(api, &["app"])).ok();
            let image = world.image("app:latest");
            assert_eq!(app_layers(&world, &image, expected.len()), *expected, "{api} {paths:?}");
            let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
            let shas: Vec<_> =
                label["app"].as_array().unwrap().iter().map(|a| a["sha"].as_str().unwrap().to_owned()).collect();
            assert_eq!(shas, image.diff_ids()[2..2 + expected.len()], "{api} {paths:?}");
            if at_least(api, "0.12") {
                let texts: Vec<_> = image.config["history"].as_array().unwrap()[2..2 + expected.len()]
                    .iter()
                    .map(|h| h["created_by"].as_str().unwrap().to_owned())
                    .collect();
                let numbered: Vec<_> = (1..=expected.len()).map(|n| format!("Application Slice: {n}")).collect();
                assert_eq!(texts, numbered);
            }
        }
    }
    if may_differ("absolute paths of slices never match there") {
        return;
    }
    world.write(&[("layers/config/metadata.toml", File(&slices(&[&format!("\"{absolute}\"")])))]);
    run(&mut world.exporter("0.12", &["app"])).ok();
    assert_eq!(app_layers(&world, &world.image("app:latest"), 1), [["b.txt", "main.txt"]]);
}

#[test]
fn slices_are_reused_one_by_one() {
    let world = ready();
    world.write(&[("layers/config/metadata.toml", File(&format!("{METADATA}[[slices]]\npaths = [\"static\"]\n")))]);
    run(&mut world.exporter("0.12", &["app"])).ok().says("Added 2/2 app layer(s)");
    run(&mut world.analyzer("0.12", "app")).ok();
    world.write(&[("app/main.txt", File("changed"))]);
    let outcome = run(&mut world.exporter("0.12", &["app"])).ok();
    outcome.says("Reused 1/2 app layer(s)").says("Added 1/2 app layer(s)");
}

#[test]
fn bills_of_materials_are_a_layer() {
    for api in PLATFORM_APIS {
        let world = ready();
        world.layer("jdk", "launch = true", Some(&[("a", File("a"))]));
        world.write(&[
            ("layers/sbom/launch/acme_jvm/jdk/sbom.cdx.json", File("{\"a\":1}")),
            ("layers/sbom/build/acme_jvm/sbom.cdx.json", File("{\"not\":1}")),
            ("layers/sbom/cache/acme_jvm/sbom.cdx.json", File("{\"not\":2}")),
            ("sboms/launcher.sbom.cdx.json", File("{\"l\":1}")),
            ("sboms/launcher.sbom.txt", File("no bill")),
        ]);
        let mut call = world.exporter(api, &[]);
        if at_least(api, "0.11") {
            call.arg("-launcher-sbom").arg(world.path("sboms"));
        }
        let outcome = run(call.arg(world.name("app"))).ok();
        let image = world.image("app:latest");
        let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
        if !at_least(api, "0.8") {
            assert!(label.get("sbom").is_none(), "{api}");
            continue;
        }
        outcome.says("Adding layer 'buildpacksio/lifecycle:launch.sbom'");
        assert_eq!(label["sbom"]["sha"].as_str(), Some(&*image.diff_ids()[3]), "{api}");
        let root = in_tar(&world.path("layers/sbom/launch"));
        let files: Vec<String> = image
            .layer(3)
            .iter()
            .filter(|e| e.kind == '0')
            .map(|e| e.path.strip_prefix(&root).unwrap_or(&e.path).to_owned())
            .collect();
        let mut expected = vec!["/acme_jvm/jdk/sbom.cdx.json"];
        if at_least(api, "0.11") {
            expected.push("/buildpacksio_lifecycle/launcher/launcher.sbom.cdx.json");
        }
        assert_eq!(files, expected, "{api}");
        if at_least(api, "0.11") {
            run(world.call("exporter", api).arg("-launcher").arg(world.path("cnb/launcher")).arg(world.name("app")))
                .ok();
        } else {
            let mut call = world.call("exporter", api);
            run(call.arg("-launcher-sbom=x").arg(world.name("app"))).exits(2);
        }
    }
}

//! Exports to a layout: what the image is, byte for byte the same from the same input, and what is reused.

mod common;

use acceptance::{image::LayoutImage, tree::Entry};
use common::{World, logged, shown};
use platform_api::{ExitCode, Failure, PlatformApi};

fn web() -> &'static str {
    "buildpack-default-process-type = 'web'\n\
     [[buildpacks]]\nid = 'acme/jvm'\nversion = '1.0'\napi = '0.11'\n\
     [[labels]]\nkey = 'a.label'\nvalue = 'v1'\n\
     [[labels]]\nkey = 'a.label'\nvalue = 'v2'\n\
     [[processes]]\ntype = 'web'\ncommand = ['run']\nargs = []\ndirect = true\nbuildpack-id = 'acme/jvm'\n\
     [[slices]]\npaths = ['static']\n"
}

/// Layers of all kinds, and a process.
fn full() -> World {
    let world = World::in_layout();
    world.layer("jdk", "launch = true", Some("java"));
    world.layer("build-only", "build = true", Some("x"));
    world.write(&[
        ("layers/config/metadata.toml", Entry::File(web())),
        ("layers/acme_jvm/store.toml", Entry::File("[metadata]\nn = 1\nat = 2024-01-02T03:04:05Z\n")),
        ("layers/sbom/launch/acme_jvm/jdk/sbom.cdx.json", Entry::File("{}")),
    ]);
    world
}

#[test]
fn the_image_is_what_the_spec_says() {
    let world = full();
    let report = world.export_new("app:v1");
    assert_eq!(report.image.tags, [world.name("app:v1")]);
    assert!(report.image.digest.is_none() && report.image.image_id.is_none() && report.build.is_none());
    let image = LayoutImage::open(&world.layout("app:v1"));
    image.validate();
    let history: Vec<_> = image.config["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["created_by"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        history,
        [
            "base etc/os",
            "base etc/more",
            "Layer: 'jdk', Created by buildpack: acme/jvm@1.0",
            "Software Bill-of-Materials",
            "Application Slice: 1",
            "Application Slice: 2",
            "Buildpacks Application Launcher",
            "Buildpacks Launcher Config",
            "Buildpacks Process Types",
        ]
    );
    assert!(image.config["history"].as_array().unwrap().iter().all(|h| h["created"] == "1980-01-01T00:00:01Z"));
    assert_eq!(image.config["created"], "1980-01-01T00:00:01Z");
    let config = &image.config["config"];
    assert_eq!(
        config["Env"],
        serde_json::json!([
            "PATH=/cnb/process:/cnb/lifecycle:/usr/bin",
            "X=1",
            format!("CNB_LAYERS_DIR={}", world.path("layers").display()),
            format!("CNB_APP_DIR={}", world.path("app").display()),
            "CNB_PLATFORM_API=0.15",
            "CNB_DEPRECATION_MODE=quiet",
        ])
    );
    assert_eq!(config["Entrypoint"], serde_json::json!(["/cnb/process/web"]));
    assert_eq!(config["WorkingDir"], world.path("app").display().to_string());
    assert_eq!(config["User"], "1000:1000");
    assert!(config.get("Cmd").is_none());
    assert_eq!(image.label("a.label").as_deref(), Some("v2"));
    assert_eq!(image.label("io.buildpacks.base.id").as_deref(), Some("acme"));
    assert_eq!(image.label("io.buildpacks.project.metadata").as_deref(), Some("{}"));
    assert_eq!(image.label("io.buildpacks.exec-env").as_deref(), Some("production"));
    assert_eq!(image.manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or("v1"), "v1");
}

#[test]
fn the_lifecycle_label_says_what_is_where() {
    let world = full();
    world.export_new("app");
    let image = LayoutImage::open(&world.layout("app"));
    let ids = image.diff_ids();
    let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
    let run = world.find("run").id.unwrap().to_string();
    let names = serde_json::json!({"image": world.name("run"), "mirrors": ["b.example/run"]});
    assert_eq!(
        label,
        serde_json::json!({
            "app": [{"sha": ids[4]}, {"sha": ids[5]}],
            "sbom": {"sha": ids[3]},
            "buildpacks": [{
                "key": "acme/jvm",
                "version": "1.0",
                "layers": {"jdk": {"sha": ids[2], "data": {"version": 7}, "build": false, "launch": true, "cache": false}},
                "store": {"metadata": {"n": 1, "at": "2024-01-02T03:04:05Z"}},
            }],
            "config": {"sha": ids[7]},
            "launcher": {"sha": ids[6]},
            "process-types": {"sha": ids[8]},
            "runImage": {"topLayer": ids[1], "reference": run, "image": names["image"], "mirrors": names["mirrors"]},
            "stack": {"runImage": names},
            "exec-env": "production",
        })
    );
    let text = image.label("io.buildpacks.lifecycle.metadata").unwrap();
    let order = ["app", "sbom", "buildpacks", "config", "launcher", "process-types", "runImage", "stack"];
    let at: Vec<_> = order.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(at.is_sorted(), "{text}");
    let build = image.label_json("io.buildpacks.build.metadata").unwrap();
    assert_eq!(build["launcher"]["version"], "1.2.3");
    assert_eq!(build["processes"][0]["type"], "web");
}

#[test]
fn what_is_in_the_layers() {
    let world = full();
    world.export_new("app");
    let image = LayoutImage::open(&world.layout("app"));
    let own = |path: &str| world.path(path).display().to_string();
    let names = |n: usize| image.layer(n).into_iter().map(|e| e.path).collect::<Vec<_>>();
    let ends =
        |n: usize, root: &str| -> Vec<String> { names(n).into_iter().skip_while(|path| *path != own(root)).collect() };
    assert_eq!(
        ends(2, "layers/acme_jvm/jdk"),
        ["layers/acme_jvm/jdk", "layers/acme_jvm/jdk/bin", "layers/acme_jvm/jdk/bin/tool"].map(own)
    );
    assert_eq!(ends(4, "app"), ["app", "app/static", "app/static/page.html"].map(own));
    assert_eq!(ends(5, "app"), ["app", "app/main.txt"].map(own));
    assert_eq!(names(6), ["/cnb", "/cnb/lifecycle", "/cnb/lifecycle/launcher"]);
    assert_eq!(names(8), ["/cnb", "/cnb/process", "/cnb/process/web"]);
    let tool = image.layer(2).pop().unwrap();
    assert_eq!((tool.uid, tool.gid, tool.mode, tool.mtime), (1000, 1000, 0o755, 315_532_801));
    let link = image.layer(8).pop().unwrap();
    assert_eq!((link.uid, link.link.as_deref()), (0, Some("/cnb/lifecycle/launcher")));
}

#[test]
fn the_same_input_is_the_same_image() {
    let world = full();
    world.export_new("one");
    world.export_new("two");
    let digest = |name| LayoutImage::open(&world.layout(name)).digest();
    // The tag is not part of a manifest.
    assert_eq!(digest("one"), digest("two"));
    std::fs::write(world.path("app/main.txt"), "hello!").unwrap();
    world.export_new("three");
    let (one, three) = (LayoutImage::open(&world.layout("one")), LayoutImage::open(&world.layout("three")));
    let (a, b) = (one.diff_ids(), three.diff_ids());
    let changed: Vec<_> = (0..a.len()).filter(|n| a[*n] != b[*n]).collect();
    assert_eq!((changed, a.len()), (vec![5], b.len()), "only the layer with the changed file");
}

#[test]
fn a_rebuild_reuses_what_did_not_change() {
    let world = full();
    world.export_new("app");
    let before = LayoutImage::open(&world.layout("app"));
    let analyzed = world.analyze("app");
    std::fs::write(world.path("app/main.txt"), "changed").unwrap();
    let (report, lines) = logged(|| world.export(&world.exporter("app"), &analyzed, None));
    report.unwrap();
    // What is installed on the machine of the test does not matter.
    let shown: Vec<_> = shown(&lines).into_iter().filter(|line| !line.contains("Did not find SBOM")).collect();
    assert_eq!(
        shown,
        [
            &format!("Reusing layers from image '{}'", world.layout("app").display()),
            &format!("Using app image: {}", world.layout("app").display()),
            "Reusing layer 'acme/jvm:jdk'",
            "Reusing layer 'buildpacksio/lifecycle:launch.sbom'",
            "Reused 1/2 app layer(s)",
            "Added 1/2 app layer(s)",
            "Reusing layer 'buildpacksio/lifecycle:launcher'",
            "Reusing layer 'buildpacksio/lifecycle:config'",
            "Reusing layer 'buildpacksio/lifecycle:process-types'",
            "Adding label 'io.buildpacks.lifecycle.metadata'",
            "Adding label 'io.buildpacks.build.metadata'",
            "Adding label 'io.buildpacks.project.metadata'",
            "Adding label 'a.label'",
            "Adding label 'a.label'",
            "Adding label 'io.buildpacks.exec-env'",
            "Setting default process type 'web'",
            &format!("Saving {}...", world.name("app")),
            &format!(
                "*** Images ({}@{}):",
                world.layout("app").display(),
                LayoutImage::open(&world.layout("app")).digest()
            ),
            &format!("      {}", world.name("app")),
        ]
        .map(|s: &str| s)
    );
    let after = LayoutImage::open(&world.layout("app"));
    after.validate();
    let blobs = |image: &LayoutImage| image.manifest["layers"].as_array().unwrap().clone();
    let (old, new) = (blobs(&before), blobs(&after));
    let changed: Vec<_> = (0..old.len()).filter(|n| old[*n] != new[*n]).collect();
    assert_eq!(changed, [5]);
}

#[test]
fn a_layer_left_in_the_image_is_taken_from_it() {
    let world = full();
    world.export_new("app");
    let before = LayoutImage::open(&world.layout("app")).diff_ids();
    let analyzed = world.analyze("app");
    std::fs::remove_dir_all(world.path("layers/acme_jvm/jdk")).unwrap();
    world.export(&world.exporter("app"), &analyzed, None).unwrap();
    assert_eq!(LayoutImage::open(&world.layout("app")).diff_ids(), before);

    for (why, types, analyzed, error) in [
        (
            "no previous image",
            "launch = true",
            world.analyzed(),
            "cannot reuse 'acme/jvm:jdk', previous image has no metadata for layer 'acme/jvm:jdk'",
        ),
        (
            "cached",
            "launch = true\ncache = true",
            analyzed.clone(),
            "layer 'acme/jvm:jdk' is cache=true but has no contents",
        ),
        (
            "an image that is gone",
            "launch = true",
            platform_api::Analyzed { previous_image: None, ..analyzed.clone() },
            "reusing layer: 'acme/jvm:jdk': the previous image has no layer with SHA",
        ),
    ] {
        world.layer("jdk", types, None);
        let failed = format!("{:#}", world.export(&world.exporter("app2"), &analyzed, None).unwrap_err());
        assert!(failed.contains(error), "{why}: {failed}");
    }
    world.write(&[("layers/acme_jvm/jdk.toml", Entry::File("[types"))]);
    let failed = format!("{:#}", world.export(&world.exporter("app2"), &analyzed, None).unwrap_err());
    assert!(failed.contains("failed to parse metadata for layers '[acme/jvm:jdk]'"), "{failed}");
}

#[test]
fn a_lost_blob_is_made_again() {
    let world = full();
    world.export_new("app");
    let before = LayoutImage::open(&world.layout("app"));
    let analyzed = world.analyze("app");
    let blob = before.manifest["layers"][2]["digest"].as_str().unwrap().replace(':', "/");
    std::fs::remove_file(world.layout("app").join("blobs").join(blob)).unwrap();
    let (report, lines) = logged(|| world.export(&world.exporter("app"), &analyzed, None));
    report.unwrap();
    assert!(lines.iter().any(|line| line == "Adding layer 'acme/jvm:jdk'"), "{lines:?}");
    let after = LayoutImage::open(&world.layout("app"));
    after.validate();
    assert_eq!(after.layer(2).last().unwrap().content, b"java");
}

#[test]
fn more_names_are_more_layouts() {
    let world = full();
    let mut i = world.exporter("app:v1");
    i.output_images.push(world.name("other:v2"));
    let report = world.export(&i, &world.analyzed(), None).unwrap();
    assert_eq!(report.image.tags, [world.name("app:v1"), world.name("other:v2")]);
    for name in ["app:v1", "other:v2"] {
        LayoutImage::open(&world.layout(name)).validate();
    }
}

#[test]
fn an_old_platform_gets_an_old_image() {
    let mut world = full();
    world.api = PlatformApi::V0_7;
    world.write(&[("layers/acme_jvm/build.toml", Entry::File("[[bom]]\nname = 'tool'\n"))]);
    let report = world.export_new("app");
    assert_eq!(report.build.unwrap().bom[0].1, ("acme/jvm".to_owned(), "1.0".to_owned()));
    let image = LayoutImage::open(&world.layout("app"));
    let history = image.config["history"].as_array().unwrap();
    assert_eq!(history.len(), 8, "no SBOM layer");
    assert!(history.iter().all(|h| h.get("created_by").is_none()));
    let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
    assert_eq!(label["runImage"].get("image"), None);
    assert_eq!(label["stack"]["runImage"]["image"], world.name("run"));
    assert_eq!(image.label("io.buildpacks.exec-env"), None);
}

#[test]
fn the_build_says_when_it_was() {
    let world = full();
    let mut i = world.exporter("app");
    i.source_date_epoch = Some(0);
    world.export(&i, &world.analyzed(), None).unwrap();
    assert_eq!(LayoutImage::open(&world.layout("app")).config["created"], "1970-01-01T00:00:00Z");
    i.api = PlatformApi::V0_8;
    world.export(&i, &world.analyzed(), None).unwrap();
    assert_eq!(LayoutImage::open(&world.layout("app")).config["created"], "1980-01-01T00:00:01Z");
}

#[test]
fn the_launcher_is_what_is_started_without_a_process() {
    let world = World::in_layout();
    world.export_new("app");
    let image = LayoutImage::open(&world.layout("app"));
    assert_eq!(image.config["config"]["Entrypoint"], serde_json::json!(["/cnb/lifecycle/launcher"]));
    let history = image.config["history"].as_array().unwrap();
    assert_eq!(history[2]["created_by"], "Application Layer");
    assert_eq!(history.len(), 5, "no layer of process types");
    let mut i = world.exporter("app");
    i.process_type = Some("web".into());
    let error = format!("{:#}", world.export(&i, &world.analyzed(), None).unwrap_err());
    assert!(error.contains("tried to set web to default but it doesn't exist"), "{error}");
}

#[test]
fn without_a_run_image_there_is_nothing_to_export() {
    let world = World::in_layout();
    let error = world.export(&world.exporter("app"), &platform_api::Analyzed::default(), None).unwrap_err();
    let failure: &Failure = error.downcast_ref().unwrap();
    assert_eq!(failure.code, ExitCode::InvalidArgs);
    assert_eq!(failure.text, "failed to resolve inputs: run image not found in analyzed metadata");
}

#[test]
fn sboms_of_the_launcher_come_along() {
    let world = World::in_layout();
    world.write(&[("sboms/launcher.sbom.cdx.json", Entry::File("{}")), ("sboms/readme", Entry::File(""))]);
    world.export_new("app");
    assert!(world.exists("layers/sbom/launch/buildpacksio_lifecycle/launcher/launcher.sbom.cdx.json"));
    assert!(!world.exists("layers/sbom/launch/buildpacksio_lifecycle/launcher/readme"));
    let image = LayoutImage::open(&world.layout("app"));
    assert_eq!(image.config["history"][2]["created_by"], "Software Bill-of-Materials");
}

//! exporter, from outside: its arguments, the image's layers, config and labels, and report.toml.
//! platform.md "exporter", "Labels", "report.toml (TOML)"; buildpack.md "Layer Types".
#![allow(clippy::expect_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;

use std::{fs, os::unix::fs::PermissionsExt};

use acceptance::{
    run::{Outcome, PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::{Dir, File, Link, Mode},
};
use image_world::{METADATA, RUN_FILES, USER, World, in_tar, is_root, run_image, string};
use serde_json::{Value, json};

/// Names of the layers that this exporter put upon the base, bottom first, by their history.
fn created_by(config: &Value) -> Vec<String> {
    let history = config["history"].as_array().expect("history");
    history.iter().map(|h| h["created_by"].as_str().unwrap_or("-").to_owned()).collect()
}

fn export(world: &World, api: &str, images: &[&str]) -> Outcome {
    run(&mut world.exporter(api, images)).ok()
}

fn ready() -> World {
    let world = World::new();
    world.analyzed();
    world
}

#[test]
fn arguments_and_inputs_are_checked() {
    let world = ready();
    run(&mut world.exporter("0.12", &[])).exits(3).says("at least one image argument is required");
    let mut two = world.exporter("0.12", &["app"]);
    run(two.arg("other.example/app")).exits(3).says("writing to multiple registries is unsupported");
    for (flag, text) in [("-run-image", "-run-image is unsupported"), ("-image", "-image is unsupported")] {
        let mut call = world.call("exporter", "0.12");
        run(call.args([flag, "x"]).arg(world.name("app"))).exits(3).says(text);
    }
    world.remove("layers/analyzed.toml");
    let outcome = run(&mut world.exporter("0.12", &["app"]));
    if !may_differ("its exporter crashes without analyzed.toml") {
        outcome.exits(3).says("run image not found in analyzed metadata");
    }
    world.write(&[("layers/analyzed.toml", File("[run-image]\nreference = \"\"\n"))]);
    run(&mut world.exporter("0.12", &["app"])).exits(3).says("run image not found in analyzed metadata");
    world.analyzed();
    let analyzed = world.read("layers/analyzed.toml");
    world.write(&[("layers/analyzed.toml", File("no toml"))]);
    run(&mut world.exporter("0.12", &["app"])).exits(3).says("failed to resolve inputs: failed to read analyzed file");
    world.write(&[("layers/analyzed.toml", File(&analyzed)), ("layers/extended/run/sha256_x/blob", File(""))]);
    let mut extended = world.exporter("0.12", &["app"]);
    run(&mut extended).exits(1).says("Platform requested experimental feature 'Dockerfiles'");
    world.remove("layers/extended");
    let metadata = world.read("layers/config/metadata.toml");
    world.write(&[("layers/config/metadata.toml", File("no toml"))]);
    run(&mut world.exporter("0.12", &["app"])).exits(62).says("failed to export: read build metadata: failed to read");
    world.write(&[("layers/config/metadata.toml", File(&metadata))]);
    world.write(&[("layers/project-metadata.toml", File("no toml"))]);
    run(&mut world.exporter("0.12", &["app"])).exits(1).says("project metadata");
    world.remove("layers/project-metadata.toml");
    let group = world.read("layers/group.toml");
    for (text, code) in [("no toml", 1), (&*group.replace("0.10", "0.6"), 12), (&*group.replace("0.10", "x"), 12)] {
        world.write(&[("layers/group.toml", File(text))]);
        run(&mut world.exporter("0.12", &["app"])).exits(code);
    }
    world.remove("layers/group.toml");
    run(&mut world.exporter("0.12", &["app"])).exits(1).says("failed to read group");
    assert_eq!(world.digest("app:latest"), None, "nothing was written");
    assert!(!world.exists("layers/report.toml"));
}

#[test]
fn layers_stand_in_their_order_and_say_who_made_them() {
    let world = ready();
    world.group(&["acme/node", "acme/jvm"]);
    for (buildpack, layer, types) in [
        ("acme_jvm", "b", "launch = true"),
        ("acme_jvm", "a", "launch = true\nbuild = true"),
        ("acme_jvm", "build-only", "build = true"),
        ("acme_jvm", "cache-only", "cache = true"),
        ("acme_node", "z", "launch = true"),
    ] {
        world.layer_of(buildpack, layer, types, Some(&[("file", File(layer))]));
    }
    world.write(&[("layers/sbom/launch/acme_jvm/sbom.cdx.json", File("{}"))]);
    for api in PLATFORM_APIS {
        world.remove("layers/sbom/launch/buildpacksio_lifecycle");
        export(&world, api, &["app"]);
        let image = world.image("app:latest");
        let mut expected = vec![
            "Layer: 'z', Created by buildpack: acme/node@1.0.0",
            "Layer: 'a', Created by buildpack: acme/jvm@1.0.0",
            "Layer: 'b', Created by buildpack: acme/jvm@1.0.0",
        ];
        if at_least(api, "0.8") {
            expected.push("Software Bill-of-Materials");
        }
        expected.extend([
            "Application Layer",
            "Buildpacks Application Launcher",
            "Buildpacks Launcher Config",
            "Buildpacks Process Types",
        ]);
        assert_eq!(image.diff_ids().len(), 2 + expected.len(), "{api}");
        assert_eq!(image.diff_ids()[..2], world.image("run:latest").diff_ids()[..], "{api}");
        let texts = created_by(&image.config);
        if at_least(api, "0.12") {
            expected.splice(0..0, ["base", "more"]);
            assert_eq!(texts, expected, "{api}");
        } else {
            assert!(texts.iter().all(|t| t == "-"), "{api}: {texts:?}");
        }
        let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
        let shas = ["z", "a", "b"].map(|layer| {
            let buildpack = usize::from(layer != "z");
            string(&label["buildpacks"][buildpack]["layers"][layer]["sha"])
        });
        assert_eq!(image.diff_ids()[2..5], shas, "{api}");
        assert_eq!(label["buildpacks"][1]["layers"].as_object().unwrap().len(), 2, "{api}");
    }
}

#[test]
fn what_is_in_a_layer() {
    let world = ready();
    world.layer(
        "jdk",
        "launch = true",
        Some(&[
            ("bin/java", Mode(0o755, "java")),
            ("bin/setuid", Mode(0o4755, "s")),
            ("empty", Dir),
            ("lib/a-b", File("1")),
            ("lib/a/b", File("2")),
            ("to", Link("bin/java")),
            ("gone", Link("/no/such/target")),
        ]),
    );
    let mut call = world.exporter("0.12", &["app"]);
    // By hand, because the change of owner took the bit away.
    let setuid = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(world.path("layers/acme_jvm/jdk/bin/setuid"), setuid).unwrap();
    run(&mut call).ok();
    let image = world.image("app:latest");
    let entries = image.layer(2);
    let jdk = in_tar(&world.path("layers/acme_jvm/jdk"));
    let below: Vec<(String, char)> =
        entries.iter().filter_map(|e| Some((e.path.strip_prefix(&jdk)?.to_owned(), e.kind))).collect();
    let expected = [
        ("", '5'),
        ("/bin", '5'),
        ("/bin/java", '0'),
        ("/bin/setuid", '0'),
        ("/empty", '5'),
        ("/gone", '2'),
        ("/lib", '5'),
        ("/lib/a", '5'),
        ("/lib/a/b", '0'),
        ("/lib/a-b", '0'),
        ("/to", '2'),
    ];
    assert_eq!(below, expected.map(|(path, kind)| (path.to_owned(), kind)));
    let parents: Vec<&str> = entries.iter().map(|e| &*e.path).take_while(|p| *p != jdk).collect();
    let above: Vec<_> = world.path("layers/acme_jvm").ancestors().map(|p| p.to_str().unwrap().to_owned()).collect();
    assert!(parents.iter().rev().eq(above.iter().filter(|p| *p != "/")), "{parents:?}");
    let (uid, gid) = world.user();
    for entry in &entries {
        assert_eq!(entry.mtime, 315_532_801, "{entry:?}");
        assert_eq!((&*entry.user, &*entry.group), ("", ""), "{entry:?}");
        if entry.path.starts_with(&jdk) {
            assert_eq!((entry.uid, entry.gid), (u64::from(uid), u64::from(gid)), "{entry:?}");
        }
    }
    let entry = |name: &str| entries.iter().find(|e| e.path == format!("{jdk}{name}")).unwrap();
    assert_eq!(entry("/bin/java").mode & 0o7777, 0o755);
    assert_eq!(entry("/bin/setuid").mode & 0o7777, 0o4755);
    assert_eq!(entry("/to").link.as_deref(), Some("bin/java"));
    assert_eq!(entry("/gone").link.as_deref(), Some("/no/such/target"));
    assert_eq!(entry("/lib/a/b").content, b"2");
    if is_root() {
        assert_eq!(uid, USER);
    }
}

#[test]
fn launcher_and_processes_are_roots() {
    let world = ready();
    export(&world, "0.12", &["app"]);
    let image = world.image("app:latest");
    let count = image.diff_ids().len();
    let launcher = image.layer(count - 3);
    let found: Vec<(&str, u32, u64)> = launcher.iter().map(|e| (&*e.path, e.mode & 0o7777, e.uid)).collect();
    assert_eq!(found, [("/cnb", 0o755, 0), ("/cnb/lifecycle", 0o755, 0), ("/cnb/lifecycle/launcher", 0o755, 0)]);
    assert_eq!(launcher[2].content, b"launch");
    let config = image.layer(count - 2);
    assert_eq!(config.last().unwrap().path, in_tar(&world.path("layers/config/metadata.toml")));
    assert_eq!(config.last().unwrap().content, METADATA.as_bytes());
    let processes = image.layer(count - 1);
    let found: Vec<(&str, Option<&str>)> = processes.iter().map(|e| (&*e.path, e.link.as_deref())).collect();
    let expected = [("/cnb", None), ("/cnb/process", None), ("/cnb/process/web", Some("/cnb/lifecycle/launcher"))];
    assert_eq!(found, expected);
    assert!(processes.iter().all(|e| (e.uid, e.gid) == (0, 0)));
}

#[test]
fn config_is_the_bases_with_ours_on_top() {
    let world = ready();
    for api in PLATFORM_APIS {
        export(&world, api, &["app"]);
        let image = world.image("app:latest");
        let config = &image.config["config"];
        let (layers, app) = (world.text("layers"), world.text("app"));
        assert_eq!(
            config["Env"],
            json!([
                "A=1",
                "PATH=/cnb/process:/cnb/lifecycle:/usr/bin:/bin",
                "B=2",
                format!("CNB_LAYERS_DIR={layers}"),
                format!("CNB_APP_DIR={app}"),
                format!("CNB_PLATFORM_API={api}"),
                "CNB_DEPRECATION_MODE=quiet"
            ]),
            "{api}"
        );
        assert_eq!(config["Entrypoint"], json!(["/cnb/process/web"]), "{api}");
        assert!(config["Cmd"].is_null(), "{api}");
        assert_eq!(config["WorkingDir"], json!(app), "{api}");
        assert_eq!(config["User"], "1000:1000", "{api}");
        assert_eq!(config["ExposedPorts"], json!({"8080/tcp": {}}), "{api}");
        assert_eq!(image.config["author"], "acme", "{api}");
        assert_eq!(image.config["created"], "1980-01-01T00:00:01Z", "{api}");
        for entry in image.config["history"].as_array().unwrap() {
            assert_eq!(entry["created"], "1980-01-01T00:00:01Z", "{api}");
        }
        let labels = config["Labels"].as_object().unwrap();
        assert_eq!(labels["maintainer"], "acme <a@b>", "{api}");
        assert_eq!(labels["io.buildpacks.stack.id"], "stack.one", "{api}");
        assert_eq!(labels["io.buildpacks.rebasable"], "true", "{api}");
        assert_eq!(labels["io.buildpacks.project.metadata"], "{}", "{api}");
        assert_eq!(labels.contains_key("io.buildpacks.exec-env"), at_least(api, "0.15"), "{api}");
    }
}

#[test]
fn whether_it_can_be_rebased_is_said_where_the_base_says_it() {
    let world = World::new();
    for said in [None, Some("true"), Some("false")] {
        let mut config = run_image();
        let labels = config["config"]["Labels"].as_object_mut().expect("labels");
        labels.remove("io.buildpacks.rebasable");
        labels.extend(said.map(|said| ("io.buildpacks.rebasable".to_owned(), json!(said))));
        world.push("run:latest", &config, RUN_FILES);
        world.analyzed();
        export(&world, "0.15", &["app"]);
        assert_eq!(world.image("app:latest").label("io.buildpacks.rebasable").as_deref(), said);
    }
}

#[test]
fn lifecycle_metadata_names_layers_and_run_image() {
    let world = ready();
    world.layer("jdk", "launch = true\ncache = true\n[metadata]\nversion = 17\nlist = [1.5, \"<&>\"]", Some(&[]));
    world.layer("none", "launch = true", Some(&[]));
    world.write(&[("layers/acme_jvm/store.toml", File("[metadata]\nseen = 3\n"))]);
    world.run_images(&[world.name("run:latest"), "mirror.example/run".into()]);
    for api in PLATFORM_APIS {
        export(&world, api, &["app"]);
        let image = world.image("app:latest");
        let ids = image.diff_ids();
        let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
        let run_image = world.name("run:latest");
        let reference = world.name(&format!("run@{}", world.digest("run:latest").unwrap()));
        let names = json!({"image": run_image, "mirrors": ["mirror.example/run"]});
        let mut expected_run = json!({"topLayer": ids[1], "reference": reference});
        if at_least(api, "0.12") {
            expected_run["image"] = names["image"].clone();
            expected_run["mirrors"] = names["mirrors"].clone();
        }
        let data = json!({"list": [1.5, "<&>"], "version": 17});
        let layer = |sha: &str, cache: bool, data: Value| json!({"sha": sha, "data": data, "build": false, "launch": true, "cache": cache});
        let mut expected = json!({
            "app": [{"sha": ids[4]}],
            "buildpacks": [{
                "key": "acme/jvm", "version": "1.0.0",
                "layers": {"jdk": layer(&ids[2], true, data), "none": layer(&ids[3], false, Value::Null)},
                "store": {"metadata": {"seen": 3}}
            }],
            "launcher": {"sha": ids[5]},
            "config": {"sha": ids[6]},
            "process-types": {"sha": ids[7]},
            "runImage": expected_run,
            "stack": {"runImage": names}
        });
        if at_least(api, "0.15") && label.get("exec-env").is_some() {
            expected["exec-env"] = json!("production");
        }
        assert_eq!(label, expected, "{api}");
        // The text, too: `<` and `&` as escapes, no blanks, keys in this order.
        let text = image.label("io.buildpacks.lifecycle.metadata").unwrap();
        assert!(text.contains(r"\u003c\u0026\u003e") && text.starts_with("{\"app\":[{\"sha\":\""), "{text}");
        let order = ["\"app\"", "\"buildpacks\"", "\"config\"", "\"launcher\"", "\"process-types\"", "\"runImage\""];
        let places: Vec<usize> = order.iter().map(|key| text.find(key).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
    }
}

#[test]
fn build_metadata_lists_buildpacks_and_processes() {
    let world = ready();
    for api in PLATFORM_APIS {
        // As build leaves it: the command is a text at first.
        let command = if at_least(api, "0.10") { "[\"/bin/true\"]" } else { "\"/bin/true\"" };
        world.write(&[("layers/config/metadata.toml", File(&METADATA.replace("[\"/bin/true\"]", command)))]);
        export(&world, api, &["app"]);
        let label = world.image("app:latest").label_json("io.buildpacks.build.metadata").unwrap();
        let process = &label["processes"][0];
        let command = if at_least(api, "0.10") { json!(["/bin/true"]) } else { json!("/bin/true") };
        assert_eq!(process["command"], command, "{api}");
        assert_eq!(process["type"], "web", "{api}");
        assert_eq!(process["args"], json!(["a"]), "{api}");
        assert_eq!(process["direct"], true, "{api}");
        assert_eq!(process["buildpackID"], "acme/jvm", "{api}");
        assert_eq!(label["buildpacks"][0]["id"], "acme/jvm", "{api}");
        assert_eq!(label["buildpacks"][0]["version"], "1.0.0", "{api}");
        assert_eq!(label.get("bom").is_some(), !at_least(api, "0.9"), "{api}");
        assert_eq!(label["buildpack-default-process-type"], "web", "{api}");
        let version = run(world.call("exporter", api).arg("-version")).ok().stdout();
        assert_eq!(version.trim().split('+').next(), label["launcher"]["version"].as_str(), "{api}");
        assert!(label["launcher"]["source"]["git"]["repository"].is_string(), "{api}");
    }
}

#[test]
fn labels_of_buildpacks_and_project_are_set() {
    let world = ready();
    let labels = "[[labels]]\nkey = \"one\"\nvalue = \"1 <&>\"\n[[labels]]\nkey = \"maintainer\"\nvalue = \"\"\n";
    world.write(&[
        ("layers/config/metadata.toml", File(&format!("{METADATA}{labels}"))),
        (
            "layers/project-metadata.toml",
            File(
                "[source]\ntype = \"git\"\n[source.version]\ncommit = \"abc\"\n[source.metadata]\nbranch = \"main\"\n",
            ),
        ),
    ]);
    for api in PLATFORM_APIS {
        let mut call = world.exporter(api, &["app"]);
        let outcome = run(call.env("CNB_EXEC_ENV", "test")).ok();
        outcome.says("Adding label 'one'").says("Adding label 'io.buildpacks.project.metadata'");
        let image = world.image("app:latest");
        assert_eq!(image.label("one").as_deref(), Some("1 <&>"), "{api}");
        assert_eq!(image.label("maintainer").as_deref(), Some(""), "{api}");
        let project = image.label_json("io.buildpacks.project.metadata").unwrap();
        let source = json!({"type": "git", "version": {"commit": "abc"}, "metadata": {"branch": "main"}});
        assert_eq!(project, json!({"source": source}), "{api}");
        let exec_env = at_least(api, "0.15").then_some("test");
        assert_eq!(image.label("io.buildpacks.exec-env").as_deref(), exec_env, "{api}");
    }
}

#[test]
fn entrypoint_is_the_default_process_or_the_launcher() {
    let world = ready();
    let metadata = format!("{METADATA}[[processes]]\ntype = \"worker.1\"\ncommand = [\"w\"]\ndirect = true\n");
    let no_default = metadata.replace("buildpack-default-process-type = \"web\"\n", "");
    for (text, flag, entrypoint, says) in [
        (&metadata, None, "/cnb/process/web", "Setting default process type 'web'"),
        (&metadata, Some("worker.1"), "/cnb/process/worker.1", "Setting default process type 'worker.1'"),
        (&metadata, Some(""), "/cnb/process/web", "Setting default process type 'web'"),
        (&no_default, None, "/cnb/lifecycle/launcher", "no default process type"),
        (&no_default, Some("web"), "/cnb/process/web", "Setting default process type 'web'"),
        (&String::new(), None, "/cnb/lifecycle/launcher", "no default process type"),
    ] {
        world.write(&[("layers/config/metadata.toml", File(text))]);
        let mut call = world.exporter("0.12", &[]);
        call.args(flag.map(|flag| format!("-process-type={flag}"))).arg(world.name("app"));
        run(&mut call).ok().says(says);
        assert_eq!(world.image("app:latest").config["config"]["Entrypoint"], json!([entrypoint]), "{flag:?} {text}");
    }
    // No process, no layer of processes.
    let image = world.image("app:latest");
    let label = image.label_json("io.buildpacks.lifecycle.metadata").unwrap();
    assert_eq!(label["process-types"]["sha"].as_str().unwrap_or_default(), "");
    assert_eq!(image.diff_ids().len(), 5);
    let mut call = world.exporter("0.12", &[]);
    run(call.args(["-process-type", "none"]).arg(world.name("app")))
        .exits(62)
        .says("tried to set none to default but it doesn't exist");
    for bad in ["a/b", "a>b", "a<b", "a:b", "a|b", "a&b", "a\\\\b"] {
        world.write(&[("layers/config/metadata.toml", File(&METADATA.replace("\"web\"", &format!("\"{bad}\""))))]);
        run(&mut world.exporter("0.12", &["app"])).exits(62);
    }
}

//! exporter, from outside: several names, report.toml, what it says, time stamps, and digests that repeat.
//! platform.md "exporter", "report.toml (TOML)"; `SOURCE_DATE_EPOCH`.

mod image_world;

use std::fs;

use acceptance::{
    fault::{FaultServer, Reply},
    registry::Options,
    run::{PLATFORM_APIS, as_root, at_least, may_differ, run},
    tree::Entry::File,
};
use image_world::{World, run_image};

fn ready() -> World {
    let world = World::new();
    world.analyzed();
    world.layer("jdk", "launch = true", Some(&[("bin/java", File("java"))]));
    world
}

#[test]
fn every_name_gets_the_image_and_stands_in_the_report() {
    let world = ready();
    for api in PLATFORM_APIS {
        let names = ["app:v1", "app:v2", "other/app:v3"];
        let outcome = run(&mut world.exporter(api, &names)).ok();
        let digest = world.digest("app:v1").unwrap();
        for name in names {
            assert_eq!(world.digest(name).as_ref(), Some(&digest), "{api} {name}");
            assert!(world.is_whole(name), "{api} {name}");
        }
        let report = world.toml("layers/report.toml");
        let image = report["image"].as_table().unwrap();
        let tags: Vec<&str> = image["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        assert_eq!(tags, names.map(|n| world.name(n)), "{api}");
        assert_eq!(image["digest"].as_str(), Some(&*digest), "{api}");
        let size = fs::metadata(image_world::storage::blob(&world.registry.storage(), &digest)).unwrap().len();
        assert_eq!(image["manifest-size"].as_integer(), i64::try_from(size).ok(), "{api}");
        assert!(!image.contains_key("image-id"), "{api}");
        // Platforms cut the digest out of the text: one line has the word, and its value stands in double quotes.
        let text = world.read("layers/report.toml");
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("digest")).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0].split('"').nth(1), Some(&*digest), "{text}");
        // A block that platforms look for.
        outcome.says(&format!("*** Images ({digest}):\n      {}\n", world.name("app:v1")));
    }
}

#[test]
fn each_name_is_insecure_or_not_by_itself() {
    if may_differ("it takes the first name's setting for all") {
        return;
    }
    let world = World::with(&Options { tls: true, ..Options::default() });
    world.analyzed();
    let mut call = world.exporter("0.13", &["named/app", "other/app"]);
    call.env("CNB_INSECURE_REGISTRIES", format!("{},{}", world.name("run"), world.name("named")));
    let outcome = run(&mut call);
    assert_ne!(outcome.code(), 0, "{}", outcome.all());
    outcome.says(&world.name("other/app"));
    assert!(world.is_whole("named/app:latest"));
    assert_eq!(world.digest("other/app:latest"), None);
}

#[test]
fn it_says_what_it_does() {
    let world = ready();
    let mut call = world.exporter("0.12", &[]);
    let outcome = run(call.args(["-log-level", "debug"]).arg(world.name("app"))).ok();
    for text in [
        "Adding layer 'acme/jvm:jdk'\n",
        "Adding layer 'buildpacksio/lifecycle:launcher'\n",
        "Adding layer 'buildpacksio/lifecycle:config'\n",
        "Adding layer 'buildpacksio/lifecycle:process-types'\n",
        "Added 1/1 app layer(s)\n",
        "Adding label 'io.buildpacks.lifecycle.metadata'\n",
        "Adding label 'io.buildpacks.build.metadata'\n",
        "Adding label 'io.buildpacks.project.metadata'\n",
        "Setting default process type 'web'\n",
        "CNB_DEPRECATION_MODE=quiet\n",
        "Prepending /cnb/process and /cnb/lifecycle to PATH\n",
        "Setting WORKDIR: '",
        "Setting ENTRYPOINT: '/cnb/process/web'\n",
        "*** Digest: sha256:",
        "*** Manifest Size: ",
    ] {
        outcome.clone().says(text);
    }
    outcome.says(&format!("Saving {}...\n", world.name("app")));
    let quiet = run(world.exporter("0.12", &["app"]).env("CNB_LOG_LEVEL", "error")).ok();
    assert_eq!(quiet.all(), "");
}

#[test]
fn a_name_that_cannot_be_written_does_not_lose_the_others() {
    let mut world = ready();
    let front = FaultServer::start(&world.host, |seen| {
        if seen.is("PUT", "/v2/app/manifests/closed") {
            let body = br#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
            Reply::Answer(403, vec![("Content-Type", "application/json".into())], body.to_vec())
        } else {
            Reply::Forward
        }
    });
    world.host = front.host();
    world.analyzed();
    let outcome = run(&mut world.exporter("0.12", &["app:v1", "app:closed", "app:v2"])).exits(62);
    outcome.clone().says("failed to write image to the following tags: [").says(&world.name("app:closed"));
    outcome.says(&format!("      {}\n", world.name("app:v1"))).says("DENIED");
    assert!(world.is_whole("app:v1") && world.is_whole("app:v2"));
    assert_eq!(world.digest("app:closed"), None);
    assert!(!world.exists("layers/report.toml"), "a report is written after full success only");
}

#[test]
fn the_report_goes_where_the_platform_says() {
    let world = ready();
    let mut call = world.call("exporter", "0.12");
    call.current_dir(world.path("home")).args(["-report", "sub/r.toml"]);
    run(call.arg("-launcher").arg(world.path("cnb/launcher")).arg(world.name("app"))).ok();
    assert!(world.exists("home/sub/r.toml") && !world.exists("layers/report.toml"));
    let mut call = world.exporter("0.12", &["app"]);
    run(call.env("CNB_REPORT_PATH", world.path("home/env.toml"))).ok();
    assert!(world.exists("home/env.toml"));
    world.write(&[("home/file", File(""))]);
    let mut call = world.exporter("0.12", &["app"]);
    run(call.env("CNB_REPORT_PATH", world.path("home/file/r.toml"))).exits(62);
}

#[test]
fn the_same_build_has_the_same_digest() {
    let world = ready();
    for api in PLATFORM_APIS {
        run(&mut world.exporter(api, &["app:one"])).ok();
        // Other times, another place of arrival, and another order of creation.
        world.clear_layers();
        world.layer("jdk", "launch = true", Some(&[("bin/java", File("java"))]));
        for path in ["app/main.txt", "layers/acme_jvm/jdk/bin/java", "layers/acme_jvm/jdk"] {
            let file = fs::File::open(world.path(path)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567)).unwrap();
        }
        run(&mut world.exporter(api, &["app:two"])).ok();
        assert_eq!(world.digest("app:one"), world.digest("app:two"), "{api}");
    }
}

#[test]
fn nothing_is_sent_again_for_an_unchanged_image() {
    let mut world = ready();
    let front = FaultServer::start(&world.host, |_| Reply::Forward);
    world.host = front.host();
    world.run_images(&[world.name("run:latest")]);
    world.analyzed();
    run(&mut world.exporter("0.12", &["app"])).ok();
    let (digest, blobs) = (world.digest("app:latest"), world.blobs());
    run(&mut world.analyzer("0.12", "app")).ok();
    let uploads = || {
        let sends = |s: &&acceptance::fault::Seen| s.method == "PATCH" || s.is("PUT", "/blobs/");
        front.seen().iter().filter(sends).count()
    };
    let before = uploads();
    run(&mut world.exporter("0.12", &["app"]))
        .ok()
        .says("Reusing layer 'acme/jvm:jdk'")
        .says("Reused 1/1 app layer(s)");
    assert_eq!(world.digest("app:latest"), digest);
    assert_eq!(world.blobs(), blobs);
    assert_eq!(uploads(), before, "{:?}", front.seen());
}

#[test]
fn source_date_epoch_dates_the_image() {
    let world = ready();
    for api in PLATFORM_APIS {
        for (value, created) in [
            ("1600000000", Some("2020-09-13T12:26:40Z")),
            ("0", Some("1970-01-01T00:00:00Z")),
            ("now", None),
            ("", None),
        ] {
            let outcome = run(world.exporter(api, &["app"]).env("SOURCE_DATE_EPOCH", value)).ok();
            let created = created.filter(|_| at_least(api, "0.9")).unwrap_or("1980-01-01T00:00:01Z");
            let image = world.image("app:latest");
            assert_eq!(image.config["created"], created, "{api} {value}");
            for entry in image.config["history"].as_array().unwrap() {
                assert_eq!(entry["created"], created, "{api} {value}");
            }
            if value == "now" && at_least(api, "0.9") {
                outcome.says("Ignoring invalid SOURCE_DATE_EPOCH");
            }
        }
    }
}

#[test]
fn media_types_are_of_one_family() {
    let world = ready();
    run(&mut world.exporter("0.12", &["app"])).ok();
    let manifest = world.image("app:latest").manifest;
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    if may_differ("it types new layers as docker's in an OCI manifest") {
        return;
    }
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    }
}

#[test]
fn a_base_without_history_or_config_is_a_base() {
    let world = ready();
    let mut config = run_image();
    config.as_object_mut().unwrap().retain(|key, _| ["architecture", "os"].contains(&key.as_str()));
    world.push("run:latest", &config, image_world::RUN_FILES);
    world.analyzed();
    for api in PLATFORM_APIS {
        run(&mut world.exporter(api, &["app"])).ok();
        let image = world.image("app:latest");
        assert_eq!(image.diff_ids().len(), 2 + 5, "{api}");
        assert!(image.env("PATH").unwrap().starts_with("/cnb/process:/cnb/lifecycle"), "{api}");
    }
}

#[test]
fn an_unprivileged_exporter_needs_no_user() {
    if !as_root() {
        return;
    }
    let world = ready();
    let mut call = world.exporter("0.9", &["app"]);
    acceptance::run::as_user(&mut call, 1000, 1000);
    call.env_remove("CNB_USER_ID").env_remove("CNB_GROUP_ID").env("CNB_USER_ID", "1000").env("CNB_GROUP_ID", "1000");
    run(&mut call).ok();
    assert!(world.is_whole("app:latest"));
}

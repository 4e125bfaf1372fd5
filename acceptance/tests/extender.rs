//! extender, in containers of the image it extends, without a network. Needs root, docker (or podman) and busybox.
//! platform.md "extender"
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

mod engine;
mod extender_world;

use std::fs;

use acceptance::tree::Entry::File;
use engine::Engine;
use extender_world::World;

#[test]
fn a_build_sees_what_extensions_installed() {
    for api in ["0.10", "0.12", "0.13", "0.15"] {
        let Some(world) = World::new(&format!("build-{api}"), api) else { return };
        sees_what_was_installed(&world);
    }
}

#[test]
fn podman_is_a_container_too() {
    let Some(world) =
        World::with("podman", "0.13", |root| Engine::podman(|engine, image| engine.import(root, image, &[])))
    else {
        return;
    };
    sees_what_was_installed(&world);
}

/// A build in the extended image, and another one with what the first left in the cache.
fn sees_what_was_installed(world: &World) {
    let api = world.api;
    let tool = r"RUN printf '#!/bin/sh\necho the tool of $BASE\n' >/bin/tool && chmod 755 /bin/tool";
    world.dockerfile("one", "build", &format!("ARG user_id\nUSER root\n{tool}\nUSER ${{user_id}}"));
    world.dockerfile("two", "build", "RUN tool\nENV PATH=$PATH:/more");
    for (seen, unseen) in [
        ("No cached layer found for cmd RUN printf", "Using caching"),
        ("Using caching version of cmd: RUN tool", "No cached"),
    ] {
        let outcome = world.extend("build").ok().says("the tool of").says("\n1000\n").says("home /home/cnb").says(seen);
        assert!(!outcome.all().contains(unseen), "{api}: {}", outcome.all());
    }
    let metadata = fs::read_to_string(world.path("layers/config/metadata.toml")).unwrap();
    assert!(metadata.contains("\"web\""), "{metadata}");
    let left: Vec<_> = fs::read_dir(world.path("kaniko")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["cache"], "{api}");
}

#[test]
fn a_run_image_gets_layers_for_the_exporter() {
    for api in ["0.12", "0.14"] {
        let Some(world) = World::new(&format!("run-{api}"), api) else { return };
        let rebasable = "LABEL io.buildpacks.rebasable=true";
        world.write("workspace/from-app", File("app"));
        world.dockerfile("one", "run", &format!("{rebasable}\nUSER root\nRUN rm -r /old && echo 1 >/one"));
        world.dockerfile("two", "run", &format!("{rebasable}\nENV X=1\nCOPY from-app /copied\nUSER 1000:1000"));
        world
            .extend("run")
            .ok()
            .says("changed the user ID from 1000 to root")
            .says("No cached layer found for cmd RUN rm");
        let image = world.extended();
        let names = |n: usize| image.layer(n).into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(
            (names(1), names(2)),
            (vec![".wh.old".to_owned(), "one".to_owned()], vec!["copied".to_owned()]),
            "{api}"
        );
        let history: Vec<_> =
            image.config["history"].as_array().unwrap().iter().map(|h| h["created_by"].clone()).collect();
        assert_eq!(history.len(), image.diff_ids().len());
        assert_eq!(history[1], "Layer: 'RUN rm -r /old && echo 1 >/one', Created by extension: acme/one");
        assert_eq!(history[2], "Layer: 'COPY from-app /copied', Created by extension: acme/two");
        assert_eq!(image.label("io.buildpacks.rebasable").as_deref(), Some("true"));
        assert_eq!(image.env("X").as_deref(), Some("1"));
        assert_eq!(image.config["config"]["User"], "1000:1000");
        let base = image.manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        assert!(!image.dir.join(base).exists());

        // All from the cache: the same image.
        let outcome =
            world.extend("run").ok().says("Using caching version of cmd: RUN rm").says("version of cmd: COPY");
        assert!(!outcome.all().contains("No cached layer"), "{}", outcome.all());
        assert_eq!(world.extended().digest(), image.digest());

        // The base's label is not the extension's.
        world.dockerfile("two", "run", "COPY from-app /copied\nUSER 1000");
        world.extend("run").ok();
        assert_eq!(world.extended().label("io.buildpacks.rebasable").as_deref(), Some("false"));
    }
}

/// The directory is of a lower layer, which overlay file systems rename for nobody.
#[test]
fn what_run_mounts_is_in_no_layer() {
    let Some(world) = World::new("mounts", "0.13") else { return };
    let mount = "RUN --mount=type=cache,target=/old";
    let text = format!(
        "USER root\n{mount} test ! -e /old/file && touch /old/kept /made\n{mount} test -e /old/kept && touch /made2\n\
         RUN test -e /old/file && touch /made3\nUSER 1000"
    );
    world.dockerfile("one", "run", &text);
    world.extend("run").ok();
    let image = world.extended();
    for (n, name) in [(1, "made"), (2, "made2"), (3, "made3")] {
        assert_eq!(image.layer(n).into_iter().map(|e| e.path).collect::<Vec<_>>(), [name]);
    }
}

/// As platforms do it: two containers on the same directories, each with its process 1, and layers that both make.
#[test]
fn both_images_at_once() {
    let Some(world) = World::new("both", "0.13") else { return };
    let same: Vec<String> = (0..4).map(|n| format!("RUN echo {n} >/same-{n}")).collect();
    for kind in ["run", "build"] {
        world.dockerfile("one", kind, &format!("USER root\n{}\nUSER 1000", same.join("\n")));
    }
    for _ in 0..3 {
        world.clear();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| world.extend("run").ok());
            world.extend("build").ok();
            run.join().unwrap();
        });
        world.holds_nothing_half("both at once");
        let image = world.extended();
        assert_eq!(image.diff_ids().len(), 5);
        image.validate();
    }
    for kind in ["run", "build"] {
        let outcome = world.extend(kind).ok().says("Using caching version of cmd: RUN echo 0");
        assert!(!outcome.all().contains("Not caching"), "{}", outcome.all());
    }
}

/// 336 hours, or what the platform says.
#[test]
fn cached_layers_have_a_time_to_live() {
    let Some(world) = World::new("ttl", "0.13") else { return };
    world.dockerfile("one", "run", "USER root\nRUN echo 1 >/one\nUSER 1000");
    world.extend("run").ok();
    for (ttl, expected) in
        [("1h", "Using caching version"), ("0s", "No cached layer found"), ("never", "Using caching")]
    {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        world.extend_with("run", &["-e", &format!("CNB_KANIKO_CACHE_TTL={ttl}")]).ok().says(expected);
        world.holds_nothing_half(ttl);
    }
}

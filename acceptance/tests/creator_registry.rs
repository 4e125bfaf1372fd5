//! creator and its registry: what is asked, in which order, and what is made again. platform.md "creator".
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod creator_world;
mod image_world;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use acceptance::{
    fault::{FaultServer, Reply, Seen},
    run::{may_differ, run},
    tree::Entry::{Dir, File},
};
use creator_world::{BUILD, creator, creator_with, with_buildpack};
use image_world::{World, storage};

/// Nothing is asked that the run knows already, or that sending would tell as well.
#[test]
fn a_build_costs_few_requests() {
    if may_differ("what is asked of a registry is no part of the specification") {
        return;
    }
    let world = with_buildpack("exit 0", BUILD);
    let front = FaultServer::start(&world.host, |_| Reply::Forward);
    let image = format!("{}/app", front.host());
    let run_image = format!("{}/run", front.host());
    let build = || {
        let before = front.seen().len();
        run(&mut creator_with(&world, "0.12", &["-run-image", &run_image], &image)).ok();
        front.seen().split_off(before)
    };
    let first = build();
    world.remove("layers");
    world.write(&[("layers", Dir)]);
    let second = build();
    let count = |of: &[Seen], method: &str, part: &str| of.iter().filter(|seen| seen.is(method, part)).count();
    for seen in [&first, &second] {
        assert!(seen.iter().filter(|s| s.path == "/v2/").count() <= 1, "{seen:#?}");
        assert_eq!(count(seen, "GET", "/v2/run/manifests/latest"), 1, "{seen:#?}");
        assert_eq!(count(seen, "GET", "/v2/app/manifests/latest"), 1, "{seen:#?}");
    }
    assert_eq!(count(&first, "HEAD", ""), 0, "all of it is small or to be mounted: {first:#?}");
    let (uploads, mounts) = (count(&first, "PUT", "/blobs/uploads/"), count(&first, "POST", "mount="));
    assert_eq!(count(&first, "POST", ""), uploads + mounts, "a layer takes the one to see whether we may: {first:#?}");
    assert_eq!((count(&first, "DELETE", ""), count(&second, "DELETE", "")), (0, 1), "{second:#?}");
    assert!(mounts > 0, "{first:#?}");
    assert_eq!(count(&first, "PUT", "/v2/app/manifests/latest"), 1, "{first:#?}");
    assert_eq!((count(&second, "POST", ""), count(&second, "PUT", "")), (1, 0), "nothing changed: {second:#?}");
    assert_eq!(count(&second, "HEAD", "/v2/app/manifests/latest"), 1, "{second:#?}");
}

/// Whether its buildpack keeps the layer or makes it anew, the cache has it or not.
#[test]
fn a_layer_that_the_registry_lost_is_made_again() {
    let world = with_buildpack("exit 0", BUILD);
    let build = || {
        world.remove("layers");
        world.write(&[("layers", Dir)]);
        run(&mut creator(&world, "0.12", "app")).ok()
    };
    build();
    let of_base = world.image("run:latest").diff_ids().len();
    let descriptors = world.image("app:latest").manifest["layers"].as_array().unwrap().clone();
    for descriptor in &descriptors[of_base..] {
        let digest = descriptor["digest"].as_str().unwrap();
        storage::lose(&world.registry.storage(), digest);
        assert!(!storage::is_whole(&world.registry.storage(), "app:latest"));
        let outcome = build();
        let uploads = storage::open_uploads(&world.registry.storage(), "app");
        assert!(uploads == 0 || may_differ("it waits for no cancellation"), "{digest}: {uploads}");
        assert!(storage::is_whole(&world.registry.storage(), "app:latest"), "{digest}: {}", outcome.all());
        let again = world.image("app:latest").manifest["layers"].as_array().unwrap().clone();
        assert_eq!(again, descriptors, "{digest}");
    }
}

/// A buildpack without layers has nothing that the SBOM of the previous image could be copied to.
#[test]
fn an_sbom_is_read_only_where_there_are_layers() {
    if may_differ("what is asked of a registry is no part of the specification") {
        return;
    }
    for (build, blobs) in [(BUILD, 3), ("exit 0", 2)] {
        let world = with_buildpack("exit 0", build);
        let front = FaultServer::start(&world.host, |_| Reply::Forward);
        let build = || {
            world.remove("layers");
            world.write(&[("layers", Dir)]);
            let run_image = format!("{}/run", front.host());
            let flags = ["-run-image", &run_image];
            run(&mut creator_with(&world, "0.12", &flags, &format!("{}/app", front.host()))).ok();
            front.count("GET", "/blobs/")
        };
        let first = build();
        assert_eq!(build() - first, blobs, "both configs, and the SBOM: {:#?}", front.seen());
    }
}

/// Waits until the file is there.
fn appears(path: &Path) -> bool {
    let began = Instant::now();
    while !path.exists() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    path.exists()
}

/// A registry that answers requests like `slow` only when a buildpack has detected, and then so.
fn slow_registry(world: &World, slow: (&'static str, &'static str), reply: Reply) -> (FaultServer, Arc<AtomicUsize>) {
    let (marker, in_time) = (world.path("app/detected"), Arc::new(AtomicUsize::new(0)));
    let noted = Arc::clone(&in_time);
    let front = FaultServer::start(&world.host, move |seen| {
        if !seen.is(slow.0, slow.1) {
            return Reply::Forward;
        }
        noted.fetch_add(usize::from(appears(&marker)), Ordering::SeqCst);
        reply.clone()
    });
    (front, in_time)
}

/// Detection needs nothing but the run image, and what it has to say comes in its place.
#[test]
fn it_detects_while_the_registry_answers() {
    if may_differ("what is done at the same time is no part of the specification") {
        return;
    }
    for (api, detect, code) in
        [("0.7", "touch detected", 0), ("0.15", "touch detected", 0), ("0.12", "touch detected; exit 100", 20)]
    {
        let world = with_buildpack(detect, BUILD);
        let (front, in_time) = slow_registry(&world, ("GET", "/v2/app/manifests/latest"), Reply::Forward);
        let run_image = format!("{}/run", front.host());
        let flags = ["-run-image", &run_image, "-log-level", "debug"];
        let outcome = run(&mut creator_with(&world, api, &flags, &format!("{}/app", front.host()))).exits(code);
        assert_eq!(in_time.load(Ordering::SeqCst), 1, "it waits for the previous image: {}", outcome.all());
        let out = outcome.stdout();
        let mut at = 0;
        for line in [
            "===> ANALYZING\n",
            "Timer: Analyzer started at ",
            "Image with name \"",
            "Timer: Analyzer ran for ",
            "===> DETECTING\n",
            "Timer: Detector started at ",
            "Timer: detect of acme/jvm@1.0.0 ran for ",
            "Timer: Detector ran for ",
            "======== Results ========\n",
        ] {
            at += out[at..].find(line).unwrap_or_else(|| panic!("no '{line}' in its place at {api} in\n{out}"));
        }
        assert_eq!(out.matches("===> DETECTING").count(), 1, "{out}");
    }
}

/// Where analyze fails, detection is not heard of, and nothing is written.
#[test]
fn a_registry_that_refuses_comes_before_detection() {
    if may_differ("what is done at the same time is no part of the specification") {
        return;
    }
    for detect in ["touch detected", "touch detected; exit 1", "touch detected; exit 100"] {
        let world = with_buildpack(detect, BUILD);
        let (front, in_time) = slow_registry(&world, ("POST", "/v2/app/blobs/uploads/"), Reply::status(403));
        let run_image = format!("{}/run", front.host());
        let flags = ["-run-image", &run_image, "-log-level", "debug"];
        let outcome = run(&mut creator_with(&world, "0.12", &flags, &format!("{}/app", front.host()))).exits(32);
        assert_eq!(in_time.load(Ordering::SeqCst), 1, "{}", outcome.all());
        let text = outcome.all();
        assert!(!text.contains("DETECTING") && !text.contains("acme/jvm"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("ERROR: ")).count(), 1, "{text}");
        assert!(!world.exists("layers/group.toml") && !world.exists("layers/report.toml"));
        outcome.says("validating registry write access: failed to ensure registry read/write access to ");
    }
    // What is wrong with the order is said after what is wrong with the registry, and in detection's place.
    let world = with_buildpack("exit 0", BUILD);
    world.write(&[("cnb/order.toml", File("[["))]);
    let outcome = run(&mut creator(&world, "0.12", "app")).exits(1);
    let (analyzing, detecting) = (outcome.stdout().find("not found\n"), outcome.stdout().find("===> DETECTING"));
    assert!(analyzing.is_some() && analyzing < detecting, "{}", outcome.all());
}

/// Whoever copied the image may have compressed its layers otherwise.
#[test]
fn a_previous_image_whose_layers_are_zstd() {
    let build = format!("{BUILD}\necho '{{}}' >\"$1/both.sbom.cdx.json\"");
    for api in ["0.8", "0.15"] {
        let world = with_buildpack("exit 0", &build);
        let with_sboms = "api = \"0.10\"\n[buildpack]\nid = \"acme/jvm\"\nversion = \"1.0.0\"\n\
                          sbom-formats = [\"application/vnd.cyclonedx+json\"]";
        world.write(&[("buildpacks/acme_jvm/1.0.0/buildpack.toml", File(with_sboms))]);
        let build = || {
            world.remove("layers");
            world.write(&[("layers", Dir)]);
            run(creator(&world, api, "app").env("CNB_CACHE_DIR", world.path("cache")))
        };
        build().ok();
        storage::to_zstd(&world.registry.storage(), "app:latest");
        if may_differ("the reference reads zstd") {
            continue;
        }
        let why = format!("Ignoring image \"{}\": layer sha256:", world.name("app"));
        build().ok().says(&why).says(": zstd is not supported\n").says("Adding layer 'acme/jvm:both'\n");
        build().ok().says("Reusing layer 'acme/jvm:both'\n");
    }
}

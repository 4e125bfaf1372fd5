//! exporter, from outside: a registry that fails in the middle, and an exporter or restorer that is killed. What
//! cannot be done is an error, and never does a tag name an image that lacks something.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;

use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use acceptance::{
    fault::{FaultServer, Reply, Seen},
    run::{Outcome, may_differ, run, run_limited},
    tree::Entry::{Bytes, File},
};
use image_world::World;

/// Bytes that do not compress, others for each seed: xorshift.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

fn ready() -> World {
    let world = World::new();
    world.analyzed();
    fill(&world);
    world
}

fn fill(world: &World) {
    world.layer("jdk", "launch = true\ncache = true", Some(&[("big", Bytes(&noise(1, 6 << 20))), ("a", File("a"))]));
    world.layer("deps", "cache = true", Some(&[("jar", Bytes(&noise(2, 2 << 20)))]));
}

/// Which requests are meant.
type Which = fn(&Seen) -> bool;

/// Exports through a server that treats the first `times` requests that `which` names as `reply` says.
fn export_with_faults(
    world: &mut World,
    times: usize,
    which: impl Fn(&Seen) -> bool + Send + Sync + 'static,
    reply: Reply,
) -> (Outcome, usize) {
    let hits = Arc::new(AtomicUsize::new(0));
    let count = hits.clone();
    let front = FaultServer::start(&world.registry.host(), move |seen| {
        let hit = which(seen) && count.fetch_add(1, Ordering::SeqCst) < times;
        match &reply {
            _ if !hit => Reply::Forward,
            // Within the body, however short it is: a server that waits for more than comes would be a silent one.
            Reply::ResetAfter(bytes) => {
                let length = seen.header("content-length").and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
                Reply::ResetAfter((*bytes).min(length / 2))
            }
            other => other.clone(),
        }
    });
    world.host = front.host();
    world.analyzed();
    let (outcome, _) = run_limited(&mut world.exporter("0.12", &["app:v1", "app:v2"]), Duration::from_secs(150));
    let met = hits.load(Ordering::SeqCst) > 0;
    assert!(met || may_differ("it asks a registry for other things"), "nothing went wrong: {}", outcome.all());
    for tag in ["app:v1", "app:v2"] {
        assert!(world.digest(tag).is_none() || world.is_whole(tag), "{tag} lacks a blob: {}", outcome.all());
    }
    (outcome, front.seen().len())
}

/// Side by side: what fails is given time before it is tried again.
fn at_once<T: Send>(rows: impl IntoIterator<Item = T>, check: impl Fn(T) + Copy + Send) {
    std::thread::scope(|scope| {
        for row in rows {
            scope.spawn(move || check(row));
        }
    });
}

fn is_upload(seen: &Seen) -> bool {
    seen.method == "PATCH" || seen.is("PUT", "/blobs/uploads/")
}

#[test]
fn a_failure_that_passes_is_overcome() {
    let busy = |status| Reply::Answer(status, vec![("Retry-After", "1".into())], Vec::new());
    let rows: [(&str, Which, Reply); 11] = [
        ("reset in a blob", is_upload, Reply::ResetAfter(100_000)),
        ("reset at its begin", is_upload, Reply::ResetAfter(0)),
        ("500 to a blob", is_upload, Reply::status(500)),
        ("503 to a blob", is_upload, Reply::status(503)),
        ("429 to a blob", is_upload, busy(429)),
        ("503 to the begin of an upload", |s| s.is("POST", "/blobs/uploads"), busy(503)),
        ("no answer after a blob", is_upload, Reply::ForwardAndHangUp),
        ("502 to a question", |s| s.is("GET", "/v2/run/blobs/"), Reply::status(502)),
        ("500 to a manifest", |s| s.is("PUT", "/manifests/"), Reply::status(500)),
        ("hang up after a manifest", |s| s.is("PUT", "/manifests/"), Reply::ForwardAndHangUp),
        ("500 to the base", |s| s.is("GET", "/manifests/"), Reply::status(500)),
    ];
    at_once(rows, |(what, which, reply)| {
        let mut world = ready();
        let (outcome, _) = export_with_faults(&mut world, 1, which, reply);
        if outcome.code() != 0 && may_differ("which failures are tried again is no part of the specification") {
            return;
        }
        assert_eq!(outcome.code(), 0, "{what}: {}", outcome.all());
        assert!(world.is_whole("app:v1") && world.is_whole("app:v2"), "{what}");
        assert_eq!(world.digest("app:v1"), world.digest("app:v2"), "{what}");
        world.image("app:v1");
    });
}

#[test]
fn a_failure_that_stays_is_an_error_with_the_image() {
    let rows: [(&str, Which, Reply); 5] = [
        ("500 to every blob", is_upload, Reply::status(500)),
        ("reset in every blob", is_upload, Reply::ResetAfter(1000)),
        ("403 to every upload", |s| s.is("POST", "/blobs/uploads"), Reply::status(403)),
        ("401 to every manifest", |s| s.is("PUT", "/manifests/"), Reply::status(401)),
        ("404 to every manifest", |s| s.is("PUT", "/manifests/"), Reply::status(404)),
    ];
    at_once(rows, |(what, which, reply)| {
        let mut world = ready();
        let (outcome, requests) = export_with_faults(&mut world, usize::MAX, which, reply);
        assert_eq!(outcome.code(), 62, "{what}: {}", outcome.all());
        // By its name, or by the address of what was refused.
        let named = ["/app:v1", "/v2/app/"].iter().any(|name| outcome.all().contains(name));
        assert!(named, "{what}: {}", outcome.all());
        assert_eq!((world.digest("app:v1"), world.digest("app:v2")), (None, None), "{what}");
        assert!(!world.exists("layers/report.toml"), "{what}");
        assert!(requests < 200, "{what}: {requests} requests");
    });
}

#[test]
fn an_answer_that_is_cut_or_damaged_is_no_base() {
    let rows: [(Which, Reply); 3] = [
        (|s| s.is("GET", "/manifests/sha256"), Reply::ForwardTruncated(20)),
        (|s| s.is("GET", "/manifests/sha256"), Reply::Answer(200, Vec::new(), b"<html>".to_vec())),
        (|s| s.is("GET", "/blobs/sha256"), Reply::ForwardCorrupted),
    ];
    at_once(rows, |(which, reply)| {
        let mut world = ready();
        let (outcome, _) = export_with_faults(&mut world, usize::MAX, which, reply.clone());
        assert_ne!(outcome.code(), 0, "{reply:?}: {}", outcome.all());
        if !may_differ("it does not say of which image the config is wrong") {
            assert_eq!(outcome.code(), 62, "{reply:?}: {}", outcome.all());
            let named = ["run@sha256", "/v2/run/"].iter().any(|name| outcome.all().contains(name));
            assert!(named, "{reply:?}: {}", outcome.all());
        }
        assert_eq!(world.digest("app:v1"), None);
    });
}

#[test]
fn a_base_registry_that_falls_silent_does_not_hold_the_build_for_ever() {
    if may_differ("it has no time limits of its own") {
        return;
    }
    let mut world = ready();
    let (outcome, _) = export_with_faults(&mut world, 1, |s| s.is("GET", "/v2/run/manifests/"), Reply::Stall);
    // Tried again, or given up: both end.
    assert!([0, 62].contains(&outcome.code()), "{}", outcome.all());
}

/// Milliseconds after which a process is killed: spread over its run, the same in every run of the test.
const INSTANTS: [u64; 20] = [1, 2, 3, 5, 8, 12, 16, 20, 26, 32, 38, 45, 55, 65, 80, 95, 110, 130, 160, 200];

/// Starts it, kills it after so many milliseconds; whether it was still running.
fn kill_after(call: &mut std::process::Command, milliseconds: u64) -> bool {
    let mut child = call.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(milliseconds));
    let running = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    let _ = child.wait();
    running
}

#[test]
fn a_killed_exporter_leaves_a_cache_that_works() {
    if may_differ("it replaces the cache in two steps, between which there is none") {
        return;
    }
    let world = ready();
    let cache = world.text("cache");
    let export = |world: &World| {
        let mut call = world.exporter("0.12", &[]);
        call.args(["-cache-dir", &cache]).arg(world.name("app"));
        call
    };
    run(&mut export(&world)).ok();
    let mut killed = 0;
    let mut jars = vec![noise(2, 2 << 20)];
    for (round, instant) in INSTANTS.into_iter().enumerate() {
        // Other contents each time, so that there is something to do.
        let seed = 10 + round as u64;
        jars.push(noise(seed, 2 << 20));
        world.layer("deps", "cache = true", Some(&[("jar", Bytes(&jars[round + 1]))]));
        killed += u32::from(kill_after(&mut export(&world), instant));
        assert!(world.digest("app:latest").is_none() || world.is_whole("app:latest"), "after {instant} ms");
        // Old or new, the cache is whole: all its layers come back.
        world.clear_layers();
        world.remove("layers/analyzed.toml");
        let outcome = run(world.restorer("0.14").args(["-cache-dir", &cache])).ok();
        assert!(!outcome.all().contains("Skipping restore"), "after {instant} ms: {}", outcome.all());
        let jar = fs::read(world.path("layers/acme_jvm/deps/jar")).unwrap();
        assert!(jars.contains(&jar), "after {instant} ms: contents that no build made");
        assert!(world.exists("layers/acme_jvm/jdk/big"), "after {instant} ms");
        world.analyzed();
        fill(&world);
    }
    assert!(killed > 0, "none was killed");
    run(&mut export(&world)).ok();
    assert!(world.is_whole("app:latest"));
    let left = fs::read_dir(world.path("cache/committed")).unwrap().map(|e| e.unwrap().file_name());
    // Checksums are kept of all layers, and are as whole as the rest.
    let left: Vec<_> = left.filter(|name| !name.to_string_lossy().ends_with(".tar.sums")).collect();
    assert_eq!(left.len(), 3, "two layers and their metadata: {left:?}");
}

#[test]
fn a_killed_restorer_can_run_again() {
    if may_differ("it empties analyzed.toml before it writes it anew") {
        return;
    }
    let world = ready();
    let cache = world.text("cache");
    run(world.exporter("0.12", &[]).args(["-cache-dir", &cache]).arg(world.name("app"))).ok();
    run(&mut world.analyzer("0.12", "app")).ok();
    let restore = || {
        let mut call = world.restorer("0.12");
        call.args(["-cache-dir", &cache]);
        call
    };
    for instant in INSTANTS {
        world.clear_layers();
        kill_after(&mut restore(), instant);
        let outcome = run(&mut restore()).ok();
        assert!(!outcome.all().contains("Skipping restore"), "after {instant} ms: {}", outcome.all());
        assert_eq!(fs::read(world.path("layers/acme_jvm/jdk/big")).unwrap(), noise(1, 6 << 20), "after {instant} ms");
        assert_eq!(fs::read(world.path("layers/acme_jvm/deps/jar")).unwrap(), noise(2, 2 << 20), "after {instant} ms");
    }
}

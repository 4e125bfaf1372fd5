//! How little a registry is asked: nothing twice, nothing that is known already, and in one connection.

use std::{
    io,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use acceptance::{
    fault::{FaultServer, Reply},
    registry::RegistryServer,
};
use image::Digest;

use super::{OCI, blob, client, name, noise, push, read_all, stream};

/// Passes everything on to the server at `behind`; host and port, and how many connections there were.
fn relay(behind: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let server = TcpStream::connect(&behind).unwrap();
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from_client, &mut to_server));
            let (mut from_server, mut to_client) = (server, client);
            thread::spawn(move || io::copy(&mut from_server, &mut to_client));
        }
    });
    (host, count)
}

#[test]
fn one_call_after_another_takes_one_connection() {
    let server = RegistryServer::plain();
    let layer = noise(3, 3 << 20);
    push(&client(), &name(&server.host(), "app"), std::slice::from_ref(&layer));
    let (host, connections) = relay(server.host());
    let (registry, app) = (client(), name(&host, "app"));
    let image = registry.find(&app).unwrap().unwrap();
    for _ in 0..2 {
        assert!(read_all(&registry, &app, image.layers[0].blob.as_ref().unwrap()).unwrap() == layer);
        assert!(registry.find(&app).unwrap().is_some());
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// What is not there is a reason to ask the registry how it is to be asked, and none for others to wait.
#[test]
fn nobody_waits_for_another_one_s_ping() {
    let server = RegistryServer::plain();
    push(&client(), &name(&server.host(), "base"), &[noise(4, 10)]);
    let (pings, others) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let counted = Arc::clone(&pings);
    let front = FaultServer::start(&server.host(), move |seen| {
        counted.fetch_add(usize::from(seen.path == "/v2/"), Ordering::SeqCst);
        others.fetch_add(usize::from(seen.is("GET", "/v2/base/")), Ordering::SeqCst);
        let began = std::time::Instant::now();
        // The manifest and the config.
        while seen.path == "/v2/" && others.load(Ordering::SeqCst) < 2 && began.elapsed().as_secs() < 10 {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        Reply::Forward
    });
    let registry = client();
    let found = thread::scope(|scope| {
        let nothing = scope.spawn(|| registry.find(&name(&front.host(), "nothing")).unwrap());
        while pings.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let began = std::time::Instant::now();
        let base = registry.find(&name(&front.host(), "base")).unwrap();
        assert!(began.elapsed().as_secs() < 5, "it waited for the ping: {:#?}", front.seen());
        (nothing.join().unwrap().is_some(), base.is_some())
    });
    assert_eq!(found, (false, true));
}

#[test]
fn no_ping_one_mount_and_no_manifest_twice() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let layer = noise(7, 2 << 20);
    let base = name(&front.host(), "base:v1");
    push(&client(), &base, std::slice::from_ref(&layer));
    let before = front.seen().len();

    let registry = client();
    let clone = registry.clone();
    registry.ensure_readable(&base).unwrap();
    clone.find(&base).unwrap().expect("the image");
    registry.find(&base).unwrap().expect("the image");
    let app = name(&front.host(), "app:v1");
    registry.ensure_writable(&app).unwrap();
    registry.ensure_writable(&name(&front.host(), "app:v2")).unwrap();
    registry.cancel_uploads();
    registry.ensure_blob(&app, &blob(&base, &layer)).unwrap();
    registry.ensure_blob(&name(&front.host(), "app:v2"), &blob(&base, &layer)).unwrap();

    let seen: Vec<String> = front.seen()[before..]
        .iter()
        .map(|s| format!("{} {}", s.method, s.path.replace(Digest::of(&layer).as_str(), "LAYER")))
        .collect();
    let count = |text: &str| seen.iter().filter(|s| s.contains(text)).count();
    assert_eq!(count("GET /v2/ "), 0);
    assert_eq!(seen.iter().filter(|s| *s == "GET /v2/").count(), 0, "the first request tells as much: {seen:#?}");
    assert_eq!(count("GET /v2/base/manifests/v1"), 1, "{seen:#?}");
    assert_eq!(count("POST /v2/app/blobs/uploads/?mount=LAYER&from=base"), 1, "{seen:#?}");
    assert_eq!(count("POST /v2/app/blobs/uploads/"), 2, "one to see whether it works, one mount: {seen:#?}");
    assert_eq!(count("DELETE /v2/app/blobs/uploads/"), 1, "{seen:#?}");
    assert_eq!(count("HEAD /v2/app/blobs/LAYER"), 0, "no manifest there names it: {seen:#?}");
    assert_eq!(count("PATCH"), 0, "{seen:#?}");
    assert!(front.seen().iter().all(|s| s.header("user-agent").is_some_and(|u| u.starts_with("cnb-lifecycle/"))));
    assert!(front.seen().iter().all(|s| s.header("accept-encoding") == Some("identity")), "nothing packed for the way");
}

/// What was asked since `before` of a server in front of a registry: method and path, an upload's place left out.
fn asked(front: &FaultServer, before: usize) -> Vec<String> {
    let place = |path: &str| path.split_once("/uploads/").map_or(path.to_owned(), |(dir, _)| format!("{dir}/uploads/"));
    front.seen()[before..].iter().map(|s| format!("{} {}", s.method, place(&s.path))).collect()
}

#[test]
fn what_is_probably_new_is_not_asked_for() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |seen| {
        // As registries that do not mount: an upload begins instead.
        if seen.is("POST", "from=other") { Reply::status(405) } else { Reply::Forward }
    });
    let (tiny, large) = (noise(11, 1 << 10), noise(12, 300 << 10));
    let app = name(&front.host(), "app:v1");
    push(&client(), &app, std::slice::from_ref(&large));
    for other in ["base", "other"] {
        push(&client(), &name(&front.host(), other), &[large.clone(), tiny.clone()]);
    }
    let uploads =
        |repository: &str| ["POST", "PUT"].map(|method| format!("{method} /v2/{repository}/blobs/uploads/")).to_vec();
    let head = |repository: &str, bytes: &[u8]| vec![format!("HEAD /v2/{repository}/blobs/{}", Digest::of(bytes))];

    // A client that has read nothing.
    let registry = client();
    registry.has_blob(&name(&front.host(), "base"), &Digest::of(&tiny)).unwrap();
    let mut before = front.seen().len();
    let mut since = || {
        let asked = asked(&front, before);
        before += asked.len();
        asked
    };
    let fresh = name(&front.host(), "fresh");
    registry.upload_bytes(&fresh, &tiny).unwrap();
    assert_eq!(since(), uploads("fresh"), "tiny: sent at once");
    registry.upload_bytes(&app, &large).unwrap();
    assert_eq!(since(), head("app", &large), "not tiny: it is worth a question");
    registry.upload_bytes(&app, &large).unwrap();
    assert_eq!(since(), Vec::<String>::new(), "nothing is asked twice");

    // One that has read the image.
    let registry = client();
    let found = registry.find(&app).unwrap().unwrap();
    since();
    let config = registry.raw(&found).unwrap().config;
    registry.upload_bytes(&app, &config).unwrap();
    assert_eq!(since(), Vec::<String>::new(), "a config that was read from there is there");
    registry.ensure_blob(&app, &blob(&name(&front.host(), "base"), &large)).unwrap();
    assert_eq!(since(), Vec::<String>::new(), "a manifest names it");
    registry.ensure_blob(&app, &blob(&name(&front.host(), "base"), &tiny)).unwrap();
    assert_eq!(since(), uploads("app")[..1], "no manifest names it: mounted");

    // There, unknown to us, and not to be mounted.
    let registry = client();
    let taken = name(&front.host(), "fresh");
    registry.has_blob(&name(&front.host(), "base"), &Digest::of(&tiny)).unwrap();
    since();
    registry.ensure_blob(&taken, &blob(&name(&front.host(), "other"), &tiny)).unwrap();
    assert_eq!(since(), [&uploads("fresh")[..1], &head("fresh", &tiny)].concat(), "not sent again");
}

#[test]
fn a_tag_that_stands_for_the_manifest_is_left_alone() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let (app, other) = (name(&front.host(), "app:v1"), name(&front.host(), "app:v2"));
    let manifest = push(&client(), &app, &[noise(16, 10)]);
    push(&client(), &other, &[noise(17, 10)]);
    let puts = || front.count("PUT", "/manifests/");
    let before = puts();
    let registry = client();
    registry.find(&app).unwrap().unwrap();
    assert_eq!(registry.put_manifest(&app, OCI, &manifest).unwrap(), Digest::of(&manifest));
    assert_eq!((puts() - before, front.count("HEAD", "/manifests/v1")), (0, 1));
    // Another tag, which stands for another image; and the first one, which somebody else has moved meanwhile.
    registry.put_manifest(&other, OCI, &manifest).unwrap();
    assert_eq!(puts() - before, 1);
    push(&client(), &app, &[noise(18, 10)]);
    registry.put_manifest(&app, OCI, &manifest).unwrap();
    let digest = |name: &image::Reference| client().find(name).unwrap().unwrap().id.unwrap().to_string();
    assert!([digest(&app), digest(&other)].iter().all(|id| id.ends_with(Digest::of(&manifest).as_str())));
}

#[test]
fn an_image_and_its_blobs_are_looked_for_together() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let app = name(&front.host(), "app:v1");
    let layers = [noise(13, 10), noise(14, 10), noise(15, 10)];
    let manifest = push(&client(), &app, &layers);
    let before = front.seen().len();
    let registry = client();
    registry.ensure_readable(&app).unwrap();
    let (image, missing) = registry.find_checked(&app).unwrap().unwrap();
    assert_eq!((image.layers.len(), missing.unwrap()), (3, None));
    let asked = asked(&front, before);
    let count = |method: &str| asked.iter().filter(|line| line.starts_with(method)).count();
    assert_eq!((count("GET /v2/app/manifests/"), count("GET /v2/app/blobs/"), count("HEAD")), (1, 1, 3), "{asked:#?}");
    assert!(registry.find_checked(&name(&front.host(), "none")).unwrap().is_none());

    let hex = Digest::of(&layers[1]);
    let hex = hex.hex();
    let blobs = server.storage().join("docker/registry/v2/blobs/sha256");
    std::fs::remove_dir_all(blobs.join(&hex[..2]).join(hex)).unwrap();
    for read_before in [true, false] {
        let registry = client();
        if read_before {
            registry.ensure_readable(&app).unwrap();
        }
        let (_, missing) = registry.find_checked(&app).unwrap().unwrap();
        assert_eq!(missing.unwrap(), Some(Digest::of(&layers[1])));
        registry.put_manifest(&app, OCI, &manifest).expect_err("sent again, though the tag stands for it");
    }
}

#[test]
fn many_threads_need_no_ping() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let registry = client();
    let app = name(&front.host(), "app");
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (registry, app) = (&registry, &app);
            scope.spawn(move || {
                let bytes = noise(seed, 2 << 20);
                let uploaded = registry.upload_stream(app, &mut || stream(&bytes)).unwrap();
                assert_eq!(uploaded.0, Digest::of(&bytes));
            });
        }
    });
    assert_eq!(front.seen().iter().filter(|s| s.path == "/v2/").count(), 0);
    assert_eq!(front.count("PATCH", "/v2/app"), 8);
}

//! A registry without authentication, over plain HTTP.

use std::{
    io::{self, BufRead, BufReader, Write},
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
use image::{
    BlobSource, Digest, Error, ImageId, Keychain, Registry,
    registry::{Proxies, Settings},
};
use serde_json::json;

use super::{OCI, blob, client, descriptor, name, noise, push, read_all, settings, stream};

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

#[test]
fn an_image_goes_there_and_comes_back() {
    let server = RegistryServer::plain();
    let app = name(&server.host(), "team/app:v1");
    let layers = [noise(1, 100), noise(2, 3 << 20), Vec::new()];
    let manifest = push(&client(), &app, &layers);

    let registry = client();
    let image = registry.find(&app).unwrap().expect("the image");
    assert_eq!(image.config.label("of"), Some("team/app"));
    assert_eq!(image.annotations["kept"], "yes");
    assert!(!image.docker);
    let Some(ImageId::Registry { reference, manifest_size }) = &image.id else { panic!("{:?}", image.id) };
    assert_eq!(reference.digest, Some(Digest::of(&manifest)));
    assert_eq!(*manifest_size, manifest.len() as u64);
    assert_eq!(registry.missing_blob(&image.layers).unwrap(), None);
    for (layer, bytes) in image.layers.iter().zip(&layers) {
        let found = read_all(&registry, &app, layer.blob.as_ref().unwrap()).unwrap();
        assert!(found == *bytes, "layer {}", layer.diff_id);
    }
    let by_digest = registry.find(reference).unwrap().expect("by digest");
    assert_eq!(by_digest.layers.len(), 3);
}

#[test]
fn what_is_not_there_is_none_and_no_error() {
    let server = RegistryServer::plain();
    let registry = client();
    let app = name(&server.host(), "none/app");
    assert!(registry.find(&app).unwrap().is_none());
    assert!(!registry.has_blob(&app, &Digest::of(b"x")).unwrap());
    registry.ensure_readable(&app).unwrap();
    let error = registry.read_blob(&app, &blob(&app, b"x")).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    let url = format!("http://{}/v2/none/app/blobs/{}: 404", server.host(), Digest::of(b"x"));
    assert!(error.to_string().contains(&url) && error.to_string().contains("BLOB_UNKNOWN"), "{error}");
}

#[test]
fn a_registry_that_does_not_listen_fails_at_once_naming_both_urls() {
    let host = RegistryServer::plain().host();
    let error = client().find(&name(&host, "app")).unwrap_err().to_string();
    assert!(error.contains(&format!("GET https://{host}/v2/")), "{error}");
    assert!(error.contains(&format!("GET http://{host}/v2/")) && error.contains("refused"), "{error}");
    assert!(!error.contains("attempts"), "{error}");
}

#[test]
fn an_index_gives_the_image_of_this_platform() {
    let server = RegistryServer::plain();
    let registry = client();
    let one = push(&registry, &name(&server.host(), "app:one"), &[noise(1, 10)]);
    let two = push(&registry, &name(&server.host(), "app:two"), &[noise(2, 10)]);
    let here = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let of = |bytes: &[u8], os: &str, architecture: &str| {
        let mut d = descriptor(OCI, bytes);
        d["platform"] = json!({ "os": os, "architecture": architecture });
        d
    };
    let index_type = "application/vnd.oci.image.index.v1+json";
    let put = |tag: &str, manifests: Vec<serde_json::Value>| {
        let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": manifests }).to_string();
        registry.put_manifest(&name(&server.host(), &format!("app:{tag}")), index_type, index.as_bytes()).unwrap();
        index
    };
    let found = |tag: &str| {
        let image = client().find(&name(&server.host(), &format!("app:{tag}"))).unwrap();
        image.map(|i| match i.id {
            Some(ImageId::Registry { reference, .. }) => reference.digest.unwrap(),
            other => panic!("{other:?}"),
        })
    };
    put("both", vec![of(&one, "windows", here), of(&two, "linux", here), of(&one, "linux", "s390x")]);
    assert_eq!(found("both"), Some(Digest::of(&two)));
    put("other", vec![of(&one, "linux", "s390x"), of(&two, "unknown", "unknown")]);
    assert_eq!(found("other"), None);
    let inner = put("inner", vec![of(&one, "linux", here)]);
    put("nested", vec![descriptor(index_type, inner.as_bytes())]);
    assert_eq!(found("nested"), Some(Digest::of(&one)));
}

#[test]
fn blobs_are_mounted_copied_or_read_from_a_layout() {
    let (here, there) = (RegistryServer::plain(), RegistryServer::plain());
    let (small, large) = (noise(3, 1000), noise(4, 2 << 20));
    let base = name(&here.host(), "base");
    let app = name(&here.host(), "app");
    let far = name(&there.host(), "app");
    let registry = client();
    for bytes in [&small, &large] {
        registry.upload_stream(&base, &mut || stream(bytes)).unwrap();
        registry.ensure_blob(&app, &blob(&base, bytes)).unwrap();
        registry.ensure_blob(&far, &blob(&base, bytes)).unwrap();
        for repository in [&app, &far] {
            assert!(read_all(&client(), repository, &blob(repository, bytes)).unwrap() == *bytes);
        }
    }

    let layout = tempfile::tempdir().unwrap();
    let bytes = noise(5, 1 << 20);
    let digest = Digest::of(&bytes);
    let path = layout.path().join("blobs/sha256").join(digest.hex());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let mut from_layout = blob(&app, &bytes);
    from_layout.source = BlobSource::Layout(layout.path().to_path_buf());
    registry.ensure_blob(&app, &from_layout).unwrap();
    assert!(client().has_blob(&app, &digest).unwrap());

    std::fs::write(&path, noise(6, 1 << 20)).unwrap();
    let error = registry.ensure_blob(&far, &from_layout).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)) && error.to_string().contains(digest.hex()), "{error}");
    assert!(!client().has_blob(&far, &digest).unwrap());

    let lost = registry.ensure_blob(&app, &blob(&app, b"lost")).unwrap_err();
    assert!(matches!(lost, Error::NotFound(_)), "{lost}");
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
    let (tiny, large) = (noise(11, 1 << 10), noise(12, 100 << 10));
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
fn a_manifest_can_be_deleted() {
    let server = RegistryServer::plain();
    let registry = client();
    let app = name(&server.host(), "app:v1");
    push(&registry, &app, &[noise(8, 10)]);
    registry.delete_manifest(&app).unwrap();
    assert!(client().find(&app).unwrap().is_none());
    assert!(registry.find(&app).unwrap().is_none(), "from memory, too");
    assert!(matches!(registry.delete_manifest(&app).unwrap_err(), Error::NotFound(_)));
}

#[test]
fn a_manifest_whose_blobs_are_missing_is_refused_by_name() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let config = descriptor("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI, "config": config, "layers": [] }).to_string();
    let app = name(&front.host(), "app:v1");
    let error = client().put_manifest(&app, OCI, manifest.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("PUT http://") && error.contains("BLOB_UNKNOWN"), "{error}");
    assert_eq!(front.count("PUT", "/manifests/v1"), 3, "the registry is given time to find it");
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

#[test]
fn an_insecure_registry_is_reached_through_the_proxy() {
    let server = RegistryServer::plain();
    // As most proxies: a tunnel for TLS, and an answer of their own to plain HTTP.
    let proxy =
        FaultServer::start(&server.host(), |s| if s.method == "CONNECT" { Reply::Tunnel } else { Reply::Forward });
    // A host that only the proxy could know.
    let host = "registry.example.invalid:5000";
    let with = |no_proxy: &str, delays| {
        let url = format!("http://user:geheim@{}", proxy.host());
        let proxies = Proxies::new(|name| match name {
            "HTTP_PROXY" | "HTTPS_PROXY" => Some(url.clone()),
            "NO_PROXY" => Some(no_proxy.to_string()),
            _ => None,
        });
        let settings = Settings { proxies, delays, ..settings() };
        Registry::with_settings(Keychain::default(), vec![host.to_string()], settings)
    };
    let app = name(host, "app:v1");
    push(&with("other.example", settings().delays), &app, &[noise(1, 2 << 20)]);
    assert!(client().find(&name(&server.host(), "app:v1")).unwrap().is_some());
    let connects = proxy.count("CONNECT", host);
    assert!(connects > 0, "whether there is TLS");
    assert!(proxy.count("PATCH", "http://registry.example.invalid:5000/v2/app/blobs/uploads/") > 0);
    for seen in proxy.seen().iter().filter(|s| s.method != "CONNECT") {
        assert!(seen.path.starts_with(&format!("http://{host}/v2/")), "{seen:?}");
        assert_eq!(seen.header("host"), Some(host));
    }
    assert!(proxy.seen().iter().all(|s| s.header("proxy-authorization").is_some()));

    let requests = proxy.seen().len();
    let error = with(host, Vec::new()).find(&app).unwrap_err().to_string();
    assert_eq!(proxy.seen().len(), requests, "NO_PROXY: {error}");
    assert!(!error.contains("geheim"), "{error}");
}

#[test]
fn requests_share_a_connection_to_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // One connection is taken, and every request in it answered.
    let proxy = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::io::Result::ok);
        let mut first = Vec::new();
        while let Some(line) = lines.next() {
            first.push(line);
            lines.by_ref().take_while(|l| !l.is_empty()).count();
            stream.write_all(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        }
        first
    });
    let proxies = Proxies::new(|name| (name == "http_proxy").then(|| url.clone()));
    let settings = Settings { proxies, delays: Vec::new(), ..settings() };
    let registry = Registry::with_settings(Keychain::default(), vec!["a.invalid".into()], settings);
    for tag in ["v1", "v2"] {
        registry.ensure_readable(&name("a.invalid", &format!("app:{tag}"))).unwrap();
    }
    drop(registry);
    let expected =
        ["", "app/manifests/v1", "app/manifests/v2"].map(|p| format!("GET http://a.invalid/v2/{p} HTTP/1.1"));
    assert_eq!(proxy.join().unwrap(), expected);
}

//! Each fault once (or as often as said), in front of a real registry: what comes of it.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use acceptance::{
    fault::{FaultServer, Reply},
    registry::RegistryServer,
};
use image::{Digest, Error, Keychain, Registry, registry::Settings};

use super::{blob, client, name, noise, push, read_all, settings, stream};

/// A server that answers the first requests of this kind with `faults`, and forwards all others.
fn faulty(behind: &RegistryServer, method: &'static str, part: &'static str, faults: Vec<Reply>) -> FaultServer {
    let next = AtomicUsize::new(0);
    FaultServer::start(&behind.host(), move |seen| {
        if !seen.is(method, part) {
            return Reply::Forward;
        }
        faults.get(next.fetch_add(1, Ordering::SeqCst)).cloned().unwrap_or(Reply::Forward)
    })
}

fn status(code: u16) -> Reply {
    Reply::status(code)
}

#[test]
fn uploads_survive_what_passes() {
    let behind = RegistryServer::plain();
    let json = |code: &str| {
        let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"m\"}}]}}");
        Reply::Answer(404, Vec::new(), body.into_bytes())
    };
    for (seed, (what, method, faults)) in [
        ("reset at the start of the blob", "PATCH", vec![Reply::ResetAfter(0)]),
        (
            "reset in the middle of the blob, twice",
            "PATCH",
            vec![Reply::ResetAfter(700_000), Reply::ResetAfter(1 << 20)],
        ),
        ("errors of the server", "PATCH", vec![status(500), status(502), status(503)]),
        ("errors when the upload starts", "POST", vec![status(504), status(429), status(408)]),
        ("errors when the upload ends", "PUT", vec![status(500)]),
        ("the last answer is lost", "PUT", vec![Reply::ForwardAndHangUp]),
        ("the answer to the content is lost", "PATCH", vec![Reply::ForwardAndHangUp]),
        ("the registry forgot the upload", "PATCH", vec![json("BLOB_UPLOAD_UNKNOWN")]),
        ("the registry forgot the upload at its end", "PUT", vec![json("BLOB_UPLOAD_INVALID")]),
    ]
    .into_iter()
    .enumerate()
    {
        let server = faulty(&behind, method, "/blobs/uploads/", faults);
        let bytes = noise(seed as u64 + 1, 3 << 20);
        let repository = name(&server.host(), "app");
        let uploaded = client().upload_stream(&repository, &mut || stream(&bytes));
        assert_eq!(uploaded.unwrap_or_else(|e| panic!("{what}: {e}")), (Digest::of(&bytes), 3 << 20), "{what}");
        let there = name(&behind.host(), "app");
        assert!(read_all(&client(), &there, &blob(&there, &bytes)).unwrap() == bytes, "{what}");
    }
}

#[test]
fn downloads_and_copies_survive_what_passes() {
    let behind = RegistryServer::plain();
    let target = RegistryServer::plain();
    for (seed, (what, faults)) in [
        ("truncated once", vec![Reply::ForwardTruncated(1 << 20)]),
        ("truncated again and again", vec![Reply::ForwardTruncated(500_000); 4]),
        ("cut in the head", vec![Reply::ResetAfter(0)]),
        ("errors of the server", vec![status(500), status(503)]),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = noise(seed as u64 + 1, 3 << 20);
        let source = name(&behind.host(), "app");
        client().upload_stream(&source, &mut || stream(&bytes)).unwrap();
        let server = faulty(&behind, "GET", "/blobs/", faults.clone());
        let repository = name(&server.host(), "app");
        let found = read_all(&client(), &repository, &blob(&repository, &bytes));
        assert!(found.unwrap_or_else(|e| panic!("{what}: {e}")) == bytes, "{what}");

        let server = faulty(&behind, "GET", "/blobs/", faults);
        let copy = name(&target.host(), "copy");
        client().ensure_blob(&copy, &blob(&name(&server.host(), "app"), &bytes)).unwrap();
        assert!(client().has_blob(&copy, &Digest::of(&bytes)).unwrap(), "{what}");
    }
}

#[test]
fn what_does_not_pass_is_an_error_that_says_what_and_where() {
    let behind = RegistryServer::plain();
    let server = faulty(&behind, "PATCH", "/blobs/uploads/", vec![status(500); 99]);
    let bytes = noise(1, 2 << 20);
    let repository = name(&server.host(), "app");
    let error = client().upload_stream(&repository, &mut || stream(&bytes)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Remote(_)), "{text}");
    assert!(text.contains(&format!("PATCH http://{}/v2/app/blobs/uploads/", server.host())), "{text}");
    assert!(text.contains("500") && text.contains("after 4 attempts"), "{text}");
    assert!(!text.contains("_state"), "queries hold signatures: {text}");
    assert_eq!(server.count("PATCH", ""), 4);

    let denied = faulty(
        &behind,
        "POST",
        "/blobs/uploads/",
        vec![Reply::Answer(403, Vec::new(), br#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#.to_vec())],
    );
    let error = client().ensure_writable(&name(&denied.host(), "app")).unwrap_err();
    assert!(matches!(error, Error::Unauthorized(_)), "{error}");
    assert!(error.to_string().ends_with("403 Forbidden: DENIED: quota exceeded"), "{error}");
    assert_eq!(denied.count("POST", ""), 1, "what is refused is not repeated");
}

#[test]
fn wrong_content_is_never_taken() {
    let behind = RegistryServer::plain();
    let app = name(&behind.host(), "app:v1");
    let layer = noise(1, 2 << 20);
    let manifest = push(&client(), &app, std::slice::from_ref(&layer));

    let server = faulty(&behind, "GET", "/blobs/", vec![Reply::ForwardCorrupted; 9]);
    let repository = name(&server.host(), "app:v1");
    let error = read_all(&client(), &repository, &blob(&repository, &layer)).unwrap_err();
    assert!(error.contains(Digest::of(&layer).as_str()) && error.contains("its content has digest"), "{error}");
    let error = client().find(&repository).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "the config: {error}");
    let target = RegistryServer::plain();
    let copy = name(&target.host(), "copy");
    let error = client().ensure_blob(&copy, &blob(&repository, &layer)).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert!(!client().has_blob(&copy, &Digest::of(&layer)).unwrap());

    let server = faulty(&behind, "GET", "/manifests/", vec![Reply::ForwardCorrupted]);
    let by_digest = name(&server.host(), &format!("app@{}", Digest::of(&manifest)));
    let error = client().find(&by_digest).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)) && error.to_string().contains("its content has digest"), "{error}");

    let server = faulty(&behind, "GET", "/manifests/", vec![Reply::Answer(200, Vec::new(), vec![b' '; 5 << 20])]);
    let error = client().find(&name(&server.host(), "app:v1")).unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn content_that_changes_between_attempts_is_an_error() {
    let behind = RegistryServer::plain();
    let server = faulty(
        &behind,
        "PUT",
        "/blobs/uploads/",
        vec![Reply::Answer(400, Vec::new(), br#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"m"}]}"#.to_vec())],
    );
    let mut attempt = 0;
    let result = client().upload_stream(&name(&server.host(), "app"), &mut || {
        attempt += 1;
        stream(&noise(attempt, 2 << 20))
    });
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)) && error.to_string().contains("changed between"), "{error}");
}

#[test]
fn content_that_cannot_be_read_is_its_own_error() {
    let behind = RegistryServer::plain();
    let server = faulty(&behind, "", "", Vec::new());
    let mut opened = 0;
    let result = client().upload_stream(&name(&server.host(), "app"), &mut || {
        opened += 1;
        Err(Error::Io("/layers/x/file: it changed".to_string()))
    });
    assert_eq!(result.unwrap_err().to_string(), "/layers/x/file: it changed");
    assert_eq!(opened, 1);
}

#[test]
fn a_stalled_connection_fails_after_its_limit() {
    let behind = RegistryServer::plain();
    let limits = Settings {
        idle_timeout: Duration::from_millis(200),
        commit_timeout: Duration::from_millis(200),
        delays: Vec::new(),
        ..settings()
    };
    for (method, part) in [("GET", "/manifests/"), ("PATCH", "/uploads/"), ("PUT", "/manifests/")] {
        let server = faulty(&behind, method, part, vec![Reply::Stall; 9]);
        let app = name(&server.host(), "app:v1");
        let registry = Registry::with_settings(Keychain::default(), Vec::new(), limits.clone());
        let begin = Instant::now();
        let error = match method {
            "GET" => registry.find(&app).map(|_| ()).unwrap_err(),
            "PUT" => registry.put_manifest(&app, super::OCI, b"{}").map(|_| ()).unwrap_err(),
            _ => registry.upload_stream(&app, &mut || stream(&noise(1, 2 << 20))).map(|_| ()).unwrap_err(),
        };
        assert!(begin.elapsed() < Duration::from_secs(10), "{method} took {:?}", begin.elapsed());
        assert!(error.to_string().contains("nothing was received or could be sent for 200ms"), "{error}");
    }
}

#[test]
fn a_registry_that_asks_for_time_gets_it() {
    let behind = RegistryServer::plain();
    let later = |seconds: &str| Reply::Answer(429, vec![("Retry-After", seconds.to_string())], Vec::new());
    let server = faulty(&behind, "GET", "/manifests/", vec![later("1")]);
    let begin = Instant::now();
    assert!(client().find(&name(&server.host(), "app:v1")).unwrap().is_none());
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());

    let server = faulty(&behind, "GET", "/manifests/", vec![later("3600")]);
    let error = client().find(&name(&server.host(), "app:v1")).unwrap_err();
    assert!(error.to_string().contains("429"), "more than the budget: {error}");
}

#[test]
fn an_image_that_must_be_there_is_given_time_to_appear() {
    let behind = RegistryServer::plain();
    push(&client(), &name(&behind.host(), "app:v1"), &[noise(1, 10)]);
    let server = faulty(&behind, "GET", "/manifests/", vec![status(404), status(404)]);
    let mut said = Vec::new();
    let (image, retries) = client()
        .find_patiently(&name(&server.host(), "app:v1"), &mut |attempt, of, why, pause| {
            said.push(format!("{attempt}/{of} {pause:?} {}", why.contains("not found")));
        })
        .unwrap();
    assert!(image.is_some());
    assert_eq!((retries, said), (2, vec!["1/6 100ms true".to_string(), "2/6 200ms true".to_string()]));

    let denied = faulty(&behind, "GET", "/manifests/", vec![status(403)]);
    let result = client().find_patiently(&name(&denied.host(), "app:v1"), &mut |_, _, why, _| panic!("{why}"));
    assert!(matches!(result.unwrap_err(), Error::Unauthorized(_)));

    // What is wrong with an image does not pass.
    let wrong = FaultServer::start(&behind.host(), |seen| {
        if seen.path.contains("/manifests/") { Reply::Answer(200, Vec::new(), b"{}".to_vec()) } else { Reply::Forward }
    });
    let result = client().find_patiently(&name(&wrong.host(), "app:v1"), &mut |_, _, why, _| panic!("{why}"));
    assert!(matches!(result.unwrap_err(), Error::Corrupt(_)));

    // What was tried again and again is not tried again as often as that.
    let ill = FaultServer::start(&behind.host(), |seen| {
        if seen.path.contains("/manifests/") { Reply::status(503) } else { Reply::Forward }
    });
    let result = client().find_patiently(&name(&ill.host(), "app:v1"), &mut |_, _, why, _| panic!("{why}"));
    assert!(result.unwrap_err().to_string().contains("503"));
    assert_eq!(ill.count("GET", "/manifests/"), 4);
}

#[test]
fn an_interrupted_upload_goes_on_where_the_registry_says() {
    // A registry of our own: it has the first million bytes of what was reset.
    let puts = AtomicUsize::new(0);
    let patches = AtomicUsize::new(0);
    let bytes = noise(1, 3 << 20);
    let server = FaultServer::start("", move |seen| match seen.method.as_str() {
        "GET" if seen.path == "/v2/" => Reply::status(200),
        "GET" => Reply::Answer(204, vec![("Range", "0-999999".to_string())], Vec::new()),
        "HEAD" => Reply::status(404),
        "POST" => Reply::Answer(202, vec![("Location", "/v2/app/blobs/uploads/1".to_string())], Vec::new()),
        "PATCH" if patches.fetch_add(1, Ordering::SeqCst) == 0 => Reply::ResetAfter(1_200_000),
        "PATCH" => Reply::status(202),
        "PUT" if puts.fetch_add(1, Ordering::SeqCst) == 0 => Reply::status(201),
        _ => Reply::status(400),
    });
    let uploaded = client().upload_stream(&name(&server.host(), "app"), &mut || stream(&bytes)).unwrap();
    assert_eq!(uploaded.0, Digest::of(&bytes));
    assert_eq!(server.count("POST", ""), 1);
    let second = server.seen().into_iter().filter(|s| s.method == "PATCH").nth(1).unwrap();
    assert!(second.body == bytes[1_000_000..], "{} bytes", second.body.len());
}

#[test]
fn a_registry_that_fails_at_a_mount_is_sent_the_blob() {
    let behind = RegistryServer::plain();
    let server = faulty(&behind, "POST", "mount=", vec![status(500); 9]);
    let (base, app, layer) = (name(&server.host(), "base"), name(&server.host(), "app"), noise(19, 1 << 20));
    client().upload_stream(&base, &mut || stream(&layer)).unwrap();
    let registry = client();
    registry.ensure_blob(&app, &blob(&base, &layer)).unwrap();
    assert!(read_all(&client(), &app, &blob(&app, &layer)).unwrap() == layer);
    assert_eq!(server.count("POST", "mount="), 1);
}

/// Files that are served as they are, without a media type for manifests.
#[test]
fn an_image_is_known_by_what_its_manifest_names() {
    let behind = RegistryServer::plain();
    let app = name(&behind.host(), "app:v1");
    let manifest = push(&client(), &app, &[noise(6, 10)]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest.as_object_mut().unwrap().remove("mediaType");
    let bytes = manifest.to_string().into_bytes();
    for (content_type, found) in
        [("text/plain; charset=utf-8", true), ("application/octet-stream", true), ("x/y", false)]
    {
        let bytes = bytes.clone();
        let front = FaultServer::start(&behind.host(), move |seen| {
            let served = Reply::Answer(200, vec![("Content-Type", content_type.to_string())], bytes.clone());
            if seen.path.contains("/manifests/") { served } else { Reply::Forward }
        });
        let image = client().find(&name(&front.host(), "app:v1"));
        assert_eq!(image.as_ref().is_ok_and(|image| image.as_ref().is_some_and(|i| !i.docker)), found, "{image:?}");
    }
}

//! Uploads that are begun early, and layers that are looked for while something else is done.

use acceptance::{
    fault::{FaultServer, Reply},
    registry::RegistryServer,
};
use image::{Digest, Keychain, Registry, registry::Settings};

use super::{blob, client, name, noise, push, settings};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn an_upload_that_was_begun_takes_what_is_sent_next() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let (app, other) = (name(&front.host(), "app:v1"), name(&front.host(), "other:v1"));
    let registry = client();
    registry.ensure_writable(&app).unwrap();
    registry.upload_bytes(&other, b"elsewhere").unwrap();
    assert_eq!(front.count("POST", "/v2/app/blobs/uploads/"), 1);
    let digest = registry.upload_bytes(&name(&front.host(), "app:v2"), b"first").unwrap();
    assert!(client().has_blob(&app, &digest).unwrap());
    registry.upload_bytes(&app, b"second").unwrap();
    assert_eq!((front.count("POST", "/v2/app/"), front.count("PUT", "/v2/app/")), (2, 2), "{:#?}", front.seen());

    // Nothing is left where nothing was sent.
    let uploads = server.storage().join("docker/registry/v2/repositories/app/_uploads");
    let open = || uploads.read_dir().unwrap().filter(|e| e.as_ref().unwrap().path().join("startedat").exists()).count();
    let registry = client();
    registry.ensure_writable(&app).unwrap();
    registry.ensure_writable(&app).unwrap();
    assert_eq!(open(), 1);
    registry.cancel_uploads();
    registry.cancel_uploads();
    assert_eq!((front.count("POST", "/v2/app/"), front.count("DELETE", "/v2/app/blobs/uploads/")), (3, 1));
    assert_eq!(open(), 0);
}

#[test]
fn a_mount_takes_no_upload_that_was_begun() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let (app, base) = (name(&front.host(), "app:v1"), name(&front.host(), "base:v1"));
    let layer = noise(17, 10);
    push(&client(), &base, std::slice::from_ref(&layer));
    let registry = client();
    registry.ensure_writable(&app).unwrap();
    registry.ensure_blob(&app, &blob(&base, &layer)).unwrap();
    registry.upload_bytes(&app, b"content").unwrap();
    registry.cancel_uploads();
    let count = |method: &str| front.count(method, "/v2/app/blobs/uploads/");
    assert_eq!((count("POST"), count("PUT"), count("DELETE")), (2, 1, 0), "{:#?}", front.seen());
}

#[test]
fn an_upload_that_the_registry_forgot_is_begun_again() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let app = name(&front.host(), "app:v1");
    let registry = client();
    registry.ensure_writable(&app).unwrap();
    std::fs::remove_dir_all(server.storage().join("docker/registry/v2/repositories/app/_uploads")).unwrap();
    let digest = registry.upload_bytes(&app, b"content").unwrap();
    assert!(client().has_blob(&app, &digest).unwrap());
    assert_eq!(front.count("POST", "/v2/app/blobs/uploads/"), 2);
}

#[test]
fn an_upload_that_was_begun_long_ago_is_cancelled() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let app = name(&front.host(), "app:v1");
    let settings = Settings { upload_age: std::time::Duration::ZERO, ..settings() };
    let registry = Registry::with_settings(Keychain::default(), Vec::new(), settings);
    registry.ensure_writable(&app).unwrap();
    registry.begin_config(&app);
    registry.upload_bytes(&app, b"layer").unwrap();
    registry.upload_config(&app, b"config").unwrap();
    registry.cancel_uploads();
    let requests = ["POST", "PUT", "DELETE"].map(|method| front.count(method, "/v2/app/blobs/uploads/"));
    assert_eq!(requests, [4, 2, 2], "{:#?}", front.seen());
}

#[test]
fn what_cannot_be_begun_is_said_when_there_is_something_to_send() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |seen| {
        if seen.is("POST", "/uploads/") { Reply::status(403) } else { Reply::Forward }
    });
    let registry = client();
    let app = name(&front.host(), "app:v1");
    registry.begin_config(&app);
    let error = registry.upload_config(&app, b"content").unwrap_err().to_string();
    assert!(error.contains("403") && error.contains("/v2/app/blobs/uploads/"), "{error}");
}

#[test]
fn a_config_takes_the_upload_that_was_begun_for_it_and_layers_do_not() {
    let server = RegistryServer::plain();
    // It comes late, but none is begun beside it.
    let front = FaultServer::start(&server.host(), |seen| {
        if seen.is("POST", "/config/") {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        Reply::Forward
    });
    let (app, other) = (name(&front.host(), "config:v1"), name(&front.host(), "other:v1"));
    let registry = client();
    registry.begin_config(&app);
    let digest = registry.upload_config(&app, b"config").unwrap();
    assert!(client().has_blob(&app, &digest).unwrap());
    let count = |method: &str, of: &str| front.count(method, &format!("/v2/{of}/blobs/uploads/"));
    assert_eq!((count("POST", "config"), count("PUT", "config")), (1, 1), "{:#?}", front.seen());

    registry.begin_config(&other);
    while count("POST", "other") == 0 {
        std::thread::yield_now();
    }
    registry.upload_bytes(&other, b"layer").unwrap();
    assert_eq!((count("POST", "other"), count("PUT", "other")), (2, 1), "the layer begins its own");
    registry.upload_config(&other, b"config").unwrap();
    registry.begin_config(&other);
    registry.cancel_uploads();
    let requests = ["POST", "PUT", "DELETE"].map(|method| count(method, "other"));
    assert_eq!(requests, [3, 2, 1], "{:#?}", front.seen());
}

#[test]
fn layers_are_taken_for_granted_until_one_is_missing() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let app = name(&front.host(), "app:v1");
    let layers = [noise(13, 10), noise(14, 10), noise(15, 10), noise(16, 10)];
    let manifest = push(&client(), &app, &layers);
    for lost in [&layers[1], &layers[3]] {
        let hex = Digest::of(lost);
        let hex = hex.hex();
        let blobs = server.storage().join("docker/registry/v2/blobs/sha256");
        std::fs::remove_dir_all(blobs.join(&hex[..2]).join(hex)).unwrap();
    }
    let registry = client();
    let image = registry.find(&app).unwrap().unwrap();
    assert!(registry.lost_blobs(&image).unwrap().is_empty());
    assert_eq!(front.count("HEAD", "/v2/app/blobs/"), 0, "its manifest was just read");
    assert_eq!(registry.missing_blob(&image.layers[2..3]).unwrap(), None);
    assert_eq!(registry.missing_blob(&image.layers).unwrap(), Some(Digest::of(&layers[1])));
    // Its manifest is not believed any more, however often it is looked at.
    let image = registry.find(&app).unwrap().unwrap();
    let mut lost = registry.lost_blobs(&image).unwrap();
    lost.sort();
    let mut expected = vec![Digest::of(&layers[1]), Digest::of(&layers[3])];
    expected.sort();
    assert_eq!(lost, expected);
    registry.put_manifest(&app, OCI, &manifest).expect_err("sent again, though the tag stands for it");
}

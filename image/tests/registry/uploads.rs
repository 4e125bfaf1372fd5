//! Registries that do not know every way to upload.

use std::cell::Cell;

use acceptance::{
    fault::{FaultServer, Reply},
    registry::RegistryServer,
};
use image::Digest;

use super::{blob, client, name, noise, read_all, stream};

#[test]
fn content_is_measured_for_registries_that_want_its_length() {
    for (code, more_opened) in [(411, 2), (501, 2), (400, 3)] {
        let behind = RegistryServer::plain();
        let front = FaultServer::start(&behind.host(), move |seen| {
            let chunked = seen.method == "PATCH" && seen.header("content-length").is_none();
            if chunked { Reply::status(code) } else { Reply::Forward }
        });
        let (registry, app, opened) = (client(), name(&front.host(), "app"), Cell::new(0));
        for (seed, times) in [(1, 3), (2, more_opened)] {
            let bytes = noise(seed, 3 << 20);
            opened.set(0);
            let uploaded = registry.upload_stream(&app, &mut || {
                opened.set(opened.get() + 1);
                stream(&bytes)
            });
            assert_eq!(uploaded.unwrap(), (Digest::of(&bytes), 3 << 20), "{code}");
            assert!(read_all(&client(), &app, &blob(&app, &bytes)).unwrap() == bytes, "{code}");
            assert_eq!(opened.get(), times, "{code}: learnt once where nothing else can be meant");
        }
        // What is small never goes in chunks.
        registry.upload_stream(&app, &mut || stream(&noise(3, 100))).unwrap();
    }
}

#[test]
fn what_is_wrong_with_content_is_said_of_its_second_attempt() {
    let behind = RegistryServer::plain();
    let front = FaultServer::start(&behind.host(), |seen| {
        let refusal = br#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"too large"}]}"#.to_vec();
        if seen.method == "PATCH" { Reply::Answer(400, Vec::new(), refusal) } else { Reply::Forward }
    });
    let result = client().upload_stream(&name(&front.host(), "app"), &mut || stream(&noise(4, 2 << 20)));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("400") && error.contains("too large"), "{error}");
}

#[test]
fn content_goes_by_patch_where_no_put_takes_it() {
    for code in [404, 405, 501] {
        let behind = RegistryServer::plain();
        let front = FaultServer::start(&behind.host(), move |seen| {
            let whole = seen.is("PUT", "/uploads/") && seen.header("content-length") != Some("0");
            if whole { Reply::status(code) } else { Reply::Forward }
        });
        let (registry, app, base) = (client(), name(&front.host(), "app"), name(&behind.host(), "base"));
        let (tiny, large) = (noise(5, 100), noise(6, 3 << 20));
        client().upload_stream(&base, &mut || stream(&large)).unwrap();
        registry.ensure_blob(&app, &blob(&base, &large)).unwrap();
        registry.upload_bytes(&app, &tiny).unwrap();
        for bytes in [tiny, large] {
            assert!(read_all(&client(), &app, &blob(&app, &bytes)).unwrap() == bytes, "{code}");
        }
        assert_eq!((front.count("PUT", "/uploads/"), front.count("PATCH", "")), (3, 2), "{code}: learnt once");
    }
}

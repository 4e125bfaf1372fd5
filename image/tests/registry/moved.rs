//! Registries that have requests go elsewhere.

use acceptance::{
    fault::{FaultServer, Reply},
    registry::{Options, RegistryServer},
};
use image::{Digest, Registry};

use super::{BASIC, OCI, blob, client, keychain, name, noise, push, read_all, settings, stream};

fn to(status: u16, url: String) -> Reply {
    Reply::Answer(status, vec![("Location", url)], Vec::new())
}

/// What is written goes where the registry says: once for small content, from its beginning for large.
#[test]
fn what_is_sent_follows_to_where_the_registry_wants_it() {
    for code in [307, 308] {
        let behind = RegistryServer::plain();
        let next = FaultServer::start(&behind.host(), |_| Reply::Forward);
        let (there, real) = (next.host(), behind.host());
        let front = FaultServer::start(&behind.host(), move |seen| match seen.method.as_str() {
            "POST" | "PUT" | "PATCH" => to(code, format!("http://{there}{}", seen.path)),
            _ => Reply::Forward,
        });
        let registry = Registry::with_settings(keychain(&front.host(), BASIC), Vec::new(), settings());
        let app = name(&front.host(), "app:v1");
        push(&registry, &app, &[noise(1, 3 << 20), noise(2, 10)]);
        let (large, base) = (noise(3, 3 << 20), name(&real, "base"));
        client().upload_stream(&base, &mut || stream(&large)).unwrap();
        registry.ensure_blob(&app, &blob(&base, &large)).unwrap();
        let there = name(&behind.host(), "app:v1");
        assert!(client().find(&there).unwrap().is_some());
        for bytes in [noise(1, 3 << 20), large] {
            assert!(read_all(&client(), &there, &blob(&there, &bytes)).unwrap() == bytes);
        }
        assert!(next.count("PUT", "/manifests/v1") == 1 && next.count("POST", "") > 2, "{:#?}", next.seen());
        assert!(next.seen().iter().all(|seen| seen.header("authorization").is_none()), "another server");
        assert!(front.seen().iter().filter(|s| s.path != "/v2/").all(|s| s.header("authorization") == Some(BASIC)));
    }
}

#[test]
fn a_stream_that_is_sent_elsewhere_begins_anew_there() {
    let behind = RegistryServer::plain();
    let front = FaultServer::start(&behind.host(), |seen| match seen.method.as_str() {
        "PATCH" | "PUT" if !seen.path.contains("moved=") => to(307, format!("{}&moved=1", seen.path)),
        _ => Reply::Forward,
    });
    let bytes = noise(4, 3 << 20);
    let app = name(&front.host(), "app:v1");
    let (digest, _) = client().upload_stream(&app, &mut || stream(&bytes)).unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    assert!(read_all(&client(), &app, &blob(&app, &bytes)).unwrap() == bytes);
    assert_eq!((front.count("POST", ""), front.count("PATCH", "")), (1, 2), "the same upload");

    let (base, large) = (name(&behind.host(), "base"), noise(5, 3 << 20));
    client().upload_stream(&base, &mut || stream(&large)).unwrap();
    let before = front.count("PUT", "");
    client().ensure_blob(&app, &blob(&base, &large)).unwrap();
    let puts: Vec<String> =
        front.seen().into_iter().filter(|s| s.method == "PUT").map(|s| s.path).skip(before).collect();
    assert_eq!((front.count("POST", ""), puts.len()), (2, 2), "{puts:#?}");
    assert!(puts.iter().all(|path| path.matches("digest=").count() == 1), "{puts:#?}");
}

#[test]
fn what_is_sent_goes_nowhere_it_should_not() {
    let behind = RegistryServer::plain();
    for (code, url, why) in [
        (301, "/v2/other", "301"),
        (302, "/v2/other", "302"),
        (307, "http://169.254.169.254/latest", "a private address"),
        (307, "", "307"),
        (308, "/v2/app/blobs/uploads/", "too many redirects"),
    ] {
        let front = FaultServer::start(&behind.host(), move |seen| match seen.method.as_str() {
            "POST" => to(code, url.to_string()),
            _ => Reply::Forward,
        });
        let error = client().ensure_writable(&name(&front.host(), "app")).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&front.host()), "{code} {url}: {error}");
    }
}

#[test]
fn a_ping_follows_to_where_the_registry_answers() {
    let server = RegistryServer::start(&Options { users: &[("user", "secret")], ..Options::default() });
    for code in [301, 302, 307, 308] {
        let front = FaultServer::start(&server.host(), move |seen| match seen.path.as_str() {
            "/v2/" => to(code, "/v2/?again".to_string()),
            _ => Reply::Forward,
        });
        let registry = Registry::with_settings(keychain(&front.host(), BASIC), Vec::new(), settings());
        let app = name(&front.host(), "app:v1");
        assert!(registry.find(&app).unwrap().is_none());
        registry.put_manifest(&app, OCI, b"{}").unwrap_err();
        assert!(
            front.seen().iter().filter(|s| s.path.starts_with("/v2/?")).all(|s| s.header("authorization").is_none())
        );
    }
    let front = FaultServer::start("", |_| to(302, "http://169.254.169.254/latest".to_string()));
    let registry = Registry::with_settings(keychain(&front.host(), BASIC), Vec::new(), settings());
    let error = registry.ensure_readable(&name(&front.host(), "app")).unwrap_err().to_string();
    assert!(error.contains("a private address"), "{error}");
}

//! Basic authentication of a real registry, and tokens.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use acceptance::{
    fault::{FaultServer, Reply, Seen},
    registry::{Options, RegistryServer},
};
use image::{
    Digest, Error, Registry,
    registry::{Proxies, Settings},
};
use serde_json::json;

use super::{BASIC, blob, client, keychain, name, noise, push, read_all, settings, stream};

#[test]
fn basic_authentication() {
    let server = RegistryServer::start(&Options { users: &[("user", "secret")], ..Options::default() });
    let app = name(&server.host(), "app:v1");
    let known = Registry::with_settings(keychain(&server.host(), BASIC), Vec::new(), settings());
    push(&known, &app, &[noise(1, 2 << 20)]);
    assert!(known.find(&app).unwrap().is_some());

    let wrong = keychain(&server.host(), "Basic dXNlcjp3cm9uZw==");
    for keychain in [image::Keychain::default(), wrong] {
        let stranger = Registry::with_settings(keychain, Vec::new(), settings());
        for error in [stranger.ensure_readable(&app), stranger.ensure_writable(&app)].map(Result::unwrap_err) {
            assert!(matches!(error, Error::Unauthorized(_)), "{error}");
            assert!(error.to_string().contains("401") && error.to_string().contains("UNAUTHORIZED"), "{error}");
            assert!(!error.to_string().contains("dXNlc") && !error.to_string().contains("wrong"), "{error}");
        }
        assert!(stranger.find(&app).unwrap().is_none(), "401 with an error body: there is no such image");
    }
}

/// A registry that wants tokens: each is good for the scopes it was asked for, and for so many requests.
fn token_registry(behind: &str, uses: usize) -> (Arc<FaultServer>, Arc<Mutex<Vec<Seen>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let issued: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let host = Arc::new(Mutex::new(String::new()));
    let (log, address) = (asked.clone(), host.clone());
    let server = FaultServer::start(behind, move |seen| {
        let host = address.lock().unwrap().clone();
        if seen.path.starts_with("/token") {
            log.lock().unwrap().push(seen.clone());
            let mut issued = issued.lock().unwrap();
            let token = format!("token-{}", issued.len());
            issued.push((seen.path.clone(), uses));
            let body = json!({ "token": token, "expires_in": 300 }).to_string();
            return Reply::Answer(200, vec![("Content-Type", "application/json".into())], body.into_bytes());
        }
        let number = seen.header("authorization").and_then(|a| a.strip_prefix("Bearer token-")?.parse::<usize>().ok());
        let mut issued = issued.lock().unwrap();
        let token = number.and_then(|n| issued.get_mut(n));
        let repository = seen.path.trim_start_matches("/v2/").split('/').next().unwrap();
        let writes = !matches!(seen.method.as_str(), "GET" | "HEAD");
        let scope = format!("scope=repository:{repository}:{}", if writes { "push,pull" } else { "" });
        match token {
            Some((path, left)) if *left > 0 && path.contains(&scope) => {
                *left -= 1;
                Reply::Forward
            }
            _ => {
                let challenge = format!("Bearer realm=\"http://{host}/token?x=1\",service=\"the registry\"");
                let body = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "a token, please" }] });
                Reply::Answer(401, vec![("WWW-Authenticate", challenge)], body.to_string().into_bytes())
            }
        }
    });
    *host.lock().unwrap() = server.host();
    (Arc::new(server), asked)
}

#[test]
fn tokens_are_asked_for_once_per_scope() {
    let behind = RegistryServer::plain();
    let (server, asked) = token_registry(&behind.host(), usize::MAX);
    let registry = Registry::with_settings(keychain(&server.host(), BASIC), Vec::new(), settings());
    let layer = noise(2, 2 << 20);
    let base = name(&server.host(), "base:v1");
    push(&registry, &base, std::slice::from_ref(&layer));
    registry.find(&base).unwrap().expect("the image");
    let app = name(&server.host(), "app:v1");
    registry.ensure_writable(&app).unwrap();
    registry.ensure_blob(&app, &blob(&base, &layer)).unwrap();

    let paths: Vec<String> = asked.lock().unwrap().iter().map(|s| s.path.clone()).collect();
    let service = "/token?x=1&service=the%20registry";
    assert_eq!(
        paths,
        [
            format!("{service}&scope=repository:base:push,pull"),
            format!("{service}&scope=repository:app:push,pull"),
            format!("{service}&scope=repository:app:push,pull&scope=repository:base:pull"),
        ]
    );
    assert!(asked.lock().unwrap().iter().all(|s| s.header("authorization") == Some(BASIC)));
    assert_eq!(server.count("POST", "mount="), 1);
    let leaked = server.seen().iter().any(|s| s.path.starts_with("/v2") && s.header("authorization") == Some(BASIC));
    assert!(!leaked, "the password is for the token server only");
}

#[test]
fn an_expired_token_is_renewed_in_the_middle() {
    let behind = RegistryServer::plain();
    // Every token serves twice: POST and PATCH, say, then the PUT is refused.
    let (server, asked) = token_registry(&behind.host(), 2);
    let registry = Registry::with_settings(keychain(&server.host(), BASIC), Vec::new(), settings());
    let app = name(&server.host(), "app:v1");
    let layers = [noise(3, 2 << 20), noise(4, 3 << 20), noise(5, 100)];
    push(&registry, &app, &layers);
    assert!(registry.find(&app).unwrap().is_some());
    for layer in &layers {
        assert!(read_all(&registry, &app, &blob(&app, layer)).unwrap() == *layer);
    }
    assert!(asked.lock().unwrap().len() > 5);
}

#[test]
fn identity_tokens_are_exchanged_and_bearer_tokens_sent_as_they_are() {
    let behind = RegistryServer::plain();
    let (server, asked) = token_registry(&behind.host(), usize::MAX);
    let keys = keychain(&server.host(), "X-Identity an/id");
    let registry = Registry::with_settings(keys, Vec::new(), settings());
    registry.ensure_readable(&name(&server.host(), "app:v1")).unwrap_err();
    let seen = server.seen().into_iter().find(|s| s.method == "POST").expect("an exchange");
    let form = String::from_utf8(seen.body.clone()).unwrap();
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=an/id"), "{form}");
    assert!(form.contains("scope=repository:app:pull") && form.contains("service=the%20registry"), "{form}");
    assert_eq!(seen.header("authorization"), None);

    asked.lock().unwrap().clear();
    let registry = Registry::with_settings(keychain(&server.host(), "Bearer as-it-is"), Vec::new(), settings());
    registry.ensure_readable(&name(&server.host(), "app:v1")).unwrap_err();
    assert!(asked.lock().unwrap().is_empty());
    assert!(server.seen().iter().any(|s| s.header("authorization") == Some("Bearer as-it-is")));
}

#[test]
fn credentials_are_not_sent_where_a_registry_redirects_to() {
    let layer = noise(6, 100_000);
    let content = layer.clone();
    let storage = FaultServer::start("", move |_| Reply::Answer(200, Vec::new(), content.clone()));
    let server = RegistryServer::start(&Options { users: &[("user", "secret")], ..Options::default() });
    let target = format!("http://{}/bucket/blob?X-Signature=geheim", storage.host());
    let front = FaultServer::start(&server.host(), move |seen| {
        if seen.path.contains("/blobs/sha256") {
            return Reply::Answer(307, vec![("Location", target.clone())], Vec::new());
        }
        Reply::Forward
    });
    let registry = Registry::with_settings(keychain(&front.host(), BASIC), Vec::new(), settings());
    let app = name(&front.host(), "app:v1");
    assert!(read_all(&registry, &app, &blob(&app, &layer)).unwrap() == layer);
    let seen = storage.seen();
    assert_eq!((seen.len(), seen[0].header("authorization")), (1, None));
    assert_eq!(front.seen().last().unwrap().header("authorization"), Some(BASIC));

    let error = read_all(&registry, &app, &blob(&app, &noise(7, 100_000))).unwrap_err();
    assert!(error.contains("its content has digest"), "{error}");
    assert!(!error.contains("geheim"), "{error}");
}

#[test]
fn a_realm_or_location_in_the_network_we_are_in_is_refused() {
    let server = FaultServer::start("", |seen| match seen.path.as_str() {
        "/v2/" => Reply::Answer(
            401,
            vec![("WWW-Authenticate", "Bearer realm=\"http://169.254.169.254/latest\"".to_string())],
            Vec::new(),
        ),
        _ => Reply::status(500),
    });
    let registry = Registry::with_settings(keychain(&server.host(), BASIC), Vec::new(), settings());
    let error = registry.ensure_readable(&name(&server.host(), "app")).unwrap_err().to_string();
    assert!(error.contains("169.254.169.254") && error.contains("a private address"), "{error}");

    let server = FaultServer::start("", |seen| match seen.path.as_str() {
        "/v2/" => Reply::status(200),
        _ => Reply::Answer(202, vec![("Location", "http://169.254.169.254/upload".to_string())], Vec::new()),
    });
    let registry = Registry::with_settings(keychain(&server.host(), BASIC), Vec::new(), settings());
    let error = registry.ensure_writable(&name(&server.host(), "app")).unwrap_err().to_string();
    assert!(error.contains("169.254.169.254") && error.contains("a private address"), "{error}");
}

/// The first content goes where the registry says, and so does what is sent later.
#[test]
fn nor_are_they_places_to_go_on_to() {
    let elsewhere = "http://169.254.169.254/upload";
    for (what, patch, range) in [
        ("to finish an upload", Reply::Answer(202, vec![("Location", elsewhere.to_string())], Vec::new()), "0-9"),
        ("to go on with one", Reply::ResetAfter(9), "0-9"),
        ("there is more than can be", Reply::ResetAfter(9), "0-18446744073709551615"),
    ] {
        let server = FaultServer::start("", move |seen| match seen.method.as_str() {
            "GET" if seen.path == "/v2/" => Reply::status(200),
            "GET" => {
                let headers = vec![("Location", elsewhere.to_string()), ("Range", range.to_string())];
                Reply::Answer(204, headers, Vec::new())
            }
            "POST" => Reply::Answer(202, vec![("Location", "/up/1".to_string())], Vec::new()),
            "PATCH" => patch.clone(),
            _ => Reply::status(400),
        });
        let settings = Settings { connect_timeout: Duration::from_secs(2), ..settings() };
        let registry = Registry::with_settings(keychain(&server.host(), BASIC), Vec::new(), settings);
        let bytes = noise(8, 2 << 20);
        let error = registry.upload_stream(&name(&server.host(), "app"), &mut || stream(&bytes)).unwrap_err();
        assert!(!error.to_string().contains("T http://169.254.169.254"), "{what}: {error}");
    }
}

#[test]
fn a_location_may_be_relative_and_keeps_its_query() {
    let uploads = Arc::new(AtomicUsize::new(0));
    let count = uploads.clone();
    let bytes = noise(8, 2 << 20);
    let digest = Digest::of(&bytes);
    let server = FaultServer::start("", move |seen| match seen.method.as_str() {
        "GET" => Reply::status(200),
        "HEAD" => Reply::status(404),
        "POST" => Reply::Answer(202, vec![("Location", "/elsewhere/7?state=a%3Db".to_string())], Vec::new()),
        "PATCH" if seen.path == "/elsewhere/7?state=a%3Db" => {
            Reply::Answer(202, vec![("Location", "8?state=c".to_string())], Vec::new())
        }
        "PUT" if seen.path.starts_with("/elsewhere/8?state=c&digest=sha256:") => {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::status(201)
        }
        _ => Reply::status(400),
    });
    let registry = Registry::with_settings(keychain(&server.host(), BASIC), Vec::new(), settings());
    let (found, size) = registry.upload_stream(&name(&server.host(), "app"), &mut || stream(&bytes)).unwrap();
    assert_eq!((found, size), (digest, 2 << 20));
    assert_eq!(uploads.load(Ordering::SeqCst), 1);
    assert!(server.seen().iter().any(|s| s.method == "PATCH" && s.body == bytes));
}

/// Registries may hide from strangers what they have: only the ping tells that there is more to be seen.
#[test]
fn without_credentials_a_ping_follows_what_the_first_request_did_not_get() {
    let behind = RegistryServer::plain();
    let app = name(&behind.host(), "app:v1");
    push(&client(), &app, &[noise(9, 10)]);
    let (tokens, asked) = token_registry(&behind.host(), usize::MAX);
    let hidden = tokens.host();
    let front = FaultServer::start(&hidden, |seen| {
        let known = seen.path == "/v2/" || seen.header("authorization").is_some();
        if known { Reply::Forward } else { Reply::status(404) }
    });
    let registry = client();
    assert!(registry.find(&name(&front.host(), "app:v1")).unwrap().is_some(), "{:#?}", front.seen());
    assert_eq!((front.count("GET", "/v2/app/manifests/v1"), asked.lock().unwrap().len()), (2, 1));
    assert!(registry.find(&name(&front.host(), "none:v1")).unwrap().is_none());
    assert_eq!(front.seen().iter().filter(|seen| seen.path == "/v2/").count(), 1);

    // A challenge at once is all that is needed.
    let (tokens, asked) = token_registry(&behind.host(), usize::MAX);
    let registry = client();
    assert!(registry.find(&name(&tokens.host(), "app:v1")).unwrap().is_some());
    assert_eq!((tokens.count("GET", "/v2/app/manifests/v1"), asked.lock().unwrap().len()), (2, 1));
    assert_eq!(tokens.seen().iter().filter(|seen| seen.path == "/v2/").count(), 0);
}

/// As the reference and docker's client do: a password is for every registry that wants no tokens.
#[test]
fn a_password_is_sent_where_nothing_is_asked_for() {
    let behind = RegistryServer::plain();
    push(&client(), &name(&behind.host(), "app:v1"), &[noise(10, 10)]);
    let asks = |text: &'static str| Reply::Answer(401, vec![("WWW-Authenticate", text.to_string())], Vec::new());
    for (what, ping, hidden) in [
        ("an open ping, 404 for strangers", Reply::status(200), Reply::status(404)),
        ("an open ping, 403 for strangers", Reply::status(200), Reply::status(403)),
        ("an open ping, 401 for strangers", Reply::status(200), Reply::status(401)),
        ("no challenge", Reply::status(401), Reply::status(401)),
        ("a challenge nobody can meet", asks("Negotiate"), asks("Negotiate")),
        ("two in one line", asks("Negotiate, Basic realm=\"x\""), asks("Negotiate, Basic realm=\"x\"")),
    ] {
        let front = FaultServer::start(&behind.host(), move |seen| match seen.header("authorization") {
            _ if seen.path == "/v2/" => ping.clone(),
            Some(BASIC) => Reply::Forward,
            _ => hidden.clone(),
        });
        let registry = Registry::with_settings(keychain(&front.host(), BASIC), Vec::new(), settings());
        let found = registry.find(&name(&front.host(), "app:v1"));
        assert!(matches!(found, Ok(Some(_))), "{what}: {found:?}");
        registry.ensure_writable(&name(&front.host(), "other:v1")).unwrap();
    }
}

/// `host`, `host:80` and `HOST` are one registry that speaks plain HTTP; `host:8080` is another one.
#[test]
fn a_location_with_the_usual_port_keeps_the_credentials() {
    let behind = RegistryServer::plain();
    for (registry, location, ours) in [
        ("registry.example.invalid", "registry.example.invalid:80", true),
        ("registry.example.invalid:80", "registry.example.invalid", true),
        ("registry.example.invalid", "Registry.Example.Invalid", true),
        ("registry.example.invalid", "registry.example.invalid:8080", false),
    ] {
        // A proxy leads to every port of every host.
        let proxy = FaultServer::start(&behind.host(), move |seen| match seen.method.as_str() {
            "CONNECT" => Reply::Tunnel,
            "GET" if seen.path.ends_with("/v2/") => Reply::status(200),
            _ if seen.path.ends_with("/uploads/") => {
                Reply::Answer(202, vec![("Location", format!("http://{location}/v2/app/up/1"))], Vec::new())
            }
            _ if seen.header("authorization") == Some(BASIC) => Reply::status(201),
            _ => Reply::status(401),
        });
        let url = format!("http://{}", proxy.host());
        let proxies = Proxies::new(|name| name.eq_ignore_ascii_case("http_proxy").then(|| url.clone()));
        let limits = Settings { proxies, delays: Vec::new(), ..settings() };
        let client = Registry::with_settings(keychain(registry, BASIC), vec![registry.to_string()], limits);
        let sent = client.upload_bytes(&name(registry, "app"), b"content");
        assert_eq!(sent.is_ok(), ours, "{registry} {location}: {sent:?}");
    }
}

/// A registry that wants tokens, and its token server's answers to POST and to GET.
fn with_token_server(behind: &str, post: Reply, get: Reply) -> FaultServer {
    let host = Arc::new(Mutex::new(String::new()));
    let address = host.clone();
    let server = FaultServer::start(behind, move |seen| match (seen.path.as_str(), seen.method.as_str()) {
        (path, "POST") if path.starts_with("/token") => post.clone(),
        (path, _) if path.starts_with("/token") => get.clone(),
        _ if seen.header("authorization") == Some("Bearer good") => Reply::Forward,
        _ => {
            let challenge = format!("Bearer realm=\"http://{}/token\"", address.lock().unwrap());
            Reply::Answer(401, vec![("WWW-Authenticate", challenge)], Vec::new())
        }
    });
    *host.lock().unwrap() = server.host();
    server
}

#[test]
fn what_a_token_server_may_answer() {
    let behind = RegistryServer::plain();
    push(&client(), &name(&behind.host(), "app:v1"), &[noise(12, 10)]);
    let answer = |body: &str| Reply::Answer(200, Vec::new(), body.as_bytes().to_vec());
    let good = answer(r#"{"token": "good"}"#);
    let none = Reply::status(404);
    for (what, header, post, get, found) in [
        ("the name of OAuth counts", BASIC, none.clone(), answer(r#"{"token": "x", "access_token": "good"}"#), true),
        ("an empty one does not", BASIC, none.clone(), answer(r#"{"token": "good", "access_token": ""}"#), true),
        (
            "a life without end",
            BASIC,
            none.clone(),
            answer(r#"{"token": "good", "expires_in": 18446744073709551615}"#),
            true,
        ),
        ("tokens are not exchanged", "X-Identity id", none.clone(), good.clone(), true),
        ("POST is unknown", "X-Identity id", Reply::status(405), good.clone(), true),
        ("the exchange is refused", "X-Identity id", Reply::status(401), good, false),
        ("there is no token server", BASIC, none.clone(), none.clone(), false),
        ("nor one for strangers", "", none.clone(), none, false),
    ] {
        let server = with_token_server(&behind.host(), post, get);
        let keys = if header.is_empty() { image::Keychain::default() } else { keychain(&server.host(), header) };
        let registry = Registry::with_settings(keys, Vec::new(), settings());
        match registry.find(&name(&server.host(), "app:v1")) {
            Ok(image) => assert!(found && image.is_some(), "{what}: not found"),
            Err(error) => assert!(!found && error.to_string().contains("/token: 40"), "{what}: {error}"),
        }
    }
}

/// Registries that keep images of others under names of theirs, say, ask for a scope of their own.
#[test]
fn the_scope_that_the_registry_names_is_asked_for_first() {
    let behind = RegistryServer::plain();
    let host = Arc::new(Mutex::new(String::new()));
    let address = host.clone();
    let front = FaultServer::start(&behind.host(), move |seen| {
        if let Some(query) = seen.path.strip_prefix("/token?") {
            let first = query.split('&').find_map(|part| part.strip_prefix("scope=")).unwrap_or_default();
            return Reply::Answer(200, Vec::new(), json!({ "token": first }).to_string().into_bytes());
        }
        let action = if matches!(seen.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
        let scope = format!("repository:proxy/app:{action}");
        if seen.header("authorization") == Some(&format!("Bearer {scope}")) {
            return Reply::Forward;
        }
        let named = if seen.path == "/v2/" { "registry:catalog:*".to_string() } else { scope };
        let challenge = format!("Bearer realm=\"http://{}/token\",scope=\"{named}\"", address.lock().unwrap());
        Reply::Answer(401, vec![("WWW-Authenticate", challenge)], Vec::new())
    });
    *host.lock().unwrap() = front.host();
    for keys in [image::Keychain::default(), keychain(&front.host(), BASIC)] {
        let registry = Registry::with_settings(keys, Vec::new(), settings());
        let app = name(&front.host(), "app:v1");
        push(&registry, &app, &[noise(13, 2 << 20), noise(14, 2 << 20)]);
        assert!(registry.find(&app).unwrap().is_some());
    }
    assert!(front.count("GET", "/token") <= 6, "{:#?}", front.seen());
    assert_eq!(front.count("GET", "catalog"), 0, "what a ping is asked for is no scope of an image");
}

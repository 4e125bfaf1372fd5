//! Registries that are reached through a proxy.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
};

use acceptance::{
    fault::{FaultServer, Reply},
    registry::RegistryServer,
};
use image::{
    Keychain, Registry,
    registry::{Proxies, Settings},
};

use super::{client, name, noise, push, settings};

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

//! TLS with a certificate of a private authority. What is trusted comes from the process's environment, so the body
//! of a test runs in a process of its own.

use std::process::Command;

use acceptance::registry::{Options, RegistryServer};
use image::{Keychain, Registry};

use super::{name, noise, push, settings};

/// Not a test by itself: what the tests below run, on the registry and with the prefixes their environment names.
#[test]
#[ignore = "run by the others, in an environment of its own"]
fn body() {
    let host = std::env::var("TEST_REGISTRY").unwrap();
    let insecure = std::env::var("TEST_INSECURE").unwrap_or_default();
    let registry = Registry::with_settings(Keychain::default(), vec![insecure], settings());
    let app = name(&host, "app:v1");
    if let Err(error) = registry.ensure_writable(&app) {
        println!("failed: {error}");
        return;
    }
    push(&registry, &app, &[noise(1, 2 << 20)]);
    assert!(registry.find(&app).unwrap().is_some());
    println!("pushed");
}

fn run(host: &str, vars: &[(&str, String)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls::body", "--ignored", "--nocapture"])
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR")
        .env("TEST_REGISTRY", host)
        .envs(vars.iter().map(|(n, v)| (*n, v)))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn authorities_come_from_file_or_directory_or_do_not_count() {
    let server = RegistryServer::start(&Options { tls: true, ..Options::default() });
    let host = server.host();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(server.authority(), dir.path().join("ours.pem")).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let file = server.authority().display().to_string();
    let directories = format!("{}:{}", empty.path().display(), dir.path().display());
    let own = server.authority().with_file_name("server.pem").display().to_string();
    for (what, vars, works) in [
        ("SSL_CERT_FILE", vec![("SSL_CERT_FILE", file)], true),
        ("SSL_CERT_DIR", vec![("SSL_CERT_DIR", directories)], true),
        ("the server's certificate", vec![("SSL_CERT_FILE", own)], true),
        ("insecure", vec![("TEST_INSECURE", host.clone())], true),
        ("a prefix of another registry", vec![("TEST_INSECURE", format!("{host}0"))], false),
        ("nothing", vec![], false),
    ] {
        let said = run(&host, &vars);
        assert_eq!(said.contains("pushed"), works, "{what}: {said}");
        if !works {
            assert!(said.contains(&format!("https://{host}/v2/")), "{what}: {said}");
            let told = "certificate of 127.0.0.1 is signed by 'CN=test-authority', which is not trusted";
            assert!(said.contains("SSL_CERT_FILE") && said.contains(told), "{what}: {said}");
        }
    }
}

//! Networks of companies: a private authority, a proxy, a mirror of the run image, and no network at all.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

mod image_world;
mod platform_root;

use std::{
    env, fs,
    process::{Command, Stdio},
};

use acceptance::{
    fault::{FaultServer, Reply},
    image::LayoutImage,
    registry::{Options, RegistryServer},
    run::{Outcome, as_root, may_differ, run},
    tree::Entry::File,
};
use platform_root::{Rights, Root};

const BUILD: &str = r#"mkdir -p "$1/dep"; echo dep >"$1/dep/file"
printf '[types]\nlaunch = true\n' >"$1/dep.toml"
printf '[[processes]]\ntype = "web"\ncommand = "cat"\nargs = ["main.txt"]\ndirect = true\ndefault = true\n' >"$1/launch.toml""#;

/// A registry that only a company's own name server knows.
const CORPORATE: &str = "registry.corp.example:5000";

fn root(tls: bool) -> Option<Root> {
    let root = Root::new(&Options { users: &[], tls })?;
    root.builder(BUILD);
    Some(root)
}

/// A build of a fresh app by creator, which may reach the registry or not.
fn create(root: &Root, environment: &[(&str, &str)], flags: &[&str], image: &str) -> Outcome {
    root.fresh_volumes();
    root.write(&[("workspace/main.txt", File("hello"))]);
    root.give_volumes();
    let mut variables = vec![("CNB_PLATFORM_API", "0.13"), ("HOME", "/builder/home")];
    variables.extend(environment);
    run(&mut root.call(Rights::User, "creator", &variables, &[flags, &[image]].concat()))
}

#[test]
fn a_private_authority_is_given_in_any_usual_way() {
    let Some(root) = root(true) else { return };
    let (host, app) = (root.world.host.clone(), root.world.name("app:1"));
    let authority = fs::read_to_string(root.world.registry.authority()).unwrap();
    let docker = format!("etc/docker/certs.d/{host}/ca.crt");
    let ways: [(&str, &[(&str, &str)]); 5] = [
        ("certificates/ca.pem", &[("SSL_CERT_FILE", "/certificates/ca.pem")]),
        ("certificates/ca.pem", &[("SSL_CERT_DIR", "/certificates")]),
        ("certificates/ca.pem", &[("SSL_CERT_DIR", "/nowhere:/certificates")]),
        ("etc/ssl/certs/ca-certificates.crt", &[]),
        (&docker, &[]),
    ];
    for (path, variables) in ways {
        if path == docker && may_differ("that Docker's directory of authorities is read, too, is ours") {
            continue;
        }
        root.write(&[(path, File(&authority))]);
        create(&root, variables, &[], &app).ok();
        assert!(root.world.is_whole("app:1"));
        root.world.remove(&format!("root/{path}"));
    }
    let refused = create(&root, &[], &[], &app);
    assert_ne!(refused.code(), 0, "{}", refused.all());
}

#[test]
fn a_wrong_authority_is_an_error_that_says_what_to_do() {
    let Some(root) = root(true) else { return };
    let other = RegistryServer::start(&Options { users: &[], tls: true });
    root.write(&[("certificates/ca.pem", File(&fs::read_to_string(other.authority()).unwrap()))]);
    let trusted: [&[(&str, &str)]; 2] = [&[("SSL_CERT_FILE", "/certificates/ca.pem")], &[]];
    for variables in trusted {
        let outcome = create(&root, variables, &[], &root.world.name("app:1"));
        assert_ne!(outcome.code(), 0, "{}", outcome.all());
        // The reference says no more than that no run image is accessible.
        if !may_differ("the words are ours") {
            let outcome = outcome.says(&format!("https://{}/v2/", root.world.host));
            let outcome = outcome
                .says("the certificate of 127.0.0.1 is signed by 'CN=test-authority', which is not trusted")
                .says("SSL_CERT_FILE or SSL_CERT_DIR");
            // As after a renewal of the authority: the same name, another key.
            assert_eq!(
                outcome.all().contains("the trusted authority of this name has another key"),
                !variables.is_empty()
            );
        }
    }
}

/// A proxy as most are: a tunnel for TLS, and for plain HTTP an answer of its own.
fn proxy_to(registry: &RegistryServer) -> FaultServer {
    FaultServer::start(&registry.host(), |seen| match &*seen.method {
        "CONNECT" => Reply::Tunnel,
        _ if seen.path.starts_with("http://") => Reply::Forward,
        _ => Reply::status(400),
    })
}

#[test]
fn a_registry_behind_a_proxy() {
    for tls in [true, false] {
        if !tls && may_differ("it looks for run images as if no registry were insecure") {
            return;
        }
        let Some(mut root) = root(tls) else { return };
        let proxy = proxy_to(&root.world.registry);
        root.world.host = CORPORATE.into();
        root.builder(BUILD);
        let url = format!("http://user:secret@{}", proxy.host());
        root.write(&[(
            "platform/ca.pem",
            File(&fs::read_to_string(root.world.registry.authority()).unwrap_or_default()),
        )]);
        let authority = root.read("platform/ca.pem");
        root.write(&[("certificates/ca.pem", File(&authority))]);
        let trust = ("SSL_CERT_FILE", "/certificates/ca.pem");
        let insecure: &[&str] = if tls { &[] } else { &["-insecure-registry", CORPORATE] };
        // The two schemes have a variable each, in either case. Whether there is TLS is asked by HTTPS.
        let both = [("http_proxy", &*url), ("HTTPS_PROXY", &url), trust];
        let created = create(&root, &both, insecure, &root.world.name("app:1"));
        assert_eq!(created.code(), 0, "TLS: {tls}: {}\n{:?}", created.all(), proxy.seen());
        assert!(root.world.is_whole("app:1"));
        let (connects, all) = (proxy.count("CONNECT", CORPORATE), proxy.seen());
        assert!(connects > 0);
        assert_eq!(connects == all.len(), tls, "requests of plain HTTP need no tunnel");
        assert!(all.iter().all(|seen| seen.header("proxy-authorization") == Some("Basic dXNlcjpzZWNyZXQ=")));
    }
}

#[test]
fn what_no_proxy_names_is_looked_for_directly() {
    let Some(mut root) = root(false) else { return };
    let proxy = proxy_to(&root.world.registry);
    root.world.host = CORPORATE.into();
    // Known, so that nobody waits for a name server; but nobody is there.
    root.write(&[("etc/hosts", File("127.0.0.2 registry.corp.example\n"))]);
    let url = format!("http://user:secret@{}", proxy.host());
    for excepted in [".corp.example", "other.example, registry.corp.example:5000"] {
        let variables =
            [("CNB_PLATFORM_API", "0.13"), ("HTTP_PROXY", &url), ("https_proxy", &url), ("NO_PROXY", excepted)];
        let insecure = format!("-insecure-registry={CORPORATE}");
        let outcome =
            run(&mut root.call(Rights::User, "analyzer", &variables, &[&insecure, &root.world.name("app:1")]));
        assert_ne!(outcome.code(), 0, "nobody is there: {}", outcome.all());
        assert_eq!(proxy.seen().len(), 0, "{excepted}");
        assert!(!outcome.all().contains("secret"), "{}", outcome.all());
    }
}

#[test]
fn this_machine_is_reached_without_the_proxy() {
    let Some(root) = root(false) else { return };
    let proxy = FaultServer::start(&root.world.host, |_| Reply::status(502));
    let url = format!("http://{}", proxy.host());
    create(&root, &[("HTTP_PROXY", &url), ("HTTPS_PROXY", &url)], &[], &root.world.name("app:1")).ok();
    assert_eq!(proxy.seen().len(), 0);
}

/// Runs the ignored test of this name in a network namespace where this machine is all there is. False, with the
/// reason printed, where none can be made.
fn without_network(test: &str) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["-n", "ip", "link", "set", "lo", "up"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !as_root() || !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs unshare, ip and the right to make network namespaces");
        return false;
    }
    let mut again = Command::new("unshare");
    again.args(["-n", "sh", "-ec", "ip link set lo up; exec \"$@\"", "sh"]).arg(env::current_exe().unwrap());
    let outcome = run(again.args(["--exact", test, "--ignored", "--nocapture"])).ok();
    assert!(outcome.stdout().contains("1 passed"), "{}", outcome.all());
    true
}

#[test]
fn a_build_without_a_network() {
    without_network("offline_with_a_registry_on_this_machine");
    without_network("offline_with_layouts_only");
}

#[test]
#[ignore = "run in an empty network namespace by another test"]
fn offline_with_a_registry_on_this_machine() {
    let root = root(false).unwrap();
    // The names are those of the world outside; the company's copy is a mirror, of the registry that is built for.
    let run_toml = format!(
        "[[images]]\nimage = \"docker.io/acme/run:1\"\nmirrors = [\"ghcr.example/acme/run:1\", \"{}\"]\n",
        root.world.name("run:latest")
    );
    root.write(&[("cnb/run.toml", File(&run_toml))]);
    for adding in [true, false] {
        let outcome = create(&root, &[], &["-cache-dir", "/cache"], &root.world.name("app:1")).ok();
        assert_eq!(outcome.all().contains("Adding layer 'acme/jvm:dep'"), adding, "{}", outcome.all());
    }
    let label = root.world.image("app:1").label_json("io.buildpacks.lifecycle.metadata").unwrap();
    assert_eq!(label["runImage"]["image"], "docker.io/acme/run:1");
}

#[test]
#[ignore = "run in an empty network namespace by another test"]
fn offline_with_layouts_only() {
    let root = root(false).unwrap();
    // Where a layout of this name is expected; its blobs are links into the registry's storage.
    let base = root.world.image("run:latest").dir;
    let at = root.path("layout/registry.test/run/latest");
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    run(Command::new("cp").arg("-rL").arg(&base).arg(&at)).ok();
    acceptance::tree::give_to(&root.path("layout"), image_world::USER, image_world::USER);
    let layout = ["-layout", "-layout-dir=/layout", "-run-image=registry.test/run:latest"];
    let quiet = [("CNB_EXPERIMENTAL_MODE", "quiet")];
    create(&root, &quiet, &layout, "registry.test/app:1").ok();
    let app = LayoutImage::open(&root.path("layout/registry.test/app/1"));
    app.validate();
    assert_eq!(app.config["config"]["Entrypoint"], serde_json::json!(["/cnb/process/web"]));
}

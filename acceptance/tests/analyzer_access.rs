//! analyzer, from outside: which run image is taken, what must be readable and writable, and with which credentials.
//! platform.md "Run Image Resolution", "analyzer", "Registry Authentication".
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;

use std::process::Command;

use acceptance::{
    fault::{FaultServer, Reply},
    registry::{Options, RegistryServer},
    run::{PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::File,
};
use image_world::{RUN_FILES, World, run_image, storage};
use serde_json::json;

const USERS: Options<'static> = Options { users: &[("user", "secret")], tls: false };
/// `user:secret`
const BASIC: &str = "dXNlcjpzZWNyZXQ=";

/// The run image that analyzer took, without tag and digest.
fn taken(world: &World) -> String {
    let analyzed = world.toml("layers/analyzed.toml");
    analyzed["run-image"]["reference"].as_str().unwrap().split('@').next().unwrap().to_owned()
}

#[test]
fn the_mirror_of_the_output_registry_is_preferred() {
    let world = World::new();
    let other = RegistryServer::plain();
    storage::push(&other.storage(), "run:latest", &run_image(), RUN_FILES);
    let theirs = format!("{}/run", other.host());
    let ours = world.name("run");
    for api in PLATFORM_APIS {
        for (images, expected) in [
            (&[&theirs, &ours], &ours),
            (&[&ours, &theirs], &ours),
            // None is there: the first that can be read.
            (&[&theirs, &theirs], &theirs),
        ] {
            world.run_images(&images.map(Clone::clone));
            run(&mut world.analyzer(api, "app")).ok();
            assert_eq!(&taken(&world), expected, "{api} {images:?}");
        }
        // Named by the platform, there is no choice.
        world.run_images(std::slice::from_ref(&ours));
        run(world.call("analyzer", api).args(["-run-image", &theirs]).arg(world.name("app"))).ok();
        assert_eq!(taken(&world), theirs, "{api}");
        run(world.call("analyzer", api).env("CNB_RUN_IMAGE", &theirs).arg(world.name("app"))).ok();
        assert_eq!(taken(&world), theirs, "{api}");
    }
}

#[test]
fn an_image_that_may_not_be_read_is_passed_over() {
    let world = World::new();
    let closed = RegistryServer::start(&USERS);
    let theirs = format!("{}/run", closed.host());
    world.run_images(&[theirs.clone(), world.name("run")]);
    // The output is elsewhere, so that no registry is preferred.
    for api in ["0.7", "0.11", "0.12", "0.15"] {
        run(&mut world.analyzer(api, "app")).ok();
        assert_eq!(taken(&world), world.name("run"), "{api}");
        world.run_images(std::slice::from_ref(&theirs));
        run(&mut world.analyzer(api, "app")).exits(3).says("failed to find accessible run image");
        world.run_images(&[theirs.clone(), world.name("run")]);
    }
}

#[test]
fn an_image_that_is_not_there_is_passed_over() {
    let world = World::new();
    world.run_images(&[world.name("missing"), world.name("run")]);
    if may_differ("any answer but 401 and 403 counts as access there, so a missing image is taken") {
        return;
    }
    run(&mut world.analyzer("0.12", "app")).ok();
    assert_eq!(taken(&world), world.name("run"));
}

#[test]
fn what_run_images_there_are_matters_only_where_none_is_given() {
    let world = World::new();
    world.write(&[("cnb/run.toml", File("no toml")), ("cnb/stack.toml", File("no toml"))]);
    for api in PLATFORM_APIS {
        run(&mut world.analyzer(api, "app")).exits(3).says("failed to resolve inputs: failed to read ");
        run(world.call("analyzer", api).args(["-run-image", &world.name("run")]).arg(world.name("app"))).ok();
    }
}

#[test]
fn without_run_image_there_is_no_build() {
    let world = World::new();
    for api in PLATFORM_APIS {
        for text in [Some(""), None] {
            world.remove("cnb/run.toml");
            world.remove("cnb/stack.toml");
            if let Some(text) = text {
                world.write(&[("cnb/run.toml", File(text)), ("cnb/stack.toml", File(text))]);
            }
            let outcome = run(&mut world.analyzer(api, "app")).exits(3);
            outcome.says(if at_least(api, "0.12") {
                "-run-image is required when there is no run metadata available"
            } else {
                "missing run image metadata (-run-image)"
            });
        }
    }
}

/// Answers 403 to what would begin an upload to one of these repositories.
fn read_only(behind: &str, repository: &'static str) -> FaultServer {
    FaultServer::start(behind, move |seen| {
        if seen.is("POST", &format!("/v2/{repository}/blobs/uploads")) { Reply::status(403) } else { Reply::Forward }
    })
}

#[test]
fn outputs_must_be_writable_before_anything_is_built() {
    for repository in ["app", "tagged", "cache"] {
        let mut world = World::new();
        let front = read_only(&world.host, repository);
        world.host = front.host();
        world.run_images(&[world.name("run")]);
        for api in ["0.7", "0.12", "0.15"] {
            let mut call = world.call("analyzer", api);
            call.args(["-tag", &world.name("tagged:v1"), "-cache-image", &world.name("cache")]).arg(world.name("app"));
            run(&mut call)
                .exits(32)
                .says("validating registry write access")
                .says(&format!("failed to ensure registry read/write access to {}", world.name(repository)));
            assert!(!world.exists("layers/analyzed.toml"));
        }
    }
}

#[test]
fn checks_leave_no_uploads_and_no_images_behind() {
    let world = World::new();
    let before = world.blobs();
    let mut call = world.call("analyzer", "0.12");
    run(call.args(["-tag", &world.name("tagged"), "-cache-image", &world.name("cache")]).arg(world.name("app"))).ok();
    assert_eq!(world.blobs(), before);
    for name in ["app:latest", "tagged:latest", "cache:latest"] {
        assert_eq!(world.digest(name), None, "{name}");
    }
}

#[test]
fn inputs_must_be_readable() {
    let world = World::new();
    let closed = RegistryServer::start(&USERS);
    let previous = format!("{}/app:v1", closed.host());
    for api in ["0.7", "0.12", "0.15"] {
        let mut call = world.call("analyzer", api);
        run(call.args(["-previous-image", &previous]).arg(world.name("app")))
            .exits(32)
            .says("validating registry read access")
            .says(&format!("failed to ensure registry read access to {previous}"));
    }
}

/// What a row is about, its variables, and whether the registry lets them in.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

#[test]
fn credentials_come_from_the_variable_or_from_dockers_config() {
    let world = World::with(&USERS);
    let auths = |field: &str| json!({"auths": {&world.host: {field: BASIC}}}).to_string();
    let helper = json!({"credHelpers": {&world.host: "test"}}).to_string();
    let apart = json!({"auths": {&world.host: {"username": "user", "password": "secret"}}}).to_string();
    world.write(&[
        ("home/.docker/config.json", File(&auths("auth"))),
        ("config/config.json", File(&apart)),
        ("helper/config.json", File(&helper)),
        (
            "bin/docker-credential-test",
            acceptance::tree::Entry::Script(
                "read server; echo \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"user\\\",\\\"Secret\\\":\
                 \\\"secret\\\"}\"",
            ),
        ),
        ("nobody/config.json", File("{}")),
    ]);
    let registry_auth = |value: &str| json!({&world.host: value}).to_string();
    let path = |dir: &str| world.text(dir);
    let with_helper = format!("{}:/usr/bin:/bin", path("bin"));
    let rows: &[Row<'_>] = &[
        ("nothing", &[], false),
        ("variable", &[("CNB_REGISTRY_AUTH", &registry_auth(&format!("Basic {BASIC}")))], true),
        ("its scheme in any case", &[("CNB_REGISTRY_AUTH", &registry_auth(&format!("basic {BASIC}")))], true),
        ("wrong password", &[("CNB_REGISTRY_AUTH", &registry_auth("Basic dXNlcjp3cm9uZw=="))], false),
        ("home", &[("HOME", &path("home"))], true),
        ("DOCKER_CONFIG", &[("DOCKER_CONFIG", &path("config"))], true),
        ("DOCKER_CONFIG before home", &[("DOCKER_CONFIG", &path("nobody")), ("HOME", &path("home"))], false),
        ("empty DOCKER_CONFIG is none", &[("DOCKER_CONFIG", ""), ("HOME", &path("home"))], true),
        ("helper", &[("DOCKER_CONFIG", &path("helper")), ("PATH", &with_helper)], true),
        ("variable and home", &[("CNB_REGISTRY_AUTH", "{}"), ("HOME", &path("home"))], true),
    ];
    for (what, environment, good) in rows {
        let mut call: Command = world.analyzer("0.12", "app");
        let outcome = run(call.envs(environment.iter().copied()));
        assert_eq!(outcome.code() == 0, *good, "{what}: {}", outcome.all());
        // No credentials are shown.
        assert!(!outcome.all().contains(BASIC) && !outcome.all().contains("secret"), "{what}: {}", outcome.all());
    }
}

#[test]
fn a_bad_credential_variable_is_an_error() {
    let world = World::new();
    for name in ["analyzer", "exporter", "rebaser", "restorer"] {
        let mut call = world.call(name, "0.12");
        call.env("CNB_REGISTRY_AUTH", "no json").env("CNB_RUN_IMAGE", world.name("run"));
        world.analyzed();
        if name != "restorer" {
            call.arg(world.name("app"));
        }
        let outcome = run(&mut call).says("CNB_REGISTRY_AUTH");
        if name != "rebaser" || !may_differ("its rebaser reads the app image first, and exits with 72") {
            outcome.exits(1).says("failed to resolve keychain");
        }
    }
}

#[test]
fn tls_is_verified_unless_the_registry_is_named_insecure() {
    let world = World::with(&Options { tls: true, ..Options::default() });
    for api in PLATFORM_APIS {
        let call = || {
            let mut call = world.call("analyzer", api);
            call.args(["-run-image", &world.name("run")]);
            call
        };
        let outcome = run(call().arg(world.name("app")));
        assert!(outcome.code() != 0, "{api}: {}", outcome.all());
        let mut known = call();
        known.env("SSL_CERT_FILE", world.registry.authority());
        run(known.arg(world.name("app"))).ok();
        let outcome = run(call().args(["-insecure-registry", &world.host]).arg(world.name("app")));
        if at_least(api, "0.13") {
            // Whether the check for a run image knows of insecure registries, is seen in the exit code.
            outcome.ok();
            run(call().env("CNB_INSECURE_REGISTRIES", format!("other.example,{}", world.host)).arg(world.name("app")))
                .ok();
            let outcome = run(call().args(["-insecure-registry", "other.example"]).arg(world.name("app")));
            assert!(outcome.code() != 0, "{api}: {}", outcome.all());
        } else {
            outcome.exits(2);
        }
    }
}

#[test]
fn passing_failures_of_a_registry_are_tried_again() {
    for status in [429, 500, 502, 503, 504] {
        let mut world = World::new();
        let failed = std::sync::atomic::AtomicBool::new(false);
        let front = FaultServer::start(&world.host, move |seen| {
            let first = seen.path.contains("/manifests/") && !failed.swap(true, std::sync::atomic::Ordering::SeqCst);
            if first { Reply::Answer(status, vec![("Retry-After", "1".into())], Vec::new()) } else { Reply::Forward }
        });
        world.host = front.host();
        run(world.call("analyzer", "0.12").args(["-run-image", &world.name("run:latest")]).arg(world.name("app"))).ok();
        assert_eq!(taken(&world), world.name("run"), "{status}");
    }
}

#[test]
fn a_registry_that_is_not_there_fails_with_its_name() {
    let world = World::new();
    let gone = RegistryServer::plain().host();
    let mut call = world.call("analyzer", "0.12");
    let outcome = run(call.args(["-run-image", &world.name("run")]).arg(format!("{gone}/app")));
    assert!(outcome.code() == 32 && outcome.all().contains(&gone), "{}: {}", outcome.code(), outcome.all());
}

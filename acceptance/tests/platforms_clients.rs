//! What other programs make of an exported image: skopeo inspects and copies it, umoci unpacks it, runc runs its
//! entrypoint. Each test says what it skips where a program is not installed.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

mod image_world;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use acceptance::{
    run::{as_root, executable, may_differ, run},
    tree::{Entry::File, give_to},
};
use image_world::{METADATA, World, run_image, storage};
use serde_json::{Value, json};
use sha2::Digest;

const MIXED: &str = "it types new layers as docker's in an OCI manifest, which skopeo cannot convert nor umoci unpack";

fn installed(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            eprintln!("skipped: needs {program}");
        }
        found.is_ok()
    })
}

/// A gzipped tar of one program and what it needs to run, and its diff ID.
fn base_layer(programs: &[&Path]) -> (Vec<u8>, String) {
    let mut tar = tar::Builder::new(Vec::new());
    for program in programs {
        tar.append_path_with_name(program, program.strip_prefix("/").unwrap()).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    let diff_id = format!("sha256:{:x}", sha2::Sha256::digest(&bytes));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).unwrap();
    (gzip.finish().unwrap(), diff_id)
}

/// An app image with the launcher under test; `None` without the program that it runs.
fn app() -> Option<World> {
    let busybox = PathBuf::from("/bin/busybox");
    if !busybox.is_file() {
        eprintln!("skipped: needs /bin/busybox (Debian package busybox-static)");
        return None;
    }
    let world = World::new();
    // Debian's busybox has a path of its own where /bin is a link to /usr/bin.
    let busybox = busybox.canonicalize().unwrap();
    storage::push_layers(
        &world.registry.storage(),
        "run:latest",
        &run_image_of_one_layer(),
        &[base_layer(&[&busybox])],
    );
    world.analyzed();
    world.layer("jdk", "launch = true", Some(&[("env/GREETING", File("hello from the layer"))]));
    let command = format!("[{:?}, \"sh\", \"-c\", \"echo $GREETING; cat main.txt; id -u\"]", busybox.to_str().unwrap());
    let metadata = METADATA.replace("[\"/bin/true\"]", &command).replace("args = [\"a\"]\n", "");
    world.write(&[("layers/config/metadata.toml", File(&metadata))]);
    let mut call = world.call("exporter", "0.12");
    call.arg("-launcher").arg(executable("launcher")).args(["app:v1", "app:v2"].map(|n| world.name(n)));
    run(&mut call).ok();
    Some(world)
}

fn run_image_of_one_layer() -> Value {
    let mut config = run_image();
    config["history"] = json!([{"created_by": "base"}]);
    config
}

fn skopeo(args: &[&str]) -> String {
    run(Command::new("skopeo").args(args)).ok().stdout()
}

#[test]
fn skopeo_inspects_and_copies_it() {
    if !installed(&["skopeo"]) {
        return;
    }
    let Some(world) = app() else { return };
    let name = format!("docker://{}", world.name("app:v1"));
    let seen: Value = serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", &name])).unwrap();
    assert_eq!(seen["Digest"].as_str(), world.digest("app:v1").as_deref());
    assert_eq!(seen["Architecture"], "amd64");
    assert_eq!(seen["Labels"]["io.buildpacks.stack.id"], "stack.one");
    assert_eq!(seen["RepoTags"], json!(["v1", "v2"]));
    let config: Value = serde_json::from_str(&skopeo(&["inspect", "--config", "--tls-verify=false", &name])).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["/cnb/process/web"]));
    // It checks every digest on the way.
    for to in [format!("oci:{}:v1", world.text("copy")), format!("dir:{}", world.text("copy-dir"))] {
        skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &name, &to]);
    }
    let index: Value = serde_json::from_str(&world.read("copy/index.json")).unwrap();
    assert_eq!(index["manifests"][0]["digest"].as_str(), world.digest("app:v1").as_deref());
    if may_differ(MIXED) {
        return;
    }
    // As docker's own format, whose media types are others.
    let docker = format!("docker-archive:{}:app:v1", world.text("copy.tar"));
    skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &name, &docker]);
}

#[test]
fn umoci_unpacks_it_and_its_entrypoint_runs() {
    if !as_root() || !installed(&["skopeo", "umoci"]) {
        return;
    }
    if may_differ(MIXED) {
        return;
    }
    let Some(world) = app() else { return };
    let name = format!("docker://{}", world.name("app:v1"));
    let copy = world.text("copy");
    skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &name, &format!("oci:{copy}:v1")]);
    let bundle = world.text("bundle");
    run(Command::new("umoci").args(["unpack", "--image", &format!("{copy}:v1"), &bundle])).ok();
    let rootfs = world.path("bundle/rootfs");
    let in_rootfs = |path: PathBuf| rootfs.join(path.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(in_rootfs(world.path("app/main.txt"))).unwrap(), "hello");
    let launcher = rootfs.join("cnb/lifecycle/launcher");
    assert_eq!(fs::metadata(&launcher).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read(&launcher).unwrap(), fs::read(executable("launcher")).unwrap());
    let config: Value = serde_json::from_str(&world.read("bundle/config.json")).unwrap();
    assert_eq!(config["process"]["args"], json!(["/cnb/process/web"]));
    assert_eq!(config["process"]["user"]["uid"], 1000);
    if is_dynamic(&launcher) {
        eprintln!("skipped: the launcher under test is linked dynamically, the image has no libraries");
        return;
    }
    let said = run_process(&world, config);
    assert_eq!(said, "hello from the layer\nhello1000\n");
}

/// Whether an executable names a program interpreter: a program header of type 3, in a 64-bit little-endian ELF file.
fn is_dynamic(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    let number = |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|n| number(offset + n * size, 4) == 3)
}

/// Starts the bundle's process with runc, or where that cannot make containers, in a changed root.
fn run_process(world: &World, mut config: Value) -> String {
    config["process"]["terminal"] = json!(false);
    world.write(&[("bundle/config.json", File(&config.to_string()))]);
    let id = format!("acceptance-{}", std::process::id());
    let state = world.text("runc");
    let mut runc = Command::new("runc");
    runc.args(["--root", &state, "run", "--bundle", &world.text("bundle"), &id]);
    if installed(&["runc"]) {
        let outcome = run(&mut runc);
        if outcome.code() == 0 {
            return outcome.stdout();
        }
        eprintln!("runc makes no containers here, so without one: {}", outcome.stderr());
    }
    let mut call = Command::new("chroot");
    call.arg("--userspec=1000:1000").arg(world.path("bundle/rootfs")).arg("/cnb/process/web").env_clear();
    for variable in config["process"]["env"].as_array().unwrap() {
        let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
        call.env(name, value);
    }
    give_to(&world.path("home"), 1000, 1000);
    run(&mut call).ok().stdout()
}

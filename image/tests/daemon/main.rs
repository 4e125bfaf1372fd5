//! Images in a daemon: the one of this machine, podman where it is installed, and one that is played, for what those
//! two do not do. What is made in them is removed again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests; they say what they leave out"
)]

mod played;
mod privileges;
mod real;

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use image::{Config, Daemon, Digest, History, Image, Images, Layer, Recipe};
use tempfile::TempDir;

const DOCKER: &str = "unix:///var/run/docker.sock";
/// Tells a test in a process of its own how the names of its images begin.
const PREFIX: &str = "IMAGE_TEST_PREFIX";

/// An engine that is there, and the images that a test makes in it.
struct Engine {
    host: String,
    prefix: String,
    service: Option<(Child, TempDir)>,
}

impl Engine {
    /// dockerd; `None`, said on stderr, where it does not run.
    fn docker() -> Option<Self> {
        Self::at(std::env::var("DOCKER_HOST").unwrap_or_else(|_| DOCKER.to_owned()), None)
    }

    /// A service of podman's own, with a storage of its own.
    fn podman() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name).display().to_string();
        let host = format!("unix://{}", in_dir("sock"));
        let service = Command::new("podman")
            .args(["--root", &in_dir("root"), "--runroot", &in_dir("run"), "--storage-driver", "vfs"])
            .args(["system", "service", "--time", "0", &host])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(service) = service else {
            eprintln!("left out: podman is not installed");
            return None;
        };
        // There is no other sign of its being ready than that it answers.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(in_dir("sock")).is_err() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        Self::at(host, Some((service, dir)))
    }

    fn at(host: String, service: Option<(Child, TempDir)>) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = std::env::var(PREFIX).unwrap_or_else(|_| format!("image-test/{}-{number}", std::process::id()));
        let engine = Self { host, prefix, service };
        let answers = engine.docker_command().args(["version"]).output().is_ok_and(|o| o.status.success());
        if !answers {
            eprintln!("left out: no daemon answers at {} (or there is no docker command)", engine.host);
        }
        answers.then_some(engine)
    }

    fn docker_command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.docker_command().args(args).output().unwrap();
        succeeded(&output, args);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn daemon(&self) -> Daemon {
        daemon_at(&self.host)
    }

    fn images(&self) -> Images {
        Images::Daemon(self.daemon())
    }

    /// A base image: busybox and one more file, with an environment.
    fn base(&self, name: &str, file: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::copy("/bin/busybox", dir.path().join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", dir.path().join("bin/sh")).unwrap();
        std::fs::write(dir.path().join("base"), file).unwrap();
        let tar = dir.path().with_extension("tar");
        let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.path()).arg(".").status().unwrap();
        assert!(packed.success());
        let name = self.name(name);
        // What is made on it inherits the label, by which all is found again when it has no name any more.
        let label = format!("LABEL image-test={}", self.prefix);
        self.run(&["import", "--change", "ENV FROM_BASE=yes", "--change", &label, &tar.display().to_string(), &name]);
        std::fs::remove_file(tar).unwrap();
        name
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some((mut service, dir)) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
            drop(dir);
            return;
        }
        let label = format!("label=image-test={}", self.prefix);
        let ours = self.run(&["images", "--quiet", "--filter", &label]);
        let ours: std::collections::BTreeSet<&str> = ours.lines().collect();
        if !ours.is_empty() {
            let _ = self.docker_command().args(["rmi", "-f"]).args(ours).output();
        }
    }
}

fn succeeded(output: &Output, args: &[&str]) {
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn daemon_at(host: &str) -> Daemon {
    Daemon::open(&|name: &str| (name == "DOCKER_HOST").then(|| host.to_owned())).unwrap()
}

/// A directory as a layer.
fn layer(dir: &Path, files: &[(&str, &[u8])]) -> Layer {
    std::fs::create_dir_all(dir).unwrap();
    let mut recipe = Recipe::default();
    for (name, content) in files {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        recipe.push_file(&format!("/{name}"), &path, 0o644, image::Owner::default()).unwrap();
    }
    let mut tar = Vec::new();
    recipe.write_to(&mut tar).unwrap();
    Layer { diff_id: Digest::of(&tar), blob: None, recipe: Some(recipe) }
}

/// The layer without what it can be made from: whoever saves it must have it from elsewhere.
fn only_known(layer: &Layer) -> Layer {
    Layer { recipe: None, ..layer.clone() }
}

/// An image to be, on another.
fn on(base: &Image, layers: &[Layer]) -> Image {
    let mut image = Image { id: None, ..base.clone() };
    for (n, layer) in layers.iter().enumerate() {
        let created_by = Some(format!("layer {n}"));
        image.push(layer.clone(), History { created_by, ..History::default() });
    }
    image.stamp("1980-01-01T00:00:01Z");
    image.config.cmd = vec!["/bin/sh".to_owned()];
    image
}

fn find(images: &Images, name: &str) -> Image {
    images.find(name).unwrap().unwrap_or_else(|| panic!("{name} is not there"))
}

/// Saves, and wants it to work under every name.
fn save(images: &Images, image: &Image, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let saved = images.save(image, &names).unwrap();
    for (result, name) in saved.names.iter().zip(&names) {
        assert_eq!(&result.name, name);
        assert!(result.error.is_none(), "{:?}", result.error);
    }
    saved.id.unwrap().to_string()
}

fn config_digest(config: &Config) -> String {
    Digest::of(&config.to_json()).hex().to_owned()
}

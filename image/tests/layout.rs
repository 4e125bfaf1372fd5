//! Images in layout directories.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use common::{OWNER, run, tar_of, to_layout, tree};
use image::{
    Blob, BlobSource, Config, Digest, Error, History, Image, ImageId, Images, Layer, Layout, Recipe, Reference,
};

fn layer(made: image::LayerResult) -> Layer {
    Layer { diff_id: made.diff_id, blob: made.blob, recipe: None }
}

fn history(text: &str) -> History {
    History { created_by: Some(text.to_owned()), ..History::default() }
}

/// An image of one layer, saved under a name.
fn base(layout: &Layout, name: &str, temp: &Path) -> Image {
    tree(temp);
    let recipe = Recipe::dir(&temp.join("app"), OWNER).unwrap();
    let made = run(2, vec![to_layout("app", recipe, &layout.path_of(name).unwrap())]).unwrap().remove(0);
    let config = Config { os: "linux".to_owned(), architecture: arch().to_owned(), ..Config::default() };
    let mut image = Image { config, ..Image::default() };
    image.push(layer(made), history("base"));
    image.stamp("1980-01-01T00:00:01Z");
    image
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn save(images: &Images, image: &Image, names: &[&str]) -> image::Saved {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let saved = images.save(image, &names).unwrap();
    for name in &saved.names {
        assert!(name.error.is_none(), "{name:?}");
    }
    saved
}

fn blobs(dir: &Path) -> usize {
    dir.join("blobs/sha256").read_dir().unwrap().count()
}

#[test]
fn names_and_paths() {
    let layout = Layout { dir: PathBuf::from("/layout-dir") };
    let hex = "0".repeat(64);
    for (name, path) in [
        ("busybox", "/layout-dir/index.docker.io/library/busybox/latest".to_owned()),
        ("reg.io:5000/a/b:t", "/layout-dir/reg.io:5000/a/b/t".to_owned()),
        (&format!("reg.io/a@sha256:{hex}"), String::new()),
        (&format!("reg.io/aa@sha256:{hex}"), format!("/layout-dir/reg.io/aa/sha256/{hex}")),
        ("/layout-dir/some/where", "/layout-dir/some/where".to_owned()),
    ] {
        match layout.path_of(name) {
            Ok(found) => assert_eq!(found, Path::new(&path), "{name}"),
            Err(_) => assert!(path.is_empty(), "{name}"),
        }
    }
    assert!(layout.path_of("/layout-dir-2/UPPER").is_err());
}

#[test]
fn what_is_saved_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout { dir: temp.path().join("layouts") };
    let mut image = base(&layout, "reg.io/base", temp.path());
    image.config.set_env("A", "<&>");
    image.config.labels.insert("l".to_owned(), "{\"a\":1}".to_owned());
    image.annotations.insert("kept".to_owned(), "yes".to_owned());
    let images = Images::Layout(layout.clone());
    let saved = save(&images, &image, &["reg.io/base", "reg.io/other:v1"]);
    let found = images.find("reg.io/base").unwrap().unwrap();
    assert_eq!(found.config, image.config);
    assert_eq!(found.annotations, image.annotations);
    assert_eq!(found.layers[0].blob, image.layers[0].blob);
    assert_eq!(found.id, saved.id);
    let id = saved.id.unwrap().to_string();
    assert!(id.starts_with(&format!("{}@sha256:", layout.path_of("reg.io/base").unwrap().display())), "{id}");
    assert!(Layout::open(Path::new(&id)).unwrap().is_some(), "an ID can be opened");

    let other = layout.path_of("reg.io/other:v1").unwrap();
    assert_eq!(blobs(&other), 3, "each name has everything");
    let index = fs::read_to_string(other.join("index.json")).unwrap();
    assert!(index.contains(r#""annotations":{"org.opencontainers.image.ref.name":"v1"}"#), "{index}");

    let mut tar = Vec::new();
    let diff_id = found.layers[0].diff_id.clone();
    images.read_layer(&found, &diff_id).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(Digest::of(&tar), diff_id);
    assert!(images.find("reg.io/nothing").unwrap().is_none());
}

#[test]
fn saving_again_replaces_the_image_and_keeps_what_it_needs() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout { dir: temp.path().join("layouts") };
    let image = base(&layout, "reg.io/app", temp.path());
    let images = Images::Layout(layout.clone());
    save(&images, &image, &["reg.io/app"]);
    let mut next = images.find("reg.io/app").unwrap().unwrap();
    next.config.user = "1000".to_owned();
    save(&images, &next, &["reg.io/app"]);
    let index = fs::read_to_string(layout.path_of("reg.io/app").unwrap().join("index.json")).unwrap();
    assert_eq!(index.matches("sha256:").count(), 1);
    let found = images.find("reg.io/app").unwrap().unwrap();
    assert_eq!(found.config.user, "1000");
    assert!(images.read_layer(&found, &found.layers[0].diff_id).is_ok());
}

#[test]
fn layers_a_sparse_base_lacks_stay_absent() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout { dir: temp.path().join("layouts") };
    let image = base(&layout, "reg.io/base", temp.path());
    let images = Images::Layout(layout.clone());
    save(&images, &image, &["reg.io/base"]);
    let base_dir = layout.path_of("reg.io/base").unwrap();
    fs::remove_file(base_dir.join("blobs/sha256").join(image.layers[0].blob.as_ref().unwrap().digest.hex())).unwrap();

    let mut app = images.find("reg.io/base").unwrap().unwrap();
    let app_dir = layout.path_of("reg.io/app").unwrap();
    let recipe = Recipe::dir(&temp.path().join("app/a"), OWNER).unwrap();
    let expected = Digest::of(&tar_of(&recipe));
    app.push(layer(run(2, vec![to_layout("a", recipe, &app_dir)]).unwrap().remove(0)), history("a"));
    save(&images, &app, &["reg.io/app"]);
    assert_eq!(blobs(&app_dir), 3, "manifest, config, the new layer");
    let found = images.find("reg.io/app").unwrap().unwrap();
    assert!(matches!(images.read_layer(&found, &found.layers[0].diff_id), Err(Error::NotFound(_))));
    assert!(images.read_layer(&found, &expected).is_ok());
}

#[test]
fn a_plain_tar_is_read_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("l");
    let tar = tar_of(&Recipe::default());
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("blobs/sha256").join(Digest::of(&tar).hex()), &tar).unwrap();
    let mut image = Image::default();
    let blob = Blob {
        digest: Digest::of(&tar),
        size: tar.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        source: BlobSource::Layout(dir),
    };
    image.push(Layer { diff_id: Digest::of(&tar), blob: Some(blob), recipe: None }, History::default());
    let images = Images::Layout(Layout { dir: temp.path().to_owned() });
    let mut back = Vec::new();
    images.read_layer(&image, &Digest::of(&tar)).unwrap().read_to_end(&mut back).unwrap();
    assert_eq!(back, tar);
}

/// The image is chosen by platform, and looked for in indexes within the index.
#[test]
fn an_index_of_several_images() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout { dir: temp.path().join("layouts") };
    let images = Images::Layout(layout.clone());
    let dir = layout.path_of("reg.io/many").unwrap();
    let put = |bytes: &str| {
        let digest = Digest::of(bytes.as_bytes());
        fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        digest
    };
    let mut entries = Vec::new();
    let mut image = base(&layout, "reg.io/many", temp.path());
    for architecture in ["s390x", arch(), "riscv64"] {
        image.config.architecture = architecture.to_owned();
        let Some(ImageId::Layout { digest, .. }) = save(&images, &image, &["reg.io/many"]).id else { panic!() };
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let entry =
            |platform: &str| format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1{platform}}}"#);
        let platform = format!(r#","platform":{{"os":"linux","architecture":"{architecture}"}}"#);
        entries.push((entry(&platform), entry("")));
    }
    let index = |entries: &str| format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
    let with: Vec<&str> = entries.iter().map(|(with, _)| with.as_str()).collect();
    let without: Vec<&str> = entries.iter().map(|(_, without)| without.as_str()).collect();
    let nested = put(&index(&with.join(",")));
    let nested = format!(r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{nested}","size":1}}"#);
    for (entries, found) in [
        (with.join(","), true),
        (without.join(","), true),
        (nested, true),
        (format!("{},{}", with[0], with[2]), false),
        (String::new(), false),
        (with[0].to_owned(), true),
    ] {
        let single = entries == with[0];
        fs::write(dir.join("index.json"), index(&entries)).unwrap();
        let image = images.find("reg.io/many").unwrap();
        assert_eq!(image.is_some(), found, "{entries}");
        if let Some(image) = image.filter(|_| !single) {
            assert_eq!(image.config.architecture, arch());
        }
    }
}

#[test]
fn what_is_not_whole_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout { dir: temp.path().join("layouts") };
    let images = Images::Layout(layout.clone());
    let image = base(&layout, "reg.io/app", temp.path());
    let id = save(&images, &image, &["reg.io/app"]).id.unwrap();
    let ImageId::Layout { path, digest } = id else { panic!() };
    let manifest = path.join("blobs/sha256").join(digest.hex());
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("schemaVersion", "schemaversion")).unwrap();
    assert!(matches!(images.find("reg.io/app"), Err(Error::Corrupt(_))));
    fs::remove_file(&manifest).unwrap();
    assert!(matches!(images.find("reg.io/app"), Err(Error::NotFound(_))));
    fs::write(path.join("index.json"), "{").unwrap();
    assert!(matches!(images.find("reg.io/app"), Err(Error::Corrupt(_))));
}

#[test]
fn history_fits_the_layers() {
    let empty = |text: &str| History { empty_layer: true, ..history(text) };
    for (steps, texts) in [
        (vec![history("a"), empty("ENV"), history("b")], vec![Some("a"), Some("b")]),
        (vec![history("a")], vec![None, None]),
        (vec![history("a"), history("b"), history("c")], vec![None, None]),
        (vec![], vec![None, None]),
    ] {
        let mut image = Image::default();
        image.config.diff_ids = vec![Digest::of(b"a"), Digest::of(b"b")];
        image.config.history = steps;
        image.normalise_history();
        let found: Vec<Option<&str>> = image.config.history.iter().map(|s| s.created_by.as_deref()).collect();
        assert_eq!(found, texts);
    }
}

#[test]
fn ids_are_printed_as_platforms_want_them() {
    let digest = Digest::of(b"");
    let reference = Reference::parse("reg.io/a/b:tag").unwrap().with_digest(&digest);
    for (id, text) in [
        (ImageId::Registry { reference, manifest_size: 1 }, format!("reg.io/a/b@{digest}")),
        (ImageId::Daemon(digest.to_string()), digest.hex().to_owned()),
        (ImageId::Layout { path: "/l/x".into(), digest: digest.clone() }, format!("/l/x@{digest}")),
    ] {
        assert_eq!(id.to_string(), text);
    }
}

/// Other tools read what was written: manifest, config and every layer.
#[test]
fn other_tools_agree() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout { dir: temp.path().join("layouts") };
    let image = base(&layout, "reg.io/app:v1", temp.path());
    save(&Images::Layout(layout.clone()), &image, &["reg.io/app:v1"]);
    let dir = layout.path_of("reg.io/app:v1").unwrap();
    let there = |tool: &str| {
        let found = Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success());
        if !found {
            eprintln!("skipped: {tool} is not installed");
        }
        found
    };
    if there("skopeo") {
        let copy = temp.path().join("copy");
        let args =
            ["copy", "--insecure-policy", &format!("oci:{}:v1", dir.display()), &format!("dir:{}", copy.display())];
        let out = Command::new("skopeo").args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    if there("umoci") {
        let bundle = temp.path().join("bundle");
        let mut command = Command::new("umoci");
        command.args(["unpack", "--image", &format!("{}:v1", dir.display())]);
        if !nix::unistd::Uid::effective().is_root() {
            command.arg("--rootless");
        }
        let out = command.arg(&bundle).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let app = temp.path().join("app");
        let unpacked = bundle.join("rootfs").join(app.strip_prefix("/").unwrap());
        assert!(fs::read(unpacked.join("noise")).unwrap() == fs::read(app.join("noise")).unwrap());
    }
}

//! Whole images made by the pipeline and saved in a real registry.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::Read,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use acceptance::{
    fault::{FaultServer, Reply},
    registry::RegistryServer,
};
use common::{OWNER, noise, run, tar_of, tree};
use image::{
    Config, Destination, Digest, History, Image, Images, Keychain, Layer, LayerJob, LayerResult, Recipe, Reference,
    Registry,
    registry::{Proxies, Settings},
};

fn client() -> Registry {
    let delays = [5, 10, 20].map(Duration::from_millis).to_vec();
    let settings = Settings { delays, proxies: Proxies::default(), ..Settings::default() };
    Registry::with_settings(Keychain::default(), Vec::new(), settings)
}

fn job(registry: &Registry, to: &str, recipe: Recipe) -> LayerJob {
    let to = Destination::Registry(registry.clone(), Reference::parse(to).unwrap());
    LayerJob { to: Some(to), ..common::job("layer", recipe) }
}

fn recipe(dir: &Path) -> Recipe {
    Recipe::dir(dir, OWNER).unwrap()
}

fn image(layers: Vec<LayerResult>) -> Image {
    let config = Config { os: "linux".to_owned(), architecture: "amd64".to_owned(), ..Config::default() };
    let mut image = Image { config, ..Image::default() };
    for made in layers {
        let history = History { created_by: Some("test".to_owned()), ..History::default() };
        image.push(Layer { diff_id: made.diff_id, blob: made.blob, recipe: None }, history);
    }
    image.stamp("1980-01-01T00:00:01Z");
    image
}

#[test]
fn an_image_under_two_tags_and_in_a_second_repository() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let registry = client();
    let name = |rest: &str| format!("{}/{rest}", front.host());
    let recipes = || ["app", "app/a", "app/noise"].map(|part| recipe(&temp.path().join(part)));
    let jobs = recipes().map(|recipe| job(&registry, &name("acme/app"), recipe)).into();
    let image = image(run(2, jobs).unwrap());

    let images = Images::Registry(registry);
    let names = [name("acme/app"), name("acme/app:v1"), name("acme/other")];
    let saved = images.save(&image, &names).unwrap();
    assert!(saved.names.iter().all(|name| name.error.is_none()), "{saved:?}");
    assert_eq!(front.count("PUT", "/manifests/"), 3);

    let fresh = Images::Registry(client());
    for name in &names {
        let found = fresh.find(name).unwrap().unwrap();
        assert_eq!(found.config, image.config);
        for (layer, recipe) in found.layers.iter().zip(recipes()) {
            let mut tar = Vec::new();
            fresh.read_layer(&found, &layer.diff_id).unwrap().read_to_end(&mut tar).unwrap();
            assert!(tar == tar_of(&recipe));
        }
    }
    let first = fresh.find(&names[0]).unwrap().unwrap();
    assert_eq!(first.id, saved.id);

    let again = LayerJob {
        reusable: first.config.diff_ids.clone(),
        ..job(&client(), &names[0], recipe(&temp.path().join("app")))
    };
    let before = front.seen().len();
    assert!(run(2, vec![again]).unwrap().remove(0).reused);
    assert_eq!(front.seen().len(), before, "an unchanged layer costs no request");
}

/// An upload that breaks off reads and compresses the layer anew, to the same bytes.
#[test]
fn a_broken_upload_starts_again() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("large"), noise(12 << 20)).unwrap();
    let server = RegistryServer::plain();
    for broken in [Reply::status(500), Reply::ResetAfter(5 << 20), Reply::ForwardAndHangUp] {
        let faults = AtomicUsize::new(0);
        let front = FaultServer::start(&server.host(), move |seen| {
            let first = seen.is("PATCH", "/blobs/uploads/") && faults.fetch_add(1, Ordering::SeqCst) == 0;
            if first { broken.clone() } else { Reply::Forward }
        });
        let name = format!("{}/acme/app", front.host());
        let made = run(2, vec![job(&client(), &name, recipe(temp.path()))]).unwrap().remove(0);
        let image = image(vec![made.clone()]);
        let images = Images::Registry(client());
        assert!(images.save(&image, &[name]).unwrap().names[0].error.is_none());
        let mut tar = Vec::new();
        images.read_layer(&image, &made.diff_id).unwrap().read_to_end(&mut tar).unwrap();
        assert_eq!(Digest::of(&tar), made.diff_id);
    }
}

/// What cannot be read is said once, with the path, and is not tried again.
#[test]
fn a_file_that_cannot_be_read_ends_the_upload() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a"), noise(4 << 20)).unwrap();
    fs::write(temp.path().join("b"), "gone soon").unwrap();
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let name = format!("{}/acme/app", front.host());
    let recipe = recipe(temp.path());
    fs::remove_file(temp.path().join("b")).unwrap();
    let error = run(2, vec![job(&client(), &name, recipe)]).unwrap_err().to_string();
    assert!(error.starts_with("layer layer: read ") && error.contains("/b: "), "{error}");
    assert!(front.count("POST", "/blobs/uploads/") <= 1);
    assert_eq!(front.count("PUT", "/blobs/uploads/"), 0);
}

/// One compression serves the image and the cache image; the registry mounts the blob from one to the other.
#[test]
fn the_cache_image_gets_the_blob_without_a_second_upload() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("large"), noise(3 << 20)).unwrap();
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let registry = client();
    let cache = Reference::parse(&format!("{}/acme/cache", front.host())).unwrap();
    let app = format!("{}/acme/app", front.host());
    let job = LayerJob {
        cache_to: Some((Destination::Registry(registry.clone(), cache.clone()), Vec::new())),
        ..job(&registry, &app, recipe(temp.path()))
    };
    let made = run(2, vec![job]).unwrap().remove(0);
    assert!(client().has_blob(&cache, &made.blob.unwrap().digest).unwrap());
    assert_eq!(front.count("PATCH", "/acme/"), 1);
}

#[test]
fn one_tag_that_fails_does_not_stop_the_others() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |seen| {
        if seen.is("PUT", "/manifests/bad") { Reply::status(403) } else { Reply::Forward }
    });
    let registry = client();
    let names = ["good", "bad", "fine"].map(|tag| format!("{}/acme/app:{tag}", front.host()));
    let image = image(run(2, vec![job(&registry, &names[0], recipe(&temp.path().join("app/a")))]).unwrap());
    let saved = Images::Registry(registry).save(&image, &names).unwrap();
    let failed: Vec<bool> = saved.names.iter().map(|name| name.error.is_some()).collect();
    assert_eq!(failed, [false, true, false]);
    assert!(saved.id.is_some() && saved.manifest_size.is_some());
    assert!(saved.names[1].error.as_ref().unwrap().to_string().contains("acme/app"));
}

/// What a manifest names is taken to be there, until the registry says that it is not.
#[test]
fn what_a_registry_lost_is_sent_again() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let name = |rest: &str| format!("{}/{rest}", front.host());
    let base = image(run(2, vec![job(&client(), &name("acme/base"), recipe(&temp.path().join("app/a")))]).unwrap());
    let save = |registry: Registry, image: &Image| {
        let saved = Images::Registry(registry).save(image, &[name("acme/app")]).unwrap();
        assert!(saved.names[0].error.is_none(), "{saved:?}");
    };
    save(client(), &base);
    let registry = client();
    let mut next = registry.find(&Reference::parse(&name("acme/app")).unwrap()).unwrap().unwrap();
    next.config.labels.insert("next".to_owned(), "1".to_owned());
    next.layers.clone_from(&base.layers);
    for blob in server.storage().join("docker/registry/v2/repositories/acme/app/_layers/sha256").read_dir().unwrap() {
        fs::remove_dir_all(blob.unwrap().path()).unwrap();
    }
    let before = (front.count("PUT", "/manifests/"), front.count("POST", "mount="));
    save(registry, &next);
    assert!(front.count("PUT", "/manifests/") > before.0 + 1, "refused at first");
    assert_eq!(front.count("POST", "mount="), before.1 + 1, "trusted at first");
    let found = Images::Registry(client()).find(&name("acme/app")).unwrap().unwrap();
    assert_eq!(found.config, next.config);
    assert_eq!(client().missing_blob(&found.layers).unwrap(), None);
}

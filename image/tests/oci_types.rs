//! What we write, read by the types of another implementation of the OCI image specification.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{OWNER, run, to_layout, tree};
use image::{Config, History, Image, Images, Layer, Layout, Recipe};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};

#[test]
fn index_manifest_and_config_are_what_the_specification_says() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let layout = Layout { dir: temp.path().join("images") };
    let dir = layout.path_of("app:1").unwrap();
    let recipe = Recipe::dir(&temp.path().join("app"), OWNER).unwrap();
    let made = run(2, vec![to_layout("app", recipe, &dir)]).unwrap().remove(0);
    let config = Config { os: "linux".to_owned(), architecture: "amd64".to_owned(), ..Config::default() };
    let mut image = Image { config, ..Image::default() };
    let (diff_id, uncompressed) = (made.diff_id.clone(), made.size);
    image.push(
        Layer { diff_id: made.diff_id, blob: made.blob, recipe: None },
        History { created_by: Some("here".to_owned()), ..History::default() },
    );
    image.stamp("1980-01-01T00:00:01Z");
    let saved = Images::Layout(layout).save(&image, &["app:1".to_owned()]).unwrap();
    assert!(saved.names.iter().all(|name| name.error.is_none()));

    let blob = |descriptor: &Descriptor| dir.join("blobs/sha256").join(descriptor.as_digest_sha256().unwrap());
    let index = ImageIndex::from_file(dir.join("index.json")).unwrap();
    let [entry] = index.manifests().as_slice() else { panic!("{index:?}") };
    assert_eq!(entry.media_type(), &MediaType::ImageManifest);
    let manifest = ImageManifest::from_file(blob(entry)).unwrap();
    assert_eq!(manifest.config().media_type(), &MediaType::ImageConfig);
    let [layer] = manifest.layers().as_slice() else { panic!("{manifest:?}") };
    assert_eq!(layer.media_type(), &MediaType::ImageLayerGzip);
    let size = blob(layer).metadata().unwrap().len();
    assert_eq!(layer.size(), size);
    assert!(size < uncompressed);
    let config = ImageConfiguration::from_file(blob(manifest.config())).unwrap();
    assert_eq!(config.rootfs().diff_ids(), &[diff_id.to_string()]);
    assert_eq!(config.history().as_ref().unwrap().len(), 1);
    assert_eq!(config.created().as_deref(), Some("1980-01-01T00:00:01Z"));
}

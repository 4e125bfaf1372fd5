//! A registry without authentication, over plain HTTP.

use acceptance::{
    fault::{FaultServer, Reply},
    registry::RegistryServer,
};
use image::{BlobSource, Digest, Error, ImageId};
use serde_json::json;

use super::{OCI, blob, client, descriptor, name, noise, push, read_all, stream};

#[test]
fn an_image_goes_there_and_comes_back() {
    let server = RegistryServer::plain();
    let app = name(&server.host(), "team/app:v1");
    let layers = [noise(1, 100), noise(2, 3 << 20), Vec::new()];
    let manifest = push(&client(), &app, &layers);

    let registry = client();
    let image = registry.find(&app).unwrap().expect("the image");
    assert_eq!(image.config.label("of"), Some("team/app"));
    assert_eq!(image.annotations["kept"], "yes");
    assert!(!image.docker);
    let Some(ImageId::Registry { reference, manifest_size }) = &image.id else { panic!("{:?}", image.id) };
    assert_eq!(reference.digest, Some(Digest::of(&manifest)));
    assert_eq!(*manifest_size, manifest.len() as u64);
    assert_eq!(registry.missing_blob(&image.layers).unwrap(), None);
    for (layer, bytes) in image.layers.iter().zip(&layers) {
        let found = read_all(&registry, &app, layer.blob.as_ref().unwrap()).unwrap();
        assert!(found == *bytes, "layer {}", layer.diff_id);
    }
    let by_digest = registry.find(reference).unwrap().expect("by digest");
    assert_eq!(by_digest.layers.len(), 3);
}

#[test]
fn what_is_not_there_is_none_and_no_error() {
    let server = RegistryServer::plain();
    let registry = client();
    let app = name(&server.host(), "none/app");
    assert!(registry.find(&app).unwrap().is_none());
    assert!(!registry.has_blob(&app, &Digest::of(b"x")).unwrap());
    registry.ensure_readable(&app).unwrap();
    let error = registry.read_blob(&app, &blob(&app, b"x")).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    let url = format!("http://{}/v2/none/app/blobs/{}: 404", server.host(), Digest::of(b"x"));
    assert!(error.to_string().contains(&url) && error.to_string().contains("BLOB_UNKNOWN"), "{error}");
}

#[test]
fn a_registry_that_does_not_listen_fails_at_once_naming_both_urls() {
    let host = RegistryServer::plain().host();
    let error = client().find(&name(&host, "app")).unwrap_err().to_string();
    assert!(error.contains(&format!("GET https://{host}/v2/")), "{error}");
    assert!(error.contains(&format!("GET http://{host}/v2/")) && error.contains("refused"), "{error}");
    assert!(!error.contains("attempts"), "{error}");
}

#[test]
fn an_index_gives_the_image_of_this_platform() {
    let server = RegistryServer::plain();
    let registry = client();
    let one = push(&registry, &name(&server.host(), "app:one"), &[noise(1, 10)]);
    let two = push(&registry, &name(&server.host(), "app:two"), &[noise(2, 10)]);
    let here = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let of = |bytes: &[u8], os: &str, architecture: &str| {
        let mut d = descriptor(OCI, bytes);
        d["platform"] = json!({ "os": os, "architecture": architecture });
        d
    };
    let index_type = "application/vnd.oci.image.index.v1+json";
    let put = |tag: &str, manifests: Vec<serde_json::Value>| {
        let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": manifests }).to_string();
        registry.put_manifest(&name(&server.host(), &format!("app:{tag}")), index_type, index.as_bytes()).unwrap();
        index
    };
    let found = |tag: &str| {
        let image = client().find(&name(&server.host(), &format!("app:{tag}"))).unwrap();
        image.map(|i| match i.id {
            Some(ImageId::Registry { reference, .. }) => reference.digest.unwrap(),
            other => panic!("{other:?}"),
        })
    };
    put("both", vec![of(&one, "windows", here), of(&two, "linux", here), of(&one, "linux", "s390x")]);
    assert_eq!(found("both"), Some(Digest::of(&two)));
    put("other", vec![of(&one, "linux", "s390x"), of(&two, "unknown", "unknown")]);
    assert_eq!(found("other"), None);
    let inner = put("inner", vec![of(&one, "linux", here)]);
    put("nested", vec![descriptor(index_type, inner.as_bytes())]);
    assert_eq!(found("nested"), Some(Digest::of(&one)));
}

#[test]
fn blobs_are_mounted_copied_or_read_from_a_layout() {
    let (here, there) = (RegistryServer::plain(), RegistryServer::plain());
    let (small, large) = (noise(3, 1000), noise(4, 2 << 20));
    let base = name(&here.host(), "base");
    let app = name(&here.host(), "app");
    let far = name(&there.host(), "app");
    let registry = client();
    for bytes in [&small, &large] {
        registry.upload_stream(&base, &mut || stream(bytes)).unwrap();
        registry.ensure_blob(&app, &blob(&base, bytes)).unwrap();
        registry.ensure_blob(&far, &blob(&base, bytes)).unwrap();
        for repository in [&app, &far] {
            assert!(read_all(&client(), repository, &blob(repository, bytes)).unwrap() == *bytes);
        }
    }

    let layout = tempfile::tempdir().unwrap();
    let bytes = noise(5, 1 << 20);
    let digest = Digest::of(&bytes);
    let path = layout.path().join("blobs/sha256").join(digest.hex());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let mut from_layout = blob(&app, &bytes);
    from_layout.source = BlobSource::Layout(layout.path().to_path_buf());
    registry.ensure_blob(&app, &from_layout).unwrap();
    assert!(client().has_blob(&app, &digest).unwrap());

    std::fs::write(&path, noise(6, 1 << 20)).unwrap();
    let error = registry.ensure_blob(&far, &from_layout).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)) && error.to_string().contains(digest.hex()), "{error}");
    assert!(!client().has_blob(&far, &digest).unwrap());

    let lost = registry.ensure_blob(&app, &blob(&app, b"lost")).unwrap_err();
    assert!(matches!(lost, Error::NotFound(_)), "{lost}");
}

#[test]
fn a_manifest_can_be_deleted() {
    let server = RegistryServer::plain();
    let registry = client();
    let app = name(&server.host(), "app:v1");
    push(&registry, &app, &[noise(8, 10)]);
    registry.delete_manifest(&app).unwrap();
    assert!(client().find(&app).unwrap().is_none());
    assert!(registry.find(&app).unwrap().is_none(), "from memory, too");
    assert!(matches!(registry.delete_manifest(&app).unwrap_err(), Error::NotFound(_)));
}

#[test]
fn a_manifest_whose_blobs_are_missing_is_refused_by_name() {
    let server = RegistryServer::plain();
    let front = FaultServer::start(&server.host(), |_| Reply::Forward);
    let config = descriptor("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI, "config": config, "layers": [] }).to_string();
    let app = name(&front.host(), "app:v1");
    let error = client().put_manifest(&app, OCI, manifest.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("PUT http://") && error.contains("BLOB_UNKNOWN"), "{error}");
    assert_eq!(front.count("PUT", "/manifests/v1"), 3, "the registry is given time to find it");
}

//! The registry client against a real registry, and against a server with faults in front of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod auth;
mod faults;
mod few;
mod moved;
mod plain;
mod proxy;
mod sessions;
mod tls;
mod uploads;

use std::{
    io::{self, Read},
    time::Duration,
};

use image::{
    Blob, BlobSource, Digest, Keychain, Reference, Registry, Result,
    registry::{Proxies, Settings, StreamedBlob},
};
use serde_json::{Value, json};

/// Four attempts, short pauses, no proxy.
fn settings() -> Settings {
    Settings {
        delays: [5, 10, 20].map(Duration::from_millis).to_vec(),
        proxies: Proxies::default(),
        ..Settings::default()
    }
}

fn client() -> Registry {
    Registry::with_settings(Keychain::default(), Vec::new(), settings())
}

fn keychain(host: &str, header: &str) -> Keychain {
    let auth = json!({ host: header }).to_string();
    Keychain::resolve(Some(&auth), &[], &|_| None).unwrap()
}

fn name(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

/// Bytes that do not compress and differ from seed to seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Content in memory that is streamed as if its digest were not known.
struct Stream {
    content: io::Cursor<Vec<u8>>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer)
    }
}

impl StreamedBlob for Stream {
    fn finish(&mut self) -> Result<(Digest, u64)> {
        let bytes = self.content.get_ref();
        assert_eq!(self.content.position(), bytes.len() as u64, "asked for the digest before the end");
        Ok((Digest::of(bytes), bytes.len() as u64))
    }
}

#[allow(clippy::unnecessary_wraps, reason = "what an upload's `open` returns")]
fn stream(bytes: &[u8]) -> Result<Box<dyn StreamedBlob>> {
    Ok(Box::new(Stream { content: io::Cursor::new(bytes.to_vec()) }))
}

fn blob(source: &Reference, bytes: &[u8]) -> Blob {
    Blob {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_string(),
        source: BlobSource::Registry(source.clone()),
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

/// `user:secret`
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an image with these layers; its manifest.
fn push(registry: &Registry, name: &Reference, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|l| Digest::of(l)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Labels": { "of": name.repository } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids }
    })
    .to_string();
    for layer in layers {
        registry.upload_stream(name, &mut || stream(layer)).unwrap();
    }
    registry.upload_bytes(name, config.as_bytes()).unwrap();
    let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers: Vec<Value> = layers.iter().map(|l| descriptor(layer_type, l)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": layers, "annotations": { "kept": "yes" }
    })
    .to_string();
    registry.put_manifest(name, OCI, manifest.as_bytes()).unwrap();
    manifest.into_bytes()
}

fn read_all(registry: &Registry, repository: &Reference, blob: &Blob) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut reader = registry.read_blob(repository, blob).map_err(|e| e.to_string())?;
    reader.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

//! A daemon that is played: one with containerd's image store, and one that refuses.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use image::{Digest, Images};
use serde_json::{Value, json};

use super::{daemon_at, find, layer, on, save};

/// Method and target of every request; the body of the last that had one.
#[derive(Default)]
pub(super) struct Heard {
    requests: Vec<String>,
    body: Vec<u8>,
}

type Answers = Box<dyn Fn(&str) -> (u16, Vec<u8>) + Send + Sync>;

/// Answers requests by their lines (`GET /v1.50/info`).
fn play(dir: &Path, api: &'static str, answers: Answers) -> (String, Arc<Mutex<Heard>>) {
    let path = dir.join("played.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (log, answers) = (Arc::clone(&heard), Arc::new(answers));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
            thread::spawn(move || talk(&client, api, &log, &answers));
        }
    });
    (format!("unix://{}", path.display()), heard)
}

fn talk(client: &UnixStream, api: &str, log: &Mutex<Heard>, answers: &Answers) -> Option<()> {
    let mut reader = BufReader::new(client);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let request = line.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
        let mut chunked = false;
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok()?;
            chunked |= line.to_ascii_lowercase().starts_with("transfer-encoding: chunked");
        }
        log.lock().unwrap().requests.push(request.clone());
        if chunked {
            log.lock().unwrap().body = read_chunks(&mut reader)?;
        }
        let (status, body) = if request == "GET /_ping" { (200, b"OK".to_vec()) } else { answers(&request) };
        let head = format!("HTTP/1.1 {status} X\r\nApi-Version: {api}\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut out = client;
        out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body)).ok()?;
    }
}

fn read_chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.trim(), 16).ok()?;
        reader.take(size).read_to_end(&mut body).ok()?;
        reader.read_line(&mut line).ok()?;
        if size == 0 {
            return Some(body);
        }
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn untar(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), content);
    }
    files
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// containerd's store has no chains to leave layers out of: every layer must be in the tar, the base's too. They come
/// from the daemon, compressed as it pulled them, and go back as they are.
#[test]
fn containerd_s_store_gets_every_layer() {
    let dir = tempfile::tempdir().unwrap();
    let base_tar = tar(&[("base", b"content of the base")]);
    let base_id = Digest::of(&base_tar);
    let base_blob = gzip(&base_tar);
    let blob_name = format!("blobs/sha256/{}", Digest::of(&base_blob).hex());
    let config = json!({"rootfs": {"diff_ids": [base_id]}}).to_string();
    let config_name = format!("blobs/sha256/{}", Digest::of(config.as_bytes()).hex());
    let manifest = json!([{"Config": config_name, "RepoTags": [], "Layers": [blob_name]}]).to_string();
    let saved_base = tar(&[
        (&blob_name, &base_blob),
        (&config_name, config.as_bytes()),
        ("index.json", b"{}"),
        ("manifest.json", manifest.as_bytes()),
        ("oci-layout", b"{}"),
    ]);
    let inspected = move |id: char, env: &str| {
        let id = format!("sha256:{}", id.to_string().repeat(64));
        let config = json!({"Env": [env]});
        json!({"Id": id, "Os": "linux", "Config": config, "RootFS": {"Layers": [base_id]}}).to_string().into_bytes()
    };
    let answers = move |request: &str| -> (u16, Vec<u8>) {
        let (path, query) = request.split_once('?').unwrap_or((request, ""));
        match path {
            "GET /v1.50/info" => {
                (200, json!({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}).to_string().into())
            }
            "GET /v1.50/images/base/json" if query.starts_with("platform=%7B") => (200, inspected('c', "OF=platform")),
            "GET /v1.50/images/base/json" => (200, inspected('a', "OF=any")),
            "GET /v1.50/images/base/history" => (200, json!([{"CreatedBy": "x"}]).to_string().into()),
            "POST /v1.50/images/load" => (200, br#"{"stream":"Loaded image"}"#.to_vec()),
            "GET /v1.50/images/docker.io/some/app:latest/json" => (200, inspected('b', "")),
            path if path.ends_with("/get") && path.contains(&"a".repeat(64)) => (200, saved_base.clone()),
            path if path.ends_with("/tag") && path.contains(&"b".repeat(64)) => (201, Vec::new()),
            _ => (404, json!({"message": "no such image"}).to_string().into()),
        }
    };
    let (host, heard) = play(dir.path(), "1.50", Box::new(answers));
    let images = Images::Daemon(daemon_at(&host));
    let base = find(&images, "base");
    assert_eq!(base.id.as_ref().unwrap().to_string(), "a".repeat(64), "the ID is that of all platforms");
    assert_eq!(base.config.env, ["OF=platform"]);

    let app = layer(&dir.path().join("app"), &[("f", b"app")]);
    let image = on(&base, std::slice::from_ref(&app));
    let id = save(&images, &image, &["some/app", "some/app:v1"]);
    assert_eq!(id, "b".repeat(64), "which is no config's digest there");
    let heard = heard.lock().unwrap();
    let loaded = untar(&heard.body);
    let manifest: Value = serde_json::from_slice(&loaded["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["docker.io/some/app:latest"]));
    let config = &loaded[manifest[0]["Config"].as_str().unwrap()];
    assert_eq!(*config, image.config.to_json());
    let layer = |n: usize| &loaded[manifest[0]["Layers"][n].as_str().unwrap()];
    assert_eq!(*layer(0), base_blob);
    assert_eq!(Digest::of(layer(1)), app.diff_id);
    let tags: Vec<_> =
        heard.requests.iter().filter_map(|request| request.split_once("/tag?")).map(|(_, q)| q).collect();
    assert_eq!(tags, ["repo=docker.io%2Fsome%2Fapp&tag=latest", "repo=docker.io%2Fsome%2Fapp&tag=v1"]);
    drop(heard);

    let mut read = Vec::new();
    images.read_layer(&base, &base.layers[0].diff_id).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, base_tar, "uncompressed");
}

#[test]
fn errors_name_image_and_cause() {
    let dir = tempfile::tempdir().unwrap();
    let base = json!({"Id": format!("sha256:{}", "a".repeat(64)), "RootFS": {"Layers": []}}).to_string();
    let answers = move |request: &str| -> (u16, Vec<u8>) {
        match request.split(['?', ' ']).nth(1).unwrap_or_default() {
            "/v1.24/images/base/json" => (200, base.clone().into()),
            "/v1.24/images/base/history" => (200, b"[]".to_vec()),
            "/v1.24/images/load" => {
                (200, b"{\"stream\":\"x\"}\r\n{\"errorDetail\":{},\"error\":\"disk full\"}".to_vec())
            }
            "/v1.24/images/secret/json" => (403, br#"{"message":"not for you"}"#.to_vec()),
            "/v1.24/images/broken/json" => (200, b"<html>".to_vec()),
            _ => (500, b"plain text".to_vec()),
        }
    };
    let (host, heard) = play(dir.path(), "", Box::new(answers));
    let images = Images::Daemon(daemon_at(&host));
    let error = |name: &str| images.find(name).unwrap_err().to_string();
    assert_eq!(error("secret"), "image secret: the daemon answers 403: not for you");
    assert_eq!(error("other"), "image other: the daemon answers 500: plain text");
    assert!(error("broken").starts_with("broken: parsing daemon response: "), "{}", error("broken"));

    let image = on(&find(&images, "base"), &[layer(&dir.path().join("l"), &[("f", b"x")])]);
    let saved = images.save(&image, &["a/b".to_owned(), "c/d".to_owned()]).unwrap();
    assert!(saved.id.is_none());
    for result in saved.names {
        let text = "loading image \"docker.io/a/b:latest\". first error: embedded daemon response: disk full";
        assert_eq!(result.error.unwrap().to_string(), text);
    }
    let loads = heard.lock().unwrap().requests.iter().filter(|request| request.contains("/load")).count();
    assert_eq!(loads, 1, "nothing had been left out that could be sent in another attempt");
}

#[test]
fn the_version_is_agreed_on() {
    for (theirs, asked, spoken) in [
        ("1.30", None, "v1.30"),
        ("1.99", None, "v1.51"),
        ("2.0", None, "v1.51"),
        ("", None, "v1.24"),
        ("1.41", Some("1.25"), "v1.25"),
        ("1.41", Some("v1.60"), "v1.60"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (host, heard) = play(dir.path(), theirs, Box::new(|_: &str| (404, Vec::new())));
        let env = |name: &str| match name {
            "DOCKER_HOST" => Some(host.clone()),
            "DOCKER_API_VERSION" => asked.map(str::to_owned),
            _ => None,
        };
        let daemon = image::Daemon::open(&env).unwrap();
        assert!(daemon.find("x").unwrap().is_none());
        let heard = heard.lock().unwrap();
        let versioned = heard.requests.iter().find(|request| request.contains("/images/x/json")).unwrap();
        assert!(versioned.starts_with(&format!("GET /{spoken}/")), "{theirs} {asked:?}: {versioned}");
    }
}

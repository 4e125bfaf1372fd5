//! What real engines take.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use image::{Digest, Images};

use super::{Engine, config_digest, daemon_at, find, layer, on, only_known, save};

/// A socket that leads to the engine's, and how many bytes were sent there.
fn counted(engine: &Engine, dir: &Path) -> (String, Arc<AtomicU64>) {
    let target = engine.host.strip_prefix("unix://").expect("a socket").to_owned();
    let path = dir.join("counted.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, UnixStream::connect(&target)) else { return };
            let (mut client_out, mut server_in) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                io::copy(&mut server_in, &mut client_out).map(|_| client_out.shutdown(Shutdown::Both))
            });
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(n @ 1..) = client.read(&mut buffer) {
                    counter.fetch_add(n as u64, Ordering::Relaxed);
                    if server.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    (format!("unix://{}", path.display()), sent)
}

fn find_and_save(engine: &Engine) {
    let images = engine.images();
    assert!(images.find(&engine.name("nothing")).unwrap().is_none());
    assert!(
        images
            .find("not/there@sha256:0000000000000000000000000000000000000000000000000000000000000000")
            .unwrap()
            .is_none()
    );

    let base_name = engine.base("base", "first");
    let base = find(&images, &base_name);
    let id = engine.run(&["inspect", "--format", "{{.Id}}", &base_name]);
    assert_eq!(base.id.as_ref().unwrap().to_string(), id.trim_start_matches("sha256:"));
    assert_eq!(base.config.env_var("FROM_BASE"), Some("yes"));
    assert_eq!((base.config.os.as_str(), base.layers.len(), base.config.history.len()), ("linux", 1, 1));
    // By its ID, as analyzed.toml has it, too.
    assert_eq!(find(&images, id.trim_start_matches("sha256:")).id, base.id);

    let dir = tempfile::tempdir().unwrap();
    let layers = [
        layer(&dir.path().join("a"), &[("greeting", b"hello"), ("big", &vec![7; 300_000])]),
        layer(&dir.path().join("b"), &[("name", b"world")]),
    ];
    let mut image = on(&base, &layers);
    image.config.labels.insert("test".to_owned(), "<&>".to_owned());
    let (app, tag) = (engine.name("app"), format!("{}:v2", engine.name("other")));
    let saved = save(&images, &image, &[&app, &tag]);
    for name in [&app, &tag] {
        assert_eq!(engine.run(&["inspect", "--format", "{{.Id}}", name]).trim_start_matches("sha256:"), saved);
    }
    let found = find(&images, &app);
    assert_eq!(found.config.diff_ids, image.config.diff_ids);
    assert_eq!(found.config.label("test"), Some("<&>"));
    let created_by: Vec<_> =
        found.config.history.iter().map(|step| step.created_by.as_deref().unwrap_or_default()).collect();
    assert_eq!(created_by[1..], ["layer 0", "layer 1"]);

    let mut read = Vec::new();
    images.read_layer(&found, &layers[1].diff_id).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(Digest::of(&read), layers[1].diff_id);
    assert!(images.read_layer(&found, &Digest::of(b"another")).is_err());

    // Again, without recipes: what is reused is nowhere but in the daemon, and no longer on the layers it was on.
    let previous = find(&images, &app);
    let first = layer(&dir.path().join("c"), &[("greeting", b"bonjour")]);
    let rebuilt = on(&base, &[first, only_known(&previous.layers[2])]);
    save(&images, &rebuilt, &[&app]);
    assert_eq!(find(&images, &app).config.diff_ids, rebuilt.config.diff_ids);

    // On another base.
    let base = find(&images, &engine.base("new-base", "second"));
    let known: Vec<_> = rebuilt.layers[1..].iter().map(only_known).collect();
    let rebased = on(&base, &known);
    save(&images, &rebased, &[&app]);
    assert_eq!(find(&images, &app).config.diff_ids, rebased.config.diff_ids);
}

#[test]
fn dockerd_finds_and_saves() {
    let Some(engine) = Engine::docker() else { return };
    find_and_save(&engine);
    let app = engine.name("app");
    let said =
        engine.run(&["run", "--rm", "--network", "none", &app, "/bin/busybox", "cat", "/greeting", "/name", "/base"]);
    assert_eq!(said, "bonjourworldsecond");
    let id = engine.run(&["inspect", "--format", "{{.Id}}", &app]);
    let images = engine.images();
    let mut image = find(&images, &app);
    // The ID is the config's digest: what we load is what the daemon has.
    image.stamp("1980-01-01T00:00:01Z");
    image.config.labels.insert("again".to_owned(), String::new());
    assert_eq!(save(&images, &image, &[&app]), config_digest(&image.config));
    assert_ne!(id, config_digest(&image.config));
}

#[test]
fn podman_finds_and_saves() {
    let Some(engine) = Engine::podman() else { return };
    find_and_save(&engine);
}

#[test]
fn nothing_is_sent_that_dockerd_has() {
    let Some(engine) = Engine::docker() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (host, sent) = counted(&engine, dir.path());
    let images = Images::Daemon(daemon_at(&host));
    let base = find(&images, &engine.base("base", "counted"));
    let app = engine.name("app");
    let large = layer(&dir.path().join("large"), &[("large", &vec![1; 3_000_000])]);
    let small = layer(&dir.path().join("small"), &[("small", b"1")]);

    let sent_by = |image: &image::Image| {
        let before = sent.load(Ordering::Relaxed);
        save(&images, image, &[&app]);
        sent.load(Ordering::Relaxed) - before
    };
    let first = sent_by(&on(&base, &[large.clone(), small.clone()]));
    assert!((3_000_000..3_100_000).contains(&first), "layers, but not the base: {first}");
    find(&images, &app);
    let changed = layer(&dir.path().join("changed"), &[("small", b"2")]);
    let second = sent_by(&on(&base, &[only_known(&large), changed.clone()]));
    assert!(second < 20_000, "what changed only: {second}");
    // With a layer below it, the large one is another link of the chain.
    let third = sent_by(&on(&base, &[changed, large]));
    assert!((3_000_000..3_100_000).contains(&third), "all above what changed: {third}");
}

#[test]
fn kept_layers_go_before_the_daemon_s() {
    let Some(engine) = Engine::docker() else { return };
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    let base_name = engine.base("base", "kept");
    let (lower, upper) =
        (layer(&dir.path().join("l"), &[("lower", b"lower")]), layer(&dir.path().join("u"), &[("upper", b"upper")]));
    let path = kept.join(format!("{}.tar", upper.diff_id));
    let mut tar = Vec::new();
    upper.recipe.as_ref().unwrap().write_to(&mut tar).unwrap();

    // Only in the directory.
    std::fs::write(&path, &tar).unwrap();
    let images = Images::Daemon(engine.daemon().with_layers(kept));
    let base = find(&images, &base_name);
    let app = engine.name("app");
    save(&images, &on(&base, &[lower.clone(), only_known(&upper)]), &[&app]);
    let cat = |name| engine.run(&["run", "--rm", "--network", "none", &app, "/bin/busybox", "cat", name]);
    assert_eq!(cat("/upper"), "upper");

    // What is not what its name says is as good as not there.
    std::fs::write(&path, b"not the layer").unwrap();
    let unknown = images.save(&on(&base, &[only_known(&upper)]), &[engine.name("none")]).unwrap();
    let error = unknown.names[0].error.as_ref().unwrap().to_string();
    assert!(error.contains("nowhere to be had"), "{error}");
    let previous = find(&images, &app);
    save(&images, &on(&base, &[only_known(&previous.layers[2])]), &[&app]);
    assert_eq!(cat("/upper"), "upper");
    let mut read = Vec::new();
    images.read_layer(&find(&images, &app), &upper.diff_id).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, tar);
}

#[test]
fn what_goes_wrong_is_said_for_each_name() {
    let Some(engine) = Engine::docker() else { return };
    let dir = tempfile::tempdir().unwrap();
    let images = engine.images();
    let base = find(&images, &engine.base("base", "wrong"));
    let (good, bad) = (engine.name("good"), "UPPER case".to_owned());
    let image = on(&base, &[layer(&dir.path().join("l"), &[("f", b"1")])]);
    let saved = images.save(&image, &[good.clone(), bad.clone()]).unwrap();
    assert!(saved.id.is_some());
    assert!(saved.names[0].error.is_none());
    assert!(saved.names[1].error.as_ref().unwrap().to_string().contains(&bad));

    let mut wrong = layer(&dir.path().join("w"), &[("f", b"2")]);
    wrong.diff_id = Digest::of(b"something else");
    let saved = images.save(&on(&base, &[wrong]), &[good.clone(), engine.name("b")]).unwrap();
    assert!(saved.id.is_none());
    for result in &saved.names {
        let error = result.error.as_ref().unwrap().to_string();
        assert!(error.contains("embedded daemon response: invalid diffID for layer 1"), "{error}");
    }
    let gone = layer(&dir.path().join("g"), &[("f", b"3")]);
    std::fs::remove_file(dir.path().join("g/f")).unwrap();
    let saved = images.save(&on(&base, &[gone]), std::slice::from_ref(&good)).unwrap();
    let error = saved.names[0].error.as_ref().unwrap().to_string();
    assert!(error.contains("g/f") && error.contains("No such file"), "{error}");
    // None of it did the connections any harm.
    assert_eq!(find(&images, &good).config.diff_ids, image.config.diff_ids);
}

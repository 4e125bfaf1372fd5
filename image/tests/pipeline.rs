//! Layers made side by side.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::Path,
    sync::Arc,
};

use common::{OWNER, job, noise, run, tar_of, to_layout, tree};
use flate2::read::MultiGzDecoder;
use image::{Destination, Digest, KnownLayers, LayerJob, LayerResult, Recipe, Summing};

fn blob(layout: &Path, made: &LayerResult) -> Vec<u8> {
    fs::read(layout.join("blobs/sha256").join(made.blob.as_ref().unwrap().digest.hex())).unwrap()
}

fn files(dir: &Path) -> BTreeSet<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    dir.read_dir().map_or(BTreeSet::new(), |dir| dir.map(name).collect())
}

#[test]
fn the_same_bytes_whatever_the_number_of_workers() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let names = ["app", "app/a", "app/d", "app/noise", "app/text", "app/empty"];
    let recipe = |name: &str| Recipe::dir(&temp.path().join(name), OWNER).unwrap();
    let mut runs = Vec::new();
    for workers in [1, 2, 8] {
        let layout = temp.path().join(format!("layout-{workers}"));
        let jobs = names.map(|name| to_layout(name, recipe(name), &layout)).into();
        let made = run(workers, jobs).unwrap();
        for (made, name) in made.iter().zip(names) {
            let tar = tar_of(&recipe(name));
            assert_eq!((made.size, &made.diff_id), (tar.len() as u64, &Digest::of(&tar)), "{name}");
            let stored = blob(&layout, made);
            let blob = made.blob.as_ref().unwrap();
            assert_eq!((blob.size, &blob.digest), (stored.len() as u64, &Digest::of(&stored)), "{name}");
            let mut back = Vec::new();
            MultiGzDecoder::new(&stored[..]).read_to_end(&mut back).unwrap();
            assert!(back == tar, "{name}");
            assert!(!made.reused && !made.tar_written);
        }
        assert!(files(&layout.join("blobs/sha256")).iter().all(|name| name.len() == 64), "a temp file is left");
        runs.push(made.into_iter().map(|made| made.blob.unwrap().digest).collect::<Vec<_>>());
    }
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0], runs[2]);
}

#[test]
fn what_can_be_reused_is_neither_compressed_nor_sent() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let layout = temp.path().join("layout");
    let recipe = || Recipe::dir(&temp.path().join("app"), OWNER).unwrap();
    let diff_id = Digest::of(&tar_of(&recipe()));
    let other = Digest::of(b"other");
    let reusing = |ids: &[&Digest]| LayerJob {
        reusable: ids.iter().map(|id| (*id).clone()).collect(),
        ..to_layout("app", recipe(), &layout)
    };
    let made = run(2, vec![reusing(&[&other, &diff_id])]).unwrap().remove(0);
    assert!(made.reused && made.blob.is_none());
    assert_eq!(made.diff_id, diff_id);
    assert!(!layout.exists());

    let made = run(2, vec![reusing(&[&other])]).unwrap().remove(0);
    assert!(!made.reused);
    let fresh = run(2, vec![to_layout("app", recipe(), &temp.path().join("fresh"))]).unwrap().remove(0);
    assert_eq!(made.blob.unwrap().digest, fresh.blob.unwrap().digest, "a kept tar and a read one");
}

#[test]
fn one_blob_serves_image_and_cache() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let (layout, cache) = (temp.path().join("layout"), temp.path().join("cache"));
    let recipe = || Recipe::dir(&temp.path().join("app"), OWNER).unwrap();
    let diff_id = Digest::of(&tar_of(&recipe()));
    let none: Vec<Digest> = Vec::new();
    let has = vec![diff_id.clone()];
    // (reusable, the cache has it) → (in the image's layout, in the cache's)
    for (reusable, cached, in_layout, in_cache) in
        [(&none, &none, true, true), (&none, &has, true, false), (&has, &none, false, true), (&has, &has, false, false)]
    {
        let job = LayerJob {
            reusable: reusable.clone(),
            cache_to: Some((Destination::Layout(cache.clone()), cached.clone())),
            ..to_layout("app", recipe(), &layout)
        };
        let made = run(2, vec![job]).unwrap().remove(0);
        assert_eq!(made.reused, !reusable.is_empty());
        assert_eq!(made.blob.is_some(), in_layout || in_cache);
        assert_eq!(files(&layout.join("blobs/sha256")).len(), usize::from(in_layout));
        assert_eq!(files(&cache.join("blobs/sha256")).len(), usize::from(in_cache));
        let _ = fs::remove_dir_all(&layout);
        let _ = fs::remove_dir_all(&cache);
    }
}

#[test]
fn the_volume_cache_gets_what_it_lacks() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let (staging, committed) = (temp.path().join("staging"), temp.path().join("committed"));
    fs::create_dir_all(&committed).unwrap();
    let recipe = || Recipe::dir(&temp.path().join("app"), OWNER).unwrap();
    let tar = tar_of(&recipe());
    let diff_id = Digest::of(&tar);
    let name = format!("{diff_id}.tar");
    let layout = temp.path().join("layout");
    for to in [None, Some(Destination::Layout(layout))] {
        for reusable in [vec![], vec![diff_id.clone()]] {
            for has in [false, true] {
                if has {
                    fs::write(committed.join(&name), "").unwrap();
                }
                let tar_to = Some((staging.clone(), committed.clone()));
                let (to, reusable) = (to.clone(), reusable.clone());
                let made = run(2, vec![LayerJob { reusable, to, tar_to, ..job("app", recipe()) }]).unwrap().remove(0);
                assert_eq!(made.tar_written, !has);
                if has {
                    assert!(files(&staging).is_empty());
                    fs::remove_file(committed.join(&name)).unwrap();
                } else {
                    assert_eq!(files(&staging), BTreeSet::from([name.clone()]));
                    assert!(fs::read(staging.join(&name)).unwrap() == tar);
                    fs::remove_file(staging.join(&name)).unwrap();
                }
            }
        }
    }
}

#[test]
fn known_layers_are_found_by_their_checksums() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let recipe = || Recipe::dir(&temp.path().join("app"), OWNER).unwrap();
    let layout = temp.path().join("layout");
    let knowing = |diff_id: &Digest| {
        let dir = temp.path().join(diff_id.hex());
        fs::create_dir_all(&dir).unwrap();
        let mut sums = Summing::new();
        sums.add(&tar_of(&recipe()));
        sums.finish().write(&dir.join(format!("{diff_id}.tar"))).unwrap();
        Some(Arc::new(KnownLayers::read(&dir)))
    };
    let (diff_id, another) = (Digest::of(&tar_of(&recipe())), Digest::of(b"another"));
    let layer = |reusable: &Digest, known: &Option<Arc<KnownLayers>>| {
        let _ = fs::remove_dir_all(&layout);
        let job = LayerJob {
            reusable: vec![reusable.clone()],
            known: known.clone(),
            ..to_layout("acme/jvm:jdk", recipe(), &layout)
        };
        run(2, vec![job]).unwrap().remove(0)
    };
    // What is known is believed, even where it would be wrong: no digest was computed.
    for id in [&diff_id, &another] {
        let made = layer(id, &knowing(id));
        assert_eq!((&made.diff_id, made.reused, made.size), (id, true, tar_of(&recipe()).len() as u64));
        assert!(made.blob.is_none() && knowing(id).unwrap().has(id, &made.sums.unwrap()));
    }
    // Of no use: the layer that is known is neither the previous image's nor in the cache.
    let made = layer(&diff_id, &knowing(&another));
    assert_eq!((&made.diff_id, made.reused), (&diff_id, true));
    // Not known, as it changed: it is read once more, compressed, and its checksums are new.
    let before = knowing(&diff_id);
    for (name, content) in [("small", vec![b'x'; 100]), ("large", noise(20 << 20))] {
        fs::write(temp.path().join("app").join(name), content).unwrap();
        let made = layer(&diff_id, &before);
        assert_eq!((&made.diff_id, made.reused), (&Digest::of(&tar_of(&recipe())), false));
        assert!(made.blob.is_some());
        let mut sums = Summing::new();
        sums.add(&tar_of(&recipe()));
        assert_eq!(made.sums, Some(sums.finish()));
    }
}

#[test]
fn the_first_error_ends_the_run_and_nothing_half_made_stays() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    fs::write(temp.path().join("large"), noise(64 << 20)).unwrap();
    fs::write(temp.path().join("gone"), "x").unwrap();
    let gone = Recipe::dir(&temp.path().join("gone"), OWNER).unwrap();
    fs::remove_file(temp.path().join("gone")).unwrap();
    let (layout, staging) = (temp.path().join("layout"), temp.path().join("staging"));
    for workers in [1, 8] {
        let large = || LayerJob {
            tar_to: Some((staging.clone(), temp.path().join("committed"))),
            ..to_layout("acme/large", Recipe::dir(&temp.path().join("large"), OWNER).unwrap(), &layout)
        };
        let jobs = vec![large(), large(), large(), to_layout("acme/gone:x", gone.clone(), &layout), large(), large()];
        let error = run(workers, jobs).unwrap_err().to_string();
        assert!(error.contains("acme/gone:x") && error.contains("/gone"), "{error}");
        for dir in [&layout.join("blobs/sha256"), &staging] {
            assert!(files(dir).iter().all(|name| name.len() >= 64), "{:?}", files(dir));
        }
    }
}

#[test]
fn a_destination_that_cannot_be_written_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    fs::write(temp.path().join("file"), "").unwrap();
    let recipe = Recipe::dir(&temp.path().join("app"), OWNER).unwrap();
    let jobs = (0..6).map(|_| to_layout("app", recipe.clone(), &temp.path().join("file"))).collect();
    let error = run(2, jobs).unwrap_err().to_string();
    assert!(error.contains("/file"), "{error}");
}

#[test]
fn no_job_is_no_work() {
    assert!(run(4, Vec::new()).unwrap().is_empty());
}

/// Two gigabytes of zeros go through in a few megabytes. In a process of its own: the other tests need more.
#[test]
fn memory_does_not_grow_with_the_layer() {
    const DIR: &str = "IMAGE_TEST_SPARSE";
    if let Ok(dir) = std::env::var(DIR) {
        let dir = Path::new(&dir);
        let recipe = Recipe::dir(&dir.join("sparse"), OWNER).unwrap();
        let made = run(4, vec![to_layout("sparse", recipe, &dir.join("layout"))]).unwrap().remove(0);
        assert!(made.size > 2 << 30);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 48 << 10, "{peak} KiB");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    File::create(temp.path().join("sparse")).unwrap().set_len(2 << 30).unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory_does_not_grow_with_the_layer"])
        .env(DIR, temp.path())
        .status();
    assert!(child.unwrap().success());
}

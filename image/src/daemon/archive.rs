//! The tar a daemon loads an image from, and the one it saves an image to: `manifest.json`, a config, and layers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::stored::{Stored, copy};
use crate::{
    Digest, Error, Recipe, Result,
    tar_header::{BLOCK, Header},
};

/// What of a layer goes into the tar.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// Nothing: the daemon has the layer, and all below it.
    Blank,
    Recipe(&'a Recipe),
    Stored(&'a Stored),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Manifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes an image that is to be named `tag`. The connection's own errors come through as any others.
pub(super) fn write(out: &mut dyn Write, config: &[u8], tag: &str, layers: &[(&Digest, Content<'_>)]) -> Result<()> {
    let config_name = format!("{}.json", Digest::of(config).hex());
    document(out, &config_name, config)?;
    let mut names = Vec::with_capacity(layers.len());
    let mut written = BTreeSet::new();
    for (index, (diff_id, content)) in layers.iter().enumerate() {
        let name = match content {
            Content::Blank => format!("blank_{index}"),
            _ => format!("{}.tar", diff_id.hex()),
        };
        if written.insert(name.clone()) {
            layer(out, &name, *content).map_err(|e| Error::Io(format!("layer {diff_id}: {e}")))?;
        }
        names.push(name);
    }
    let manifest = [Manifest { config: config_name, repo_tags: Some(vec![tag.to_owned()]), layers: names }];
    let manifest = serde_json::to_vec(&manifest).map_err(|e| Error::Io(e.to_string()))?;
    document(out, "manifest.json", &manifest)?;
    out.write_all(&[0; 2 * BLOCK]).map_err(|e| Error::Io(e.to_string()))
}

fn header(out: &mut dyn Write, name: &str, size: u64) -> io::Result<()> {
    let mut blocks = Vec::with_capacity(BLOCK);
    Header { name: name.as_bytes(), mode: 0o644, size, ..Header::default() }.write(&mut blocks);
    out.write_all(&blocks)
}

fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let rest = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or_default();
    out.write_all([0; BLOCK].get(..rest).unwrap_or_default())
}

fn document(out: &mut dyn Write, name: &str, bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    let written = header(out, name, size).and_then(|()| out.write_all(bytes)).and_then(|()| pad(out, size));
    written.map_err(|e| Error::Io(e.to_string()))
}

fn layer(out: &mut dyn Write, name: &str, content: Content<'_>) -> io::Result<()> {
    let size = match content {
        Content::Blank => 0,
        Content::Recipe(recipe) => recipe.tar_size()?,
        Content::Stored(stored) => stored.size()?,
    };
    header(out, name, size)?;
    let mut exact = Exact { out, left: size };
    match content {
        Content::Blank => {}
        Content::Recipe(recipe) => recipe.write_to(&mut exact)?,
        Content::Stored(stored) => copy(&mut stored.reader(), &mut exact)?,
    }
    if exact.left > 0 {
        return Err(changed());
    }
    pad(out, size)
}

fn changed() -> io::Error {
    io::Error::other("its files changed while they were read")
}

/// As many bytes as the header promised.
struct Exact<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl Write for Exact<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(changed)?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The wanted layers of a saved image, by diff ID, streamed to files in `dir`. `layers` are all diff IDs of the image:
/// what a name says to be one of the others is not kept.
pub(super) fn read(
    from: &mut dyn Read,
    layers: &[Digest],
    wanted: &BTreeSet<Digest>,
    dir: &Path,
) -> Result<BTreeMap<Digest, Stored>> {
    let mut files = BTreeMap::new();
    let mut links = BTreeMap::new();
    let unwanted: BTreeSet<&str> = layers.iter().filter(|id| !wanted.contains(id)).map(Digest::hex).collect();
    let broken = |e: io::Error| Error::Io(format!("read the saved image: {e}"));
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = clean("", &String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let base = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
            links.insert(name.clone(), clean(base, &String::from_utf8_lossy(&target)));
        } else if kind.is_file() && !is_needless(&name, &unwanted) {
            let size = entry.size();
            files.insert(name, Stored::take(&mut entry, size, dir).map_err(broken)?);
        }
    }
    let manifests: Vec<Manifest> =
        files.get("manifest.json").map_or(Ok(Vec::new()), |f| f.document("manifest.json"))?;
    let [manifest] = manifests.as_slice() else {
        return Err(Error::Corrupt(format!("the saved image has {} manifests", manifests.len())));
    };
    let missing = |name: &str| Error::Corrupt(format!("there is no {name} in the saved image"));
    let config_name = resolve(&manifest.config, &links);
    let config: SavedConfig = files.get(&config_name).ok_or_else(|| missing(&config_name))?.document(&config_name)?;
    let mut found = BTreeMap::new();
    for (diff_id, name) in config.rootfs.diff_ids.into_iter().zip(&manifest.layers) {
        if wanted.contains(&diff_id) && !found.contains_key(&diff_id) {
            let name = resolve(name, &links);
            found.insert(diff_id, files.remove(&name).ok_or_else(|| missing(&name))?);
        }
    }
    Ok(found)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SavedConfig {
    rootfs: SavedRootFs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SavedRootFs {
    diff_ids: Vec<Digest>,
}

/// Legacy files of each layer, and layers that are not wanted where their name says which they are.
fn is_needless(name: &str, unwanted: &BTreeSet<&str>) -> bool {
    let base = name.rsplit_once('/').map_or(name, |(_, base)| base);
    matches!(base, "VERSION" | "json" | "repositories" | "oci-layout" | "index.json")
        || unwanted.contains(base.strip_suffix(".tar").unwrap_or(base))
}

/// A name without `.`, `..` and doubled slashes, below `dir`.
fn clean(dir: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn resolve(name: &str, links: &BTreeMap<String, String>) -> String {
    let mut name = clean("", name);
    for _ in 0..links.len() {
        match links.get(&name) {
            Some(target) => name.clone_from(target),
            None => break,
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: &[u8]) -> Stored {
        Stored::take(&mut &*bytes, bytes.len() as u64, Path::new("/tmp")).unwrap()
    }

    fn config(diff_ids: &[Digest]) -> Vec<u8> {
        format!(r#"{{"rootfs":{{"diff_ids":{}}}}}"#, serde_json::to_string(diff_ids).unwrap()).into_bytes()
    }

    fn text(stored: &Stored) -> String {
        let mut text = String::new();
        stored.reader().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_written_can_be_read() {
        let large = "large".repeat(1 << 15);
        let ids: Vec<Digest> = ["base", "small", &large].iter().map(|text| Digest::of(text.as_bytes())).collect();
        let (small, big) = (stored(b"small"), stored(large.as_bytes()));
        assert!(matches!((&small, &big), (Stored::Bytes(_), Stored::File(_))));
        let layers = [
            (&ids[0], Content::Blank),
            (&ids[1], Content::Stored(&small)),
            (&ids[2], Content::Stored(&big)),
            (&ids[1], Content::Stored(&small)),
        ];
        let all: Vec<Digest> = layers.iter().map(|(id, _)| (*id).clone()).collect();
        let mut tar = Vec::new();
        write(&mut tar, &config(&all), "a.example/b:c", &layers).unwrap();

        let names: Vec<String> = tar::Archive::new(&*tar)
            .entries()
            .unwrap()
            .map(|e| String::from_utf8(e.unwrap().path_bytes().into_owned()).unwrap())
            .collect();
        let config_name = format!("{}.json", Digest::of(&config(&all)).hex());
        let tars: Vec<String> = ids[1..].iter().map(|id| format!("{}.tar", id.hex())).collect();
        assert_eq!(names, [config_name.as_str(), "blank_0", &tars[0], &tars[1], "manifest.json"]);
        let manifest = format!(
            r#"[{{"Config":"{config_name}","RepoTags":["a.example/b:c"],"Layers":["blank_0","{0}","{1}","{0}"]}}]"#,
            tars[0], tars[1]
        );
        assert!(tar.windows(manifest.len()).any(|w| w == manifest.as_bytes()));

        let wanted = BTreeSet::from([ids[1].clone(), ids[2].clone()]);
        let found = read(&mut &*tar, &all, &wanted, Path::new("/tmp")).unwrap();
        assert_eq!(found.iter().map(|(id, s)| (id, text(s))).collect::<Vec<_>>(), {
            let mut expected = vec![(&ids[1], "small".to_owned()), (&ids[2], large.clone())];
            expected.sort();
            expected
        });
        assert!(read(&mut &tar[..2000], &all, &wanted, Path::new("/tmp")).is_err(), "cut");
    }

    #[test]
    fn images_as_old_and_new_engines_save_them() {
        let ids: Vec<Digest> = ["one", "two"].iter().map(|text| Digest::of(text.as_bytes())).collect();
        let all = [ids[0].clone(), ids[1].clone(), ids[0].clone()];
        let old = |dir: &str| format!("{dir}/layer.tar");
        let blob = |id: &Digest| format!("blobs/sha256/{}", id.hex());
        for (config_name, layers, link) in [
            ("c.json".to_owned(), [old("a"), old("b"), old("c")], Some(("c/layer.tar", "../a/layer.tar"))),
            (blob(&ids[0]) + "c", [blob(&ids[0]), blob(&ids[1]), blob(&ids[0])], None),
        ] {
            let mut tar = tar::Builder::new(Vec::new());
            let mut add = |name: &str, bytes: &[u8]| {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, bytes).unwrap();
            };
            add("a/VERSION", b"1.0");
            add(&layers[0], b"one");
            add(&layers[1], b"two");
            add(&config_name, &config(&all));
            let manifest = Manifest { config: config_name.clone(), repo_tags: None, layers: layers.to_vec() };
            add("manifest.json", &serde_json::to_vec(&[manifest]).unwrap());
            if let Some((from, to)) = link {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, from, to).unwrap();
            }
            let tar = tar.into_inner().unwrap();
            for wanted in [vec![&ids[0]], vec![&ids[1]], vec![&ids[0], &ids[1]], vec![]] {
                let wanted: BTreeSet<Digest> = wanted.into_iter().cloned().collect();
                let found = read(&mut &*tar, &all, &wanted, Path::new("/tmp")).unwrap();
                assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), wanted);
                assert!(found.iter().all(|(id, stored)| Digest::of(text(stored).as_bytes()) == *id));
            }
        }
    }

    #[test]
    fn a_layer_that_changes_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "12345").unwrap();
        let mut recipe = Recipe::default();
        recipe.push_file("/f", &file, 0o644, crate::Owner::default()).unwrap();
        let mut whole = Vec::new();
        recipe.write_to(&mut whole).unwrap();
        let mut exact = Exact { out: &mut Vec::new(), left: whole.len() as u64 - 1 };
        assert!(recipe.write_to(&mut exact).unwrap_err().to_string().contains("changed"));
    }

    #[test]
    fn nothing_outside_is_named() {
        for (dir, name, cleaned) in
            [("", "./a//b/", "a/b"), ("a", "../b/c", "b/c"), ("", "/etc/x", "etc/x"), ("a", "../../../x", "x")]
        {
            assert_eq!(clean(dir, name), cleaned);
        }
        let links = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("b".to_owned(), "a".to_owned())]);
        assert!(["a", "b"].contains(&resolve("a", &links).as_str()), "circles end");
    }
}

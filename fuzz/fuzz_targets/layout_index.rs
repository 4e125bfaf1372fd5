#![no_main]
//! An OCI layout: index.json, and below it manifest and config; three documents separated by lines of a single `-`.

use image::{Digest, Layout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let dir = tempfile::tempdir().expect("a directory");
    let blobs = dir.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a directory");
    // The digests of the last documents are put into the first ones, so that what is inside is reached.
    let mut named = Vec::new();
    let mut documents: Vec<&str> = text.splitn(3, "\n-\n").collect();
    documents.reverse();
    for document in documents {
        let document =
            named.iter().rev().enumerate().fold(document.to_owned(), |text, (i, digest): (usize, &String)| {
                text.replace(&format!("@{i}"), digest)
            });
        let digest = Digest::of(document.as_bytes());
        std::fs::write(blobs.join(digest.hex()), &document).expect("a blob");
        std::fs::write(dir.path().join("index.json"), &document).expect("an index");
        named.push(digest.to_string());
    }
    let _ = Layout::open(dir.path());
});

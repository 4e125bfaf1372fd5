#![no_main]
//! Unpacking a layer, by several threads and in order, onto nothing and a second time onto what the first left: nothing
//! changes outside of the directories the layer may write.

use std::{io::Write, path::Path};

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    let outside = dir.path().join("outside");
    for dir in [&root.join("layers"), &outside] {
        std::fs::create_dir_all(dir).expect("a directory");
    }
    std::fs::write(outside.join("file"), "kept").expect("a file");
    std::os::unix::fs::symlink(&outside, root.join("layers/leads-out")).expect("a symlink");
    let mut sums = image::Summing::new();
    sums.add(data);
    let sums = sums.finish();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(data).expect("a file");
    for _ in 0..2 {
        let _ = image::extract::extract_checked(&file, &sums, &root, &[Path::new("/layers")], &|_| {});
        let _ = image::extract::extract(&mut &*data, &root, &[Path::new("/layers")]);
    }
    let names = |dir: &Path| -> Vec<_> {
        std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect()
    };
    assert_eq!(names(&root), ["layers"]);
    assert_eq!(names(&outside), ["file"]);
    assert_eq!(std::fs::read(outside.join("file")).expect("a file"), b"kept");
});

#![no_main]
//! Globs of slices: each line is a pattern, an empty line begins the next slice. However an app directory is divided,
//! each file is in one slice.

use std::{fs, path::PathBuf, sync::OnceLock};

use buildpack_api::Slice;
use libfuzzer_sys::fuzz_target;

#[path = "../../phases/src/export/slices.rs"]
mod slices;

static APP: OnceLock<PathBuf> = OnceLock::new();

const FILES: [&str; 7] = ["a", "b.txt", "dir/a", "dir/b/c", "dir/b/[x]", "ä/*", "-/^]"];

fn app() -> &'static PathBuf {
    APP.get_or_init(|| {
        let app = std::env::temp_dir().join(format!("fuzz-slices.{}", std::process::id()));
        for file in FILES {
            let path = app.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, "").expect("a file");
        }
        app
    })
}

fuzz_target!(|text: &str| {
    if text.len() > 4096 {
        return;
    }
    let text = text.replace("$APP", &app().to_string_lossy());
    let slices: Vec<Slice> =
        text.split("\n\n").map(|slice| Slice { paths: slice.lines().map(str::to_owned).collect() }).collect();
    let Ok(divided) = slices::divide(app(), &slices) else { return };
    assert_eq!(divided.len(), slices.len() + 1);
    for file in FILES {
        let path = app().join(file);
        assert_eq!(divided.iter().flatten().filter(|(taken, _)| *taken == path).count(), 1, "{file}: {divided:?}");
    }
});

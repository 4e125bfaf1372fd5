#![no_main]
//! Env directories: lines `<file name>=<content>`; at build, at launch and by the operator.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use buildpack_api::{Env, EnvDirDefault};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = 0;
    for line in data.split(|b| *b == b'\n').take(20) {
        let mut parts = line.splitn(2, |b| *b == b'=');
        let (Some(name), value) = (parts.next(), parts.next().unwrap_or_default()) else { continue };
        if name.contains(&b'/') || name.contains(&0) || matches!(name, b"" | b"." | b"..") {
            continue;
        }
        files += usize::from(std::fs::write(dir.path().join(OsStr::from_bytes(name)), value).is_ok());
    }
    let inherited = || [("PATH", "/bin"), ("A", "old")].map(|(k, v)| (k.into(), v.into()));
    for bare in [EnvDirDefault::Override, EnvDirDefault::SetIfEmpty] {
        let mut env = Env::for_launch(inherited());
        env.apply_dir(dir.path(), bare).expect("regular files can be read");
        check(&env, files);
    }
    for clear in [false, true] {
        let env = Env::for_build(inherited());
        let env = env.for_module(clear, dir.path(), Some(dir.path())).expect("regular files can be read");
        check(&env, 2 * files);
    }
});

fn check(env: &Env, files: usize) {
    assert!(env.iter().count() <= 2 + files);
    for (name, _) in env.iter() {
        // Else no process could be started with it.
        assert!(!name.is_empty() && !name.as_bytes().contains(&b'='), "{name:?}");
    }
}

//! Files that cannot be replaced by renaming: a mount point, and a file in a directory that takes no new ones. Each
//! case runs in a process of its own, in a mount namespace or as another user; that needs root, and is told when
//! skipped.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

const TARGET: &str = "WRITE_IN_PLACE_TARGET";
const NOBODY: u32 = 65534;

/// What the other process does.
#[test]
fn write_the_target() {
    if let Some(target) = std::env::var_os(TARGET) {
        platform_api::file::write(Path::new(&target), "new").unwrap();
    }
}

/// Runs `write_the_target` behind `prefix`; false where this process may not do that.
fn write_behind(prefix: &[&str], target: &Path) -> bool {
    let works = |args: &[&str]| {
        let run = Command::new(args[0]).args(&args[1..]).env(TARGET, target).output();
        run.map(|output| (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    if !works(&[prefix, &["true"]].concat()).is_ok_and(|(success, _)| success) {
        eprintln!("skipped: {prefix:?} is not permitted");
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let (success, output) = works(&[prefix, &[program, "--exact", "write_the_target"]].concat()).unwrap();
    assert!(success, "{output}");
    true
}

#[test]
fn a_mounted_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, source) = (dir.path().join("group.toml"), dir.path().join("source"));
    fs::write(&file, "hidden").unwrap();
    fs::write(&source, "old").unwrap();
    let mount = format!("mount --bind {} {} && exec \"$@\"", source.display(), file.display());
    if write_behind(&["unshare", "--mount", "sh", "-c", &mount, "sh"], &file) {
        assert_eq!(fs::read_to_string(&source).unwrap(), "new");
        assert_eq!(fs::read_to_string(&file).unwrap(), "hidden");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }
}

#[test]
fn a_directory_that_takes_no_new_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("report.toml");
    fs::write(&file, "old").unwrap();
    if chown(&file, Some(NOBODY), Some(NOBODY)).is_err() {
        eprintln!("skipped: not root");
        return;
    }
    let user = NOBODY.to_string();
    let become_nobody = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    // A copy, as the build directory may be closed to other users.
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let run = Command::new(become_nobody[0])
        .args(&become_nobody[1..])
        .arg(&program)
        .args(["--exact", "write_the_target"])
        .env(TARGET, &file)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
}

//! A socket that is root's only, after root's privileges were dropped. That changes the whole process, so each case
//! runs in one of its own: this executable again, asked for one ignored test.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::Command,
    thread,
};

use image::Images;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{Engine, PREFIX, daemon_at, find, layer, on, save};

fn in_process(test: &str, prefix: &str) {
    // What it makes as root it could not remove itself.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .env(PREFIX, prefix)
        .env("TMPDIR", dir.path())
        .args(["--exact", &format!("privileges::{test}"), "--ignored", "--nocapture", "--test-threads", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        eprintln!("left out: only root has privileges to drop");
    }
    is_root
}

fn become_user() {
    let (uid, gid) = (Uid::from_raw(1234), Gid::from_raw(1234));
    setgroups(&[gid]).unwrap();
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
}

#[test]
fn connections_outlive_privileges() {
    if !is_root() {
        return;
    }
    let Some(engine) = Engine::docker() else { return };
    in_process("child_builds_twice", &engine.prefix);
}

#[test]
#[ignore = "run by connections_outlive_privileges"]
fn child_builds_twice() {
    let Some(engine) = Engine::docker() else { return };
    let base_name = engine.base("base", "privileges");
    let dir = tempfile::tempdir().unwrap();
    let layers = [1, 2].map(|n| layer(&dir.path().join(n.to_string()), &[("f", &[n])]));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let images = engine.images();
    become_user();
    assert!(std::os::unix::net::UnixStream::connect("/var/run/docker.sock").is_err(), "the socket is root's");

    let base = find(&images, &base_name);
    let app = engine.name("app");
    save(&images, &on(&base, &layers), &[&app]);
    // A load that the daemon refuses, one that is broken off, and all is well with the next.
    let mut wrong = layers[0].clone();
    wrong.diff_id = image::Digest::of(b"wrong");
    assert!(images.save(&on(&base, &[wrong]), std::slice::from_ref(&app)).unwrap().id.is_none());
    let mut image = find(&images, &app);
    image.layers[1].recipe = None;
    let rebuilt = on(&base, &[layers[1].clone(), image.layers[1].clone()]);
    save(&images, &rebuilt, &[&app, &engine.name("second")]);
    assert_eq!(find(&images, &app).config.diff_ids, rebuilt.config.diff_ids);
    // Side by side there are more requests than connections.
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| find(&images, &app));
        }
    });
    // What was made only root may remove.
    std::mem::forget(engine);
}

#[test]
fn a_lost_connection_is_said_clearly() {
    if is_root() {
        in_process("child_loses_its_connections", "");
    }
}

#[test]
#[ignore = "run by a_lost_connection_is_said_clearly"]
fn child_loses_its_connections() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("closing.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Answers the first request and hangs up on everybody.
    let server = thread::spawn(move || {
        let clients: Vec<_> = listener.incoming().take(4).map(Result::unwrap).collect();
        let asked = clients.last().unwrap();
        let mut reader = BufReader::new(asked);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {}
        let mut out = asked;
        out.write_all(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let host = format!("unix://{}", path.display());
    let images = Images::Daemon(daemon_at(&host));
    server.join().unwrap();
    become_user();
    let error = images.find("x").unwrap_err().to_string();
    let expected =
        format!("the daemon at {host} closed the connections that were opened for it, and user 1234 may not");
    assert!(error.contains(&expected), "{error}");
}

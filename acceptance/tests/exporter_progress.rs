//! exporter on a terminal: what long work is at, and nothing of it anywhere else.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;

use std::{fs::File, process::Command};

use acceptance::run::{Outcome, may_differ, run};
use image_world::World;

/// Runs the call with a terminal of its own, as `script` makes one.
fn on_a_terminal(call: &Command, term: &str) -> Outcome {
    let words = std::iter::once(call.get_program()).chain(call.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    script.env_clear().envs(call.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", term);
    run(&mut script)
}

#[test]
fn a_terminal_shows_layers_and_bytes() {
    let world = World::new();
    world.analyzed();
    // Long enough to be shown: it is read and hashed in seconds, and takes no room anywhere.
    File::create(world.path("app/huge")).unwrap().set_len(2 << 30).unwrap();
    if may_differ("the reference shows no progress") {
        return;
    }
    let shown = on_a_terminal(&world.exporter("0.12", &["app"]), "xterm").ok().stdout();
    assert!(shown.contains("slice-1: ") && shown.contains(" MB") && shown.contains("MB/s"), "{shown:?}");
    assert!(shown.contains("sent"), "{shown:?}");
    // The log is whole: each of its lines begins where a line begins.
    for line in ["Adding layer 'buildpacksio/lifecycle:launcher'", "*** Images ("] {
        let at = shown.find(line).unwrap_or_else(|| panic!("no {line:?} in {shown:?}"));
        assert!(shown[..at].ends_with(['\n', 'K', 'm', '\r']), "{:?}", &shown[..at]);
    }
    for (term, why) in [("dumb", "it can draw nothing"), ("xterm", "there is no terminal")] {
        let mut call = world.exporter("0.12", &["app"]);
        let outcome = if why.contains("draw") { on_a_terminal(&call, term) } else { run(call.env("TERM", term)) };
        let all = outcome.ok().all();
        assert!(!all.contains("MB/s") && !all.contains("slice-1: "), "{why}: {all:?}");
    }
}

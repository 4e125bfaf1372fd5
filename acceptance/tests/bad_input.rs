//! Input that is missing, malformed or unfit: each has its exit code and one line that names the file, and nothing
//! is written, or only whole files are.

mod build_dirs;

use std::{fs, os::unix::fs::PermissionsExt};

use acceptance::{
    run::{Outcome, PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::{Bytes, Dir, File, Link},
};
use build_dirs::{BuildDirs, is_root, snapshot};

/// Malformed files: text that is no TOML, text of another shape, bytes that are no text.
fn malformed(shape: &str) -> Vec<Vec<u8>> {
    vec![
        b"[[".to_vec(),
        b"a = 1\na = 2\n".to_vec(),
        shape.as_bytes().to_vec(),
        b"x = \"\xff\xfe\"".to_vec(),
        vec![0x7f, b'E', b'L', b'F', 0, 1, 2],
    ]
}

/// One line on standard error begins with `ERROR: `, and it is this one: it has all these texts.
#[track_caller]
fn one_error(outcome: &Outcome, code: i32, texts: &[&str]) {
    let all = outcome.all();
    let lines: Vec<&str> = all.lines().filter(|line| line.starts_with("ERROR: ")).collect();
    assert_eq!(outcome.code(), code, "{all}");
    assert!(!all.contains("panicked") && !all.contains("RUST_BACKTRACE"), "{all}");
    if !may_differ("texts of errors, and how many lines they take") {
        assert_eq!(lines.len(), 1, "{all}");
        for text in texts {
            assert!(lines[0].contains(text), "no '{text}' in {}", lines[0]);
        }
        // A malformed file's text is not repeated, so that an error stays a line.
        assert!(all.ends_with(&format!("{}\n", lines[0])), "the last line: {all}");
    }
}

/// An app with one buildpack that passes and builds.
fn good() -> BuildDirs {
    let dirs = BuildDirs::new();
    dirs.buildpack("a", "0.10", "", "", "");
    dirs.order(&["a"]);
    dirs
}

#[test]
fn files_that_detector_reads() {
    let group = "[[order]]\ngroup = 1";
    for (path, api, code, shape) in [
        ("cnb/order.toml", "0.7", 1, group),
        ("cnb/order.toml", "0.15", 1, group),
        ("layers/analyzed.toml", "0.12", 1, "run-image = 1"),
        ("cnb/system.toml", "0.15", 1, "system = 1"),
        ("buildpacks/a/1.0.0/buildpack.toml", "0.12", 22, "api = \"0.10\"\nbuildpack = 1"),
    ] {
        for text in malformed(shape) {
            let dirs = good();
            dirs.write(&[(path, Bytes(&text))]);
            let before = snapshot(&dirs.path("layers"));
            let outcome = run(&mut dirs.detector(api));
            if may_differ("the reference has exit codes of its own for buildpack.toml") && code == 22 {
                assert_ne!(outcome.code(), 0, "{}", outcome.all());
            } else {
                one_error(&outcome, code, &[&dirs.text(path)]);
            }
            assert_eq!(snapshot(&dirs.path("layers")), before, "{path}");
            assert!(dirs.list("tmp").is_empty());
        }
    }
    let dirs = good();
    dirs.remove("cnb/order.toml");
    let text = format!(
        "failed to initialize detector: reading order: failed to read order file: open {}: no such file or directory",
        dirs.text("cnb/order.toml")
    );
    for api in PLATFORM_APIS {
        one_error(&run(&mut dirs.detector(api)), 1, &[&text]);
    }
    // An order that names what is no name.
    if !may_differ("the reference looks up what a version leads to") {
        dirs.write(&[("cnb/order.toml", File("[[order]]\n[[order.group]]\nid = \"a\"\nversion = \"../../x/1.0.0\""))]);
        one_error(&run(&mut dirs.detector("0.12")), 22, &["../../x"]);
    }
}

#[test]
fn run_toml_where_extensions_choose() {
    for text in malformed("images = 1") {
        let dirs = good();
        dirs.extension("e", "0.10", "", "", "echo FROM registry.test/new >\"$1/run.Dockerfile\"");
        dirs.order_with_extensions(&["e"], &["a"]);
        dirs.write(&[("cnb/run.toml", Bytes(&text))]);
        one_error(&run(&mut dirs.detector("0.13")), 1, &[&dirs.text("cnb/run.toml")]);
    }
}

#[test]
fn files_that_builder_reads() {
    for (path, code, shape) in [
        ("layers/group.toml", 1, "group = 1"),
        ("layers/plan.toml", 1, "entries = 1"),
        ("layers/analyzed.toml", 1, "run-image = 1"),
        ("buildpacks/a/1.0.0/buildpack.toml", 52, "api = 10\nbuildpack = 1"),
        ("layers/a/launch.toml", 52, "processes = 1"),
        ("layers/a/build.toml", 52, "unmet = 1"),
        ("layers/a/store.toml", 52, "metadata = 1"),
        ("layers/a/layer.toml", 52, "types = 1"),
    ] {
        for text in malformed(shape) {
            let dirs = good();
            dirs.group(&[("a", "0.10")], "");
            dirs.write(&[(path, Bytes(&text))]);
            let outcome = run(&mut dirs.builder("0.12"));
            if path.ends_with("store.toml") && may_differ("the reference leaves store.toml to exporter") {
                continue;
            }
            if path.ends_with("buildpack.toml")
                && may_differ("the reference has exit codes of its own for buildpack.toml")
            {
                continue;
            }
            one_error(&outcome, code, &[&dirs.text(path)]);
            assert!(!dirs.exists("layers/config"), "{path}");
            assert!(dirs.list("tmp").is_empty());
        }
    }
    for (path, what) in [("layers/group.toml", "group"), ("layers/plan.toml", "plan")] {
        let dirs = good();
        dirs.group(&[("a", "0.10")], "");
        dirs.remove(path);
        let text = format!("failed to read {what} file: open {}: no such file or directory", dirs.text(path));
        for api in PLATFORM_APIS {
            one_error(&run(&mut dirs.builder(api)), 1, &[&text]);
        }
    }
    // The text that a platform's own tests look for.
    let dirs = good();
    dirs.group(&[("a", "0.10")], "");
    dirs.write(&[("layers/group.toml", File("a plain text"))]);
    run(&mut dirs.builder("0.12")).exits(1).says("failed to read group file: ").says("toml: line 1: ");
}

#[test]
fn directories_in_the_place_of_files_and_links_that_lead_nowhere() {
    for path in ["cnb/order.toml", "layers/analyzed.toml"] {
        let dirs = good();
        if dirs.exists(path) {
            dirs.remove(path);
        }
        dirs.write(&[(path, Dir)]);
        one_error(&run(&mut dirs.detector("0.12")), 1, &[&dirs.text(path)]);
    }
    let dirs = good();
    dirs.remove("cnb/order.toml");
    dirs.write(&[("cnb/order.toml", Link("order.toml"))]);
    one_error(&run(&mut dirs.detector("0.12")), 1, &[&dirs.text("cnb/order.toml")]);
}

#[test]
fn an_app_that_is_not_there() {
    let dirs = good();
    dirs.group(&[("a", "0.10")], "");
    dirs.remove("app");
    run(&mut dirs.detector("0.12")).exits(21);
    assert!(
        run(&mut dirs.detector("0.12")).all().contains(&dirs.text("app")) || may_differ("its error names the program")
    );
    one_error(&run(&mut dirs.builder("0.12")), 51, &[&dirs.text("app")]);
}

#[test]
fn directories_that_cannot_be_written() {
    for (name, code) in [("detector", 1), ("builder", 52)] {
        let dirs = good();
        dirs.group(&[("a", "0.10")], "");
        let before = snapshot(&dirs.path("layers"));
        let mut call = dirs.call(name, "0.12");
        fs::set_permissions(dirs.path("layers"), fs::Permissions::from_mode(0o555)).unwrap();
        if is_root() {
            acceptance::tree::give_to(&dirs.path("layers"), 0, 0);
        }
        let outcome = run(&mut call);
        one_error(&outcome, code, &[&dirs.text("layers"), "permission denied"]);
        // detector's group.toml was there before; it is neither changed nor half written.
        assert_eq!(snapshot(&dirs.path("layers")), before, "{name}");
        fs::set_permissions(dirs.path("layers"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let dirs = good();
    let mut call = dirs.detector("0.12");
    call.env("TMPDIR", dirs.path("nonesuch"));
    run(&mut call).exits(21).says(&dirs.text("nonesuch"));
}

#[test]
fn a_file_that_is_mounted_alone_is_written_in_place() {
    // Its directory cannot take another file, but the file itself can be written.
    let dirs = good();
    dirs.write(&[("layers/group.toml", File("old")), ("layers/plan.toml", File("old"))]);
    let mut call = dirs.detector("0.12");
    fs::set_permissions(dirs.path("layers"), fs::Permissions::from_mode(0o555)).unwrap();
    run(&mut call).ok();
    fs::set_permissions(dirs.path("layers"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((dirs.detected().as_str(), dirs.list("layers").len()), ("a", 2));
}

#[test]
fn deprecated_and_unknown_words_of_modes_are_no_errors() {
    let dirs = good();
    for api in PLATFORM_APIS.into_iter().filter(|api| at_least(api, "0.12")) {
        for mode in ["quiet", "warn", "error", "other"] {
            run(dirs.detector(api).env("CNB_DEPRECATION_MODE", mode)).ok();
        }
    }
}

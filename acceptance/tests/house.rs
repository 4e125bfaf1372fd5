//! The rules of the house that a machine can check: who may depend on whom, where versions are compared, how long a
//! file may be, what code may not do outside of tests, and what the small executables must not hold.
#![allow(clippy::unwrap_used, reason = "a check panics where something is wrong")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use acceptance::run::{find_executable, may_differ, run, workspace};

/// Which crates of the workspace a crate's code may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("buildpack-api", &[]),
    ("platform-api", &["buildpack-api"]),
    ("image", &[]),
    ("dockerfile", &["image"]),
    ("phases", &["platform-api", "buildpack-api", "image", "dockerfile"]),
    // buildpack-api: the environment arrives as its type.
    ("cmd", &["phases", "platform-api", "buildpack-api", "image"]),
    ("launcher", &["platform-api", "buildpack-api"]),
    ("acceptance", &[]),
];

/// Which crates from elsewhere a crate's code must not use.
const FORBIDDEN: &[(&str, &[&str])] = &[
    // The launcher depends on both.
    ("buildpack-api", &["serde_json", "tracing", "anyhow", "ureq", "rustls", "image"]),
    ("platform-api", &["serde_json", "tracing", "anyhow", "ureq", "rustls", "image"]),
    ("launcher", &["serde_json", "tracing", "anyhow", "regex"]),
];

/// Files that are longer than [`LONGEST`], and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Lines of a file, its tests not counted.
const LONGEST: usize = 400;

fn cargo(args: &[&str]) -> String {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run(cargo.args(args).arg("--offline").current_dir(workspace())).ok().stdout()
}

/// Of each package of the workspace, what its code depends on, and what only its tests do.
fn dependencies() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let mut of = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap().to_owned();
            if dependency["kind"] == "dev" {
                of.1.insert(name)
            } else {
                of.0.insert(name)
            };
        }
        packages.insert(package["name"].as_str().unwrap().to_owned(), of);
    }
    packages
}

#[test]
fn crates_depend_only_on_those_below() {
    let packages = dependencies();
    let ours: BTreeSet<_> = packages.keys().cloned().collect();
    for (name, (code, tests)) in &packages {
        let (_, allowed) = ARROWS.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} has no place"));
        for other in code.intersection(&ours) {
            assert!(allowed.contains(&other.as_str()), "{name} must not depend on {other}");
        }
        for other in tests.intersection(&ours) {
            let ok = allowed.contains(&other.as_str()) || other == "acceptance";
            assert!(ok, "the tests of {name} must not depend on {other}");
        }
        for (_, forbidden) in FORBIDDEN.iter().filter(|(n, _)| n == name) {
            for other in *forbidden {
                assert!(!code.contains(*other), "{name} must not depend on {other}");
            }
        }
    }
    assert!(ours.contains("launcher") && ours.contains("phases"), "{ours:?}");
}

#[test]
fn the_launcher_is_made_of_the_crates_in_its_list() {
    let tree = cargo(&["tree", "-p", "launcher", "-e", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let found: BTreeSet<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let list = fs::read_to_string(workspace().join("launcher/DEPS")).unwrap();
    let listed: BTreeSet<_> = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(found, listed);
}

/// A Rust file of the workspace, without its tests.
struct Source {
    /// Relative to the workspace.
    path: PathBuf,
    /// Up to the `#[cfg(test)]` of its test module.
    lines: Vec<String>,
}

/// Every file of the crates' code: no tests, no harness.
fn sources() -> Vec<Source> {
    let root = workspace();
    let mut sources = Vec::new();
    for name in dependencies().keys().filter(|name| *name != "acceptance") {
        collect(&root, &root.join(name).join("src"), &mut sources);
    }
    assert!(sources.len() > 50, "{} files found", sources.len());
    sources
}

fn collect(root: &Path, dir: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_test =
            path.file_stem().and_then(|s| s.to_str()).is_some_and(|stem| stem == "tests" || stem.ends_with("_tests"));
        if path.is_dir() && !is_test {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").map(str::to_owned).collect();
            sources.push(Source { path: path.strip_prefix(root).unwrap().to_path_buf(), lines });
        }
    }
}

/// All lines of code (comments left out) for which `wrong` holds, as `file:line: text`.
fn offences(wrong: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.lines.iter().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && wrong(&source.path, code) {
                found.push(format!("{}:{}: {code}", source.path.display(), number + 1));
            }
        }
    }
    found
}

#[test]
fn versions_are_compared_in_the_two_version_files_only() {
    let compares = |path: &Path, code: &str| {
        let version_file =
            path.ends_with("platform-api/src/version.rs") || path.ends_with("buildpack-api/src/version.rs");
        let names_one = code.contains("Api::V0_") || code.contains("Api::V1_");
        // A version named in code is a version compared, or about to be.
        !version_file && names_one
    };
    assert_eq!(offences(compares), Vec::<String>::new());
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let allowed = LONG_FILES.iter().any(|(path, _)| source.path == Path::new(path));
        if source.lines.len() > LONGEST && !allowed {
            long.push(format!("{}: {} lines without its tests", source.path.display(), source.lines.len()));
        }
    }
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn code_does_not_panic_or_print() {
    let words = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "todo!(",
        "unimplemented!(",
        "unreachable!(",
        "println!(",
        "eprintln!(",
        "dbg!(",
        "process::exit(",
    ];
    assert_eq!(offences(|_, code| words.iter().any(|word| code.contains(word))), Vec::<String>::new());
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    for source in sources() {
        for (number, line) in source.lines.iter().enumerate() {
            if line.contains("unsafe {") && !line.trim_start().starts_with("//") {
                let before = &source.lines[number.saturating_sub(4)..number];
                let said = before.iter().any(|line| line.contains("SAFETY:"));
                assert!(said, "{}:{} has no SAFETY comment", source.path.display(), number + 1);
            }
        }
    }
}

#[test]
fn files_begin_with_what_they_are_for() {
    for source in sources() {
        let first = source.lines.first().map_or("", String::as_str);
        assert!(first.starts_with("//! "), "{}: {first}", source.path.display());
    }
}

#[test]
fn nothing_names_the_place_where_it_was_written() {
    let places = ["/tmp/ref", "/work/", "spec-map", "crates.io/api", "proxy.golang.org"];
    let here = workspace();
    for file in run(Command::new("git").args(["ls-files", "-z"]).current_dir(&here)).ok().stdout().split('\0') {
        let Ok(text) = fs::read_to_string(here.join(file)) else { continue };
        // This list itself is no offence; in `/workspace` it is the platform's word.
        let itself = file.ends_with("house.rs");
        for place in places.iter().filter(|_| !itself) {
            assert!(!text.contains(place), "{file} names {place}");
        }
    }
}

/// Executables that have no business with networks, and the words that only network code leaves in an executable.
#[test]
fn detector_builder_and_launcher_hold_no_network_code() {
    if may_differ("another implementation may have one executable for all") {
        return;
    }
    let words: [&[u8]; 5] = [b"Www-Authenticate", b"rustls", b"TLS 1.3", b"ureq", b"BEGIN CERTIFICATE"];
    let holds = |name: &str| -> Option<Vec<String>> {
        let bytes = fs::read(find_executable(name)?).unwrap();
        let found = words.iter().filter(|word| bytes.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word)));
        Some(found.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    };
    for name in ["detector", "builder", "launcher"] {
        if let Some(found) = holds(name) {
            assert_eq!(found, Vec::<String>::new(), "in {name}");
        }
    }
    // So that the words are the right ones.
    if let Some(found) = holds("exporter") {
        assert!(found.len() > 1, "exporter holds {found:?} only");
    }
}

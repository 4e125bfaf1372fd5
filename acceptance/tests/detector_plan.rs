//! The build plan, from outside: what detect may write, and which group and plan it makes.
//! buildpack.md "Phase #1: Detection" and "Build Plan (TOML)".
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]
#![allow(clippy::type_complexity, reason = "a table has as many columns as it needs")]

mod build_dirs;

use std::fmt::Write as _;

use acceptance::run::{BUILDPACK_APIS, PLATFORM_APIS, may_differ, run};
use build_dirs::BuildDirs;

/// The text of a build plan: `p:name` provides, `r:name` requires, `|` begins an alternative.
fn plan(words: &str) -> String {
    let (mut text, mut prefix) = (String::new(), "");
    for word in words.split_whitespace() {
        let _ = match word.split_once(':') {
            Some(("p", name)) => writeln!(text, "[[{prefix}provides]]\nname = \"{name}\""),
            Some((_, name)) => writeln!(text, "[[{prefix}requires]]\nname = \"{name}\""),
            None => {
                prefix = "or.";
                writeln!(text, "[[or]]")
            }
        };
    }
    text
}

/// A detect script that writes this text as its plan.
fn writes(text: &str) -> String {
    format!("cat >\"$2\" <<'END'\n{text}\nEND")
}

/// plan.toml as `name:providers:number of requires`, sorted; providers with `+` between.
fn entries(dirs: &BuildDirs) -> String {
    let plan = dirs.toml("layers/plan.toml");
    let mut words: Vec<String> = plan
        .get("entries")
        .and_then(toml::Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|entry| {
            let requires = entry["requires"].as_array().unwrap();
            let name = requires[0]["name"].as_str().unwrap();
            assert!(requires.iter().all(|r| r["name"].as_str() == Some(name)), "one name in an entry: {entry}");
            let providers: Vec<&str> =
                entry["providers"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap()).collect();
            format!("{name}:{}:{}", providers.join("+"), requires.len())
        })
        .collect();
    words.sort();
    words.join(" ")
}

#[test]
fn provides_and_requires_must_match() {
    // The group, the plans of a, b and c, and what passes with which entries.
    let rows: &[(&str, [&str; 3], Option<(&str, &str)>)] = &[
        // "Each buildpack ... MAY ... nothing"
        ("a b", ["", "", ""], Some(("a b", ""))),
        ("a b", ["p:x", "r:x", ""], Some(("a b", "x:a:1"))),
        ("a", ["p:x r:x", "", ""], Some(("a", "x:a:1"))),
        // A require before its provide, a provide without a require, a require without a provide.
        ("a b", ["r:x", "p:x", ""], None),
        ("a b", ["p:x", "", ""], None),
        ("a b", ["", "r:x", ""], None),
        ("a? b", ["r:x", "p:x", ""], None),
        // Optional ones drop out, and what they wanted or gave with them.
        ("a? b", ["p:x", "", ""], Some(("b", ""))),
        ("a b?", ["", "r:x", ""], Some(("a", ""))),
        ("a? b? c", ["p:x", "r:x p:y", ""], Some(("c", ""))),
        ("a? b c", ["p:x", "r:x", "r:x"], Some(("a b c", "x:a:2"))),
        ("a? b?", ["p:x", "r:y", ""], None),
        // Several may provide one name.
        ("a b c", ["p:x", "p:x", "r:x"], Some(("a b c", "x:a+b:1"))),
        ("a b c", ["p:x", "r:x p:x", "r:x"], Some(("a b c", "x:a+b:2"))),
        ("a b c", ["p:x", "r:x", "p:x"], None),
        ("a b", ["p:x p:y", "r:y r:x", ""], Some(("a b", "x:a:1 y:a:1"))),
        // Alternatives, the first that fits.
        ("a b", ["p:x | p:y", "r:y", ""], Some(("a b", "y:a:1"))),
        ("a b", ["p:x | p:y | p:z", "r:w | r:z", ""], Some(("a b", "z:a:1"))),
        ("a", ["p:x | ", "", ""], Some(("a", ""))),
        ("a b", ["p:x |", "r:x |", ""], Some(("a b", "x:a:1"))),
        ("a b", ["p:x | p:y", "r:z | r:w", ""], None),
        // An optional buildpack drops out with its last alternative only.
        ("a? b", ["p:x | p:y", "", ""], Some(("b", ""))),
        ("a? b", ["p:x | p:y", "r:y", ""], Some(("a b", "y:a:1"))),
    ];
    for (group, plans, expected) in rows {
        let dirs = BuildDirs::new();
        for (id, words) in ["a", "b", "c"].iter().zip(plans) {
            dirs.buildpack(id, "0.10", "", &writes(&plan(words)), "");
        }
        dirs.order(&[group]);
        let outcome = run(&mut dirs.detector("0.12"));
        let about = format!("{group:?} {plans:?}\n{}", outcome.all());
        match expected {
            Some((group, plan)) => {
                assert_eq!(outcome.code(), 0, "{about}");
                assert_eq!((dirs.detected().as_str(), entries(&dirs).as_str()), (*group, *plan), "{about}");
            }
            None => assert_eq!(outcome.code(), 20, "{about}"),
        }
    }
}

#[test]
fn plan_toml_keeps_what_was_asked() {
    let dirs = BuildDirs::new();
    dirs.buildpack("acme/a", "0.10", "", &writes("[[provides]]\nname = \"x\"\n[[provides]]\nname = \"y\""), "");
    let wants = "[[requires]]\nname = \"x\"\n[requires.metadata]\nversion = \"1.x\"\nint = 1\nfloat = 1.0\nday = \
                 2020-01-02\nlist = [1, \"two\"]\n[requires.metadata.table]\n\"a key\" = true";
    dirs.buildpack("b", "0.10", "", &writes(wants), "");
    dirs.buildpack("c", "0.10", "", &writes(&plan("r:y r:x")), "");
    dirs.order(&["acme/a b c"]);
    let expected: toml::Table = toml::from_str(
        "[[entries]]\nproviders = [{ id = \"acme/a\", version = \"1.0.0\" }]\nrequires = [{ name = \"x\", metadata = { \
         version = \"1.x\", int = 1, float = 1.0, day = 2020-01-02, list = [1, \"two\"], table = { \"a key\" = true } } \
         }, { name = \"x\" }]\n[[entries]]\nproviders = [{ id = \"acme/a\", version = \"1.0.0\" }]\nrequires = [{ name = \
         \"y\" }]",
    )
    .unwrap();
    let mut texts = Vec::new();
    for api in PLATFORM_APIS {
        run(&mut dirs.detector(api)).ok();
        let found = dirs.toml("layers/plan.toml");
        let sorted = |table: &toml::Table| {
            let mut entries = table["entries"].as_array().unwrap().clone();
            entries.sort_by_key(|entry| entry["requires"][0]["name"].to_string());
            entries
        };
        assert_eq!(sorted(&found), sorted(&expected), "at {api}");
        texts.push(dirs.read("layers/plan.toml"));
    }
    texts.dedup();
    if !may_differ("the reference writes the entries in random order") {
        assert_eq!(texts.len(), 1, "the same plan is the same file: {texts:?}");
    }
}

#[test]
fn a_bad_plan_is_an_error_of_its_buildpack() {
    let many = plan(&"r:x ".repeat(3)).replace("name", "version = \"1\"\nname");
    let rows = [
        ("[[provides]\nname = 1", "toml: "),
        ("provides = 1", ""),
        ("[[provides]]\nname = 7", ""),
        (&many, "\"version\""),
        ("[[or]]\n[[or.requires]]\nname = \"x\"\nversion = \"1\"", "\"version\""),
        ("[[requires]]\nname = \"x\"\nversion = \"1\"\n[requires.metadata]\nversion = \"2\"", "\"version\""),
    ];
    for (text, says) in rows {
        for api in BUILDPACK_APIS {
            let dirs = BuildDirs::new();
            dirs.buildpack("bad", api, "", &writes(text), "");
            dirs.order(&["bad"]);
            let outcome = run(&mut dirs.detector("0.12")).exits(21).says("err:  bad@1.0.0").says(says);
            outcome.says("ERROR: failed to detect: buildpack(s) failed with err\n");
            dirs.buildpack("good", "0.10", "", "", "");
            dirs.order(&["bad? good"]);
            run(&mut dirs.detector("0.12")).ok();
            assert_eq!(dirs.detected(), "good");
        }
    }
    // The plan of one that fails is not read, and one that removes its plan has none.
    let dirs = BuildDirs::new();
    dirs.buildpack("bad", "0.10", "", &(writes("[[") + "\nexit 100"), "");
    dirs.order(&["bad"]);
    run(&mut dirs.detector("0.12")).exits(20);
}

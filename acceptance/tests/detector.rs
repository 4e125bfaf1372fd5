//! detector, from outside: inputs, the order, the plan, and what it leaves behind.
//! platform.md "detector"; buildpack.md "Phase #1: Detection".
#![allow(clippy::type_complexity, reason = "a table has as many columns as it needs")]

mod build_dirs;

use acceptance::{
    run::{BUILDPACK_APIS, PLATFORM_APIS, at_least, command, executable, may_differ, run},
    tree::Entry::{File, Mode},
};
use build_dirs::{BuildDirs, ids, is_root};

/// Buildpacks by the word their detect is: pass, fail, or err; each writes its name to `<app>/ran`.
fn with_buildpacks(names: &[&str]) -> BuildDirs {
    let dirs = BuildDirs::new();
    for name in names {
        let code = match name.split('-').next() {
            Some("fail") => 100,
            Some("err") => 7,
            _ => 0,
        };
        dirs.buildpack(name, "0.10", "", &format!("echo {name} >> ran; exit {code}"), "");
    }
    dirs
}

#[test]
fn platform_api_must_be_one_of_ours() {
    let dirs = with_buildpacks(&["pass"]);
    dirs.order(&["pass"]);
    for (api, text) in [
        ("", "please set 'CNB_PLATFORM_API'"),
        (" ", "please set 'CNB_PLATFORM_API'"),
        ("x", "failed to parse platform API 'x'"),
        ("0.6", "failed to set platform API: platform API version '0.6' is incompatible with the lifecycle"),
        ("0.16", "failed to set platform API: platform API version '0.16' is incompatible with the lifecycle"),
        ("1.7", "failed to set platform API: platform API version '1.7' is incompatible with the lifecycle"),
    ] {
        for name in ["detector", "builder", "creator"] {
            run(dirs.call(name, api).arg("-version")).exits(11).says(text);
        }
    }
    run(dirs.detector("0.7").env_remove("CNB_PLATFORM_API")).exits(11).says("please set 'CNB_PLATFORM_API'");
    for api in PLATFORM_APIS.iter().copied().chain(["v0.12"]) {
        run(&mut dirs.detector(api)).ok();
        for name in ["detector", "builder", "creator"] {
            let version = run(dirs.call(name, api).arg("-version")).ok().stdout();
            assert!(version.starts_with(|c: char| c.is_ascii_digit()) && version.ends_with('\n'), "{version:?}");
        }
    }
}

#[test]
fn flags_are_those_of_the_platform_api() {
    let dirs = with_buildpacks(&["pass"]);
    dirs.order(&["pass"]);
    let gates = [
        ("detector", "-analyzed", "0.10"),
        ("detector", "-extensions", "0.10"),
        ("detector", "-generated", "0.10"),
        ("detector", "-build-config", "0.11"),
        ("detector", "-run", "0.12"),
        ("detector", "-system", "0.15"),
        ("detector", "-app", "0.7"),
        ("builder", "-build-config", "0.11"),
        ("builder", "-analyzed", "0.12"),
        ("builder", "-plan", "0.7"),
        ("creator", "-build-config", "0.11"),
        ("creator", "-run", "0.12"),
        ("creator", "-layout-dir", "0.12"),
        ("creator", "-insecure-registry", "0.13"),
        ("creator", "-system", "0.15"),
        ("creator", "-stack", "0.7"),
    ];
    for (name, flag, since) in gates {
        for api in PLATFORM_APIS {
            for arguments in [vec![flag, "/value"], vec![&format!("-{flag}=/value")]] {
                let outcome = run(dirs.call(name, api).args(&arguments).arg("-version"));
                let code = if at_least(api, since) { 0 } else { 2 };
                assert_eq!(outcome.code(), code, "{name} {arguments:?} at {api}: {}", outcome.all());
                if code == 2 {
                    let usage = outcome.stderr();
                    assert!(usage.contains(&format!("flag provided but not defined: {flag}\n")), "{usage}");
                    assert!(usage.contains("\n  -layers "), "{usage}");
                }
            }
        }
    }
}

#[test]
fn flags_are_read_as_go_reads_them() {
    let dirs = with_buildpacks(&["pass"]);
    dirs.order(&["pass"]);
    for name in ["detector", "builder", "creator"] {
        let call = |arguments: &[&str]| run(dirs.call(name, "0.12").args(arguments));
        for help in ["-h", "-help", "--help"] {
            let outcome = call(&[help]).exits(0);
            assert!(outcome.stderr().contains("-layers"), "{}", outcome.all());
            assert_eq!(outcome.stdout(), "");
        }
        call(&["-nonesuch"]).exits(2).says("flag provided but not defined: -nonesuch");
        call(&["-layers"]).exits(2).says("flag needs an argument: -layers");
        call(&["-no-color=perhaps"]).exits(2).says("-no-color");
        call(&["-=x"]).exits(2).says("bad flag syntax: -=x");
        call(&["-log-level", "loud"]).exits(1).says("failed to parse log level: invalid level");
        for level in ["debug", "INFO", "warn", "warning", "Error", "fatal"] {
            call(&["-log-level", level, "-version"]).exits(0);
        }
    }
    for name in ["detector", "builder"] {
        for arguments in [&["more"][..], &["--", "-layers"], &["-no-color", "false", "-app", "x"]] {
            let text = "failed to parse arguments: received unexpected arguments";
            run(dirs.call(name, "0.12").args(arguments)).exits(3).says(text);
        }
    }
    // Flags end at the first argument.
    let text = "unconsumed flag-like positional arg";
    run(dirs.call("creator", "0.12").args(["one", "-tag=two"])).exits(3).says(text);
    for arguments in [&[][..], &["one", "two"]] {
        let text = format!("failed to parse arguments: received {} arguments, but expected 1", arguments.len());
        run(dirs.call("creator", "0.12").args(arguments)).exits(3).says(&text);
    }
}

#[test]
fn a_flag_is_stronger_than_a_variable_and_an_empty_one_is_none() {
    let dirs = with_buildpacks(&["pass", "fail"]);
    dirs.order(&["fail"]);
    let order = build_dirs::groups_toml("order", &["pass"]);
    dirs.write(&[("other.toml", File(&order)), ("layers/order.toml", File(&order))]);
    run(&mut dirs.detector("0.9")).exits(20);
    run(dirs.detector("0.9").arg("-order").arg(dirs.path("other.toml"))).ok();
    // `<layers>/order.toml` is the default where it is there.
    run(dirs.detector("0.9").env("CNB_ORDER_PATH", "")).ok();
    if !may_differ("the reference takes an empty flag for some inputs, and not for others, as no flag") {
        run(dirs.detector("0.9").args(["-order", ""]).env_remove("CNB_ORDER_PATH")).ok();
    }
    // The last of a flag given twice counts; a default below `<layers>` is below the one of the flag.
    dirs.write(&[("elsewhere/order.toml", File(&order))]);
    run(dirs
        .detector("0.9")
        .args(["-layers", "/nonesuch", "-layers"])
        .arg(dirs.path("elsewhere"))
        .env_remove("CNB_ORDER_PATH"))
    .ok();
    assert_eq!(dirs.list("elsewhere"), ["group.toml", "order.toml", "plan.toml"]);
    run(dirs
        .detector("0.9")
        .env("CNB_ORDER_PATH", dirs.path("other.toml"))
        .arg(format!("-group={}", dirs.text("a/new/group.toml")))
        .arg(format!("--plan={}", dirs.text("another/plan.toml"))))
    .ok();
    assert!(dirs.exists("a/new/group.toml") && dirs.exists("another/plan.toml"));
}

#[test]
fn root_is_refused() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let dirs = with_buildpacks(&["pass"]);
    dirs.order(&["pass"]);
    for (name, text) in [("detector", "detect"), ("builder", "build")] {
        let mut call = command(executable(name));
        call.env("CNB_PLATFORM_API", "0.12").env("CNB_LAYERS_DIR", dirs.path("layers")).env("CNB_NO_COLOR", "true");
        let outcome = run(&mut call).exits(1).says(&format!("ERROR: failed to {text}: refusing to run as root\n"));
        assert_eq!(outcome.all().lines().count(), 1, "{}", outcome.all());
    }
    assert!(!dirs.exists("app/ran"));
}

#[test]
fn buildpack_apis_must_be_ours() {
    let dirs = BuildDirs::new();
    for api in BUILDPACK_APIS.iter().chain(&["0.6", "0.13", "1.0", "x", ""]) {
        dirs.buildpack(&format!("api-{api}"), api, "", "touch ran", "");
    }
    for api in BUILDPACK_APIS {
        dirs.order(&[&format!("api-{api}")]);
        for platform in PLATFORM_APIS {
            run(&mut dirs.detector(platform)).ok();
            assert_eq!(dirs.toml("layers/group.toml")["group"][0]["api"].as_str(), Some(api), "at {platform}");
        }
    }
    dirs.remove("app/ran");
    dirs.remove("layers/group.toml");
    for api in ["0.6", "0.13", "1.0"] {
        // Looked at before any detect runs, in whatever group it is.
        dirs.order(&["api-0.7", &format!("api-{api}?")]);
        run(&mut dirs.detector("0.12")).exits(12).says(&format!(
            "failed to set API for Buildpack 'api-{api}@1.0.0': buildpack API version '{api}' is incompatible with the \
             lifecycle"
        ));
    }
    for api in ["x", ""] {
        dirs.order(&["api-0.7", &format!("api-{api}")]);
        run(&mut dirs.detector("0.12"))
            .exits(12)
            .says("failed to parse buildpack API")
            .says(&format!("api-{api}@1.0.0"));
    }
    assert!(!dirs.exists("app/ran") && !dirs.exists("layers/group.toml"));
    if !may_differ("the reference checks no API of a buildpack within a composite one") {
        dirs.composite("all", &["api-0.13"]);
        dirs.order(&["all"]);
        run(&mut dirs.detector("0.12")).exits(12).says("'api-0.13@1.0.0'");
    }
}

#[test]
fn the_first_group_that_passes_wins() {
    // What is in the order, what the composites `one` and `two` are, the group or the exit code, and what ran.
    let rows: &[(&[&str], &[&str], &[&str], Result<&str, i32>, &str)] = &[
        (&["pass-a"], &[], &[], Ok("pass-a"), "pass-a"),
        (&["pass-a pass-b", "pass-c"], &[], &[], Ok("pass-a pass-b"), "pass-a pass-b"),
        (&["fail-a pass-b", "pass-c"], &[], &[], Ok("pass-c"), "fail-a pass-b pass-c"),
        (&["fail-a? pass-b"], &[], &[], Ok("pass-b"), "fail-a pass-b"),
        (&["err-a? pass-b"], &[], &[], Ok("pass-b"), "err-a pass-b"),
        // A group of which nothing passes does not pass.
        (&["fail-a?"], &[], &[], Err(20), "fail-a"),
        (&["fail-a? fail-b?", "pass-c"], &[], &[], Ok("pass-c"), "fail-a fail-b pass-c"),
        (&["fail-a", "fail-b"], &[], &[], Err(20), "fail-a fail-b"),
        // One broken buildpack in a group that fails makes the difference, whatever the others.
        (&["fail-a", "err-b"], &[], &[], Err(21), "err-b fail-a"),
        (&["err-b", "fail-a"], &[], &[], Err(21), "err-b fail-a"),
        (&["err-a? fail-b"], &[], &[], Err(21), "err-a fail-b"),
        (&["err-a", "pass-b"], &[], &[], Ok("pass-b"), "err-a pass-b"),
        (&[], &[], &[], Err(20), ""),
        // Each runs once, in however many groups it is.
        (&["pass-a fail-b", "pass-a fail-c", "pass-a"], &[], &[], Ok("pass-a"), "fail-b fail-c pass-a"),
        // Composites, depth first.
        (&["one pass-c"], &["pass-a", "pass-b"], &[], Ok("pass-a pass-c"), "pass-a pass-c"),
        (&["one pass-c"], &["fail-a", "pass-b"], &[], Ok("pass-b pass-c"), "fail-a pass-b pass-c"),
        (&["one fail-c", "pass-d"], &["pass-a", "pass-b"], &[], Ok("pass-d"), "fail-c pass-a pass-b pass-d"),
        (&["one? pass-c"], &["fail-a"], &[], Ok("pass-c"), "fail-a pass-c"),
        (&["one pass-c"], &["fail-a"], &[], Err(20), "fail-a pass-c"),
        (
            &["one two"],
            &["fail-a", "pass-b"],
            &["fail-c", "pass-d"],
            Ok("pass-b pass-d"),
            "fail-a fail-c pass-b pass-d",
        ),
        (&["one pass-d"], &["pass-a two"], &["pass-b", "pass-c"], Ok("pass-a pass-b pass-d"), "pass-a pass-b pass-d"),
        (&["one"], &["fail-a? two"], &["pass-b? pass-c"], Ok("pass-b pass-c"), "fail-a pass-b pass-c"),
        // A buildpack that is in the group already is not in it again.
        (&["one pass-a pass-b"], &["pass-a"], &[], Ok("pass-a pass-b"), "pass-a pass-b"),
    ];
    for (order, one, two, expected, ran) in rows {
        let dirs =
            with_buildpacks(&["pass-a", "pass-b", "pass-c", "pass-d", "fail-a", "fail-b", "fail-c", "err-a", "err-b"]);
        dirs.composite("one", one);
        dirs.composite("two", two);
        dirs.order(order);
        dirs.write(&[("app/ran", File(""))]);
        let outcome = run(&mut dirs.detector("0.12"));
        let about = format!("{order:?} {one:?} {two:?}\n{}", outcome.all());
        match expected {
            Ok(group) => {
                assert_eq!(outcome.code(), 0, "{about}");
                assert_eq!(&dirs.detected(), group, "{about}");
            }
            Err(code) => {
                assert_eq!(&outcome.code(), code, "{about}");
                assert!(!dirs.exists("layers/group.toml") && !dirs.exists("layers/plan.toml"), "{about}");
            }
        }
        let all = dirs.read("app/ran");
        let mut all: Vec<&str> = all.lines().collect();
        all.sort_unstable();
        assert_eq!(all.join(" "), *ran, "{about}");
        assert!(dirs.list("tmp").is_empty(), "left in the temporary directory: {:?}", dirs.list("tmp"));
    }
}

#[test]
fn a_composite_that_holds_itself_is_refused() {
    if may_differ("the reference recurses until its stack is full") {
        return;
    }
    let dirs = with_buildpacks(&["pass-a"]);
    dirs.composite("one", &["pass-a two"]);
    dirs.composite("two", &["one?"]);
    dirs.order(&["one"]);
    let outcome = run(&mut dirs.detector("0.12")).exits(22).says("one@1.0.0");
    assert_eq!(outcome.stderr().matches("ERROR: ").count(), 1, "{}", outcome.all());
}

#[test]
fn group_toml_says_what_takes_part() {
    let dirs = BuildDirs::new();
    dirs.buildpack("acme/with.all-1", "0.9", "homepage = \"https://acme.test\"\n", "", "");
    dirs.buildpack("plain", "0.12", "", "", "");
    dirs.order(&["acme/with.all-1 plain?"]);
    dirs.write(&[("layers/group.toml", Mode(0o600, "old = 1"))]);
    for api in PLATFORM_APIS {
        run(&mut dirs.detector(api)).ok();
        let expected = "[[group]]\nid = \"acme/with.all-1\"\nversion = \"1.0.0\"\napi = \"0.9\"\nhomepage = \
                        \"https://acme.test\"\n[[group]]\nid = \"plain\"\nversion = \"1.0.0\"\napi = \"0.12\"";
        assert_eq!(dirs.toml("layers/group.toml"), toml::from_str(expected).unwrap(), "at {api}");
        assert_eq!(ids(dirs.toml("layers/group.toml").get("group")), "acme/with.all-1 plain");
        assert!(dirs.toml("layers/plan.toml").is_empty(), "nobody asked for anything");
    }
}

#[test]
fn a_buildpack_that_is_not_there_is_named() {
    let dirs = with_buildpacks(&["pass"]);
    dirs.order(&["pass", "acme/gone"]);
    let outcome = run(&mut dirs.detector("0.12"));
    assert!((20..30).contains(&outcome.code()) || outcome.code() == 1, "{}", outcome.all());
    outcome
        .says(&format!("open {}: no such file or directory", dirs.text("buildpacks/acme_gone/1.0.0/buildpack.toml")));
    assert!(!dirs.exists("app/ran"));
}

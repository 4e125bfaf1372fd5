//! `bin/detect`: how it is called, what its exit status and its plan mean, and all of a group at once.

use std::{fs, os::unix::fs::symlink, path::Path};

use buildpack_api::{BuildPlan, BuildpackApi, Context, DetectOutcome, Module, detect};

use super::{Fixture, assert_env, at_least, call, one, record, target_and_exec_env};

#[test]
fn detect_is_given_what_its_api_says() {
    for api in BuildpackApi::ALL {
        let fixture = Fixture::new(&[("detect", &record("CNB_BUILDPACK_DIR"))]);
        let result = fixture.detect(&api.to_string());
        assert_eq!(result.outcome, DetectOutcome::Pass(BuildPlan::default()), "{result:?}");
        assert_eq!((result.code, result.output.as_slice()), (0, &b""[..]));

        let (lines, plan) = call(&fixture);
        assert_eq!(lines, [fixture.path("app").to_str().unwrap(), fixture.path("platform").to_str().unwrap()]);
        assert!(plan.ends_with("plan.toml"), "{plan:?}");
        let dir = plan.parent().unwrap();
        assert!(dir.file_name().unwrap().to_str().unwrap().starts_with("plan."), "{dir:?}");
        assert!(!dir.exists(), "removed afterwards");
        assert_eq!((fixture.read("root/plan").as_str(), fixture.read("root/mode").as_str()), ("", "600\n"));

        let mut expected = vec![format!("CNB_BUILDPACK_DIR={}", fixture.path("root").display())];
        expected.extend(at_least(
            api,
            BuildpackApi::V0_8,
            &[
                format!("CNB_PLATFORM_DIR={}", fixture.path("platform").display()),
                format!("CNB_BUILD_PLAN_PATH={}", plan.display()),
            ],
        ));
        expected.extend(target_and_exec_env(api));
        assert_env(&fixture, expected);
    }
}

#[test]
fn an_extensions_detect_knows_its_own_directory() {
    let fixture = Fixture::new(&[("detect", &record("CNB_EXTENSION_DIR"))]);
    let result = fixture.detect_extension();
    assert_eq!(result.outcome, DetectOutcome::Pass(BuildPlan::default()), "{result:?}");
    let env = fixture.read("root/env");
    assert!(env.contains(&format!("CNB_EXTENSION_DIR={}\n", fixture.path("root").display())));
    assert!(!env.contains("CNB_BUILDPACK_DIR"));
}

#[test]
fn what_the_exit_of_detect_means() {
    for (script, code, outcome, output) in [
        ("echo out; echo err >&2", 0, DetectOutcome::Pass(BuildPlan::default()), "out\nerr\n"),
        ("echo no; exit 100", 100, DetectOutcome::Fail, "no\n"),
        ("echo 100%d; exit 1", 1, DetectOutcome::Error(None), "100%d\n"),
        ("exit 20", 20, DetectOutcome::Error(None), ""),
        ("echo x; kill -KILL $$", -1, DetectOutcome::Error(Some("signal: killed".to_owned())), "x\n"),
        ("kill -USR1 $$", -1, DetectOutcome::Error(Some("signal: user defined signal 1".to_owned())), ""),
        // A plan counts only where detect passed.
        ("echo = >\"$2\"; exit 100", 100, DetectOutcome::Fail, ""),
        ("read -r line; echo \"[$line]\"", 0, DetectOutcome::Pass(BuildPlan::default()), "[]\n"),
    ] {
        let result = Fixture::new(&[("detect", script)]).detect("0.12");
        assert_eq!((result.code, &result.outcome), (code, &outcome), "{script}");
        assert_eq!(String::from_utf8(result.output).unwrap(), output, "{script}");
    }
}

#[test]
fn a_closed_pipe_ends_what_a_buildpack_runs() {
    // With SIGPIPE ignored, as our own process has it, `yes` would complain instead of ending.
    let result = Fixture::new(&[("detect", "yes | head -n 1")]).detect("0.12");
    assert_eq!(String::from_utf8(result.output).unwrap(), "y\n");
}

#[test]
fn plans_that_detect_writes() {
    let fixture = Fixture::new(&[(
        "detect",
        "printf '[[provides]]\\nname = \"p\"\\n[[or]]\\n[[or.requires]]\\nname = \"r\"' >\"$2\"",
    )]);
    let DetectOutcome::Pass(plan) = fixture.detect("0.12").outcome else { panic!("did not pass") };
    assert_eq!(plan.alternatives.len(), 2);
    assert_eq!(plan.alternatives[0].provides, ["p"]);
    assert_eq!(plan.alternatives[1].requires[0].name, "r");

    for (script, begin, end) in [
        ("echo = >\"$2\"", "toml: line 1: ", ""),
        ("echo 'a\\377' >\"$2\"", "", "plan.toml: not valid UTF-8"),
        ("rm \"$2\"", "open ", "plan.toml: no such file or directory"),
        ("rm \"$2\"; mkfifo \"$2\"", "", "plan.toml: not a regular file"),
        ("ln -sf /dev/zero \"$2\"", "", "plan.toml: not a regular file"),
        ("truncate -s 17M \"$2\"", "", "plan.toml: larger than 16 MiB"),
        (
            "printf '[[requires]]\\nname = \"r\"\\nversion = \"1\"' >\"$2\"",
            "buildpack a/b has a \"version\" key which is not supported.",
            "\"metadata.version\" should be used instead",
        ),
    ] {
        let result = Fixture::new(&[("detect", &format!("echo printed; {script}"))]).detect("0.12");
        let DetectOutcome::Error(Some(text)) = result.outcome else { panic!("{script}: {:?}", result.outcome) };
        assert!(text.starts_with(begin) && text.ends_with(end), "{script}: {text}");
        assert_eq!((result.code, result.output.as_slice()), (-1, &b"printed\n"[..]), "{script}");
    }
}

#[test]
fn an_extension_provides_only() {
    for requires in ["[[requires]]", "[[or]]\\n[[or.requires]]"] {
        let fixture = Fixture::new(&[("detect", &format!("printf '{requires}\\nname = \"r\"' >\"$2\""))]);
        let result = fixture.detect_extension();
        let text = "extension e/x outputs \"requires\" which is not allowed".to_owned();
        assert_eq!((result.code, result.outcome), (-1, DetectOutcome::Error(Some(text))));
    }
}

#[test]
fn an_extension_without_detect_has_its_plan_ready_or_none() {
    let fixture = Fixture::new(&[]);
    let result = fixture.detect_extension();
    assert_eq!((result.code, result.outcome), (0, DetectOutcome::Pass(BuildPlan::default())));

    fixture.write("root/detect/plan.toml", "[[provides]]\nname = 'p'");
    let DetectOutcome::Pass(plan) = fixture.detect_extension().outcome else { panic!("did not pass") };
    assert_eq!(plan.alternatives[0].provides, ["p"]);

    fixture.write("root/detect/plan.toml", "[[requires]]\nname = 'p'");
    assert_eq!(fixture.detect_extension().code, -1);

    // A buildpack has no such choice.
    assert_eq!(fixture.detect("0.12").code, -1);
}

#[test]
fn what_cannot_be_started_says_why() {
    let text_of = |fixture: &Fixture, context: &Context| {
        let result = one(Module::Buildpack(&fixture.buildpack("0.12", "")), context);
        assert_eq!(result.code, -1);
        let DetectOutcome::Error(Some(text)) = result.outcome else { panic!("{:?}", result.outcome) };
        text
    };
    let fixture = Fixture::new(&[]);
    let program = fixture.path("root/bin/detect");
    let expect = |why: &str| format!("fork/exec {}: {why}", program.display());
    assert_eq!(text_of(&fixture, &fixture.context()), expect("no such file or directory"));
    fs::create_dir(&program).unwrap();
    assert_eq!(text_of(&fixture, &fixture.context()), expect("permission denied"));
    fs::remove_dir(&program).unwrap();
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run-missing"), &program).unwrap();
    assert_eq!(
        text_of(&fixture, &fixture.context()),
        expect("no such file or directory (the interpreter that its first line names is missing)")
    );

    let missing = fixture.path("missing");
    let context = Context { app: missing.clone(), ..fixture.context() };
    assert_eq!(
        text_of(&fixture, &context),
        format!("change to app directory {}: no such file or directory", missing.display())
    );

    let fixture = Fixture::new(&[("detect", "")]);
    fixture.write("platform/env/BAD", b"a\0b");
    assert_eq!(text_of(&fixture, &fixture.context()), "the value of environment variable BAD contains a NUL byte");
    let text = one(Module::Buildpack(&fixture.buildpack("0.99", "")), &fixture.context());
    let expected = "buildpack a/b: API version '0.99' is incompatible with the lifecycle".to_owned();
    assert_eq!(text.outcome, DetectOutcome::Error(Some(expected)));
}

#[test]
fn user_and_operator_variables_reach_the_module() {
    let script = "echo $BASE $USERS $OPERATORS; echo ${PATH%%:*}";
    for (rest, expected) in [("", "base user operator\n/user/bin\n"), ("clear-env = true", "base operator\n/usr/bin\n")]
    {
        let fixture = Fixture::new(&[("detect", script)]);
        fixture.write("platform/env/USERS", "user");
        fixture.write("platform/env/PATH", "/user/bin");
        fixture.write("config/env/OPERATORS", "operator");
        fixture.write("config/env/BASE", "not over what is set");
        let mut context = fixture.context();
        context.env.set("PATH", "/usr/bin:/bin");
        let result = one(Module::Buildpack(&fixture.buildpack("0.12", rest)), &context);
        assert_eq!(String::from_utf8(result.output).unwrap(), expected);
    }
}

#[test]
fn nothing_else_of_our_environment_does() {
    let fixture = Fixture::new(&[("detect", "env")]);
    let output = String::from_utf8(fixture.detect("0.7").output).unwrap();
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(!output.contains("CARGO_"), "{output}");
}

#[test]
fn detects_run_at_once_and_their_results_are_in_order() {
    // The first ends only when the second runs; the third does not start.
    let first = Fixture::new(&[("detect", "read x <../fifo; echo \"$x\"; exit 100")]);
    let path = format!("echo told >{}; echo second", first.path("fifo").display());
    let second = Fixture::new(&[("detect", &path)]);
    assert!(std::process::Command::new("mkfifo").arg(first.path("fifo")).status().unwrap().success());
    let buildpacks = [&first, &second, &Fixture::new(&[])].map(|fixture| fixture.buildpack("0.12", ""));
    let modules: Vec<_> = buildpacks.iter().map(Module::Buildpack).collect();
    let results = detect(&modules, &first.context());
    let short: Vec<_> = results.iter().map(|r| (r.code, String::from_utf8_lossy(&r.output))).collect();
    assert_eq!(short, [(100, "told\n".into()), (0, "second\n".into()), (-1, "".into())]);
}

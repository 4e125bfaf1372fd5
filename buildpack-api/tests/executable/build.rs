//! `bin/build` and `bin/generate`: how they are called, and what their exit status means.

use buildpack_api::{BuildpackApi, BuildpackPlan, Require, RunError, build, generate};

use super::{Fixture, assert_env, at_least, call, record, target_and_exec_env};

fn plan_of_two() -> BuildpackPlan {
    let require = |name: &str, metadata: Option<&str>| Require {
        name: name.to_owned(),
        metadata: metadata.map(|text| text.parse().unwrap()),
    };
    BuildpackPlan { entries: vec![require("x", Some("n = 1")), require("y", None)] }
}

#[test]
fn build_is_given_what_its_api_says() {
    for api in BuildpackApi::ALL {
        let fixture = Fixture::new(&[("build", &record("CNB_BUILDPACK_DIR"))]);
        let layers = fixture.path("layers");
        build(&fixture.buildpack(&api.to_string(), ""), &plan_of_two(), &fixture.context(), &layers).unwrap();

        let (lines, plan) = call(&fixture);
        let dirs = ["app", "layers", "platform"].map(|dir| fixture.path(dir).to_str().unwrap().to_owned());
        assert_eq!(lines, dirs);
        assert!(plan.ends_with("a_b/plan.toml"), "{plan:?}");
        assert!(!plan.parent().unwrap().parent().unwrap().exists(), "removed afterwards");
        assert_eq!(
            fixture.read("root/plan"),
            "[[entries]]\nname = \"x\"\n\n[entries.metadata]\nn = 1\n\n[[entries]]\nname = \"y\"\n"
        );

        let mut expected = vec![format!("CNB_BUILDPACK_DIR={}", fixture.path("root").display())];
        expected.extend(at_least(
            api,
            BuildpackApi::V0_8,
            &[
                format!("CNB_PLATFORM_DIR={}", fixture.path("platform").display()),
                format!("CNB_BP_PLAN_PATH={}", plan.display()),
                format!("CNB_LAYERS_DIR={}", layers.display()),
            ],
        ));
        expected.extend(target_and_exec_env(api));
        assert_env(&fixture, expected);
    }
}

#[test]
fn generate_is_given_its_directories_at_every_api() {
    for api in BuildpackApi::ALL {
        let fixture = Fixture::new(&[("generate", &record("CNB_EXTENSION_DIR"))]);
        let output = fixture.path("layers");
        generate(&fixture.extension(&api.to_string()), &plan_of_two(), &fixture.context(), &output).unwrap();

        let (lines, plan) = call(&fixture);
        let dirs = ["app", "layers", "platform"].map(|dir| fixture.path(dir).to_str().unwrap().to_owned());
        assert_eq!(lines, dirs);
        let mut expected = vec![
            format!("CNB_EXTENSION_DIR={}", fixture.path("root").display()),
            format!("CNB_PLATFORM_DIR={}", fixture.path("platform").display()),
            format!("CNB_BP_PLAN_PATH={}", plan.display()),
            format!("CNB_OUTPUT_DIR={}", output.display()),
        ];
        expected.extend(target_and_exec_env(api));
        assert_env(&fixture, expected);
    }
}

#[test]
fn what_the_exit_of_build_means() {
    for (script, expected) in [
        ("exit 1", "exit status 1"),
        ("exit 100", "exit status 100"),
        ("kill -TERM $$", "signal: terminated"),
        ("kill -KILL $$", "signal: killed"),
    ] {
        let fixture = Fixture::new(&[("build", script)]);
        let error = build(&fixture.buildpack("0.12", ""), &plan_of_two(), &fixture.context(), &fixture.path("layers"));
        let Err(RunError::Status { text }) = error else { panic!("{script}: {error:?}") };
        assert_eq!(text, expected, "{script}");
    }
    let fixture = Fixture::new(&[]);
    let error = build(&fixture.buildpack("0.12", ""), &plan_of_two(), &fixture.context(), &fixture.path("layers"));
    assert!(matches!(error, Err(RunError::Start(_))), "{error:?}");
}

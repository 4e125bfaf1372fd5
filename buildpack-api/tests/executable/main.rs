//! Real executables, called as the spec has it: arguments, environment, plan files, exit status.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod build;
mod detect;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use buildpack_api::{Buildpack, BuildpackApi, Context, DetectResult, Distro, Env, Extension, Module, Target};

/// A module's root beside the app, the platform and the operator's directories.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        for dir in ["app", "platform/env", "config/env", "root/bin", "layers"] {
            fs::create_dir_all(fixture.path(dir)).unwrap();
        }
        for (name, script) in scripts {
            let run_script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run-script");
            symlink(run_script, fixture.path("root/bin").join(name)).unwrap();
            fixture.write(&format!("root/{name}.sh"), script);
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn buildpack(&self, api: &str, rest: &str) -> Buildpack {
        let text = format!("api = '{api}'\n[buildpack]\nid = 'a/b'\nversion = '1'\n{rest}");
        Buildpack::parse(&self.path("root"), &text).unwrap()
    }

    fn extension(&self, api: &str) -> Extension {
        let text = format!("api = '{api}'\n[extension]\nid = 'e/x'\nversion = '1'");
        Extension::parse(&self.path("root"), &text).unwrap()
    }

    fn context(&self) -> Context {
        let mut env = Env::default();
        env.set("PATH", std::env::var_os("PATH").unwrap());
        env.set("BASE", "base");
        let distros = vec![Distro { name: "ubuntu".to_owned(), version: "22.04".to_owned() }];
        Context {
            app: self.path("app"),
            platform: self.path("platform"),
            build_config: Some(self.path("config")),
            target: Target { os: "linux".to_owned(), arch: "arm".to_owned(), variant: "v7".to_owned(), distros },
            no_color: false,
            exec_env: "test".to_owned(),
            env,
        }
    }

    fn detect(&self, api: &str) -> DetectResult {
        one(Module::Buildpack(&self.buildpack(api, "")), &self.context())
    }

    fn detect_extension(&self) -> DetectResult {
        one(Module::Extension(&self.extension("0.12")), &self.context())
    }
}

/// Detect of one module.
fn one(module: Module<'_>, context: &Context) -> DetectResult {
    buildpack_api::detect(&[module], context).remove(0)
}

/// Records a call: directory and arguments, environment, the plan and its mode.
const RECORD: &str = r#"
{
    pwd
    for arg in "$@"; do echo "$arg"; done
} > "$ROOT/call"
env | grep -v -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= -e ^PATH= -e ^ROOT= | sort > "$ROOT/env"
cp "${3:-$2}" "$ROOT/plan"
stat -c %a "${3:-$2}" > "$ROOT/mode"
"#;

fn record(root_variable: &str) -> String {
    format!("ROOT=${root_variable}\n{RECORD}")
}

/// The lines a call recorded and the path of its plan.
fn call(fixture: &Fixture) -> (Vec<String>, PathBuf) {
    let mut lines: Vec<String> = fixture.read("root/call").lines().map(str::to_owned).collect();
    let plan = lines.pop().unwrap();
    (lines, PathBuf::from(plan))
}

fn at_least(api: BuildpackApi, since: BuildpackApi, lines: &[String]) -> Vec<String> {
    if api >= since { lines.to_vec() } else { vec![] }
}

fn target_and_exec_env(api: BuildpackApi) -> Vec<String> {
    let target = ["ARCH=arm", "ARCH_VARIANT=v7", "DISTRO_NAME=ubuntu", "DISTRO_VERSION=22.04", "OS=linux"];
    let mut lines = at_least(api, BuildpackApi::V0_10, &target.map(|line| format!("CNB_TARGET_{line}")));
    lines.extend(at_least(api, BuildpackApi::V0_12, &["CNB_EXEC_ENV=test".to_owned()]));
    lines
}

fn assert_env(fixture: &Fixture, mut expected: Vec<String>) {
    expected.push("BASE=base".to_owned());
    expected.sort();
    let mut env: Vec<String> = fixture.read("root/env").lines().map(str::to_owned).collect();
    env.sort();
    assert_eq!(env, expected);
}

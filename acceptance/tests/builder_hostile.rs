//! Buildpacks that mean harm, or are broken as if they did: an error that says so or the right result, and never a
//! write outside of the layers directory, a lifecycle that hangs, or memory without bounds.

mod build_dirs;

use std::{path::Path, time::Duration};

use acceptance::{
    run::{Outcome, may_differ, run, run_limited},
    tree::Entry::{Dir, File, Link},
};
use build_dirs::{BuildDirs, snapshot};

const LIMIT: Duration = Duration::from_secs(60);

/// Peak memory that no detector or builder may exceed here, in KiB. Their own need is about 6 MiB.
const MEMORY: u64 = 64 * 1024;

fn with_scripts(detect: &str, build: &str) -> BuildDirs {
    let dirs = BuildDirs::new();
    dirs.buildpack("bad", "0.10", "sbom-formats = [\"application/vnd.cyclonedx+json\"]", detect, build);
    dirs.order(&["bad"]);
    dirs.group(&[("bad", "0.10")], "");
    dirs
}

/// Runs detector, or builder; both within time and memory.
fn bounded(dirs: &BuildDirs, name: &str) -> Outcome {
    let (outcome, peak) = run_limited(&mut dirs.call(name, "0.12"), LIMIT);
    assert!(!outcome.all().contains("panicked"), "{}", outcome.all());
    if !may_differ("memory of the reference") {
        assert!(peak < MEMORY, "{name} took {peak} KiB");
    }
    outcome
}

/// The one error of a build that leaves this, which names this path of the layers directory.
#[track_caller]
fn refused(dirs: &BuildDirs, path: &str) {
    let outcome = bounded(dirs, "builder");
    if !may_differ("the reference is less careful with what buildpacks leave") {
        let all = outcome.all();
        assert_eq!(outcome.code(), 52, "{all}");
        assert!(all.contains("ERROR: failed to build: ") && all.contains(path), "no '{path}' in {all}");
        assert!(all.len() < 4000, "an error of {} bytes", all.len());
        assert!(!dirs.exists("layers/config/metadata.toml"));
    }
}

#[test]
fn endless_output_of_detect_is_cut() {
    for code in [0, 100, 7] {
        let dirs = with_scripts(
            &format!("echo first; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo last; exit {code}"),
            "",
        );
        if may_differ("the reference keeps all of it in memory") {
            return;
        }
        let outcome = bounded(&dirs, "detector");
        assert_eq!(outcome.code(), [0, 20, 21][[0, 100, 7].iter().position(|c| *c == code).unwrap()]);
        if code != 0 {
            let out = outcome.stdout();
            assert!(out.contains("first\nxxx") && out.contains("xxx\nlast\n") && out.contains("left out"));
            assert!(out.len() < 3_000_000, "{}", out.len());
        }
    }
}

#[test]
fn much_output_of_build_is_passed_on() {
    let dirs = with_scripts("", "head -c 100000000 /dev/zero | tr '\\0' x; head -c 100000000 /dev/zero >&2");
    let outcome = bounded(&dirs, "builder").ok();
    assert!(outcome.stdout.len() + outcome.stderr.len() >= 200_000_000);
}

#[test]
fn output_of_any_bytes() {
    let dirs = with_scripts("printf '\\377\\376\\000\\033[2Jx\\n'; exit 100", "printf '\\377\\000'");
    let outcome = bounded(&dirs, "detector").exits(20);
    assert!(outcome.stdout.windows(2).any(|w| w == b"x\n"), "{:?}", outcome.stdout);
    bounded(&dirs, "builder").ok();
}

#[test]
fn a_process_left_behind_is_not_waited_for() {
    // It keeps the output open long after its parent has ended.
    let dirs = with_scripts("echo main; sleep 1000 &\nexit 0", "echo main; sleep 1000 &\nexit 0");
    if !may_differ("the reference waits for all who hold the output") {
        for name in ["detector", "builder"] {
            let (outcome, _) = run_limited(&mut dirs.call(name, "0.12"), Duration::from_secs(20));
            outcome.ok();
        }
        let dirs = with_scripts("(while :; do echo more; done) & exit 100", "");
        let (outcome, peak) = run_limited(&mut dirs.detector("0.12"), Duration::from_secs(20));
        outcome.exits(20);
        assert!(peak < MEMORY, "{peak} KiB");
    }
}

#[test]
fn plans_that_are_no_plans() {
    let huge = "head -c 200000000 /dev/zero | tr '\\0' '#' >\"$2\"";
    let deep = "printf 'a = ' >\"$2\"; head -c 100000 /dev/zero | tr '\\0' '[' >>\"$2\"";
    let tables = "{ printf '['; for i in $(seq 20000); do printf 'a.'; done; echo 'a]'; } >\"$2\"";
    let rows = [
        "head -c 1000 /dev/urandom >\"$2\"; printf '\\000\\377' >>\"$2\"",
        deep,
        tables,
        "rm \"$2\"; mkfifo \"$2\"",
        "rm \"$2\"; mkdir \"$2\"",
        "rm \"$2\"; ln -s /dev/zero \"$2\"",
        "rm \"$2\"; ln -s plan.toml \"$2\"",
        "chmod 0 \"$2\"",
        huge,
    ];
    for script in rows {
        if may_differ("the reference reads whatever is there") {
            return;
        }
        let dirs = with_scripts(script, "");
        bounded(&dirs, "detector").exits(21).says("err:  bad@1.0.0");
        assert!(!dirs.exists("layers/plan.toml") || dirs.read("layers/plan.toml").is_empty());
        assert!(dirs.list("tmp").is_empty(), "{script}: {:?}", dirs.list("tmp"));
    }
    // A plan of more than its file: neither the directory's other contents nor its loss is in the way.
    for script in ["rm -r \"${2%/*}\"; exit 100", "mkdir -p \"${2%/*}/more/x\"; chmod 0 \"${2%/*}/more\"; exit 0"] {
        let outcome = bounded(&with_scripts(script, ""), "detector");
        assert!(outcome.code() == 20 || outcome.code() == 0, "{}", outcome.all());
    }
    let many = "for i in $(seq 2000); do printf '[[provides]]\\nname = \"n%s\"\\n[[requires]]\\nname = \"n%s\"\\n' $i $i; done >\"$2\"";
    let dirs = with_scripts(many, "");
    bounded(&dirs, "detector").ok();
    assert_eq!(dirs.toml("layers/plan.toml")["entries"].as_array().unwrap().len(), 2000);
}

#[test]
fn many_alternatives_end() {
    // Ten buildpacks of eight alternatives, none of which fit: over a billion trials, if each were tried.
    if may_differ("the reference tries every combination") {
        return;
    }
    let dirs = BuildDirs::new();
    let ids: Vec<String> = (0..10).map(|n| format!("b{n}")).collect();
    for id in &ids {
        let script = format!(
            "for i in 1 2 3 4 5 6 7 8; do printf '[[or]]\\n[[or.provides]]\\nname = \"{id}-%s\"\\n' $i; done >\"$2\"\n\
                              printf '[[provides]]\\nname = \"{id}\"\\n' | cat - \"$2\" >\"$2.new\"; mv \"$2.new\" \"$2\""
        );
        dirs.buildpack(id, "0.10", "", &script, "");
    }
    dirs.order(&[&ids.join(" ")]);
    let outcome = bounded(&dirs, "detector");
    assert!([20, 22].contains(&outcome.code()), "{}", outcome.code());
    assert!(outcome.stdout.len() < 50_000_000, "{}", outcome.stdout.len());
}

#[test]
fn files_of_a_buildpack_that_are_no_files() {
    for name in ["launch.toml", "build.toml", "layer.toml"] {
        for script in [
            "mkfifo \"$1/NAME\"",
            "ln -s /dev/zero \"$1/NAME\"",
            "ln -s NAME \"$1/NAME\"",
            "head -c 100000000 /dev/zero | tr '\\0' '#' >\"$1/NAME\"",
            "head -c 1000 /dev/urandom >\"$1/NAME\"; printf '\\000\\377' >>\"$1/NAME\"",
            "printf 'a = ' >\"$1/NAME\"; head -c 100000 /dev/zero | tr '\\0' '[' >>\"$1/NAME\"",
            "echo '[types]' >\"$1/NAME\"; chmod 0 \"$1/NAME\"",
        ] {
            if may_differ("the reference reads whatever is there") {
                return;
            }
            let dirs = with_scripts("", &script.replace("NAME", name));
            refused(&dirs, &dirs.text(&format!("layers/bad/{name}")));
        }
    }
    // Not a layer without a description, which would be put aside.
    for name in ["launch.toml", "build.toml", "store.toml"] {
        refused(&with_scripts("", &format!("mkdir \"$1/{name}\"")), &format!("layers/bad/{name}"));
    }
    // An SBOM is copied, not read; but it is a file.
    for script in ["mkfifo", "ln -s /dev/zero"] {
        let dirs = with_scripts("", &format!("{script} \"$1/launch.sbom.cdx.json\""));
        refused(&dirs, "launch.sbom.cdx.json");
    }
}

#[test]
fn links_lead_nothing_out_of_the_layers_directory() {
    for script in [
        // The buildpack's directory, or a part of the lifecycle's own, becomes a link to the app or the root.
        "rm -r \"$1\"; ln -s \"$PWD\" \"$1\"",
        "ln -s \"$PWD\" \"${1%/*}/sbom\"; echo {} >\"$1/launch.sbom.cdx.json\"",
        "ln -s \"$PWD\" \"${1%/*}/config\"",
        "mkdir \"${1%/*}/config\"; ln -s \"$PWD/file\" \"${1%/*}/config/metadata.toml\"",
        "mkdir -p \"${1%/*}/sbom/launch\"; ln -s \"$PWD\" \"${1%/*}/sbom/launch/bad\"; echo {} >\"$1/launch.sbom.cdx.json\"",
        "ln -s \"$PWD\" \"$1/layer\"; echo >\"$1/layer.toml\"",
        "mkdir \"$1/layer\"; echo >\"$1/layer.toml\"; ln -s \"$PWD\" \"$1/layer.ignore\"",
        "ln -s /etc/shadow \"$1/launch.sbom.cdx.json\"",
    ] {
        let dirs = with_scripts("", script);
        dirs.write(&[("app/file", File("of the app")), ("app/bad", Dir), ("app/launch", Dir)]);
        let before = snapshot(&dirs.path("app"));
        let outcome = bounded(&dirs, "builder");
        if !may_differ("the reference follows links") {
            assert_eq!(snapshot(&dirs.path("app")), before, "{script}\n{}", outcome.all());
            assert!(outcome.code() == 0 || outcome.code() == 52 || outcome.code() == 1, "{script}\n{}", outcome.all());
        }
    }
    // An earlier build's sbom directory is deleted, not what a link of its name leads to.
    let dirs = with_scripts("", "");
    dirs.write(&[("app/file", File("of the app")), ("layers/sbom", Link("../app"))]);
    bounded(&dirs, "builder");
    assert_eq!(dirs.read("app/file"), "of the app");
}

#[test]
fn names_of_layers_are_names() {
    let dirs = with_scripts(
        "",
        "for l in '..a' '...' ' ' 'a b' '-rf' '*' 'é' \"$(printf '\\377')\" \"$(printf 'a\\nb')\" 'x\"y'; do
         mkdir \"$1/$l\"; echo >\"$1/$l/f\"; printf '[types]\\nlaunch = true\\n' >\"$1/$l.toml\"; done",
    );
    let outcome = bounded(&dirs, "builder");
    assert!([0, 52].contains(&outcome.code()), "{}", outcome.all());
    if outcome.code() == 52 {
        outcome.says("ERROR: failed to build: ");
    }
    // A file called `.toml` is a layer without a name.
    let dirs =
        with_scripts("", "printf '[types]\\nlaunch = true\\n' >\"$1/.toml\"; printf '[types]\\n' >\"$1/...toml\"");
    let outcome = bounded(&dirs, "builder");
    assert!([0, 52].contains(&outcome.code()), "{}", outcome.all());
    if !may_differ("the reference moves the buildpack's whole directory aside") {
        assert!(dirs.exists("app") && dirs.exists("layers/bad"), "nothing above was moved");
    }
}

#[test]
fn environment_files_that_harm() {
    let layer = "mkdir -p \"$1/l/env\"; printf '[types]\\nbuild = true\\n' >\"$1/l.toml\"; ";
    for (script, names) in [
        ("mkfifo \"$1/l/env/FIFO\"", "FIFO"),
        ("ln -s /dev/zero \"$1/l/env/ZERO\"", "ZERO"),
        ("printf 'a\\000b' >\"$1/l/env/NUL\"", "NUL"),
        ("head -c 100000000 /dev/zero | tr '\\0' x >\"$1/l/env/HUGE\"", ""),
        ("echo x >\"$1/l/env/A=B\"", ""),
        ("echo x >\"$1/l/env/$(printf '\\377')\"", ""),
    ] {
        if may_differ("the reference reads whatever is there") {
            return;
        }
        let dirs = with_scripts("", &format!("{layer}{script}"));
        dirs.buildpack("next", "0.10", "", "", "");
        dirs.group(&[("bad", "0.10"), ("next", "0.10")], "");
        let outcome = bounded(&dirs, "builder");
        assert!([0, 51, 52].contains(&outcome.code()), "{script}: {}", outcome.all());
        if outcome.code() != 0 {
            outcome.says("ERROR: failed to build: ").says(names);
        }
    }
}

#[test]
fn descriptors_that_are_no_descriptors() {
    for make in
        ["mkfifo DESC", "ln -s /dev/zero DESC", "head -c 100000000 /dev/zero | tr '\\0' '#' >DESC", "mkdir DESC"]
    {
        if may_differ("the reference reads whatever is there") {
            return;
        }
        let dirs = with_scripts("", "");
        let path = dirs.text("buildpacks/bad/1.0.0/buildpack.toml");
        dirs.remove("buildpacks/bad/1.0.0/buildpack.toml");
        run(acceptance::run::command("sh").args(["-c", &make.replace("DESC", &path)])).ok();
        bounded(&dirs, "detector").exits(22).says(&path);
        bounded(&dirs, "builder").exits(52).says(&path);
    }
}

#[test]
fn the_lifecycle_s_own_files_may_be_fifos() {
    for (name, path) in
        [("detector", "cnb/order.toml"), ("builder", "layers/group.toml"), ("builder", "layers/plan.toml")]
    {
        if may_differ("the reference waits for somebody to write") {
            return;
        }
        let dirs = with_scripts("", "");
        dirs.remove(path);
        run(acceptance::run::command("mkfifo").arg(dirs.path(path))).ok();
        bounded(&dirs, name).exits(1).says(&dirs.text(path));
    }
}

#[test]
fn a_build_cannot_read_secrets_of_its_parent() {
    // detector and builder are given no credentials; still, nothing of their environment is passed on.
    let script = "env >said; env | grep -c SECRET >>said; exit 0";
    let dirs = with_scripts(script, script);
    for name in ["detector", "builder"] {
        run(dirs.call(name, "0.12").env("CNB_REGISTRY_AUTH", "SECRET").env("DOCKER_AUTH_CONFIG", "SECRET")).ok();
        assert!(!dirs.read("app/said").contains("SECRET"), "{name}: {}", dirs.read("app/said"));
    }
    assert!(Path::new("/proc/self/environ").exists());
}

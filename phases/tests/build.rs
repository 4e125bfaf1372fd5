//! Build over real directories, with buildpacks that are shell scripts.

mod build_support;

use std::{fs, os::unix::fs::symlink};

use build_support::{World, code, entry};
use buildpack_api::{Kind, Require};
use phases::build::build;
use platform_api::{BuildMetadata, ExitCode, Group, Plan, PlanEntry, Provider};

fn run(world: &World, api: &str, buildpacks: &[&str], plan: Plan) -> anyhow::Result<BuildMetadata> {
    let group = Group { buildpacks: buildpacks.iter().map(|id| entry(id)).collect(), extensions: Vec::new() };
    build(&world.builder(api), &group, plan, None)
}

/// Runs one buildpack, `a`, that does this.
fn run_script(world: &World, api: &str, more: &str, body: &str) -> anyhow::Result<BuildMetadata> {
    world.buildpack("a", "0.10", more, &[("build", body)]);
    run(world, api, &["a"], Plan::default())
}

fn plan(rows: &[(&str, &[&str])]) -> Plan {
    let provider = |id: &&str| {
        let entry = entry(id);
        Provider { id: entry.id, version: entry.version, kind: Kind::Buildpack }
    };
    let entry = |(name, providers): &(&str, &[&str])| PlanEntry {
        providers: providers.iter().map(provider).collect(),
        requires: vec![Require { name: (*name).to_owned(), metadata: None }],
    };
    Plan { entries: rows.iter().map(entry).collect() }
}

#[test]
fn what_buildpacks_say_becomes_metadata() {
    let world = World::new();
    let launch = |text: &str| format!("cat > $CNB_LAYERS_DIR/launch.toml <<'EOF'\n{text}\nEOF");
    let first = "[[processes]]\ntype = 'web'\ncommand = ['one']\ndefault = true\n[[processes]]\ntype = 'b'\ncommand = ['b', 'c']\nargs = ['d']\n[[labels]]\nkey = 'k'\nvalue = '1'\n[[slices]]\npaths = ['x']";
    let second =
        "[[processes]]\ntype = 'web'\ncommand = ['two']\n[[labels]]\nkey = 'k'\nvalue = '2'\n[[slices]]\npaths = ['y']";
    world.buildpack("a", "0.10", "", &[("build", &launch(first))]);
    world.buildpack("other/b", "0.10", "", &[("build", &launch(second))]);
    let metadata = run(&world, "0.12", &["a", "other/b"], Plan::default()).unwrap();
    let processes: Vec<_> = metadata
        .processes
        .iter()
        .map(|(p, from)| format!("{} {} {:?} {:?} {} {}", p.r#type, from, p.command, p.args(), p.direct, p.default))
        .collect();
    assert_eq!(processes, ["b a [\"b\", \"c\"] [\"d\"] true false", "web other/b [\"two\"] [] true false"]);
    assert_eq!(metadata.default_process, None, "redefined and not marked as the default");
    let labels: Vec<_> = metadata.labels.iter().map(|l| l.value.as_str()).collect();
    let slices: Vec<_> = metadata.slices.iter().flat_map(|s| &s.paths).map(String::as_str).collect();
    assert_eq!((labels, slices), (vec!["1", "2"], vec!["x", "y"]));
    assert_eq!(metadata.buildpacks.len(), 2);
    assert!(!world.exists("layers/config"), "the caller writes metadata.toml");
}

#[test]
fn each_buildpack_gets_what_it_provides_and_nobody_met() {
    let world = World::new();
    let look = |id: &str| format!("cp $CNB_BP_PLAN_PATH {}", world.path(&format!("plan-{id}")).display());
    world.buildpack(
        "a",
        "0.10",
        "",
        &[("build", &format!("{}\nprintf '[[unmet]]\nname = \"y\"' > $1/build.toml", look("a")))],
    );
    world.buildpack("b", "0.10", "", &[("build", &look("b"))]);
    world.buildpack("c", "0.10", "", &[("build", &look("c"))]);
    let all = plan(&[("x", &["a", "b", "c"]), ("y", &["a", "b", "c"]), ("z", &["b"]), ("w", &["c"])]);
    run(&world, "0.12", &["a", "b", "c"], all).unwrap();
    let names = |id: &str| -> Vec<String> {
        let table: toml::Table = world.read(&format!("plan-{id}")).parse().unwrap();
        let entries = table.get("entries").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (names("a"), names("b"), names("c")),
        (vec!["x".to_owned(), "y".to_owned()], vec!["y".to_owned(), "z".to_owned()], vec!["w".to_owned()],)
    );
}

#[test]
fn later_buildpacks_see_build_layers() {
    let world = World::new();
    let layers = "cd $1\n\
        for l in one two off; do mkdir -p $l/bin $l/env $l/env.build; printf $l > $l/env/LAST; printf :$l > $l/env.build/ALL.append; done\n\
        printf '[types]\nbuild = true' | tee one.toml > two.toml\n\
        printf '[types]\nlaunch = true' > off.toml\nmkdir -p one/lib one/include two/pkgconfig";
    world.buildpack("a", "0.10", "", &[("build", layers)]);
    let out = world.path("env");
    world.buildpack("b", "0.10", "", &[("build", &format!("env > {}", out.display()))]);
    world.write("platform/env/PATH", "/user");
    run(&world, "0.12", &["a", "b"], Plan::default()).unwrap();
    let env = world.read("env");
    let value = |name: &str| env.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap_or("-");
    let at = |path: &str| world.path(&format!("layers/a/{path}")).display().to_string();
    assert!(value("PATH").starts_with(&format!("/user:{}:{}:/", at("two/bin"), at("one/bin"))), "{}", value("PATH"));
    assert_eq!(value("LD_LIBRARY_PATH"), at("one/lib"));
    assert_eq!(value("LIBRARY_PATH"), at("one/lib"));
    assert_eq!(value("CPATH"), at("one/include"));
    assert_eq!(value("PKG_CONFIG_PATH"), at("two/pkgconfig"));
    assert_eq!((value("LAST"), value("ALL")), ("two", ":one:two"));
    assert_eq!(value("CNB_LAYERS_DIR"), world.path("layers/b").display().to_string());
}

#[test]
fn layers_for_nothing_are_put_out_of_the_way() {
    let world = World::new();
    world.write("layers/a/none.ignore/old", "");
    world.write("layers/a/bare.ignore", "a file");
    let body = "cd $1\nmkdir none bare kept launch x.ignore\ntouch none/new none.toml\nprintf '[types]\ncache = true' > kept.toml\ntouch missing.toml";
    run_script(&world, "0.12", "", body).unwrap();
    for (path, there) in [
        ("none", false),
        ("none.ignore/new", true),
        ("none.ignore/old", false),
        ("none.toml", true),
        ("bare", false),
        ("bare.ignore", true),
        ("kept", true),
        // no layers: a name that the spec reserves, and what was put away before
        ("launch", true),
        ("x.ignore", true),
        ("x.ignore.ignore", false),
        ("missing.ignore", false),
    ] {
        assert_eq!(world.exists(&format!("layers/a/{path}")), there, "{path}");
    }
    assert!(world.path("layers/a/bare.ignore").is_dir());
}

const FORMATS: &str = "sbom-formats = [\"application/vnd.cyclonedx+json;version=1.4\", \"application/spdx+json\"]\n";

#[test]
fn sboms_are_collected() {
    let world = World::new();
    world.write("layers/sbom/launch/stale", "");
    let body = "cd $1\nfor l in build.sbom.cdx launch.sbom.spdx jdk.21.sbom.cdx tmp.sbom.cdx gone.sbom.cdx; do echo $l > $l.json; done\n\
        printf '[types]\nlaunch = true\ncache = true' > jdk.21.toml\nprintf '[types]\nbuild = true' > tmp.toml\nchmod 640 build.sbom.cdx.json";
    run_script(&world, "0.12", FORMATS, body).unwrap();
    for (path, text) in [
        ("build/a/sbom.cdx.json", "build.sbom.cdx\n"),
        ("launch/a/sbom.spdx.json", "launch.sbom.spdx\n"),
        ("launch/a/jdk.21/sbom.cdx.json", "jdk.21.sbom.cdx\n"),
        ("cache/a/jdk.21/sbom.cdx.json", "jdk.21.sbom.cdx\n"),
        ("build/a/tmp/sbom.cdx.json", "tmp.sbom.cdx\n"),
        ("launch/sbom.legacy.json", "null\n"),
        ("build/sbom.legacy.json", "null\n"),
    ] {
        assert_eq!(world.read(&format!("layers/sbom/{path}")), text);
    }
    for path in ["launch/stale", "build/a/gone", "launch/a/gone"] {
        assert!(!world.exists(&format!("layers/sbom/{path}")), "{path}");
    }
}

#[test]
fn the_legacy_bill_of_materials_has_a_place_by_api() {
    let bom = |file: &str| format!("printf '[[bom]]\nname = \"of-{file}\"\n' > $1/{file}.toml\n");
    let body = bom("launch") + &bom("build");
    for (api, file, metadata) in
        [("0.7", false, true), ("0.8", false, true), ("0.9", true, false), ("0.12", true, false)]
    {
        let world = World::new();
        let built = run_script(&world, api, "", &body).unwrap();
        assert_eq!(built.bom.iter().any(|item| item.0.name == "of-launch"), metadata, "{api}");
        assert_eq!(world.exists("layers/sbom/launch/sbom.legacy.json"), file, "{api}");
        if file {
            assert!(world.read("layers/sbom/build/sbom.legacy.json").contains("\"name\":\"of-build\""));
        }
    }
    let world = World::new();
    run_script(&world, "0.7", FORMATS, "echo > $1/launch.sbom.cdx.json").unwrap();
    assert!(!world.exists("layers/sbom"), "SBOM files came with Platform API 0.8");
}

#[test]
fn absurd_output_is_refused() {
    for (body, sentence, expected) in [
        ("exit 7", "exit status 7", Some(ExitCode::BuildpackBuild)),
        ("kill -9 $$", "signal: killed", Some(ExitCode::BuildpackBuild)),
        ("mkfifo $1/launch.toml", "a/launch.toml: not a regular file", None),
        ("mkfifo $1/build.toml", "a/build.toml: not a regular file", None),
        ("mkdir $1/store.toml", "a/store.toml: not a regular file", None),
        ("ln -s /dev/zero $1/jdk.toml", "a/jdk.toml: not a regular file", None),
        ("truncate -s 1T $1/launch.toml", "a/launch.toml: larger than", None),
        ("printf '\\377' > $1/launch.toml", "a/launch.toml: not valid UTF-8", None),
        ("echo '[[[' > $1/jdk.toml", "failed to decode layer metadata file: ", None),
        (
            "echo 'launch = true' > $1/jdk.toml",
            "the launch, cache and build flags should be in the types table of ",
            None,
        ),
        ("touch $1/.toml", "'' cannot be the name of a layer", None),
        ("touch $1/...toml", "'..' cannot be the name of a layer", None),
        ("touch $1/$(printf '\\377').toml", "must be UTF-8", None),
        ("echo > $1/launch.sbom.cdx.json", "undeclared SBOM media type: 'application/vnd.cyclonedx+json'", None),
        ("echo > $1/launch.sbom.x.json", "unsupported SBOM file format", None),
        ("printf '[[unmet]]\nname = \"x\"' > $1/build.toml", "unmet.name 'x' must match a requested dependency", None),
        (
            "printf '[[bom]]\nname = \"x\"\nversion = \"1\"' > $1/launch.toml",
            "bom entry 'x' has a top level version",
            None,
        ),
        ("rmdir $1; ln -s / $1", "layers/a is a symbolic link", None),
        ("rmdir $1; touch $1", "layers/a is not a directory", None),
        (
            "ln -s / $1/jdk; printf '[types]\nlaunch = true' > $1/jdk.toml",
            "layers/a/jdk is a symbolic link to /, outside of the layers directory",
            None,
        ),
    ] {
        let world = World::new();
        let error = run_script(&world, "0.12", "", body).unwrap_err();
        assert_eq!(code(&error), expected, "{body}: {error:#}");
        assert!(format!("{error:#}").contains(sentence), "{body}: {error:#}");
    }
}

/// It is in no image and in no cache: it may be what another buildpack sees of this one's own files.
#[test]
fn a_layer_for_the_build_alone_may_be_a_link_out() {
    let world = World::new();
    run_script(&world, "0.12", "", "ln -s / $1/tools; printf '[types]\nbuild = true' > $1/tools.toml").unwrap();
    // A layer of this name is no legacy file of another one.
    run_script(&world, "0.12", "", "mkdir -p $1/x $1/x.sha; printf '[types]\nbuild = true' > $1/x.toml").unwrap();
}

#[test]
fn links_do_not_lead_us_out_of_the_layers_directory() {
    let world = World::new();
    world.write("outside/file", "kept");
    let outside = world.path("outside");
    // The SBOM directory, a destination in it, and a layer for nothing with its new name.
    let body = format!(
        "ln -s {0} $1/../sbom; ln -s {0} $1/gone; touch $1/gone.toml; ln -s {0} $1/gone.ignore; echo > $1/launch.sbom.cdx.json",
        outside.display()
    );
    run_script(&world, "0.12", FORMATS, &body).unwrap();
    let listing: Vec<_> = fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(listing, ["file"]);
    assert!(world.path("layers/sbom").symlink_metadata().unwrap().is_dir());
    assert!(world.path("layers/a/gone.ignore").symlink_metadata().unwrap().is_symlink());

    // Another buildpack's directory, before that one runs.
    symlink(&outside, world.path("layers/b")).unwrap();
    world.buildpack("b", "0.10", "", &[("build", "touch $1/hit")]);
    let error = run(&world, "0.12", &["b"], Plan::default()).unwrap_err();
    assert!(error.to_string().contains("layers/b is a symbolic link"), "{error:#}");
    assert!(!world.exists("outside/hit"));

    // The place of metadata.toml, which is written after all of them.
    for body in ["ln -s {0} $1/../config", "mkdir $1/../config; ln -s {0}/file $1/../config/metadata.toml"] {
        let world = World::new();
        let error = run_script(&world, "0.12", "", &body.replace("{0}", &outside.display().to_string())).unwrap_err();
        assert!(
            error.to_string().contains("layers/config") && error.to_string().contains("symbolic link"),
            "{error:#}"
        );
    }
}

#[test]
fn apis_of_the_group_are_checked() {
    let world = World::new();
    let mut group = Group { buildpacks: vec![entry("a")], extensions: Vec::new() };
    group.buildpacks[0].api = "0.2".to_owned();
    let error = build(&world.builder("0.12"), &group, Plan::default(), None).unwrap_err();
    assert_eq!(code(&error), Some(ExitCode::BuildpackApi));
}

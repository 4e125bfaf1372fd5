//! What builder makes of the files that buildpacks leave: metadata.toml and the SBOM directory.
//! platform.md "builder" and "metadata.toml"; buildpack.md "launch.toml" and "Software-Bill-of-Materials".

mod build_dirs;

use acceptance::{
    run::{BUILDPACK_APIS, PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::{Bytes, File},
};
use build_dirs::{BuildDirs, snapshot};

/// Buildpacks of this API, called a, b, ..., whose builds leave these files in their layers directories.
fn with_files(api: &str, toml: &str, buildpacks: &[&[(&str, &str)]]) -> BuildDirs {
    let dirs = BuildDirs::new();
    let ids = ["a", "b", "c"];
    for (id, files) in ids.iter().zip(buildpacks) {
        let write = |(name, text): &(&str, &str)| format!("cat >\"$1/{name}\" <<'END'\n{text}\nEND\n");
        dirs.buildpack(id, api, toml, "", &files.iter().map(write).collect::<String>());
    }
    let group: Vec<(&str, &str)> = ids.iter().zip(buildpacks).map(|(id, _)| (*id, api)).collect();
    dirs.group(&group, "");
    dirs
}

/// The text of a process; the command in the shape that this Buildpack API has.
fn process(api: &str, r#type: &str, command: &str, more: &str) -> String {
    let command = if at_least(api, "0.9") { format!("[\"{command}\"]") } else { format!("\"{command}\"") };
    format!("[[processes]]\ntype = \"{type}\"\ncommand = {command}\n{more}\n")
}

#[test]
fn processes_of_all_buildpacks() {
    for api in BUILDPACK_APIS {
        let a = process(api, "web", "a-web", "args = [\"x\", \"y\"]\ndefault = true")
            + &process(api, "only-a", "a-only", "");
        let more = if at_least(api, "0.8") { "working-dir = \"/somewhere\"" } else { "" };
        let b = process(api, "web", "b-web", "default = true") + &process(api, "b", "b", more);
        let dirs = with_files(api, "", &[&[("launch.toml", &a)], &[("launch.toml", &b)]]);
        for platform_api in PLATFORM_APIS {
            run(&mut dirs.builder(platform_api)).ok();
            let metadata = dirs.toml("layers/config/metadata.toml");
            let of = |n: usize| &metadata["processes"][n];
            let types: Vec<&str> =
                metadata["processes"].as_array().unwrap().iter().map(|p| p["type"].as_str().unwrap()).collect();
            assert_eq!(types, ["b", "only-a", "web"], "sorted; later buildpacks replace processes");
            assert_eq!(metadata["buildpack-default-process-type"].as_str(), Some("web"));
            let about = format!("platform {platform_api}, buildpack {api}: {metadata}");
            let (id, text) = (of(2)["buildpack-id"].as_str(), of(2)["command"].to_string());
            assert_eq!(id, Some("b"), "{about}");
            let expected = if at_least(platform_api, "0.10") { "[\"b-web\"]" } else { "\"b-web\"" };
            assert_eq!(text, expected, "{about}");
            assert_eq!(of(2)["direct"].as_bool(), Some(at_least(api, "0.9")), "{about}");
            assert!(of(2).get("default").is_none(), "{about}");
            let working_dir = of(0).get("working-dir").and_then(toml::Value::as_str);
            assert_eq!(working_dir, at_least(api, "0.8").then_some("/somewhere"), "{about}");
            assert_eq!(of(1)["buildpack-id"].as_str(), Some("a"), "{about}");
        }
    }
}

/// The file is a layer of the app image. Written like this by both lifecycles, it is the same layer in both's images.
#[test]
fn metadata_toml_has_the_bytes_that_are_known() {
    let launch = "[[processes]]\ntype = \"web\"\ncommand = [\"java\", \"-jar \\\"x\\\"\\t<y>\"]\nargs = [\"a\", \"b'c&\"]\ndefault = \
                  true\nworking-dir = \"/w\"\n[[processes]]\ntype = \"task\"\ncommand = [\"run\"]\n[[processes]]\ntype = \
                  \"empty\"\ncommand = [\"run\"]\nargs = []\n[[labels]]\nkey = \"k\"\nvalue = \"v\\nw\"\n[[slices]]\npaths = [\"x/*\", \"y\"]";
    let dirs = with_files("0.10", "", &[&[("launch.toml", launch)], &[]]);
    let known = r#"buildpack-default-process-type = "web"

[[buildpacks]]
  id = "a"
  version = "1.0.0"
  api = "0.10"

[[buildpacks]]
  id = "b"
  version = "1.0.0"
  api = "0.10"

[[labels]]
  key = "k"
  value = "v\nw"

[[processes]]
  type = "empty"
  command = ["run"]
  args = []
  direct = true
  buildpack-id = "a"

[[processes]]
  type = "task"
  command = ["run"]
  direct = true
  buildpack-id = "a"

[[processes]]
  type = "web"
  command = ["java", "-jar \"x\"\t\u003cy\u003e"]
  args = ["a", "b'c&"]
  direct = true
  buildpack-id = "a"
  working-dir = "/w"

[[slices]]
  paths = ["x/*", "y"]
"#;
    let before_0_10 = known
        .replace("command = [\"run\"]\n  direct", "command = \"run\"\n  args = []\n  direct")
        .replace("command = [\"run\"]", "command = \"run\"")
        .replace(
            "command = [\"java\", \"-jar \\\"x\\\"\\t\\u003cy\\u003e\"]\n  args = [",
            "command = \"java\"\n  args = [\"-jar \\\"x\\\"\\t<y>\", ",
        );
    for api in PLATFORM_APIS.into_iter().filter(|api| !at_least(api, "0.15")) {
        run(&mut dirs.builder(api)).ok();
        let expected = if at_least(api, "0.10") { known } else { &before_0_10 };
        assert_eq!(dirs.read("layers/config/metadata.toml"), expected, "at {api}");
    }
    let empty = with_files("0.10", "", &[&[]]);
    run(&mut empty.builder("0.14")).ok();
    let known = "processes = []\n\n[[buildpacks]]\n  id = \"a\"\n  version = \"1.0.0\"\n  api = \"0.10\"\n";
    assert_eq!(empty.read("layers/config/metadata.toml"), known);
}

#[test]
fn commands_of_several_words() {
    let launch = "[[processes]]\ntype = \"web\"\ncommand = [\"run\", \"always\"]\nargs = [\"default\"]\n[[processes]]\ntype = \
                  \"bare\"\ncommand = [\"run\"]";
    for api in BUILDPACK_APIS.into_iter().filter(|api| at_least(api, "0.9")) {
        let dirs = with_files(api, "", &[&[("launch.toml", launch)]]);
        for platform_api in PLATFORM_APIS {
            run(&mut dirs.builder(platform_api)).ok();
            let process = dirs.toml("layers/config/metadata.toml")["processes"][1].clone();
            let (command, args) = (process["command"].to_string(), process["args"].to_string());
            // Before 0.10 there is one command; its other words become arguments.
            if at_least(platform_api, "0.10") {
                assert_eq!((&*command, &*args), ("[\"run\", \"always\"]", "[\"default\"]"), "at {platform_api}");
            } else {
                assert_eq!((&*command, &*args), ("\"run\"", "[\"always\", \"default\"]"), "at {platform_api}");
            }
        }
    }
}

#[test]
fn the_default_process() {
    let old = |default: bool| process("0.10", "web", "x", &format!("default = {default}"));
    let rows: &[(&[String], Option<&str>)] = &[
        (&[old(false)], None),
        (&[old(true)], Some("web")),
        (&[old(true), process("0.10", "other", "x", "default = true")], Some("other")),
        (&[old(true), process("0.10", "other", "x", "")], Some("web")),
        // A process that takes the place of the default and is none itself.
        (&[old(true), old(false)], None),
    ];
    for (launches, expected) in rows {
        let files: Vec<[(&str, &str); 1]> = launches.iter().map(|text| [("launch.toml", text.as_str())]).collect();
        let files: Vec<&[(&str, &str)]> = files.iter().map(<[_; 1]>::as_slice).collect();
        let dirs = with_files("0.10", "", &files);
        let outcome = run(&mut dirs.builder("0.12")).ok();
        let metadata = dirs.toml("layers/config/metadata.toml");
        let found = metadata.get("buildpack-default-process-type").and_then(toml::Value::as_str);
        assert_eq!(found, *expected, "{launches:?}");
        if launches.len() == 2 && expected.is_none() {
            outcome.says("redefining the following default process type with a process not marked as default: web");
        }
    }
    let two = old(true) + &process("0.10", "other", "x", "default = true");
    let dirs = with_files("0.10", "", &[&[("launch.toml", &two)]]);
    run(&mut dirs.builder("0.12")).exits(52).says("multiple default process types aren't allowed");
}

#[test]
fn launch_toml_must_be_that_of_the_buildpack_api() {
    for api in BUILDPACK_APIS {
        let other = if at_least(api, "0.9") { "command = \"x\"" } else { "command = [\"x\"]" };
        let mut bad = vec![other, "command = 1", "args = \"x\"", "type = 1"];
        if at_least(api, "0.9") {
            bad.push("command = [\"x\"]\ndirect = false");
        }
        for keys in bad {
            let text = format!("[[processes]]\ntype = \"web\"\n{keys}").replace("type = \"web\"\ntype", "type");
            let dirs = with_files(api, "", &[&[("launch.toml", &text)]]);
            let outcome = run(&mut dirs.builder("0.12")).exits(52);
            if keys.ends_with("direct = false") {
                outcome.says("process.direct is not supported on this buildpack version");
            } else if !may_differ("the reference does not name the file") {
                outcome.says(&dirs.text("layers/a/launch.toml"));
            }
        }
        let working_dir = process(api, "web", "x", "working-dir = \"/x\"");
        let dirs = with_files(api, "", &[&[("launch.toml", &working_dir)]]);
        let outcome = run(&mut dirs.builder("0.12")).ok();
        if !at_least(api, "0.8") {
            outcome.says("Warning");
            assert!(dirs.toml("layers/config/metadata.toml")["processes"][0].get("working-dir").is_none());
        }
    }
}

#[test]
fn labels_and_slices_in_the_order_of_the_buildpacks() {
    let a =
        "[[labels]]\nkey = \"k\"\nvalue = \"a\"\n[[slices]]\npaths = [\"*.a\", \"a/**\"]\n[[slices]]\npaths = [\"x\"]";
    let b = "[[labels]]\nkey = \"k\"\nvalue = \"b\"\n[[slices]]\npaths = [\"b\"]";
    for api in BUILDPACK_APIS {
        let dirs = with_files(api, "", &[&[("launch.toml", a)], &[("launch.toml", b)]]);
        run(&mut dirs.builder("0.12")).ok();
        let expected: toml::Table = toml::from_str(
            "labels = [{ key = \"k\", value = \"a\" }, { key = \"k\", value = \"b\" }]\nslices = [{ paths = [\"*.a\", \
             \"a/**\"] }, { paths = [\"x\"] }, { paths = [\"b\"] }]",
        )
        .unwrap();
        let found = dirs.toml("layers/config/metadata.toml");
        assert_eq!((&found["labels"], &found["slices"]), (&expected["labels"], &expected["slices"]));
    }
}

#[test]
fn exec_env_of_processes() {
    let launch = "[[processes]]\ntype = \"web\"\ncommand = [\"x\"]\nexec-env = [\"test\", \"production\"]";
    let dirs = with_files("0.12", "", &[&[("launch.toml", launch)]]);
    run(&mut dirs.builder("0.15")).ok();
    let process = dirs.toml("layers/config/metadata.toml")["processes"][0].clone();
    assert_eq!(process["exec-env"].to_string(), "[\"test\", \"production\"]");
}

#[test]
fn the_same_build_writes_the_same_metadata() {
    let launch = process("0.10", "web", "x", "") + &process("0.10", "a", "x", "") + &process("0.10", "z", "x", "");
    let dirs = with_files("0.10", "homepage = \"https://acme.test\"", &[&[("launch.toml", &launch)], &[]]);
    for api in PLATFORM_APIS {
        run(&mut dirs.builder(api)).ok();
        let first = dirs.read("layers/config/metadata.toml");
        run(&mut dirs.builder(api)).ok();
        assert_eq!(dirs.read("layers/config/metadata.toml"), first, "at {api}");
    }
}

#[test]
fn sboms_are_collected() {
    let formats = "sbom-formats = [\"application/vnd.cyclonedx+json;version=1.4\", \"application/spdx+json\", \
                   \"application/vnd.syft+json\"]";
    let files: &[(&str, &str)] = &[
        ("launch.sbom.cdx.json", "launch"),
        ("build.sbom.spdx.json", "build"),
        ("l.toml", "[types]\nlaunch = true"),
        ("l.sbom.syft.json", "l"),
        ("b.toml", "[types]\nbuild = true"),
        ("b.sbom.cdx.json", "b"),
        ("lc.toml", "[types]\nlaunch = true\ncache = true"),
        ("lc.sbom.cdx.json", "lc"),
        ("no-toml.sbom.cdx.json", "lost"),
    ];
    for api in BUILDPACK_APIS {
        let dirs = with_files(api, formats, &[files]);
        for platform_api in PLATFORM_APIS {
            dirs.write(&[("layers/sbom/old", File("of an earlier build"))]);
            run(&mut dirs.builder(platform_api)).ok();
            let root = dirs.path("layers/sbom");
            let found: Vec<(String, String)> = if root.exists() {
                let files = snapshot(&root).into_iter();
                let relative =
                    |path: std::path::PathBuf| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.map(|(p, bytes)| (relative(p), String::from_utf8(bytes).unwrap().trim().to_owned())).collect()
            } else {
                Vec::new()
            };
            let mut expected = vec![];
            if at_least(platform_api, "0.8") {
                expected = vec![
                    ("build/a/b/sbom.cdx.json", "b"),
                    ("build/a/sbom.spdx.json", "build"),
                    ("cache/a/lc/sbom.cdx.json", "lc"),
                    ("launch/a/l/sbom.syft.json", "l"),
                    ("launch/a/lc/sbom.cdx.json", "lc"),
                    ("launch/a/sbom.cdx.json", "launch"),
                ];
            }
            if at_least(platform_api, "0.9") {
                expected.extend([("build/sbom.legacy.json", "null"), ("launch/sbom.legacy.json", "null")]);
                expected.sort_unstable();
            }
            let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(found, expected, "platform {platform_api}, buildpack {api}");
        }
    }
    let dirs = with_files("0.10", "", &[&[("launch.sbom.cdx.json", "{}")]]);
    run(&mut dirs.builder("0.12"))
        .exits(52)
        .says("for buildpack: 'a@1.0.0': undeclared SBOM media type: 'application/vnd.cyclonedx+json'");
    let dirs = with_files("0.10", formats, &[&[("launch.sbom.other.json", "{}")]]);
    run(&mut dirs.builder("0.12")).exits(52).says("unsupported SBOM file format");
}

#[test]
fn the_legacy_bill_of_materials() {
    let launch = "[[bom]]\nname = \"dep\"\n[bom.metadata]\nversion = \"1\"\nn = 1";
    let build = "[[bom]]\nname = \"tool\"";
    for api in BUILDPACK_APIS {
        let dirs = with_files(api, "", &[&[("launch.toml", launch), ("build.toml", build)]]);
        for platform_api in PLATFORM_APIS {
            run(&mut dirs.builder(platform_api)).ok().says("Warning");
            let metadata = dirs.toml("layers/config/metadata.toml");
            if at_least(platform_api, "0.9") {
                let json = |path: &str| -> serde_json::Value { serde_json::from_str(&dirs.read(path)).unwrap() };
                let by = serde_json::json!({ "id": "a", "version": "1.0.0" });
                let found = json("layers/sbom/launch/sbom.legacy.json");
                assert_eq!((&found[0]["name"], &found[0]["buildpack"]), (&"dep".into(), &by), "{found}");
                assert_eq!(found[0]["metadata"], serde_json::json!({ "version": "1", "n": 1 }), "{found}");
                assert_eq!(json("layers/sbom/build/sbom.legacy.json")[0]["name"], "tool");
                assert!(metadata.get("bom").is_none());
            } else {
                let entry = &metadata["bom"][0];
                assert_eq!((entry["name"].as_str(), entry["buildpack"]["id"].as_str()), (Some("dep"), Some("a")));
            }
        }
    }
    let dirs = with_files("0.10", "", &[&[("launch.toml", "[[bom]]\nname = \"x\"\nversion = \"1\"")]]);
    run(&mut dirs.builder("0.12")).exits(52).says("bom entry 'x' has a top level version which is not allowed");
}

#[test]
fn store_toml_is_left_for_exporter() {
    let dirs = with_files("0.10", "", &[&[]]);
    dirs.write(&[("layers/a/store.toml", Bytes(b"[metadata]\nx = 1\n"))]);
    run(&mut dirs.builder("0.12")).ok();
    assert_eq!(dirs.read("layers/a/store.toml"), "[metadata]\nx = 1\n");
}

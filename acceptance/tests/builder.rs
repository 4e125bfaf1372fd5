//! builder, from outside: how it calls `bin/build`, what it gives on from one to the next, and when it stops.
//! platform.md "builder"; buildpack.md "Phase #3: Build".

mod build_dirs;

use acceptance::{
    run::{BUILDPACK_APIS, PLATFORM_APIS, at_least, command, may_differ, run},
    tree::Entry::{Dir, File},
};
use build_dirs::{BuildDirs, ids};

/// One buildpack `a` of this API with this build script, in group.toml with an empty plan.
fn with_build(api: &str, script: &str) -> BuildDirs {
    let dirs = BuildDirs::new();
    dirs.buildpack("a", api, "", "", script);
    dirs.group(&[("a", api)], "");
    dirs
}

#[test]
fn arguments_directory_and_input() {
    let script = "{ pwd -P; echo \"$#\"; echo \"$0\"; echo \"$1\"; echo \"$2\"; ls -l \"$3\" | cut -c1-10; wc -c <\"$3\"; cat; \
                  readlink /proc/self/fd/0; } >said; echo \"$3\" >plan; test -d \"$1\" && test -w \"$1\"";
    for api in BUILDPACK_APIS {
        let dirs = BuildDirs::new();
        dirs.buildpack("acme/a", api, "", "", script);
        dirs.group(&[("acme/a", api)], "");
        run(&mut dirs.builder("0.12")).ok();
        let root = dirs.text("buildpacks/acme_a/1.0.0");
        let expected = format!(
            "{}\n3\n{root}/bin/build\n{}\n{}\n-rw-------\n0\n/dev/null\n",
            dirs.text("app"),
            dirs.text("layers/acme_a"),
            dirs.text("platform")
        );
        let said = dirs.read("app/said");
        // The reference lets other users read the plan.
        let said = if may_differ("modes of the plan file") { said.replace("-rw-r--r--", "-rw-------") } else { said };
        assert_eq!(said, expected, "at {api}");
        let plan = dirs.read("app/plan");
        assert!(!std::path::Path::new(plan.trim()).exists() && dirs.list("tmp").is_empty(), "{plan}");
    }
}

#[test]
fn variables() {
    for platform_api in PLATFORM_APIS {
        for api in BUILDPACK_APIS {
            let dirs = with_build(api, "echo \"$3\" >plan; cat /proc/$$/environ >env");
            let target = "[run-image]\nreference = \"x\"\n[run-image.target]\nos = \"linux\"\narch = \
                          \"arm\"\narch-variant = \"v7\"\n[run-image.target.distro]\nname = \"ubuntu\"\nversion = \"22.04\"";
            dirs.write(&[
                ("layers/analyzed.toml", File(target)),
                ("platform/env/USERS", File("of the user")),
                ("config/env/OPERATORS", File("of the operator")),
            ]);
            let mut call = dirs.builder(platform_api);
            call.env("CNB_REGISTRY_AUTH", "{\"secret\": 1}").env("LANG", "C").env("USER", "me").env("TERM", "dumb");
            call.env("CNB_STACK_ID", "stack").env("LD_LIBRARY_PATH", "/lib");
            run(&mut call).ok();
            let mut expected = vec![
                format!("CNB_BUILDPACK_DIR={}", dirs.text("buildpacks/a/1.0.0")),
                "CNB_STACK_ID=stack".into(),
                "LD_LIBRARY_PATH=/lib".into(),
                "OPERATORS=of the operator".into(),
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                "USERS=of the user".into(),
            ];
            if at_least(api, "0.8") {
                expected.push(format!("CNB_BP_PLAN_PATH={}", dirs.read("app/plan").trim()));
                expected.push(format!("CNB_LAYERS_DIR={}", dirs.text("layers/a")));
                expected.push(format!("CNB_PLATFORM_DIR={}", dirs.text("platform")));
            }
            if at_least(api, "0.10") {
                expected.extend(
                    ["OS=linux", "ARCH=arm", "ARCH_VARIANT=v7", "DISTRO_NAME=ubuntu", "DISTRO_VERSION=22.04"]
                        .map(|rest| format!("CNB_TARGET_{rest}")),
                );
            }
            if at_least(api, "0.12") {
                expected.push("CNB_EXEC_ENV=production".into());
            }
            expected.sort();
            let found = dirs.read("app/env");
            let mut found: Vec<&str> = found.split_terminator('\0').collect();
            found.sort_unstable();
            assert_eq!(found, expected, "platform {platform_api}, buildpack {api}");
        }
    }
}

#[test]
fn each_gets_what_it_provides_and_nobody_has_met() {
    let plan = "[[entries]]\n[[entries.providers]]\nid = \"a\"\nversion = \"1.0.0\"\n[[entries.providers]]\nid = \
                \"b\"\nversion = \"1.0.0\"\n[[entries.requires]]\nname = \"both\"\n[entries.requires.metadata]\nn = \
                1\nf = 1.0\n[[entries.requires]]\nname = \"both\"\n[[entries]]\n[[entries.providers]]\nid = \
                \"a\"\nversion = \"1.0.0\"\n[[entries.providers]]\nid = \"b\"\nversion = \
                \"1.0.0\"\n[[entries.requires]]\nname = \"unmet\"\n[[entries]]\n[[entries.providers]]\nid = \
                \"b\"\nversion = \"1.0.0\"\n[[entries.requires]]\nname = \"last\"\n";
    for api in BUILDPACK_APIS {
        let dirs = BuildDirs::new();
        let unmet = "printf '[[unmet]]\\nname = \"unmet\"\\n' >\"$1/build.toml\"";
        dirs.buildpack("a", api, "", "", &format!("cat \"$3\" >plan-a; {unmet}"));
        dirs.buildpack("b", api, "", "", "cat \"$3\" >plan-b");
        dirs.buildpack("c", api, "", "", "cat \"$3\" >plan-c");
        dirs.group(&[("a", api), ("b", api), ("c", api)], plan);
        run(&mut dirs.builder("0.12")).ok();
        let expect = |text: &str| -> toml::Table { toml::from_str(text).unwrap() };
        let a =
            "entries = [{ name = \"both\", metadata = { n = 1, f = 1.0 } }, { name = \"both\" }, { name = \"unmet\" }]";
        assert_eq!(dirs.toml("app/plan-a"), expect(a));
        assert_eq!(dirs.toml("app/plan-b"), expect("entries = [{ name = \"unmet\" }, { name = \"last\" }]"));
        assert_eq!(dirs.read("app/plan-c"), "");
        let wrong = "printf '[[unmet]]\\nname = \"other\"\\n' >\"$1/build.toml\"";
        dirs.buildpack("a", api, "", "", wrong);
        run(&mut dirs.builder("0.12")).exits(52).says("unmet.name 'other' must match a requested dependency");
    }
}

#[test]
fn the_first_build_that_fails_ends_it() {
    for api in PLATFORM_APIS {
        let dirs = BuildDirs::new();
        dirs.buildpack("a", "0.10", "", "", "echo said by a; mkdir \"$1/layer\"");
        dirs.buildpack("b", "0.10", "", "", "echo said by b >&2; exit 7");
        dirs.buildpack("c", "0.10", "", "", "touch ran");
        dirs.group(&[("a", "0.10"), ("b", "0.10"), ("c", "0.10")], "");
        let outcome = run(&mut dirs.builder(api)).exits(51).says("said by a\n").says("said by b\n");
        assert!(outcome.all().ends_with("ERROR: failed to build: exit status 7\n"), "{}", outcome.all());
        assert!(!dirs.exists("app/ran") && !dirs.exists("layers/config/metadata.toml"));
        assert!(dirs.list("tmp").is_empty());
        assert!(outcome.stdout().contains("said by a\nsaid by b\n"), "{}", outcome.all());
    }
    let dirs = with_build("0.10", "kill -9 $$");
    run(&mut dirs.builder("0.12")).exits(51).says("failed to build: signal: killed");
    dirs.remove("buildpacks/a/1.0.0/bin/build");
    run(&mut dirs.builder("0.12")).exits(51).says("bin/build: no such file or directory");
}

#[test]
fn what_a_build_says_is_passed_on_as_it_is() {
    let dirs = with_build("0.10", "printf 'a%%s\\033[1m\\r\\n\\377no end'; printf later >&2");
    for level in ["debug", "info", "error"] {
        let mut call = dirs.builder("0.12");
        for said in [&b"a%s\r\n\xffno end"[..], b"a%s\x1b[1m\r\n\xffno end"] {
            let outcome = run(call.env("CNB_LOG_LEVEL", level)).ok();
            assert!(outcome.stdout.windows(said.len()).any(|part| part == said), "{level}: {}", outcome.all());
            call.env_remove("CNB_NO_COLOR");
        }
    }
    let debug = run(dirs.builder("0.12").env("CNB_LOG_LEVEL", "debug")).ok().all();
    let mut at = 0;
    for line in [
        "Starting builder...",
        "Running build for buildpack a@1.0.0",
        "Looking up buildpack",
        "Finding plan",
        "Creating plan directory",
        "Preparing paths",
        "Running build command",
        "Processing layers",
        "Updating environment",
        "Reading output files",
        "Updating buildpack processes",
        "Updating process list",
        "Finished running build for buildpack a@1.0.0",
        "Copying SBOM files",
        "Listing processes",
    ] {
        at += debug[at..].find(line).unwrap_or_else(|| panic!("no '{line}' in its place in\n{debug}"));
    }
    let quiet = run(with_build("0.10", "").builder("0.12").env("CNB_LOG_LEVEL", "error")).ok();
    assert_eq!(quiet.all(), "");
}

/// As with `exec > >(filter)` in bash, which does not wait for the filter.
#[test]
fn what_is_said_late_is_waited_for_and_everything_is_in_order() {
    let many = "for n in $(seq 1 50); do echo $n; echo $n >&2; done";
    let dirs = with_build("0.10", &format!("{many}; (sleep 0.5; echo late; echo made >late) & exit 0"));
    let outcome = run(dirs.builder("0.12").env("CNB_LOG_LEVEL", "error")).ok();
    let lines: Vec<_> = (1..=50).flat_map(|n| [n.to_string(), n.to_string()]).chain(["late".to_owned()]).collect();
    assert_eq!(outcome.stdout().lines().collect::<Vec<_>>(), lines);
    assert_eq!(dirs.read("app/late"), "made\n");
    if !may_differ("the reference waits for it for ever") {
        let dirs = with_build("0.10", "sleep 300 & echo $! >pid");
        run(&mut dirs.builder("0.12")).ok();
        run(command("kill").arg(dirs.read("app/pid").trim())).ok();
    }
}

#[test]
fn layers_for_nothing_are_put_aside() {
    let script = "for l in build launch cache all none; do mkdir \"$1/$l\"; touch \"$1/$l/file\"; done
        for l in build launch cache; do printf '[types]\\n%s = true\\n' $l >\"$1/$l.toml\"; done
        printf '[types]\\nbuild = true\\nlaunch = true\\ncache = true\\n[metadata]\\nx = 1\\n' >\"$1/all.toml\"
        printf '[types]\\nbuild = false\\n[metadata]\\nx = 1\\n' >\"$1/none.toml\"
        echo >\"$1/no-directory.toml\"";
    for api in BUILDPACK_APIS {
        // `build` and `launch` are names of files of the buildpack, not of layers.
        let script =
            script.replace("build launch cache all", "b l cache all").replace("in build launch cache;", "in cache;");
        let dirs = with_build(api, &script);
        run(&mut dirs.builder("0.12")).ok();
        let names = dirs.list("layers/a");
        for name in ["all", "cache", "none.ignore", "none.toml", "no-directory.toml"] {
            assert!(names.contains(&name.to_owned()), "{name}: {names:?}");
        }
        assert!(!names.contains(&"none".to_owned()));
        if !may_differ("the reference leaves directories without a file of types where they are") {
            assert!(names.contains(&"b.ignore".to_owned()) && names.contains(&"l.ignore".to_owned()), "{names:?}");
            // What an earlier build put aside is in nobody's way.
            dirs.buildpack("a", api, "", "", "mkdir -p \"$1/none\"; echo 2 >\"$1/none/second\"");
            run(&mut dirs.builder("0.12")).ok();
            assert_eq!(dirs.list("layers/a/none.ignore"), ["second"]);
        }
    }
}

#[test]
fn layer_files_must_be_well_formed() {
    for api in BUILDPACK_APIS {
        for (text, says) in [
            ("build = true", "the launch, cache and build flags should be in the types table of "),
            ("[types]\nbuild = true\n[", "toml"),
            ("[types]\nbuild = \"yes\"", ""),
            ("types = 1", ""),
        ] {
            let dirs = with_build(api, "touch \"$1/kept\"");
            dirs.write(&[("layers/a/layer.toml", File(text))]);
            let outcome = run(&mut dirs.builder("0.12")).exits(52).says("ERROR: failed to build: ").says(says);
            if !may_differ("the reference does not name the file in every case") {
                outcome.says(&dirs.text("layers/a/layer.toml"));
            }
            assert!(!dirs.exists("layers/config/metadata.toml"));
        }
    }
}

#[test]
fn later_buildpacks_see_build_layers() {
    let layer = "l=\"$1/$2\"; mkdir -p \"$l/bin\" \"$l/lib\" \"$l/include\" \"$l/pkgconfig\" \"$l/env\" \"$l/env.build\" \"$l/env.launch\"";
    let first = format!(
        "make() {{ {layer}; printf '[types]\\n%s = true\\n' $3 >\"$1/$2.toml\"; }}
        make \"$1\" one build; make \"$1\" other launch; make \"$1\" two build
        echo -n one >\"$1/one/env/OVER\"; echo -n first >\"$1/one/env/LIST.append\"; echo -n , >\"$1/one/env/LIST.delim\"
        echo -n two >\"$1/two/env/OVER\"; echo -n last >\"$1/two/env/LIST.append\"; echo -n , >\"$1/two/env/LIST.delim\"
        echo -n at-build >\"$1/one/env.build/BUILD.override\"; echo -n no >\"$1/one/env.launch/LAUNCH\"
        echo -n no >\"$1/other/env/OTHER\"; echo -n front >\"$1/two/env/PRE.prepend\"; echo -n : >\"$1/two/env/PRE.delim\"
        echo -n set >\"$1/one/env/FALLBACK.default\"; echo -n no >\"$1/two/env/FALLBACK.default\"; echo -n no >\"$1/one/env/X.unknown\""
    );
    for api in BUILDPACK_APIS {
        let dirs = BuildDirs::new();
        dirs.buildpack("a", api, "", "", &first);
        dirs.buildpack("b", api, "", "", "cat /proc/$$/environ >env");
        dirs.group(&[("a", api), ("b", api)], "");
        dirs.write(&[("platform/env/PATH", File("/users")), ("platform/env/OVER", File("user"))]);
        run(dirs.builder("0.12").env("LIBRARY_PATH", "/had")).ok();
        let a = dirs.text("layers/a");
        let env = dirs.read("app/env");
        let value = |name: &str| {
            let start = format!("{name}=");
            env.split('\0').find_map(|v| v.strip_prefix(start.as_str())).unwrap_or("(unset)")
        };
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(value("PATH"), format!("/users:{a}/two/bin:{a}/one/bin:{path}"), "at {api}");
        assert_eq!(value("LD_LIBRARY_PATH"), format!("{a}/two/lib:{a}/one/lib"));
        assert_eq!(value("LIBRARY_PATH"), format!("{a}/two/lib:{a}/one/lib:/had"));
        assert_eq!(value("CPATH"), format!("{a}/two/include:{a}/one/include"));
        assert_eq!(value("PKG_CONFIG_PATH"), format!("{a}/two/pkgconfig:{a}/one/pkgconfig"));
        for (name, expected) in [
            ("OVER", "user"),
            ("LIST", "first,last"),
            ("BUILD", "at-build"),
            ("LAUNCH", "(unset)"),
            ("OTHER", "(unset)"),
            ("PRE", "front"),
            ("FALLBACK", "set"),
            ("X", "(unset)"),
        ] {
            assert_eq!(value(name), expected, "{name} at {api}");
        }
    }
}

#[test]
fn the_operator_s_variables_come_last() {
    let dirs = with_build("0.10", "cat /proc/$$/environ >env");
    dirs.write(&[
        ("platform/env/SET", File("user")),
        ("platform/env/OVER", File("user")),
        ("platform/env/LIST", File("user")),
        ("config/env/SET", File("operator")),
        ("config/env/UNSET", File("operator")),
        ("config/env/OVER.override", File("operator")),
        ("config/env/LIST.append", File("operator")),
        ("config/env/LIST.delim", File(";")),
        ("config/env/PRE.prepend", File("x")),
        ("config/env/OTHER.unknown", File("x")),
        ("config/env/dir", Dir),
    ]);
    run(&mut dirs.builder("0.12")).ok();
    let env = dirs.read("app/env");
    for variable in ["SET=user", "UNSET=operator", "OVER=operator", "LIST=user;operator", "PRE=x"] {
        assert!(env.split('\0').any(|v| v == variable), "no {variable} in {env:?}");
    }
    assert!(!env.contains("OTHER="), "{env:?}");
}

#[test]
fn inputs_and_the_group() {
    let dirs = with_build("0.10", "");
    for api in ["0.6", "0.13"] {
        dirs.group(&[("a", "0.10"), ("b", api)], "");
        run(&mut dirs.builder("0.12")).exits(12).says(&format!(
            "failed to set API for Buildpack 'b@1.0.0': buildpack API version '{api}' is incompatible with the lifecycle"
        ));
    }
    dirs.write(&[("layers/group.toml", File("[[group]]\nid = \"hello\"\nversion = \"0.0.1\"\n"))]);
    run(&mut dirs.builder("0.12")).exits(12).says("parse buildpack API").says("for buildpack 'hello@0.0.1'");
    // What a platform writes by hand may have more than detector writes.
    let group = "[[group]]\nid = \"a\"\nversion = \"1.0.0\"\napi = \"0.10\"\noptional = true\nextra = 1\n\
                 [[group-extensions]]\nid = \"acme/ext\"\nversion = \"2\"\napi = \"0.10\"\n";
    for api in PLATFORM_APIS {
        dirs.write(&[("elsewhere/group.toml", File(group)), ("elsewhere/plan.toml", File(""))]);
        let mut call = dirs.builder(api);
        call.arg("-group").arg(dirs.path("elsewhere/group.toml")).arg("-plan").arg(dirs.path("elsewhere/plan.toml"));
        run(&mut call).ok();
        let metadata = dirs.toml("layers/config/metadata.toml");
        assert_eq!(ids(metadata.get("buildpacks")), "a");
        if at_least(api, "0.10") {
            assert_eq!(ids(metadata.get("extensions")), "acme/ext", "at {api}");
        }
    }
}

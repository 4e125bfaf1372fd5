//! creator, from outside: from source to an image in a registry or a layout, in one call. platform.md "creator".
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod creator_world;
mod image_world;

use acceptance::{
    image::LayoutImage,
    run::{Outcome, PLATFORM_APIS, as_root, at_least, may_differ, run},
    tree::{
        Entry::{Bytes, Dir, File},
        write_buildpack,
    },
};
use creator_world::{BUILD, creator, creator_with, with_buildpack};
use image_world::{RUN_FILES, World, storage};

/// How many of the layers are not in the other image.
fn new_layers(of: &LayoutImage, other: &LayoutImage) -> usize {
    let others = other.diff_ids();
    of.diff_ids().iter().filter(|id| !others.contains(id)).count()
}

#[test]
fn one_call_makes_the_image() {
    let world = with_buildpack("exit 0", BUILD);
    for api in PLATFORM_APIS {
        let name = format!("app:{}", api.replace('.', "-"));
        let outcome = run(&mut creator(&world, api, &name)).ok();
        let out = outcome.stdout();
        let mut at = 0;
        for line in [
            "===> ANALYZING\n",
            "===> DETECTING\n",
            "acme/jvm 1.0.0\n",
            "===> RESTORING\n",
            "===> BUILDING\n",
            "said by build\n",
            "===> EXPORTING\n",
            "Adding layer 'acme/jvm:both'\n",
            "*** Images (sha256:",
        ] {
            at += out[at..].find(line).unwrap_or_else(|| panic!("no '{line}' in its place at {api} in\n{out}"));
        }
        let image = world.image(&name);
        assert_eq!(world.toml("layers/report.toml")["image"]["digest"].as_str(), world.digest(&name).as_deref());
        assert_eq!(world.toml("layers/group.toml")["group"][0]["id"].as_str(), Some("acme/jvm"));
        assert!(world.exists("layers/plan.toml") && world.exists("layers/analyzed.toml"));
        assert_eq!(image.env("CNB_PLATFORM_API").as_deref(), Some(api));
        assert_eq!(image.config["config"]["Entrypoint"][0], "/cnb/process/web", "at {api}");
        let metadata = image.label_json("io.buildpacks.build.metadata").expect("the build's label");
        assert_eq!(metadata["processes"][0]["type"], "web", "{metadata}");
        let of_app: Vec<String> =
            (RUN_FILES.len()..image.diff_ids().len()).flat_map(|n| image.layer(n)).map(|e| e.path).collect();
        for path in ["app/main.txt", "app/static/page.html", "layers/acme_jvm/both/file", "layers/acme_jvm/run/file"] {
            let path = world.text(path);
            assert!(of_app.contains(&path), "no {path} at {api} in {of_app:?}");
        }
        assert!(!of_app.iter().any(|path| path.contains("/cache/")), "{of_app:?}");
    }
}

#[test]
fn the_same_source_makes_the_same_image_and_one_change_changes_one_layer() {
    let world = with_buildpack("exit 0", BUILD);
    for api in ["0.7", "0.12", "0.15"] {
        world.write(&[("app/static/page.html", File("<p>")), ("app/main.txt", File("hello"))]);
        run(&mut creator(&world, api, "app:one")).ok();
        let first = world.image("app:one");
        // Once beside the first, once on top of it, at another time of day.
        run(&mut creator(&world, api, "app:two")).ok();
        assert_eq!(world.digest("app:two"), world.digest("app:one"), "at {api}");
        let again = run(&mut creator(&world, api, "app:one")).ok();
        assert_eq!(world.digest("app:one").unwrap(), first.digest(), "at {api}");
        for layer in ["acme/jvm:run", "acme/jvm:both"] {
            assert!(again.stdout().contains(&format!("Reusing layer '{layer}'\n")), "{}", again.stdout());
        }
        for (path, text) in [("app/static/page.html", "<p>new"), ("app/main.txt", "changed")] {
            let before = world.image("app:one");
            world.write(&[(path, File(text))]);
            run(&mut creator(&world, api, "app:one")).ok();
            let after = world.image("app:one");
            assert_eq!((new_layers(&after, &before), new_layers(&before, &after)), (1, 1), "{path} at {api}");
        }
    }
}

#[test]
fn buildpacks_see_no_credentials() {
    // What a process of the same user may look for them in: its own environment, and the parent's environment, memory
    // and files.
    let spy = "{ cat /proc/$$/environ; cat /proc/$PPID/environ; ls -l /proc/$PPID/fd; cat /proc/$PPID/maps; \
               head -c 1 /proc/$PPID/mem; cat /proc/$PPID/cmdline; } >>\"SPIED\" 2>&1; true";
    let world = World::new();
    let spy = spy.replace("SPIED", &world.text("app/spied"));
    world.write(&[("platform/env", Dir), ("extensions", Dir)]);
    world.write(&[("cnb/order.toml", File("[[order]]\n[[order.group]]\nid = \"spy\"\nversion = \"1.0.0\"\n"))]);
    write_buildpack(&world.path("buildpacks"), ("spy", "1.0.0", "0.12"), "", &spy, &spy);
    let secret = "Basic dXNlcjpTRUNSRVQ=";
    let auth = format!("{{\"{}\":\"{secret}\"}}", world.host);
    for api in PLATFORM_APIS {
        world.write(&[("app/spied", File(""))]);
        let mut call = creator(&world, api, "app:spied");
        run(call.env("CNB_REGISTRY_AUTH", &auth).env("AWS_SECRET_ACCESS_KEY", secret)).ok();
        let spied = world.read("app/spied");
        assert!(spied.contains("CNB_BUILDPACK_DIR="), "the spy looked: {spied}");
        if !may_differ("the reference lets buildpacks read creator's environment in /proc") {
            assert!(!spied.contains("dXNlcjpTRUNSRVQ"), "at {api}: {spied}");
        }
        // Nor are they in the image or in what is left behind.
        let image = world.image("app:spied");
        assert!(!image.config.to_string().contains("dXNlcjpTRUNSRVQ"));
        for (path, bytes) in files(&world.path("layers")) {
            assert!(!String::from_utf8_lossy(&bytes).contains("dXNlcjpTRUNSRVQ"), "{}", path.display());
        }
    }
}

/// Every file below, with its bytes.
fn files(root: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            found.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    found
}

#[test]
fn as_root_it_becomes_the_user_of_the_build() {
    if !as_root() {
        return;
    }
    let script = "id -u; id -g; id -G; echo \"$HOME ${USER:-unset}\"; grep -h NoNewPrivs /proc/self/status";
    let world = with_buildpack("exit 0", &format!("{{ {script}; }} >\"$1/../../app/said\""));
    run(&mut creator(&world, "0.12", "app")).ok();
    let said = world.read("app/said");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["65534", "65534"]);
    if !may_differ("the reference keeps root's groups") {
        assert_eq!(lines[2], "65534");
    }
    assert!(lines[3].starts_with("/nonexistent "), "{said}");
    // Without a user to become, buildpacks would be root.
    if !may_differ("the reference runs them as root then") {
        let mut call = creator(&world, "0.12", "other");
        call.env("CNB_USER_ID", "0").env("CNB_GROUP_ID", "0");
        run(&mut call).exits(1).says("refusing to run as root");
        assert_eq!(world.digest("other:latest"), None);
    }
    let mut call = creator(&world, "0.12", "other");
    run(call.env("CNB_USER_ID", "3999999")).exits(1).says("failed to set environment for user 3999999");
}

#[test]
fn the_cache_comes_back() {
    let build = "test -f \"$1/both/file\" && echo it was there: $(cat \"$1/both/file\"); mkdir -p \"$1/both\"; echo kept >\"$1/both/file\"
        printf '[types]\\nlaunch = true\\ncache = true\\n' >\"$1/both.toml\"; printf '[metadata]\\nx = 1\\n' >\"$1/store.toml\"";
    for api in PLATFORM_APIS {
        let world = with_buildpack("exit 0", build);
        let again = |flags: &[&str]| {
            world.remove("layers/acme_jvm");
            let mut call = creator_with(&world, api, flags, &world.name("app"));
            run(call.env("CNB_CACHE_DIR", world.path("cache"))).ok()
        };
        assert!(!again(&[]).stdout().contains("it was there"), "at {api}");
        again(&[]).says("it was there: kept\n");
        let skipped = again(&["-skip-restore"]);
        assert!(!skipped.stdout().contains("it was there"), "at {api}");
        assert_eq!(skipped.stdout().contains("===> RESTORING"), at_least(api, "0.10"), "at {api}");
        again(&["-skip-restore=false"]).says("it was there: kept\n");
    }
}

/// Nothing was exported.
#[track_caller]
fn nothing_came_of_it(world: &World, outcome: &Outcome) {
    assert_eq!(world.digest("app:latest"), None, "{}", outcome.all());
    assert!(!world.exists("layers/report.toml"));
    let uploads = storage::open_uploads(&world.registry.storage(), "app");
    assert!(uploads == 0 || may_differ("it waits for no cancellation"), "{uploads}: {}", outcome.all());
    if !may_differ("how many lines an error takes") {
        let lines = outcome.all().lines().filter(|line| line.starts_with("ERROR: failed to ")).count();
        assert_eq!(lines, 1, "{}", outcome.all());
    }
}

#[test]
fn each_step_has_its_exit_code() {
    for (detect, build, code, text) in [
        ("exit 100", "", 20, "failed to detect: no buildpacks participating"),
        ("exit 1", "", 21, "failed to detect: buildpack(s) failed with err"),
        ("exit 0", "exit 3", 51, "failed to build: exit status 3"),
        ("exit 0", "echo '[' >\"$1/launch.toml\"", 52, "failed to build: "),
        ("exit 0", "printf '[[slices]]\\npaths = [\"[\"]' >\"$1/launch.toml\"", 62, "failed to export: "),
    ] {
        for api in ["0.7", "0.15"] {
            let world = with_buildpack(detect, build);
            let outcome = run(&mut creator(&world, api, "app")).exits(code).says(text);
            nothing_came_of_it(&world, &outcome);
        }
    }
    let world = with_buildpack("exit 0", "");
    let order = "[[order]]\n[[order.group]]\nid = \"acme/jvm\"\nversion = \
                 \"1.0.0\"\n[[order-extensions]]\n[[order-extensions.group]]\nid = \"ext\"\nversion = \"1.0.0\"\n";
    let extension = "api = \"0.10\"\n[extension]\nid = \"ext\"\nversion = \"1.0.0\"";
    world.write(&[("cnb/order.toml", File(order)), ("extensions/ext/1.0.0/extension.toml", File(extension))]);
    let outcome = run(&mut creator(&world, "0.13", "app"));
    nothing_came_of_it(&world, &outcome);
    outcome.exits(22).says("detected order contains extensions which is not supported by the creator");
}

#[test]
fn the_run_image_must_be_there() {
    for api in PLATFORM_APIS {
        let world = with_buildpack("exit 0", BUILD);
        world.run_images(&[world.name("gone")]);
        let outcome = run(&mut creator(&world, api, "app"));
        nothing_came_of_it(&world, &outcome);
        let known = [3, 32, 62].contains(&outcome.code());
        assert!(known || may_differ("the reference looks for it only when it exports"), "{}", outcome.all());
        outcome.says(&world.name("gone"));
        world.remove("cnb/run.toml");
        world.remove("cnb/stack.toml");
        run(&mut creator(&world, api, "app")).exits(3);
    }
}

#[test]
fn files_that_are_malformed() {
    for (path, api, code) in [
        ("cnb/run.toml", "0.12", 3),
        ("cnb/stack.toml", "0.11", 3),
        ("cnb/order.toml", "0.12", 1),
        ("cnb/system.toml", "0.15", 1),
        ("layers/project-metadata.toml", "0.12", 1),
        ("layers/acme_jvm/store.toml", "0.12", 52),
    ] {
        for text in [
            &b"[["[..],
            b"\x7fELF\0\xff",
            b"images = 1\norder = 1\nrun-image = 1\nsystem = 1\nsource = 1\nmetadata = 1",
        ] {
            let world = with_buildpack("exit 0", "exit 0");
            world.write(&[(path, Bytes(text))]);
            let outcome = run(&mut creator(&world, api, "app"));
            if may_differ("exit codes and texts of malformed files") {
                continue;
            }
            nothing_came_of_it(&world, &outcome);
            outcome.exits(code).says(&world.text(path));
        }
    }
}

#[test]
fn an_image_may_be_a_layout() {
    let world = with_buildpack("exit 0", BUILD);
    let base = world.path("layout/registry.test/run/latest");
    std::fs::create_dir_all(base.parent().unwrap()).unwrap();
    run(acceptance::run::command("cp").arg("-rL").arg(world.image("run:latest").dir).arg(&base)).ok();
    for api in PLATFORM_APIS.into_iter().filter(|api| at_least(api, "0.12")) {
        let mut layout = creator_with(&world, api, &["-run-image", "registry.test/run"], "registry.test/app");
        layout.env("CNB_USE_LAYOUT", "true").env("CNB_LAYOUT_DIR", world.path("layout"));
        run(&mut layout).exits(1).says("Platform requested experimental feature 'export to OCI layout format'");
        run(layout.env("CNB_EXPERIMENTAL_MODE", "warn")).ok();
        let image = LayoutImage::open(&world.path("layout/registry.test/app/latest"));
        image.validate();
        let first = image.digest();
        run(&mut layout).ok();
        assert_eq!(LayoutImage::open(&image.dir).digest(), first, "the same source, the same image");
        run(&mut creator(&world, api, "app:layout")).ok();
        assert_eq!(world.image("app:layout").diff_ids(), image.diff_ids(), "as in a registry");
    }
}

#[test]
fn colours_are_on_unless_told_not() {
    let world = with_buildpack("exit 100", "");
    let mut call = creator(&world, "0.12", "app");
    let plain = run(&mut call).exits(20).all();
    assert!(!plain.contains('\x1b') && plain.contains("\nWarning: No cached data") || plain.starts_with("Warning: "));
    for word in ["", "false", "0", "perhaps"] {
        run(call.env("CNB_NO_COLOR", word))
            .exits(20)
            .says("\x1b[36m===> ANALYZING\x1b[0m\n")
            .says("\x1b[33;1mWarning: \x1b[0mNo cached data will be used, no cache specified.\n")
            .says("\x1b[31;1mERROR: \x1b[0mfailed to detect: no buildpacks participating\n");
    }
    for word in ["1", "t", "TRUE"] {
        assert!(!run(call.env("CNB_NO_COLOR", word)).exits(20).all().contains('\x1b'), "{word}");
    }
}

//! What a platform prepares for a build: the directories and files that detector, builder and creator are called
//! with, all below one temporary directory that the build's user owns.
#![allow(dead_code, reason = "each test executable uses its part")]
#![allow(clippy::expect_used, reason = "a harness panics")]

use std::{
    fmt::Write as _,
    fs,
    ops::Deref,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use acceptance::{
    run::{as_user, command, executable},
    tree::{Entry, TempTree, give_to, write_buildpack},
};

/// User and group of the build, where the tests run as root.
pub(crate) const USER: u32 = 1000;

pub(crate) struct BuildDirs {
    dir: TempTree,
}

impl Deref for BuildDirs {
    type Target = TempTree;

    fn deref(&self) -> &TempTree {
        &self.dir
    }
}

impl BuildDirs {
    /// Empty directories, and an order.toml without groups.
    pub(crate) fn new() -> Self {
        let dirs = Self { dir: TempTree::new(&[]) };
        for path in ["app", "layers", "platform/env", "config/env", "buildpacks", "extensions", "cnb", "home", "tmp"] {
            dirs.write(&[(path, Entry::Dir)]);
        }
        dirs.write(&[("cnb/order.toml", Entry::File(""))]);
        dirs
    }

    /// The names in a directory, sorted.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap_or_else(|e| panic!("list {path}: {e}"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A buildpack of version 1.0.0 with these scripts; an empty one succeeds.
    pub(crate) fn buildpack(&self, id: &str, api: &str, toml: &str, detect: &str, build: &str) {
        let [detect, build] = [detect, build].map(|script| if script.is_empty() { "exit 0" } else { script });
        write_buildpack(&self.path("buildpacks"), (id, "1.0.0", api), toml, detect, build);
    }

    /// A buildpack of version 1.0.0 that is an order of groups, written as [`BuildDirs::order`] has them.
    pub(crate) fn composite(&self, id: &str, groups: &[&str]) {
        let order = groups_toml("order", groups);
        write_buildpack(&self.path("buildpacks"), (id, "1.0.0", "0.10"), &order, "", "");
    }

    /// An extension of version 1.0.0; no executable where a script is empty.
    pub(crate) fn extension(&self, id: &str, api: &str, toml: &str, detect: &str, generate: &str) {
        let dir = format!("extensions/{}/1.0.0", id.replace('/', "_"));
        let text =
            format!("api = \"{api}\"\n[extension]\nid = \"{id}\"\nversion = \"1.0.0\"\nname = \"{id}\"\n{toml}\n");
        self.write(&[(&format!("{dir}/extension.toml"), Entry::File(&text))]);
        for (name, body) in [("detect", detect), ("generate", generate)] {
            if !body.is_empty() {
                self.write(&[(&format!("{dir}/bin/{name}"), Entry::Script(body))]);
            }
        }
    }

    /// order.toml: a group is IDs with spaces between; `?` behind one that is optional.
    pub(crate) fn order(&self, groups: &[&str]) {
        self.write(&[("cnb/order.toml", Entry::File(&groups_toml("order", groups)))]);
    }

    /// The same, with an order of extensions.
    pub(crate) fn order_with_extensions(&self, extensions: &[&str], groups: &[&str]) {
        let text = groups_toml("order", groups) + &groups_toml("order-extensions", extensions);
        self.write(&[("cnb/order.toml", Entry::File(&text))]);
    }

    /// group.toml and plan.toml as detector leaves them, for buildpacks of these APIs; `plan` is the text of plan.toml.
    pub(crate) fn group(&self, buildpacks: &[(&str, &str)], plan: &str) {
        let mut group = String::new();
        for (id, api) in buildpacks {
            let _ = writeln!(group, "[[group]]\nid = \"{id}\"\nversion = \"1.0.0\"\napi = \"{api}\"");
        }
        self.write(&[("layers/group.toml", Entry::File(&group)), ("layers/plan.toml", Entry::File(plan))]);
    }

    /// A call as the build's user, all paths in variables, and no variables else but `PATH` and `TMPDIR`.
    pub(crate) fn call(&self, name: &str, api: &str) -> Command {
        let mut call = command(executable(name));
        call.env("CNB_PLATFORM_API", api).env("CNB_NO_COLOR", "true").env("TMPDIR", self.path("tmp"));
        for (variable, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_LAYERS_DIR", "layers"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_BUILD_CONFIG_DIR", "config"),
            ("CNB_BUILDPACKS_DIR", "buildpacks"),
            ("CNB_EXTENSIONS_DIR", "extensions"),
            ("CNB_ORDER_PATH", "cnb/order.toml"),
            ("CNB_RUN_PATH", "cnb/run.toml"),
            ("CNB_STACK_PATH", "cnb/stack.toml"),
            ("CNB_SYSTEM_PATH", "cnb/system.toml"),
        ] {
            call.env(variable, self.path(path));
        }
        self.as_build_user(&mut call);
        call
    }

    /// Makes the call the build user's, and all the directories, too. Without root they are ours already.
    pub(crate) fn as_build_user(&self, call: &mut Command) {
        if is_root() {
            give_to(&self.path(""), USER, USER);
            as_user(call, USER, USER);
        }
    }

    pub(crate) fn detector(&self, api: &str) -> Command {
        self.call("detector", api)
    }

    pub(crate) fn builder(&self, api: &str) -> Command {
        self.call("builder", api)
    }

    /// IDs of `[[group]]`, with spaces between.
    pub(crate) fn detected(&self) -> String {
        ids(self.toml("layers/group.toml").get("group"))
    }
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The `id` of each table, with spaces between.
pub(crate) fn ids(tables: Option<&toml::Value>) -> String {
    let tables = tables.and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let ids: Vec<String> = tables.iter().map(|table| table["id"].as_str().expect("an id").to_owned()).collect();
    ids.join(" ")
}

/// Groups of order.toml or of a composite buildpack's buildpack.toml.
pub(crate) fn groups_toml(key: &str, groups: &[&str]) -> String {
    let mut text = String::new();
    for group in groups {
        let _ = writeln!(text, "[[{key}]]");
        for word in group.split_whitespace() {
            let id = word.trim_end_matches('?');
            let _ = writeln!(text, "[[{key}.group]]\nid = \"{id}\"\nversion = \"1.0.0\"\noptional = {}", id != word);
        }
    }
    text
}

/// Every regular file below, with its bytes, sorted by path.
pub(crate) fn snapshot(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut due = vec![root.to_path_buf()];
    while let Some(dir) = due.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display())).flatten() {
            let kind = entry.file_type().expect("a file type");
            if kind.is_dir() {
                due.push(entry.path());
            } else if kind.is_file() {
                files.push((entry.path(), fs::read(entry.path()).expect("a file")));
            }
        }
    }
    files.sort();
    files
}

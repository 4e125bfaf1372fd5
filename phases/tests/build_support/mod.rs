//! A directory with everything that detect, generate and build work on, and buildpacks made of shell scripts.
#![allow(dead_code, reason = "every test uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use buildpack_api::{BuildpackId, Order};
use platform_api::{
    ExitCode, Failure, Flags, GroupEntry, ModuleDirs, OrderFile, Parsed, PlatformApi,
    inputs::{BuilderInputs, DetectorInputs},
};

pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        for dir in ["app", "layers", "platform/env", "buildpacks", "extensions"] {
            fs::create_dir_all(world.path(dir)).unwrap();
        }
        world
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        // A temporary directory may be reached through a link.
        self.dir.path().canonicalize().unwrap().join(relative)
    }

    pub(crate) fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
    }

    pub(crate) fn exists(&self, relative: &str) -> bool {
        fs::symlink_metadata(self.path(relative)).is_ok()
    }

    /// A component buildpack, version 1; `more` goes into its buildpack.toml, below `[buildpack]`.
    pub(crate) fn buildpack(&self, id: &str, api: &str, more: &str, scripts: &[(&str, &str)]) {
        self.module("buildpacks", "buildpack", id, api, more, scripts);
    }

    pub(crate) fn extension(&self, id: &str, more: &str, scripts: &[(&str, &str)]) {
        self.module("extensions", "extension", id, "0.10", more, scripts);
    }

    fn module(&self, dir: &str, kind: &str, id: &str, api: &str, more: &str, scripts: &[(&str, &str)]) {
        let root = format!("{dir}/{}/1", id.replace('/', "_"));
        let text = format!("api = \"{api}\"\n[{kind}]\nid = \"{id}\"\nversion = \"1\"\nhomepage = \"of {id}\"\n{more}");
        self.write(&format!("{root}/{kind}.toml"), &text);
        for (name, body) in scripts {
            script(&self.path(&format!("{root}/bin/{name}")), &format!("#!/bin/sh\nset -e\n{body}\n"));
        }
    }

    pub(crate) fn detector(&self, api: &str) -> DetectorInputs {
        let api: PlatformApi = api.parse().unwrap();
        let Parsed::Inputs(inputs) = DetectorInputs::from_flags(&Flags::default(), api).unwrap() else { panic!() };
        DetectorInputs {
            app: self.path("app"),
            platform: self.path("platform"),
            build_config: self.path("build-config"),
            generated: self.path("generated"),
            layers: self.path("layers"),
            dirs: self.dirs(),
            inherited: vec![("PATH".into(), std::env::var_os("PATH").unwrap()), ("SECRET".into(), "s".into())],
            ..inputs
        }
    }

    pub(crate) fn builder(&self, api: &str) -> BuilderInputs {
        let api: PlatformApi = api.parse().unwrap();
        let Parsed::Inputs(inputs) = BuilderInputs::from_flags(&Flags::default(), api).unwrap() else { panic!() };
        BuilderInputs {
            app: self.path("app"),
            platform: self.path("platform"),
            build_config: self.path("build-config"),
            layers: self.path("layers"),
            dirs: self.dirs(),
            inherited: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
            ..inputs
        }
    }

    fn dirs(&self) -> ModuleDirs {
        ModuleDirs { buildpacks: self.path("buildpacks"), extensions: self.path("extensions") }
    }
}

/// Writes an executable. Another process does it: while we had the file open for writing, a child of another test
/// could inherit it, and running the file would fail with "text file busy".
fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = r#"cat > "$0" && chmod 755 "$0""#;
    let mut sh = Command::new("sh").arg("-c").arg(write).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    sh.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(sh.wait().unwrap().success());
}

pub(crate) fn id(text: &str) -> BuildpackId {
    BuildpackId::try_from(text.to_owned()).unwrap()
}

pub(crate) fn entry(name: &str) -> GroupEntry {
    GroupEntry { id: id(name), version: "1".to_owned(), api: "0.10".to_owned(), homepage: None, optional: false }
}

/// `"a b? | c"`: two groups, of a and optional b, and of c; version 1 all.
pub(crate) fn order(text: &str) -> Order {
    let mut toml = String::new();
    for group in text.split('|').filter(|group| !group.trim().is_empty()) {
        toml.push_str("[[order]]\n");
        for word in group.split_whitespace() {
            let (name, optional) = (word.trim_end_matches('?'), word.ends_with('?'));
            let (id, version) = (format!("id = \"{name}\""), "version = \"1\"");
            toml += &["[[order.group]]", &id, version, &format!("optional = {optional}\n")].join("\n");
        }
    }
    OrderFile::parse(&toml).unwrap().order
}

/// The code that a failure brings along.
pub(crate) fn code(error: &anyhow::Error) -> Option<ExitCode> {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map(|failure| failure.code)
}

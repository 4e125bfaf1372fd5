//! The environment of buildpacks and of the app: layer paths, and the modification rules of env directories
//! (buildpack.md, "Environment").

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{SFlag, fstatat},
};

use crate::{dir::Dir, env_dir::EnvDir, parse::naming};

/// An environment; names and values are bytes, and the order is that of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<OsString, OsString>);

/// What a file without a suffix means in an env directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvDirDefault {
    /// A buildpack's layer.
    Override,
    /// The operator's build config.
    SetIfEmpty,
}

/// Directories of a layer and the variables that list them, at build time.
const BUILD_PATHS: [(&str, &str); 5] = [
    ("bin", "PATH"),
    ("lib", "LD_LIBRARY_PATH"),
    ("lib", "LIBRARY_PATH"),
    ("include", "CPATH"),
    ("pkgconfig", "PKG_CONFIG_PATH"),
];

/// The same, at launch.
const LAUNCH_PATHS: [(&str, &str); 2] = [("bin", "PATH"), ("lib", "LD_LIBRARY_PATH")];

/// What buildpacks may see of the lifecycle's environment, besides the path variables. Not credentials, above all.
const BUILD_ALLOWED: [&str; 9] = [
    "CNB_STACK_ID",
    "HOSTNAME",
    "HOME",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// The launcher's own inputs, which are none of the app's.
const LAUNCH_REMOVED: [&str; 5] =
    ["CNB_LAYERS_DIR", "CNB_APP_DIR", "CNB_PROCESS_TYPE", "CNB_PLATFORM_API", "CNB_DEPRECATION_MODE"];

/// What the name of a file ends in that holds a delimiter.
const DELIMITER_SUFFIX: &[u8] = b".delim";

/// Elements of PATH that hold links to the launcher.
const LAUNCH_PATH_REMOVED: [&str; 2] = ["/cnb/process", "/cnb/lifecycle"];

impl Env {
    /// The variables of the lifecycle's environment that buildpacks may see (an allow-list).
    pub fn for_build(inherited: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let allowed = |name: &OsString| BUILD_ALLOWED.iter().any(|allowed| name == allowed) || is_path_variable(name);
        Self(inherited.into_iter().filter(|(name, _)| allowed(name)).collect())
    }

    /// The app's: everything inherited but the lifecycle's own variables and PATH elements.
    pub fn for_launch(inherited: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let removed = |name: &OsString| LAUNCH_REMOVED.iter().any(|removed| name == removed);
        let mut env = Self(inherited.into_iter().filter(|(name, _)| !removed(name)).collect());
        if let Some(path) = env.0.get_mut(OsStr::new("PATH")) {
            let ours = |element: &&[u8]| LAUNCH_PATH_REMOVED.iter().any(|removed| *element == removed.as_bytes());
            let kept: Vec<&[u8]> = path.as_bytes().split(|b| *b == b':').filter(|element| !ours(element)).collect();
            *path = OsString::from_vec(kept.join(&b':'));
        }
        env
    }

    /// Prepends `<layer>/{bin,lib,include,pkgconfig}` where they exist, to the five build-time path variables.
    /// `layer` is absolute. Called in ascending order of names, the last layer comes first.
    /// # Errors
    /// A directory that cannot be asked for; they name it.
    pub fn add_build_layer(&mut self, layer: &Path) -> io::Result<()> {
        self.add_paths(&Dir::none(), layer, &BUILD_PATHS)
    }

    /// Prepends `<layer>/{bin,lib}` where they exist, to PATH and `LD_LIBRARY_PATH`. They are looked for from `from` on.
    /// # Errors
    /// As [`Self::add_build_layer`].
    pub fn add_launch_layer(&mut self, from: &Dir, layer: &Path) -> io::Result<()> {
        self.add_paths(from, layer, &LAUNCH_PATHS)
    }

    fn add_paths(&mut self, from: &Dir, layer: &Path, paths: &[(&str, &str)]) -> io::Result<()> {
        for (dir, variable) in paths {
            let dir = layer.join(dir);
            let (at, path) = from.at(&dir);
            match fstatat(at, path, AtFlags::empty()) {
                Ok(stat) if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR => {
                    self.prepend(OsStr::new(variable), dir.into_os_string(), OsStr::new(":"));
                }
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => return Err(naming("stat", &dir, &error.into())),
            }
        }
        Ok(())
    }

    /// Applies an env directory: `NAME`, `NAME.append`, `.prepend`, `.default`, `.override`, `.delim`, in byte order
    /// of the file names. A directory that is not there changes nothing. Errors name the path.
    ///
    /// A name that ends in its period means prepend with `:`, as it does in the reference; another suffix nothing.
    ///
    /// Whether it has directories, which are not applied: `env.launch` may have one for the process type.
    pub fn apply_dir(&mut self, dir: &Path, bare: EnvDirDefault) -> io::Result<bool> {
        self.apply_dir_from(&Dir::none(), dir, bare)
    }

    /// As [`Self::apply_dir`], looking from an open directory on.
    pub fn apply_dir_from(&mut self, from: &Dir, dir: &Path, bare: EnvDirDefault) -> io::Result<bool> {
        let dir = EnvDir::read_at(from, dir)?;
        let has_dirs = dir.has_dirs;
        let (delimiters, files): (Vec<_>, Vec<_>) =
            dir.files.into_iter().partition(|(file, _)| file.as_bytes().ends_with(DELIMITER_SUFFIX));
        for (file, value) in files {
            let bytes = file.as_bytes();
            let Some(period) = bytes.iter().position(|b| *b == b'.') else {
                if bare == EnvDirDefault::Override || self.is_empty(&file) {
                    self.set(file, value);
                }
                continue;
            };
            let (name, suffix) = bytes.split_at(period);
            // No variable is without a name: `.gitkeep` and its like.
            if name.is_empty() {
                continue;
            }
            let delimiter = |default: &'static str| {
                let of_this = |file: &OsString| file.as_bytes().strip_suffix(DELIMITER_SUFFIX) == Some(name);
                let found = delimiters.iter().find(|(file, _)| of_this(file));
                found.map_or(OsStr::new(default), |(_, delimiter)| delimiter.as_os_str())
            };
            let variable = OsStr::from_bytes(name);
            match suffix {
                b".append" => self.append(variable, value, delimiter("")),
                b".prepend" => self.prepend(variable, value, delimiter("")),
                b"." => self.prepend(variable, value, delimiter(":")),
                b".override" => self.set(variable, value),
                b".default" if self.is_empty(variable) => self.set(variable, value),
                _ => {}
            }
        }
        Ok(has_dirs)
    }

    /// The environment of one module: user-provided variables (not with clear-env), then the operator's.
    /// `platform_env` is `<platform>/env`, `build_config_env` is `<build-config>/env`.
    /// # Errors
    /// A file that cannot be read; they name it.
    pub fn for_module(
        &self,
        clear_env: bool,
        platform_env: &Path,
        build_config_env: Option<&Path>,
    ) -> io::Result<Self> {
        let mut env = self.clone();
        if !clear_env {
            for (name, value) in EnvDir::read(platform_env)?.files {
                if is_path_variable(&name) {
                    env.prepend(&name, value, OsStr::new(":"));
                } else {
                    env.set(name, value);
                }
            }
        }
        if let Some(dir) = build_config_env {
            env.apply_dir(dir, EnvDirDefault::SetIfEmpty)?;
        }
        Ok(env)
    }

    fn append(&mut self, name: &OsStr, value: OsString, delimiter: &OsStr) {
        match self.0.get_mut(name) {
            Some(old) if !old.is_empty() => {
                old.push(delimiter);
                old.push(value);
            }
            _ => self.set(name, value),
        }
    }

    fn prepend(&mut self, name: &OsStr, value: OsString, delimiter: &OsStr) {
        match self.0.get_mut(name) {
            Some(old) if !old.is_empty() => *old = concat([&value, delimiter, old]),
            _ => self.set(name, value),
        }
    }

    /// As a variable is that is not set.
    fn is_empty(&self, name: &OsStr) -> bool {
        self.get(name).is_none_or(OsStr::is_empty)
    }

    /// A variable's value; `None` where it is not set.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.0.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// Sets a variable, whatever it was.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    /// Unsets a variable.
    pub fn remove(&mut self, name: impl AsRef<OsStr>) {
        self.0.remove(name.as_ref());
    }

    /// Names and values, in byte order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(k, v)| (k.as_os_str(), v.as_os_str()))
    }
}

fn is_path_variable(name: &OsStr) -> bool {
    BUILD_PATHS.iter().any(|(_, variable)| name == *variable)
}

fn concat(parts: [&OsStr; 3]) -> OsString {
    OsString::from_vec(parts.map(OsStr::as_bytes).concat())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            fs::write(dir.path().join(name), value).unwrap();
        }
        dir
    }

    #[test]
    fn buildpacks_see_an_allow_list() {
        let allowed = [
            "CNB_STACK_ID",
            "HOSTNAME",
            "HOME",
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "NO_PROXY",
            "no_proxy",
            "PATH",
            "LD_LIBRARY_PATH",
            "LIBRARY_PATH",
            "CPATH",
            "PKG_CONFIG_PATH",
        ];
        let hidden =
            ["CNB_REGISTRY_AUTH", "CNB_PLATFORM_API", "CNB_EXEC_ENV", "LANG", "TERM", "USER", "TMPDIR", "Path", "home"];
        let inherited = allowed.iter().chain(&hidden).map(|name| ((*name).into(), "x".into()));
        let mut names: Vec<_> = allowed.to_vec();
        names.sort_unstable();
        assert_eq!(Env::for_build(inherited).iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
    }

    #[test]
    fn apps_do_not_see_the_launchers_inputs() {
        let launch = Env::for_launch(pairs(&[
            ("CNB_LAYERS_DIR", "x"),
            ("CNB_APP_DIR", "x"),
            ("CNB_PROCESS_TYPE", "x"),
            ("CNB_PLATFORM_API", "x"),
            ("CNB_DEPRECATION_MODE", "x"),
            ("CNB_EXEC_ENV", "test"),
            ("CNB_NO_COLOR", "1"),
            ("PATH", "/cnb/process:/cnb/lifecycle:/usr/bin:/cnb/process/x::/cnb/process:/bin"),
            ("OTHER", "/cnb/process"),
        ]));
        assert_eq!(
            launch,
            env(&[
                ("CNB_EXEC_ENV", "test"),
                ("CNB_NO_COLOR", "1"),
                ("PATH", "/usr/bin:/cnb/process/x::/bin"),
                ("OTHER", "/cnb/process"),
            ])
        );
        assert_eq!(Env::for_launch(pairs(&[("PATH", "/cnb/process")])), env(&[("PATH", "")]));
        assert_eq!(Env::for_launch([]), Env::default());
        let bytes = (OsString::from("PATH"), OsString::from_vec(b"/\xff:/cnb/process".to_vec()));
        assert_eq!(Env::for_launch([bytes]).get("PATH").unwrap().as_bytes(), b"/\xff");
    }

    #[test]
    fn layer_paths_are_prepended_where_the_directories_exist() {
        let layers = tempfile::tempdir().unwrap();
        let layer = |name: &str, dirs: &[&str]| {
            let layer = layers.path().join(name);
            fs::create_dir(&layer).unwrap();
            for dir in dirs {
                fs::create_dir(layer.join(dir)).unwrap();
            }
            layer
        };
        let first = layer("a", &["bin", "lib", "include", "pkgconfig", "env"]);
        let second = layer("b", &["bin"]);
        fs::write(second.join("lib"), "").unwrap();
        let at = |path: &str| layers.path().join(path).to_str().unwrap().to_owned();

        let mut build = env(&[("PATH", "/bin"), ("CPATH", "")]);
        build.add_build_layer(&first).unwrap();
        build.add_build_layer(&second).unwrap();
        build.add_build_layer(&layers.path().join("missing")).unwrap();
        let path = format!("{}:{}:/bin", at("b/bin"), at("a/bin"));
        assert_eq!(
            build,
            env(&[
                ("PATH", &path),
                ("LD_LIBRARY_PATH", &at("a/lib")),
                ("LIBRARY_PATH", &at("a/lib")),
                ("CPATH", &at("a/include")),
                ("PKG_CONFIG_PATH", &at("a/pkgconfig")),
            ])
        );

        let mut launch = Env::default();
        launch.add_launch_layer(&Dir::open(layers.path()), &first).unwrap();
        assert_eq!(launch, env(&[("PATH", &at("a/bin")), ("LD_LIBRARY_PATH", &at("a/lib"))]));
    }

    #[test]
    fn modification_rules() {
        use EnvDirDefault::{Override, SetIfEmpty};
        for (bare, files, before, after) in [
            (Override, &[("V", "new")][..], Some("old"), Some("new")),
            (SetIfEmpty, &[("V", "new")], Some("old"), Some("old")),
            (SetIfEmpty, &[("V", "new")], Some(""), Some("new")),
            (SetIfEmpty, &[("V", "new")], None, Some("new")),
            (Override, &[("V.override", "new")], Some("old"), Some("new")),
            (SetIfEmpty, &[("V.override", "new")], Some("old"), Some("new")),
            (Override, &[("V.default", "new")], Some("old"), Some("old")),
            (Override, &[("V.default", "new")], None, Some("new")),
            (Override, &[("V.append", "new")], Some("old"), Some("oldnew")),
            (Override, &[("V.append", "new"), ("V.delim", ";")], Some("old"), Some("old;new")),
            (Override, &[("V.append", "new"), ("V.delim", ";")], None, Some("new")),
            (Override, &[("V.append", "new"), ("V.delim", ";")], Some(""), Some("new")),
            (Override, &[("V.prepend", "new")], Some("old"), Some("newold")),
            (Override, &[("V.prepend", "new"), ("V.delim", "::")], Some("old"), Some("new::old")),
            (Override, &[("V.prepend", "new"), ("V.delim", ";")], None, Some("new")),
            (Override, &[("V.", "new")], Some("old"), Some("new:old")),
            (Override, &[("V.", "new"), ("V.delim", ";")], Some("old"), Some("new;old")),
            (Override, &[("V.delim", ";")], Some("old"), Some("old")),
            (Override, &[("V.append", "new"), ("W.delim", ";")], Some("old"), Some("oldnew")),
            (Override, &[("V.unknown", "new"), ("V.append.x", "new"), ("V.APPEND", "new")], Some("old"), Some("old")),
            (Override, &[("V", " new\n")], Some("old"), Some(" new\n")),
            (Override, &[("V", "")], Some("old"), Some("")),
            (Override, &[("V.append", "")], Some("old"), Some("old")),
            // In byte order of file names: V, V.append, V.default, V.override, V.prepend.
            (Override, &[("V.prepend", "p"), ("V.append", "a"), ("V", "v"), ("V.delim", "-")], None, Some("p-v-a")),
            (Override, &[("V.prepend", "p"), ("V.override", "o"), ("V.append", "a")], Some("old"), Some("po")),
            (Override, &[("V.default", "d"), ("V.append", "a")], None, Some("a")),
        ] {
            let dir = dir(files);
            let mut env = Env::default();
            if let Some(before) = before {
                env.set("V", before);
            }
            env.apply_dir(dir.path(), bare).unwrap();
            assert_eq!(env.get("V").map(|v| v.to_str().unwrap()), after, "{bare:?} {files:?} {before:?}");
            assert!(env.iter().all(|(name, _)| name == "V"), "{files:?} {env:?}");
        }
    }

    #[test]
    fn env_directories_hold_files_and_links_to_files() {
        let outside = dir(&[("value", "linked")]);
        let dir = dir(&[("A", "a"), (".gitkeep", ""), (".override", "x")]);
        fs::create_dir(dir.path().join("web")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("value"), dir.path().join("B")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("..data")).unwrap();
        fs::write(dir.path().join("C"), b"\xff\0").unwrap();
        let mut applied = Env::default();
        applied.apply_dir(dir.path(), EnvDirDefault::Override).unwrap();
        applied.apply_dir(&dir.path().join("missing"), EnvDirDefault::Override).unwrap();
        assert_eq!(applied.get("C").unwrap().as_bytes(), b"\xff\0");
        applied.remove("C");
        assert_eq!(applied, env(&[("A", "a"), ("B", "linked")]));

        std::os::unix::fs::symlink("nowhere", dir.path().join("D")).unwrap();
        let error = applied.apply_dir(dir.path(), EnvDirDefault::Override).unwrap_err().to_string();
        assert_eq!(error, format!("stat {}: no such file or directory", dir.path().join("D").display()));
        let file = outside.path().join("value");
        let error = applied.apply_dir(&file, EnvDirDefault::Override).unwrap_err().to_string();
        assert_eq!(error, format!("open {}: not a directory", file.display()));
    }

    #[test]
    fn a_module_gets_the_users_variables_then_the_operators() {
        let platform =
            dir(&[("PATH", "/user/bin"), ("CPATH", "/user"), ("HOME", "/u"), ("A.append", "x\n"), ("EMPTY", "")]);
        let operator = dir(&[("HOME", "/operator"), ("NEW", "n"), ("PATH.append", ":/op"), ("EMPTY", "filled")]);
        let base = env(&[("PATH", "/bin"), ("HOME", "/root")]);
        for (clear_env, with_operator, expected) in [
            (
                false,
                false,
                env(&[
                    ("PATH", "/user/bin:/bin"),
                    ("CPATH", "/user"),
                    ("HOME", "/u"),
                    ("A.append", "x\n"),
                    ("EMPTY", ""),
                ]),
            ),
            (
                false,
                true,
                env(&[
                    ("PATH", "/user/bin:/bin:/op"),
                    ("CPATH", "/user"),
                    ("HOME", "/u"),
                    ("A.append", "x\n"),
                    ("EMPTY", "filled"),
                    ("NEW", "n"),
                ]),
            ),
            (true, false, base.clone()),
            (true, true, env(&[("PATH", "/bin:/op"), ("HOME", "/root"), ("NEW", "n"), ("EMPTY", "filled")])),
        ] {
            let operator = with_operator.then_some(operator.path());
            assert_eq!(base.for_module(clear_env, platform.path(), operator).unwrap(), expected);
        }
        let missing = platform.path().join("missing");
        assert_eq!(base.for_module(false, &missing, Some(&missing)).unwrap(), base);
    }
}

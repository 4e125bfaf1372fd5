//! The environment of buildpacks and of the app: what is inherited, paths of layers, and env directories
//! (buildpack.md, "Environment").

mod inherited;
mod modified;

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

pub use self::modified::EnvDirDefault;
use crate::{dir::Dir, env_dir::EnvDir, parse::naming};

/// An environment; names and values are bytes, and the order is that of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<OsString, OsString>);

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

impl Env {
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

    pub(super) fn env(pairs: &[(&str, &str)]) -> Env {
        Env(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    pub(super) fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            fs::write(dir.path().join(name), value).unwrap();
        }
        dir
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

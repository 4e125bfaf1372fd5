//! The environment of the process: what was inherited, changed by the buildpacks' layers.

use std::{ffi::OsString, path::Path};

use buildpack_api::{Env, EnvDirDefault};

use crate::{error::Error, layers::LayerDirs};

/// buildpack.md, "Environment": per buildpack first every layer's paths, then every layer's env directories.
pub(crate) fn launch_env(
    inherited: Vec<(OsString, OsString)>,
    layers: &LayerDirs,
    process_type: Option<&str>,
) -> Result<Env, Error> {
    let mut env = Env::for_launch(inherited);
    for buildpack in layers.by_buildpack() {
        for layer in buildpack {
            env.add_launch_layer(layers.root(), layer)
                .map_err(|e| Error::io(&format!("add layer '{}'", layer.display()), &e))?;
        }
        for layer in buildpack {
            let for_launch = layer.join("env.launch");
            apply(&mut env, layers, &layer.join("env"))?;
            if apply(&mut env, layers, &for_launch)? {
                if let Some(process_type) = process_type {
                    apply(&mut env, layers, &for_launch.join(process_type))?;
                }
            }
        }
    }
    Ok(env)
}

/// Whether the env directory has directories.
fn apply(env: &mut Env, layers: &LayerDirs, dir: &Path) -> Result<bool, Error> {
    env.apply_dir_from(layers.root(), dir, EnvDirDefault::Override)
        .map_err(|e| Error::io(&format!("apply env files from dir '{}'", dir.display()), &e))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs, path::Path};

    use platform_api::GroupEntry;

    use super::launch_env;
    use crate::layers::LayerDirs;

    fn layers(root: &Path, ids: &[&str]) -> LayerDirs {
        let entry = |id: &&str| GroupEntry {
            id: (*id).to_owned().try_into().unwrap(),
            version: "1".into(),
            api: "0.12".into(),
            homepage: None,
            optional: false,
        };
        LayerDirs::find(root, &ids.iter().map(entry).collect::<Vec<_>>()).unwrap()
    }

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn inherited(vars: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        vars.iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn later_buildpacks_and_later_layers_come_first_in_paths() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("one/a/bin/x", ""), ("one/b/bin/x", ""), ("two/c/bin/x", ""), ("two/c/lib/x", "")]);
        let env =
            launch_env(inherited(&[("PATH", "/bin")]), &layers(root.path(), &["one", "two"]), Some("web")).unwrap();
        let at = |dir: &str| root.path().join(dir).to_str().unwrap().to_owned();
        let want = format!("{}:{}:{}:/bin", at("two/c/bin"), at("one/b/bin"), at("one/a/bin"));
        assert_eq!(env.get("PATH").unwrap(), want.as_str());
        assert_eq!(env.get("LD_LIBRARY_PATH").unwrap(), at("two/c/lib").as_str());
    }

    #[test]
    fn env_precedes_env_launch_precedes_that_of_the_process() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("bp/a/env/V.append", "1"),
                ("bp/a/env.launch/V.append", "2"),
                ("bp/a/env.launch/web/V.append", "3"),
                ("bp/a/env.launch/job/V.append", "never"),
                ("bp/a/env.build/V.append", "never"),
                ("bp/b/env/V.append", "4"),
            ],
        );
        let layers = layers(root.path(), &["bp"]);
        for (process_type, want) in [(Some("web"), "0123 4"), (None, "012 4")] {
            write(root.path(), &[("bp/b/env/V.delim", " ")]);
            let env = launch_env(inherited(&[("V", "0")]), &layers, process_type).unwrap();
            assert_eq!(env.get("V").unwrap(), want, "{process_type:?}");
        }
    }

    #[test]
    fn all_layer_paths_of_a_buildpack_are_there_before_its_env_files() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("bp/a/env/PATH.prepend", "first:"), ("bp/b/bin/x", "")]);
        let env = launch_env(inherited(&[("PATH", "/bin")]), &layers(root.path(), &["bp"]), None).unwrap();
        let want = format!("first:{}:/bin", root.path().join("bp/b/bin").display());
        assert_eq!(env.get("PATH").unwrap(), want.as_str());
    }
}

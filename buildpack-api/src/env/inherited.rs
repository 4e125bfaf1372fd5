//! What buildpacks and the app inherit of the environment they are started in (buildpack.md, "Environment").

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use super::{Env, is_path_variable};

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
}

#[cfg(test)]
mod tests {
    use super::{super::tests::env, *};

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
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
}

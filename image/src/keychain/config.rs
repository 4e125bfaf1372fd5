//! Docker's `config.json` and podman's `auth.json`.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Credentials, HUB, HUB_KEY, helper, host_of, normalise, parse_basic};

/// The one config file that counts.
pub(super) struct DockerConfig {
    pub(super) path: PathBuf,
    json: Map<String, Value>,
}

impl DockerConfig {
    /// The first of: `$DOCKER_CONFIG/config.json`, else `$HOME/.docker/config.json`; `$REGISTRY_AUTH_FILE`;
    /// `containers/auth.json` in `$XDG_RUNTIME_DIR`, `$XDG_CONFIG_HOME`, `$HOME/.config`. An empty variable is an unset
    /// one. A file that cannot be read is said and passed by.
    pub(super) fn find(env: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let dir = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let docker = dir("DOCKER_CONFIG").or_else(|| Some(dir("HOME")?.join(".docker")));
        let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")));
        let podman = |dir: PathBuf| dir.join("containers").join("auth.json");
        let paths = [
            docker.map(|d| d.join("config.json")),
            dir("REGISTRY_AUTH_FILE"),
            dir("XDG_RUNTIME_DIR").map(podman),
            config.map(podman),
        ];
        paths.into_iter().flatten().find_map(|path| Self::read(&path))
    }

    fn read(path: &Path) -> Option<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) => {
                if e.kind() != ErrorKind::NotFound {
                    tracing::debug!("credentials: {}: {e}; going on without", path.display());
                }
                return None;
            }
        };
        if let Ok(Value::Object(json)) = serde_json::from_slice(&bytes) {
            return Some(Self { path: path.to_path_buf(), json });
        }
        tracing::debug!("credentials: {}: no JSON object; going on without", path.display());
        None
    }

    /// The credentials that stand in the file itself.
    pub(super) fn stored(&self) -> Vec<(String, Credentials)> {
        let auths = self.json.get("auths").and_then(Value::as_object);
        let entries = auths.into_iter().flatten();
        entries.filter_map(|(key, auth)| Some((normalise_key(key), stored_credentials(auth)?))).collect()
    }

    /// Asks the helper for this registry, else the one for all.
    pub(super) fn ask_helper(&self, host: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<(Credentials, String)> {
        let text = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_string);
        let own = self.json.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
            helpers.iter().find(|(key, _)| normalise_key(key) == host).and_then(|(_, name)| text(name))
        });
        let names = [own, self.json.get("credsStore").and_then(text)];
        let server = if host == HUB { HUB_KEY } else { host };
        names.into_iter().flatten().find_map(|name| {
            let credentials = helper::ask(&name, server, env)?;
            Some((credentials, format!("docker-credential-{name} ({})", self.path.display())))
        })
    }
}

/// `https://host/v1/` and `host/v1/` mean the host; `host/namespace` (podman) means what is below it.
fn normalise_key(key: &str) -> String {
    if let Some((_, rest)) = key.split_once("://") {
        return normalise(host_of(rest));
    }
    match key.split_once('/') {
        Some((host, version)) if ["v1", "v2"].contains(&version.trim_end_matches('/')) => normalise(host),
        _ => normalise(key),
    }
}

fn stored_credentials(auth: &Value) -> Option<Credentials> {
    let text = |key: &str| auth.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_string);
    if let Some(token) = text("registrytoken") {
        return Some(Credentials::Bearer(token));
    }
    let own = || Some(Credentials::Basic { username: text("username")?, password: text("password")? });
    let basic = text("auth").and_then(|auth| parse_basic(&auth)).or_else(own);
    let Some(token) = text("identitytoken") else { return basic };
    // Who logged in by a token has a user there without a password.
    let password = basic.as_ref().and_then(Credentials::password).filter(|(_, password)| !password.is_empty());
    Some(Credentials::Identity { token, password: password.map(|(user, password)| (user.into(), password.into())) })
}

#[cfg(test)]
mod tests {
    use super::super::Keychain;
    use super::*;

    fn keychain_of(files: &[(&str, &str)], vars: &[(&str, &str)], registry: &str) -> (Keychain, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let root = dir.path().display().to_string();
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.replace("ROOT", &root));
        (Keychain::resolve(None, &[registry.to_string()], &env).unwrap(), dir)
    }

    const AUTH: &str = r#"{"auths": {"host:5000": {"auth": "dXNlcjpwYXNz"}}}"#;

    #[test]
    fn which_file_counts() {
        for (name, path, vars, found) in [
            ("home", "h/.docker/config.json", &[("HOME", "ROOT/h")][..], true),
            ("DOCKER_CONFIG before HOME", "d/config.json", &[("HOME", "ROOT/h"), ("DOCKER_CONFIG", "ROOT/d")], true),
            ("empty DOCKER_CONFIG", "h/.docker/config.json", &[("HOME", "ROOT/h"), ("DOCKER_CONFIG", "")], true),
            ("no HOME at all", "h/.docker/config.json", &[], false),
            ("REGISTRY_AUTH_FILE", "f.json", &[("REGISTRY_AUTH_FILE", "ROOT/f.json")], true),
            ("podman at run time", "r/containers/auth.json", &[("XDG_RUNTIME_DIR", "ROOT/r")], true),
            ("podman's config", "c/containers/auth.json", &[("XDG_CONFIG_HOME", "ROOT/c")], true),
            ("podman in home", "h/.config/containers/auth.json", &[("HOME", "ROOT/h")], true),
        ] {
            let (keychain, _dir) = keychain_of(&[(path, AUTH)], vars, "host:5000");
            assert_eq!(keychain.source("host:5000").is_some(), found, "{name}");
        }
    }

    #[test]
    fn an_unusable_config_is_passed_by() {
        let files = [("h/.docker/config.json", "no json"), ("h/.config/containers/auth.json", AUTH)];
        let (keychain, _dir) = keychain_of(&files, &[("HOME", "ROOT/h")], "host:5000");
        assert!(keychain.credentials("host:5000").unwrap() != Credentials::Anonymous);
    }

    #[test]
    fn forms_of_an_entry() {
        let basic = |u: &str, p: &str| Credentials::Basic { username: u.into(), password: p.into() };
        let identity = |password| Credentials::Identity { token: "id".into(), password };
        for (entry, expected) in [
            (r#"{"auth": "dXNlcjpwYXNz"}"#, basic("user", "pass")),
            (r#"{"username": "u", "password": "p"}"#, basic("u", "p")),
            (r#"{"auth": "dXNl\ncjpwYXNz\n"}"#, basic("user", "pass")),
            (r#"{"auth": "dXNlcjpwYXNz", "identitytoken": "id"}"#, identity(Some(("user".into(), "pass".into())))),
            (r#"{"auth": "dXNlcjo=", "identitytoken": "id"}"#, identity(None)),
            (r#"{"identitytoken": "id"}"#, identity(None)),
            (r#"{"registrytoken": "t"}"#, Credentials::Bearer("t".into())),
            ("{}", Credentials::Anonymous),
            (r#"{"auth": null}"#, Credentials::Anonymous),
        ] {
            let config = format!(r#"{{"auths": {{"https://host:5000/v2/": {entry}, "odd": 7}}}}"#);
            let (keychain, _dir) =
                keychain_of(&[("h/.docker/config.json", &config)], &[("HOME", "ROOT/h")], "host:5000");
            assert!(keychain.credentials("host:5000").unwrap() == expected, "{entry}");
        }
    }

    #[test]
    fn keys_with_and_without_a_version() {
        for (key, name, matches) in [
            ("https://host:5000/v1/", "host:5000/app", true),
            ("host:5000/v1/", "host:5000/app", true),
            ("host:5000/v2/", "host:5000/app", true),
            ("host:5000/v2", "host:5000/app", true),
            ("host:5000/", "host:5000/app", true),
            ("host:5000/team/v2", "host:5000/team/app", false),
            ("host:5000/team/v2/", "host:5000/team/v2/app", true),
            ("host:5000/v10", "host:5000/app", false),
        ] {
            let config = format!(r#"{{"auths": {{"{key}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#);
            let (keychain, _dir) = keychain_of(&[("h/.docker/config.json", &config)], &[("HOME", "ROOT/h")], name);
            assert_eq!(keychain.source(name).is_some(), matches, "{key} {name}");
        }
    }

    #[test]
    fn the_longest_key_counts() {
        let config = r#"{"auths": {"host": {"registrytoken": "host"}, "host/team": {"registrytoken": "team"},
            "https://index.docker.io/v1/": {"registrytoken": "hub"}}}"#;
        let (keychain, _dir) =
            keychain_of(&[("h/.docker/config.json", config)], &[("HOME", "ROOT/h")], "host/team/app");
        for (name, token) in [
            ("host", "host"),
            ("host/other/app", "host"),
            ("host/team", "team"),
            ("host/team/app", "team"),
            ("host/teams/app", "host"),
            ("index.docker.io/library/x", "hub"),
        ] {
            assert!(keychain.credentials(name).unwrap() == Credentials::Bearer(token.into()), "{name}");
        }
    }
}

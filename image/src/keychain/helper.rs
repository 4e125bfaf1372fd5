//! Credential helpers: `docker-credential-<name> get`, with a time limit.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use super::Credentials;

/// Helpers may ask a cloud's service; one that hangs must not hold up a build for long.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes; an answer is a few kilobytes.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// What the helper knows about the server; `None` where it knows nothing or does not work.
pub(super) fn ask(name: &str, server: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<Credentials> {
    let executable = format!("docker-credential-{name}");
    let Some(path) = find(&executable, env) else {
        tracing::debug!("credentials for {server}: {executable} is not in PATH");
        return None;
    };
    match run(&path, server, LIMIT) {
        Ok(answer) => credentials(answer),
        Err(why) => {
            tracing::debug!("credentials for {server}: {executable}: {why}");
            None
        }
    }
}

/// Where the executable is in PATH.
pub(super) fn find(executable: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let path = env("PATH")?;
    std::env::split_paths(OsStr::new(&path))
        .map(|dir| dir.join(executable))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

fn credentials(answer: Answer) -> Option<Credentials> {
    match answer.username.as_str() {
        _ if answer.secret.is_empty() => None,
        "<token>" => Some(Credentials::Identity { token: answer.secret, password: None }),
        _ => Some(Credentials::Basic { username: answer.username, password: answer.secret }),
    }
}

/// Errors never show what the helper said: a password may be in it.
fn run(path: &PathBuf, server: &str, limit: Duration) -> Result<Answer, String> {
    let mut child = Command::new(path)
        .arg("get")
        .env_remove("CNB_REGISTRY_AUTH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let answered = answer_within(&mut child, server, limit);
    if answered.is_none() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    match answered {
        None => Err(format!("no answer within {limit:?}")),
        Some(_) if !status.success() => Err(format!("no credentials ({status})")),
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|_| "its answer is not the JSON it should be".to_string())
        }
    }
}

/// All the helper prints; `None` where it does not come to an end. The threads end with the helper's pipes.
fn answer_within(child: &mut Child, server: &str, limit: Duration) -> Option<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        let server = server.to_string();
        std::thread::spawn(move || {
            // A helper may answer without reading.
            let _ = stdin.write_all(server.as_bytes());
        });
    }
    let stdout = child.stdout.take()?;
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.take(MAX_ANSWER).read_to_end(&mut bytes);
        let _ = send.send(bytes);
    });
    receive.recv_timeout(limit).ok()
}

/// Makes a script to be run. Another process writes it: a file that we have open for writing may still be so in a child
/// that another test is just making, and then it cannot be run.
#[cfg(test)]
pub(super) fn write_script(path: &std::path::Path, text: &str) {
    let make = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#;
    assert!(Command::new("sh").args(["-c", make]).arg(path).arg(text).status().unwrap().success());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        write_script(&path, text);
        (dir, path)
    }

    #[test]
    fn answers() {
        for (name, text, expected) in [
            (
                "user and password, for the server asked about",
                r#"read -r s; [ "$1" = get ] && printf '{"ServerURL":"x","Username":"u","Secret":"%s"}' "$s""#,
                Some(Credentials::Basic { username: "u".into(), password: "host:5000".into() }),
            ),
            (
                "an identity token",
                r#"echo '{"Username":"<token>","Secret":"id"}'"#,
                Some(Credentials::Identity { token: "id".into(), password: None }),
            ),
            ("not found", "echo credentials not found in native keychain; exit 1", None),
            ("no JSON", "echo hello", None),
            ("nothing in it", "echo '{}'", None),
        ] {
            let (dir, _) = script(text);
            let env = |name: &str| (name == "PATH").then(|| format!("{}:/bin:/usr/bin", dir.path().display()));
            assert!(ask("test", "host:5000", &env) == expected, "{name}");
        }
    }

    #[test]
    fn a_helper_that_hangs_is_ended() {
        let (_dir, path) = script("exec sleep 600");
        let error = run(&path, "host", Duration::from_millis(50)).map(|_| ()).unwrap_err();
        assert!(error.contains("no answer within"), "{error}");
    }

    #[test]
    fn a_helper_for_all_or_for_one_registry() {
        let (dir, _) = script(r#"read -r s; printf '{"Username":"u","Secret":"%s"}' "$s""#);
        let config = r#"{"credHelpers": {"own.example": "test"}, "credsStore": "absent"}"#;
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let root = dir.path().display().to_string();
        let env = |name: &str| match name {
            "PATH" => Some(format!("{root}:/bin:/usr/bin")),
            "DOCKER_CONFIG" => Some(root.clone()),
            _ => None,
        };
        let registries = ["own.example/app".to_string(), "other.example".to_string()];
        let keychain = super::super::Keychain::resolve(None, &registries, &env).unwrap();
        let expected = Credentials::Basic { username: "u".into(), password: "own.example".into() };
        assert!(keychain.credentials("own.example/app").unwrap() == expected);
        assert!(keychain.source("own.example").unwrap().starts_with("docker-credential-test"));
        assert!(keychain.credentials("other.example").unwrap() == Credentials::Anonymous);
    }
    #[test]
    fn a_helper_counts_before_what_is_stored_unless_it_has_nothing() {
        let (dir, _) =
            script(r#"read -r s; case $s in *lost*) exit 1;; esac; printf '{"Username":"u","Secret":"%s"}' "$s""#);
        let auths = r#"{"own.example": {"auth": "dXNlcjpwYXNz"}, "lost.example": {"auth": "dXNlcjpwYXNz"},
            "own.example/team": {"auth": "dXNlcjpwYXNz"}}"#;
        let root = dir.path().display().to_string();
        let env = |name: &str| match name {
            "PATH" => Some(format!("{root}:/bin:/usr/bin")),
            "DOCKER_CONFIG" => Some(root.clone()),
            _ => None,
        };
        for helpers in [r#""credHelpers": {"own.example": "test", "lost.example": "test"}"#, r#""credsStore": "test""#]
        {
            std::fs::write(dir.path().join("config.json"), format!(r#"{{"auths": {auths}, {helpers}}}"#)).unwrap();
            let registries = ["own.example/app".to_string(), "lost.example/app".to_string()];
            let keychain = super::super::Keychain::resolve(None, &registries, &env).unwrap();
            for (name, expected) in [
                ("own.example/app", ("u", "own.example")),
                ("lost.example/app", ("user", "pass")),
                // A longer key says more than the helper, which is asked for the host.
                ("own.example/team/app", ("user", "pass")),
            ] {
                let expected = Credentials::Basic { username: expected.0.into(), password: expected.1.into() };
                assert!(keychain.credentials(name).unwrap() == expected, "{helpers}: {name}");
            }
        }
    }
}

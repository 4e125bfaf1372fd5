//! Registry credentials: found once, while privileged, kept in memory, never logged.
//!
//! The crate `docker_credential` reads the same files, but does not fit: it takes variables from the process only, puts
//! no time limit on helpers, prints their output (where a password may be) in its errors, and knows neither
//! repository-scoped keys nor `registrytoken`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::{Error, Result};

mod config;
mod helper;
mod vendor;

/// Docker Hub's host, as references have it.
const HUB: &str = "index.docker.io";
/// Docker Hub as docker's own files and helpers call it.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Credentials by registry, or by registry and leading part of the repository. Clones share them.
#[derive(Clone, Default)]
pub struct Keychain {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

/// Nothing of what it holds.
impl std::fmt::Debug for Keychain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keychain")
    }
}

/// How to authenticate with one registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A bearer token to be sent as it is.
    Bearer(String),
    /// An identity (refresh) token, to be exchanged; and user and password, for who does not exchange tokens.
    Identity {
        token: String,
        password: Option<(String, String)>,
    },
}

impl Credentials {
    /// User and password.
    pub(crate) fn password(&self) -> Option<(&str, &str)> {
        match self {
            Self::Basic { username, password } | Self::Identity { password: Some((username, password)), .. } => {
                Some((username, password))
            }
            _ => None,
        }
    }
}

/// The kind only.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
            Self::Identity { .. } => "Identity",
        })
    }
}

/// Credentials, and where they are from.
struct Entry {
    /// `None`: a value of `CNB_REGISTRY_AUTH` that cannot be read, an error when it is needed.
    credentials: Option<Credentials>,
    source: String,
}

impl Keychain {
    /// Resolves the credentials of these registries (`host` or `host/repository`). Sources, the first that knows a
    /// registry counts: `registry_auth` (the value of `CNB_REGISTRY_AUTH`, platform.md "Registry Authentication"),
    /// docker's or podman's config, its helpers before what is stored in it, as docker has it (a helper that fails or has
    /// nothing leaves it to what is stored), the cloud vendors' helpers where they are installed.
    /// `env` finds a variable of the environment.
    ///
    /// Only a `registry_auth` that is no JSON object of strings is an error; a config or helper that does not work is
    /// left out and said at debug level.
    pub fn resolve(
        registry_auth: Option<&str>,
        registries: &[String],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let keychain = Self::default();
        let mut entries = keychain.lock();
        for (key, value) in parse_registry_auth(registry_auth.unwrap_or_default())? {
            let entry = Entry { credentials: parse_header(&value), source: "CNB_REGISTRY_AUTH".to_string() };
            entries.insert(host_of_key(&key), entry);
        }
        let config = config::DockerConfig::find(env);
        let hosts: BTreeSet<String> = registries.iter().map(|name| host_of(&normalise(name)).to_string()).collect();
        let add = |entries: &mut BTreeMap<String, Entry>, key: String, (credentials, source): (Credentials, String)| {
            entries.entry(key).or_insert(Entry { credentials: Some(credentials), source });
        };
        if let Some(config) = &config {
            let unknown: Vec<_> = hosts.iter().filter(|host| !entries.contains_key(*host)).collect();
            for host in unknown {
                if let Some(found) = config.ask_helper(host, env) {
                    add(&mut entries, host.clone(), found);
                }
            }
            for (key, credentials) in config.stored() {
                add(&mut entries, key, (credentials, config.path.display().to_string()));
            }
        }
        for registry in registries.iter().map(|name| normalise(name)) {
            if find(&entries, &registry).is_none() {
                let host = host_of(&registry);
                if let Some(found) = vendor::ask(host, env) {
                    add(&mut entries, host.to_string(), found);
                }
            }
        }
        for registry in registries {
            let source = find(&entries, &normalise(registry)).map_or("none: anonymous", |entry| &entry.source);
            tracing::debug!("credentials for {registry}: {source}");
        }
        drop(entries);
        Ok(keychain)
    }

    /// The credentials of a registry (`host`), or of a repository (`host/repository`): those of the longest key that
    /// fits. An error where they were given in a form that cannot be read.
    pub fn credentials(&self, registry: &str) -> Result<Credentials> {
        let entries = self.lock();
        match find(&entries, &normalise(registry)) {
            None => Ok(Credentials::Anonymous),
            Some(Entry { credentials: Some(credentials), .. }) => Ok(credentials.clone()),
            Some(Entry { credentials: None, source }) => Err(Error::Unauthorized(format!(
                "{source}: the value for {registry} is none of 'Basic <base64>', 'Bearer <token>', 'X-Identity <token>'"
            ))),
        }
    }

    /// Whether there are credentials for anything of this registry (`host`).
    pub(crate) fn knows(&self, registry: &str) -> bool {
        let registry = normalise(registry);
        self.lock().keys().any(|key| host_of(key) == registry)
    }

    /// Where the credentials of a registry come from: a variable, a file, an executable. `None`: there are none.
    pub fn source(&self, registry: &str) -> Option<String> {
        find(&self.lock(), &normalise(registry)).map(|entry| entry.source.clone())
    }

    /// Forgets all credentials, in every clone, and overwrites their memory.
    pub fn clear(&self) {
        let mut entries = self.lock();
        for entry in entries.values_mut() {
            match entry.credentials.take() {
                Some(Credentials::Basic { username, password }) => [username, password].into_iter().for_each(wipe),
                Some(Credentials::Bearer(token)) => wipe(token),
                Some(Credentials::Identity { token, password }) => {
                    wipe(token);
                    password.into_iter().flat_map(|(username, password)| [username, password]).for_each(wipe);
                }
                Some(Credentials::Anonymous) | None => {}
            }
        }
        entries.clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wipe(secret: String) {
    let mut bytes = secret.into_bytes();
    bytes.fill(0);
    // Else the compiler may leave out writing to what nobody reads.
    std::hint::black_box(&bytes);
}

/// The entry of the longest key that is the name or one of its parents.
fn find<'a>(entries: &'a BTreeMap<String, Entry>, name: &str) -> Option<&'a Entry> {
    let mut name = name;
    loop {
        if let Some(entry) = entries.get(name) {
            return Some(entry);
        }
        name = name.rsplit_once('/')?.0;
    }
}

/// Docker Hub has several names.
fn normalise(name: &str) -> String {
    let (host, rest) = name.split_once('/').map_or((name, None), |(host, rest)| (host, Some(rest)));
    let host = match host.to_lowercase().as_str() {
        "docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => HUB.to_string(),
        other => other.to_string(),
    };
    match rest.map(|r| r.trim_matches('/')).filter(|r| !r.is_empty()) {
        Some(rest) => format!("{host}/{rest}"),
        None => host,
    }
}

fn host_of(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// A key of `CNB_REGISTRY_AUTH`: scheme and path do not count.
fn host_of_key(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    normalise(host_of(key))
}

/// A `null` says nothing, as Go's parser has it.
fn parse_registry_auth(text: &str) -> Result<BTreeMap<String, String>> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let parsed: Option<BTreeMap<String, Option<String>>> = serde_json::from_str(text).map_err(|e| {
        // Not the parser's own text: it quotes what it read.
        let place = format!("no JSON object of strings (line {}, column {})", e.line(), e.column());
        Error::Corrupt(format!("reading auth env var: failed to parse CNB_REGISTRY_AUTH value: {place}"))
    })?;
    Ok(parsed.into_iter().flatten().filter_map(|(key, value)| Some((key, value?))).collect())
}

/// The value of an `Authorization` header, or `X-Identity <token>`.
fn parse_header(value: &str) -> Option<Credentials> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    match scheme.to_lowercase().as_str() {
        "basic" => parse_basic(rest),
        "bearer" if !rest.is_empty() => Some(Credentials::Bearer(rest.to_string())),
        "x-identity" if !rest.is_empty() => Some(Credentials::Identity { token: rest.to_string(), password: None }),
        _ => None,
    }
}

/// Base64 of `user:password`, maybe in several lines, as some tools fold it.
fn parse_basic(encoded: &str) -> Option<Credentials> {
    let padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, padding);
    let encoded: String = encoded.trim().chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let text = String::from_utf8(engine.decode(encoded).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Old versions of docker filled passwords up with zeros.
    let password = password.trim_end_matches('\0').to_string();
    Some(Credentials::Basic { username: username.to_string(), password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic { username: username.into(), password: password.into() }
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn schemes_of_cnb_registry_auth() {
        for (value, expected) in [
            ("Basic dXNlcjpwYXNz", Some(basic("user", "pass"))),
            ("basic dXNlcjpwYXNz", Some(basic("user", "pass"))),
            ("BASIC dXNlcjpwOmE", Some(basic("user", "p:a"))),
            ("Bearer some.token", Some(Credentials::Bearer("some.token".into()))),
            ("bearer some.token", Some(Credentials::Bearer("some.token".into()))),
            ("X-Identity id", Some(Credentials::Identity { token: "id".into(), password: None })),
            ("x-identity id", Some(Credentials::Identity { token: "id".into(), password: None })),
            ("Basic dXNl\r\ncjpw\nYXNz\n", Some(basic("user", "pass"))),
            ("Basic dXNlcg==", None),
            ("Basic ?", None),
            ("Digest x", None),
            ("", None),
        ] {
            assert!(parse_header(value) == expected, "{value}");
        }
    }

    #[test]
    fn keys_match_registries_whatever_their_scheme_and_path() {
        for (key, registry, matches) in [
            ("gcr.io", "gcr.io", true),
            ("https://gcr.io", "gcr.io", true),
            ("http://host:5000/v2/", "host:5000", true),
            ("host", "host:5000", false),
            ("host:5000", "host", false),
            ("index.docker.io", "index.docker.io", true),
            ("docker.io", "index.docker.io", true),
            ("https://index.docker.io/v1/", "index.docker.io", true),
            ("https://index.docker.io/v1/", "docker.io/library/x", true),
            ("example.com", "sub.example.com", false),
        ] {
            let auth = format!(r#"{{"{key}": "Bearer t"}}"#);
            let keychain = Keychain::resolve(Some(&auth), &[], &none).unwrap();
            assert_eq!(keychain.credentials(registry).unwrap() != Credentials::Anonymous, matches, "{key} {registry}");
        }
    }

    #[test]
    fn bad_json_is_an_error_that_shows_nothing_of_it() {
        for text in [r#"{"host": {"token": "geheim"}}"#, "geheim", r#"["geheim"]"#] {
            let error = Keychain::resolve(Some(text), &[], &none).unwrap_err().to_string();
            assert!(error.starts_with("reading auth env var: failed to parse CNB_REGISTRY_AUTH value"), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_null_says_nothing() {
        for (text, known) in [("null", false), (r#"{"h": "Basic dXNlcjpwYXNz", "x.io": null}"#, true)] {
            let keychain = Keychain::resolve(Some(text), &[], &none).unwrap();
            assert_eq!(keychain.credentials("h").unwrap() == basic("user", "pass"), known, "{text}");
            assert!(keychain.credentials("x.io").unwrap() == Credentials::Anonymous, "{text}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_an_error_where_it_is_used() {
        let keychain = Keychain::resolve(Some(r#"{"a": "Digest geheim", "b": "Bearer t"}"#), &[], &none).unwrap();
        let error = keychain.credentials("a").unwrap_err().to_string();
        assert!(error.contains("CNB_REGISTRY_AUTH") && !error.contains("geheim"), "{error}");
        assert!(keychain.credentials("b").is_ok());
    }

    #[test]
    fn clear_reaches_every_clone_and_debug_shows_nothing() {
        let keychain = Keychain::resolve(Some(r#"{"b": "Bearer geheim"}"#), &[], &none).unwrap();
        let clone = keychain.clone();
        let shown = format!("{keychain:?} {:?}", keychain.credentials("b").unwrap());
        assert_eq!(shown, "Keychain Bearer");
        keychain.clear();
        assert!(clone.credentials("b").unwrap() == Credentials::Anonymous);
    }
}

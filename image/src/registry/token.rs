//! Bearer tokens, and how a token server is asked for them (distribution spec, token authentication).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ureq::http::{Method, StatusCode, Uri};

use super::{
    Shared,
    auth::{Host, Scope},
    failure::{Attempt, Failure},
    http::{Answer, Body, MAX_REDIRECTS, Patience, Request},
    retry,
    url::{encode, parse, same_authority, shown},
};
use crate::{Error, keychain::Credentials};

/// A token whose life ends sooner than this is not used any more.
const MARGIN: Duration = Duration::from_secs(5);
/// The life of a token where the server does not say it (distribution spec, token authentication).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// And the life of one that lives longer by what the server says.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// What a registry names in its challenge.
pub(super) const TOKEN_SERVER: &str = "the token server";
const MAX_TOKEN_ANSWER: u64 = 1 << 20;

/// A bearer token and what it is good for.
pub(super) struct Token {
    scopes: Vec<Scope>,
    more: Vec<String>,
    pub(super) text: Arc<str>,
    pub(super) until: Instant,
}

/// What a token is wanted for.
pub(super) struct Wanted<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a [Scope],
    /// Scopes in the registry's own words.
    pub(super) more: &'a [String],
}

impl Token {
    /// Whether it is good for these scopes, and for those in the registry's own words.
    pub(super) fn serves(&self, scopes: &[Scope], more: &[String]) -> bool {
        scopes.iter().all(|scope| self.scopes.iter().any(|have| have.covers(scope)))
            && more.iter().all(|text| self.more.contains(text))
    }
}

impl Host {
    pub(super) fn fetch_token(
        &self,
        shared: &Shared,
        realm: &Uri,
        wanted: &Wanted<'_>,
        credentials: &Credentials,
    ) -> Attempt<Token> {
        self.check_target(realm, TOKEN_SERVER)?;
        // The registry's own words first: some token servers look at the first scope only.
        let scopes: Vec<String> = wanted.more.iter().cloned().chain(wanted.scopes.iter().map(Scope::text)).collect();
        let service = wanted.service.map(|s| format!("service={}", encode(s)));
        let exchanged = match credentials {
            Credentials::Identity { token, .. } => {
                let scope = format!("scope={}", encode(&scopes.join(" ")));
                let grant = format!("grant_type=refresh_token&client_id=cnb-lifecycle&refresh_token={}", encode(token));
                let form = service.iter().cloned().chain([scope, grant]).collect::<Vec<_>>().join("&");
                Some(retry(&shared.settings, || self.ask_token(shared, realm.clone(), None, Some(form.as_bytes()))))
            }
            _ => None,
        };
        let answer = match exchanged {
            Some(Ok(answer)) => Ok(answer),
            // Not all token servers exchange identity tokens (the specification's own fallback).
            Some(Err(failure))
                if !matches!(failure.status, Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)) =>
            {
                Err(failure)
            }
            _ => {
                let scopes = scopes.iter().map(|s| format!("scope={}", encode(s)));
                let query = service.into_iter().chain(scopes).collect::<Vec<_>>().join("&");
                let joint = if realm.query().is_some() { '&' } else { '?' };
                let url = parse(&format!("{realm}{joint}{query}"))?;
                let header = credentials.password().map(basic);
                retry(&shared.settings, || self.ask_token(shared, url.clone(), header.as_deref(), None))
            }
        };
        let mut answer = answer.map_err(Failure::on_the_way)?;
        let bytes = answer.read_all(MAX_TOKEN_ANSWER, "the token")?;
        let broken = || {
            Failure::lasting(Error::Remote(format!("{} {}: no token in the answer", answer.method, shown(&answer.url))))
        };
        let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| broken())?;
        // Where they differ, the specification leaves the choice: docker's client and the reference take this one.
        let text = ["access_token", "token"].iter().find_map(|k| json.get(k)?.as_str().filter(|t| !t.is_empty()));
        let life = json.get("expires_in").and_then(serde_json::Value::as_u64).map_or(DEFAULT_LIFE, Duration::from_secs);
        let text = format!("Bearer {}", text.ok_or_else(broken)?).into();
        // A life shorter than the margin still serves once.
        let until = Instant::now() + life.saturating_sub(MARGIN).min(LONGEST_LIFE);
        Ok(Token { scopes: wanted.scopes.to_vec(), more: wanted.more.to_vec(), text, until })
    }

    fn ask_token(&self, shared: &Shared, mut url: Uri, header: Option<&str>, form: Option<&[u8]>) -> Attempt<Answer> {
        let method = if form.is_some() { Method::POST } else { Method::GET };
        let origin = url.clone();
        for _ in 0..MAX_REDIRECTS {
            let mut headers = vec![("accept", "application/json")];
            if form.is_some() {
                headers.push(("content-type", "application/x-www-form-urlencoded"));
            }
            if let Some(header) = header.filter(|_| may_see(&origin, &url)) {
                headers.push(("authorization", header));
            }
            let request = Request {
                method: method.clone(),
                url: &url,
                insecure: self.insecure,
                headers: &headers,
                patience: Patience::Normal,
            };
            let answer = shared.http.run(&shared.settings, &request, form.map_or(Body::None, Body::Bytes))?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            match answer.location().filter(|_| answer.status.is_redirection() && form.is_none()) {
                Some(next) => {
                    self.check_target(&next, TOKEN_SERVER)?;
                    url = next;
                }
                None => return Err(answer.into_failure()),
            }
        }
        Err(Failure::too_many_redirects(&method, &url))
    }
}

/// Whether what was meant for `origin` may go to the place it sent us to: the same server, and no less secret.
fn may_see(origin: &Uri, url: &Uri) -> bool {
    let server = origin.authority().map_or("", |a| a.as_str());
    let scheme = origin.scheme_str().unwrap_or_default();
    same_authority(url, server, scheme) && (scheme != "https" || url.scheme_str() == Some(scheme))
}

/// The header for a user and a password.
pub(super) fn basic((username, password): (&str, &str)) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_password_follows_to_the_same_server_alone_and_never_in_the_clear() {
        for (origin, url, may) in [
            ("https://auth.example/a", "https://auth.example/b", true),
            ("https://auth.example/a", "https://auth.example:443/b", true),
            ("http://auth.example/a", "http://auth.example:80/b", true),
            ("https://auth.example/a", "http://auth.example/b", false),
            ("https://auth.example/a", "http://auth.example:443/b", false),
            ("https://auth.example/a", "https://auth.example:8443/b", false),
            ("https://auth.example/a", "https://other.example/b", false),
        ] {
            assert_eq!(may_see(&origin.parse().unwrap(), &url.parse().unwrap()), may, "{origin} {url}");
        }
    }
}

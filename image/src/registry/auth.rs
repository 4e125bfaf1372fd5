//! Which scheme a registry speaks, how it wants us to authenticate, and its tokens.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use ureq::http::{Method, StatusCode};

use super::{
    Shared,
    challenge::{Challenge, challenge_of},
    failure::{Attempt, Failure},
    http::{Answer, Body, MAX_REDIRECTS, Patience, Request},
    lock, retry,
    token::{Token, Wanted, basic},
    url::{is_local, is_loopback, parse, same_authority},
};
use crate::{Error, keychain::Credentials};

/// What one repository is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) repository: String,
    pub(super) push: bool,
    pub(super) delete: bool,
}

impl Scope {
    pub(super) fn covers(&self, other: &Scope) -> bool {
        self.repository == other.repository && self.push >= other.push && self.delete >= other.delete
    }
    /// Whether this scope, as registries write it, asks for no more.
    fn includes(&self, text: &str) -> bool {
        let own = self.text();
        let Some((own, granted)) = own.rsplit_once(':') else { return false };
        text.rsplit_once(':').is_some_and(|(name, actions)| {
            name == own && actions.split(',').all(|action| granted.split(',').any(|have| have == action))
        })
    }

    pub(super) fn text(&self) -> String {
        let actions = match self {
            Self { delete: true, .. } => "push,pull,delete",
            Self { push: true, .. } => "push,pull",
            _ => "pull",
        };
        format!("repository:{}:{actions}", self.repository)
    }
}

/// How a registry is to be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) scheme: &'static str,
    pub(super) challenge: Challenge,
}

/// What is known of an endpoint.
enum Known {
    Nothing,
    /// Probably it is this; the first request will tell.
    Assumed(Endpoint),
    Sure(Endpoint),
}

/// The `Authorization` header of a request.
pub(super) struct Authorization {
    pub(super) header: Option<Arc<str>>,
    /// What it is an answer to.
    pub(super) endpoint: Endpoint,
    /// It was used before, so a 401 may only mean that it is too old.
    pub(super) reused: bool,
}

/// One registry of one run.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) insecure: bool,
    endpoint: std::sync::Mutex<Known>,
    /// Held while a registry is pinged, so that it is pinged once.
    pinging: std::sync::Mutex<()>,
    tokens: std::sync::Mutex<Vec<Token>>,
    /// Scopes that the registry asked for where tokens for those of the request did not serve.
    learnt: std::sync::Mutex<Vec<(Vec<Scope>, String)>>,
    /// It takes no content whose length it is not told before.
    pub(super) wants_lengths: AtomicBool,
    /// It takes no content with the request that finishes an upload.
    pub(super) patches_only: AtomicBool,
}

impl Host {
    pub(super) fn new(name: &str, insecure: bool) -> Self {
        Self {
            name: name.to_string(),
            insecure,
            endpoint: Known::Nothing.into(),
            pinging: ().into(),
            tokens: Vec::new().into(),
            learnt: Vec::new().into(),
            wants_lengths: false.into(),
            patches_only: false.into(),
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.insecure || is_local(&self.name)
    }

    /// Pings once; whoever else asks meanwhile waits for the answer. Without credentials there is no need: the first
    /// request gets an answer, or the challenge that a ping gets.
    pub(super) fn endpoint(&self, shared: &Shared) -> Attempt<Endpoint> {
        let mut known = lock(&self.endpoint);
        // In private networks there may be one scheme or the other.
        let may_assume = || (!self.is_local() || is_loopback(&self.name)) && !shared.keychain.knows(&self.name);
        if matches!(*known, Known::Nothing) && may_assume() {
            let scheme = if is_loopback(&self.name) { "http" } else { "https" };
            *known = Known::Assumed(Endpoint { scheme, challenge: Challenge::None });
        }
        if let Known::Assumed(endpoint) | Known::Sure(endpoint) = &*known {
            return Ok(endpoint.clone());
        }
        drop(known);
        self.pinged(shared).map_err(Failure::on_the_way)
    }

    /// What is known for sure. Those who have an assumption go on with it meanwhile.
    fn pinged(&self, shared: &Shared) -> Attempt<Endpoint> {
        let _alone = lock(&self.pinging);
        if let Known::Sure(endpoint) = &*lock(&self.endpoint) {
            return Ok(endpoint.clone());
        }
        let endpoint = retry(&shared.settings, || self.ping(shared))?;
        let mut known = lock(&self.endpoint);
        match &*known {
            // Another request was asked for more than a ping is.
            Known::Sure(learnt) if endpoint.challenge == Challenge::None => Ok(learnt.clone()),
            _ => {
                *known = Known::Sure(endpoint.clone());
                Ok(endpoint)
            }
        }
    }

    /// After a request that was answered: what was assumed is right.
    pub(super) fn confirm(&self) {
        let mut known = lock(&self.endpoint);
        if let Known::Assumed(endpoint) = &*known {
            *known = Known::Sure(endpoint.clone());
        }
    }

    /// After a request that failed: pings where the endpoint is an assumption. The endpoint, if it is not the one that
    /// was used.
    pub(super) fn verify(&self, shared: &Shared, used: &Endpoint) -> Attempt<Option<Endpoint>> {
        let endpoint = self.pinged(shared)?;
        Ok((endpoint != *used).then_some(endpoint))
    }

    /// Where plain HTTP may be spoken, both schemes are tried; the encrypted one first, but for this machine itself:
    /// there is nobody in between, and nothing secret in a ping.
    fn ping(&self, shared: &Shared) -> Attempt<Endpoint> {
        let (first, second) = if is_loopback(&self.name) { ("http", "https") } else { ("https", "http") };
        let failed = match self.ping_by(shared, first) {
            Err(failure) if self.is_local() => failure,
            done => return done,
        };
        self.ping_by(shared, second).map_err(|failure| {
            let error = Error::Remote(format!("{}; {}", failed.error, failure.error));
            Failure { error, temporary: failed.temporary || failure.temporary, ..failure }
        })
    }

    fn ping_by(&self, shared: &Shared, scheme: &'static str) -> Attempt<Endpoint> {
        let mut url = parse(&format!("{scheme}://{}/v2/", self.name))?;
        // A plain HTTP server may wait for the end of what it takes for a request line.
        let patience = if scheme == "https" && self.is_local() { Patience::Short } else { Patience::Normal };
        for _ in 0..MAX_REDIRECTS {
            let request = Request { method: Method::GET, url: &url, insecure: self.insecure, headers: &[], patience };
            let answer = shared.http.run(&shared.settings, &request, Body::None)?;
            let mut challenge = match answer.status {
                StatusCode::OK | StatusCode::FORBIDDEN => Challenge::None,
                StatusCode::UNAUTHORIZED => challenge_of(&answer).unwrap_or(Challenge::None),
                status => match answer.location().filter(|_| status.is_redirection()) {
                    Some(next) => {
                        let next = self.next_to_ask(&url, next, scheme)?;
                        answer.finish();
                        url = next;
                        continue;
                    }
                    None => return Err(answer.into_failure()),
                },
            };
            answer.finish();
            challenge.take_scopes();
            // Plain HTTP may lead to TLS.
            let encrypted = url.scheme_str() == Some("https") && same_authority(&url, &self.name, "https");
            let scheme = if encrypted { "https" } else { scheme };
            tracing::debug!("{scheme}://{}: {}", self.name, challenge.name());
            return Ok(Endpoint { scheme, challenge });
        }
        Err(Failure::too_many_redirects(&Method::GET, &url))
    }

    /// The header for a request to this registry.
    pub(super) fn authorization(&self, shared: &Shared, scopes: &[Scope]) -> Attempt<Authorization> {
        let endpoint = self.endpoint(shared)?;
        let name = scopes.first().map_or(self.name.clone(), |s| format!("{}/{}", self.name, s.repository));
        let credentials = shared.keychain.credentials(&name).map_err(Failure::lasting)?;
        let (header, reused) = match (&endpoint.challenge, &credentials) {
            (_, Credentials::Bearer(token)) => (Some(format!("Bearer {token}").into()), false),
            // Registries may hide what they have from strangers without asking them for anything: docker's client and
            // the reference send a password wherever it is not tokens that are wanted.
            (Challenge::None | Challenge::Basic, credentials) => {
                (credentials.password().map(|p| basic(p).into()), false)
            }
            (Challenge::Bearer { realm, service, .. }, _) => {
                let mut tokens = lock(&self.tokens);
                tokens.retain(|t| t.until > Instant::now());
                let more = self.learnt(scopes);
                if let Some(token) = tokens.iter().find(|t| t.serves(scopes, &more)) {
                    (Some(token.text.clone()), true)
                } else {
                    let realm = self.realm(realm, endpoint.scheme)?;
                    let wanted = Wanted { service: service.as_deref(), scopes, more: &more };
                    let token = self.fetch_token(shared, &realm, &wanted, &credentials)?;
                    let header = Some(token.text.clone());
                    tokens.push(token);
                    (header, false)
                }
            }
        };
        Ok(Authorization { header, endpoint, reused })
    }

    /// After a 401: drops the token that did not serve, and learns what is asked for now. Whether another attempt can
    /// come out differently.
    pub(super) fn refused(&self, answer: &Answer, used: &Authorization, scopes: &[Scope]) -> bool {
        lock(&self.tokens).retain(|t| Some(&t.text) != used.header.as_ref());
        let Some(mut challenge) = challenge_of(answer) else { return false };
        let learnt = self.learn(scopes, challenge.take_scopes());
        let mut known = lock(&self.endpoint);
        let (Known::Assumed(endpoint) | Known::Sure(endpoint)) = &*known else { return false };
        let news = used.endpoint.challenge != challenge;
        *known = Known::Sure(Endpoint { scheme: endpoint.scheme, challenge });
        news || used.reused || learnt
    }

    /// What the registry wants for these scopes besides them.
    fn learnt(&self, scopes: &[Scope]) -> Vec<String> {
        lock(&self.learnt).iter().filter(|(of, _)| of == scopes).map(|(_, text)| text.clone()).collect()
    }

    /// Whether there is one among `texts` that was not asked for yet.
    fn learn(&self, scopes: &[Scope], texts: Vec<String>) -> bool {
        let mut learnt = lock(&self.learnt);
        let before = learnt.len();
        for text in texts {
            let known = scopes.iter().any(|scope| scope.includes(&text));
            if !known && !learnt.iter().any(|(of, other)| of == scopes && *other == text) {
                learnt.push((scopes.to_vec(), text));
            }
        }
        learnt.len() > before
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn scopes_as_registries_write_them() {
        let scope = Scope { repository: "team/app".to_string(), push: true, delete: false };
        for (text, included) in [
            ("repository:team/app:pull", true),
            ("repository:team/app:pull,push", true),
            ("repository:team/app:push,pull,delete", false),
            ("repository:team/other:pull", false),
            ("registry:catalog:*", false),
            ("anything", false),
        ] {
            assert_eq!(scope.includes(text), included, "{text}");
        }
    }
}

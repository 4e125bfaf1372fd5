//! Which scheme a registry speaks, how it wants us to authenticate, and its tokens.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use ureq::http::{Method, StatusCode, Uri};

use super::{
    Shared,
    challenge::{Challenge, challenge_of},
    failure::{Attempt, Failure, stay_encrypted},
    http::{Answer, Body, MAX_REDIRECTS, Patience, Request},
    lock, retry,
    token::{TOKEN_SERVER, Token, Wanted, basic},
    url::{bare_host, is_link_local, is_local, is_loopback, is_private, parse, same_authority, shown, with_scheme},
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

    fn is_local(&self) -> bool {
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

    /// Where a ping is sent on to. Never in the clear where it was not before: its answer decides where credentials go.
    fn next_to_ask(&self, from: &Uri, next: Uri, scheme: &str) -> Attempt<Uri> {
        let next = self.encrypted(next, scheme);
        self.check_target(&next, "the place to ask instead")?;
        if !self.insecure {
            stay_encrypted(&Method::GET, from, &next)?;
        }
        Ok(next)
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

    /// Whether this URL is the registry's own, so that credentials may go there.
    pub(super) fn owns(&self, shared: &Shared, url: &Uri) -> Attempt<bool> {
        Ok(same_authority(url, &self.name, self.endpoint(shared)?.scheme))
    }

    /// The URL as it is to be used: nothing goes in the clear to a registry that speaks TLS, whatever it says itself.
    pub(super) fn encrypted(&self, url: Uri, scheme: &str) -> Uri {
        let clear = scheme == "https" && same_authority(&url, &self.name, scheme);
        if clear { with_scheme(&url, scheme).unwrap_or(url) } else { url }
    }

    /// The token server's URL. What goes there is as secret as what goes to the registry, which is spoken to by `scheme`.
    fn realm(&self, realm: &str, scheme: &str) -> Attempt<Uri> {
        let realm = self.encrypted(parse(realm)?, scheme);
        if scheme == "https" && realm.scheme_str() != Some("https") && !self.insecure {
            return Err(self.no_target(&realm, TOKEN_SERVER, "which is not reached by https"));
        }
        Ok(realm)
    }

    fn no_target(&self, url: &Uri, what: &str, why: &str) -> Failure {
        let text = format!("registry {} names {} as {what}, {why}", self.name, shown(url));
        Failure::lasting(Error::Remote(text))
    }

    /// Refuses places a registry of the internet has no business to send us to: the network we are in, and its
    /// metadata services; and plain HTTP, where the registry itself is reached by TLS only.
    pub(super) fn check_target(&self, url: &Uri, what: &str) -> Attempt<()> {
        // One that is not local is spoken to by https.
        if same_authority(url, &self.name, "https") || self.is_local() && !is_link_local(url) {
            return Ok(());
        }
        if !self.is_local() && url.scheme_str() != Some("https") {
            return Err(self.no_target(url, what, "which is not reached by https"));
        }
        if bare_host(url).parse::<IpAddr>().is_ok_and(is_private) {
            return Err(self.no_target(url, what, "a private address"));
        }
        Ok(())
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

    #[test]
    fn a_ping_is_not_sent_on_in_the_clear() {
        for (registry, insecure, from, next, expected) in [
            ("a.example", false, "https://a.example/v2/", "https://b.example/v2/", Some("https://b.example/v2/")),
            ("a.example", false, "https://a.example/v2/", "http://a.example/v2/x", Some("https://a.example/v2/x")),
            ("a.example", false, "https://a.example/v2/", "http://b.example/v2/", None),
            ("10.0.0.1:5000", false, "https://10.0.0.1:5000/v2/", "http://10.0.0.2/v2/", None),
            ("10.0.0.1:5000", true, "https://10.0.0.1:5000/v2/", "http://10.0.0.2/v2/", Some("http://10.0.0.2/v2/")),
            ("localhost:1", false, "http://localhost:1/v2/", "http://localhost:2/v2/", Some("http://localhost:2/v2/")),
            (
                "localhost:1",
                false,
                "http://localhost:1/v2/",
                "https://localhost:1/v2/",
                Some("https://localhost:1/v2/"),
            ),
        ] {
            let from: Uri = from.parse().unwrap();
            let scheme = from.scheme_str().unwrap();
            let found = Host::new(registry, insecure).next_to_ask(&from, next.parse().unwrap(), scheme);
            assert_eq!(found.ok().map(|url| url.to_string()).as_deref(), expected, "{registry} {from} {next}");
        }
    }

    #[test]
    fn nothing_goes_in_the_clear_to_a_registry_that_speaks_tls() {
        let host = Host::new("a.example", false);
        for (url, scheme, expected) in [
            ("http://a.example/token?x=1", "https", "https://a.example/token?x=1"),
            ("http://A.example/token", "https", "https://A.example/token"),
            ("http://a.example/token", "http", "http://a.example/token"),
            ("http://b.example/token", "https", "http://b.example/token"),
            ("https://a.example/token", "https", "https://a.example/token"),
        ] {
            assert_eq!(host.encrypted(url.parse().unwrap(), scheme).to_string(), expected, "{url}");
        }
    }

    #[test]
    fn a_password_goes_to_no_token_server_in_the_clear_from_a_registry_that_speaks_tls() {
        for (registry, insecure, scheme, realm, expected) in [
            ("10.0.0.1:5000", false, "https", "https://auth.example/token", Some("https://auth.example/token")),
            ("10.0.0.1:5000", false, "https", "http://auth.example/token", None),
            ("10.0.0.1:5000", false, "https", "http://10.0.0.1:5000/token", Some("https://10.0.0.1:5000/token")),
            ("10.0.0.1:5000", false, "http", "http://auth.example/token", Some("http://auth.example/token")),
            ("10.0.0.1:5000", true, "https", "http://auth.example/token", Some("http://auth.example/token")),
            ("localhost:5000", false, "https", "http://localhost:5001/token", None),
            ("localhost:5000", false, "http", "http://localhost:5001/token", Some("http://localhost:5001/token")),
        ] {
            let found = Host::new(registry, insecure).realm(realm, scheme);
            assert_eq!(found.ok().map(|url| url.to_string()).as_deref(), expected, "{registry} {scheme} {realm}");
        }
    }

    #[test]
    fn where_a_registry_may_send_us() {
        for (registry, insecure, target, allowed) in [
            ("registry.example", false, "https://auth.example/token", true),
            ("registry.example", false, "http://auth.example/token", false),
            ("registry.example", true, "http://auth.example/token", true),
            ("registry.example", false, "https://10.0.0.1/token", false),
            ("registry.example", false, "https://127.0.0.1:8080/token", false),
            ("registry.example", false, "https://[::ffff:10.0.0.1]/token", false),
            ("registry.example", false, "https://[fd00::1]/token", false),
            ("registry.example", true, "http://169.254.169.254/latest", false),
            ("127.0.0.1:5000", false, "http://127.0.0.1:5001/token", true),
            ("127.0.0.1:5000", false, "http://169.254.169.254/latest", false),
            ("10.0.0.1:5000", false, "https://10.0.0.1:5000/token", true),
            ("93.184.0.1", false, "https://93.184.0.1/token", true),
            ("[fd00::1]", false, "https://[fd00::1]:443/token", true),
            ("[fd00::1]:443", false, "https://[FD00::1]/token", true),
            ("[fd00::1]", false, "https://[fd00::1]:8443/token", false),
            ("registry.example", false, "http://registry.example:80/token", false),
        ] {
            let url = target.parse().unwrap();
            assert_eq!(Host::new(registry, insecure).check_target(&url, "x").is_ok(), allowed, "{registry} {target}");
        }
    }
}

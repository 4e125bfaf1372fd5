//! One repository of one registry: requests with authentication, redirects and retries.

use std::sync::Arc;

use ureq::http::{Method, StatusCode, Uri};

use super::{
    Shared,
    auth::{Authorization, Host, Scope},
    failure::{Attempt, Failure, stay_encrypted},
    http::{Answer, Body, MAX_REDIRECTS, Patience, Request},
    lock, manifest, retry,
    url::{parse, shown, with_scheme},
};
use crate::{Digest, Error, Reference};

/// A repository, and with it its registry's shared state.
#[derive(Clone)]
pub(super) struct Repository {
    pub(super) shared: Arc<Shared>,
    pub(super) host: Arc<Host>,
    /// Without the registry.
    pub(super) name: String,
}

/// One request to the repository's registry.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) scopes: &'a [Scope],
    pub(super) patience: Patience,
}

impl Repository {
    pub(super) fn new(shared: &Arc<Shared>, reference: &Reference) -> Self {
        let insecure = shared.is_insecure(reference);
        let host = lock(&shared.hosts)
            .entry((reference.registry.clone(), insecure))
            .or_insert_with(|| Arc::new(Host::new(&reference.registry, insecure)))
            .clone();
        Self { shared: shared.clone(), host, name: reference.repository.clone() }
    }

    /// `registry/repository`
    pub(super) fn context(&self) -> String {
        format!("{}/{}", self.host.name, self.name)
    }

    pub(super) fn pull(&self) -> Scope {
        Scope { repository: self.name.clone(), push: false, delete: false }
    }

    pub(super) fn push(&self) -> Scope {
        Scope { repository: self.name.clone(), push: true, delete: false }
    }

    /// The URL of something of this repository, e.g. `blobs/uploads/`.
    pub(super) fn url(&self, tail: &str) -> Attempt<Uri> {
        let scheme = self.host.endpoint(&self.shared)?.scheme;
        parse(&format!("{scheme}://{}/v2/{}/{tail}", self.host.name, self.name))
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> Attempt<Uri> {
        self.url(&format!("blobs/{digest}"))
    }

    /// Sends the request as often as it takes. A redirect is an answer of GET and HEAD.
    pub(super) fn call(&self, call: &Call<'_>, body: &[u8]) -> Attempt<Answer> {
        retry(&self.shared.settings, || self.call_once(call, &mut Body::Bytes(body)))
    }

    /// One attempt. Where a registry has what is sent go elsewhere (307 and 308 keep method and body, as the older ones do
    /// not), it goes there, without credentials if that is another server. A stream can be read but once, so the failure
    /// says where to.
    pub(super) fn call_once(&self, call: &Call<'_>, body: &mut Body<'_>) -> Attempt<Answer> {
        let mut next = Call { method: call.method.clone(), url: call.url.clone(), ..*call };
        for _ in 0..MAX_REDIRECTS {
            let answer = self.exchange(&next, body)?;
            if may_lead_on(call) || !answer.status.is_redirection() {
                return Ok(answer);
            }
            let Some(url) = answer.location() else { return Err(answer.into_failure()) };
            self.stay_secret(&next, &url)?;
            self.host.check_target(&url, "the place to send to")?;
            if matches!(body, Body::Stream { .. }) {
                return Err(Failure { temporary: true, moved: Some(Box::new(url)), ..answer.into_failure() });
            }
            answer.finish();
            next.url = url;
        }
        Err(Failure::too_many_redirects(&call.method, &call.url))
    }

    /// One attempt, and another one where only the token was too old, or where the registry is to be spoken to in another
    /// way than was assumed.
    fn exchange(&self, call: &Call<'_>, body: &mut Body<'_>) -> Attempt<Answer> {
        let mut url = call.url.clone();
        let streamed = matches!(body, Body::Stream { .. });
        for first in [true, false] {
            // Credentials are for the registry, not for where it sends us: those places have signatures in their URLs.
            let ours = self.host.owns(&self.shared, &url)?;
            let authorization = if ours { Some(self.host.authorization(&self.shared, call.scopes)?) } else { None };
            // The URL may be older than what another thread has learnt meanwhile.
            if let Some(used) = &authorization {
                url = self.host.encrypted(url, used.endpoint.scheme);
            }
            let failure = match self.send(call, &url, authorization.as_ref(), body) {
                Ok(answer) if is_good(call, &answer) => {
                    if ours {
                        self.host.confirm();
                    }
                    return Ok(answer);
                }
                Ok(answer) => {
                    let again = answer.status == StatusCode::UNAUTHORIZED
                        && authorization.as_ref().is_some_and(|used| self.host.refused(&answer, used, call.scopes));
                    let failure = answer.into_failure();
                    if again && first && !streamed {
                        tracing::debug!("{}; asking for a token", failure.error);
                        continue;
                    }
                    // Only whoever makes the content can start it anew.
                    Failure { temporary: failure.temporary || again && first, ..failure }
                }
                Err(failure) => failure,
            };
            let Some(used) = authorization.filter(|_| first && !streamed) else { return Err(in_service(failure)) };
            match self.host.verify(&self.shared, &used.endpoint)? {
                Some(endpoint) => {
                    tracing::debug!("{}; trying again, as the registry wants it", failure.error);
                    url = with_scheme(&url, endpoint.scheme).unwrap_or(url);
                }
                None => return Err(in_service(failure)),
            }
        }
        let text = format!("{} {}: refused twice", call.method, shown(&call.url));
        Err(Failure::lasting(Error::Unauthorized(text)))
    }

    /// Sends the request once, to this URL.
    fn send(
        &self,
        call: &Call<'_>,
        url: &Uri,
        authorization: Option<&Authorization>,
        body: &mut Body<'_>,
    ) -> Attempt<Answer> {
        let may_see = |used: &&Authorization| used.endpoint.scheme != "https" || url.scheme_str() == Some("https");
        let mut headers = call.headers.to_vec();
        if let Some(header) = authorization.filter(may_see).and_then(|used| used.header.as_ref()) {
            headers.push(("authorization", header));
        }
        let part = match body {
            Body::None | Body::Bytes([]) => Body::None,
            Body::Bytes(bytes) => Body::Bytes(bytes),
            Body::Stream { content, length } => Body::Stream { content: &mut **content, length: *length },
        };
        let (method, insecure, patience) = (call.method.clone(), self.host.insecure, call.patience);
        let request = Request { method, url, insecure, headers: &headers, patience };
        self.shared.http.run(&self.shared.settings, &request, part)
    }

    /// Refuses to go on in the clear where it was encrypted, but for a registry that is named insecure.
    fn stay_secret(&self, call: &Call<'_>, next: &Uri) -> Attempt<()> {
        if self.host.insecure { Ok(()) } else { stay_encrypted(&call.method, &call.url, next) }
    }

    /// GET or HEAD, redirects followed; the credentials stay with the registry.
    pub(super) fn get(&self, call: &Call<'_>) -> Attempt<Answer> {
        retry(&self.shared.settings, || self.get_once(call))
    }

    pub(super) fn get_once(&self, call: &Call<'_>) -> Attempt<Answer> {
        let mut next = Call { method: call.method.clone(), url: call.url.clone(), ..*call };
        for _ in 0..MAX_REDIRECTS {
            let answer = self.call_once(&next, &mut Body::None)?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            let Some(url) = answer.location() else { return Err(answer.into_failure()) };
            self.stay_secret(&next, &url)?;
            answer.finish();
            next.url = url;
        }
        Err(Failure::too_many_redirects(&call.method, &call.url))
    }

    /// Whether the repository has the blob.
    pub(super) fn has_blob(&self, digest: &Digest) -> Attempt<bool> {
        if self.saw_blob(digest) {
            return Ok(true);
        }
        let call = Call {
            method: Method::HEAD,
            url: self.blob_url(digest)?,
            headers: &[],
            scopes: &[self.pull()],
            patience: Patience::Normal,
        };
        match self.call(&call, &[]) {
            // A redirect leads to the blob's storage: it is there, no need to go and look.
            Ok(_) => {
                self.remember_blob(digest);
                Ok(true)
            }
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Whether the repository was seen to have the blob.
    fn saw_blob(&self, digest: &Digest) -> bool {
        lock(&self.shared.blobs).contains(&(self.context(), digest.clone()))
    }

    /// Whether this manifest was read from the repository, or a manifest there names this blob.
    fn should_have(&self, digest: &Digest) -> bool {
        let context = self.context();
        !lock(&self.shared.distrusted).contains(&context)
            && lock(&self.shared.named).contains(&(context, digest.clone()))
    }

    /// Whether the repository was seen to have the blob, or has a manifest that names it. A registry takes care of what
    /// its manifests name, and looks again before it takes another one; where it misses something then,
    /// [`Repository::forget_blobs`] makes us look, too.
    pub(super) fn must_have(&self, digest: &Digest) -> bool {
        self.saw_blob(digest) || self.should_have(digest)
    }

    pub(super) fn remember_named(&self, digests: impl IntoIterator<Item = Digest>) {
        let context = self.context();
        lock(&self.shared.named).extend(digests.into_iter().map(|digest| (context.clone(), digest)));
    }

    /// Whether this is what the tag stands for now. A registry that does not tell is taken for one that has it not.
    pub(super) fn has_manifest(&self, tag: &str, digest: &Digest) -> bool {
        if !self.should_have(digest) {
            return false;
        }
        let ask = || {
            let call = Call {
                method: Method::HEAD,
                url: self.url(&format!("manifests/{tag}"))?,
                headers: &[("accept", manifest::ACCEPT)],
                scopes: &[self.pull()],
                patience: Patience::Normal,
            };
            self.get_once(&call)
        };
        let answer = ask().inspect_err(|failure| tracing::debug!("{}", failure.error));
        answer.is_ok_and(|answer| answer.headers.get("docker-content-digest").is_some_and(|d| d == digest.as_str()))
    }

    pub(super) fn remember_blob(&self, digest: &Digest) {
        lock(&self.shared.blobs).insert((self.context(), digest.clone()));
    }

    /// Forgets which blobs the repository has.
    pub(super) fn forget_blobs(&self) {
        let context = self.context();
        lock(&self.shared.blobs).retain(|(c, _)| *c != context);
        self.distrust();
    }

    /// Trusts no manifest of the repository any more: not even that it need not be written again.
    pub(super) fn distrust(&self) {
        lock(&self.shared.distrusted).insert(self.context());
    }
}

/// Whether it is what was asked for, or says where to ask for it.
fn is_good(call: &Call<'_>, answer: &Answer) -> bool {
    let elsewhere = matches!(answer.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    answer.status.is_success() || elsewhere || answer.status.is_redirection() && may_lead_on(call)
}

/// Any redirect is an answer of GET and HEAD.
fn may_lead_on(call: &Call<'_>) -> bool {
    matches!(call.method, Method::GET | Method::HEAD)
}

/// A failure of a registry that answered before: a refused connection is a restart.
fn in_service(failure: Failure) -> Failure {
    Failure { temporary: failure.temporary || failure.refused, ..failure }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use acceptance::registry::{Options, RegistryServer};

    use super::*;
    use crate::{Keychain, Registry};

    /// Several threads begin at once and assume that this machine's registry speaks plain HTTP. One of them learns better
    /// after another one has made its URL.
    #[test]
    fn what_one_thread_learns_of_the_scheme_holds_for_urls_made_before() {
        let server = RegistryServer::start(&Options { tls: true, ..Options::default() });
        let registry = Registry::new(Keychain::default(), vec![server.host()]);
        let repository = registry.repository(&Reference::parse(&format!("{}/app", server.host())).unwrap());
        let result = |f: Failure| f.error.to_string();
        let url = repository.url("tags/list").map_err(result).unwrap();
        assert_eq!(url.scheme_str(), Some("http"));
        assert!(!repository.has_blob(&Digest::of(b"")).map_err(result).unwrap());
        assert_eq!(repository.url("").map_err(result).unwrap().scheme_str(), Some("https"));
        let (scopes, patience) = (&[repository.pull()], Patience::Normal);
        let call = Call { method: Method::GET, url, headers: &[], scopes, patience };
        let failure = repository.call_once(&call, &mut Body::None).err().unwrap();
        // Answered by the registry itself: there is no such repository.
        assert!(failure.is(StatusCode::NOT_FOUND), "{}", failure.error);
    }
}

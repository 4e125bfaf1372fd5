//! One HTTP request and its answer: connections and time limits. No retries and no authentication here.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, Mutex, OnceLock},
};

use ureq::{
    Agent, Proxy, ProxyProtocol, SendBody,
    http::{self, HeaderMap, Method, StatusCode, Uri, header},
    tls::Certificate,
};

use super::{
    Settings, absolute,
    failure::{Attempt, Failure, content_error, transport_failure},
    lock,
    tls::{self, Trust},
    trust,
    url::{resolve, shown},
};
use crate::Error;

/// What is read of an answer that nobody wants, so that its connection serves again.
const MAX_REST: u64 = 64 << 10;

/// How often a request is sent on.
pub(super) const MAX_REDIRECTS: usize = 10;

/// Bytes that a connection receives or sends at once: a record of TLS. With two or four times as many, an export is no
/// faster, and what is small slower: each new connection's buffers have to be cleared.
const BUFFER: usize = 16 << 10;

/// The connections of one run.
pub(super) struct Http {
    agents: Mutex<HashMap<AgentKey, Connections>>,
    authorities: OnceLock<Vec<Certificate<'static>>>,
}

/// Connections with the same key are made, and may be used, in the same way.
#[derive(Clone, PartialEq, Eq, Hash)]
struct AgentKey {
    https: bool,
    insecure: bool,
    proxy: Option<String>,
    authority: Option<String>,
}

/// Connections of one kind.
#[derive(Clone)]
struct Connections {
    agent: Agent,
    /// What each request has to tell the proxy of its user; in a tunnel's requests, nothing.
    user: Option<String>,
}

/// What to send.
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    /// Without a length it goes out in chunks.
    Stream {
        content: &'a mut dyn Read,
        length: Option<u64>,
    },
}

/// How long to wait for the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Normal,
    /// Looking whether there is TLS at all.
    Short,
    /// A registry may check and move a whole blob before it answers.
    Long,
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Uri,
    pub(super) insecure: bool,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) patience: Patience,
}

/// An answer of whatever status.
pub(super) struct Answer {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ureq::BodyReader<'static>,
}

impl Http {
    pub(super) fn new() -> Self {
        Self { agents: Mutex::default(), authorities: OnceLock::new() }
    }

    /// Sends one request and waits for the head of its answer; redirects are answers too.
    pub(super) fn run(&self, settings: &Settings, request: &Request<'_>, body: Body<'_>) -> Attempt<Answer> {
        let Request { method, url, .. } = request;
        let Connections { agent, user } = self.connections(settings, request)?;
        // What is packed for the way comes as it is: digests and sizes are those of what is stored.
        let mut builder = http::Request::builder().method(method).uri(*url).header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some(user) = &user {
            builder = builder.header(header::PROXY_AUTHORIZATION, user);
        }
        let mut bytes: &[u8] = &[];
        let mut source = Source { content: None, error: None };
        let length = match body {
            // A POST, PUT or PATCH without content still has to say so.
            Body::None => matches!(*method, Method::POST | Method::PUT | Method::PATCH).then_some(0),
            Body::Bytes(content) => {
                bytes = content;
                Some(content.len() as u64)
            }
            Body::Stream { content, length } => {
                source.content = Some(content);
                length
            }
        };
        let streamed = source.content.is_some();
        if let Some(length) = length {
            builder = builder.header(header::CONTENT_LENGTH, length);
        }
        let answer = if streamed {
            deliver(&agent, settings, request.patience, builder, SendBody::from_reader(&mut source))
        } else if length.is_some() {
            deliver(&agent, settings, request.patience, builder, SendBody::from_reader(&mut bytes))
        } else {
            deliver(&agent, settings, request.patience, builder, ())
        };
        if let Some(error) = source.error {
            return Err(Failure::lasting(content_error(error)));
        }
        let answer = answer.map_err(|e| transport_failure(settings, request, &e))?;
        let (head, body) = answer.into_parts();
        Ok(Answer {
            method: method.clone(),
            url: (*url).clone(),
            status: head.status,
            headers: head.headers,
            body: body.into_reader(),
        })
    }

    fn connections(&self, settings: &Settings, request: &Request<'_>) -> Attempt<Connections> {
        let url = request.url;
        let https = url.scheme_str() == Some("https");
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        let own = if https && !request.insecure { trust::authorities_of(&authority) } else { Vec::new() };
        let key = AgentKey {
            https,
            insecure: request.insecure,
            proxy: settings.proxies.for_url(url),
            authority: (!own.is_empty()).then_some(authority),
        };
        if let Some(connections) = lock(&self.agents).get(&key) {
            return Ok(connections.clone());
        }
        let failed = |why: &str| Failure::lasting(Error::Remote(format!("{} {}: {why}", request.method, shown(url))));
        let proxy = key.proxy.as_ref().map(|url| Proxy::new(url)).transpose();
        let proxy = proxy.map_err(|_| failed("the proxy's URL is not one"))?;
        // ureq would pass it by.
        if proxy.as_ref().is_some_and(|proxy| !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https)) {
            let name = settings.proxies.name_for(url).unwrap_or_default();
            return Err(failed(&format!("the proxy {name} speaks SOCKS, which is not supported")));
        }
        let mut roots = own;
        // Reading the authorities takes some milliseconds: not where they are not looked at.
        if https && !request.insecure {
            roots.extend(self.authorities.get_or_init(trust::authorities).iter().cloned());
        }
        let trust = if request.insecure { Trust::Anyone } else { Trust::These(Arc::new(roots)) };
        let connections = connections(settings, request, trust, proxy).map_err(|e| failed(&e.to_string()))?;
        Ok(lock(&self.agents).entry(key).or_insert(connections).clone())
    }
}

/// Where plain HTTP goes through a plain proxy, the proxy is who answers; else it makes a tunnel.
fn connections(
    settings: &Settings,
    request: &Request<'_>,
    trust: Trust,
    proxy: Option<Proxy>,
) -> Result<Connections, rustls::Error> {
    let (tunnel, answers) = match proxy {
        Some(proxy) if request.url.scheme_str() != Some("https") && proxy.protocol() == ProxyProtocol::Http => {
            (None, Some(proxy))
        }
        other => (other, None),
    };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(tunnel)
        .user_agent(settings.user_agent.clone())
        .timeout_connect(Some(settings.connect_timeout))
        .timeout_per_read(Some(settings.idle_timeout))
        .timeout_per_write(Some(settings.idle_timeout))
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .max_idle_connections_per_host(16)
        .max_idle_connections(32)
        .build();
    let user = answers.as_ref().and_then(absolute::authorization);
    let agent = match answers {
        Some(proxy) => absolute::agent(config, &proxy),
        None => tls::agent(config, trust)?,
    };
    Ok(Connections { agent, user })
}

fn deliver(
    agent: &Agent,
    settings: &Settings,
    patience: Patience,
    builder: http::request::Builder,
    body: impl ureq::AsSendBody,
) -> Result<http::Response<ureq::Body>, ureq::Error> {
    let config = agent.configure_request(builder.body(body)?);
    let config = match patience {
        Patience::Normal => config,
        Patience::Short => config.timeout_per_call(Some(settings.probe_timeout)),
        Patience::Long => config.timeout_per_read(Some(settings.commit_timeout)),
    };
    agent.run(config.build())
}

/// Content that remembers that it was the one that failed.
struct Source<'a> {
    content: Option<&'a mut dyn Read>,
    error: Option<io::Error>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(content) = self.content.as_mut() else { return Ok(0) };
        content.read(buffer).inspect_err(|e| {
            self.error = Some(io::Error::new(e.kind(), e.to_string()));
        })
    }
}

impl Answer {
    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Location`, made absolute.
    pub(super) fn location(&self) -> Option<Uri> {
        resolve(&self.url, self.header(header::LOCATION)?)
    }

    /// All of a small body. `what` names it where it is too big.
    pub(super) fn read_all(&mut self, limit: u64, what: &str) -> Attempt<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.body).take(limit + 1).read_to_end(&mut bytes).map_err(|e| {
            let error = Error::Remote(format!("{} {}: {e}", self.method, shown(&self.url)));
            Failure::temporary(error)
        })?;
        if bytes.len() as u64 > limit {
            let text = format!("{} {}: {what} is larger than {limit} bytes", self.method, shown(&self.url));
            return Err(Failure::lasting(Error::Corrupt(text)));
        }
        Ok(bytes)
    }

    /// Reads what is left of a short body, so that the connection serves again.
    pub(super) fn finish(mut self) {
        let _ = io::copy(&mut (&mut self.body).take(MAX_REST), &mut io::sink());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::Proxies, *};

    #[test]
    fn a_proxy_that_cannot_be_used_is_not_passed_by() {
        for proxy in ["socks5://127.0.0.1:1", "socks5h://127.0.0.1:1", "socks4://127.0.0.1:1"] {
            let proxies = Proxies::new(|name| name.ends_with("_proxy").then(|| proxy.to_string()));
            let settings =
                Settings { proxies, connect_timeout: std::time::Duration::from_secs(1), ..Settings::default() };
            for url in ["http://192.0.2.1/v2/", "https://192.0.2.1/v2/"] {
                let url: Uri = url.parse().unwrap();
                let (method, patience) = (Method::GET, Patience::Normal);
                let request = Request { method, url: &url, insecure: true, headers: &[], patience };
                let failure = Http::new().run(&settings, &request, Body::None).err().unwrap();
                assert!(!failure.temporary && failure.error.to_string().contains("SOCKS"), "{}", failure.error);
            }
        }
    }
}

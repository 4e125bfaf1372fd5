//! Plain HTTP through a proxy: the request goes to the proxy, with the whole URL in its first line (RFC 9112,
//! section 3.2.2). ureq itself asks every proxy for a tunnel, which most give to port 443 only.

use std::{io, mem};

use base64::{Engine, engine::general_purpose::STANDARD};
use ureq::{
    Agent, Error, Proxy,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
    },
};

use super::connect::Tcp;

/// An agent whose connections all lead to this proxy. `config` names no proxy.
pub(super) fn agent(config: Config, proxy: &Proxy) -> Agent {
    Agent::with_parts(config, Tcp.chain(WholeUrls), ToProxy(proxy.uri().clone()))
}

/// The value of `proxy-authorization`, where the proxy's URL has a user.
pub(super) fn authorization(proxy: &Proxy) -> Option<String> {
    let (user, password) = (proxy.username(), proxy.password());
    let given = user.is_some() || password.is_some();
    let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
    given.then(|| format!("Basic {}", STANDARD.encode(pair)))
}

/// Every host is where the proxy is.
#[derive(Debug)]
struct ToProxy(Uri);

impl Resolver for ToProxy {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

#[derive(Debug)]
struct WholeUrls;

impl<In: Transport> Connector<In> for WholeUrls {
    type Out = Requests<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, inner: Option<In>) -> Result<Option<Self::Out>, Error> {
        let authority = details.uri.authority().map_or("", |a| a.as_str());
        Ok(inner.map(|inner| Requests { inner, origin: format!("http://{authority}"), begins: true }))
    }
}

/// A connection that writes the scheme and the authority before each request's path.
#[derive(Debug)]
struct Requests<In> {
    inner: In,
    origin: String,
    /// What is sent next begins a request: the first thing on a connection, and the first after an answer.
    begins: bool,
}

impl<In: Transport> Transport for Requests<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let amount = if mem::take(&mut self.begins) {
            insert(self.inner.buffers().output(), amount, self.origin.as_bytes())?
        } else {
            amount
        };
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.begins = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// Puts `origin` between method and path of the request in the first `amount` bytes of `output`; how many bytes it
/// has then.
fn insert(output: &mut [u8], amount: usize, origin: &[u8]) -> Result<usize, Error> {
    let failed = || Error::from(io::Error::other("a request for a proxy does not fit into its buffer"));
    let head = output.get(..amount).ok_or_else(failed)?;
    let path = head.iter().position(|byte| *byte == b' ').ok_or_else(failed)? + 1;
    let (end, longer) = (path + origin.len(), amount + origin.len());
    if longer > output.len() {
        return Err(failed());
    }
    output.copy_within(path..amount, end);
    output.get_mut(path..end).ok_or_else(failed)?.copy_from_slice(origin);
    Ok(longer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_gets_the_whole_url() {
        let request = b"GET /v2/ HTTP/1.1\r\n\r\n";
        let mut buffer = [0; 64];
        buffer[..request.len()].copy_from_slice(request);
        let amount = insert(&mut buffer, request.len(), b"http://a.example:5000").unwrap();
        assert_eq!(&buffer[..amount], b"GET http://a.example:5000/v2/ HTTP/1.1\r\n\r\n");
        insert(&mut buffer, amount, b"http://a.name.that.is.too.long.example").unwrap_err();
        insert(&mut buffer, 3, b"http://a").unwrap_err();
    }

    #[test]
    fn a_user_of_the_proxy() {
        let of = |url: &str| authorization(&Proxy::new(url).unwrap());
        assert_eq!(of("http://proxy:3128"), None);
        assert_eq!(of("http://user:pw@proxy:3128").as_deref(), Some("Basic dXNlcjpwdw=="));
    }
}

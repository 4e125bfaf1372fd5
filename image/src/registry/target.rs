//! Where a registry may send us: its answers name places to ask, to send to, and to get tokens from.

use std::net::IpAddr;

use ureq::http::{Method, Uri};

use super::{
    Shared,
    auth::Host,
    failure::{Attempt, Failure, stay_encrypted},
    token::TOKEN_SERVER,
    url::{bare_host, is_link_local, is_private, parse, same_authority, shown, with_scheme},
};
use crate::Error;

impl Host {
    /// Where a ping is sent on to. Never in the clear where it was not before: its answer decides where credentials go.
    pub(super) fn next_to_ask(&self, from: &Uri, next: Uri, scheme: &str) -> Attempt<Uri> {
        let next = self.encrypted(next, scheme);
        self.check_target(&next, "the place to ask instead")?;
        if !self.insecure {
            stay_encrypted(&Method::GET, from, &next)?;
        }
        Ok(next)
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
    pub(super) fn realm(&self, realm: &str, scheme: &str) -> Attempt<Uri> {
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

//! URLs, as far as registries use them, and what their hosts mean.

use std::net::IpAddr;

use ureq::http::{Uri, uri::Authority};

use super::failure::{Attempt, Failure};
use crate::Error;

/// An absolute URL.
pub(super) fn parse(url: &str) -> Attempt<Uri> {
    let parsed: Result<Uri, _> = url.parse();
    match parsed {
        Ok(uri) if resolve(&uri, "/").is_some() => Ok(uri),
        _ => Err(Failure::lasting(Error::Remote(format!("{url}: not a URL")))),
    }
}

/// The URL as errors show it. A query may hold signatures, so it stays away.
pub(super) fn shown(url: &Uri) -> String {
    let authority = url.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{authority}{}", url.scheme_str().unwrap_or_default(), url.path())
}

/// The host in lower case, an IPv6 address without its brackets.
pub(super) fn bare_host(url: &Uri) -> String {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_lowercase()
}

/// Whether a URL leads to this registry, which is spoken to by `scheme`: its host in any case, and the usual port as good as
/// none. A plain URL of a registry that speaks TLS is taken for its encrypted one ([`with_scheme`]).
pub(super) fn same_authority(url: &Uri, registry: &str, scheme: &str) -> bool {
    let Some(authority) = url.authority() else { return false };
    if authority.as_str().eq_ignore_ascii_case(registry) {
        return true;
    }
    let Ok(registry) = registry.parse::<Authority>() else { return false };
    let usual = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let by = if scheme == "https" { scheme } else { url.scheme_str().unwrap_or(scheme) };
    !authority.as_str().contains('@')
        && authority.host().eq_ignore_ascii_case(registry.host())
        && authority.port_u16().unwrap_or(usual(by)) == registry.port_u16().unwrap_or(usual(scheme))
}

/// A reference of a URL (RFC 3986, as far as registries use it) against the URL it came from.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    if location.is_empty() {
        return None;
    }
    let absolute = if location.contains("://") && !location.starts_with('/') {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(d, _)| d);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let url: Uri = absolute.parse().ok()?;
    (matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).then_some(url)
}

/// The same URL by another scheme.
pub(super) fn with_scheme(url: &Uri, scheme: &str) -> Option<Uri> {
    let text = url.to_string();
    let (_, rest) = text.split_once("://")?;
    format!("{scheme}://{rest}").parse().ok()
}

/// The URL with one more parameter in its query.
pub(super) fn with_query(url: &Uri, name: &str, value: &str) -> Option<Uri> {
    let text = url.to_string();
    let joint = if url.query().is_some() { '&' } else { '?' };
    format!("{text}{joint}{name}={}", encode(value)).parse().ok()
}

/// Percent-encoding of a query's value.
pub(super) fn encode(value: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Hosts that may be spoken to by plain HTTP without being asked to: this machine and private networks.
pub(super) fn is_local(registry: &str) -> bool {
    let host = host_of(registry);
    let private = matches!(host.parse(), Ok(IpAddr::V4(ip)) if ip.is_private());
    private || is_loopback(registry) || host.to_lowercase().ends_with(".local")
}

/// Whether a registry is on this machine.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = host_of(registry);
    let name = host.to_lowercase();
    let by_address = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    by_address || name == "localhost" || name.ends_with(".localhost")
}

/// A registry's name without its port.
fn host_of(registry: &str) -> &str {
    match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    }
}

pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_private(IpAddr::V4(ip)),
            None => {
                ip.is_loopback()
                    || ip.is_unicast_link_local()
                    || ip.is_unique_local()
                    || ip.is_unspecified()
                    || ip.is_multicast()
            }
        },
    }
}

pub(super) fn is_link_local(url: &Uri) -> bool {
    match bare_host(url).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        Err(_) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_private_networks() {
        for (registry, local) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("registry.localhost:5000", true),
            ("registry.local", true),
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("10.1.2.3:5000", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.7.7:5000", true),
            ("8.8.8.8:5000", false),
            ("index.docker.io", false),
            ("localhost.example.com", false),
            ("local", false),
        ] {
            assert_eq!(is_local(registry), local, "{registry}");
        }
    }

    #[test]
    fn the_usual_port_is_as_good_as_none() {
        for (url, registry, scheme, same) in [
            ("https://a.example/v2/", "a.example", "https", true),
            ("https://a.example:443/v2/", "a.example", "https", true),
            ("https://a.example/v2/", "a.example:443", "https", true),
            ("https://A.Example:443/v2/", "a.example", "https", true),
            ("https://a.example:5000/v2/", "A.example:5000", "https", true),
            ("http://a.example/v2/", "a.example", "https", true),
            ("http://a.example/v2/", "a.example:443", "https", true),
            ("http://a.example:80/v2/", "a.example", "http", true),
            ("http://a.example/v2/", "a.example:80", "http", true),
            ("https://[::1]:443/v2/", "[::1]", "https", true),
            ("http://a.example:80/v2/", "a.example", "https", false),
            ("https://a.example/v2/", "a.example:80", "http", false),
            ("https://a.example:80/v2/", "a.example", "https", false),
            ("https://a.example/v2/", "a.example:5000", "https", false),
            ("https://a.example:443/v2/", "b.example", "https", false),
            ("https://a.example.b:443/v2/", "a.example", "https", false),
            ("https://a.example@b.example:443/v2/", "a.example", "https", false),
            ("https://user@a.example:443/v2/", "a.example", "https", false),
        ] {
            assert_eq!(same_authority(&url.parse().unwrap(), registry, scheme), same, "{url} {registry} {scheme}");
        }
    }

    #[test]
    fn locations() {
        let base = "https://registry.example:5000/v2/app/blobs/uploads/".parse().unwrap();
        for (location, expected) in [
            ("/v2/x?a=b", Some("https://registry.example:5000/v2/x?a=b")),
            ("17?a=b", Some("https://registry.example:5000/v2/app/blobs/uploads/17?a=b")),
            ("?a=b", Some("https://registry.example:5000/v2/app/blobs/uploads/?a=b")),
            ("//other.example/x", Some("https://other.example/x")),
            ("http://other.example/x", Some("http://other.example/x")),
            ("/x?to=https://other.example/", Some("https://registry.example:5000/x?to=https://other.example/")),
            ("file:///etc/passwd", None),
            ("", None),
        ] {
            let found = resolve(&base, location).map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
        let url = with_query(&"https://a/b?c=d".parse().unwrap(), "digest", "sha256:0/&").unwrap();
        assert_eq!(url.to_string(), "https://a/b?c=d&digest=sha256:0/%26");
        assert_eq!(shown(&"https://user:pw@a:5/b?sig=x".parse().unwrap()), "https://a:5/b");
    }
}

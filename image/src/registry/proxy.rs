//! Which proxy a URL goes through: the rules of Go's `golang.org/x/net/http/httpproxy`, as clusters are set up for
//! them. ureq's own matching knows neither CIDR blocks nor ports, and one proxy for both schemes only.

use std::net::IpAddr;

use ureq::http::Uri;

use super::url::bare_host;

/// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or their lower-case forms.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    except: Vec<String>,
}

/// Without the URLs: they may hold a password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxies {{ http: {}, https: {} }}", self.http.is_some(), self.https.is_some())
    }
}

impl Proxies {
    /// From the environment, `get` being its look-up. An empty variable is an unset one.
    pub fn new(get: impl Fn(&str) -> Option<String>) -> Self {
        let find = |name: &str| {
            [name.to_uppercase(), name.to_lowercase()].iter().find_map(|n| get(n).filter(|v| !v.trim().is_empty()))
        };
        let except = find("no_proxy").unwrap_or_default();
        Self {
            http: find("http_proxy"),
            https: find("https_proxy"),
            except: except.split(',').map(|e| e.trim().to_lowercase()).filter(|e| !e.is_empty()).collect(),
        }
    }

    /// The proxy's URL, `None` for a direct connection. Loopback is never proxied.
    pub fn for_url(&self, url: &Uri) -> Option<String> {
        let https = url.scheme_str() == Some("https");
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = bare_host(url);
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let ip = host.parse::<IpAddr>().ok();
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return None;
        }
        if self.except.iter().any(|entry| excepts(entry, &host, ip, port)) {
            return None;
        }
        Some(if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") })
    }
}

impl Proxies {
    /// Host and port of the proxy, as errors name it.
    pub(super) fn name_for(&self, url: &Uri) -> Option<String> {
        let proxy: Uri = self.for_url(url)?.parse().ok()?;
        proxy.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default().to_string())
    }
}

/// Whether one entry of `NO_PROXY` names this host.
fn excepts(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return match (network.parse(), bits.parse(), ip) {
            (Ok(network), Ok(bits), Some(ip)) => in_network(ip, network, bits),
            _ => false,
        };
    }
    if let Ok(address) = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return ip == Some(address);
    }
    let (name, only_port) = match entry.rsplit_once(':') {
        Some((name, digits)) => match digits.parse::<u16>() {
            Ok(p) => (name, Some(p)),
            Err(_) => (entry, None),
        },
        None => (entry, None),
    };
    if only_port.is_some_and(|p| p != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = name.parse::<IpAddr>() {
        return ip == Some(address);
    }
    // ".example.com" and "*.example.com" mean names below it, "example.com" means it and the names below it.
    let suffix = name.strip_prefix('*').unwrap_or(name);
    if let Some(domain) = suffix.strip_prefix('.') {
        return !domain.is_empty() && host.ends_with(suffix);
    }
    host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether the first `bits` bits agree.
fn in_network(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) if bits <= 32 => (u32::from(a) ^ u32::from(b)).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(b)) if bits <= 128 => (u128::from(a) ^ u128::from(b)).leading_zeros() >= bits,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn proxies(no_proxy: &str) -> Proxies {
        Proxies::new(|name| match name {
            "HTTP_PROXY" => Some("plain.proxy:3128".into()),
            "https_proxy" => Some("http://user:pw@tls.proxy:3129".into()),
            "no_proxy" => Some(no_proxy.into()),
            _ => None,
        })
    }

    #[test]
    fn each_scheme_has_its_proxy_and_loopback_has_none() {
        let p = proxies("");
        for (url, expected) in [
            ("http://registry.example/v2/", Some("http://plain.proxy:3128")),
            ("https://registry.example/v2/", Some("http://user:pw@tls.proxy:3129")),
            ("http://localhost:5000/v2/", None),
            ("http://127.0.0.9:5000/v2/", None),
            ("http://[::1]:5000/v2/", None),
        ] {
            assert_eq!(p.for_url(&url.parse().unwrap()).as_deref(), expected, "{url}");
        }
        assert_eq!(p.name_for(&"https://a.example".parse().unwrap()).as_deref(), Some("tls.proxy:3129"));
        assert!(!format!("{p:?}").contains("pw"));
    }

    #[test]
    fn no_proxy_as_go_reads_it() {
        for (no_proxy, url, direct) in [
            ("*", "https://a.example/", true),
            ("example.com", "https://example.com/", true),
            ("example.com", "https://a.example.com/", true),
            ("example.com", "https://notexample.com/", false),
            (".example.com", "https://example.com/", false),
            (".example.com", "https://a.example.com/", true),
            ("*.example.com", "https://a.example.com/", true),
            ("example.com:8443", "https://example.com:8443/", true),
            ("example.com:8443", "https://example.com/", false),
            ("example.com:443", "https://example.com/", true),
            ("10.0.0.0/8", "http://10.1.2.3:5000/", true),
            ("10.0.0.0/8", "http://11.1.2.3:5000/", false),
            ("10.0.0.0/8", "http://ten.example/", false),
            ("fd00::/8", "http://[fd12::1]:5000/", true),
            ("10.1.2.3", "http://10.1.2.3:5000/", true),
            ("10.1.2.3:80", "http://10.1.2.3:5000/", false),
            ("10.1.2.3:5000", "http://10.1.2.3:5000/", true),
            (" other.example , Registry.Example ", "https://registry.example/", true),
            ("registry.example", "https://REGISTRY.example/", true),
        ] {
            assert_eq!(proxies(no_proxy).for_url(&url.parse().unwrap()).is_none(), direct, "{no_proxy} {url}");
        }
    }
}

//! Image references, parsed weakly as Docker does: a tag is tried first, then a digest.

use std::fmt;

use crate::{Digest, Error, Result};

/// `registry/repository[:tag][@digest]`. `docker.io` is `index.docker.io`, one-part names there get `library/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    pub repository: String,
    /// `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    pub digest: Option<Digest>,
    /// As the user wrote it.
    pub original: String,
}

const DEFAULT_REGISTRY: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";
/// Bytes, `library/` counted.
const LONGEST_REPOSITORY: usize = 255;

impl Reference {
    /// # Errors
    /// [`Error::Reference`] naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = match text.split_once('@') {
            None => split_tag(text).map(|(name, tag)| (name, Some(tag.unwrap_or(DEFAULT_TAG)), None)),
            Some((name, digest)) => Digest::parse(digest)
                .ok()
                .and_then(|digest| split_tag(name).map(|(name, tag)| (name, tag, Some(digest)))),
        };
        let bad = || Error::Reference(format!("could not parse reference: {text}"));
        let (name, tag, digest) = parsed.ok_or_else(bad)?;
        let (registry, repository) = split_repository(name).ok_or_else(bad)?;
        // These become paths of a layout, and of a registry's URLs.
        let leads_elsewhere = |part: &str| matches!(part, "" | "." | "..");
        let elsewhere = repository.split('/').chain([registry.as_str()]).chain(tag).any(leads_elsewhere);
        if elsewhere || repository.len() > LONGEST_REPOSITORY {
            return Err(bad());
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest, original: text.to_owned() })
    }

    /// The same repository, by digest.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        let mut other = Self { tag: None, digest: Some(digest.clone()), ..self.clone() };
        other.original = other.to_string();
        other
    }

    /// What comes after `manifests/`: the digest where there is one, else the tag.
    pub fn identifier(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// `registry/repository`
    pub fn context(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Whether both are in one repository of one registry.
    pub(crate) fn same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    /// Whether two names mean the same image, digests left aside; names that do not parse compare as text.
    pub fn same_name(a: &str, b: &str) -> bool {
        canonical(a) == canonical(b)
    }
}

fn canonical(name: &str) -> String {
    let tagged = name.split_once("@sha256:").map_or(name, |(tagged, _)| tagged);
    Reference::parse(tagged).map_or_else(|_| name.to_owned(), |reference| reference.to_string())
}

/// Canonical: `registry/repository:tag` or `registry/repository@digest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.digest.is_some() { '@' } else { ':' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.identifier())
    }
}

/// Name and tag. What follows the last colon is no tag where it holds a slash: then the colon was a port's.
fn split_tag(text: &str) -> Option<(&str, Option<&str>)> {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => {
            let good = (1..=128).contains(&tag.len())
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            good.then_some((name, Some(tag)))
        }
        _ => Some((text, None)),
    }
}

/// The first part is a registry where it looks like a host.
fn split_repository(name: &str) -> Option<(String, String)> {
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
        _ => ("", name),
    };
    let good = (2..=LONGEST_REPOSITORY).contains(&repository.len())
        && repository.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/'));
    if !good || !is_host(registry) {
        return None;
    }
    let registry = if matches!(registry, "" | "docker.io") { DEFAULT_REGISTRY } else { registry };
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
    Some((registry.to_owned(), repository))
}

/// Whether the text could be the authority of a URL without user information.
fn is_host(text: &str) -> bool {
    let (host, port) = match (text.strip_prefix('['), text.rsplit_once(':')) {
        (Some(bracketed), _) => match bracketed.rsplit_once(']') {
            Some((host, rest)) => (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
            None => return false,
        },
        (None, Some((host, port))) => (host, Some(port)),
        (None, None) => (text, Some("")),
    };
    let allowed = |b: u8| b >= 0x80 || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&b);
    port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit())) && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "deadb33fdeadb33fdeadb33fdeadb33fdeadb33fdeadb33fdeadb33fdeadb33f";

    #[test]
    fn names_in_canonical_form() {
        for (text, canonical) in [
            ("ubuntu", "index.docker.io/library/ubuntu:latest"),
            ("ubuntu:22.04", "index.docker.io/library/ubuntu:22.04"),
            ("docker.io/ubuntu", "index.docker.io/library/ubuntu:latest"),
            ("index.docker.io/library/ubuntu", "index.docker.io/library/ubuntu:latest"),
            ("some/app", "index.docker.io/some/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("10.0.0.1:5000/a/b/c:t", "10.0.0.1:5000/a/b/c:t"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("gcr.io/google.com/p/app:V_1.0-x", "gcr.io/google.com/p/app:V_1.0-x"),
            (&format!("ubuntu@sha256:{HEX}"), &format!("index.docker.io/library/ubuntu@sha256:{HEX}")),
            (&format!("reg.io/a/b:t@sha256:{HEX}"), &format!("reg.io/a/b@sha256:{HEX}")),
            (&format!("reg.io:8443/a/b:t@sha256:{HEX}"), &format!("reg.io:8443/a/b@sha256:{HEX}")),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(reference.original, text);
        }
    }

    #[test]
    fn tag_beside_digest_is_kept() {
        let reference = Reference::parse(&format!("reg.io/a/b:t@sha256:{HEX}")).unwrap();
        assert_eq!(reference.tag.as_deref(), Some("t"));
        assert_eq!(reference.identifier(), format!("sha256:{HEX}"));
        assert_eq!(Reference::parse(&format!("reg.io/a/b@sha256:{HEX}")).unwrap().tag, None);
    }

    #[test]
    fn what_is_no_reference() {
        for bad in [
            "",
            "a",
            "UPPER/case",
            "app:",
            "app: ",
            "ab:t:u",
            "app:tag@",
            "host:port/app",
            "reg.io/a b",
            "user@reg.io/app",
            "reg.io/app@sha256:abc",
            &format!("reg.io/app@sha512:{HEX}"),
            &format!("reg.io/app@sha256:{HEX}@sha256:{HEX}"),
            &format!("reg.io/app:@sha256:{HEX}"),
            &format!("app:{}", "t".repeat(129)),
            &"a".repeat(256),
            &"a".repeat(250),
            // Found by fuzzing: what would lead out of a layout directory.
            "/app",
            "some//app",
            "some/app/",
            "some/../app",
            "./app",
            "../app",
            "reg.io/..",
            "reg.io/app:..",
            "reg.io/app:.",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn same_names() {
        for (a, b, same) in [
            ("ubuntu", "docker.io/library/ubuntu:latest", true),
            (&format!("reg.io/app:v1@sha256:{HEX}"), "reg.io/app:v1", true),
            (&format!("reg.io/app@sha256:{HEX}"), "reg.io/app", true),
            ("reg.io/app:v1", "reg.io/app:v2", false),
            ("???", "???", true),
            ("???", "reg.io/app", false),
        ] {
            assert_eq!(Reference::same_name(a, b), same, "{a} {b}");
        }
    }
}

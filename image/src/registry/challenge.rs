//! What a registry asks of its clients: the header `WWW-Authenticate` (RFC 9110, section 11.6.1).

use ureq::http::header;

use super::http::Answer;

/// What the registry asks of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    None,
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The scopes that the registry names, which are those of one request. What is left holds for all.
    pub(super) fn take_scopes(&mut self) -> Vec<String> {
        let Self::Bearer { scope, .. } = self else { return Vec::new() };
        scope.take().unwrap_or_default().split_whitespace().map(ToString::to_string).collect()
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::None => "no authentication asked for",
            Self::Basic => "basic authentication",
            Self::Bearer { .. } => "authentication by tokens",
        }
    }
}

/// The challenge of an answer that we can meet; a token rather than a password.
pub(super) fn challenge_of(answer: &Answer) -> Option<Challenge> {
    let texts = answer.headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
    let challenges: Vec<Challenge> = texts.flat_map(parse_challenges).collect();
    challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. })).or(challenges.first()).cloned()
}

/// `Bearer realm="https://auth.example/token",service="registry.example"` or `Basic realm="…"`; one line may have
/// several, with commas between them as between the parameters of one.
fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in parts(text) {
        let (first, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let begins = !first.contains('=') && !rest.trim_start().starts_with('=');
        if begins {
            found.push((first.to_lowercase(), Vec::new()));
        }
        let parameter = if begins { rest } else { part };
        if let (Some((_, parameters)), Some((key, value))) = (found.last_mut(), parameter.split_once('=')) {
            parameters.push((key.trim().to_lowercase(), unquoted(value.trim())));
        }
    }
    found.iter().filter_map(|(scheme, parameters)| challenge(scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
        }
        _ => None,
    }
}

/// What stands between commas that are not within quotes.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let between = text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ',' && !quoted
    });
    between.map(str::trim).filter(|part| !part.is_empty())
}

fn unquoted(value: &str) -> String {
    let Some(rest) = value.strip_prefix('"') else { return value.to_string() };
    let mut text = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next().filter(|c| *c != '"') {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>| {
            let scope = realm.ends_with("?x=1").then(|| "repository:a:pull,push".to_string());
            Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope }
        };
        for (text, expected) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            ("Bearer realm=\"https://a/t\",service=\"s\"", vec![bearer("https://a/t", Some("s"))]),
            (
                "bearer service=\"s\", scope=\"repository:a:pull,push\", Realm=\"https://a/t?x=1\"",
                vec![bearer("https://a/t?x=1", Some("s"))],
            ),
            ("Bearer realm=https://a/t,service=s", vec![bearer("https://a/t", Some("s"))]),
            (
                "Bearer realm = \"https://a/t\" , service= \"s, \\\"t\\\"\"",
                vec![bearer("https://a/t", Some("s, \"t\""))],
            ),
            ("Bearer realm=\"https://a/t", vec![bearer("https://a/t", None)]),
            ("Bearer service=\"s\"", vec![]),
            ("Negotiate", vec![]),
            ("Negotiate, Basic realm=\"x\"", vec![Challenge::Basic]),
            ("Negotiate YWJj==, , Basic", vec![Challenge::Basic]),
            ("Basic realm=\"a, Bearer realm=x\"", vec![Challenge::Basic]),
            (
                "Basic realm=\"x\", charset=\"UTF-8\", Bearer realm=\"https://a/t\",service=\"s\"",
                vec![Challenge::Basic, bearer("https://a/t", Some("s"))],
            ),
        ] {
            assert_eq!(parse_challenges(text), expected, "{text}");
        }
    }
}

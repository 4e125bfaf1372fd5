//! Why an attempt failed, what is said of it, and whether another one makes sense.

use std::{io, time::Duration};

use ureq::http::{Method, StatusCode, Uri, header};

use super::{
    Settings,
    http::{Answer, Patience, Request},
    url::shown,
};
use crate::Error;

/// No registry answers with more than this where it says what went wrong.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// Why an attempt failed, and whether another one makes sense.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) temporary: bool,
    /// It was met again and again already.
    pub(super) retried: bool,
    /// Nobody listened.
    pub(super) refused: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) status: Option<StatusCode>,
    /// Where the content is to be sent instead, by who can start it anew.
    pub(super) moved: Option<Box<Uri>>,
    /// The registry's own codes, such as `BLOB_UNKNOWN`.
    pub(super) codes: Vec<String>,
}

pub(super) type Attempt<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn lasting(error: Error) -> Self {
        let (temporary, retried, refused) = (false, false, false);
        Self { error, temporary, retried, refused, retry_after: None, status: None, moved: None, codes: Vec::new() }
    }

    pub(super) fn too_many_redirects(method: &Method, url: &Uri) -> Self {
        Self::lasting(Error::Remote(format!("{method} {}: too many redirects", shown(url))))
    }

    pub(super) fn temporary(error: Error) -> Self {
        Self { temporary: true, ..Self::lasting(error) }
    }

    /// Of a server that was asked on the way: its 404 does not mean that what is wanted is not there.
    pub(super) fn on_the_way(mut self) -> Self {
        if let Error::NotFound(text) = self.error {
            self.error = Error::Remote(text);
            self.status = None;
        }
        self
    }

    pub(super) fn is(&self, status: StatusCode) -> bool {
        self.status == Some(status)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// An error of the content itself, told apart from errors of the network.
pub(super) fn content_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Error::Corrupt(error.to_string()),
        Err(error) => Error::Io(error.to_string()),
    }
}

pub(super) fn transport_failure(settings: &Settings, request: &Request<'_>, error: &ureq::Error) -> Failure {
    let text = match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => {
            format!("no connection within {:?}", settings.connect_timeout)
        }
        ureq::Error::Timeout(_) => {
            let limit = match request.patience {
                Patience::Normal => settings.idle_timeout,
                Patience::Short => settings.probe_timeout,
                Patience::Long => settings.commit_timeout,
            };
            format!("nothing was received or could be sent for {limit:?}")
        }
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was closed before the answer was complete".to_string()
        }
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    };
    let (temporary, refused) = match error {
        ureq::Error::Timeout(_) => (true, false),
        ureq::Error::Io(e) => (is_temporary(e), e.kind() == io::ErrorKind::ConnectionRefused),
        _ => (false, false),
    };
    let way = settings.proxies.name_for(request.url).map(|proxy| format!(", through the proxy {proxy}"));
    let text = format!("{} {}{}: {text}", request.method, shown(request.url), way.unwrap_or_default());
    Failure { temporary, refused, ..Failure::lasting(Error::Remote(text)) }
}

/// Refuses to be sent on in the clear from where it was encrypted.
pub(super) fn stay_encrypted(method: &Method, from: &Uri, next: &Uri) -> Attempt<()> {
    if from.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
        let text = format!("{method} {}: redirected to plain http", shown(from));
        return Err(Failure::lasting(Error::Remote(text)));
    }
    Ok(())
}

/// Failures that pass by themselves. A refused connection is one only where the registry answered before, which the
/// caller knows.
pub(super) fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, NotConnected, TimedOut, UnexpectedEof, WouldBlock,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | Interrupted
            | NotConnected
            | TimedOut
            | UnexpectedEof
            | WouldBlock
    ) || is_of_a_busy_resolver(&error.to_string())
}

/// A look-up that may work the next time (`EAI_AGAIN`), in the words of glibc and in those of musl.
fn is_of_a_busy_resolver(text: &str) -> bool {
    text.contains("Temporary failure in name resolution") || text.ends_with("address information: Try again")
}

impl Answer {
    /// What this answer says went wrong.
    pub(super) fn into_failure(mut self) -> Failure {
        let body = self.read_all(MAX_ERROR_BODY, "the error").unwrap_or_default();
        let (codes, message) = read_error(&body);
        let status = self.status;
        let mut text = format!("{} {}: {status}", self.method, shown(&self.url));
        if !message.is_empty() {
            text = format!("{text}: {message}");
        }
        let error = match status.as_u16() {
            401 | 403 => Error::Unauthorized(text),
            404 => Error::NotFound(text),
            _ => Error::Remote(text),
        };
        Failure {
            temporary: matches!(status.as_u16(), 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522),
            retry_after: self.header(header::RETRY_AFTER).and_then(|v| v.trim().parse().ok()).map(Duration::from_secs),
            status: Some(status),
            codes,
            ..Failure::lasting(error)
        }
    }
}

/// The codes and the text of a registry's error body (or of a token server's).
fn read_error(body: &[u8]) -> (Vec<String>, String) {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().unwrap_or_default().trim();
        let useful = !line.starts_with('<') && line.len() <= 200 && !line.chars().any(char::is_control);
        return (Vec::new(), if useful { line.to_string() } else { String::new() });
    };
    let text = |value: &serde_json::Value, key: &str| {
        let clean = |s: &str| s.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        value.get(key).and_then(|v| v.as_str()).map(clean).filter(|s| !s.is_empty())
    };
    let Some(errors) = json.get("errors").and_then(|e| e.as_array()) else {
        let message = ["error_description", "details", "message", "error"].iter().find_map(|key| text(&json, key));
        return (Vec::new(), message.unwrap_or_default());
    };
    let codes = errors.iter().filter_map(|e| text(e, "code")).collect();
    let lines: Vec<String> = errors
        .iter()
        .map(|e| [text(e, "code"), text(e, "message")].into_iter().flatten().collect::<Vec<_>>().join(": "))
        .collect();
    (codes, lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_looked_up_now_may_be_later() {
        for (text, temporary) in [
            ("failed to lookup address information: Temporary failure in name resolution", true),
            ("failed to lookup address information: Try again", true),
            ("failed to lookup address information: Name or service not known", false),
            ("failed to lookup address information: Name does not resolve", false),
        ] {
            assert_eq!(is_temporary(&io::Error::other(text)), temporary, "{text}");
        }
    }
}

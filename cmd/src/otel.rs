//! OpenTelemetry traces, written to files: `<CNB_OTEL_DIR>/lifecycle/<phase>.jsonl`, one line of OTLP in JSON for each
//! span when it has ended, so that a build that is killed leaves what it did until then. Nothing is sent anywhere, and
//! nothing is written unless the platform asks for it. Names of images, errors and variables stay out of it.
//!
//! Format: <https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/>; RFC 0131 of the buildpacks project.

use std::{
    fs, hash, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use platform_api::{Flags, names};
use serde_json::{Map, Value, json};

/// The trace of this process, if one is wanted.
static TRACE: OnceLock<Trace> = OnceLock::new();
/// One warning is enough.
static FAILED: AtomicBool = AtomicBool::new(false);

struct Trace {
    dir: PathBuf,
    /// 32 digits.
    id: String,
    /// Of the process: what the platform says, or the span of all of creator's phases.
    parent: Option<String>,
    /// The phase under way, and its span.
    phase: Mutex<Option<(&'static str, String)>>,
}

/// A span that has begun.
pub(crate) struct Span {
    name: &'static str,
    id: String,
    parent: Option<String>,
    began: SystemTime,
    since: Instant,
}

/// Reads what the platform asks for. `whole`: this process does several phases, and has a span of its own (creator).
pub(crate) fn start(flags: &Flags, whole: bool) -> Option<Span> {
    let dir = PathBuf::from(flags.env(names::env::OTEL_DIR)?);
    let given = flags.env(names::env::OTEL_TRACEPARENT).and_then(parse_traceparent);
    let (id, parent) = match given {
        Some((id, parent)) => (id, Some(parent)),
        None => (random() + &random(), None),
    };
    let span = whole.then(|| Span::begin("create", parent.clone()));
    let parent = span.as_ref().map(|span| span.id.clone()).or(parent);
    // A process has one trace.
    let _ = TRACE.set(Trace { dir, id, parent, phase: Mutex::default() });
    span
}

/// Whether a trace is wanted.
pub(crate) fn is_on() -> bool {
    TRACE.get().is_some()
}

/// Begins the span of a phase: what is told next is below it.
pub(crate) fn begin(phase: &'static str) -> Option<Span> {
    let trace = TRACE.get()?;
    let span = Span::begin(phase, trace.parent.clone());
    *trace.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some((phase, span.id.clone()));
    Some(span)
}

/// Tells of ended work within the phase under way.
pub(crate) fn tell(name: &str, attributes: &[(&str, Value)], began: SystemTime, took: Duration, passed: bool) {
    let Some(trace) = TRACE.get() else { return };
    let phase = trace.phase.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some((phase, parent)) = phase else { return };
    trace.write(phase, &line(trace, &random(), Some(&parent), name, attributes, began, took, passed));
}

impl Span {
    fn begin(name: &'static str, parent: Option<String>) -> Self {
        Self { name, id: random(), parent, began: SystemTime::now(), since: Instant::now() }
    }

    /// Writes it.
    pub(crate) fn end(self, passed: bool) {
        let Some(trace) = TRACE.get() else { return };
        let took = self.since.elapsed();
        trace
            .write(self.name, &line(trace, &self.id, self.parent.as_deref(), self.name, &[], self.began, took, passed));
    }
}

impl Trace {
    /// A trace that cannot be written fails no build.
    fn write(&self, phase: &str, line: &str) {
        if FAILED.load(Ordering::Relaxed) {
            return;
        }
        let dir = self.dir.join("lifecycle");
        let path = dir.join(phase).with_extension("jsonl");
        if let Err(e) = append(&dir, &path, line) {
            if !FAILED.swap(true, Ordering::Relaxed) {
                tracing::warn!("Not writing traces: {}: {}", path.display(), buildpack_api::io_text(&e));
            }
        }
    }
}

/// Buildpacks may have been here: nothing that they put in the way is followed or waited for.
fn append(dir: &Path, path: &Path, line: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if !fs::symlink_metadata(dir)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut file = fs::OpenOptions::new().append(true).create(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    file.write_all(line.as_bytes())
}

#[allow(clippy::too_many_arguments, reason = "a span has so many parts")]
fn line(
    trace: &Trace,
    id: &str,
    parent: Option<&str>,
    name: &str,
    attributes: &[(&str, Value)],
    began: SystemTime,
    took: Duration,
    passed: bool,
) -> String {
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut span = json!({
        "traceId": trace.id,
        "spanId": id,
        "name": name,
        "kind": 1,
        "startTimeUnixNano": began.as_nanos().to_string(),
        "endTimeUnixNano": (began + took).as_nanos().to_string(),
        "attributes": attributes.iter().map(|(key, value)| attribute(key, value)).collect::<Vec<_>>(),
        // 2: an error.
        "status": if passed { json!({}) } else { json!({ "code": 2 }) },
    });
    if let (Some(parent), Some(span)) = (parent, span.as_object_mut()) {
        span.insert("parentSpanId".to_owned(), parent.into());
    }
    let resource =
        [attribute("service.name", &"lifecycle".into()), attribute("lifecycle.version", &crate::version().into())];
    let scope = json!({ "name": "lifecycle", "version": crate::VERSION });
    let spans = json!({ "scope": scope, "spans": [span] });
    let line = json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": [spans] }] });
    format!("{line}\n")
}

/// Numbers are texts in OTLP's JSON.
fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Bool(value) => json!({ "boolValue": value }),
        other => json!({ "stringValue": other }),
    };
    json!({ "key": key, "value": value })
}

/// Trace and parent of `00-<32 digits>-<16 digits>-<2 digits>`. <https://www.w3.org/TR/trace-context/#traceparent-header>
fn parse_traceparent(text: &str) -> Option<(String, String)> {
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |text: &str, digits| text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |text: &str, digits| is_hex(text, digits) && text.bytes().any(|b| b != b'0');
    // Later versions may have more parts.
    let known = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    (known && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2)).then(|| (trace.to_owned(), parent.to_owned()))
}

/// 16 digits that no other span has: the standard library's hashers are seeded by the system.
fn random() -> String {
    use hash::{BuildHasher as _, Hasher as _};
    format!("{:016x}", hash::RandomState::new().build_hasher().finish().max(1))
}

/// What an event of `phases::span` tells.
pub(crate) fn take(fields: &Map<String, Value>) {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let nanos = |key: &str| Duration::from_nanos(fields.get(key).and_then(Value::as_u64).unwrap_or_default());
    let kind = text("kind");
    let attributes = [(format!("{kind}-id"), text("id")), (format!("{kind}-version"), text("version"))];
    let attributes = attributes.each_ref().map(|(key, value)| (key.as_str(), Value::from(*value)));
    let passed = fields.get("passed").and_then(Value::as_bool).unwrap_or_default();
    let name = format!("{kind}-{}", text("work"));
    tell(&name, &attributes, UNIX_EPOCH + nanos("began_unix_nanos"), nanos("took_nanos"), passed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_platforms() {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for (text, known) in [
            (format!("00-{trace}-{parent}-01"), true),
            (format!("01-{trace}-{parent}-01-more"), true),
            (format!("00-{trace}-{parent}-01-more"), false),
            (format!("ff-{trace}-{parent}-01"), false),
            (format!("00-{trace}-{parent}"), false),
            (format!("00-{}-{parent}-01", trace.to_uppercase()), false),
            (format!("00-{}-{parent}-01", "0".repeat(32)), false),
            (format!("00-{trace}-{}-01", "0".repeat(16)), false),
            (String::new(), false),
        ] {
            let expected = known.then(|| (trace.to_owned(), parent.to_owned()));
            assert_eq!(parse_traceparent(&text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_followed() {
        let dir = std::env::temp_dir().join(format!("otel-{}", random()));
        fs::create_dir(&dir).unwrap();
        let (victim, link, fifo) = (dir.join("victim"), dir.join("link"), dir.join("fifo"));
        fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(append(&dir, &link, "x\n").is_err());
        assert!(append(&dir, &fifo, "x\n").is_err());
        append(&dir, &dir.join("file"), "x\n").unwrap();
        append(&dir, &dir.join("file"), "y\n").unwrap();
        assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "x\ny\n");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "");
        fs::remove_dir_all(&dir).unwrap();
    }
}

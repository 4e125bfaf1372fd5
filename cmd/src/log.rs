//! Log lines as platforms know them: no timestamp, no level tag but `Warning: ` and `ERROR: `. Information goes to
//! stdout, warnings and errors to stderr (platform.md "Logging"); only the prefix is coloured.
//!
//! With `CNB_LOG_FORMAT=json` each is an object on a line of its own: `ts`, `level`, `phase`, `msg`, and what else is
//! known in `fields`. The streams are the same; what buildpacks write themselves stays as it is.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    io::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use platform_api::{
    Flags,
    inputs::{LogInputs, LogLevel},
    names,
};
use serde_json::{Map, Value};
use tracing::{Event, Level, Metadata, Subscriber, field, span};

/// Level and colour now in force: lines printed before the flags are read are coloured and at level info.
static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);
static NO_COLOR: AtomicU8 = AtomicU8::new(0);
static JSON: AtomicBool = AtomicBool::new(false);
/// The phase under way.
static PHASE: Mutex<&str> = Mutex::new("");
thread_local! {
    /// What this thread keeps to itself, where it does.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Lines that wait for what has to stand above them.
#[derive(Debug, Default)]
pub struct Held {
    /// The phase they are of, if it is another than that under way.
    phase: Option<&'static str>,
    lines: Vec<(LogLevel, String)>,
}

/// Makes the events of this process, called `name`, log lines.
pub fn start(name: &str, flags: &Flags) {
    let format = flags.env(names::env::LOG_FORMAT).unwrap_or("text");
    JSON.store(format == "json", Ordering::Relaxed);
    enter(name);
    // A second call (in a test) keeps the first subscriber: both are the same.
    let _ = tracing::subscriber::set_global_default(Lines);
    if !matches!(format, "text" | "json") {
        // How the log looks is not worth a build.
        tracing::warn!("Ignoring {} '{format}': it may be 'text' or 'json'", names::env::LOG_FORMAT);
    }
}

/// Notes which phase is under way, by the name of its executable, its timer or its banner. Returns its own.
pub(crate) fn enter(name: &str) -> &'static str {
    let phase = match name.to_ascii_lowercase().as_str() {
        "analyzer" | "analyzing" => "analyze",
        "detector" | "detecting" => "detect",
        "generator" => "generate",
        "restorer" | "restoring" => "restore",
        "extender" => "extend",
        "builder" | "building" => "build",
        "exporter" | "exporting" => "export",
        "rebaser" => "rebase",
        _ => "create",
    };
    let is_held = held(|held| held.phase = Some(phase)).is_some();
    if !is_held {
        *PHASE.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
    phase
}

/// Keeps what `act` logs on this thread, and which phase it is of, until [`Held::print`].
pub fn hold<T>(act: impl FnOnce() -> T) -> (T, Held) {
    HELD.set(Some(Held::default()));
    let done = act();
    (done, HELD.take().unwrap_or_default())
}

fn held<T>(act: impl FnOnce(&mut Held) -> T) -> Option<T> {
    HELD.with_borrow_mut(|held| held.as_mut().map(act))
}

/// Gives the line back where it need not wait.
fn keep(level: LogLevel, line: String) -> Option<String> {
    HELD.with_borrow_mut(|held| match held {
        Some(held) => {
            held.lines.push((level, line));
            None
        }
        None => Some(line),
    })
}

impl Held {
    /// Makes lines of the log of them.
    pub fn print(self) {
        for (level, line) in self.lines {
            write_line(level, &line);
        }
    }
}

/// What `-log-level` and `-no-color` say, from now on.
pub fn set(inputs: LogInputs) {
    LEVEL.store(inputs.level as u8, Ordering::Relaxed);
    set_colour(inputs.no_color);
}

/// What `-no-color` says, where the flags say nothing else that could be used.
pub(crate) fn set_colour(no_color: bool) {
    NO_COLOR.store(u8::from(no_color), Ordering::Relaxed);
}

/// Makes lines of all that `act` logs, whatever the level is.
pub(crate) fn whole<T>(act: impl FnOnce() -> T) -> T {
    let before = LEVEL.swap(LogLevel::Debug as u8, Ordering::Relaxed);
    let done = act();
    LEVEL.store(before, Ordering::Relaxed);
    done
}

/// The level now in force: events below it are no lines.
pub(crate) fn level() -> u8 {
    LEVEL.load(Ordering::Relaxed)
}

/// Whether events at debug are lines.
pub(crate) fn shows_debug() -> bool {
    level() <= LogLevel::Debug as u8
}

/// Whether lines are objects.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// `===> NAME`, the start of a phase within creator.
pub fn banner(name: &str) {
    enter(name);
    if !is_json() && NO_COLOR.load(Ordering::Relaxed) == 0 {
        tracing::info!("\x1b[36m===> {name}\x1b[0m");
    } else {
        tracing::info!("===> {name}");
    }
}

/// A subscriber that knows no spans: the lifecycle's log is lines.
struct Lines;

fn level_of(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The chatter of libraries is not the lifecycle's log.
        let ours = ["cmd", "dockerfile", "phases", "image"].iter().any(|name| {
            metadata.target().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        ours && *metadata.level() != Level::TRACE
    }
    fn event(&self, event: &Event<'_>) {
        let level = level_of(*event.metadata().level());
        if event.metadata().target() == phases::span::TARGET && crate::otel::is_on() {
            crate::otel::take(&Parts::of(event).fields);
        }
        if (level as u8) < self::level() {
            return;
        }
        let line = if is_json() { object(level, event) } else { text(level, event) };
        if let Some(line) = keep(level, line) {
            write_line(level, &line);
        }
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Warnings and errors are ours; what buildpacks say is at the other levels.
fn worded(level: LogLevel, message: String) -> String {
    if level >= LogLevel::Warn { crate::in_known_words(message) } else { message }
}

fn text(level: LogLevel, event: &Event<'_>) -> String {
    let mut line = String::new();
    match (level, NO_COLOR.load(Ordering::Relaxed) == 0) {
        (LogLevel::Warn, true) => line.push_str("\x1b[33;1mWarning: \x1b[0m"),
        (LogLevel::Warn, false) => line.push_str("Warning: "),
        (LogLevel::Error | LogLevel::Fatal, true) => line.push_str("\x1b[31;1mERROR: \x1b[0m"),
        (LogLevel::Error | LogLevel::Fatal, false) => line.push_str("ERROR: "),
        (LogLevel::Debug | LogLevel::Info, _) => {}
    }
    let mut message = String::new();
    event.record(&mut Message(&mut message));
    message = worded(level, message);
    // Colours of a buildpack's output.
    if NO_COLOR.load(Ordering::Relaxed) != 0 && message.contains('\x1b') {
        message = buildpack_api::without_colours(&message);
    }
    line.push_str(&message);
    if !line.ends_with('\n') {
        line.push('\n');
    }
    line
}

/// The keys in the order in which a person reads them.
fn object(level: LogLevel, event: &Event<'_>) -> String {
    let Parts { message, fields } = Parts::of(event);
    let message = worded(level, message);
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Fatal => "error",
    };
    let own = held(|held| held.phase).flatten();
    let phase = own.unwrap_or_else(|| *PHASE.lock().unwrap_or_else(PoisonError::into_inner));
    let message = Value::from(message.trim_end_matches('\n'));
    let mut line = format!(r#"{{"ts":"{}","level":"{level}","phase":"{phase}","msg":{message}"#, timestamp());
    if !fields.is_empty() {
        let _ = write!(line, r#","fields":{}"#, Value::Object(fields));
    }
    line.push_str("}\n");
    line
}

/// One write per line, so that lines of several threads never mix. A closed pipe is no reason to fail a build.
fn write_line(level: LogLevel, line: &str) {
    let _ = crate::progress::beside(|| {
        if level >= LogLevel::Warn {
            std::io::stderr().lock().write_all(line.as_bytes())
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(line.as_bytes()).and_then(|()| out.flush())
        }
    });
}

/// Takes an event's message and leaves its other fields.
struct Message<'a>(&'a mut String);

impl field::Visit for Message<'_> {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// An event's message and its other fields.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Map<String, Value>,
}

impl Parts {
    fn of(event: &Event<'_>) -> Self {
        let mut parts = Self::default();
        event.record(&mut parts);
        parts
    }
}

impl field::Visit for Parts {
    fn record_u64(&mut self, field: &field::Field, value: u64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &field::Field, value: bool) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }
}

/// The time to the microsecond, as RFC 3339 in UTC.
fn timestamp() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = phases::export::rfc3339(i64::try_from(now.as_secs()).unwrap_or_default());
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), now.subsec_micros())
}

/// The time, as RFC 3339 in UTC, for the timing lines at debug.
pub fn now() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    phases::export::rfc3339(i64::try_from(seconds).unwrap_or_default())
}

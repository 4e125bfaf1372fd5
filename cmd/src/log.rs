//! Log lines as platforms know them: no timestamp, no level tag but `Warning: ` and `ERROR: `. Information goes to
//! stdout, warnings and errors to stderr (platform.md "Logging"); only the prefix is coloured.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    sync::atomic::{AtomicU8, Ordering},
};

use platform_api::inputs::{LogInputs, LogLevel};
use tracing::{Event, Level, Metadata, Subscriber, field, span};

/// Level and colour now in force: lines printed before the flags are read are coloured and at level info.
static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);
static NO_COLOR: AtomicU8 = AtomicU8::new(0);

/// Makes this process's events log lines.
pub fn start() {
    // A second call (in a test) keeps the first subscriber: both are the same.
    let _ = tracing::subscriber::set_global_default(Lines);
}

/// What `-log-level` and `-no-color` say, from now on.
pub fn set(inputs: LogInputs) {
    LEVEL.store(inputs.level as u8, Ordering::Relaxed);
    NO_COLOR.store(u8::from(inputs.no_color), Ordering::Relaxed);
}

/// The level now in force: events below it are no lines.
pub(crate) fn level() -> u8 {
    LEVEL.load(Ordering::Relaxed)
}

/// `===> NAME`, the start of a phase within creator.
pub fn banner(name: &str) {
    if NO_COLOR.load(Ordering::Relaxed) == 0 {
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
        if (level as u8) < self::level() {
            return;
        }
        let mut line = String::new();
        match (level, NO_COLOR.load(Ordering::Relaxed) == 0) {
            (LogLevel::Warn, true) => line.push_str("\x1b[33;1mWarning: \x1b[0m"),
            (LogLevel::Warn, false) => line.push_str("Warning: "),
            (LogLevel::Error | LogLevel::Fatal, true) => line.push_str("\x1b[31;1mERROR: \x1b[0m"),
            (LogLevel::Error | LogLevel::Fatal, false) => line.push_str("ERROR: "),
            (LogLevel::Debug | LogLevel::Info, _) => {}
        }
        event.record(&mut Message(&mut line));
        if !line.ends_with('\n') {
            line.push('\n');
        }
        // One write per line, so that lines of several threads never mix. A closed pipe is no reason to fail a build.
        let _ = crate::progress::beside(|| {
            if level >= LogLevel::Warn {
                std::io::stderr().lock().write_all(line.as_bytes())
            } else {
                let mut out = std::io::stdout().lock();
                out.write_all(line.as_bytes()).and_then(|()| out.flush())
            }
        });
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
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

/// The time, as RFC 3339 in UTC, for the timing lines at debug.
pub fn now() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    phases::export::rfc3339(i64::try_from(seconds).unwrap_or_default())
}

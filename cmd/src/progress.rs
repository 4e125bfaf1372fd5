//! What long work is at: one line per layer with bytes and rate, on a terminal only. Everywhere else there are the log
//! lines and nothing more. The lines stand on stderr below the log and are gone when the work is done.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use image::Event;
use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use platform_api::inputs::LogLevel;

use crate::layers::Times;

/// Work that is done sooner shows nothing.
const PATIENCE: Duration = Duration::from_millis(300);
const FRAMES_PER_SECOND: u8 = 8;
const TEMPLATE: &str = "  {prefix}: {msg}";
/// Milliseconds before which a rate says little.
const SETTLED: u64 = 200;

/// What is on the terminal now. Log lines have to go around it.
static SHOWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Does work that tells how far it is, and shows it.
pub(crate) fn show<T>(work: impl FnOnce(&(dyn Fn(Event<'_>) + Sync)) -> T) -> T {
    let times = Times::wanted();
    let tell = |event: &Event<'_>| times.iter().for_each(|times| times.take(event));
    if !wanted() {
        return if times.is_some() { work(&|event| tell(&event)) } else { work(&|_| {}) };
    }
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND));
    *lock(&SHOWN) = Some(bars.clone());
    let lines = Lines { since: Instant::now(), bars, of_layers: Mutex::default() };
    let made = work(&|event| {
        lines.take(&event);
        tell(&event);
    });
    *lock(&SHOWN) = None;
    // A terminal that has gone is no reason to fail.
    let _ = lines.bars.clear();
    made
}

/// Writes a log line: `write` finds the terminal without our lines.
pub(crate) fn beside<T>(write: impl FnOnce() -> T) -> T {
    // Kept until the line is written: nothing may be drawn over it.
    match &*lock(&SHOWN) {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

fn wanted() -> bool {
    let draws = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    draws && !crate::log::is_json() && crate::log::level() <= LogLevel::Info as u8 && std::io::stderr().is_terminal()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The layers under way.
struct Lines {
    since: Instant,
    bars: MultiProgress,
    of_layers: Mutex<BTreeMap<String, Line>>,
}

impl Lines {
    fn take(&self, event: &Event<'_>) {
        if self.since.elapsed() < PATIENCE {
            return;
        }
        let mut of_layers = lock(&self.of_layers);
        match *event {
            Event::Read { layer, done, total } => {
                let line = of_layers.entry(layer.to_owned()).or_insert_with(|| self.add(layer, done));
                if done < line.read {
                    // It is read again, now to compress it.
                    (line.begun, line.before) = (Instant::now(), done);
                }
                (line.read, line.total) = (done, total);
                line.draw();
            }
            Event::Sent { layer, done } => {
                if let Some(line) = of_layers.get_mut(layer) {
                    line.sent = done;
                    line.draw();
                }
            }
            Event::Done { layer } => {
                if let Some(line) = of_layers.remove(layer) {
                    line.bar.finish_and_clear();
                    self.bars.remove(&line.bar);
                }
            }
        }
    }

    fn add(&self, layer: &str, done: u64) -> Line {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = self.bars.add(ProgressBar::no_length().with_style(style).with_prefix(layer.to_owned()));
        Line { bar, begun: Instant::now(), before: done, read: done, total: 0, sent: 0 }
    }
}

/// A layer under way; all but the time in bytes.
struct Line {
    bar: ProgressBar,
    begun: Instant,
    /// Read before that.
    before: u64,
    read: u64,
    total: u64,
    sent: u64,
}

impl Line {
    fn draw(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = (self.read.saturating_sub(self.before)).saturating_mul(1000) / millis.max(1);
        let rate = if millis < SETTLED { 0 } else { rate };
        self.bar.set_message(text(self.read, self.total, self.sent, rate));
    }
}

fn text(read: u64, total: u64, sent: u64, rate: u64) -> String {
    let mut text = DecimalBytes(read).to_string();
    let mut add = |part: String| text.push_str(&part);
    if total > 0 {
        add(format!(" of {}", DecimalBytes(total)));
    }
    if sent > 0 {
        add(format!(", {} sent", DecimalBytes(sent)));
    }
    if rate > 0 {
        add(format!(", {}/s", DecimalBytes(rate)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        for (read, total, sent, rate, expected) in [
            (0, 0, 0, 0, "0 B"),
            (1_500_000, 0, 0, 0, "1.50 MB"),
            (1_500_000, 3_000_000, 0, 0, "1.50 MB of 3.00 MB"),
            (1_500_000, 0, 700_000, 12_300_000, "1.50 MB, 700.00 kB sent, 12.30 MB/s"),
        ] {
            assert_eq!(text(read, total, sent, rate), expected);
        }
    }

    #[test]
    fn the_template_can_be_read() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }

    #[test]
    fn lines_come_late_and_go_when_their_layer_is_done() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let mut lines = Lines { since: Instant::now(), bars, of_layers: Mutex::default() };
        let names = |lines: &Lines| lock(&lines.of_layers).keys().cloned().collect::<Vec<_>>();
        let read = |done| Event::Read { layer: "acme/jvm:jdk", done, total: 0 };
        lines.take(&read(1));
        assert!(names(&lines).is_empty(), "too early");
        lines.since = Instant::now().checked_sub(PATIENCE).unwrap();
        lines.take(&Event::Sent { layer: "acme/jvm:jdk", done: 1 });
        assert!(names(&lines).is_empty(), "nothing was read of it");
        lines.take(&read(2));
        lines.take(&Event::Done { layer: "another" });
        assert_eq!(names(&lines), ["acme/jvm:jdk"]);
        lines.take(&Event::Done { layer: "acme/jvm:jdk" });
        assert!(names(&lines).is_empty());
    }
}

//! How long each layer takes that is exported or restored: a line at debug, and a span of a trace.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use image::Event;

use crate::otel;

/// The layers under way.
#[derive(Default)]
pub(crate) struct Times(Mutex<BTreeMap<String, Layer>>);

struct Layer {
    began: SystemTime,
    since: Instant,
    /// Bytes of its tar.
    read: u64,
    /// Compressed bytes.
    sent: u64,
}

impl Times {
    /// `None` where nobody wants to know.
    pub(crate) fn wanted() -> Option<Self> {
        (crate::log::shows_debug() || otel::is_on()).then(Self::default)
    }

    pub(crate) fn take(&self, event: &Event<'_>) {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *event {
            Event::Read { layer, done, .. } => {
                let new = || Layer { began: SystemTime::now(), since: Instant::now(), read: 0, sent: 0 };
                let known = layers.entry(layer.to_owned()).or_insert_with(new);
                // One that is read again to compress it starts anew.
                known.read = known.read.max(done);
            }
            Event::Sent { layer, done } => {
                if let Some(known) = layers.get_mut(layer) {
                    known.sent = done;
                }
            }
            Event::Done { layer } => {
                let ended = layers.remove(layer);
                drop(layers);
                if let Some(ended) = ended {
                    tell(layer, &ended);
                }
            }
        }
    }
}

fn tell(name: &str, layer: &Layer) {
    let (took, read, sent) = (layer.since.elapsed(), layer.read, layer.sent);
    let took_nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    tracing::debug!(
        layer = name,
        took_nanos,
        bytes_read = read,
        bytes_sent = sent,
        "Timer: layer '{name}' ran for {took:?}, {read} bytes read, {sent} sent"
    );
    let attributes = [("layer", name.into()), ("bytes-read", read.into()), ("bytes-sent", sent.into())];
    otel::tell("layer", &attributes, layer.began, took, true);
}

//! Work of a buildpack or an extension, told when it has ended: `cmd` makes a line of the log of it, and a span of a
//! trace where one is wanted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use platform_api::GroupEntry;

/// What events of ended work have as their target, and no others.
pub const TARGET: &str = "phases::span";

/// Tells that `work` (`detect`, `generate`, `build`) of a module of this kind (`buildpack`, `extension`) has ended.
pub(crate) fn tell(
    work: &'static str,
    kind: &'static str,
    module: &GroupEntry,
    began: SystemTime,
    took: Duration,
    passed: bool,
) {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    tracing::debug!(
        target: TARGET,
        work,
        kind,
        id = module.id.as_str(),
        version = module.version.as_str(),
        began_unix_nanos = nanos(began.duration_since(UNIX_EPOCH).unwrap_or_default()),
        took_nanos = nanos(took),
        passed,
        "Timer: {work} of {} ran for {took:?}",
        module.full_name()
    );
}

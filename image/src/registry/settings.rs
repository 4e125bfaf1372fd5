//! Time limits and retries.

use std::time::{Duration, Instant};

use super::{Proxies, failure::Attempt};
use crate::Error;

/// Time limits, retries and proxies.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For a connection, TLS included.
    pub connect_timeout: Duration,
    /// For one read or write: a stalled connection fails after it.
    pub idle_timeout: Duration,
    /// For the answer at the end of an upload: a registry may check and move a whole blob before it gives one.
    pub commit_timeout: Duration,
    /// For finding out whether a registry in a private network speaks TLS.
    pub probe_timeout: Duration,
    /// Pauses between attempts, each made up to a quarter longer by chance; one attempt more than there are pauses.
    pub delays: Vec<Duration>,
    /// No new attempt is begun when an operation has taken this long.
    pub budget: Duration,
    /// How long it is counted on that a registry still knows of an upload that was begun and has no content yet: some
    /// give out places that are good for a minute.
    pub upload_age: Duration,
    pub proxies: Proxies,
    pub user_agent: String,
}

impl Default for Settings {
    /// Proxies come from the environment.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(600),
            probe_timeout: Duration::from_secs(5),
            delays: [500, 1000, 3000, 6000].map(Duration::from_millis).to_vec(),
            budget: Duration::from_secs(300),
            upload_age: Duration::from_secs(30),
            proxies: Proxies::new(|name| std::env::var(name).ok()),
            user_agent: concat!("cnb-lifecycle/", env!("CARGO_PKG_VERSION")).to_string(),
        }
    }
}

/// Repeats what failed for a passing reason.
pub(super) fn retry<T>(settings: &Settings, mut attempt: impl FnMut() -> Attempt<T>) -> Attempt<T> {
    let begin = Instant::now();
    let mut delays = settings.delays.iter();
    let mut attempts = 1;
    loop {
        let mut failure = match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) if !failure.temporary => return Err(failure),
            Err(failure) => failure,
        };
        let pause = delays.next().map(|d| jittered(*d).max(failure.retry_after.unwrap_or_default()));
        let Some(pause) = pause.filter(|pause| begin.elapsed().saturating_add(*pause) <= settings.budget) else {
            // What was repeated here is not repeated again by a caller.
            failure.temporary = false;
            if attempts > 1 {
                failure.retried = true;
                failure.error = annotate(failure.error, attempts);
            }
            return Err(failure);
        };
        tracing::debug!("{}; trying again in {pause:?}", failure.error);
        std::thread::sleep(pause);
        attempts += 1;
    }
}

fn annotate(error: Error, attempts: u32) -> Error {
    let more = |text: String| format!("{text} (after {attempts} attempts)");
    match error {
        Error::Remote(text) => Error::Remote(more(text)),
        other => other,
    }
}

/// Up to a quarter more, so that many clients do not come back all at once.
fn jittered(delay: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish() % 256;
    delay + delay * u32::try_from(random).unwrap_or_default() / 1024
}

#[cfg(test)]
mod tests {
    use super::{super::failure::Failure, *};

    #[test]
    fn a_pause_that_never_ends_is_not_begun() {
        let settings = Settings::default();
        let failure =
            || Failure { retry_after: Some(Duration::MAX), ..Failure::temporary(Error::Remote("busy".to_string())) };
        let failure: Attempt<()> = retry(&settings, || Err(failure()));
        assert!(failure.is_err_and(|failure| !failure.temporary && !failure.retried));
    }
}

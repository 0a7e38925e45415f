//! The one place where time is read: a clock that starts at the wall's and never goes back.

use lockkeeper_core::Timestamp;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// Counts from the wall's time at its start with the steps of a clock that only goes forward, so
/// that no lease ends early because somebody set the time.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// What it showed when it was started, in milliseconds; raised, but never lowered, later.
    base: Arc<AtomicU64>,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), base: Arc::new(AtomicU64::new(millis(wall))) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let base = self.base.load(Ordering::Relaxed);
        Timestamp(base.saturating_add(millis(self.started.elapsed())))
    }

    /// From now on it shows at least this.
    pub(crate) fn not_before(&self, at: Timestamp) {
        let base = at.0.saturating_sub(millis(self.started.elapsed()));
        self.base.fetch_max(base, Ordering::Relaxed);
    }

    /// The moment at which [`Clock::now`] will have reached `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        // Tokio's timers cannot look further ahead than some decades.
        const FAR: u64 = 30 * 365 * 24 * 3600 * 1000;
        let base = Timestamp(self.base.load(Ordering::Relaxed));
        self.started + Duration::from_millis(at.since(base).min(FAR))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A number nobody can foresee, from the randomness that the standard library seeds its maps with.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_raised_but_never_goes_back() {
        let clock = Clock::start();
        let before = clock.now();
        clock.not_before(Timestamp(before.0 - 5_000));
        assert!(clock.now() >= before);
        clock.not_before(Timestamp(before.0 + 60_000));
        assert!(clock.now().since(before) >= 60_000);
    }
}

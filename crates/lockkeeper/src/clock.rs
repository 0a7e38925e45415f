//! The one place where time is read: a clock that starts at the wall's and never goes back.

use lockkeeper_core::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Counts from the wall's time at its start with the steps of a clock that only goes forward, so
/// that no lease ends early because somebody set the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    wall: Timestamp,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), wall: Timestamp(millis(wall)) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.wall.0.saturating_add(millis(self.started.elapsed())))
    }

    /// The moment at which [`Clock::now`] will have reached `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        // Tokio's timers cannot look further ahead than some decades.
        const FAR: u64 = 30 * 365 * 24 * 3600 * 1000;
        self.started + Duration::from_millis(at.since(self.wall).min(FAR))
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

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

    /// What it shows, and for how long it has: less than a millisecond, rounded up.
    pub(crate) fn now_exactly(&self) -> (Timestamp, Duration) {
        let base = self.base.load(Ordering::Relaxed);
        let elapsed = self.started.elapsed();
        let fraction =
            Duration::from_micros(u64::from(elapsed.subsec_nanos() % 1_000_000).div_ceil(1_000));
        (Timestamp(base.saturating_add(millis(elapsed))), fraction)
    }

    /// Follows the clock of somebody who was asked at a moment, and said what it showed some time
    /// after that, and for how long. Shows the same, or a little more, but never less.
    #[cfg(feature = "remote")]
    pub(crate) fn following(asked: Instant, showed: (Timestamp, Duration)) -> Clock {
        let clock = Clock { started: asked - showed.1, base: Arc::default() };
        clock.base.store(showed.0.0, Ordering::Relaxed);
        clock
    }

    /// Follows another one from now on, or the same one started anew. This one is never set back,
    /// so the other may be behind: returns by how much.
    #[cfg(feature = "remote")]
    pub(crate) fn follow(&self, asked: Instant, showed: (Timestamp, Duration)) -> u64 {
        let since_start = asked.saturating_duration_since(self.started);
        // What the fraction of ours lacks to that of the other is made good by a whole millisecond.
        let is_short = since_start.subsec_nanos() % 1_000_000 < showed.1.subsec_nanos();
        let wanted = showed.0.0.saturating_sub(millis(since_start)).saturating_add(is_short.into());
        self.base.fetch_max(wanted, Ordering::Relaxed).saturating_sub(wanted)
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

    /// I14: whatever the fractions, and however long the answer took.
    #[cfg(feature = "remote")]
    #[tokio::test(start_paused = true)]
    async fn one_that_follows_is_never_behind() {
        let micros = Duration::from_micros;
        for (ahead, travel, later) in
            [(0, 0, 1_000), (999, 0, 1), (1, 1, 998), (500, 3_700, 300), (999, 999, 2_001)]
        {
            // The other clock started that much earlier than whole milliseconds of ours.
            let other = Instant::now() - micros(5_000_000 + ahead);
            let other = Clock { started: other, base: Arc::default() };
            let asked = Instant::now();
            tokio::time::advance(micros(travel)).await;
            let clock = Clock::following(asked, other.now_exactly());
            let kept = Clock::following(asked, (Timestamp(1), Duration::ZERO));
            assert_eq!(kept.follow(asked, other.now_exactly()), 0);
            tokio::time::advance(micros(later)).await;
            for clock in [clock, kept] {
                assert!(clock.now() >= other.now(), "{ahead} {travel} {later}");
                assert!(clock.now().since(other.now()) <= 2 + travel / 1_000);
            }
        }
    }

    /// The other one was started anew and shows an earlier time: ours goes on, and knows by how
    /// much it is ahead.
    #[cfg(feature = "remote")]
    #[tokio::test(start_paused = true)]
    async fn one_that_follows_is_not_set_back() {
        let shows = |millis| (Timestamp(millis), Duration::ZERO);
        let clock = Clock::following(Instant::now(), shows(10_000));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.follow(Instant::now(), shows(7_000)), 3_500);
        assert_eq!(clock.now(), Timestamp(10_500));
        assert_eq!(clock.follow(Instant::now(), shows(20_000)), 0);
        assert_eq!(clock.now(), Timestamp(20_000));
    }

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

//! Time as the core knows it: a number that is handed in.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC, on the coordinator's clock.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// A moment so late that it never comes.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// The moment `span` later. A started millisecond counts whole, so nothing ends early.
    #[must_use]
    pub fn after(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(span)))
    }

    /// Milliseconds from `earlier` to here; 0 if it lies ahead.
    pub fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A span in whole milliseconds, rounded up.
pub(crate) fn millis(span: Duration) -> u64 {
    let started = u64::from(span.subsec_nanos().div_ceil(1_000_000));
    span.as_secs().saturating_mul(1000).saturating_add(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_millisecond_counts_whole() {
        assert_eq!(Timestamp(5).after(Duration::from_micros(1)), Timestamp(6));
        assert_eq!(Timestamp(5).after(Duration::from_millis(2)), Timestamp(7));
        assert_eq!(Timestamp(5).after(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp(5).since(Timestamp(9)), 0);
    }
}

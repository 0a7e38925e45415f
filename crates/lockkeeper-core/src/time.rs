//! Time as the core knows it: a number that is handed in.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

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

/// For people, and for SQL: RFC 3339, UTC, with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, in_day) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil(days);
        let (hours, minutes) = (in_day / 3_600_000, in_day / 60_000 % 60);
        let (seconds, millis) = (in_day / 1000 % 60, in_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T")?;
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
    }
}

/// Year, month and day of a day that is counted from 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // The year is taken to begin in March, so that the leap day is its last day; 400 years, or
    // 146,097 days, repeat. 1970-01-01 is the 719,468th day after 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
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

    #[test]
    fn a_moment_is_told_in_the_calendar() {
        let told = |millis| Timestamp(millis).to_string();
        assert_eq!(told(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(told(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(told(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(told(951_868_800_000), "2000-03-01T00:00:00.000Z");
        assert_eq!(told(4_107_542_399_000), "2100-02-28T23:59:59.000Z");
        assert_eq!(told(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(told(1_795_193_251_425), "2026-11-20T16:47:31.425Z");
        assert!(told(u64::MAX).ends_with('Z'));
    }
}

//! How ids and times are written. Both are written with every row, so neither allocates.

use chrono::DateTime;
use lockkeeper_core::{LockId, RequestId, Timestamp};
use rusqlite::{ToSql, types::ToSqlOutput, types::ValueRef};
use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 3339 has four digits for the year. Whatever comes later is written as this moment and read
/// as one that never comes: only ever later, never earlier.
const LAST: u64 = 253_402_300_799_999;

const DAY: u64 = 86_400_000;

/// A moment as `2026-01-02T03:04:05.678Z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimeText([u8; 24]);

impl From<Timestamp> for TimeText {
    fn from(moment: Timestamp) -> TimeText {
        let millis = moment.0.min(LAST);
        let (year, month, day) = civil(millis / DAY);
        let of_day = millis % DAY;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], of_day / 3_600_000);
        digits(&mut text[14..16], of_day / 60_000 % 60);
        digits(&mut text[17..19], of_day / 1000 % 60);
        digits(&mut text[20..23], of_day % 1000);
        TimeText(text)
    }
}

impl ToSql for TimeText {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// A lock id as its 36 characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IdText([u8; 36]);

impl IdText {
    /// The characters; all of them are ASCII.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<LockId> for IdText {
    fn from(id: LockId) -> IdText {
        let mut text = [b'-'; 36];
        let mut rest = id.as_u128();
        for at in (0..36).rev().filter(|at| ![8, 13, 18, 23].contains(at)) {
            text[at] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        IdText(text)
    }
}

impl ToSql for IdText {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// A request id as it displays: hexadecimal, without zeros in front.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestText {
    text: [u8; 32],
    from: usize,
}

impl RequestText {
    /// The characters; all of them are ASCII.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[self.from..]).unwrap_or_default()
    }
}

impl From<RequestId> for RequestText {
    fn from(id: RequestId) -> RequestText {
        let mut written = RequestText { text: [b'0'; 32], from: 32 };
        let mut rest = id.get();
        while rest > 0 || written.from == 32 {
            written.from -= 1;
            written.text[written.from] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        written
    }
}

impl ToSql for RequestText {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.text[self.from..])))
    }
}

/// A number as its digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    text: [u8; 20],
    from: usize,
}

impl Digits {
    pub(crate) fn of(mut number: u64) -> Digits {
        let mut digits = Digits { text: [b'0'; 20], from: 20 };
        while number > 0 || digits.from == 20 {
            digits.from -= 1;
            digits.text[digits.from] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        digits
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[self.from..]).unwrap_or_default()
    }
}

/// Reads a moment back.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let millis = DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("{text:?} is not a time: {error}"))?
        .timestamp_millis();
    match u64::try_from(millis) {
        Ok(LAST..) => Ok(Timestamp::NEVER),
        Ok(millis) => Ok(Timestamp(millis)),
        Err(_) => Err(format!("{text:?} is before 1970")),
    }
}

/// The system's clock, for what is about the store and not about locks.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(LAST))
}

/// Year, month and day of the day with this number since 1970-01-01, in the Gregorian calendar.
/// Counted in eras of 400 years whose years begin in March, so that a leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_based = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_based + 2) / 5 + 1;
    let month = if march_based < 10 { march_based + 3 } else { march_based - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    fn text(millis: u64) -> String {
        String::from_utf8(TimeText::from(Timestamp(millis)).0.to_vec()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn a_moment_is_written_as_the_calendar_has_it(millis in 0..LAST) {
            let calendar = DateTime::from_timestamp_millis(millis as i64).unwrap();
            prop_assert_eq!(text(millis), calendar.to_rfc3339_opts(SecondsFormat::Millis, true));
            prop_assert_eq!(parse_time(&text(millis)), Ok(Timestamp(millis)));
        }

        #[test]
        fn a_number_is_written_as_it_displays(number: u64, shift in 0..64) {
            for number in [number, number >> shift, 0, u64::MAX] {
                let digits = Digits::of(number);
                prop_assert_eq!(digits.as_str(), number.to_string());
            }
        }

        #[test]
        fn a_request_id_is_written_as_it_displays(number: u128, shift in 0..128) {
            for number in [number, number >> shift, 0] {
                let id = RequestId::new(number);
                let text = RequestText::from(id);
                prop_assert_eq!(text.as_str(), id.to_string());
            }
        }

        #[test]
        fn a_lock_id_is_written_as_it_displays(number: u128) {
            let id = LockId::from_u128(number);
            prop_assert_eq!(IdText::from(id).0.to_vec(), id.to_string().into_bytes());
        }
    }

    /// Where months, years and centuries end is where a calendar goes wrong.
    #[test]
    fn the_ends_of_february_and_of_december_in_every_year() {
        let millis = |year, month, day| {
            let midnight =
                chrono::NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(0, 0, 0)?;
            u64::try_from(midnight.and_utc().timestamp_millis()).ok()
        };
        for year in 1970..=9999 {
            for (month, day) in [(1, 1), (2, 28), (2, 29), (3, 1), (3, 2), (12, 31)] {
                let Some(millis) = millis(year, month, day) else { continue };
                assert_eq!(text(millis), format!("{year}-{month:02}-{day:02}T00:00:00.000Z"));
            }
        }
    }

    #[test]
    fn the_clock_is_the_systems() {
        // When this was written; a clock that stands at 1970 prunes nothing and dates everything.
        assert!(now() > Timestamp(1_795_000_000_000), "{:?}", now());
        assert!(now() < Timestamp::NEVER);
    }

    #[test]
    fn leap_days_and_the_end_of_time() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(1_709_164_800_000), "2024-02-29T00:00:00.000Z");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(parse_time(&text(u64::MAX)), Ok(Timestamp::NEVER));
        assert!(parse_time("yesterday").is_err() && parse_time("1960-01-01T00:00:00Z").is_err());
    }
}

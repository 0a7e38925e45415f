//! Spans of time as people type them: `30s`, `5m`, `1h`, `1h30m`, `250ms`, or plain seconds.

use std::time::Duration;

/// The longest lease and the longest wait there are: a week.
const LONGEST: Duration = Duration::from_secs(7 * DAY);

const DAY: u64 = 24 * 3600;

/// The units, with the milliseconds in each.
const UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", DAY * 1000)];

/// How long to wait: nothing is "now or never".
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    let span = parse(text)?;
    match span <= LONGEST {
        true => Ok(span),
        false => Err("nobody waits longer than 7 days (`7d`)".to_owned()),
    }
}

/// How long a hold lives.
pub(crate) fn lease(text: &str) -> Result<Duration, String> {
    let span = parse(text)?;
    if span.is_zero() {
        return Err("a lease of nothing would be over at once: give some time, as `5m`".to_owned());
    }
    match span <= LONGEST {
        true => Ok(span),
        false => Err("a lease is at most 7 days (`7d`); renew it to keep it longer".to_owned()),
    }
}

/// Any span.
pub(crate) fn any(text: &str) -> Result<Duration, String> {
    parse(text)
}

/// Reads a span. A started millisecond counts whole, so that nothing is ever shorter than asked.
fn parse(text: &str) -> Result<Duration, String> {
    const HOW: &str = "write a time as 250ms, 30s, 5m, 1h30m, 2d, or in seconds";
    if text.is_empty() {
        return Err(HOW.to_owned());
    }
    let mut millis: u128 = 0;
    let mut rest = text;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let per_unit = match UNITS.iter().find(|(name, _)| *name == unit) {
            Some(&(_, per_unit)) => per_unit,
            // Without a unit it is seconds, but `5m30` is more likely a slip.
            None if unit.is_empty() && number.len() == text.len() => 1000,
            None => return Err(HOW.to_owned()),
        };
        // From large to small, each once: `30s5m` is a slip, too.
        if per_unit >= last_unit {
            return Err(HOW.to_owned());
        }
        last_unit = per_unit;
        millis += times(number, per_unit).ok_or_else(|| HOW.to_owned())?;
        rest = after;
    }
    match u64::try_from(millis) {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => Ok(Duration::from_millis(u64::MAX)),
    }
}

/// `number` × `per_unit`, rounded up; `None` if the text is no number.
fn times(number: &str, per_unit: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let only_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !only_digits(whole) || !only_digits(fraction) {
        return None;
    }
    // Twenty digits are more than any time there will be, and fewer than would overflow.
    let whole = if whole.len() > 20 { u128::from(u64::MAX) } else { digits(whole) };
    let (kept, dropped) = fraction.split_at(fraction.len().min(18));
    let scale = 10u128.pow(kept.len() as u32);
    // However little it is, it is a started millisecond.
    let rest = u128::from(dropped.bytes().any(|digit| digit != b'0'));
    let part = (digits(kept) * u128::from(per_unit) + rest).div_ceil(scale);
    Some(whole * u128::from(per_unit) + part)
}

fn digits(text: &str) -> u128 {
    text.bytes().fold(0, |number, digit| number * 10 + u128::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(text: &str) -> Option<u128> {
        parse(text).ok().map(|span| span.as_millis())
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, expected) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("90", 90_000),
            ("0", 0),
            ("0.5", 500),
            (".5", 500),
            ("1.5h", 5_400_000),
            ("0.0001", 1),
            ("0.0000000000000000001", 1),
            ("1.000000000000000000000", 1_000),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in
            ["", "m", "5x", "-5", "+5", "1e3", "5 m", "5m30", "30s5m", "5m5m", "1.2.3", ".", "٣s"]
        {
            assert!(parse(text).unwrap_err().contains("write a time as"), "{text}");
        }
    }

    #[test]
    fn leases_and_waits_have_bounds() {
        assert_eq!(wait("0"), Ok(Duration::ZERO));
        assert_eq!(wait("7d"), Ok(LONGEST));
        assert!(wait("7d1ms").is_err() && wait("99999999999999999999999999h").is_err());
        assert!(lease("0s").is_err() && lease("1ms").is_ok() && lease("8d").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.mshd]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn whole_numbers_are_exact(number in 0u64..1_000_000, unit in 0..UNITS.len()) {
            let (name, per_unit) = UNITS[unit];
            let expected = u128::from(number) * u128::from(per_unit);
            prop_assert_eq!(millis(&format!("{number}{name}")), Some(expected));
        }
    }
}

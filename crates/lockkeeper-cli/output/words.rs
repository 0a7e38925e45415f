//! Times, spans and modes in words, the same ones everywhere.

use lockkeeper::{LockMode, Timestamp};
use std::time::{SystemTime, UNIX_EPOCH};

/// The time on this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `250 ms`, `12 s`, `2 min 10 s`, `3 h 5 min`, `2 d 4 h`: two parts at most.
pub(crate) fn span(millis: u64) -> String {
    if millis < 1000 {
        return format!("{millis} ms");
    }
    let seconds = millis / 1000;
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let at = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(3);
    let (unit, size) = units[at];
    let whole = seconds / size;
    match units.get(at + 1) {
        Some((next, next_size)) if seconds % size / next_size > 0 => {
            format!("{whole} {unit} {} {next}", seconds % size / next_size)
        }
        _ => format!("{whole} {unit}"),
    }
}

/// How long from `now` to a moment that lies ahead; `now` if it does not.
pub(crate) fn ahead(now: Timestamp, moment: Timestamp) -> String {
    match moment.since(now) {
        _ if moment == Timestamp::NEVER => "never".to_owned(),
        0 => "now".to_owned(),
        millis => format!("in {}", span(millis)),
    }
}

/// The time of the day, in UTC: `19:34:13Z`; with its date if it is more than half a day away.
pub(crate) fn clock(now: Timestamp, moment: Timestamp) -> String {
    let text = moment.to_string();
    let far = now.since(moment).max(moment.since(now)) > 12 * 3_600_000;
    match text.split_once('T') {
        Some((_, time)) if !far => format!("{}Z", &time[..time.len().min(8)]),
        Some((day, time)) => format!("{day} {}Z", &time[..time.len().min(5)]),
        None => text,
    }
}

/// How something is held: ` (shared)`. Nothing for exclusive, which is what a lock is.
pub(crate) fn mode(mode: LockMode) -> String {
    match mode {
        LockMode::Exclusive => String::new(),
        other => format!(" ({other})"),
    }
}

/// `1 waits`, `3 wait`.
pub(crate) fn waiting(number: usize) -> String {
    match number {
        1 => "1 waits for it".to_owned(),
        number => format!("{number} wait for it"),
    }
}

/// `1 lock`, `2 locks`.
pub(crate) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// `1 lock is`, `2 locks are`.
pub(crate) fn are(number: usize, what: &str) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", count(number, what))
}

/// A text somebody else wrote, on one line, without anything a terminal would obey.
///
/// Names come from outside and may hold anything: what clears a screen, a line that looks like one
/// of ours, or signs that turn the direction of writing, so that a name reads as another one.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) { ' ' } else { c }).collect()
}

/// The same for a text that has lines of its own.
pub(crate) fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) && c != '\n' { ' ' } else { c }).collect()
}

/// Whether a sign is not shown, but changes how others are.
fn is_obeyed(c: char) -> bool {
    let breaks_or_turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || breaks_or_turns
}

/// A text somebody else wrote, in quotes, on one line, and not without end.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 120;
    let clean = plain(text);
    match clean.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("'{}…'", &clean[..end]),
        None => format!("'{clean}'"),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_parts_at_most() {
        for (millis, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (130_000, "2 min 10 s"),
            (3_600_000, "1 h"),
            (11_100_000, "3 h 5 min"),
            (3_630_000, "1 h"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(span(millis), expected, "{millis}");
        }
    }

    #[test]
    fn moments_are_told_from_now() {
        let now = Timestamp(1_795_193_251_425);
        assert_eq!(clock(now, now), "16:47:31Z");
        assert_eq!(clock(now, Timestamp(now.0 + 86_400_000)), "2026-11-21 16:47Z");
        assert_eq!(ahead(now, Timestamp(now.0 + 5_000)), "in 5 s");
        assert_eq!(ahead(now, Timestamp(now.0 - 5_000)), "now");
        assert_eq!(ahead(now, Timestamp::NEVER), "never");
    }

    #[test]
    fn what_others_wrote_cannot_write_over_the_terminal() {
        assert_eq!(quoted("a\x1b[2Jb\nc"), "'a [2Jb c'");
        assert_eq!(quoted(&"ü".repeat(500)).chars().count(), 123);
        assert_eq!(plain("ann\u{9b}31m\r\u{202e}bob\u{2069}\u{2028}\u{200f}."), "ann 31m  bob   .");
        assert_eq!(
            plain("né, 名, 👩\u{200d}🚀"),
            "né, 名, 👩\u{200d}🚀",
            "what is only shown stays"
        );
        assert_eq!(plain_lines("a\x1bb\nc\u{202e}d"), "a b\nc d");
    }
}

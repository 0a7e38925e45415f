//! The live line on stderr: rewritten in place on a terminal, a line now and then in a log.

use lockkeeper_sim::Progress;
use std::{
    env,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Where the progress of a run is shown.
pub(crate) struct Display<W> {
    out: W,
    style: Style,
    started: Instant,
    shown: Option<Instant>,
    /// Whether a line stands on the terminal that the next output must not be glued to.
    open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// One line, rewritten in place.
    Rewritten,
    /// A line of its own each time, rarely.
    Logged,
    /// Nothing.
    Silent,
}

impl Style {
    /// What suits stderr as it is.
    pub(crate) fn of_stderr(quiet: bool) -> Style {
        let can_rewrite = env::var_os("TERM").is_some_and(|term| term != "dumb");
        match (quiet, io::stderr().is_terminal() && can_rewrite) {
            (true, _) => Style::Silent,
            (false, true) => Style::Rewritten,
            (false, false) => Style::Logged,
        }
    }

    fn pause(self) -> Duration {
        match self {
            Style::Rewritten => Duration::from_millis(100),
            Style::Logged | Style::Silent => Duration::from_secs(2),
        }
    }
}

impl<W: Write> Display<W> {
    pub(crate) fn new(out: W, style: Style) -> Display<W> {
        Display { out, style, started: Instant::now(), shown: None, open: false }
    }

    /// Shows how far the run is, unless that was shown a moment ago. `title` tells runs apart.
    ///
    /// A closed stderr is no reason to stop a run, so it is not told.
    pub(crate) fn show(&mut self, title: &str, progress: &Progress) {
        let now = Instant::now();
        let last = self.shown.unwrap_or(self.started);
        if self.style == Style::Silent || now - last < self.style.pause() {
            return;
        }
        self.shown = Some(now);
        let line = line(title, progress, now - self.started);
        let _ = match self.style {
            Style::Rewritten => write!(self.out, "\r{line}\x1b[K").and_then(|()| self.out.flush()),
            _ => writeln!(self.out, "{line}"),
        };
        self.open = self.style == Style::Rewritten;
    }

    /// Says something that must be heard, whatever the style.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    /// Takes the live line away, and starts the clock of the next run.
    pub(crate) fn clear(&mut self) {
        if self.open {
            let _ = write!(self.out, "\r\x1b[K").and_then(|()| self.out.flush());
        }
        self.started = Instant::now();
        self.shown = None;
        self.open = false;
    }
}

fn line(title: &str, progress: &Progress, elapsed: Duration) -> String {
    let Progress { steps, steps_total, grants, deadlocks, max_inside, .. } = progress;
    let percent = steps.saturating_mul(100) / steps_total.max(&1);
    let rate = grouped(rate(*steps, elapsed));
    let (grants, deadlocks) = (grouped(*grants), grouped(*deadlocks));
    format!(
        "{title}{percent:>3} %, {grants} grants, {deadlocks} deadlocks broken, \
         max inside {max_inside}, {rate} steps/s"
    )
}

/// So many a second, 0 where no time has passed.
pub(crate) fn rate(steps: u64, elapsed: Duration) -> u64 {
    let scaled = u128::from(steps) * 1_000_000_000;
    scaled.checked_div(elapsed.as_nanos()).map_or(0, |rate| rate as u64)
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_progress() -> Progress {
        Progress {
            steps: 42_000,
            steps_total: 100_000,
            grants: 12_345,
            waits: 7,
            deadlocks: 310,
            max_inside: 1,
        }
    }

    fn shown(style: Style) -> String {
        let mut out = Vec::new();
        let mut display = Display::new(&mut out, style);
        // As if the run had been going on for a while.
        display.started -= Duration::from_secs(3);
        display.show("", &some_progress());
        display.show("", &some_progress());
        display.clear();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_gets_one_line_that_is_gone_in_the_end() {
        let text = shown(Style::Rewritten);
        assert_eq!(text.matches("grants").count(), 1, "the second came too soon: {text:?}");
        assert!(!text.contains('\n') && text.ends_with("\r\x1b[K"), "{text:?}");
    }

    #[test]
    fn a_log_gets_plain_lines() {
        let text = shown(Style::Logged);
        assert!(text.starts_with(" 42 %, 12,345 grants, 310 deadlocks broken"), "{text:?}");
        assert!(text.ends_with("steps/s\n") && !text.contains('\x1b'), "{text:?}");
        assert!(text.len() < 80, "a line of a narrow terminal");
    }

    #[test]
    fn quiet_is_quiet() {
        assert_eq!(shown(Style::Silent), "");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn no_time_is_no_rate() {
        assert_eq!(rate(5, Duration::ZERO), 0);
        assert_eq!(rate(5, Duration::from_millis(500)), 10);
    }
}

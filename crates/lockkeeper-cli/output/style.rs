//! Colours: on a terminal, unless the user wants none.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Whether and how text is dressed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Style {
    pub(crate) colours: bool,
    /// How many columns there are; `None` where nobody counts them.
    pub(crate) width: Option<usize>,
}

/// What a piece of text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ink {
    /// A title.
    Title,
    /// Free, granted, well.
    Good,
    /// Broken, lost, an error.
    Bad,
    /// What may be overlooked.
    Quiet,
}

impl Style {
    /// Bare text, as long as it needs to be.
    pub(crate) const PLAIN: Style = Style { colours: false, width: None };

    /// What suits stdout as it is.
    pub(crate) fn of_stdout() -> Style {
        let out = io::stdout();
        Style::of(out.is_terminal(), rustix::termios::tcgetwinsize(&out).ok().map(|s| s.ws_col))
    }

    /// What suits stderr as it is.
    pub(crate) fn of_stderr() -> Style {
        let err = io::stderr();
        Style::of(err.is_terminal(), rustix::termios::tcgetwinsize(&err).ok().map(|s| s.ws_col))
    }

    fn of(is_terminal: bool, columns: Option<u16>) -> Style {
        if !is_terminal {
            return Style::PLAIN;
        }
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let colours = set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb");
        // Some terminals say 0 when they do not know.
        let columns = columns.filter(|&columns| columns > 0).unwrap_or(80);
        Style { colours, width: Some(usize::from(columns)) }
    }

    /// The text in its colour.
    pub(crate) fn paint(self, ink: Ink, text: &str) -> String {
        if !self.colours || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Title => "1",
            Ink::Good => "32",
            Ink::Bad => "31",
            Ink::Quiet => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_gets_colours() {
        assert_eq!(Style::of(false, Some(80)), Style::PLAIN);
        assert_eq!(Style::PLAIN.paint(Ink::Bad, "no"), "no");
        let dressed = Style { colours: true, width: Some(80) };
        assert_eq!(dressed.paint(Ink::Good, "yes"), "\x1b[32myes\x1b[0m");
        assert_eq!(dressed.paint(Ink::Good, ""), "");
        assert_eq!(Style::of(true, Some(0)).width, Some(80));
    }
}

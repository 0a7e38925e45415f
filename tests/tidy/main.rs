//! Holds the walls of the house: what no compiler checks and no reviewer should have to.
//!
//! Each rule is a function over made-up or real input that returns what is wrong, and has a test of
//! its own that shows it going red.
//!
//! | file | its rules |
//! |---|---|
//! | `walls.rs` | which crate may depend on what |
//! | `purity.rs` | what the deciding core may not touch, so that it stays deterministic |
//! | `style.rs` | module docs, lengths, `unsafe`, skipped tests, migrations, invariants |
//! | `names.rs` | the documents name only what exists |
//! | `supply.rs` | licences and sources of all that is built in |
//! | `threats.rs` | each line of the threat model has its test |
//! | `source.rs` | tells code, comments and text in a Rust file apart |
//! | `tree.rs` | the files of the project |

mod names;
mod purity;
mod source;
mod style;
mod supply;
mod threats;
mod tree;
mod walls;

use std::fmt;

/// One place that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Problem {
    path: String,
    /// Counted from 1; 0 where it is about the whole file.
    line: usize,
    what: String,
}

impl Problem {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Problem {
        Problem { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Fails with the whole list, so that one run shows everything there is to do.
#[track_caller]
fn assert_tidy(problems: impl IntoIterator<Item = Problem>) {
    let lines: Vec<String> = problems.into_iter().map(|problem| format!("  {problem}")).collect();
    assert!(lines.is_empty(), "{} to put right:\n{}", lines.len(), lines.join("\n"));
}

/// Fails unless the rule finds exactly one problem, and says what it should.
#[track_caller]
fn assert_one(problems: &[Problem], words: &str) {
    match problems {
        [one] if one.what.contains(words) => {}
        _ => panic!("expected one problem about {words:?}, got {problems:?}"),
    }
}

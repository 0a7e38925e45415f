//! Garbles: whatever bytes come in, they are understood or refused in words.
//!
//! Each target is a function of bytes that panics when a promise is broken. *No panic* is the least
//! of them: what was understood can be written again and means the same, what is shown can be typed
//! again, a refusal says what is wrong, and a file that is refused stays as it was.
//!
//! | target | what the bytes are |
//! |---|---|
//! | `requests` | what a client sends: lines, envelopes, parameters |
//! | `answers` | what a daemon sends |
//! | `texts` | resources, ids, spans of time, paths, as people type them |
//! | `rows` | a recorded fact, as it is stored |
//! | `journal` | records, one a line, to be replayed into a table that then goes on |
//! | `store` | damage to a store's file |
//!
//! `tests/corpus.rs` runs all of `corpus/` and a fixed number of seeded mutations of it. The folder
//! `guided` puts libFuzzer in front of a target, for a longer search by hand.
//!
//! What is no library is taken in by its source: the command line has no other door.
#![forbid(unsafe_code)]

mod life;
mod rows;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the source of another crate, of which a part is used"
)]
#[path = "../../lockkeeper-cli/args/span.rs"]
mod span;
mod store;
mod texts;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the source of another crate, of which a part is used"
)]
#[path = "../../lockkeeper-cli/places/walk.rs"]
mod walk;
mod wire;

/// Something that takes bytes from anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder of examples.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Well-formed examples to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many mutations the short run tries.
    pub tries: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "requests", run: wire::requests, seeds: wire::request_seeds, tries: 20_000 },
    Target { name: "answers", run: wire::answers, seeds: wire::answer_seeds, tries: 20_000 },
    Target { name: "texts", run: texts::texts, seeds: texts::seeds, tries: 40_000 },
    Target { name: "rows", run: rows::rows, seeds: rows::seeds, tries: 20_000 },
    Target { name: "journal", run: rows::journal, seeds: rows::journal_seeds, tries: 700 },
    Target { name: "store", run: store::damaged, seeds: store::seeds, tries: 100 },
];

//! What the exit codes mean. Scripts rely on them: a code is never given a second meaning.

use std::process::ExitCode;

/// How a run ended. Wrong usage never gets this far: clap ends it with 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It is not: an invariant broke, or the answer could not be written.
    Failed = 1,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

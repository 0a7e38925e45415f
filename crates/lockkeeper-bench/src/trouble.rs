//! What can go wrong in a measurement, in one sentence.

use std::{error::Error, fmt};

/// A measurement that fails is none; this says why.
#[derive(Debug)]
pub(crate) struct Trouble(pub(crate) String);

/// Something measured, or why not.
pub(crate) type Result<T> = std::result::Result<T, Trouble>;

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            said = format!("{said}: {next}");
            cause = next.source();
        }
        Trouble(said)
    }
}

/// Ends with this sentence.
pub(crate) fn trouble<T>(what: impl Into<String>) -> Result<T> {
    Err(Trouble(what.into()))
}

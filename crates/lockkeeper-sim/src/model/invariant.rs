//! The promises, by name, and the finding that one of them was broken.

use serde::Serialize;
use std::fmt;

/// A promise of the lock table. The numbers are those of the page on semantics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Invariant {
    /// Holders of a resource are pairwise compatible; permits stay within the capacity.
    I1,
    /// Tokens are unique and strictly increase along conflicting grants.
    I2,
    /// Definite holds of incompatible grants never overlap.
    I3,
    /// A fenced resource never accepts interleaved operations of two holders.
    I4,
    /// What is acquired after an acknowledged release has a larger token.
    I5,
    /// After each turn nobody waits in a circle, and the graph is the naive one.
    I6,
    /// Each abort has a real cycle or an irreducible set at that instant.
    I7,
    /// No waiter at rest is grantable.
    I8,
    /// No grant passes an earlier incompatible waiter.
    I9,
    /// Every call is answered once, every wait ends, and the oldest of the top class is spared.
    I10,
    /// A batch is all or nothing.
    I11,
    /// Counted holds need as many releases, and a retry changes nothing.
    I12,
    /// What is cancelled leaves neither holder nor waiter; nobody else leaves.
    I13,
    /// A lease ends at its deadline and never before.
    I14,
    /// The records replay to exactly the table.
    I15,
    /// A stale owner of a project commits nothing.
    I16,
    /// Recovery only extends leases.
    I17,
    /// At rest nothing is left over.
    I18,
    /// No recursion.
    I19,
    /// Same history, same effects: what a command does is what the rules say.
    I20,
}

impl Invariant {
    /// The promise in a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Invariant::I1 => "holders are pairwise compatible and permits stay within capacity",
            Invariant::I2 => "tokens strictly increase along conflicting grants",
            Invariant::I3 => "definite holds of incompatible grants never overlap",
            Invariant::I4 => "a fenced resource accepts no interleaved operations",
            Invariant::I5 => "an acquire after an acknowledged release has a larger token",
            Invariant::I6 => "after each turn nobody waits in a circle",
            Invariant::I7 => "each abort has a real cycle at that instant",
            Invariant::I8 => "no waiter at rest is grantable",
            Invariant::I9 => "no grant passes an earlier incompatible waiter",
            Invariant::I10 => "every call is answered once and every wait ends",
            Invariant::I11 => "a batch is all or nothing",
            Invariant::I12 => "n acquires need n releases, and a retry changes nothing",
            Invariant::I13 => "who takes a request back leaves neither holder nor waiter",
            Invariant::I14 => "a lease ends at its deadline, never earlier",
            Invariant::I15 => "the records replay to exactly the table",
            Invariant::I16 => "a stale owner commits nothing",
            Invariant::I17 => "recovery only extends leases",
            Invariant::I18 => "at rest nothing is left over",
            Invariant::I19 => "no recursion",
            Invariant::I20 => "a command does what the rules say, and the same each time",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.sentence())
    }
}

/// One broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen, and what was due.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.message)
    }
}

impl std::error::Error for Violation {}

/// Fine, or the first broken promise.
pub type Checked = Result<(), Violation>;

/// The promise is broken.
pub(crate) fn broken<T>(invariant: Invariant, message: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, message: message.into() })
}

/// The promise is kept if `kept`; the message is only built if it is not.
pub(crate) fn ensure(
    kept: bool,
    invariant: Invariant,
    message: impl FnOnce() -> String,
) -> Checked {
    if kept { Ok(()) } else { broken(invariant, message()) }
}

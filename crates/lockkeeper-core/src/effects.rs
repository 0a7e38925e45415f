//! What comes out of a turn, and the door that makes *write, then speak* a matter of types.
//!
//! [`crate::LockTable::apply`] returns [`Effects`], whose replies and events cannot be reached.
//! Only [`Effects::settle`] opens them, and it hands the records to a [`Journal`] first.

use crate::{CallId, Event, Record, Reply};

/// Where records become durable. The one port of this crate.
pub trait Journal {
    /// Why it could not.
    type Error;

    /// Makes the records durable, all of them or none. Returns only when they are.
    fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), Self::Error>;
}

/// Everything one command caused. Nobody has been told yet.
#[derive(Debug)]
#[must_use = "effects that are not settled are lost, and the table is ahead of its journal"]
pub struct Effects {
    pub(crate) call: CallId,
    pub(crate) records: Vec<Record>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) events: Vec<Event>,
}

impl Effects {
    pub(crate) fn new(call: CallId) -> Effects {
        Effects { call, records: Vec::new(), replies: Vec::new(), events: Vec::new() }
    }

    /// The number of the command: replies to it carry the same one, in this turn or a later one.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// What must be written.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Writes the records, and only then gives the rest away.
    pub fn settle<J: Journal>(self, journal: &mut J) -> Result<Settled, J::Error> {
        if !self.records.is_empty() {
            journal.append(self.records.iter())?;
        }
        Ok(Settled { replies: self.replies, events: self.events })
    }

    /// Writes the records of many turns at once (a group commit), then gives all the rest away.
    pub fn settle_all<J: Journal>(
        turns: Vec<Effects>,
        journal: &mut J,
    ) -> Result<Vec<Settled>, J::Error> {
        if turns.iter().any(|turn| !turn.records.is_empty()) {
            journal.append(turns.iter().flat_map(|turn| turn.records.iter()))?;
        }
        Ok(turns
            .into_iter()
            .map(|turn| Settled { replies: turn.replies, events: turn.events })
            .collect())
    }
}

/// A turn that is in the journal: now it may be spoken of.
///
/// ```compile_fail
/// // It cannot be made by hand.
/// let settled = lockkeeper_core::Settled { replies: vec![], events: vec![] };
/// ```
#[derive(Debug)]
#[must_use = "somebody waits for these replies"]
pub struct Settled {
    replies: Vec<Reply>,
    events: Vec<Event>,
}

impl Settled {
    /// The answers, each with the call it belongs to.
    pub fn replies(&self) -> &[Reply] {
        &self.replies
    }

    /// The news, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Both, to be given away.
    pub fn into_parts(self) -> (Vec<Reply>, Vec<Event>) {
        (self.replies, self.events)
    }
}

/// A journal that keeps nothing: for tests, simulations and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl Journal for Forgetful {
    type Error = std::convert::Infallible;

    fn append<'a>(&mut self, _: impl Iterator<Item = &'a Record>) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A journal in memory, to be replayed.
impl Journal for Vec<Record> {
    type Error = std::convert::Infallible;

    fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), Self::Error> {
        self.extend(records.cloned());
        Ok(())
    }
}

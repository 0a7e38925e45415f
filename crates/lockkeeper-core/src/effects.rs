//! What comes out of a turn, and the door that makes *write, then speak* a matter of types.
//!
//! [`crate::LockTable::apply`] returns [`Effects`], whose replies and events cannot be reached.
//! Only [`Effects::settle`] opens them. It hands the records to a [`Journal`] first, and it takes
//! the turns of a table in their order, without a gap: a turn that records nothing may yet speak of
//! what an earlier one recorded, so it must not speak before that is written. A turn that could not
//! be written closes the door for good; its table is ahead of its journal and must be rebuilt.

use crate::{CallId, Event, Record, Reply};
use std::fmt;

/// Where records become durable. The one port of this crate.
pub trait Journal {
    /// Why it could not.
    type Error;

    /// Makes the records durable, all of them or none. Returns only when they are.
    fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), Self::Error>;
}

/// Where the turns of many tables become durable in one step: a group commit. `K` names a table.
pub trait GroupJournal<K> {
    /// Why it could not.
    type Error;

    /// Makes the records of each group durable, all of a group or none; one outcome a group, in
    /// their order. Returns only when those that succeeded are durable.
    fn append_groups(&mut self, groups: &[Group<'_, K>]) -> Vec<Result<(), Self::Error>>;
}

/// The turns of one table, in order and without a gap, on their way into a group commit.
#[derive(Debug)]
pub struct Group<'a, K> {
    /// Whose.
    pub table: &'a K,
    /// Which.
    pub turns: &'a [Effects],
}

/// A journal (or, for a group commit, the name of a table), and how far the turns of its table are
/// settled in it: one for each table.
#[derive(Clone, Debug)]
pub struct Ledger<J> {
    journal: J,
    settled: CallId,
}

impl<J> Ledger<J> {
    /// For a new table, none of whose turns is settled yet.
    pub fn new(journal: J) -> Ledger<J> {
        Ledger { journal, settled: CallId(0) }
    }

    /// The journal.
    pub fn journal(&self) -> &J {
        &self.journal
    }

    /// The journal, given back.
    pub fn into_journal(self) -> J {
        self.journal
    }
}

/// A turn that may not be spoken of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotSettled<E> {
    /// Its records could not be written.
    Journal(E),
    /// A turn before it is not settled, or never will be.
    OutOfOrder {
        /// The turn that has to be settled first.
        expected: CallId,
        /// The turn that was offered.
        found: CallId,
    },
}

impl<E: fmt::Display> fmt::Display for NotSettled<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSettled::Journal(error) => write!(f, "the journal could not be written: {error}"),
            NotSettled::OutOfOrder { expected, found } => write!(
                f,
                "turn {} cannot be settled before turn {}: rebuild the table from its journal",
                found.0, expected.0
            ),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for NotSettled<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NotSettled::Journal(error) => Some(error),
            NotSettled::OutOfOrder { .. } => None,
        }
    }
}

/// Everything one command caused. Nobody has been told yet.
#[derive(Debug)]
#[must_use = "effects that are not settled are lost, and the table is ahead of its journal"]
pub struct Effects {
    pub(crate) call: CallId,
    pub(crate) records: Vec<Record>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) events: Vec<Event>,
    pub(crate) last_event: u64,
}

impl Effects {
    pub(crate) fn new(call: CallId) -> Effects {
        let (records, replies, events) = (Vec::new(), Vec::new(), Vec::new());
        Effects { call, records, replies, events, last_event: 0 }
    }

    /// Makes room at once where two of each are likely.
    pub(crate) fn expect_two(&mut self) {
        fn expect<T>(list: &mut Vec<T>) {
            if list.capacity() < 2 {
                list.reserve(2);
            }
        }
        expect(&mut self.records);
        expect(&mut self.replies);
        expect(&mut self.events);
    }

    /// The number of the command: replies to it carry the same one, in this turn or a later one.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// What must be written.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The number of the table's last event by the end of this turn, for the next
    /// [`crate::Reign`]: it is written with the records.
    pub fn last_event(&self) -> u64 {
        self.last_event
    }

    /// Writes the records, and only then gives the rest away.
    pub fn settle<J: Journal>(
        self,
        ledger: &mut Ledger<J>,
    ) -> Result<Settled, NotSettled<J::Error>> {
        self.is_next(ledger.settled)?;
        if !self.records.is_empty() {
            ledger.journal.append(self.records.iter()).map_err(NotSettled::Journal)?;
        }
        ledger.settled = self.call;
        Ok(self.open())
    }

    /// Writes the records of many turns at once (a group commit), then gives all the rest away.
    pub fn settle_all<J: Journal>(
        turns: Vec<Effects>,
        ledger: &mut Ledger<J>,
    ) -> Result<Vec<Settled>, NotSettled<J::Error>> {
        let mut last = ledger.settled;
        for turn in &turns {
            turn.is_next(last)?;
            last = turn.call;
        }
        if turns.iter().any(|turn| !turn.records.is_empty()) {
            let records = turns.iter().flat_map(|turn| turn.records.iter());
            ledger.journal.append(records).map_err(NotSettled::Journal)?;
        }
        ledger.settled = last;
        Ok(turns.into_iter().map(Effects::open).collect())
    }

    /// Writes the turns of many tables in one step. A table whose turns could not be written, or
    /// are not the next ones, stays silent; the others are not disturbed.
    pub fn settle_groups<K, J: GroupJournal<K>>(
        groups: Vec<(&mut Ledger<K>, Vec<Effects>)>,
        journal: &mut J,
    ) -> Vec<Result<Vec<Settled>, NotSettled<J::Error>>> {
        let in_order: Vec<Result<(), NotSettled<J::Error>>> = groups
            .iter()
            .map(|(ledger, turns)| {
                let mut last = ledger.settled;
                turns.iter().try_for_each(|turn| {
                    turn.is_next(last)?;
                    last = turn.call;
                    Ok(())
                })
            })
            .collect();
        let to_write: Vec<Group<'_, K>> = groups
            .iter()
            .zip(&in_order)
            .filter(|(_, in_order)| in_order.is_ok())
            .map(|((ledger, turns), _)| Group { table: &ledger.journal, turns })
            .collect();
        let mut written = journal.append_groups(&to_write).into_iter();
        let outcomes: Vec<_> =
            in_order.into_iter().map(|in_order| in_order.map(|()| written.next())).collect();
        let settle = |((ledger, turns), outcome): ((&mut Ledger<K>, Vec<Effects>), _)| match outcome
        {
            Err(refused) => Err(refused),
            Ok(Some(Err(error))) => Err(NotSettled::Journal(error)),
            // A journal that says nothing of a group has not written it.
            Ok(None) => {
                let expected = CallId(ledger.settled.0 + 1);
                Err(NotSettled::OutOfOrder { expected, found: expected })
            }
            Ok(Some(Ok(()))) => {
                ledger.settled = turns.last().map_or(ledger.settled, |turn| turn.call);
                Ok(turns.into_iter().map(Effects::open).collect())
            }
        };
        groups.into_iter().zip(outcomes).map(settle).collect()
    }

    fn is_next<E>(&self, settled: CallId) -> Result<(), NotSettled<E>> {
        let expected = CallId(settled.0 + 1);
        match self.call == expected {
            true => Ok(()),
            false => Err(NotSettled::OutOfOrder { expected, found: self.call }),
        }
    }

    fn open(self) -> Settled {
        Settled { replies: self.replies, events: self.events }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LockTable, OpenSession, Reign, TableConfig, Timestamp};

    /// A journal on a disk that is full after so many appends.
    struct Full(usize);

    impl Journal for Full {
        type Error = &'static str;

        fn append<'a>(&mut self, _: impl Iterator<Item = &'a Record>) -> Result<(), Self::Error> {
            self.0 = self.0.checked_sub(1).ok_or("disk full")?;
            Ok(())
        }
    }

    fn turns(count: usize) -> Vec<Effects> {
        let mut table = LockTable::new(TableConfig::default(), Reign::first(1));
        (0..count).map(|_| table.apply(Timestamp(1), OpenSession::default())).collect()
    }

    #[test]
    fn a_turn_does_not_speak_before_the_turns_before_it() {
        let mut turns = turns(3).into_iter();
        let (first, second, third) = (turns.next(), turns.next(), turns.next());
        let mut ledger = Ledger::new(Vec::new());
        let early = second.map(|turn| turn.settle(&mut ledger)).unwrap();
        let (expected, found) = (CallId(1), CallId(2));
        assert_eq!(early.unwrap_err(), NotSettled::OutOfOrder { expected, found });
        assert!(first.map(|turn| turn.settle(&mut ledger)).unwrap().is_ok());
        // The second one was thrown away unsettled: nothing after it can be true.
        assert!(third.map(|turn| turn.settle(&mut ledger)).unwrap().is_err());
        assert_eq!(ledger.journal().len(), 1);
    }

    #[test]
    fn a_failed_journal_closes_the_door() {
        let mut turns = turns(3).into_iter();
        let mut ledger = Ledger::new(Full(1));
        let mut settle = || turns.next().unwrap().settle(&mut ledger);
        assert!(settle().is_ok());
        assert_eq!(settle().unwrap_err(), NotSettled::Journal("disk full"));
        assert!(matches!(settle(), Err(NotSettled::OutOfOrder { .. })));
    }

    #[test]
    fn a_group_commit_is_all_or_nothing() {
        let mut ledger = Ledger::new(Full(1));
        assert_eq!(Effects::settle_all(turns(3), &mut ledger).unwrap().len(), 3);
        assert!(Effects::settle_all(turns(3), &mut ledger).is_err(), "another table's turns");
        let mut ledger = Ledger::new(Full(0));
        let refused = Effects::settle_all(turns(3), &mut ledger).unwrap_err();
        assert_eq!(refused, NotSettled::Journal("disk full"));
    }

    /// Keeps the turns of each table, unless that table is the broken one.
    #[derive(Default)]
    struct Shelves {
        kept: Vec<(&'static str, usize)>,
        broken: Option<&'static str>,
    }

    impl GroupJournal<&'static str> for Shelves {
        type Error = &'static str;

        fn append_groups(
            &mut self,
            groups: &[Group<'_, &'static str>],
        ) -> Vec<Result<(), &'static str>> {
            let keep = |group: &Group<'_, &'static str>| match self.broken == Some(*group.table) {
                true => Err("broken"),
                false => {
                    self.kept.push((*group.table, group.turns.len()));
                    Ok(())
                }
            };
            groups.iter().map(keep).collect()
        }
    }

    #[test]
    fn one_table_that_fails_in_a_group_does_not_silence_the_others() {
        let (mut a, mut b, mut c) = (Ledger::new("a"), Ledger::new("b"), Ledger::new("c"));
        let mut journal = Shelves { broken: Some("b"), ..Shelves::default() };
        let too_late = turns(2).split_off(1);
        let groups = vec![(&mut a, turns(2)), (&mut b, turns(1)), (&mut c, too_late)];
        let outcomes = Effects::settle_groups(groups, &mut journal);
        assert_eq!(outcomes[0].as_ref().map(Vec::len).ok(), Some(2));
        assert_eq!(*outcomes[1].as_ref().unwrap_err(), NotSettled::Journal("broken"));
        assert!(matches!(outcomes[2], Err(NotSettled::OutOfOrder { .. })));
        assert_eq!(journal.kept, [("a", 2)]);
        // What was not settled may be offered again, what was may not.
        journal.broken = None;
        let groups = vec![(&mut a, turns(2)), (&mut b, turns(1))];
        let outcomes = Effects::settle_groups(groups, &mut journal);
        assert!(outcomes[0].is_err() && outcomes[1].is_ok());
    }

    #[test]
    fn a_journal_that_says_nothing_of_a_group_has_not_written_it() {
        struct Mute;
        impl GroupJournal<()> for Mute {
            type Error = &'static str;
            fn append_groups(&mut self, _: &[Group<'_, ()>]) -> Vec<Result<(), &'static str>> {
                Vec::new()
            }
        }
        let mut ledger = Ledger::new(());
        let outcomes = Effects::settle_groups(vec![(&mut ledger, turns(1))], &mut Mute);
        assert!(outcomes[0].is_err());
    }
}

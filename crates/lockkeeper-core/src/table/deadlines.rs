//! Everything that ends by itself, in the order in which it does.

use crate::{LockId, SessionId, TicketId, Timestamp};
use std::collections::BTreeSet;

/// What ends at a deadline. Of two at the same moment the earlier id goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// The wait of a ticket.
    Wait(TicketId),
    /// The time to poll a ticket.
    Poll(TicketId),
    /// The call that waits on a ticket.
    Slice(TicketId),
    /// A hold: its lease, or its grace if that is shorter.
    Hold(LockId),
    /// An idle detached session.
    Idle(SessionId),
}

/// An ordered set whose first is at hand: every turn asks for it, and a single one costs no memory
/// of its own.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    first: Option<(Timestamp, Due)>,
    later: BTreeSet<(Timestamp, Due)>,
}

impl Deadlines {
    pub(super) fn first(&self) -> Option<(Timestamp, Due)> {
        self.first
    }

    pub(super) fn insert(&mut self, new: (Timestamp, Due)) {
        match self.first {
            None => self.first = Some(new),
            Some(first) if new < first => {
                self.first = Some(new);
                self.later.insert(first);
            }
            Some(first) if new == first => {}
            Some(_) => {
                self.later.insert(new);
            }
        }
    }

    pub(super) fn remove(&mut self, gone: &(Timestamp, Due)) {
        if self.first.as_ref() == Some(gone) {
            self.first = self.later.pop_first();
        } else {
            self.later.remove(gone);
        }
    }

    pub(super) fn contains(&self, due: &(Timestamp, Due)) -> bool {
        self.first.as_ref() == Some(due) || self.later.contains(due)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.later.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_an_ordered_set(steps in prop::collection::vec((any::<bool>(), 0..9_u64), 0..60)) {
            let mut plain = BTreeSet::new();
            let mut deadlines = Deadlines::default();
            for (comes, at) in steps {
                let due = (Timestamp(at / 3), Due::Wait(TicketId::from_u64(at % 3)));
                if comes {
                    plain.insert(due);
                    deadlines.insert(due);
                } else {
                    plain.remove(&due);
                    deadlines.remove(&due);
                }
                prop_assert_eq!(deadlines.first(), plain.first().copied());
                prop_assert_eq!(deadlines.len(), plain.len());
                prop_assert_eq!(deadlines.contains(&due), comes);
            }
        }
    }
}

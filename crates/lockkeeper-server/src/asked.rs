//! Which call was the last to ask for something by its name, so that what an older one leaves
//! behind does not undo what a newer one was told.

use lockkeeper_core::{CancelTarget, RequestId, SessionId, TicketId};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::OwnedMutexGuard;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Name {
    Request(RequestId),
    Ticket(TicketId),
}

type Key = (SessionId, Name);

/// The number of the last call. Whoever holds it keeps the next one out.
type Last = Arc<tokio::sync::Mutex<u64>>;

/// How many names are remembered that somebody was told a grant under.
const TOLD: usize = 4096;

/// What is asked by name.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// Those that calls are open under, or something is still to be undone.
    open: HashMap<Key, Last>,
    /// Those that were granted lately, the oldest first.
    told: HashSet<Key>,
    order: VecDeque<Key>,
}

/// One call, or what is left of it.
#[derive(Debug)]
pub(crate) struct Turn {
    asked: Arc<Asked>,
    key: Key,
    last: Last,
    mine: u64,
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins: from now on it is the last. What an older one leaves is being undone, or
    /// will not be.
    pub(crate) async fn begin(self: &Arc<Asked>, session: SessionId, name: CancelTarget) -> Turn {
        let name = match name {
            CancelTarget::Request(request) => Name::Request(request),
            CancelTarget::Ticket(ticket) => Name::Ticket(ticket),
        };
        let key = (session, name);
        let last = self.lock().open.entry(key).or_default().clone();
        let mut turn = Turn { asked: self.clone(), key, last, mine: 0 };
        let mut last = turn.last.clone().lock_owned().await;
        *last += 1;
        turn.mine = *last;
        turn
    }
}

impl Turn {
    /// A grant is told under the name. A copy of the request that comes late, from a connection
    /// its client has left, must not undo that.
    pub(crate) fn told(&self) {
        let mut names = self.asked.lock();
        if names.told.insert(self.key) {
            names.order.push_back(self.key);
            if names.order.len() > TOLD
                && let Some(oldest) = names.order.pop_front()
            {
                names.told.remove(&oldest);
            }
        }
    }

    /// If nobody has asked since, nor was told a grant: keeps whoever asks now waiting until what
    /// comes of it is dropped.
    pub(crate) async fn is_last(&self) -> Option<OwnedMutexGuard<u64>> {
        let last = self.last.clone().lock_owned().await;
        let is_told = self.asked.lock().told.contains(&self.key);
        (*last == self.mine && !is_told).then_some(last)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut names = self.asked.lock();
        // Others get theirs under the same lock: here, and in the list.
        if Arc::strong_count(&self.last) <= 2 {
            names.open.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_last_one_undoes_anything_and_nothing_is_remembered() {
        let asked = Arc::new(Asked::default());
        let name = CancelTarget::Request(RequestId::new(7));
        let (session, other) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let older = asked.begin(session, name).await;
        let apart = asked.begin(other, name).await;
        assert!(older.is_last().await.is_some());
        let newer = asked.begin(session, name).await;
        assert!(older.is_last().await.is_none());
        drop(older);
        assert!(newer.is_last().await.is_some() && apart.is_last().await.is_some());
        assert_eq!(asked.lock().open.len(), 2);
        drop((newer, apart));
        assert!(asked.lock().open.is_empty());
    }

    #[tokio::test]
    async fn a_late_copy_undoes_nothing_that_was_told() {
        let asked = Arc::new(Asked::default());
        let session = SessionId::from_u64(1);
        let name = |of: usize| CancelTarget::Request(RequestId::new(of as u128));
        asked.begin(session, name(0)).await.told();
        assert!(asked.begin(session, name(0)).await.is_last().await.is_none());
        for of in 1..=TOLD {
            asked.begin(session, name(of)).await.told();
        }
        let counts = |names: &Names| (names.told.len(), names.order.len());
        assert_eq!(counts(&asked.lock()), (TOLD, TOLD));
        assert!(asked.begin(session, name(TOLD)).await.is_last().await.is_none());
    }
}

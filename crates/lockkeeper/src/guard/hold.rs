//! What the guards of a hold know of it, and the book of all holds that somebody has a guard of.

use crate::{
    clock::Clock,
    fate::{Fate, Word},
};
use foldhash::fast::RandomState;
use lockkeeper_core::{Grant, LockId, LockMode, Resource, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Why a guard is no longer valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Lost {
    /// Its lease ended.
    Expired,
    /// It was taken away: to break a deadlock, or by an administrator.
    Revoked,
    /// It was given back, or its session ended.
    Released,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Expired => "the lease ended",
            Lost::Revoked => "the lock was taken away",
            Lost::Released => "the lock was given back or its session ended",
        })
    }
}

/// How much room the book keeps without asking.
const ROOMY: usize = 1024;

impl From<Lost> for Word {
    fn from(lost: Lost) -> Word {
        match lost {
            Lost::Expired => Word::Expired,
            Lost::Revoked => Word::Revoked,
            Lost::Released => Word::Released,
        }
    }
}

impl From<Word> for Lost {
    fn from(word: Word) -> Lost {
        match word {
            Word::Expired => Lost::Expired,
            Word::Revoked => Lost::Revoked,
            Word::Released => Lost::Released,
        }
    }
}

/// What all guards of one hold know of it; the actor's news arrive here.
pub(crate) struct HoldState {
    pub(super) lock: LockId,
    pub(super) resource: Resource,
    pub(super) slots: Mutex<Vec<u32>>,
    /// The owner's: its holds count themselves there, and not all where each turn looks.
    clock: Arc<Clock>,
    pub(super) mode: Mutex<LockMode>,
    pub(super) token: AtomicU64,
    pub(super) fate: Fate,
    /// How long the lease was when it was renewed, or when it first asked to be, in milliseconds;
    /// 0 before that. Most holds never ask, so that their grant need not look at the clock.
    lease: AtomicU64,
    pub(super) renews_itself: AtomicBool,
    changed: Notify,
}

impl HoldState {
    fn new(grant: Grant, clock: Arc<Clock>) -> HoldState {
        HoldState {
            lock: grant.lock,
            resource: grant.resource,
            slots: Mutex::new(grant.slots),
            clock,
            mode: Mutex::new(grant.mode),
            token: AtomicU64::new(grant.token.get()),
            fate: Fate::new(grant.expires_at.0),
            lease: AtomicU64::new(0),
            renews_itself: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> LockId {
        self.lock
    }

    pub(crate) fn renewed(&self, expires_at: Timestamp) {
        self.fate.renew(expires_at.0);
        self.lease.store(expires_at.since(self.clock.now()), Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn converted(&self, grant: &Grant) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = grant.mode;
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&grant.slots);
        self.token.store(grant.token.get(), Ordering::Release);
        self.renewed(grant.expires_at);
    }

    pub(crate) fn revoking(&self, until: Timestamp) {
        self.fate.revoke(until.0);
        self.changed.notify_waiters();
    }

    pub(crate) fn end(&self, lost: Lost) {
        self.fate.end(lost.into());
        self.changed.notify_waiters();
    }

    /// Whether it is over: by the coordinator's word, or by its own deadline, whichever is first.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.fate.lost(self.clock.now().0).map(Lost::from)
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        Timestamp(self.fate.expires_at())
    }

    pub(crate) fn lease_left(&self) -> Duration {
        let now = self.clock.now();
        match self.fate.lost(now.0) {
            None => Duration::from_millis(Timestamp(self.fate.ends_at()).since(now)),
            Some(_) => Duration::ZERO,
        }
    }

    /// When to renew a lease that renews itself: when a third of it is over, or sooner if that was
    /// missed.
    pub(crate) fn renew_in(&self) -> Duration {
        let left = self.expires_at().since(self.clock.now());
        let first = self.lease.compare_exchange(0, left, Ordering::AcqRel, Ordering::Acquire);
        let lease = Duration::from_millis(first.err().unwrap_or(left));
        let left = Duration::from_millis(left);
        (lease / 3).min(left / 2).max(Duration::from_millis(1))
    }

    pub(super) async fn wait_lost(&self) -> Lost {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(lost) = self.lost() {
                return lost;
            }
            let end = tokio::time::sleep_until(self.clock.instant(Timestamp(self.fate.ends_at())));
            tokio::select! {
                () = changed => {}
                () = end => {}
            }
        }
    }

    pub(super) async fn wait_revoking(&self) -> Timestamp {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(until) = self.fate.revoking() {
                return Timestamp(until);
            }
            if self.fate.is_said() {
                return self.clock.now();
            }
            changed.await;
        }
    }
}

/// The holds of a project that somebody in this process has a guard of. It outlives the actor, so
/// that guards stay valid when the actor is restarted.
#[derive(Default)]
pub(crate) struct GuardBook {
    holds: Mutex<HashMap<LockId, Entry, RandomState>>,
}

/// A hold in the book: whose, and what its guards know of it, if there still are any.
type Entry = (SessionId, Weak<HoldState>);

impl GuardBook {
    /// What is known of a hold; from now on, if nothing was.
    pub(crate) fn enter(&self, grant: Grant, of: SessionId, clock: &Arc<Clock>) -> Arc<HoldState> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = holds.entry(grant.lock).or_insert_with(|| (of, Weak::new()));
        entry.1.upgrade().unwrap_or_else(|| {
            let state = Arc::new(HoldState::new(grant, clock.clone()));
            *entry = (of, Arc::downgrade(&state));
            state
        })
    }

    pub(crate) fn find(&self, lock: LockId) -> Option<Arc<HoldState>> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.get(&lock).and_then(|(_, state)| state.upgrade())
    }

    /// A hold is over: its guards learn it, and the book forgets it.
    pub(crate) fn end(&self, lock: LockId, lost: Lost) {
        let state = {
            let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
            let state = holds.remove(&lock);
            // A burst gives its memory back.
            if holds.capacity() > ROOMY && holds.len() * 4 < holds.capacity() {
                let half = holds.capacity() / 2;
                holds.shrink_to(half);
            }
            state
        };
        if let Some(state) = state.and_then(|(_, state)| state.upgrade()) {
            state.end(lost);
        }
    }

    /// Everything in it, in no order that could decide anything.
    pub(crate) fn all(&self) -> Vec<LockId> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.keys().copied().collect()
    }

    /// What a session has in it, in no order that could decide anything.
    #[cfg(feature = "remote")]
    pub(crate) fn of(&self, session: SessionId) -> Vec<LockId> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.iter().filter(|(_, (of, _))| *of == session).map(|(lock, _)| *lock).collect()
    }

    /// Forgets a hold that nobody has a guard of any more.
    #[cfg(feature = "remote")]
    pub(crate) fn tidy(&self, lock: LockId) {
        let is_left = |(_, state): &Entry| state.strong_count() == 0;
        let is_left = {
            let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
            holds.get(&lock).is_some_and(is_left)
        };
        if is_left {
            self.end(lock, Lost::Released);
        }
    }
}

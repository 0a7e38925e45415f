//! Guards: locks as values. Whoever has the guard has the lock; whoever drops it gives it back.

use crate::{
    clock::Clock,
    error::{CallError, ConvertError, ReleaseError, RenewError},
    fate::{Fate, Word},
    request::UpgradeRequest,
    session::Owner,
};
use lockkeeper_core::{
    Answer, Credential, Downgrade, Grant, LockId, LockMode, Release, Renew, Resource, TicketId,
    Timestamp, Token,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
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
    lock: LockId,
    resource: Resource,
    slots: Mutex<Vec<u32>>,
    clock: Clock,
    mode: Mutex<LockMode>,
    token: AtomicU64,
    fate: Fate,
    /// How long the lease was when it was granted or renewed, in milliseconds.
    lease: AtomicU64,
    renews_itself: AtomicBool,
    changed: Notify,
}

impl HoldState {
    fn new(grant: &Grant, clock: Clock) -> HoldState {
        let lease = grant.expires_at.since(clock.now());
        HoldState {
            lock: grant.lock,
            resource: grant.resource.clone(),
            slots: Mutex::new(grant.slots.clone()),
            clock,
            mode: Mutex::new(grant.mode),
            token: AtomicU64::new(grant.token.get()),
            fate: Fate::new(grant.expires_at.0),
            lease: AtomicU64::new(lease),
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

    fn expires_at(&self) -> Timestamp {
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
        let left = Duration::from_millis(self.expires_at().since(self.clock.now()));
        let lease = Duration::from_millis(self.lease.load(Ordering::Acquire));
        (lease / 3).min(left / 2).max(Duration::from_millis(1))
    }

    async fn wait_lost(&self) -> Lost {
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

    async fn wait_revoking(&self) -> Timestamp {
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
    holds: Mutex<HashMap<LockId, Weak<HoldState>>>,
}

impl GuardBook {
    /// What is known of a hold; from now on, if nothing was.
    pub(crate) fn enter(&self, grant: &Grant, clock: Clock) -> Arc<HoldState> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = holds.get(&grant.lock).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let state = Arc::new(HoldState::new(grant, clock));
            holds.insert(grant.lock, Arc::downgrade(&state));
            state
        })
    }

    pub(crate) fn find(&self, lock: LockId) -> Option<Arc<HoldState>> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.get(&lock).and_then(Weak::upgrade)
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
        if let Some(state) = state.and_then(|state| state.upgrade()) {
            state.end(lost);
        }
    }

    /// Everything in it, in no order that could decide anything.
    pub(crate) fn all(&self) -> Vec<LockId> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.keys().copied().collect()
    }
}

/// A lock that is held. Dropping it gives it back: from any thread, in a panic, without a runtime.
///
/// A guard of a lock that was lost (expired, or taken away) is harmless: it can never disturb
/// whoever holds the lock now. Ask [`LockGuard::is_valid`] before you act on it, wait for
/// [`LockGuard::lost`] beside your work, and show [`LockGuard::token`] to whatever you protect.
#[must_use = "a guard that is dropped gives its lock back at once"]
pub struct LockGuard {
    state: Arc<HoldState>,
    owner: Arc<Owner>,
    /// Which acquire of the hold this guard is.
    share: TicketId,
    waited: Duration,
    armed: bool,
}

impl LockGuard {
    pub(crate) fn new(grant: &Grant, owner: &Arc<Owner>) -> LockGuard {
        LockGuard {
            state: owner.hold(grant),
            owner: owner.clone(),
            share: grant.ticket,
            waited: Duration::from_millis(grant.wait_ms),
            armed: true,
        }
    }

    /// The hold's identity.
    pub fn id(&self) -> LockId {
        self.state.lock
    }

    /// The fencing token: show it to what you protect, so that it can turn stale holders away (see
    /// [`crate::FenceGate`]).
    pub fn token(&self) -> Token {
        Token::from_u64(self.state.token.load(Ordering::Acquire))
    }

    /// What is held.
    pub fn resource(&self) -> &Resource {
        &self.state.resource
    }

    /// How it is held.
    pub fn mode(&self) -> LockMode {
        *self.state.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which slots, for permits.
    pub fn slots(&self) -> Vec<u32> {
        self.state.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the lease ends unless it is renewed.
    pub fn expires_at(&self) -> Timestamp {
        self.state.expires_at()
    }

    /// How much of the lease is left; nothing, once the lock is lost.
    pub fn lease_left(&self) -> Duration {
        self.state.lease_left()
    }

    /// How long the request for it queued.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The agent's name.
    pub fn agent(&self) -> &str {
        self.owner.agent()
    }

    /// Whether it still holds: neither lost nor past its deadline.
    pub fn is_valid(&self) -> bool {
        self.state.lost().is_none()
    }

    /// Waits until the lock is lost, and says how. Does not return while it is held.
    pub async fn lost(&self) -> Lost {
        self.state.wait_lost().await
    }

    /// Waits until the lock is about to be taken away, and says when it will be. Whoever cleans up
    /// and releases before then leaves nothing half done.
    pub async fn revoking(&self) -> Timestamp {
        self.state.wait_revoking().await
    }

    /// A handle that watches the lock without holding it, to be moved into a task.
    pub fn watch(&self) -> GuardWatch {
        GuardWatch { state: self.state.clone() }
    }

    /// Sets a new end to the lease, counted from now; never an earlier one.
    pub async fn renew(&self, lease: Duration) -> Result<Timestamp, RenewError> {
        let renew = Renew {
            by: Credential::Session(self.owner.session()),
            lock: self.id(),
            lease: Some(lease),
            shorten: false,
            request_id: None,
        };
        match self.owner.ask(renew.into()).await? {
            Answer::Renewed { expires_at, .. } => Ok(expires_at),
            other => Err(CallError::from(unexpected(&other)).into()),
        }
    }

    /// Renews the lease by itself, each time a third of it is over, for as long as the guard lives.
    pub fn keep_alive(&self) {
        if !self.state.renews_itself.swap(true, Ordering::AcqRel) {
            self.owner.keep_alive(&self.state);
        }
    }

    /// Asks for exclusive use, ahead of all who hold nothing. Of two holders that both want this
    /// the second one is refused at once.
    pub fn upgrade(&mut self) -> UpgradeRequest<'_> {
        UpgradeRequest::new(self)
    }

    /// Turns the hold into a weaker one, at once, and lets in whoever can stand beside it.
    pub async fn downgrade(&mut self, mode: LockMode) -> Result<(), ConvertError> {
        let (session, lock) = (self.owner.session(), self.id());
        let downgrade = Downgrade { session, lock, mode, request_id: None };
        self.owner.ask(downgrade.into()).await?;
        Ok(())
    }

    /// Gives the lock back and waits until that is on record. An error tells that it was lost
    /// before; if there was no answer, it is given back as soon as there can be one.
    pub async fn release(mut self) -> Result<(), ReleaseError> {
        // Armed until there is an answer: whoever has given up its guard, or no longer waits for
        // this, must not be left with its lock. A share is given back once, however often.
        let answer = self.owner.ask(self.release_command().into()).await;
        self.armed = matches!(answer, Err(CallError::Unavailable(_)));
        answer?;
        Ok(())
    }

    /// Gives up the guard but not the lock: it lives until its lease or its session ends.
    pub fn leave(mut self) -> LockId {
        self.armed = false;
        self.id()
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }

    fn release_command(&self) -> Release {
        Release {
            by: Credential::Session(self.owner.session()),
            lock: self.id(),
            share: Some(self.share),
            request_id: None,
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.armed && !self.state.fate.is_said() {
            self.owner.owe(self.release_command().into());
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("id", &self.id())
            .field("resource", self.resource())
            .field("mode", &self.mode())
            .field("token", &self.token())
            .field("lost", &self.state.lost())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock[{}]", self.resource())
    }
}

/// Watches a lock without holding it.
#[derive(Clone)]
pub struct GuardWatch {
    state: Arc<HoldState>,
}

impl GuardWatch {
    /// Whether it still holds.
    pub fn is_valid(&self) -> bool {
        self.state.lost().is_none()
    }

    /// Waits until the lock is lost or given back.
    pub async fn lost(&self) -> Lost {
        self.state.wait_lost().await
    }

    /// Waits until the lock is about to be taken away, and says when it will be.
    pub async fn revoking(&self) -> Timestamp {
        self.state.wait_revoking().await
    }
}

impl fmt::Debug for GuardWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardWatch").field("lock", &self.state.lock).finish_non_exhaustive()
    }
}

/// The guards of a batch, in the order of their resources.
#[must_use = "guards that are dropped give their locks back at once"]
#[derive(Debug)]
pub struct LockGuards {
    guards: Vec<LockGuard>,
}

impl LockGuards {
    pub(crate) fn new(guards: Vec<LockGuard>) -> LockGuards {
        LockGuards { guards }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.guards.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.guards.is_empty()
    }

    /// Whether all of them still hold.
    pub fn all_valid(&self) -> bool {
        self.guards.iter().all(LockGuard::is_valid)
    }

    /// Waits until any of them is lost, and says which, and how.
    pub async fn lost(&self) -> (&LockGuard, Lost) {
        let mut waits: Vec<_> = self
            .guards
            .iter()
            .map(|guard| Box::pin(async move { (guard, guard.lost().await) }))
            .collect();
        std::future::poll_fn(|context| {
            let ready = waits.iter_mut().find_map(|wait| match wait.as_mut().poll(context) {
                Poll::Ready(lost) => Some(lost),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, LockGuard> {
        self.guards.iter()
    }

    /// The guard of one resource.
    pub fn get(&self, resource: &Resource) -> Option<&LockGuard> {
        self.guards.iter().find(|guard| guard.resource() == resource)
    }

    /// Gives all of them back. The first error is told, the others are tried all the same.
    pub async fn release(self) -> Result<(), ReleaseError> {
        let mut outcome = Ok(());
        for guard in self.guards {
            let released = guard.release().await;
            outcome = outcome.and(released);
        }
        outcome
    }

    /// Each for itself.
    pub fn into_vec(self) -> Vec<LockGuard> {
        self.guards
    }
}

impl<'a> IntoIterator for &'a LockGuards {
    type Item = &'a LockGuard;
    type IntoIter = std::slice::Iter<'a, LockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.guards.iter()
    }
}

impl IntoIterator for LockGuards {
    type Item = LockGuard;
    type IntoIter = std::vec::IntoIter<LockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.guards.into_iter()
    }
}

impl fmt::Display for LockGuards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MultiLock[")?;
        for (at, guard) in self.guards.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, guard.resource())?;
        }
        f.write_str("]")
    }
}

/// An answer that does not belong to its question: a defect, told as one.
pub(crate) fn unexpected(answer: &Answer) -> crate::Unavailable {
    tracing::error!(?answer, "an answer does not belong to its question");
    debug_assert!(false, "an answer does not belong to its question: {answer:?}");
    crate::Unavailable::Crashed
}

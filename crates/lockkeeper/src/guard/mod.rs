//! Guards: locks as values. Whoever has the guard has the lock; whoever drops it gives it back.

mod batch;
mod hold;

use crate::{
    error::{CallError, ConvertError, ReleaseError, RenewError},
    request::UpgradeRequest,
    session::Owner,
};
use lockkeeper_core::{
    Answer, Credential, Downgrade, Grant, LockId, LockMode, Release, Renew, Resource, TicketId,
    Timestamp, Token,
};
use std::{
    fmt,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

pub use batch::LockGuards;
pub use hold::Lost;
pub(crate) use hold::{GuardBook, HoldState};

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
    pub(crate) fn new(grant: Grant, owner: Arc<Owner>) -> LockGuard {
        let (share, waited) = (grant.ticket, Duration::from_millis(grant.wait_ms));
        LockGuard { state: owner.hold(grant), owner, share, waited, armed: true }
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

/// An answer that does not belong to its question: a defect, told as one.
pub(crate) fn unexpected(answer: &Answer) -> crate::Unavailable {
    tracing::error!(?answer, "an answer does not belong to its question");
    debug_assert!(false, "an answer does not belong to its question: {answer:?}");
    crate::Unavailable::Crashed
}

//! What becomes of a hold, as its guards see it: the one piece of shared memory between the desk,
//! which brings the coordinator's word, and guards in any thread, which watch their own deadline.
//!
//! Its interleavings are played through in `tests/races.rs`, which brings its own `crate::sync`.

use crate::sync::{AtomicU8, AtomicU64, Ordering};

/// The coordinator has said nothing and the deadline has not been seen to pass.
const HELD: u8 = 0;
/// A guard has seen its own deadline pass.
const OVERDUE: u8 = 4;
const NOT_REVOKING: u64 = u64::MAX;

/// How a hold was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    Expired,
    Revoked,
    Released,
}

impl Word {
    fn code(self) -> u8 {
        match self {
            Word::Expired => 1,
            Word::Revoked => 2,
            Word::Released => 3,
        }
    }

    fn of(code: u8) -> Option<Word> {
        match code {
            HELD => None,
            2 => Some(Word::Revoked),
            3 => Some(Word::Released),
            _ => Some(Word::Expired),
        }
    }
}

/// Times are milliseconds on the coordinator's clock.
pub(crate) struct Fate {
    fate: AtomicU8,
    expires_at: AtomicU64,
    revoking: AtomicU64,
}

impl Fate {
    pub(crate) fn new(expires_at: u64) -> Fate {
        Fate {
            fate: AtomicU8::new(HELD),
            expires_at: AtomicU64::new(expires_at),
            revoking: AtomicU64::new(NOT_REVOKING),
        }
    }

    pub(crate) fn renew(&self, expires_at: u64) {
        self.expires_at.store(expires_at, Ordering::Release);
    }

    pub(crate) fn revoke(&self, until: u64) {
        self.revoking.store(until, Ordering::Release);
    }

    pub(crate) fn expires_at(&self) -> u64 {
        self.expires_at.load(Ordering::Acquire)
    }

    pub(crate) fn revoking(&self) -> Option<u64> {
        let until = self.revoking.load(Ordering::Acquire);
        (until != NOT_REVOKING).then_some(until)
    }

    /// When it ends by itself.
    pub(crate) fn ends_at(&self) -> u64 {
        self.expires_at().min(self.revoking.load(Ordering::Acquire))
    }

    /// The coordinator's word. The first one counts: what expired was not released later.
    pub(crate) fn end(&self, word: Word) {
        for from in [HELD, OVERDUE] {
            let (done, seen) = (Ordering::AcqRel, Ordering::Acquire);
            match self.fate.compare_exchange(from, word.code(), done, seen) {
                // It was held: said. Or somebody has said something before.
                Ok(_) => return,
                Err(OVERDUE) => {}
                Err(_) => return,
            }
        }
    }

    /// Whether it is over: by the coordinator's word, or by its own deadline, whichever is first.
    /// What was lost once stays lost, even if the coordinator was about to renew it.
    pub(crate) fn lost(&self, now: u64) -> Option<Word> {
        let fate = self.fate.load(Ordering::Acquire);
        if fate != HELD || now < self.ends_at() {
            return Word::of(fate);
        }
        let (done, seen) = (Ordering::AcqRel, Ordering::Acquire);
        match self.fate.compare_exchange(HELD, OVERDUE, done, seen) {
            Ok(_) => Some(Word::Expired),
            Err(said) => Word::of(said),
        }
    }

    /// Whether the coordinator has said that it is over.
    pub(crate) fn is_said(&self) -> bool {
        !matches!(self.fate.load(Ordering::Acquire), HELD | OVERDUE)
    }
}

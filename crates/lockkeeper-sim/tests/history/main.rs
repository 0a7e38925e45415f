//! The checker of histories, doubted: what is right must pass, and whatever is wrong must not, with
//! the right promise named. A checker that lets bad histories pass is worth nothing.
//!
//! | file | what it tries |
//! |---|---|
//! | `written.rs` | I1 to I5: histories by hand, good and bad |
//! | `models.rs` | the five models: the same, and the fast way against the search |
//! | `drawn.rs` | histories of correct runs, drawn at random, and then each with one thing wrong |
#![allow(clippy::unwrap_used, reason = "a test")]

mod drawn;
mod models;
mod written;

use lockkeeper_core::{LockId, LockMode, Resource, SessionId, Token};
use lockkeeper_sim::{
    Invariant,
    history::{Capacities, Ended, Fault, Note, What, check},
};

/// Notes that are written by hand. Times are small numbers; a client is a process with a session.
#[derive(Clone, Default)]
struct Tale {
    notes: Vec<Note>,
    capacities: Capacities,
    calls: u64,
    locks: u128,
}

fn file(name: &str) -> Resource {
    Resource::file(name)
}

fn session(client: u32) -> SessionId {
    SessionId::from_u64(u64::from(client) + 1)
}

fn token(n: u64) -> Token {
    Token::from_u64(n)
}

impl Tale {
    fn note(&mut self, at: u64, process: u32, what: What) {
        self.notes.push(Note { at, process, call: self.calls, what });
    }

    /// A question and its answer.
    fn call(&mut self, who: u32, from: u64, ask: What, to: u64, answer: What) {
        self.calls += 1;
        self.note(from, who, ask);
        self.note(to, who, answer);
    }

    /// A question without an answer.
    fn ask(&mut self, who: u32, from: u64, ask: What) {
        self.calls += 1;
        self.note(from, who, ask);
    }

    fn attached(&mut self, who: u32, linger: u64) {
        self.note(0, who, What::Opened { session: session(who), attached: true, linger });
    }

    fn detached(&mut self, who: u32) {
        self.note(0, who, What::Opened { session: session(who), attached: false, linger: 0 });
    }

    /// An exclusive lock of the file `a`: asked for, granted, and leased until then.
    fn hold(&mut self, who: u32, n: u64, (from, to): (u64, u64), until: u64) -> LockId {
        self.hold_as(who, LockMode::Exclusive, "a", n, (from, to), until)
    }

    fn hold_as(
        &mut self,
        who: u32,
        mode: LockMode,
        name: &str,
        n: u64,
        (from, to): (u64, u64),
        until: u64,
    ) -> LockId {
        self.locks += 1;
        let lock = LockId::from_u128(self.locks);
        self.grant(who, mode, (name, &[]), (lock, n), (from, to), until);
        lock
    }

    fn grant(
        &mut self,
        who: u32,
        mode: LockMode,
        (name, slots): (&str, &[u32]),
        (lock, n): (LockId, u64),
        (from, to): (u64, u64),
        until: u64,
    ) {
        let ask = What::Acquire { session: session(who), resource: file(name), mode };
        let granted = What::Granted { lock, token: token(n), slots: slots.to_vec(), until };
        self.call(who, from, ask, to, granted);
    }

    fn release(&mut self, who: u32, lock: LockId, from: u64, to: u64) {
        self.call(who, from, What::Release { lock }, to, What::Released { over: true });
    }

    fn lost(&mut self, who: u32, lock: LockId, at: u64, why: Ended) {
        self.note(at, who, What::Lost { lock, why });
    }

    fn cut(&mut self, who: u32, at: u64) {
        self.note(at, who, What::Cut);
    }

    fn write(&mut self, who: u32, (lock, n): (LockId, u64), value: u64, from: u64, to: u64) {
        let write = Some(value);
        let ask = What::Touch { lock, slot: 0, token: token(n), write };
        self.call(who, from, ask, to, What::Accepted { value });
    }

    fn read(&mut self, who: u32, (lock, n): (LockId, u64), value: u64, from: u64, to: u64) {
        let ask = What::Touch { lock, slot: 0, token: token(n), write: None };
        self.call(who, from, ask, to, What::Accepted { value });
    }

    fn bounced(&mut self, who: u32, (lock, n): (LockId, u64), newest: u64, from: u64, to: u64) {
        let ask = What::Touch { lock, slot: 0, token: token(n), write: None };
        self.call(who, from, ask, to, What::Bounced { newest: token(newest) });
    }

    #[track_caller]
    fn passes(&self) {
        if let Err(fault) = check(&self.notes, &self.capacities) {
            panic!("{fault}");
        }
    }

    /// It is rejected, for this reason, in words that contain all of these.
    #[track_caller]
    fn breaks(&self, invariant: Invariant, words: &[&str]) {
        match check(&self.notes, &self.capacities) {
            Err(Fault::Broken(violation)) => {
                assert_eq!(violation.invariant, invariant, "{violation}");
                for word in words {
                    assert!(violation.message.contains(word), "{word:?} is not in: {violation}");
                }
            }
            other => panic!("{invariant:?} is broken, but: {other:?}"),
        }
    }
}

//! Every interleaving of what guards and the desk do to the fate of a hold, played through by loom.

#![allow(missing_docs, reason = "a test")]

/// The shared memory of `fate.rs`, as loom has it.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};
}

#[allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#[path = "../src/fate.rs"]
mod fate;

use fate::{Fate, Word};
use loom::{sync::Arc, thread};

/// I14: what a guard has seen to be over stays over, while a renewal and the coordinator's word
/// come in.
#[test]
fn what_was_lost_once_stays_lost() {
    loom::model(|| {
        let fate = Arc::new(Fate::new(100));
        let renews = {
            let fate = fate.clone();
            thread::spawn(move || fate.renew(300))
        };
        let ends = {
            let fate = fate.clone();
            thread::spawn(move || fate.end(Word::Revoked))
        };
        let first = fate.lost(100);
        let second = fate.lost(100);
        assert!(first.is_none() || second.is_some(), "came back to life: {first:?}, {second:?}");
        renews.join().unwrap();
        ends.join().unwrap();
        assert_eq!(fate.lost(100), Some(Word::Revoked), "the coordinator's word is the last one");
        assert!(fate.is_said());
    });
}

/// Of two words of the coordinator the first one counts, and everybody sees the same one.
#[test]
fn the_first_word_counts() {
    loom::model(|| {
        let fate = Arc::new(Fate::new(100));
        let other = {
            let fate = fate.clone();
            thread::spawn(move || {
                fate.end(Word::Revoked);
                fate.lost(0)
            })
        };
        fate.end(Word::Expired);
        let seen = fate.lost(0);
        let seen_there = other.join().unwrap();
        assert!(seen.is_some());
        assert_eq!(seen, seen_there, "two words for one fate");
        assert_eq!(fate.lost(0), seen, "the word changed later");
    });
}

/// A drop gives a lock back unless the coordinator said that it is over: a guard that only saw its
/// own deadline pass must still release, or the lock would live on without an owner.
#[test]
fn an_overdue_guard_still_gives_back() {
    loom::model(|| {
        let fate = Arc::new(Fate::new(100));
        let watcher = {
            let fate = fate.clone();
            thread::spawn(move || fate.lost(200))
        };
        let must_release = !fate.is_said();
        assert_eq!(watcher.join().unwrap(), Some(Word::Expired));
        assert!(must_release && !fate.is_said());
        fate.end(Word::Released);
        assert!(fate.is_said());
    });
}

/// A revocation that comes while the lease is renewed is not forgotten.
#[test]
fn a_renewal_does_not_hide_a_revocation() {
    loom::model(|| {
        let fate = Arc::new(Fate::new(100));
        let revokes = {
            let fate = fate.clone();
            thread::spawn(move || fate.revoke(150))
        };
        fate.renew(300);
        revokes.join().unwrap();
        assert_eq!((fate.ends_at(), fate.revoking()), (150, Some(150)));
        assert_eq!(fate.lost(149), None);
        assert_eq!(fate.lost(150), Some(Word::Expired));
    });
}

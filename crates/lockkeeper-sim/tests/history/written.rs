//! I1 to I5, by hand: for each promise what keeps it, what just keeps it, and what breaks it.

use super::{Tale, file, session, token};
use lockkeeper_core::{LockId, LockMode};
use lockkeeper_sim::{
    Invariant,
    history::{Ended, Fault, What, check},
};

const LONG: u64 = 1_000_000;

/// One after the other, each released and touched in between.
#[test]
fn a_good_history_passes() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.read(1, (first, 10), 0, 21, 22);
    tale.write(1, (first, 10), 7, 23, 24);
    // The second one waits for the first one's release, and hears before that is acknowledged.
    tale.release(1, first, 30, 45);
    let second = tale.hold(2, 11, (15, 40), LONG);
    tale.read(2, (second, 11), 7, 41, 42);
    tale.release(2, second, 50, 51);
    tale.passes();
    let summary = check(&tale.notes, &tale.capacities).unwrap();
    assert_eq!((summary.holds, summary.released, summary.accepted), (2, 2, 3));
}

#[test]
fn the_order_of_the_notes_is_nothing_and_their_times_are_all() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.release(1, first, 30, 45);
    tale.hold(2, 11, (15, 40), LONG);
    tale.notes.reverse();
    tale.passes();
}

#[test]
fn red_when_two_hold_what_the_service_says_both_held() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.hold(2, 11, (15, 29), LONG);
    tale.release(1, first, 30, 45);
    let words = ["file:a", "token 10", "token 11", "process 1", "process 2", "0.000000"];
    // In times of which a reader can make something.
    tale.breaks(Invariant::I1, &words[..5]);
    for note in &mut tale.notes {
        note.at *= 1_000_000;
    }
    tale.breaks(Invariant::I1, &["granted by 0.029000 s", "held until 0.030000 s as it was told"]);
}

#[test]
fn red_when_somebody_comes_in_during_a_lease() {
    let mut tale = Tale::default();
    tale.hold(1, 10, (10, 20), 100);
    tale.hold(2, 11, (15, 99), LONG);
    tale.breaks(Invariant::I3, &["by its lease"]);
}

#[test]
fn a_lease_that_is_over_is_over() {
    let mut tale = Tale::default();
    tale.hold(1, 10, (10, 20), 100);
    tale.hold(2, 11, (15, 100), LONG);
    tale.passes();
}

#[test]
fn a_renewal_holds_as_long_as_it_says() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), 100);
    let renewed = What::Renewed { until: 200 };
    tale.call(1, 80, What::Renew { lock: first }, 85, renewed);
    let kept = tale.clone();
    tale.hold(2, 11, (90, 200), LONG);
    tale.passes();
    let mut tale = kept.clone();
    tale.hold(2, 11, (90, 150), LONG);
    tale.breaks(Invariant::I3, &[]);
    // What was renewed was there when that was asked.
    let mut tale = kept;
    tale.hold(2, 11, (30, 79), LONG);
    tale.breaks(Invariant::I1, &[]);
}

/// Whoever was told that the lock was taken away may have lost it long before.
#[test]
fn what_was_taken_away_is_not_definite() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.lost(1, first, 60, Ended::Taken);
    let kept = tale.clone();
    tale.hold(2, 11, (15, 25), LONG);
    tale.passes();
    // But it cannot have been there if it was lost by its lease only.
    let mut tale = kept;
    tale.notes.last_mut().unwrap().what = What::Lost { lock: first, why: Ended::Expired };
    tale.hold(2, 11, (15, 25), LONG);
    tale.breaks(Invariant::I3, &[]);
}

#[test]
fn a_cut_ends_what_is_attached_after_its_time_and_nothing_else() {
    // Attached, with a linger of 30: over at the earliest when the cut is 30 old.
    for (granted, fits) in [(129, false), (130, true)] {
        let mut tale = Tale::default();
        tale.attached(1, 30);
        tale.hold(1, 10, (10, 20), LONG);
        tale.cut(1, 100);
        tale.hold(2, 11, (15, granted), LONG);
        match fits {
            true => tale.passes(),
            false => tale.breaks(Invariant::I3, &[]),
        }
    }
    // Detached: nothing is over.
    let mut tale = Tale::default();
    tale.detached(1);
    tale.hold(1, 10, (10, 20), LONG);
    tale.cut(1, 100);
    tale.hold(2, 11, (15, 150), LONG);
    tale.breaks(Invariant::I3, &[]);
    // Nor is what came after the cut, or is another one's.
    let mut tale = Tale::default();
    tale.attached(1, 0);
    tale.cut(1, 5);
    tale.cut(3, 50);
    tale.hold(1, 10, (10, 20), LONG);
    tale.hold(2, 11, (15, 150), LONG);
    tale.breaks(Invariant::I3, &[]);
}

#[test]
fn a_release_without_an_answer_may_have_been_done() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.ask(1, 50, What::Release { lock: first });
    let kept = tale.clone();
    tale.hold(2, 11, (15, 50), LONG);
    tale.passes();
    let mut tale = kept;
    tale.hold(2, 11, (15, 49), LONG);
    tale.breaks(Invariant::I3, &[]);
}

#[test]
fn readers_stand_together_and_writers_alone() {
    use LockMode::{Exclusive, Shared, Update};
    let pairs = [
        (Shared, Shared, true),
        (Shared, Update, true),
        (Update, Shared, true),
        (Update, Update, false),
        (Shared, Exclusive, false),
        (Exclusive, Shared, false),
        (Update, Exclusive, false),
        (Exclusive, Update, false),
        (Exclusive, Exclusive, false),
    ];
    for (one, other, fits) in pairs {
        let mut tale = Tale::default();
        let first = tale.hold_as(1, one, "a", 10, (10, 20), LONG);
        let shares = one != Exclusive && other != Exclusive;
        let second = tale.hold_as(2, other, "a", if shares { 10 } else { 11 }, (15, 25), LONG);
        tale.release(1, first, 30, 31);
        tale.release(2, second, 30, 31);
        match fits {
            true => tale.passes(),
            false => tale.breaks(Invariant::I1, &[]),
        }
    }
}

/// A writer in front of which a reader entered long ago and stayed for longest: it is not enough to
/// look at the last one who came.
#[test]
fn red_when_the_one_who_stayed_is_not_the_last_who_came() {
    let mut tale = Tale::default();
    let stays = tale.hold_as(1, LockMode::Shared, "a", 10, (10, 20), LONG);
    for nth in 0..5 {
        let lock = tale.hold_as(2, LockMode::Shared, "a", 10, (21 + nth, 21 + nth), LONG);
        tale.release(2, lock, 30, 31);
    }
    tale.hold_as(3, LockMode::Exclusive, "a", 11, (15, 40), LONG);
    tale.release(1, stays, 50, 51);
    tale.breaks(Invariant::I1, &["process 1"]);
}

#[test]
fn permits_are_counted_and_slots_are_alone() {
    let permits = |third: (u64, u64), slot: u32| {
        let mut tale = Tale::default();
        tale.capacities.insert(file("pool"), 2);
        for (who, slot) in [(1, 0), (2, 1)] {
            let lock = LockId::from_u128(100 + u128::from(who));
            let mode = LockMode::Permit(1);
            let n = 10 + u64::from(who);
            tale.grant(who, mode, ("pool", &[slot]), (lock, n), (10, 20), LONG);
            tale.release(who, lock, 50 + u64::from(who), 60);
        }
        let lock = LockId::from_u128(200);
        tale.grant(3, LockMode::Permit(1), ("pool", &[slot]), (lock, 13), third, LONG);
        tale
    };
    permits((15, 51), 0).passes();
    permits((15, 52), 1).passes();
    permits((15, 51), 1).breaks(Invariant::I1, &["two are inside"]);
    permits((15, 50), 0).breaks(Invariant::I1, &["3 of 2 permits"]);
    permits((15, 52), 2).breaks(Invariant::I1, &["slots [2] for 1 permits of 2"]);
}

#[test]
fn red_when_permits_are_given_without_slots() {
    let mut tale = Tale::default();
    tale.capacities.insert(file("pool"), 4);
    let lock = LockId::from_u128(1);
    tale.grant(1, LockMode::Permit(2), ("pool", &[1, 1]), (lock, 5), (10, 20), LONG);
    tale.breaks(Invariant::I1, &["slots [1, 1]"]);
}

#[test]
fn red_when_a_token_does_not_grow() {
    // Nobody knows whether the first one still held it: only tokens tell.
    for (second, fits) in [(9, false), (10, false), (11, true)] {
        let mut tale = Tale::default();
        tale.hold(1, 10, (10, 20), 25);
        tale.hold(2, second, (30, 40), LONG);
        match fits {
            true => tale.passes(),
            false => tale.breaks(Invariant::I2, &[]),
        }
    }
}

#[test]
fn red_when_a_token_does_not_grow_after_a_release() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.release(1, first, 22, 24);
    tale.hold(2, 9, (30, 40), LONG);
    tale.breaks(Invariant::I5, &["its release was acknowledged at"]);
    // Asked for before that, it may well have been first.
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.release(1, first, 22, 24);
    let second = tale.hold(2, 9, (5, 40), 40);
    tale.lost(2, second, 41, Ended::Taken);
    tale.passes();
}

/// Before whom one was granted is told by the tokens: then it was over before the other one began.
#[test]
fn red_when_times_and_tokens_disagree() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 11, (10, 20), LONG);
    tale.release(1, first, 22, 24);
    tale.hold(2, 10, (5, 40), LONG);
    tale.breaks(Invariant::I3, &[]);
}

#[test]
fn red_when_two_have_one_token() {
    let mut tale = Tale::default();
    let first = tale.hold_as(1, LockMode::Exclusive, "a", 10, (10, 20), LONG);
    tale.release(1, first, 22, 24);
    tale.hold_as(2, LockMode::Exclusive, "b", 10, (30, 40), LONG);
    tale.breaks(Invariant::I2, &["two have one token"]);
    // Readers of one phase do, readers of two things do not.
    for (name, fits) in [("a", true), ("b", false)] {
        let mut tale = Tale::default();
        tale.hold_as(1, LockMode::Shared, "a", 10, (10, 20), LONG);
        tale.hold_as(2, LockMode::Shared, name, 10, (30, 40), LONG);
        match fits {
            true => tale.passes(),
            false => tale.breaks(Invariant::I2, &[]),
        }
    }
}

#[test]
fn red_when_the_phase_of_readers_goes_back() {
    let mut tale = Tale::default();
    tale.hold_as(1, LockMode::Shared, "a", 10, (10, 20), LONG);
    tale.hold_as(2, LockMode::Shared, "a", 9, (30, 40), LONG);
    tale.breaks(Invariant::I2, &[]);
}

#[test]
fn red_when_a_lock_is_granted_again_after_its_end() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.release(1, first, 22, 24);
    tale.grant(1, LockMode::Exclusive, ("a", &[]), (first, 10), (30, 40), LONG);
    tale.breaks(Invariant::I2, &["granted twice"]);
}

/// What is counted up is one hold, from the first acquire to the last release.
#[test]
fn a_counted_hold_is_one() {
    let counted = |second: (u64, u64)| {
        let mut tale = Tale::default();
        let lock = tale.hold(1, 10, (10, 20), LONG);
        tale.grant(1, LockMode::Exclusive, ("a", &[]), (lock, 10), (21, 22), LONG);
        tale.call(1, 30, What::Release { lock }, 31, What::Released { over: false });
        tale.call(1, 40, What::Release { lock }, 41, What::Released { over: true });
        tale.hold(2, 11, second, LONG);
        tale
    };
    counted((15, 40)).passes();
    counted((15, 39)).breaks(Invariant::I1, &[]);
    let summary = counted((15, 40));
    assert_eq!(check(&summary.notes, &summary.capacities).unwrap().counted, 1);
}

/// I3: the lease is over, another one is in; the one who slept is turned away.
#[test]
fn who_slept_through_its_lease_is_turned_away() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), 100);
    tale.write(1, (first, 10), 1, 30, 31);
    let second = tale.hold(2, 11, (15, 105), LONG);
    let kept = tale.clone();
    tale.write(2, (second, 11), 2, 106, 107);
    tale.bounced(1, (first, 10), 11, 110, 111);
    tale.read(2, (second, 11), 2, 120, 121);
    tale.passes();
    // Late, but nobody else has been there yet.
    let mut tale = kept.clone();
    tale.write(1, (first, 10), 3, 110, 111);
    tale.read(2, (second, 11), 3, 120, 121);
    tale.passes();
    // Let in after the other one: each way in which it may show.
    let mut tale = kept.clone();
    tale.write(2, (second, 11), 2, 106, 107);
    tale.write(1, (first, 10), 3, 110, 111);
    tale.breaks(Invariant::I4, &["token 11 wrote 2", "and after it token 10 wrote 3"]);
    let mut tale = kept;
    tale.read(2, (second, 11), 1, 106, 107);
    tale.read(1, (first, 10), 1, 110, 111);
    tale.breaks(Invariant::I4, &["and after it token 10 read 1"]);
}

#[test]
fn red_when_a_holder_is_turned_away() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), 100);
    tale.bounced(1, (first, 10), 11, 30, 31);
    tale.breaks(Invariant::I3, &["a holder was turned away"]);
    // At the end of its lease it need not be one any more.
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), 100);
    tale.bounced(1, (first, 10), 11, 30, 101);
    tale.passes();
}

#[test]
fn red_when_a_read_does_not_see_the_last_write() {
    let begin = || {
        let mut tale = Tale::default();
        let first = tale.hold(1, 10, (10, 20), LONG);
        tale.write(1, (first, 10), 1, 21, 22);
        tale.write(1, (first, 10), 2, 23, 24);
        tale.release(1, first, 30, 31);
        let second = tale.hold(2, 11, (40, 41), LONG);
        (tale, second)
    };
    let (mut tale, second) = begin();
    tale.read(2, (second, 11), 2, 50, 51);
    tale.passes();
    for wrong in [0, 1, 3] {
        let (mut tale, second) = begin();
        tale.read(2, (second, 11), wrong, 50, 51);
        tale.breaks(Invariant::I4, &["only {2} could be read"]);
    }
}

/// A write without an answer may be there at once, later, or never; but not after somebody newer
/// was let in, and not gone again.
#[test]
fn a_write_without_an_answer_is_there_or_not() {
    let begin = || {
        let mut tale = Tale::default();
        let first = tale.hold(1, 10, (10, 20), 100);
        tale.write(1, (first, 10), 1, 21, 22);
        let write = What::Touch { lock: first, slot: 0, token: token(10), write: Some(2) };
        tale.ask(1, 30, write);
        let second = tale.hold(2, 11, (40, 101), LONG);
        (tale, second)
    };
    for seen in [[1, 1], [2, 2]] {
        let (mut tale, second) = begin();
        tale.read(2, (second, 11), seen[0], 110, 111);
        tale.read(2, (second, 11), seen[1], 120, 121);
        tale.passes();
    }
    for seen in [[1, 2], [2, 1], [0, 0]] {
        let (mut tale, second) = begin();
        tale.read(2, (second, 11), seen[0], 110, 111);
        tale.read(2, (second, 11), seen[1], 120, 121);
        tale.breaks(Invariant::I4, &["could be read"]);
    }
}

#[test]
fn red_when_another_token_is_shown() {
    let mut tale = Tale::default();
    let first = tale.hold(1, 10, (10, 20), LONG);
    tale.write(1, (first, 12), 1, 30, 31);
    tale.breaks(Invariant::I4, &["token 12"]);
}

/// A history that cannot have been written is the fault of its writers.
#[test]
fn nonsense_is_told_from_a_broken_promise() {
    let malformed = |tale: &Tale| {
        let told = check(&tale.notes, &tale.capacities);
        assert!(matches!(told, Err(Fault::Malformed(_))), "{told:?}");
    };
    let mut tale = Tale::default();
    tale.note(10, 1, What::Renewed { until: 5 });
    malformed(&tale);
    let mut tale = Tale::default();
    let lock = LockId::from_u128(7);
    tale.call(1, 10, What::Release { lock }, 11, What::Released { over: true });
    malformed(&tale);
    let mut tale = Tale::default();
    let acquire =
        What::Acquire { session: session(1), resource: file("a"), mode: LockMode::Exclusive };
    tale.call(1, 10, acquire.clone(), 11, What::Released { over: true });
    malformed(&tale);
    let mut tale = Tale::default();
    tale.note(10, 1, acquire.clone());
    tale.note(11, 1, acquire);
    malformed(&tale);
}

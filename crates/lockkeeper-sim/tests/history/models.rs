//! The five models: histories by hand that they allow and that they do not, and the fast way of
//! deciding against the search.

use super::session;
use lockkeeper_core::LockId;
use lockkeeper_sim::history::{Kind, LockModel, ModelOp, Verdict, decide, search};
use proptest::prelude::*;

const MUTEX: LockModel = LockModel::Mutex;
const REENTRANT: LockModel = LockModel::Reentrant { max: 2 };
const FENCED: LockModel = LockModel::Fenced;
const REENTRANT_FENCED: LockModel = LockModel::ReentrantFenced { max: 2 };
const PAIR: LockModel = LockModel::Semaphore { permits: 2 };
const MODELS: [LockModel; 5] = [MUTEX, REENTRANT, FENCED, REENTRANT_FENCED, PAIR];

fn op(who: u32, kind: Kind, hold: u64, from: u64, to: u64) -> ModelOp {
    ModelOp {
        client: session(who),
        kind,
        hold: LockId::from_u128(hold.into()),
        // By default each hold has a token of its own, in the order of their numbers.
        token: Some(hold),
        permits: 1,
        from,
        to: Some(to),
    }
}

fn take(who: u32, hold: u64, from: u64, to: u64) -> ModelOp {
    op(who, Kind::Acquire, hold, from, to)
}

fn give(who: u32, hold: u64, from: u64, to: u64) -> ModelOp {
    op(who, Kind::Release, hold, from, to)
}

fn lose(who: u32, hold: u64, from: u64) -> ModelOp {
    ModelOp { to: None, ..op(who, Kind::Lose, hold, from, 0) }
}

fn with_token(op: ModelOp, token: u64) -> ModelOp {
    ModelOp { token: Some(token), ..op }
}

/// Which of the models allow it; both ways of deciding must agree, where both decide.
#[track_caller]
fn allowed(ops: &[ModelOp]) -> Vec<LockModel> {
    let allows = |model: &LockModel| {
        let found = search(*model, ops, 1_000_000);
        let is_allowed = match &found {
            Verdict::Linearizable(order) => {
                is_an_order(*model, ops, order);
                true
            }
            Verdict::Impossible(_) => false,
            Verdict::Undecided => panic!("it is small"),
        };
        if let Some(fast) = decide(*model, ops) {
            assert_eq!(fast.is_ok(), is_allowed, "{model}: {fast:?}, but {found:?}; {ops:#?}");
        }
        is_allowed
    };
    MODELS.into_iter().filter(allows).collect()
}

/// What the search found is what it says: an order in which nothing comes before what it follows,
/// and each step is one of the model.
#[track_caller]
fn is_an_order(model: LockModel, ops: &[ModelOp], order: &[usize]) {
    let mut state = Default::default();
    for (nth, at) in order.iter().enumerate() {
        state = model.step(&state, &ops[*at]).expect("a step of the model");
        for later in &order[nth..] {
            assert!(ops[*later].to.is_none_or(|to| to >= ops[*at].from), "{order:?}");
        }
    }
    for (at, op) in ops.iter().enumerate() {
        assert!(op.to.is_none() || order.contains(&at), "{op} is missing");
    }
}

#[test]
fn one_after_the_other_is_allowed_by_all() {
    let ops = [take(1, 1, 0, 1), give(1, 1, 2, 3), take(2, 2, 4, 5), give(2, 2, 6, 7)];
    assert_eq!(allowed(&ops), MODELS);
    assert_eq!(allowed(&[]), MODELS);
}

#[test]
fn waiting_for_a_release_is_allowed_by_all() {
    let ops = [take(1, 1, 0, 1), take(2, 2, 2, 9), give(1, 1, 5, 10), give(2, 2, 11, 12)];
    assert_eq!(allowed(&ops), MODELS);
}

#[test]
fn two_at_once_need_two_permits() {
    let ops = [take(1, 1, 0, 1), take(2, 2, 2, 3), give(1, 1, 4, 5), give(2, 2, 6, 7)];
    assert_eq!(allowed(&ops), [PAIR]);
    let three = [ops[0].clone(), ops[1].clone(), take(3, 3, 2, 3)];
    assert_eq!(allowed(&three), []);
}

#[test]
fn permits_are_weighed() {
    let two = |op: ModelOp| ModelOp { permits: 2, ..op };
    let ops = [take(1, 1, 0, 1), two(take(2, 2, 2, 9)), give(1, 1, 5, 6)];
    assert_eq!(allowed(&ops), [PAIR]);
    let ops = [take(1, 1, 0, 1), two(take(2, 2, 2, 4)), give(1, 1, 5, 6)];
    assert_eq!(allowed(&ops), []);
}

#[test]
fn only_the_owner_gives_back() {
    let ops = [take(1, 1, 0, 1), give(2, 1, 2, 3)];
    assert_eq!(allowed(&ops), []);
    assert_eq!(allowed(&[give(1, 1, 2, 3)]), []);
    let twice = [take(1, 1, 0, 1), give(1, 1, 2, 3), give(1, 1, 4, 5)];
    assert_eq!(allowed(&twice), []);
}

#[test]
fn only_what_may_be_counted_is_taken_twice() {
    let ops =
        [take(1, 1, 0, 1), take(1, 1, 2, 3), give(1, 1, 4, 5), give(1, 1, 6, 7), take(2, 2, 8, 9)];
    assert_eq!(allowed(&ops), [REENTRANT, REENTRANT_FENCED]);
    // It is free after as many releases as acquires, not before.
    let early = [take(1, 1, 0, 1), take(1, 1, 2, 3), give(1, 1, 4, 5), take(2, 2, 6, 7)];
    assert_eq!(allowed(&early), []);
    let thrice = [take(1, 1, 0, 1), take(1, 1, 2, 3), take(1, 1, 4, 5)];
    assert_eq!(allowed(&thrice), []);
}

#[test]
fn tokens_grow() {
    let ops = |first, second| {
        [
            with_token(take(1, 1, 0, 1), first),
            with_token(give(1, 1, 2, 3), first),
            with_token(take(2, 2, 4, 5), second),
        ]
    };
    assert_eq!(allowed(&ops(5, 6)), MODELS);
    let without: [LockModel; 2] = [MUTEX, REENTRANT];
    assert_eq!(allowed(&ops(6, 5)), without);
    assert_eq!(allowed(&ops(5, 5)), without);
}

#[test]
fn a_counted_hold_keeps_its_token() {
    let ops = [with_token(take(1, 1, 0, 1), 5), with_token(take(1, 1, 2, 3), 6)];
    assert_eq!(allowed(&ops), [REENTRANT]);
}

#[test]
fn who_may_have_lost_it_makes_room_for_others() {
    let after = |at| [take(1, 1, 0, 1), lose(1, 1, at), take(2, 2, 2, 9)];
    assert_eq!(allowed(&after(5)), MODELS);
    // Permits are enough for both.
    assert_eq!(allowed(&after(10)), [PAIR]);
    // The loss of one hold is not that of the next one.
    let again =
        [take(1, 1, 0, 1), lose(1, 1, 2), take(1, 2, 3, 4), take(2, 3, 5, 6), give(1, 2, 7, 8)];
    assert_eq!(allowed(&again), [PAIR]);
}

/// A lease so short that it was over before its owner heard of it.
#[test]
fn who_had_it_for_no_time_was_there_between_others() {
    let around = |from, to| {
        let (long, next) = (take(1, 1, 0, 1), take(3, 3, 10, 11));
        let brief = with_token(take(2, 2, from, to), 2);
        [long, give(1, 1, 5, 6), brief, lose(2, 2, from), next]
    };
    assert_eq!(allowed(&around(2, 7)), MODELS);
    assert_eq!(allowed(&around(2, 4)), [PAIR]);
}

#[test]
fn a_search_says_where_it_is_stuck_and_when_it_gives_up() {
    let ops = [take(1, 1, 0, 1), take(2, 2, 2, 3)];
    let Verdict::Impossible(message) = search(MUTEX, &ops, 1_000) else { panic!("two inside") };
    assert!(message.contains("acquires") && message.contains("session"), "{message}");
    assert_eq!(search(MUTEX, &ops, 1), Verdict::Undecided);
}

/// No stack is used up, however long the history is.
#[test]
fn a_long_history_is_searched_on_a_small_stack() {
    let small = std::thread::Builder::new().stack_size(64 * 1024);
    let ops: Vec<ModelOp> = (0..2_000_u64)
        .flat_map(|nth| {
            let at = nth * 10;
            [take(1, nth + 1, at, at + 3), give(1, nth + 1, at + 4, at + 8)]
        })
        .collect();
    let searched = small.spawn(move || search(FENCED, &ops, 1_000_000)).unwrap();
    assert!(matches!(searched.join().unwrap(), Verdict::Linearizable(_)));
}

/// Something that clients may have seen, right or wrong: each takes and gives back in turn, with
/// times and tokens by chance.
fn anything() -> impl Strategy<Value = Vec<ModelOp>> {
    let client = prop::collection::vec((0..4_u64, 0..4_u64, 0..4_u64, 0..3_u64, 0..8_u32), 1..4);
    prop::collection::vec(client, 1..4).prop_map(|clients| {
        let mut ops = Vec::new();
        let mut hold = 0;
        for (who, steps) in (1..).zip(clients) {
            let mut at = 0;
            for (gap, wait, stay, slow, what) in steps {
                hold += 1;
                let from = at + gap;
                let told = from + wait;
                // Mostly tokens that fit the times, sometimes not.
                let token = if what == 0 { hold } else { told * 4 + u64::from(who) };
                let permits = if what == 1 { 2 } else { 1 };
                let mut push = |op: ModelOp| {
                    ops.push(ModelOp { token: Some(token), permits, ..op });
                };
                push(take(who, hold, from, told));
                at = told + stay;
                match what {
                    2 => push(lose(who, hold, from + stay)),
                    3 => {
                        push(take(who, hold, at, at + slow));
                        at += slow + 1;
                        push(give(who, hold, at, at + 1));
                        at += 2;
                        push(give(who, hold, at, at + slow));
                    }
                    4 => {
                        push(take(who, hold, told, told + slow));
                        push(give(who, hold, told, at + 1));
                        push(lose(who, hold, at));
                    }
                    _ => push(give(who, hold, at, at + slow)),
                }
                at += slow;
            }
        }
        ops
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Wherever the fast way decides, it decides as the search does.
    #[test]
    fn fast_is_right(ops in anything()) {
        allowed(&ops);
    }
}

/// The histories above are of both kinds, for each model, and the fast way decides most.
#[test]
fn fast_is_asked_for_good_and_bad() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut counts, mut fast) = ([[0_u32; 2]; 5], 0);
    for _ in 0..500 {
        let ops = anything().new_tree(&mut runner).unwrap().current();
        let allowed = allowed(&ops);
        for (at, model) in MODELS.iter().enumerate() {
            counts[at][usize::from(allowed.contains(model))] += 1;
            fast += usize::from(decide(*model, &ops).is_some());
        }
    }
    for (model, [bad, good]) in MODELS.iter().zip(counts) {
        assert!(bad >= 20 && good >= 20, "{model}: {bad} bad, {good} good");
    }
    assert!(fast > 1_500, "only {fast} of 2,500 were decided fast");
}

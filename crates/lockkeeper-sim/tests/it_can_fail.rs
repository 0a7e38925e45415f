//! A checker that cannot go red is worse than none: each test tampers with what the table did, and
//! shows that the right promise is named.
#![allow(clippy::unwrap_used, reason = "a test")]

use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, CallId, Cancel, CancelTarget, Command, Credential,
    Epoch, Fact, Forgetful, LeaveCause, Ledger, LockId, LockMode, LockTable, OpenSession, Record,
    Reign, Release, ReleaseCause, Reply, Resource, SessionId, Timestamp, Token,
};
use lockkeeper_sim::{Bench, Fences, Inside, Invariant, Model, Rules, Turn};
use std::sync::Arc;

/// A table and its model, side by side, with a hand in between.
struct Pair {
    table: LockTable,
    ledger: Ledger<Forgetful>,
    model: Model,
    now: Timestamp,
}

impl Pair {
    fn new() -> Pair {
        let reign = Reign::first(7);
        let rules = Rules::default();
        Pair {
            table: LockTable::new(rules.table_config(), reign),
            ledger: Ledger::new(Forgetful),
            model: Model::new(rules, Epoch::new(1), 0),
            now: Timestamp(1_000),
        }
    }

    /// An honest turn.
    fn honest(&mut self, command: impl Into<Command>) -> Turn {
        let command = command.into();
        self.now.0 += 1;
        let turn = Turn::of(self.table.apply(self.now, command.clone()), &mut self.ledger);
        self.model.follow(self.now, &command, &turn).unwrap();
        self.model.compare(&self.table).unwrap();
        turn
    }

    /// A turn that is tampered with; the promise that is named.
    fn tampered(
        &mut self,
        command: impl Into<Command>,
        tamper: impl FnOnce(&mut Turn),
    ) -> Invariant {
        let command = command.into();
        self.now.0 += 1;
        let mut turn = Turn::of(self.table.apply(self.now, command.clone()), &mut self.ledger);
        tamper(&mut turn);
        let broken = self.model.follow(self.now, &command, &turn).unwrap_err();
        broken.invariant
    }

    fn agent(&mut self, name: &str) -> SessionId {
        let turn = self.honest(OpenSession { agent: name.into(), ..OpenSession::default() });
        match turn.replies[0].outcome {
            Ok(Answer::SessionOpened { session }) => session,
            ref other => panic!("{other:?}"),
        }
    }

    fn three(&mut self) -> [SessionId; 3] {
        ["agent-a", "agent-b", "agent-c"].map(|name| self.agent(name))
    }

    fn lock(&mut self, session: SessionId, key: &str) -> LockId {
        let turn = self.honest(exclusive(session, key));
        granted(&turn.records)
    }
}

fn ask(session: SessionId, key: &str, mode: LockMode) -> Acquire {
    let resource = Resource::file(key);
    Acquire { session, resource, mode, options: AskOptions::default() }
}

fn exclusive(session: SessionId, key: &str) -> Acquire {
    ask(session, key, LockMode::Exclusive)
}

fn shared(session: SessionId, key: &str) -> Acquire {
    ask(session, key, LockMode::Shared)
}

fn release(session: SessionId, lock: LockId) -> Release {
    Release { by: Credential::Session(session), lock, share: None, request_id: None }
}

fn granted(records: &[Record]) -> LockId {
    let lock = records.iter().find_map(|record| match &record.fact {
        Fact::Granted(granted) => Some(granted.lock),
        _ => None,
    });
    lock.unwrap()
}

fn is_grant(record: &Record) -> bool {
    matches!(record.fact, Fact::Granted(_))
}

fn forget_grants(turn: &mut Turn) {
    turn.records.retain(|record| !is_grant(record));
    turn.replies.retain(|reply| !matches!(reply.outcome, Ok(Answer::Granted(_))));
}

fn edit_grant(turn: &mut Turn, edit: impl FnOnce(&mut lockkeeper_core::Granted)) {
    for record in &mut turn.records {
        if let Fact::Granted(granted) = &mut record.fact {
            return edit(granted);
        }
    }
    panic!("no grant");
}

#[test]
fn a_forgotten_hand_over_is_a_lost_wake_up() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    let lock = pair.lock(a, "x");
    pair.honest(exclusive(b, "x"));
    assert_eq!(pair.tampered(release(a, lock), forget_grants), Invariant::I8);
}

#[test]
fn a_request_that_queues_though_all_is_free_is_a_lost_wake_up() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    assert_eq!(pair.tampered(exclusive(a, "x"), forget_grants), Invariant::I8);
}

#[test]
fn two_holders_are_seen() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    let mut forged = pair.honest(exclusive(a, "x")).records.pop().unwrap();
    let broken = pair.tampered(exclusive(b, "x"), |turn| {
        let Fact::Queued(queued) = &turn.records[0].fact else { panic!() };
        let Fact::Granted(grant) = &mut forged.fact else { panic!() };
        grant.ticket = queued.ticket;
        grant.session = b;
        forged.at = turn.records[0].at;
        turn.records = vec![forged];
    });
    assert_eq!(broken, Invariant::I1);
}

#[test]
fn two_holders_are_counted_without_any_model() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    let first = pair.honest(exclusive(a, "x")).records.pop().unwrap();
    let mut second = first.clone();
    let Fact::Granted(grant) = &mut second.fact else { panic!() };
    grant.session = b;
    grant.lock = LockId::from_u128(1);
    let mut inside = Inside::default();
    inside.see(&[first]).unwrap();
    assert_eq!(inside.exclusive_max, 1);
    assert_eq!(inside.see(&[second]).unwrap_err().invariant, Invariant::I1);
    assert_eq!(inside.exclusive_max, 2);
}

#[test]
fn who_passes_an_earlier_waiter_is_seen() {
    let mut pair = Pair::new();
    let [a, b, c] = pair.three();
    let read = pair.honest(shared(a, "x"));
    pair.honest(exclusive(b, "x"));
    // A reader could stand beside the reader, but a writer waits before it.
    let broken = pair.tampered(shared(c, "x"), |turn| {
        let Fact::Queued(queued) = &turn.records[0].fact else { panic!() };
        let mut forged = read.records[0].clone();
        let Fact::Granted(grant) = &mut forged.fact else { panic!() };
        grant.ticket = queued.ticket;
        grant.session = c;
        forged.at = turn.records[0].at;
        turn.records = vec![forged];
    });
    assert_eq!(broken, Invariant::I9);
}

#[test]
fn a_token_that_goes_back_is_seen() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    let lock = pair.lock(a, "x");
    pair.honest(exclusive(b, "x"));
    let broken = pair.tampered(release(a, lock), |turn| {
        edit_grant(turn, |grant| grant.token = Token::new(Epoch::new(1), 1));
    });
    assert_eq!(broken, Invariant::I2);
}

#[test]
fn readers_of_one_phase_must_share_their_token() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    pair.honest(shared(a, "x"));
    let broken = pair.tampered(shared(b, "x"), |turn| {
        edit_grant(turn, |grant| grant.token = Token::new(Epoch::new(1), 2));
    });
    assert_eq!(broken, Invariant::I2);
}

/// Two agents, each with what the other wants; the last request is given back.
fn two_in_a_circle(pair: &mut Pair) -> Acquire {
    let [a, b, _] = pair.three();
    pair.lock(a, "x");
    pair.lock(b, "y");
    pair.honest(exclusive(a, "y"));
    exclusive(b, "x")
}

#[test]
fn the_wrong_victim_is_seen() {
    let mut pair = Pair::new();
    let closing = two_in_a_circle(&mut pair);
    let broken = pair.tampered(closing, |turn| {
        for record in &mut turn.records {
            if let Fact::DeadlockFound(report) = &mut record.fact {
                let mut others = report.participants.iter().map(|one| one.rank.session);
                let other = others.rfind(|one| *one != report.victim).unwrap();
                Arc::make_mut(report).victim = other;
            }
        }
    });
    assert_eq!(broken, Invariant::I7);
}

#[test]
fn a_deadlock_that_is_none_is_seen() {
    let mut pair = Pair::new();
    let closing = two_in_a_circle(&mut pair);
    let turn = pair.honest(closing);
    let found = |record: &&Record| matches!(record.fact, Fact::DeadlockFound(_));
    let mut invented = turn.records.iter().find(found).unwrap().clone();
    let c = pair.agent("agent-d");
    let broken = pair.tampered(exclusive(c, "z"), |turn| {
        invented.at = turn.records[0].at;
        turn.records.push(invented);
    });
    assert_eq!(broken, Invariant::I7);
}

#[test]
fn an_edge_that_is_none_is_seen() {
    let mut pair = Pair::new();
    let closing = two_in_a_circle(&mut pair);
    let broken = pair.tampered(closing, |turn| {
        for record in &mut turn.records {
            if let Fact::DeadlockFound(report) = &mut record.fact {
                Arc::make_mut(report).participants[1].resource = Some(Resource::file("z"));
            }
        }
    });
    assert_eq!(broken, Invariant::I7);
}

#[test]
fn a_deadlock_that_nobody_reports_is_seen() {
    let mut pair = Pair::new();
    let closing = two_in_a_circle(&mut pair);
    let broken = pair.tampered(closing, |turn| {
        turn.records.retain(|record| matches!(record.fact, Fact::Queued(_)));
        turn.replies.clear();
        turn.events.clear();
    });
    assert_eq!(broken, Invariant::I6);
}

#[test]
fn a_victim_that_keeps_what_others_wait_for_is_seen() {
    let mut pair = Pair::new();
    let closing = two_in_a_circle(&mut pair);
    let broken = pair.tampered(closing, |turn| {
        turn.records.retain(|record| !matches!(record.fact, Fact::Released { .. }));
        turn.records.retain(|record| !is_grant(record));
    });
    assert_eq!(broken, Invariant::I7);
}

#[test]
fn a_lease_that_ends_early_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    let lock = pair.lock(a, "x");
    let broken = pair.tampered(Command::Tick, |turn| {
        let cause = ReleaseCause::Expired;
        let fact = Fact::Released { lock, remaining: 0, cause, share: None, request_id: None };
        turn.records.push(Record { at: Timestamp(1_005), fact });
    });
    assert_eq!(broken, Invariant::I14);
}

#[test]
fn a_lease_that_never_ends_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    pair.lock(a, "x");
    pair.now.0 += 300_000;
    let broken = pair.tampered(Command::Tick, |turn| turn.records.clear());
    assert_eq!(broken, Invariant::I14);
}

#[test]
fn half_a_batch_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    let wants = ["x", "y"].map(|key| (Resource::file(key), LockMode::Exclusive)).to_vec();
    let batch = AcquireAll { session: a, wants, options: AskOptions::default() };
    let broken = pair.tampered(batch, |turn| _ = turn.records.pop());
    assert_eq!(broken, Invariant::I11);
}

#[test]
fn a_hold_that_ends_twice_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    let lock = pair.lock(a, "x");
    let broken = pair.tampered(release(a, lock), |turn| {
        let again = turn.records[0].clone();
        turn.records.push(again);
    });
    assert_eq!(broken, Invariant::I12);
}

#[test]
fn a_cancelled_wait_that_stays_is_seen() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    pair.lock(a, "x");
    let turn = pair.honest(exclusive(b, "x"));
    let Fact::Queued(queued) = &turn.records[0].fact else { panic!() };
    let cancel = Cancel { session: b, target: CancelTarget::Ticket(queued.ticket) };
    let broken = pair.tampered(cancel, |turn| turn.records.clear());
    assert_eq!(broken, Invariant::I13);
}

#[test]
fn a_wait_that_nobody_ended_is_seen() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    pair.lock(a, "x");
    let turn = pair.honest(exclusive(b, "x"));
    let Fact::Queued(queued) = turn.records[0].fact.clone() else { panic!() };
    let broken = pair.tampered(Command::Tick, |turn| {
        let cause = LeaveCause::Cancelled;
        let fact = Fact::Left { ticket: queued.ticket, session: b, cause };
        turn.records.push(Record { at: Timestamp(1_006), fact });
    });
    assert_eq!(broken, Invariant::I13);
}

#[test]
fn a_call_without_an_answer_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    let broken = pair.tampered(exclusive(a, "x"), |turn| turn.replies.clear());
    assert_eq!(broken, Invariant::I10);
}

#[test]
fn an_answer_to_a_call_that_should_wait_is_seen() {
    let mut pair = Pair::new();
    let [a, b, _] = pair.three();
    pair.lock(a, "x");
    let broken = pair.tampered(exclusive(b, "x"), |turn| {
        turn.replies.push(Reply { call: turn.call, outcome: Ok(Answer::Ticked) });
    });
    assert_eq!(broken, Invariant::I10);
}

#[test]
fn a_wrong_refusal_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    pair.lock(a, "x");
    let broken = pair.tampered(exclusive(a, "x"), |turn| {
        turn.replies[0].outcome = Err(lockkeeper_core::Refusal::EmptyBatch);
    });
    assert_eq!(broken, Invariant::I20);
}

#[test]
fn news_with_a_gap_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    let broken = pair.tampered(exclusive(a, "x"), |turn| turn.events.clear());
    assert_eq!(broken, Invariant::I20);
}

#[test]
fn a_table_that_knows_something_else_is_seen() {
    let mut pair = Pair::new();
    let [a, ..] = pair.three();
    let before = pair.model.clone();
    pair.lock(a, "x");
    assert_eq!(before.compare(&pair.table).unwrap_err().invariant, Invariant::I15);
}

fn bench_with_a_hold() -> (Bench, LockId) {
    let mut bench = Bench::new(Rules::default(), 7, true);
    let open = OpenSession { agent: "agent-a".into(), ..OpenSession::default() };
    let turn = bench.apply(Timestamp(1), &open.into()).unwrap();
    let Ok(Answer::SessionOpened { session }) = turn.replies[0].outcome else { panic!() };
    let turn = bench.apply(Timestamp(2), &exclusive(session, "x").into()).unwrap();
    (bench, granted(&turn.records))
}

#[test]
fn a_journal_that_lost_a_fact_is_seen() {
    let (mut bench, _) = bench_with_a_hold();
    bench.crash(Timestamp(2_000), false).unwrap();
    bench.journal.pop();
    assert_eq!(bench.crash(Timestamp(2_000), false).unwrap_err().invariant, Invariant::I15);
}

#[test]
fn a_call_that_is_never_answered_is_seen() {
    let (mut bench, _) = bench_with_a_hold();
    bench.open_calls.insert(CallId(99));
    let later = Timestamp(400_000);
    bench.apply(later, &Command::Tick).unwrap();
    assert_eq!(bench.check_empty(true).unwrap_err().invariant, Invariant::I10);
}

#[test]
fn what_is_left_over_is_seen() {
    let (bench, _) = bench_with_a_hold();
    assert_eq!(bench.check_empty(true).unwrap_err().invariant, Invariant::I18);
}

#[test]
fn a_stale_writer_whom_the_fence_lets_in_is_seen() {
    let (bench, lock) = bench_with_a_hold();
    let holder = bench.table.grant(lock).unwrap();
    let mut fences = Fences::default();
    fences.touch(&holder, &bench.inside).unwrap();
    // An outdated token bounces.
    let mut stale = holder.clone();
    stale.lock = LockId::from_u128(1);
    stale.token = Token::from_u64(1);
    fences.touch(&stale, &bench.inside).unwrap();
    assert_eq!((fences.accepted, fences.rejected), (1, 1));
    // A token that was never outdated, in the hand of one who holds nothing, does not.
    stale.token = Token::from_u64(holder.token.get() + 1);
    assert_eq!(fences.touch(&stale, &bench.inside).unwrap_err().invariant, Invariant::I4);
    // And now the real holder is locked out.
    assert_eq!(fences.touch(&holder, &bench.inside).unwrap_err().invariant, Invariant::I3);
}

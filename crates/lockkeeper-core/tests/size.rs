//! What must work when there is very much of it: long chains on small stacks (I19), large sessions,
//! and nothing left behind afterwards (I18).

use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, Cancel, CancelTarget, Command, DeclareCapacity,
    DeclareWait, EndCause, EndSession, Forgetful, Ledger, LockMode, LockTable, OpenSession,
    Refusal, Reign, RequestId, Resource, SessionId, Settled, Stats, TableConfig, Timestamp,
};
use std::thread;

const SMALL_STACK: usize = 2 * 1024 * 1024;
const DEEP: usize = 100_000;

struct World {
    table: LockTable,
    ledger: Ledger<Forgetful>,
}

impl World {
    fn stats(&self) -> Stats {
        self.table.stats()
    }
}

fn table() -> World {
    table_with(TableConfig::default())
}

fn table_with(config: TableConfig) -> World {
    World { table: LockTable::new(config, Reign::first(3)), ledger: Ledger::new(Forgetful) }
}

fn turn(table: &mut World, command: impl Into<Command>) -> Settled {
    let effects = table.table.apply(Timestamp(1), command);
    effects.settle(&mut table.ledger).expect("settled in order")
}

fn open(table: &mut World) -> SessionId {
    let settled = turn(table, OpenSession { agent: "a".into(), ..Default::default() });
    match settled.replies()[0].outcome {
        Ok(Answer::SessionOpened { session }) => session,
        ref other => panic!("{other:?}"),
    }
}

fn ask(table: &mut World, session: SessionId, key: usize, mode: LockMode) -> Settled {
    let resource = Resource::file(&key.to_string());
    turn(table, Acquire { session, resource, mode, options: AskOptions::default() })
}

/// Whether the call of this very turn was granted.
fn is_granted(settled: &Settled) -> bool {
    matches!(settled.replies().last().map(|reply| &reply.outcome), Some(Ok(Answer::Granted(_))))
}

fn end(table: &mut World, session: SessionId) -> Settled {
    turn(table, EndSession { session, cause: EndCause::Closed })
}

fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(SMALL_STACK).spawn(work);
    thread.expect("a thread").join().expect("no overflow, no panic");
}

#[test]
fn a_chain_of_a_hundred_thousand_closes_on_a_small_stack() {
    on_a_small_stack(|| {
        let mut table = table();
        let sessions: Vec<SessionId> = (0..DEEP).map(|_| open(&mut table)).collect();
        for (key, &session) in sessions.iter().enumerate() {
            assert!(is_granted(&ask(&mut table, session, key, LockMode::Exclusive)));
        }
        for (key, &session) in sessions[..DEEP - 1].iter().enumerate() {
            assert!(ask(&mut table, session, key + 1, LockMode::Exclusive).replies().is_empty());
        }
        assert_eq!(table.stats().graph_edges, DEEP - 1);
        // The last one closes the ring, loses, and the one before it gets what it waited for.
        let settled = ask(&mut table, sessions[DEEP - 1], 0, LockMode::Exclusive);
        let Some(Err(Refusal::Deadlock(report))) =
            settled.replies().first().map(|reply| &reply.outcome)
        else {
            panic!("{:?}", settled.replies());
        };
        assert_eq!(report.participants.len(), DEEP);
        assert_eq!(report.victim, sessions[DEEP - 1]);
        assert_eq!(settled.replies().len(), 2);
        assert!(report.to_string().len() > DEEP, "and it can be told");
        for &session in &sessions {
            let _ = end(&mut table, session);
        }
        assert_eq!(table.stats(), Stats::default());
    });
}

#[test]
fn a_chain_through_permits_is_reduced_on_a_small_stack() {
    on_a_small_stack(|| {
        // Everybody holds the only slot of one resource and waits for the next one's: only
        // reduction can tell, and it has to walk the whole chain.
        let length = 20_000;
        let mut config = TableConfig::default();
        config.limits.capacities_max = length;
        let mut table = table_with(config);
        let sessions: Vec<SessionId> = (0..length).map(|_| open(&mut table)).collect();
        for (key, &session) in sessions.iter().enumerate() {
            let resource = Resource::file(&key.to_string());
            let _ = turn(&mut table, DeclareCapacity { resource, capacity: Some(1) });
            assert!(is_granted(&ask(&mut table, session, key, LockMode::Permit(1))));
        }
        for (key, &session) in sessions[..length - 1].iter().enumerate() {
            let settled = ask(&mut table, session, key + 1, LockMode::Permit(1));
            assert!(settled.replies().is_empty());
        }
        let settled = ask(&mut table, sessions[length - 1], 0, LockMode::Permit(1));
        let Some(Err(Refusal::Deadlock(report))) =
            settled.replies().first().map(|reply| &reply.outcome)
        else {
            panic!("{:?}", settled.replies());
        };
        assert!(report.reduced);
        assert_eq!(report.participants.len(), length);
    });
}

#[test]
fn a_chain_of_declared_waits_closes_on_a_small_stack() {
    on_a_small_stack(|| {
        let mut table = table();
        let sessions: Vec<SessionId> = (0..DEEP).map(|_| open(&mut table)).collect();
        for pair in sessions.windows(2) {
            let _ = turn(&mut table, DeclareWait { session: pair[0], on: pair[1] });
        }
        let (first, last) = (sessions[0], sessions[DEEP - 1]);
        let settled = turn(&mut table, DeclareWait { session: last, on: first });
        assert!(matches!(settled.replies()[0].outcome, Err(Refusal::Deadlock(_))));
        assert_eq!(table.stats().declared_waits, DEEP - 1);
    });
}

#[test]
fn a_session_with_ten_thousand_holds_ends_in_one_turn() {
    let mut table = table();
    let big = open(&mut table);
    for key in 0..10_000 {
        assert!(is_granted(&ask(&mut table, big, key, LockMode::Exclusive)));
    }
    let waiter = open(&mut table);
    for key in 0..1_000 {
        assert!(ask(&mut table, waiter, key, LockMode::Exclusive).replies().is_empty());
    }
    let settled = end(&mut table, big);
    let granted = settled
        .replies()
        .iter()
        .filter(|reply| matches!(&reply.outcome, Ok(Answer::Granted(grants)) if grants.len() == 1));
    assert_eq!(granted.count(), 1_000);
    assert!(
        settled.replies().iter().any(|reply| {
            reply.outcome == Ok(Answer::SessionEnded { released: 10_000, left: 0 })
        })
    );
    assert_eq!(table.stats().holds, 1_000);
}

#[test]
fn ten_thousand_readers_and_their_cancels_leave_nothing_behind() {
    let mut table = table();
    let writer = open(&mut table);
    assert!(is_granted(&ask(&mut table, writer, 0, LockMode::Exclusive)));
    let readers: Vec<SessionId> = (0..10_000).map(|_| open(&mut table)).collect();
    for (at, &session) in readers.iter().enumerate() {
        let options =
            AskOptions { request_id: Some(RequestId::new(at as u128)), ..Default::default() };
        let (resource, mode) = (Resource::file("0"), LockMode::Shared);
        let settled = turn(&mut table, Acquire { session, resource, mode, options });
        assert!(settled.replies().is_empty());
    }
    // One edge each: the graph is linear in the queue.
    assert_eq!(table.stats().graph_edges, 10_000);
    for (at, &session) in readers.iter().enumerate().filter(|(at, _)| at % 2 == 0) {
        let target = CancelTarget::Request(RequestId::new(at as u128));
        let settled = turn(&mut table, Cancel { session, target });
        assert_eq!(settled.replies().len(), 2, "the canceller and the cancelled call");
    }
    let settled = end(&mut table, writer);
    let entered =
        settled.replies().iter().filter(|reply| matches!(reply.outcome, Ok(Answer::Granted(_))));
    assert_eq!(entered.count(), 5_000, "all who stand together enter together");
    for &session in &readers {
        let _ = end(&mut table, session);
    }
    assert_eq!(table.stats(), Stats::default());
}

#[test]
fn a_queue_of_batches_stays_linear() {
    let mut table = table();
    let holder = open(&mut table);
    assert!(is_granted(&ask(&mut table, holder, 0, LockMode::Exclusive)));
    for _ in 0..200 {
        let session = open(&mut table);
        let wants = (0..50).map(|key| (Resource::file(&key.to_string()), LockMode::Exclusive));
        let options = AskOptions::default();
        let settled = turn(&mut table, AcquireAll { session, wants: wants.collect(), options });
        assert!(settled.replies().is_empty());
    }
    // The first batch waits for the holder once, each other one for the batch before it, per key.
    assert_eq!(table.stats().graph_edges, 1 + 199 * 50);
}

#[test]
fn updaters_and_writers_behind_many_readers_stay_linear() {
    let mut table = table();
    let readers = 1_000;
    for _ in 0..readers {
        let session = open(&mut table);
        assert!(is_granted(&ask(&mut table, session, 0, LockMode::Shared)));
    }
    let updater = open(&mut table);
    assert!(is_granted(&ask(&mut table, updater, 0, LockMode::Update)));
    let waiters = 1_000;
    for at in 0..waiters {
        let session = open(&mut table);
        let mode = if at % 2 == 0 { LockMode::Exclusive } else { LockMode::Update };
        assert!(ask(&mut table, session, 0, mode).replies().is_empty());
    }
    let edges = table.stats().graph_edges;
    assert!(edges <= readers + 2 * waiters + 1, "{edges} edges");
}

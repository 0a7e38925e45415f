//! What the report of a deadlock says it is about: the resource of the request that closed it, also
//! where that request asked for more than one, or is over by the time of the verdict.

use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, Command, DeadlockReport, DeclareWait, EdgeKind, Epoch,
    Forgetful, Ledger, Lineage, LockId, LockMode, LockTable, News, OpenSession, Reign, Resource,
    SessionId, TableConfig, TicketId, Timestamp, Upgrade,
};
use std::sync::Arc;

struct World(LockTable, Ledger<Forgetful>);

impl World {
    fn new() -> World {
        World(LockTable::new(TableConfig::default(), Reign::first(11)), Ledger::new(Forgetful))
    }

    /// The deadlocks that a command closed, in the order of the verdicts, and its own answer.
    fn ask(&mut self, command: impl Into<Command>) -> (Vec<Arc<DeadlockReport>>, Option<Answer>) {
        let turn = self.0.apply(Timestamp(0), command.into());
        let call = turn.call();
        let (replies, events) = turn.settle(&mut self.1).expect("in order").into_parts();
        let reports = events.into_iter().filter_map(|event| match event.news {
            News::Deadlock { report } => Some(report),
            _ => None,
        });
        let own = replies.into_iter().find(|reply| reply.call == call);
        (reports.collect(), own.and_then(|reply| reply.outcome.ok()))
    }

    fn open(&mut self, agent: &str, priority: i8, aborts: u32) -> SessionId {
        // Younger than any ticket to come.
        let birth = TicketId::new(Epoch::new(1), 999);
        let lineage = (aborts > 0).then_some(Lineage { birth, aborts });
        let open = OpenSession { agent: agent.into(), priority, lineage, ..OpenSession::default() };
        match self.ask(open).1 {
            Some(Answer::SessionOpened { session }) => session,
            other => panic!("{other:?}"),
        }
    }

    fn acquire(&mut self, session: SessionId, key: &str, mode: LockMode) -> Option<LockId> {
        let (resource, options) = (Resource::file(key), AskOptions::default());
        match self.ask(Acquire { session, resource, mode, options }).1 {
            Some(Answer::Granted(grants)) => Some(grants[0].lock),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn batch(
        &mut self,
        session: SessionId,
        wants: &[(&str, LockMode)],
    ) -> Vec<Arc<DeadlockReport>> {
        let wants = wants.iter().map(|&(key, mode)| (Resource::file(key), mode)).collect();
        self.ask(AcquireAll { session, wants, options: AskOptions::default() }).0
    }
}

#[test]
fn of_a_batch_it_is_the_member_that_closed_the_cycle() {
    let mut world = World::new();
    let (ann, bob) = (world.open("ann", 0, 0), world.open("bob", 0, 0));
    world.acquire(ann, "m", LockMode::Exclusive).expect("free");
    world.acquire(bob, "z", LockMode::Exclusive).expect("free");
    assert_eq!(world.acquire(bob, "m", LockMode::Exclusive), None);
    let wants = ["a", "b", "z"].map(|key| (key, LockMode::Exclusive));
    let reports = world.batch(ann, &wants);
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(report.requester, ann);
    assert_eq!(report.resource, Some(Resource::file("z")), "a and b are free");
}

/// A verdict may let in the very request that closed the cycle, while its session stays on another
/// one. Then that cycle is about the first resource on it, and no longer about the request.
#[test]
fn of_a_request_that_is_let_in_it_is_the_first_one_on_the_cycle() {
    let mut world = World::new();
    let cy = world.open("cy", 0, 2);
    let dan = world.open("dan", 5, 0);
    let (bob, zoe) = (world.open("bob", 0, 0), world.open("zoe", 0, 0));
    let held = world.acquire(bob, "a", LockMode::Shared).expect("free");
    world.ask(DeclareWait { session: bob, on: cy });
    world.acquire(cy, "a", LockMode::Shared).expect("shared");
    world.acquire(zoe, "b", LockMode::Exclusive).expect("free");
    let wants = ["b", "c", "a"].map(|key| (key, LockMode::Update));
    assert!(world.batch(dan, &wants).is_empty());
    assert_eq!(world.acquire(cy, "c", LockMode::Exclusive), None);
    assert_eq!(world.acquire(cy, "b", LockMode::Exclusive), None);
    let upgrade = Upgrade { session: bob, lock: held, options: AskOptions::default() };
    let (reports, _) = world.ask(upgrade);
    let [first, second] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((first.victim, second.victim), (cy, bob));
    assert_eq!(first.resource, Some(Resource::file("a")), "what bob asked for");
    assert_eq!(second.participants[0].edge, EdgeKind::Declared);
    assert_eq!(second.resource, Some(Resource::file("b")), "where cy still waits");
}

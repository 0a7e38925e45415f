//! What a table shows of itself.

use lockkeeper_core::{
    Acquire, AskOptions, ClaimTasks, EdgeKind, Forgetful, LeaseCounts, Ledger, LockMode, LockTable,
    OpenSession, Reign, Resource, SessionId, TableConfig, TaskClaim, TaskStatus, Timestamp,
};
use std::time::Duration;

struct World(LockTable, Ledger<Forgetful>);

impl World {
    fn new(agents: u32) -> (World, Vec<SessionId>) {
        let table = LockTable::new(TableConfig::default(), Reign::first(2));
        let mut world = World(table, Ledger::new(Forgetful));
        for agent in 0..agents {
            let agent = format!("agent-{agent}").into();
            let open = OpenSession { agent, ..OpenSession::default() };
            let _ = world.0.apply(Timestamp(0), open).settle(&mut world.1).expect("in order");
        }
        let sessions = world.0.sessions().iter().map(|session| session.session).collect();
        (world, sessions)
    }

    fn ask(&mut self, at: u64, session: SessionId, key: &str, mode: LockMode, lease: u64) {
        let options = AskOptions {
            lease: Some(Duration::from_secs(lease)),
            reason: Some("views".into()),
            metadata: Some("{}".into()),
            ..AskOptions::default()
        };
        let ask = Acquire { session, resource: Resource::file(key), mode, options };
        let _ = self.0.apply(Timestamp(at), ask).settle(&mut self.1).expect("in order");
    }
}

#[test]
fn who_holds_and_who_waits() {
    let (mut world, agents) = World::new(3);
    let file = Resource::file("a");
    assert_eq!(world.0.inspect(&file), None);
    world.ask(10, agents[0], "a", LockMode::Shared, 60);
    world.ask(20, agents[1], "a", LockMode::Shared, 60);
    world.ask(30, agents[2], "a", LockMode::Exclusive, 60);
    let seen = world.0.inspect(&file).expect("in use");
    let holders: Vec<&str> = seen.holders.iter().map(|holder| &*holder.agent).collect();
    assert_eq!((holders, seen.queue.len()), (vec!["agent-0", "agent-1"], 1));
    assert_eq!(&*seen.queue[0].agent, "agent-2");
    let owner = world.0.owner(&file).expect("held");
    assert_eq!((owner.reason.as_deref(), owner.metadata.as_deref()), (Some("views"), Some("{}")));
    assert_eq!(world.0.list().len(), 2);
    let waits: Vec<String> =
        world.0.queue(&file).iter().map(|waiter| waiter.agent.to_string()).collect();
    assert_eq!(waits, ["agent-2"]);
    assert_eq!(world.0.resources(), [file]);
    assert_eq!(world.0.agent_of(agents[1]).as_deref(), Some("agent-1"));
    assert_eq!(world.0.agent_of(SessionId::from_u64(99)), None);
    let stats = world.0.stats();
    assert_eq!((stats.graph_nodes, stats.graph_edges), (3, 2));
    let contention = world.0.contention(Timestamp(1_030));
    assert_eq!((contention[0].waiting, contention[0].longest_wait_ms), (1, 1_000));
    let graph = world.0.wait_graph();
    assert_eq!((graph.nodes.len(), graph.edges.len()), (3, 2));
    assert!(graph.edges.iter().all(|edge| edge.kind == EdgeKind::Hard));
}

#[test]
fn how_the_leases_stand() {
    let (mut world, agents) = World::new(1);
    world.ask(0, agents[0], "a", LockMode::Exclusive, 10);
    world.ask(0, agents[0], "b", LockMode::Exclusive, 20);
    world.ask(5_000, agents[0], "c", LockMode::Exclusive, 300);
    let counts = |at: u64| {
        let (soon, long) = (Duration::from_secs(5), Duration::from_secs(12));
        world.0.lease_counts(Timestamp(at), soon, long)
    };
    let standing =
        |near_expiry, expired, stale| LeaseCounts { held: 3, near_expiry, expired, stale };
    assert_eq!(counts(4_999), standing(0, 0, 0));
    assert_eq!(counts(5_000), standing(1, 0, 0));
    assert_eq!(counts(9_999), standing(1, 0, 0));
    assert_eq!(counts(10_000), standing(0, 1, 0));
    assert_eq!(counts(16_000), standing(1, 1, 2));
    let near = world.0.near_expiry(Timestamp(5_000), Duration::from_secs(5));
    assert_eq!(near.len(), 1);
    assert_eq!(world.0.stale(Timestamp(12_000), Duration::from_secs(12)).len(), 2);
}

#[test]
fn how_the_tasks_stand() {
    let (mut world, agents) = World::new(1);
    let task = Resource::task("t");
    assert_eq!(world.0.task(&task), None);
    let claims = vec![TaskClaim { task: task.clone(), expect_version: None }];
    let claim = ClaimTasks { session: agents[0], claims, options: AskOptions::default() };
    let _ = world.0.apply(Timestamp(0), claim).settle(&mut world.1).expect("in order");
    let seen = world.0.task(&task).expect("claimed");
    assert_eq!((seen.resource, seen.status), (task, TaskStatus::Claimed));
    assert_eq!(world.0.tasks().len(), 1);
}

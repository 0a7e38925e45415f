//! Agents under an orchestrator: however they end, their locks are free.

use crate::{
    place::Place,
    support::{Bench, DEMO, both, file, until, yields},
};
use kameo::{
    Actor,
    actor::ActorRef,
    error::Infallible,
    message::{Context, Message},
};
use lockkeeper::{
    AgentContext, AgentHandle, AuditFilter, LockGuard, Orchestrator, RestartAgent, SessionId,
};

/// An agent that does what it is told.
pub struct Puppet {
    pub context: AgentContext,
    held: Vec<LockGuard>,
}

impl Puppet {
    pub fn new(context: AgentContext) -> Puppet {
        Puppet { context, held: Vec::new() }
    }
}

impl Actor for Puppet {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(puppet: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(puppet)
    }
}

/// Takes so many locks and keeps them.
pub struct Hold(pub usize);
/// Panics; with an argument, while it holds one lock more in a local variable.
pub struct Fall(pub bool);
/// Returns.
pub struct Leave;
/// Waits for a lock for as long as it takes.
pub struct Want(pub &'static str);
/// Which life it is in, and which session.
pub struct Who;

impl Message<Hold> for Puppet {
    type Reply = usize;

    async fn handle(&mut self, hold: Hold, _: &mut Context<Self, usize>) -> usize {
        for n in 0..hold.0 {
            let name = format!("{}/{n}", self.context.name());
            self.held.push(self.context.session().acquire(file(&name)).await.unwrap());
        }
        self.held.iter().filter(|guard| guard.is_valid()).count()
    }
}

impl Message<Fall> for Puppet {
    type Reply = ();

    async fn handle(&mut self, fall: Fall, _: &mut Context<Self, ()>) {
        let mut local = None;
        if fall.0 {
            local = self.context.session().acquire(file("local")).await.ok();
        }
        let _held = local;
        std::panic::resume_unwind(Box::new("as ordered"));
    }
}

impl Message<Leave> for Puppet {
    type Reply = ();

    async fn handle(&mut self, _: Leave, ctx: &mut Context<Self, ()>) {
        ctx.stop();
    }
}

impl Message<Want> for Puppet {
    type Reply = bool;

    async fn handle(&mut self, want: Want, _: &mut Context<Self, bool>) -> bool {
        match self.context.session().acquire(file(want.0)).await {
            Ok(guard) => {
                self.held.push(guard);
                true
            }
            Err(_) => false,
        }
    }
}

impl Message<Who> for Puppet {
    type Reply = (u32, SessionId);

    async fn handle(&mut self, _: Who, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        (self.context.life(), self.context.session().id())
    }
}

/// However an agent can end.
#[derive(Clone, Copy, Debug)]
enum End {
    Panics,
    PanicsWithALock,
    Returns,
    IsStopped,
    IsKilled,
    IsKilledWhileItWaits,
}

const ENDS: [End; 6] = [
    End::Panics,
    End::PanicsWithALock,
    End::Returns,
    End::IsStopped,
    End::IsKilled,
    End::IsKilledWhileItWaits,
];

async fn end(agent: &AgentHandle<Puppet>, how: End) {
    let actor = agent.actor_ref();
    match how {
        End::Panics => actor.tell(Fall(false)).await.unwrap(),
        End::PanicsWithALock => actor.tell(Fall(true)).await.unwrap(),
        End::Returns => actor.tell(Leave).await.unwrap(),
        End::IsStopped => actor.stop_gracefully().await.unwrap(),
        End::IsKilled => actor.kill(),
        End::IsKilledWhileItWaits => {
            actor.tell(Want("taken")).await.unwrap();
            yields(50).await;
            actor.kill();
        }
    }
}

both!(threads: a_hundred_locks_each, a_dead_agent_takes_nobody_along, release_all_of_an_agent);

/// I13, I18: with a hundred locks each, and with a place in a queue.
async fn a_hundred_locks_each(bench: Bench) {
    let orchestrator = Orchestrator::over(bench.manager.clone());
    let other = bench.session("other").await;
    let taken = other.acquire(file("taken")).await.unwrap();
    let demo = bench.demo().await;
    for how in ENDS {
        let name = format!("{how:?}");
        let agent = orchestrator.spawn_agent(DEMO, &name, Puppet::new).await.unwrap();
        assert_eq!((agent.name(), agent.project()), (&*name, DEMO));
        assert_eq!(agent.actor_ref().ask(Hold(100)).await.unwrap(), 100);
        assert_eq!(bench.stats().await.holds, 101);
        end(&agent, how).await;
        agent.finished().await;
        until("its locks are free", async || bench.stats().await.holds == 1).await;
        let stats = bench.stats().await;
        assert_eq!((stats.sessions, stats.tickets), (1, 0), "{how:?}");
        let next = (0..100).map(|n| file(&format!("{name}/{n}")));
        drop(other.acquire_all(next).no_wait().await.unwrap());
        if bench.is_on_file() {
            let event_type = Some("session_ended".to_owned());
            let filter = AuditFilter { agent: Some(name), event_type, ..AuditFilter::default() };
            let rows = demo.audit(filter).await.unwrap();
            let cause = match how {
                End::Returns | End::IsStopped => "closed",
                _ => "owner_died",
            };
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].details["session_ended"]["cause"], cause, "{how:?}");
        }
    }
    assert!(taken.is_valid());
    drop((taken, other));
    bench.at_rest().await;
    orchestrator.shutdown().await;
}

/// Neither the lock actor nor the orchestrator nor other agents die with an agent, also if it is
/// linked with them.
async fn a_dead_agent_takes_nobody_along(bench: Bench) {
    let orchestrator = Orchestrator::over(bench.manager.clone());
    let survivor = orchestrator.spawn_agent(DEMO, "survivor", Puppet::new).await.unwrap();
    assert_eq!(survivor.actor_ref().ask(Hold(3)).await.unwrap(), 3);
    let lock_actor = bench.actor().await;
    for how in ENDS {
        let agent = orchestrator.spawn_agent(DEMO, "victim", Puppet::new).await.unwrap();
        agent.actor_ref().link(&lock_actor).await;
        end(&agent, how).await;
        agent.finished().await;
    }
    assert_eq!(survivor.actor_ref().ask(Hold(0)).await.unwrap(), 3, "a restart would show");
    assert!(lock_actor.is_alive());
    assert_eq!(bench.stats().await.holds, 3);
    let another = orchestrator.spawn_agent(DEMO, "another", Puppet::new).await.unwrap();
    assert_eq!(another.actor_ref().ask(Hold(1)).await.unwrap(), 1);
    orchestrator.shutdown().await;
}

async fn release_all_of_an_agent(bench: Bench) {
    let orchestrator = Orchestrator::over(bench.manager.clone());
    let one = orchestrator.spawn_agent(DEMO, "one", Puppet::new).await.unwrap();
    let two = orchestrator.spawn_agent(DEMO, "two", Puppet::new).priority(3).await.unwrap();
    one.actor_ref().ask(Hold(10)).await.unwrap();
    two.actor_ref().ask(Hold(5)).await.unwrap();
    assert_eq!(orchestrator.release_all(DEMO, "one").await.unwrap(), 10);
    // At once in this process; from a daemon the news come beside the answer.
    let heard = async || one.actor_ref().ask(Hold(0)).await.unwrap() == 0;
    match Place::IS_FAR {
        false => assert!(heard().await, "its guards did not hear of it"),
        true => until("its guards have heard of it", heard).await,
    }
    assert_eq!(two.actor_ref().ask(Hold(0)).await.unwrap(), 5);
    let sessions = bench.demo().await.sessions().await.unwrap();
    assert_eq!(sessions.iter().map(|one| one.priority).collect::<Vec<_>>(), [0, 3]);
    orchestrator.shutdown().await;
}

/// The last life's session ends with it; the handle still knows its actor.
#[tokio::test]
async fn a_restarted_agent_is_a_new_session() {
    let bench = Bench::file().await;
    let orchestrator = Orchestrator::over(bench.manager.clone());
    let restart = RestartAgent::OnFailure { at_most: 5, pause: std::time::Duration::ZERO };
    let agent = orchestrator.spawn_agent(DEMO, "a", Puppet::new).restart(restart).await.unwrap();
    let mut seen = Vec::new();
    for life in 1..=4 {
        until("it lives", async || agent.actor_ref().is_alive()).await;
        let (count, session) = agent.actor_ref().ask(Who).await.unwrap();
        assert_eq!(count, life);
        assert!(!seen.contains(&session), "an old session");
        seen.push(session);
        agent.actor_ref().ask(Hold(2)).await.unwrap();
        assert_eq!(bench.stats().await.holds, 2, "of its earlier life");
        let old = agent.actor_ref().id();
        agent.actor_ref().tell(Fall(false)).await.unwrap();
        until("the next life", async || agent.actor_ref().id() != old).await;
    }
    agent.actor_ref().stop_gracefully().await.unwrap();
    agent.finished().await;
    until("its session ended", async || bench.stats().await.sessions == 0).await;
    drop(orchestrator.shutdown().await);
}

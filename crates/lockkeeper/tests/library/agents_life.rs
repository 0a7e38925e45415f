//! When agents are started again, and how an orchestrator ends.

use crate::{
    agents::{Fall, Hold, Leave, Puppet, Who},
    support::{Bench, DEMO, file, millis, poll_once, secs, until, yields},
};
use kameo::{
    Actor,
    message::{Context, Message},
};
use lockkeeper::{
    AgentContext, AgentHandle, Config, LockManager, Orchestrator, RestartAgent, SessionError,
    Unavailable,
};
use std::pin::pin;

async fn life(agent: &AgentHandle<Puppet>) -> Option<u32> {
    let actor = agent.actor_ref();
    if !actor.is_alive() {
        return None;
    }
    actor.ask(Who).await.ok().map(|(life, _)| life)
}

/// Ended for good.
async fn has_ended<A: Actor>(agent: &AgentHandle<A>) {
    let mut finished = pin!(agent.finished());
    until("the agent has ended", async || poll_once(finished.as_mut()).await.is_some()).await;
}

async fn begin(bench: &Bench, restart: RestartAgent) -> (Orchestrator, AgentHandle<Puppet>) {
    let orchestrator = Orchestrator::over(bench.manager.clone());
    let agent = orchestrator.spawn_agent(DEMO, "a", Puppet::new).restart(restart).await.unwrap();
    assert_eq!(life(&agent).await, Some(1));
    (orchestrator, agent)
}

async fn fall(bench: &Bench, agent: &AgentHandle<Puppet>) {
    agent.actor_ref().tell(Fall(false)).await.unwrap();
    bench.settle().await;
}

#[tokio::test(start_paused = true)]
async fn never() {
    let bench = Bench::memory().await.still();
    let (orchestrator, agent) = begin(&bench, RestartAgent::Never).await;
    fall(&bench, &agent).await;
    has_ended(&agent).await;
    bench.pass(secs(1_000)).await;
    assert_eq!((life(&agent).await, bench.stats().await.sessions), (None, 0));
    orchestrator.shutdown().await;
}

/// At most so often, each time after twice the pause; not when it returned.
#[tokio::test(start_paused = true)]
async fn on_failure() {
    let bench = Bench::memory().await.still();
    let restart = RestartAgent::OnFailure { at_most: 2, pause: secs(10) };
    let (orchestrator, agent) = begin(&bench, restart).await;
    for (next, pause) in [(2, 10), (3, 20)] {
        fall(&bench, &agent).await;
        assert_eq!(bench.stats().await.sessions, 0, "its locks do not wait for its next life");
        bench.pass(millis(pause * 1_000 - 5)).await;
        assert_eq!(life(&agent).await, None);
        bench.pass(millis(10)).await;
        assert_eq!(life(&agent).await, Some(next));
    }
    fall(&bench, &agent).await;
    has_ended(&agent).await;
    bench.pass(secs(1_000)).await;
    assert_eq!(life(&agent).await, None);
    let returned = orchestrator.spawn_agent(DEMO, "b", Puppet::new).restart(restart);
    let returned = returned.await.unwrap();
    returned.actor_ref().tell(Leave).await.unwrap();
    has_ended(&returned).await;
    orchestrator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn always() {
    let bench = Bench::memory().await.still();
    let (orchestrator, agent) = begin(&bench, RestartAgent::Always { pause: secs(1) }).await;
    for next in 2..6 {
        agent.actor_ref().tell(Leave).await.unwrap();
        bench.settle().await;
        bench.pass(millis(1_005)).await;
        assert_eq!(life(&agent).await, Some(next));
    }
    orchestrator.shutdown().await;
    has_ended(&agent).await;
    assert_eq!(life(&agent).await, None);
}

/// An agent whose next life waits for its pause while the orchestrator is shut down never begins.
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_restarts() {
    let bench = Bench::memory().await.still();
    let (orchestrator, agent) = begin(&bench, RestartAgent::Always { pause: secs(5) }).await;
    fall(&bench, &agent).await;
    orchestrator.shutdown().await;
    tokio::time::advance(secs(60)).await;
    yields(50).await;
    has_ended(&agent).await;
    assert_eq!(life(&agent).await, None);
}

/// Agents first, while they can still release; then the manager, which tells what was left.
#[tokio::test(start_paused = true)]
async fn shutdown_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let manager = LockManager::open(&path).await.unwrap();
    let orchestrator = Orchestrator::over(manager.clone());
    let _still = crate::support::Still::new();
    let agent = orchestrator.spawn_agent(DEMO, "a", Puppet::new).await.unwrap();
    agent.actor_ref().ask(Hold(7)).await.unwrap();
    let session = manager.session(DEMO, "bystander").await.unwrap();
    let guard = session.acquire(file("x")).await.unwrap();
    let report = orchestrator.shutdown().await;
    assert!(report.failed.is_empty());
    has_ended(&agent).await;
    let left = &report.released[DEMO];
    assert!(left.iter().any(|holder| holder.lock == guard.id()));
    assert!(report.sessions >= 1);
    assert!(!guard.is_valid());
    assert_eq!(crate::support::active_rows(&path, DEMO), []);
    let told = manager.session(DEMO, "late").await.unwrap_err();
    assert!(matches!(told, SessionError::Unavailable(Unavailable::ShutDown)), "{told}");
    session.acquire(file("y")).await.unwrap_err();
}

struct Deaf {
    _context: AgentContext,
}

impl Actor for Deaf {
    type Args = Self;
    type Error = kameo::error::Infallible;

    async fn on_start(deaf: Self, _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(deaf)
    }
}

struct ForEver;

impl Message<ForEver> for Deaf {
    type Reply = ();

    async fn handle(&mut self, _: ForEver, _: &mut Context<Self, ()>) {
        std::future::pending::<()>().await;
    }
}

/// An agent that does not listen is killed after a while, and holds nobody up.
#[tokio::test(start_paused = true)]
async fn shutdown_of_the_deaf() {
    let orchestrator = Orchestrator::start(Config::in_memory()).await.unwrap();
    let make = |context: AgentContext| Deaf { _context: context };
    let deaf = orchestrator.spawn_agent(DEMO, "deaf", make).await.unwrap();
    deaf.actor_ref().tell(ForEver).await.unwrap();
    let began = tokio::time::Instant::now();
    orchestrator.shutdown().await;
    has_ended(&deaf).await;
    assert!(!deaf.actor_ref().is_alive());
    assert!(began.elapsed() <= secs(6), "{:?}", began.elapsed());
}

/// Many agents, all killed at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_once() {
    let bench = Bench::file().await;
    let orchestrator = Orchestrator::over(bench.manager.clone());
    let mut agents = Vec::new();
    for n in 0..100 {
        let name = format!("agent-{n}");
        let agent = orchestrator.spawn_agent(DEMO, &name, Puppet::new).await.unwrap();
        agent.actor_ref().ask(Hold(10)).await.unwrap();
        agents.push(agent);
    }
    assert_eq!(bench.stats().await.holds, 1_000);
    for agent in &agents {
        agent.actor_ref().kill();
    }
    for agent in &agents {
        has_ended(agent).await;
    }
    until("all are free", async || bench.stats().await.sessions == 0).await;
    bench.at_rest().await;
    orchestrator.shutdown().await;
}

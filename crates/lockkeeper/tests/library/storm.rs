//! Agents that are killed at any moment leave nothing behind, and let nobody in who should not be.

use crate::{
    inside::{live, rooms},
    support::{Bench, DEMO, Dice, Room, both, yields},
};
use kameo::{
    Actor,
    actor::{ActorRef, WeakActorRef},
    error::{ActorStopReason, Infallible},
    message::{Context, Message},
};
use lockkeeper::{AgentContext, AgentHandle, LockManager, Orchestrator, RestartAgent};
use std::{sync::Arc, time::Duration};
use tokio::task::{AbortHandle, JoinHandle};

both!(threads: tasks_aborted_anywhere, agents_killed_anywhere);

fn begin(manager: &LockManager, rooms: &Arc<[Arc<Room>]>, n: u64) -> JoinHandle<()> {
    let (manager, rooms) = (manager.clone(), rooms.clone());
    tokio::spawn(async move {
        // Opening the session may be cut off, too.
        let session = manager.session(DEMO, &format!("agent-{}", n % 64)).await.unwrap();
        live(session, rooms, Dice::new(n), 10).await;
    })
}

/// I1, I2, I8, I13, I15, I18: tasks are aborted at whatever point they wait at.
async fn tasks_aborted_anywhere(bench: Bench) {
    let rooms = rooms(&bench).await;
    let mut dice = Dice::new(7);
    let mut all = Vec::new();
    let mut running: Vec<AbortHandle> = Vec::new();
    for n in 0..64 {
        let task = begin(&bench.manager, &rooms, n);
        running.push(task.abort_handle());
        all.push(task);
    }
    for n in 64..400 {
        let at = dice.below(running.len());
        running[at].abort();
        let task = begin(&bench.manager, &rooms, n);
        running[at] = task.abort_handle();
        all.push(task);
        yields(dice.below(4)).await;
        if dice.below(4) == 0 {
            bench.stats().await;
        }
    }
    let mut aborted = 0;
    for task in all {
        match task.await {
            Ok(()) => {}
            Err(error) if error.is_cancelled() => aborted += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(aborted > 0, "nobody was killed");
    for room in rooms.iter() {
        room.check();
    }
    bench.close_empty().await;
}

struct Worker {
    context: AgentContext,
    rooms: Arc<[Arc<Room>]>,
}

struct Work;
struct Fail;

impl Actor for Worker {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(worker: Self, me: ActorRef<Self>) -> Result<Self, Infallible> {
        me.tell(Work).await.unwrap();
        Ok(worker)
    }

    async fn on_stop(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorStopReason,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Message<Work> for Worker {
    type Reply = ();

    async fn handle(&mut self, _: Work, ctx: &mut Context<Self, ()>) {
        let seed = self.context.session().id().get();
        live(self.context.session().clone(), self.rooms.clone(), Dice::new(seed), 4).await;
        let _ = ctx.actor_ref().tell(Work).await;
    }
}

impl Message<Fail> for Worker {
    type Reply = ();

    async fn handle(&mut self, _: Fail, _: &mut Context<Self, ()>) {
        // Does not trouble the panic hook, which would write to the terminal each time.
        std::panic::resume_unwind(Box::new("as ordered"));
    }
}

/// I1, I13, I18: agents under an orchestrator panic, are stopped and killed, and come back.
async fn agents_killed_anywhere(bench: Bench) {
    let rooms = rooms(&bench).await;
    let orchestrator = Orchestrator::over(bench.manager.clone());
    let mut agents: Vec<AgentHandle<Worker>> = Vec::new();
    for n in 0..32 {
        let rooms = rooms.clone();
        let make = move |context| Worker { context, rooms: rooms.clone() };
        let restart = RestartAgent::OnFailure { at_most: 3, pause: Duration::ZERO };
        let name = format!("agent-{n}");
        agents.push(orchestrator.spawn_agent(DEMO, &name, make).restart(restart).await.unwrap());
    }
    let ends: Vec<JoinHandle<()>> = agents
        .iter()
        .cloned()
        .map(|agent| tokio::spawn(async move { agent.finished().await }))
        .collect();
    let mut dice = Dice::new(11);
    while !ends.iter().all(JoinHandle::is_finished) {
        let actor = agents[dice.below(agents.len())].actor_ref();
        match dice.below(8) {
            0..4 => actor.kill(),
            4..7 => drop(actor.tell(Fail).try_send()),
            _ => drop(actor.stop_gracefully().await),
        }
        yields(dice.below(8)).await;
    }
    for room in rooms.iter() {
        room.check();
    }
    drop(agents);
    crate::support::until("the last session ended", async || bench.stats().await.sessions == 0)
        .await;
    bench.at_rest().await;
    orchestrator.shutdown().await;
}

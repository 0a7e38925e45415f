//! A list of tasks and several workers, of whom one dies: each task is done exactly once all the
//! same. Run it with `cargo run --example task_queue`.
#![allow(clippy::print_stdout, reason = "telling the story is what an example is for")]

use kameo::prelude::*;
use lockkeeper::{
    AgentContext, Config, Orchestrator, Project, Session, TaskError, TaskGuard, TaskStatus,
};
use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// How long a claim lives without a sign of life.
const LEASE: Duration = Duration::from_secs(30);

const LIST: usize = 40;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let config = Config::at(folder.path().join("locks.db"));
    let orchestrator = Orchestrator::start(config).await?;
    let project = orchestrator.manager().project("demo").await?;
    let ann = project.session("ann").await?;
    let ben = project.session("ben").await?;

    one_task_one_worker(&ann, &ben).await?;
    all_or_nothing(&project, &ann, &ben).await?;
    a_worker_dies(&orchestrator, &project, &ann).await?;
    a_whole_list(&orchestrator, &project).await?;
    orchestrator.shutdown().await;
    Ok(())
}

/// Claim, renew, complete; and what those hear who come late.
async fn one_task_one_worker(ann: &Session, ben: &Session) -> Result<(), Box<dyn Error>> {
    let design = ann.claim("design").lease(LEASE).await?;
    println!("ann claims design: {} at version {}", design.task().status, design.task().version);
    match ben.claim("design").await {
        Err(refusal @ TaskError::ClaimFailed { .. }) => println!("ben is refused: {refusal}"),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }

    // A sign of life in time, and the claim goes on. The task does not move by that.
    let before = design.guard().expires_at();
    let after = design.renew(LEASE * 2).await?;
    println!("ann renews it for {} s more", after.since(before) / 1000);
    let done = design.complete().await?;
    println!("ann completes it: {} at version {}", done.status, done.version);
    match ben.claim("design").await {
        Err(refusal @ TaskError::ClaimFailed { .. }) => println!("ben comes late: {refusal}"),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }
    Ok(())
}

/// Tasks that only make sense together are claimed together, or none of them is.
async fn all_or_nothing(
    project: &Project,
    ann: &Session,
    ben: &Session,
) -> Result<(), Box<dyn Error>> {
    println!();
    let docs = ben.claim("docs").lease(LEASE).await?;
    match ann.claim_batch(["api", "client", "docs"]).lease(LEASE).await {
        Err(refusal @ TaskError::ClaimFailed { .. }) => {
            println!("ann wants api, client and docs: {refusal}");
        }
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }
    let api = project.task("api").await?.map(|task| task.status).unwrap_or_default();
    println!("api is still {api}");
    let docs = docs.release().await?;
    println!("ben gives docs back: {} at version {}", docs.status, docs.version);

    let all = ann.claim_batch(["api", "client", "docs"]).lease(LEASE).await?;
    println!("ann claims all {} at once", all.len());
    for task in all {
        task.complete().await?;
    }
    Ok(())
}

/// A claim ends with its worker, however the worker ends. The version tells whoever looked before
/// that something happened since.
async fn a_worker_dies(
    orchestrator: &Orchestrator,
    project: &Project,
    ann: &Session,
) -> Result<(), Box<dyn Error>> {
    println!();
    let cid = orchestrator.spawn_agent("demo", "cid", |context| Clumsy { context, has: None });
    let cid = cid.await?;
    let version = cid.actor_ref().ask(Take("tests")).await?;
    println!("cid claims tests, now at version {version}, and is killed");
    cid.actor_ref().kill();
    cid.finished().await;
    let open = loop {
        match project.task("tests").await? {
            Some(task) if task.status == TaskStatus::Open => break task,
            _ => sleep(Duration::from_millis(1)).await,
        }
    };
    println!("tests is {} again, at version {}", open.status, open.version);

    match ann.claim("tests").expect_version(version).await {
        Err(refusal @ TaskError::ClaimFailed { .. }) => println!("ann, outdated: {refusal}"),
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }
    let tests = ann.claim("tests").expect_version(open.version).await?;
    println!("ann looks again and claims it: version {}", tests.task().version);
    tests.complete().await?;
    Ok(())
}

/// Who did what, as they say themselves.
type Done = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// Five workers go through one list, each from another end. Now and then one fails at a task and
/// gives it back.
async fn a_whole_list(
    orchestrator: &Orchestrator,
    project: &Project,
) -> Result<(), Box<dyn Error>> {
    println!();
    let done = Done::default();
    let mut workers = Vec::new();
    for (start, name) in ["dan", "eva", "fay", "gil", "hal"].into_iter().enumerate() {
        let done = done.clone();
        let make = move |context| Worker { context, done: done.clone(), start: start * 8 };
        workers.push(orchestrator.spawn_agent("demo", name, make).await?);
    }
    for worker in &workers {
        worker.actor_ref().tell(GoThroughTheList).await?;
        // Stops when it is done with that.
        worker.actor_ref().stop_gracefully().await?;
    }
    for worker in &workers {
        worker.finished().await;
    }

    let done = done.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (task, by) in &done {
        if by.len() != 1 {
            return Err(format!("{task} was done {} times, by {}", by.len(), by.join(", ")).into());
        }
    }
    let tasks = project.tasks().await?;
    let listed = tasks.iter().filter(|task| task.resource.key().starts_with("page-"));
    let closed = listed.filter(|task| task.status == TaskStatus::Done).count();
    println!("{} tasks done, each by exactly one of five workers; {closed} closed", done.len());
    match (done.len(), closed) {
        (LIST, LIST) => Ok(()),
        _ => Err(format!("there were {LIST} tasks").into()),
    }
}

/// Keeps its claim in its own state, so that it is gone when the actor is.
#[derive(Actor)]
struct Clumsy {
    context: AgentContext,
    has: Option<TaskGuard>,
}

struct Take(&'static str);

impl Message<Take> for Clumsy {
    type Reply = Result<u64, TaskError>;

    async fn handle(&mut self, it: Take, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        self.has = Some(self.context.session().claim(it.0).lease(LEASE).await?);
        Ok(self.has.as_ref().map_or(0, |claimed| claimed.task().version))
    }
}

#[derive(Actor)]
struct Worker {
    context: AgentContext,
    done: Done,
    start: usize,
}

struct GoThroughTheList;

impl Message<GoThroughTheList> for Worker {
    type Reply = ();

    async fn handle(&mut self, _: GoThroughTheList, _: &mut Context<Self, ()>) {
        // Round after round, until nothing is left that anybody could claim.
        let mut open: Vec<usize> = (0..LIST).map(|at| (at + self.start) % LIST).collect();
        for round in 0.. {
            let mut taken = Vec::new();
            for at in open {
                match self.do_one(at, round).await {
                    Ok(true) => {}
                    Ok(false) => taken.push(at),
                    Err(error) => {
                        println!("{} gives up: {error}", self.context.name());
                        return;
                    }
                }
            }
            if taken.is_empty() {
                return;
            }
            open = taken;
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Worker {
    /// Does a task, if nobody else does. Whether it is done, by whomever.
    async fn do_one(&self, at: usize, round: usize) -> Result<bool, TaskError> {
        use lockkeeper::WhyNotClaimed;
        let name = format!("page-{at:02}");
        let task = match self.context.session().claim(&name).lease(LEASE).await {
            Ok(task) => task,
            Err(TaskError::ClaimFailed { failed }) => {
                return Ok(failed.iter().all(|one| one.why == WhyNotClaimed::Done));
            }
            Err(error) => return Err(error),
        };
        sleep(Duration::from_millis(1)).await;
        if round == 0 && (at + self.start).is_multiple_of(5) {
            // It did not work out. Others may try.
            task.release().await?;
            return Ok(false);
        }
        // Counted before the word is out, so that nothing done twice can hide.
        self.count(name);
        task.complete().await?;
        Ok(true)
    }
    fn count(&self, task: String) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.entry(task).or_default().push(self.context.name().to_owned());
    }
}

//! Several projects, dozens of agents in each, and far too few files: a run to watch. Run it with
//! `cargo run --release --example multi_project_simulation`, in a terminal.
//!
//! The agents take locks in any order, so that they deadlock all the time; they overstay their
//! leases, panic while they hold things, are killed, and an operator breaks their locks. All of it
//! is on a real store. At the door of every room stands somebody who counts who is inside (see
//! `room.rs`), and if ever two are who must not be, the run fails.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is there to be watched")]

mod agent;
mod args;
mod check;
mod news;
mod room;
mod screen;
mod table;
mod tally;
mod world;

use agent::{Agent, ROLES, TRIPPED};
use args::{Args, Asked};
use check::{Kept, OnRecord};
use lockkeeper::{AdminError, AgentHandle, Config, LockManager, Orchestrator, RestartAgent};
use news::Chronicle;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use screen::{Screen, thousands};
use std::{
    env,
    error::Error,
    io::{self, IsTerminal},
    panic,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tally::one_more;
use world::World;

/// How many events may pile up between two looks at them.
const EVENTS_MAX: usize = 1 << 17;

/// So many projects, with a deadlock below them, still fit on a screen.
const PROJECTS_DRAWN_MAX: usize = 12;

/// So many deadlocks are printed in full where they scroll by.
const PICTURES: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args::parse(env::args().skip(1)) {
        Ok(Asked::Run(args)) => args,
        Ok(Asked::Help) => {
            println!("{}", args::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    keep_quiet_about_the_cable();
    match run(args).await {
        Ok(problems) if problems.is_empty() => {
            println!("nobody was ever inside twice");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            eprintln!("\nTHIS MUST NOT HAPPEN (seed {}):", args.seed);
            problems.iter().take(20).for_each(|problem| eprintln!("  {problem}"));
            eprintln!("{} in all", problems.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the run could not go on: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Agents panic on purpose here, and the screen is for other things. Real panics are still told.
fn keep_quiet_about_the_cable() {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref() != Some(&TRIPPED) {
            loud(info);
        }
    }));
}

/// Runs the world for a while and looks at what is left. Gives back all that went wrong.
async fn run(args: Args) -> Result<Vec<String>, Box<dyn Error>> {
    // A picture that is higher than the screen cannot be redrawn.
    let live = io::stdout().is_terminal() && !args.plain && args.projects <= PROJECTS_DRAWN_MAX;
    println!(
        "{} projects with {} agents each, for {} s, seed {}\n",
        args.projects,
        args.agents,
        args.time.as_secs(),
        args.seed
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("locks.db");
    let config = Config { events_capacity: EVENTS_MAX, ..Config::at(&path) };
    let orchestrator = Orchestrator::start(config).await?;
    let world = World::new(&args);
    world.prepare(orchestrator.manager()).await?;
    let mut news = Chronicle::start(orchestrator.manager(), &world, PICTURES);

    let agents = start_agents(&orchestrator, &world, args.agents).await?;
    let mishaps =
        tokio::spawn(mishaps(orchestrator.manager().clone(), world.clone(), agents.clone()));
    let started = Instant::now();
    let mut screen = Screen::new(orchestrator.manager(), &world, live, args.time).await?;
    screen.watch(&world, &mut news).await?;

    // Everybody finishes the job at hand; then the agents end, then the locks, then the store.
    world.close();
    mishaps.await?;
    let report = orchestrator.shutdown().await;
    let time = started.elapsed();
    drop(agents);
    news.catch_up();
    screen.clear()?;
    let mut problems = world.problems();
    for (project, left) in &report.released {
        problems.push(format!("{project}: {} locks outlived their agents", left.len()));
    }
    for (project, why) in &report.failed {
        problems.push(format!("{project}: could not be shut down: {why}"));
    }

    println!();
    let names: Vec<&str> = world.sites.iter().map(|site| site.name.as_str()).collect();
    let kept = check::read_again(&path, &names).await?;
    table::print(&mut io::stdout().lock(), &world, &news, &kept)?;
    println!();
    problems.extend(compare(&kept, &news, time));
    Ok(problems)
}

/// Holds what is on record against itself and against what was heard.
fn compare(kept: &Kept, news: &Chronicle, time: Duration) -> Vec<String> {
    let mut problems = Vec::new();
    let on_record = |of: fn(&OnRecord) -> u64| kept.by_project.values().map(of).sum::<u64>();
    let (grants, ends) = (on_record(|record| record.grants), on_record(|record| record.ends));
    println!(
        "{} locks taken and given back in {:.1} s, {} pairs/s, each on record before it was told",
        thousands(grants),
        time.as_secs_f64(),
        thousands((grants as f64 / time.as_secs_f64()) as u64)
    );
    let (opened, closed) = (on_record(|record| record.opened), on_record(|record| record.closed));
    let left = on_record(OnRecord::left);
    println!(
        "opened again: {} grants and {} ends on record, {opened} sessions and {closed} ends; \
         holds, waits and sessions left: {left}",
        thousands(grants),
        thousands(ends),
    );
    if left > 0 {
        problems.push(format!("a leak: {left} holds, waits or sessions were left"));
    }
    let (heard, written) = (news.deadlocks(), on_record(|record| record.deadlocks));
    match news.missed {
        0 if heard != written => {
            problems.push(format!("{heard} deadlocks were heard of, but {written} written"));
        }
        0 => {}
        missed => println!("(the listener was too slow: {missed} events are not in the table)"),
    }
    problems
}

/// Starts everybody: each a supervised actor with a session of its own.
async fn start_agents(
    orchestrator: &Orchestrator,
    world: &Arc<World>,
    count: usize,
) -> Result<Vec<Vec<AgentHandle<Agent>>>, Box<dyn Error>> {
    let mut all = Vec::new();
    for site in &world.sites {
        let mut agents = Vec::new();
        for at in 0..count {
            let name = format!("{}-{}", ROLES[at % ROLES.len()].0, at / ROLES.len() + 1);
            let pause = Duration::from_millis(20);
            // Some go home now and then and are expected back; the others return from accidents.
            let restart = match at.is_multiple_of(3) {
                true => RestartAgent::Always { pause },
                false => RestartAgent::OnFailure { at_most: 1000, pause },
            };
            let (world, here) = (world.clone(), site.clone());
            let make = move |context| Agent::new(&world, &here, at, &context);
            let agent = orchestrator.spawn_agent(&site.name, &name, make);
            agents.push(agent.restart(restart).await?);
        }
        all.push(agents);
    }
    Ok(all)
}

/// Bad luck from outside: agents are killed in the middle of whatever they do, and an operator who
/// knows better breaks the lock that most wait for.
async fn mishaps(manager: LockManager, world: Arc<World>, agents: Vec<Vec<AgentHandle<Agent>>>) {
    let mut dice = SmallRng::seed_from_u64(world.seed);
    while world.is_open() {
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..200))).await;
        let at = dice.random_range(0..world.sites.len());
        let (site, agents) = (&world.sites[at], &agents[at]);
        if dice.random_bool(0.75) {
            let agent = agents[dice.random_range(0..agents.len())].actor_ref();
            if agent.is_alive() {
                one_more(&site.tally.killed);
                agent.kill();
            }
            continue;
        }
        let broken = async {
            let project = manager.project(&site.name).await.ok()?;
            let wanted = project.contention().await.ok()?.into_iter().next()?;
            Some(project.force_unlock(wanted.resource, "operator", "it took too long").await)
        };
        match broken.await {
            Some(Ok(_)) => one_more(&site.tally.forced),
            // It was given back in this very moment.
            None | Some(Err(AdminError::NotLocked { .. })) => {}
            Some(Err(error)) => world.surprise(format!("{}: the operator: {error}", site.name)),
        }
    }
}

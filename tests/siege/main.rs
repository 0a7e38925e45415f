//! Everything at once, from outside: real processes, killed, paused, cut off and overloaded.
//!
//! | file | what it tries |
//! |---|---|
//! | `main.rs` | a daemon that is killed under load |
//! | `witness.rs` | what clients saw under torment is judged: a lock service, or not |
//! | `client.rs`, `notes.rs` | those clients, and what they write down |
//! | `load.rs` | more of everything than anybody should ask for |
//! | `rest.rs` | clients that come and go for a long time |
//! | `fence.rs`, `proxy.rs` | what the locks protect; a line that can be cut |
//! | `daemon.rs` | a daemon in a process of its own |
//!
//! A daemon that is killed again and again, in the middle of everything: nothing that was
//! acknowledged is lost, nobody meets anybody inside, and who waits keeps the place.
//!
//! `LOCKKEEPER_SIEGE_ROUNDS=1000 cargo test --test siege` kills it more often.

#![allow(clippy::print_stdout, reason = "what was tried, for whoever runs it by hand")]

mod client;
mod daemon;
mod fence;
mod load;
mod notes;
mod proxy;
mod rest;
mod witness;

use daemon::Daemon;
use lockkeeper::{
    AskOptions, Inspect, LockGuard, LockManager, LockMode, Resource, Session, Token,
    remote::{Address, Client, Connect},
    wire::Open,
};
use lockkeeper_core::{Acquire, Answer, OpenSession, SessionId, SessionKind, TicketId, Wait};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

const PROJECT: &str = "siege";

/// Long enough for a machine that does a lot at once: nothing here should take so long.
const PATIENCE: Duration = Duration::from_secs(120);

fn rounds() -> u32 {
    let asked = std::env::var("LOCKKEEPER_SIEGE_ROUNDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(50)
}

async fn connect(daemon: &Daemon) -> LockManager {
    let connect = Connect { give_up_after: PATIENCE, ..Connect::to(daemon.address()) };
    LockManager::connect_with(connect).await.expect("the daemon is there")
}

/// A thing of which only one may be made use at a time, and which knows when that was broken.
#[derive(Default)]
struct Room {
    inside: AtomicU32,
    last: AtomicU64,
    visits: AtomicU64,
}

impl Room {
    /// Goes in and out, and says what was wrong.
    async fn visit(&self, token: Token) {
        let others = self.inside.fetch_add(1, Ordering::SeqCst);
        assert_eq!(others, 0, "two are inside");
        let before = self.last.swap(token.get(), Ordering::SeqCst);
        assert!(before < token.get(), "the token {token} came after {before}");
        tokio::task::yield_now().await;
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.visits.fetch_add(1, Ordering::SeqCst);
    }
}

/// Goes in and out of the rooms until it is told to stop. Whatever the daemon goes through, a
/// session that is there sees none of it.
async fn work(session: Session, rooms: Arc<[Room; 3]>, stop: Arc<AtomicBool>, seed: u64) -> u64 {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut done = 0;
    while !stop.load(Ordering::SeqCst) {
        let at = dice.random_range(0..rooms.len());
        let resource = Resource::file(&format!("room-{at}"));
        let guard = session.acquire(resource).wait(PATIENCE).await.expect("its turn comes");
        rooms[at].visit(guard.token()).await;
        guard.release().await.expect("what was acquired is there to be released");
        done += 1;
    }
    done
}

async fn keep(session: &Session, count: usize) -> Vec<LockGuard> {
    let mut kept = Vec::new();
    for nth in 0..count {
        let resource = Resource::file(&format!("kept-{nth}"));
        kept.push(session.acquire(resource).await.expect("nobody else wants it"));
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_loses_nothing_that_was_acknowledged() {
    let mut daemon = Daemon::start();
    let rooms: Arc<[Room; 3]> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for seed in 0..8 {
        // Half of them share a connection with another one.
        let manager = connect(&daemon).await;
        for half in 0..2 {
            let agent = format!("worker-{seed}-{half}");
            let session = manager.session(PROJECT, &agent).await.expect("a session");
            let (rooms, stop) = (rooms.clone(), stop.clone());
            workers.push(tokio::spawn(work(session, rooms, stop, seed * 2 + half)));
        }
    }
    let keeper = connect(&daemon).await;
    let session = keeper.session(PROJECT, "keeper").await.expect("a session");
    let kept = keep(&session, 20).await;
    let mut dice = SmallRng::seed_from_u64(7);
    let mut visits = 0;
    for round in 0..rounds() {
        tokio::time::sleep(Duration::from_millis(dice.random_range(5..60))).await;
        daemon.kill();
        daemon.start_again();
        let known = connect(&daemon).await.project(PROJECT).await.expect("a project");
        for guard in &kept {
            assert!(guard.is_valid(), "{guard:?} in round {round}");
            let there = known.get_lock_info(guard.resource().clone()).await.expect("a view");
            assert_eq!(there.map(|holder| holder.lock), Some(guard.id()), "round {round}");
        }
        let now: u64 = rooms.iter().map(|room| room.visits.load(Ordering::SeqCst)).sum();
        visits = now;
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        let done = tokio::time::timeout(PATIENCE, worker).await.expect("it ends");
        assert!(done.expect("nothing went wrong") > 0, "somebody never had a turn");
    }
    for guard in kept {
        guard.release().await.expect("it was there all the time");
    }
    assert!(visits > u64::from(rounds()), "only {visits} visits: there was no load");
    let left = keeper.project(PROJECT).await.expect("a project").list().await.expect("a view");
    assert_eq!(left, [], "somebody's lock is left over");
}

/// An agent that comes and goes: its place is all it has between two calls.
struct Caller {
    client: Client,
    session: SessionId,
}

impl Caller {
    async fn come(address: &Address, agent: &str) -> Caller {
        let client = Client::connect(address).await.expect("the daemon is there");
        let kind = SessionKind::Detached;
        let open = OpenSession { agent: agent.into(), kind, ..OpenSession::default() };
        let open = Open { open, reuse: true, linger_ms: 0 };
        let session = client.open(PROJECT, open).await.expect("a session");
        Caller { client, session }
    }

    async fn ask(&self, resource: &Resource) -> Answer {
        let options = AskOptions {
            wait: Some(PATIENCE),
            slice: Some(Duration::ZERO),
            ..AskOptions::default()
        };
        let (session, mode) = (self.session, LockMode::Exclusive);
        let acquire = Acquire { session, resource: resource.clone(), mode, options };
        self.client.command(PROJECT, acquire).await.expect("an answer")
    }

    async fn wait(&self, ticket: TicketId, slice: Duration) -> Answer {
        let wait = Wait { session: self.session, ticket, slice: Some(slice) };
        self.client.command(PROJECT, wait).await.expect("an answer")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_left_with_a_ticket_keeps_the_place_over_every_death() {
    let mut daemon = Daemon::start();
    let resource = Resource::file("wanted");
    let first = Caller::come(&daemon.address(), "agent-0").await;
    let Answer::Granted(mut held) = first.ask(&resource).await else { panic!("it is free") };
    let mut line = Vec::new();
    for nth in 1..6 {
        let caller = Caller::come(&daemon.address(), &format!("agent-{nth}")).await;
        match caller.ask(&resource).await {
            Answer::Queued { ticket, ahead, .. } => {
                assert_eq!(ahead + 1, nth);
                line.push((caller.session, ticket));
            }
            other => panic!("{other:?}"),
        }
    }
    let mut holder = first.session;
    for nth in 0..line.len() {
        daemon.kill();
        daemon.start_again();
        let client = Client::connect(&daemon.address()).await.expect("the daemon is there");
        let seen = client.see(PROJECT, Inspect { resource: resource.clone() }).await;
        let seen = seen.expect("a view").expect("it is in use");
        let waiting: Vec<_> = seen.queue.iter().map(|one| (one.session, one.ticket)).collect();
        assert_eq!(waiting, line[nth..], "the queue after death {nth}");
        assert_eq!(seen.holders[0].lock, held[0].lock, "the hold after death {nth}");
        let release = lockkeeper_core::Release {
            by: lockkeeper_core::Credential::Session(holder),
            lock: held[0].lock,
            share: None,
            request_id: None,
        };
        client.command(PROJECT, release).await.expect("it is held");
        let caller = Caller::come(&daemon.address(), &format!("agent-{}", nth + 1)).await;
        assert_eq!(caller.session, line[nth].0, "an agent finds its session again");
        match caller.wait(line[nth].1, PATIENCE).await {
            Answer::Granted(grants) => {
                assert!(grants[0].token > held[0].token);
                held = grants;
            }
            other => panic!("{other:?}"),
        }
        holder = caller.session;
    }
}

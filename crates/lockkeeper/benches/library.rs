//! What the library costs: `cargo bench -p lockkeeper --bench library`, or only a part of it, with
//! `-- memory`, `-- handover`, `-- durable`, `-- verdicts` or `-- recovery`.
//!
//! Locks in memory are measured beside an empty kameo actor, a request and a message each, in turns
//! within one run: that is the floor of the design. A hand-over, from the drop of the guard to the
//! one who has waited having his, is measured beside a mutex of tokio's. Durable ones are measured
//! at growing numbers of sessions that each wait for every answer. Figures are medians of rounds,
//! with the quarters.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails is not one")]

use kameo::{mailbox, prelude::*};
use lockkeeper::{AcquireError, Config, Durability, LockManager, Resource, Session};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const ROUND: Duration = Duration::from_millis(250);

fn main() {
    // Cargo passes `--bench`; whoever only wants to know that it starts says `--test`.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rounds = if words.iter().any(|word| word == "--test") { 1 } else { 9 };
    let parts: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|word| *word == part);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if wants("memory") {
            in_memory(rounds).await;
        }
        if wants("handover") {
            hand_over(rounds).await;
        }
        if wants("durable") {
            durable(rounds).await;
        }
        if wants("verdicts") {
            verdicts(rounds * 20).await;
        }
        if wants("recovery") {
            recovery(rounds).await;
        }
    });
}

/// An actor that does nothing.
#[derive(Actor)]
struct Empty;
struct Ping;
struct Note;

impl Message<Ping> for Empty {
    type Reply = u64;

    async fn handle(&mut self, _: Ping, _: &mut Context<Self, u64>) -> u64 {
        1
    }
}

impl Message<Note> for Empty {
    type Reply = ();

    async fn handle(&mut self, _: Note, _: &mut Context<Self, ()>) {}
}

async fn in_memory(rounds: usize) {
    println!("in memory, pairs/s beside an empty actor's ask + tell (the floor of the design)");
    for clients in [1, 16, 64] {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let manager = LockManager::in_memory(Config::in_memory());
            let sessions = sessions(&manager, clients).await;
            ours.push(pairs(&sessions).await);
            let empty = Empty::spawn_with_mailbox(Empty, mailbox::unbounded());
            floor.push(pings(&empty, clients).await);
        }
        let ratios: Vec<f64> = ours.iter().zip(&floor).map(|(ours, floor)| ours / floor).collect();
        println!(
            "  {clients:>3} sessions   ours {}   floor {}   ratio {}",
            quarters(ours, 0),
            quarters(floor, 0),
            quarters(ratios, 2)
        );
    }
}

/// From the moment in which a guard is dropped to the one in which the next in the queue has his.
async fn hand_over(rounds: usize) {
    const EACH: usize = 200;
    println!("hand-over to one who waits, in memory, µs beside a mutex of tokio's");
    let manager = LockManager::in_memory(Config::in_memory());
    let pair = sessions(&manager, 2).await;
    let project = manager.project("bench").await.unwrap();
    let mutex = Arc::new(tokio::sync::Mutex::new(()));
    let (mut ours, mut tokios, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (mut lock, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..EACH {
            let held = pair[0].acquire(Resource::file("one")).await.unwrap();
            let next = pair[1].clone();
            let next = tokio::spawn(async move {
                let guard = next.acquire(Resource::file("one")).await.unwrap();
                (Instant::now(), guard.release().await).0
            });
            while project.stats().await.unwrap().tickets == 0 {}
            lock.push(handed_over(held, next).await);
            let held = mutex.clone().lock_owned().await;
            let (next, asked) = (mutex.clone(), Arc::new(AtomicBool::new(false)));
            let asks = asked.clone();
            let next = tokio::spawn(async move {
                let mut lock = std::pin::pin!(next.lock());
                let asking = std::future::poll_fn(|cx| {
                    let polled = lock.as_mut().poll(cx);
                    asks.store(true, Ordering::Release);
                    polled
                });
                let guard = asking.await;
                (Instant::now(), drop(guard)).0
            });
            while !asked.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
            plain.push(handed_over(held, next).await);
        }
        let (lock, plain) = (median(lock), median(plain));
        ratios.push(lock / plain);
        ours.push(lock);
        tokios.push(plain);
    }
    println!(
        "  ours {}   tokio's {}   ratio {}",
        quarters(ours, 1),
        quarters(tokios, 1),
        quarters(ratios, 1)
    );
}

/// Waits a little, so that everybody sleeps who would; then drops the guard.
async fn handed_over<G>(held: G, next: tokio::task::JoinHandle<Instant>) -> f64 {
    tokio::time::sleep(Duration::from_micros(50)).await;
    let dropped = Instant::now();
    drop(held);
    (next.await.unwrap() - dropped).as_secs_f64() * 1e6
}

async fn durable(rounds: usize) {
    println!("durable, grant and release each on record before it is answered, pairs/s");
    for clients in [1, 16, 256] {
        let (mut process, mut power) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (durability, into) in
                [(Durability::Process, &mut process), (Durability::Power, &mut power)]
            {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("locks.db");
                let config = Config { durability, ..Config::at(path) };
                let manager = LockManager::open_with(config).await.unwrap();
                let sessions = sessions(&manager, clients).await;
                into.push(pairs_released(&sessions).await);
                drop(sessions);
                manager.shutdown().await;
            }
        }
        println!(
            "  {clients:>3} sessions   Process {}   Power {}",
            quarters(process, 0),
            quarters(power, 0)
        );
    }
}

/// From the request that closes a ring to the victim's error, everything on record.
async fn verdicts(rounds: usize) {
    println!("deadlock verdict, from the closing request to the victim's error, µs");
    for size in [2, 8] {
        let folder = tempfile::tempdir().unwrap();
        let manager = LockManager::open(folder.path().join("locks.db")).await.unwrap();
        let mut took = Vec::new();
        for _ in 0..rounds {
            took.push(verdict(&manager, size).await.as_secs_f64() * 1e6);
        }
        println!("  ring of {size}   {}", quarters(took, 0));
        manager.shutdown().await;
    }
}

async fn verdict(manager: &LockManager, size: usize) -> Duration {
    let name = |at: usize| Resource::file(&format!("ring/{at}"));
    let ring = sessions(manager, size).await;
    let mut held = Vec::new();
    for (at, session) in ring.iter().enumerate() {
        held.push(Some(session.acquire(name(at)).await.unwrap()));
    }
    let mut waits = tokio::task::JoinSet::new();
    for (at, session) in ring.iter().enumerate().take(size - 1) {
        let (session, next) = (session.clone(), name(at + 1));
        let own = held[at].take();
        waits.spawn(async move {
            let outcome = session.acquire(next).await.map(drop);
            let said = Instant::now();
            drop(own);
            (outcome, said)
        });
    }
    let demo = manager.project("bench").await.unwrap();
    while demo.stats().await.unwrap().tickets < size - 1 {
        tokio::task::yield_now().await;
    }
    let last = ring[size - 1].clone();
    let closes = Instant::now();
    let own = held[size - 1].take();
    let closing = async move {
        let outcome = last.acquire(name(0)).await.map(drop);
        let said = Instant::now();
        drop(own);
        (outcome, said)
    };
    waits.spawn(closing);
    let mut victim = None;
    while let Some(done) = waits.join_next().await {
        if let (Err(AcquireError::Deadlock(_)), said) = done.unwrap() {
            victim = Some(said - closes);
        }
    }
    victim.unwrap()
}

/// From opening a store in which 10,000 holds lived to the first answer.
async fn recovery(rounds: usize) {
    const HOLDS: usize = 10_000;
    let mut took = Vec::new();
    for _ in 0..rounds.min(5) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        let manager = LockManager::open(&path).await.unwrap();
        let session = manager.session("bench", "leaves").detached().await.unwrap();
        let names: Vec<Resource> =
            (0..HOLDS).map(|at| Resource::file(&format!("held/{at}"))).collect();
        for some in names.chunks(1000) {
            for guard in session.acquire_all(some.iter().cloned()).await.unwrap() {
                guard.leave();
            }
        }
        drop(session);
        manager.shutdown().await;
        let start = Instant::now();
        let manager = LockManager::open(&path).await.unwrap();
        let held = manager.project("bench").await.unwrap().stats().await.unwrap().holds;
        took.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(held, HOLDS);
        manager.shutdown().await;
    }
    println!(
        "recovery of {HOLDS} holds, from opening to the first answer, ms   {}",
        quarters(took, 0)
    );
}

async fn sessions(manager: &LockManager, count: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    for at in 0..count {
        sessions.push(manager.session("bench", &format!("agent-{at}")).await.unwrap());
    }
    sessions
}

/// Each takes its own lock and drops it, over and over.
async fn pairs(sessions: &[Session]) -> f64 {
    let each = sessions.iter().cloned().enumerate().map(|(at, session)| async move {
        let name = Resource::file(&format!("own/{at}"));
        let (start, mut count) = (Instant::now(), 0u64);
        while start.elapsed() < ROUND {
            for _ in 0..16 {
                drop(session.acquire(name.clone()).await.unwrap());
            }
            count += 16;
        }
        count
    });
    rate(each).await
}

/// The same, and waits until the release is on record.
async fn pairs_released(sessions: &[Session]) -> f64 {
    let each = sessions.iter().cloned().enumerate().map(|(at, session)| async move {
        let name = Resource::file(&format!("own/{at}"));
        let (start, mut count) = (Instant::now(), 0u64);
        while start.elapsed() < ROUND {
            session.acquire(name.clone()).await.unwrap().release().await.unwrap();
            count += 1;
        }
        count
    });
    rate(each).await
}

async fn pings(empty: &ActorRef<Empty>, clients: usize) -> f64 {
    let each = (0..clients).map(|_| {
        let empty = empty.clone();
        async move {
            let (start, mut count) = (Instant::now(), 0u64);
            while start.elapsed() < ROUND {
                for _ in 0..16 {
                    empty.ask(Ping).send().await.unwrap();
                    empty.tell(Note).try_send().unwrap();
                }
                count += 16;
            }
            count
        }
    });
    rate(each).await
}

async fn rate<F: Future<Output = u64> + Send + 'static>(each: impl Iterator<Item = F>) -> f64 {
    let start = Instant::now();
    let tasks: Vec<_> = each.map(tokio::spawn).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The median, and between which figures the middle half lies.
fn quarters(mut figures: Vec<f64>, digits: usize) -> String {
    figures.sort_by(f64::total_cmp);
    let at = |part: f64| figures[((figures.len() - 1) as f64 * part).round() as usize];
    format!("{:.digits$} ({:.digits$} to {:.digits$})", at(0.5), at(0.25), at(0.75))
}

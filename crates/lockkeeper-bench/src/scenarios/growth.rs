//! Whether it slows down with what it has to remember: waiters, agents, projects, history.
//!
//! Here the rows are sizes, and each is compared with the smallest.

use crate::{
    args::Plan,
    load,
    peers::{
        Client, Granted, Key, Peer,
        daemon::{Caller, Daemon},
        house::House,
        library::{Agent, Library, PROJECT},
    },
    rounds::{Entry, Race},
    sheet::{Bound, Sheet, Target, Unit},
    trouble::{Result, Trouble, trouble},
};
use lockkeeper::{Durability, Resource, Session};
use std::{fs, sync::Arc, time::Duration};
use tokio::{sync::OnceCell, task::JoinSet};

const SCENARIO: &str = "growth";

/// How many rows the history has.
pub(crate) fn rows(plan: &Plan) -> usize {
    plan.size(1_000_000, 10_000)
}

pub(crate) async fn run(plan: &Plan, house: &Arc<House>) -> Result<Vec<Sheet>> {
    let mut sheets = plan.rounds.run(waiters(plan)).await?;
    sheets.extend(plan.rounds.run(agents(plan)).await?);
    sheets.extend(plan.rounds.run(projects(plan)).await?);
    sheets.extend(plan.rounds.run(history(plan, house)).await?);
    sheets.extend(plan.rounds.run(memory(plan)).await?);
    Ok(sheets)
}

/// A race of sizes. Of the smallest at most a fifth may be lost.
fn sizes(title: &str, columns: &[&str], entries: Vec<Entry>) -> Race {
    let at_most = Target { bound: Bound::AtMostRatio(1.25), columns: vec![] };
    let mut entries = entries.into_iter();
    let first = entries.next();
    let entries = first.into_iter().chain(entries.map(|each| each.reaching(0, at_most.clone())));
    Race {
        scenario: SCENARIO,
        sheets: vec![(title.to_owned(), Unit::PairsPerSecond)],
        across: "",
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        entries: entries.collect(),
    }
}

/// One lock that goes from hand to hand, with so many waiting.
fn waiters(plan: &Plan) -> Race {
    let window = plan.window;
    let entry = |count: usize| {
        let name = format!("{count} waiters on one lock");
        Entry::ours(name)
            .job(move || async move {
                let crowd = load::crowd(&Library::in_memory(), count + 1, window).await?;
                Ok(vec![crowd.rate])
            })
            .job(move || async move {
                let library = Library::durable(Durability::Process).await?;
                let crowd = load::crowd(&library, count + 1, window).await?;
                Ok(vec![crowd.rate])
            })
    };
    let entries = plan.size(vec![10, 1_000, 10_000], vec![10, 1_000]);
    let entries = entries.into_iter().map(entry).collect();
    sizes("hand-overs of one lock", &["in memory", "durable"], entries)
}

/// Others at work beside so many agents who wait for each other without an end in sight.
fn agents(plan: &Plan) -> Race {
    let window = plan.window;
    let entry = |count: usize| {
        let stuck = Arc::new(OnceCell::new());
        Entry::ours(format!("{count} agents waiting in a random graph")).job(move || {
            let stuck = stuck.clone();
            async move {
                let stuck: &Stuck = stuck.get_or_try_init(|| Stuck::new(count)).await?;
                Ok(vec![load::uncontended(&stuck.library, 16, window).await?])
            }
        })
    };
    let entries = plan.size(vec![10, 1_000, 100_000], vec![10, 1_000]);
    let entries = entries.into_iter().map(entry).collect();
    sizes("own locks of 16 others, in the same project, in memory", &["pairs/s"], entries)
}

/// Agents who wait, each holding what others wait for.
struct Stuck {
    library: Library,
    /// Ends all waits with itself.
    _waits: JoinSet<()>,
    _sessions: Vec<Session>,
}

impl Stuck {
    async fn new(count: usize) -> Result<Stuck> {
        let library = Library::in_memory();
        let name = |nth: usize| Resource::file(&format!("stuck/{nth}"));
        let (mut sessions, mut waits) = (Vec::with_capacity(count + 1), JoinSet::new());
        // The last one holds and does not wait, or it would be a ring.
        for nth in 0..=count {
            let session = library.manager().session(PROJECT, "stuck").await?;
            session.acquire(name(nth)).lease(Duration::from_secs(3600)).await?.leave();
            sessions.push(session);
        }
        for (nth, session) in sessions.iter().enumerate().take(count) {
            let later = nth + 1 + rand::random_range(0..count - nth);
            let asks = session.acquire(name(later)).wait(Duration::from_secs(3600));
            waits.spawn(async move { drop(asks.await) });
        }
        let demo = library.manager().project(PROJECT).await?;
        while demo.stats().await?.tickets < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Stuck { library, _waits: waits, _sessions: sessions })
    }
}

/// The same work in one project or spread over many.
fn projects(plan: &Plan) -> Race {
    let window = plan.window;
    let entry = |count: usize| {
        Entry::ours(format!("{count} projects")).job(move || async move {
            let spread = Spread { library: Library::durable(Durability::Process).await?, count };
            let rate = load::uncontended(&spread, CLIENTS, window).await?;
            spread.library.shutdown().await;
            Ok(vec![rate])
        })
    };
    let entries = plan.size(vec![1, 100, 1_000], vec![1, 100]);
    sizes(
        "own locks of 64 clients, durable",
        &["pairs/s"],
        entries.into_iter().map(entry).collect(),
    )
}

const CLIENTS: usize = 64;

/// A library whose clients go from project to project.
struct Spread {
    library: Library,
    count: usize,
}

/// A client with a session in each of its projects.
struct Wanders {
    agents: Vec<Agent>,
    at: usize,
}

impl Peer for Spread {
    type Client = Wanders;

    async fn client(&self, nth: usize) -> Result<Wanders> {
        let mut agents = Vec::new();
        // All projects have somebody, and everybody has a project.
        for project in (nth % self.count..self.count).step_by(CLIENTS) {
            agents.push(self.library.agent(&format!("project-{project}"), nth).await?);
        }
        Ok(Wanders { agents, at: 0 })
    }
}

impl Client for Wanders {
    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        self.at = (self.at + 1) % self.agents.len();
        self.agents[self.at].acquire(key).await
    }

    async fn release(&mut self) -> Result<()> {
        self.agents[self.at].release().await
    }
}

/// The same work on a store that is new, and on one that has seen much.
fn history(plan: &Plan, house: &Arc<House>) -> Race {
    let window = plan.window;
    let entry = |name: String, rows: usize| {
        let house = house.clone();
        Entry::ours(name).job(move || {
            let house = house.clone();
            async move {
                let history = house.history(rows).await?;
                let library = Library::at(&history.path(), Durability::Process).await?;
                let rate = load::uncontended(&library, CLIENTS, window).await?;
                library.shutdown().await;
                Ok(vec![rate])
            }
        })
    };
    let rows = rows(plan);
    let entries = vec![
        entry("a new store".to_owned(), 0),
        entry(format!("{rows} released rows in it"), rows),
    ];
    sizes("own locks of 64 clients, durable", &["pairs/s"], entries)
}

/// What one more agent who waits costs a daemon; and how much of that is not the store, which keeps
/// what was written last at hand.
fn memory(plan: &Plan) -> Race {
    let count = plan.size(10_000, 1_000);
    let shipped = Entry::ours(format!("daemon, {count} agents waiting for one lock"));
    let shipped = shipped.job(move || async move {
        let daemon = Daemon::start().await?;
        Ok(vec![cost_of_waiting(&daemon, count).await?])
    });
    let volatile = Entry::ours("the same, locks in memory").job(move || async move {
        let daemon = Daemon::with("memory").await?;
        Ok(vec![cost_of_waiting(&daemon, count).await?])
    });
    let target = Target { bound: Bound::AtMost(2048.0), columns: vec![] };
    Race {
        scenario: SCENARIO,
        sheets: vec![("memory of a session that waits".to_owned(), Unit::Bytes)],
        across: "",
        columns: vec!["for each".to_owned()],
        entries: vec![shipped.reaching(0, target), volatile],
    }
}

/// How many waits one connection may have.
const WAITS: usize = 1_000;

async fn cost_of_waiting(daemon: &Arc<Daemon>, count: usize) -> Result<f64> {
    let connect = |agent| Caller::connect_as(daemon, PROJECT, agent);
    let mut holder = connect("holds").await?;
    if holder.acquire(&Key::hot()).await? != Granted::Yes {
        return trouble("nobody else holds it");
    }
    let mut callers = Vec::new();
    for _ in 0..count.div_ceil(WAITS) {
        callers.push(connect("waits").await?);
    }
    let before = resident(daemon.pid())?;
    for (nth, caller) in callers.iter_mut().enumerate() {
        caller.park(WAITS.min(count - nth * WAITS), &Key::hot()).await?;
    }
    holder.all_wait(count).await?;
    let after = resident(daemon.pid())?;
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

/// How much memory a process has, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let kilobytes = kilobytes.ok_or_else(|| Trouble("the system does not tell".to_owned()))?;
    Ok(kilobytes * 1024)
}

//! Clients that come and go for a long time, each under names of its own: what is theirs goes with
//! them, and the daemon is no larger than before (I18).
//!
//! `LOCKKEEPER_SIEGE_SECONDS=1800 cargo test --release --test siege who_comes_and_goes --
//! --nocapture` shows the memory of the daemon, minute by minute.

use crate::{
    PATIENCE, PROJECT,
    daemon::Daemon,
    load::{assert_log_is_small, client, is_empty, median, memory, open, stats, until_within},
    witness::seconds,
};
use lockkeeper::{
    Acquire, AcquireAll, Answer, AskOptions, Cancel, CancelTarget, Credential, LockMode, Release,
    Renew, RequestId, Resource, ResourceType, SessionId, SessionKind, TicketId, Wait,
    remote::Client, wire::Subscribe,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How many are there at once.
const VISITORS: u64 = 16;

/// A detached session lives so long with nothing, and its last ticket two minutes.
const SETTLED: Duration = Duration::from_secs(13 * 60);

/// One after the other comes, under a name that nobody had, and goes.
struct Visitor {
    daemon: Arc<Daemon>,
    nth: u64,
    visits: u64,
    dice: SmallRng,
}

/// A visit.
struct Visit {
    client: Client,
    session: SessionId,
}

impl Visitor {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice.random_range(0..sides)
    }

    fn options(&mut self) -> AskOptions {
        let request_id = Some(RequestId::new(self.dice.random()));
        let (wait, lease) = (Some(Duration::from_secs(20)), Some(Duration::from_secs(5)));
        AskOptions { request_id, wait, lease, ..AskOptions::default() }
    }

    /// What nobody has named before, now and then of a type that nobody has named before.
    fn fresh(&mut self, turn: u64) -> Resource {
        let key = format!("{}x{}x{turn}", self.nth, self.visits);
        match self.roll(16) {
            0 => Resource::new(ResourceType::from(format!("kind{key}").as_str()), &key),
            _ => Resource::file(&key),
        }
    }

    async fn visit(&mut self) {
        self.visits += 1;
        let client = client(&self.daemon).await;
        let is_detached = self.roll(8) == 0;
        let kind = if is_detached { SessionKind::Detached } else { SessionKind::Attached };
        let session = open(&client, &format!("agent-{}-{}", self.nth, self.visits), kind).await;
        let visit = Visit { client, session };
        for turn in 0..=self.roll(4) {
            match self.roll(12) {
                0 => self.queues(&visit).await,
                1 => self.gives_up(&visit).await,
                2 => self.takes_many(&visit, turn).await,
                3 => {
                    let to = Subscribe { project: Some(PROJECT.into()), ..Subscribe::default() };
                    visit.client.subscribe(to).await.expect("an answer");
                }
                4 => drop(self.takes(&visit, turn).await),
                _ => self.takes_and_gives(&visit, turn).await,
            }
        }
        // Then the line is cut: what a killed process leaves behind looks the same.
    }

    async fn takes(&mut self, visit: &Visit, turn: u64) -> lockkeeper::LockId {
        let (resource, mode, options) = (self.fresh(turn), LockMode::Exclusive, self.options());
        let acquire = Acquire { session: visit.session, resource, mode, options };
        match visit.client.command(PROJECT, acquire).await {
            Ok(Answer::Granted(grants)) => grants[0].lock,
            other => panic!("{other:?}"),
        }
    }

    async fn takes_and_gives(&mut self, visit: &Visit, turn: u64) {
        let lock = self.takes(visit, turn).await;
        let by = Credential::Session(visit.session);
        let request_id = Some(RequestId::new(self.dice.random()));
        let renew = Renew { by, lock, lease: None, shorten: false, request_id };
        visit.client.command(PROJECT, renew).await.expect("it is held");
        let request_id = Some(RequestId::new(self.dice.random()));
        let release = Release { by, lock, share: None, request_id };
        visit.client.command(PROJECT, release).await.expect("it is held");
    }

    async fn takes_many(&mut self, visit: &Visit, turn: u64) {
        let wants =
            (0..3).map(|one| (self.fresh(10 + turn * 10 + one), LockMode::Shared)).collect();
        let options = self.options();
        let batch = AcquireAll { session: visit.session, wants, options };
        visit.client.command(PROJECT, batch).await.expect("nobody else wants them");
    }

    fn wanted(&mut self, visit: &Visit, slice: Option<Duration>) -> Acquire {
        let options = AskOptions { slice, ..self.options() };
        let (resource, mode) = (Resource::file("wanted"), LockMode::Exclusive);
        Acquire { session: visit.session, resource, mode, options }
    }

    /// Gets a ticket for what it will never have, and polls it, gives it up or forgets it.
    async fn queues(&mut self, visit: &Visit) {
        let acquire = self.wanted(visit, Some(Duration::ZERO));
        let ticket: TicketId = match visit.client.command(PROJECT, acquire).await {
            Ok(Answer::Queued { ticket, .. }) => ticket,
            // It has a place already.
            Err(_) => return,
            other => panic!("{other:?}"),
        };
        let session = visit.session;
        match self.roll(3) {
            0 => {
                let cancel = Cancel { session, target: CancelTarget::Ticket(ticket) };
                visit.client.command(PROJECT, cancel).await.expect("it has the place");
            }
            1 => {
                let poll = Wait { session, ticket, slice: Some(Duration::from_millis(20)) };
                visit.client.command(PROJECT, poll).await.expect("it has the place");
            }
            _ => {}
        }
    }

    /// Waits for it, and is gone before it has an answer.
    async fn gives_up(&mut self, visit: &Visit) {
        let acquire = self.wanted(visit, None);
        let span = Duration::from_millis(self.roll(20));
        let _ = timeout(span, visit.client.command(PROJECT, acquire)).await;
    }
}

/// Whether there is time to see what becomes of detached sessions.
fn is_long() -> bool {
    seconds(0) > SETTLED * 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_leaves_the_daemon_as_it_was() {
    let daemon = Arc::new(Daemon::start());
    let host = client(&daemon).await;
    let held = open(&host, "host", SessionKind::Attached).await;
    let options = AskOptions { lease: Some(Duration::from_secs(86_400)), ..AskOptions::default() };
    let (resource, mode) = (Resource::file("wanted"), LockMode::Exclusive);
    let acquire = Acquire { session: held, resource, mode, options };
    assert!(matches!(host.command(PROJECT, acquire).await, Ok(Answer::Granted(_))));
    let (over, visits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut visitors = JoinSet::new();
    for nth in 0..VISITORS {
        let (daemon, dice) = (daemon.clone(), SmallRng::seed_from_u64(nth));
        let mut visitor = Visitor { daemon, nth, visits: 0, dice };
        let (over, visits) = (over.clone(), visits.clone());
        visitors.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                visitor.visit().await;
                visits.fetch_add(1, Ordering::Relaxed);
                let pause = visitor.roll(200);
                sleep(Duration::from_millis(pause)).await;
            }
        });
    }
    let (started, long) = (Instant::now(), seconds(8));
    let mut samples = Vec::new();
    let mut told = 0;
    while started.elapsed() < long {
        sleep(Duration::from_millis(250)).await;
        samples.push(memory(&daemon));
        if started.elapsed().as_secs() / 60 > told {
            told = started.elapsed().as_secs() / 60;
            tell(&daemon, &host, told, visits.load(Ordering::Relaxed)).await;
        }
    }
    over.store(true, Ordering::Relaxed);
    while let Some(done) = visitors.join_next().await {
        done.expect("nothing went wrong");
    }
    host.command(
        PROJECT,
        lockkeeper::EndSession { session: held, cause: lockkeeper::EndCause::Closed },
    )
    .await
    .expect("it was there");
    let patience = if is_long() { SETTLED + PATIENCE } else { PATIENCE };
    until_within(&host, patience, |stats| {
        let nothing = [stats.holds, stats.tickets, stats.graph_nodes, stats.graph_edges] == [0; 4];
        nothing && (!is_long() || is_empty(stats))
    })
    .await;
    tell(&daemon, &host, started.elapsed().as_secs() / 60, visits.load(Ordering::Relaxed)).await;
    assert_log_is_small(&daemon);
    let quarter = samples.len() / 4;
    let middle = median(samples[quarter..2 * quarter].to_vec());
    let last = median(samples[3 * quarter..].to_vec());
    println!("{middle} KiB in the second quarter, {last} KiB in the last one");
    assert!(last < middle + middle / 4 + 16 * 1024, "from {middle} to {last} KiB");
}

async fn tell(daemon: &Daemon, host: &Client, minute: u64, visits: u64) {
    let now = stats(host).await;
    let store = std::fs::metadata(daemon.folder().join("locks.db")).map_or(0, |file| file.len());
    println!(
        "minute {minute}: {} KiB, {visits} visits, {} sessions, {} tickets, {} MiB of history",
        memory(daemon),
        now.sessions,
        now.tickets,
        store >> 20
    );
}

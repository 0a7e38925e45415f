//! `cargo bench -p lockkeeper-store --bench commit`: how many pairs of a grant and a release become
//! durable in a second, with so many clients who each wait for both.
//!
//! Beside the writer, in turns in the same run so that a noisy machine disturbs all alike: the same
//! rows written by hand, with nothing around them, in batches of as many as there are clients
//! (what the engine and the disk allow) and in one transaction each (what comes of not thinking
//! about it). Shown are the medians of the rounds. `LOCKKEEPER_BENCH_DIR` says where to write.

#![allow(clippy::print_stdout, reason = "its figures are what it is for")]

use lockkeeper_core::*;
use lockkeeper_store::{
    Claim, Durability, OpenOptions, Retention, SqliteStore, Writer, WriterOptions,
};
use rusqlite::{Connection, TransactionBehavior};
use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_millis(400);

fn main() {
    let folder = std::env::var_os("LOCKKEEPER_BENCH_DIR").map(PathBuf::from);
    let folder = folder.unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(folder).expect("a place to write");
    println!(
        "{:<8} {:>7} {:>12} {:>12} {:>12} {:>10} {:>10}",
        "", "clients", "writer/s", "by hand/s", "one by one/s", "of by hand", "x one"
    );
    for durability in [Durability::Process, Durability::Power] {
        for clients in [1, 16, 256] {
            compare(folder.path(), durability, clients);
        }
    }
}

fn compare(folder: &Path, durability: Durability, clients: usize) {
    let name = |what: &str| folder.join(format!("{durability:?}-{clients}-{what}.db"));
    let mut writer = Clients::new(&name("writer"), durability, clients);
    let mut by_hand = ByHand::new(&name("hand"), durability, clients);
    let mut one_by_one = ByHand::new(&name("one"), durability, clients);
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        rounds[0].push(rate(|| writer.round()));
        rounds[1].push(rate(|| by_hand.round(clients)));
        rounds[2].push(rate(|| one_by_one.round(1)));
    }
    let [writer, by_hand, one_by_one] = rounds.map(median);
    println!(
        "{:<8} {clients:>7} {writer:>12.0} {by_hand:>12.0} {one_by_one:>12.0} {:>9.0}% {:>10.1}",
        format!("{durability:?}"),
        writer / by_hand * 100.0,
        writer / one_by_one
    );
}

/// Pairs in a second.
fn rate(mut round: impl FnMut() -> usize) -> f64 {
    let (began, mut pairs) = (Instant::now(), 0);
    while began.elapsed() < WINDOW {
        pairs += round();
    }
    pairs as f64 / began.elapsed().as_secs_f64()
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

/// A table and its clients, in front of the writer.
struct Clients {
    writer: Writer,
    claim: Claim,
    table: LockTable,
    session: SessionId,
    names: Vec<Resource>,
    told: Sender<(usize, Answer)>,
    hears: Receiver<(usize, Answer)>,
}

impl Clients {
    fn new(path: &Path, durability: Durability, clients: usize) -> Clients {
        let options = OpenOptions { durability, ..OpenOptions::default() };
        let store = SqliteStore::open(path, options).expect("a store");
        let never = Retention { released: None, audit: None, ..Retention::default() };
        let options = WriterOptions { retention: never, ..WriterOptions::default() };
        let writer = Writer::start(Box::new(store), options).expect("a thread");
        let (tell, claimed) = channel();
        writer.claim("bench".into(), move |claim| drop(tell.send(claim)));
        let claim = claimed.recv().expect("told").expect("claimed").0;
        let table = LockTable::new(TableConfig::default(), Reign::first(5));
        let (told, hears) = channel();
        let names = (0..clients).map(|n| Resource::file(&format!("src/part_{n}/lib.rs"))).collect();
        let session = SessionId::from_u64(0);
        let mut clients = Clients { writer, claim, table, session, names, told, hears };
        let open = OpenSession { agent: "agent-bench".into(), ..OpenSession::default() };
        clients.submit(0, open.into());
        let Ok((_, Answer::SessionOpened { session })) = clients.hears.recv() else { panic!() };
        clients.session = session;
        clients
    }

    fn submit(&mut self, client: usize, command: Command) {
        let turn = self.table.apply(now(), command);
        let told = self.told.clone();
        self.writer.submit(&self.claim, turn, move |settled| {
            let mut replies = settled.expect("written").into_parts().0;
            let answer = replies.remove(0).outcome.expect("granted");
            let _ = told.send((client, answer));
        });
    }

    fn ask(&mut self, client: usize) {
        let (session, resource) = (self.session, self.names[client].clone());
        let (mode, options) = (LockMode::Exclusive, AskOptions::default());
        self.submit(client, Acquire { session, resource, mode, options }.into());
    }

    /// Each client goes on as soon as it is told; 20 pairs each, so that nobody waits for the
    /// slowest all the time.
    fn round(&mut self) -> usize {
        const EACH: usize = 20;
        let mut left = vec![EACH; self.names.len()];
        (0..left.len()).for_each(|client| self.ask(client));
        let mut pairs = 0;
        while pairs < EACH * left.len() {
            let (client, answer) = self.hears.recv().expect("told");
            match answer {
                Answer::Granted(grants) => {
                    let by = Credential::Session(self.session);
                    let (lock, share) = (grants[0].lock, Some(grants[0].ticket));
                    self.submit(client, Release { by, lock, share, request_id: None }.into());
                }
                _ => {
                    pairs += 1;
                    left[client] -= 1;
                    if left[client] > 0 {
                        self.ask(client);
                    }
                }
            }
        }
        pairs
    }
}

/// The same rows, with nothing around them.
struct ByHand {
    db: Connection,
    next: u64,
    names: Vec<String>,
}

const GRANT: &str = "INSERT INTO resource_locks (id, project_id, resource_type, resource_key,
        agent_id, acquired_at, timeout_at, session_id, mode, token, lease_ms, ticket, birth,
        wait_ms)
    VALUES (?1, 'bench', 'file', ?2, 'agent-bench', ?3, ?4, 4294967297, 'exclusive', ?5, 300000,
        ?5, ?5, 0)";
const RELEASE: &str = "UPDATE resource_locks SET released_at = ?2, release_cause = 'released',
        released_by = agent_id, shares = '[]' WHERE id = ?1";
const AUDIT: &str = "INSERT INTO audit_log (project_id, event_type, event_time, agent_id, resource,
        token, details) VALUES ('bench', ?1, ?2, 'agent-bench', ?3, ?4, ?5)";
const META: &str = "UPDATE lock_meta SET seq = ?1, last_event = ?1 WHERE project_id = 'bench'";

impl ByHand {
    fn new(path: &Path, durability: Durability, clients: usize) -> ByHand {
        drop(SqliteStore::open(path, OpenOptions::default()).expect("a store"));
        let db = Connection::open(path).expect("a database");
        let synchronous = if durability == Durability::Power { "FULL" } else { "NORMAL" };
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536;
             INSERT INTO projects VALUES ('bench', '');
             INSERT INTO lock_meta VALUES ('bench', 1, 0, 0, '')"
        ))
        .expect("set up");
        let names = (0..clients).map(|n| format!("src/part_{n}/lib.rs")).collect();
        ByHand { db, next: 1, names }
    }

    /// A pair for each client, so many grants or releases in a transaction.
    fn round(&mut self, batch: usize) -> usize {
        let pairs = self.names.len();
        let first = self.next;
        self.next += pairs as u64;
        for is_grant in [true, false] {
            for start in (0..pairs).step_by(batch) {
                let some = start..(start + batch).min(pairs);
                self.write(first, some, is_grant).expect("written");
            }
        }
        pairs
    }

    fn write(
        &mut self,
        first: u64,
        some: std::ops::Range<usize>,
        is_grant: bool,
    ) -> rusqlite::Result<()> {
        let kind = TransactionBehavior::Immediate;
        let transaction = self.db.transaction_with_behavior(kind)?;
        let mut last = 0;
        for client in some {
            let (number, key) = (first + client as u64, &self.names[client]);
            let id = LockId::from_u128(u128::from(number) << 64).to_string();
            let (at, until) = ("2026-01-02T03:04:05.678Z", "2026-01-02T03:09:05.678Z");
            let (event, details) = match is_grant {
                true => {
                    let row = (&id, key, at, until, number);
                    transaction.prepare_cached(GRANT)?.execute(row)?;
                    let details = format!(
                        "{{\"granted\":{{\"lock\":\"{id}\",\"ticket\":{number},\
                         \"session\":4294967297,\"resource\":\"file:{key}\",\
                         \"mode\":\"exclusive\",\"token\":{number},\"slots\":[],\
                         \"lease_ms\":300000,\"expires_at\":1767323345678,\"wait_ms\":0}}}}"
                    );
                    ("lock_granted", details)
                }
                false => {
                    transaction.prepare_cached(RELEASE)?.execute((&id, at))?;
                    let details = format!(
                        "{{\"released\":{{\"lock\":\"{id}\",\"remaining\":0,\
                         \"cause\":\"released\",\"share\":{number}}}}}"
                    );
                    ("lock_released", details)
                }
            };
            let row = (event, at, format!("file:{key}"), number, details);
            transaction.prepare_cached(AUDIT)?.execute(row)?;
            last = number;
        }
        transaction.prepare_cached(META)?.execute([last])?;
        transaction.commit()
    }
}

//! The rows that a grant and a release become, written by plain `rusqlite` with nothing around
//! them: one transaction each, which is what comes of not thinking about it, or as many in one as
//! there are clients, which is what the engine and the disk allow.

use crate::{
    place,
    trouble::{Result, trouble},
};
use lockkeeper_core::LockId;
use lockkeeper_store::{Durability, OpenOptions, SqliteStore};
use rusqlite::{Connection, TransactionBehavior};
use std::{
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A store that is written by hand.
pub(crate) struct ByHand {
    db: Connection,
    next: u64,
    names: Vec<String>,
    /// How many grants or releases are in a transaction.
    batch: usize,
    /// The moment of all rows, and when their leases would have ended: now, or what is old would
    /// be pruned as soon as a store with them is opened.
    moments: [String; 2],
    _folder: Option<TempDir>,
}

const GRANT: &str = "INSERT INTO resource_locks (id, project_id, resource_type, resource_key,
        agent_id, acquired_at, timeout_at, session_id, mode, token, lease_ms, ticket, birth,
        wait_ms)
    VALUES (?1, 'bench', 'file', ?2, 'agent-bench', ?3, ?4, 4294967297, 'exclusive', ?5, 300000,
        ?5, ?5, 0)";
const RELEASE: &str = "UPDATE resource_locks SET released_at = ?2, release_cause = 'released',
        released_by = agent_id, shares = '[]' WHERE id = ?1";
const AUDIT: &str =
    "INSERT OR FAIL INTO audit_log (project_id, event_type, event_time, agent_id, resource,
        token, details) VALUES ('bench', ?1, ?2, 'agent-bench', ?3, ?4, ?5)";
const NOW: &str = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
        strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+5 minutes')";
const META: &str = "UPDATE lock_meta SET seq = ?1, last_event = ?1 WHERE project_id = 'bench'";

impl ByHand {
    /// A new store, for so many clients.
    pub(crate) fn new(durability: Durability, clients: usize, batch: usize) -> Result<ByHand> {
        let folder = place::folder()?;
        let mut by_hand = ByHand::at(&folder.path().join("locks.db"), durability, clients, batch)?;
        by_hand._folder = Some(folder);
        Ok(by_hand)
    }

    /// A new store in this file.
    pub(crate) fn at(
        path: &Path,
        durability: Durability,
        clients: usize,
        batch: usize,
    ) -> Result<ByHand> {
        drop(SqliteStore::open(path, OpenOptions::default())?);
        let db = Connection::open(path)?;
        let synchronous = if durability == Durability::Power { "FULL" } else { "NORMAL" };
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536;
             INSERT INTO projects VALUES ('bench', '');
             INSERT INTO lock_meta VALUES ('bench', 1, 0, 0, '')"
        ))?;
        let names = (0..clients).map(|n| format!("own/{n}")).collect();
        let moments = db.query_row(NOW, (), |row| Ok([row.get(0)?, row.get(1)?]))?;
        Ok(ByHand { db, next: 1, names, batch, moments, _folder: None })
    }

    /// Pairs in a second.
    pub(crate) fn rate(&mut self, window: Duration) -> Result<f64> {
        let (began, mut pairs) = (Instant::now(), 0);
        while began.elapsed() < window {
            pairs += self.round()?;
        }
        Ok(pairs as f64 / began.elapsed().as_secs_f64())
    }

    /// A pair for each client.
    pub(crate) fn round(&mut self) -> Result<usize> {
        let pairs = self.names.len();
        let first = self.next;
        self.next += pairs as u64;
        for is_grant in [true, false] {
            for start in (0..pairs).step_by(self.batch) {
                self.write(first, start..(start + self.batch).min(pairs), is_grant)?;
            }
        }
        Ok(pairs)
    }

    fn write(&mut self, first: u64, some: Range<usize>, is_grant: bool) -> Result<()> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut last = 0;
        for client in some {
            let (number, key) = (first + client as u64, &self.names[client]);
            let id = LockId::from_u128(u128::from(number) << 64).to_string();
            let [at, until] = &self.moments;
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
                    if transaction.prepare_cached(RELEASE)?.execute((&id, at))? != 1 {
                        return trouble("what was granted is not there to be released");
                    }
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
        Ok(transaction.commit()?)
    }
}

//! A store at rest: the same questions, without a manager.

use crate::Question;
use lockkeeper_core::{LockTable, Reign, TableConfig, Timestamp};
use lockkeeper_store::{AuditFilter, AuditRow, Checkup, StoreError};
use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// A store as it is recorded, for whoever only wants to look: nothing is owned, taken over,
/// migrated or changed, not a byte, whoever has the store open.
///
/// It shows what is written, as it was written: a lease that is over stays a lease until somebody
/// takes the project over, and gets its full time again then. A project is read when it is first
/// asked about, and all answers about it are of that moment. The calls wait for the disk.
///
/// ```no_run
/// use lockkeeper::{List, Snapshot};
///
/// let mut snapshot = Snapshot::of("locks.db")?;
/// for project in snapshot.projects()? {
///     for holder in snapshot.see(&project, &List {})? {
///         writeln!(std::io::stdout(), "{project}: {} has {}", holder.agent, holder.resource)?;
///     }
/// }
/// # use std::io::Write;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshot {
    store: lockkeeper_store::Snapshot,
    tables: HashMap<String, LockTable>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Looks at a store. One that is not there is [`StoreError::Missing`].
    pub fn of(path: impl AsRef<Path>) -> Result<Snapshot, StoreError> {
        let store = lockkeeper_store::Snapshot::read(path)?;
        Ok(Snapshot { store, tables: HashMap::new() })
    }

    /// The names of all projects, in order.
    pub fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.store.projects()
    }

    /// Asks about a project. One that nobody has heard of is empty.
    pub fn see<Q: Question>(
        &mut self,
        project: &str,
        question: &Q,
    ) -> Result<Q::Answer, StoreError> {
        if !self.tables.contains_key(project) {
            let table = self.table(project)?;
            self.tables.insert(project.to_owned(), table);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Ok(question.see(&self.tables[project], now))
    }

    /// The audit log of all projects, filtered.
    pub fn audit(&mut self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        self.store.audit(filter)
    }

    /// Looks whether the file is well. Reads all of it.
    pub fn check(&mut self) -> Result<Checkup, StoreError> {
        self.store.check()
    }

    fn table(&mut self, project: &str) -> Result<LockTable, StoreError> {
        let config = TableConfig::default();
        let Some((claim, records)) = self.store.live(project)? else {
            return Ok(LockTable::new(config, Reign::first(0)));
        };
        // It decides nothing, so it needs no ids that nobody can foresee.
        let reign = Reign { epoch: claim.epoch, id_seed: 0, last_event: claim.last_event };
        let mut table = LockTable::new(config, reign);
        for record in &records {
            table.replay(record);
        }
        Ok(table)
    }
}

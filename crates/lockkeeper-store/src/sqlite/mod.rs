//! The store in one SQLite file.
//!
//! | file | does |
//! |---|---|
//! | `mod.rs` | open, claim, and the one transaction of a group commit |
//! | `commit.rs` | one batch of it, and who may write |
//! | `project.rs` | what each fact changes |
//! | `details.rs` | a fact as JSON |
//! | `journal.rs` | what is acknowledged and not in the other tables yet |
//! | `carry.rs` | from the journal into the tables |
//! | `backlog.rs` | when that is done, and what if it fails |
//! | `live.rs` | the live rows of a project, read and kept |
//! | `load.rs` | the live rows as facts to be replayed |
//! | `log.rs` | the log of writes beside the file, moved into it |
//! | `memory.rs` | what sessions remember of finished requests, from the audit log |
//! | `prune.rs` | what is over and old, removed |
//! | `reader.rs` | questions |
//! | `snapshot.rs` | questions to a store that is not owned, without changing a byte |

mod backlog;
mod carry;
mod commit;
mod details;
mod journal;
mod live;
mod load;
mod log;
mod memory;
mod project;
mod prune;
mod reader;
mod snapshot;
#[cfg(test)]
mod tests;

use crate::{
    Batch, Claim, Durability, MigrationReport, PruneBefore, Reader, Store, StoreError,
    error::Trouble, owner::Owner, owner::private, schema, text,
};
use backlog::Backlog;
use commit::{Written, check_epoch, records_something, write};
use journal::Entry;
use live::Live;
use lockkeeper_core::{Epoch, Record};
use log::Log;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
pub use snapshot::{Checkup, Snapshot, check};
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How a store is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// What an acknowledged answer survives. [`Durability::Memory`] is a [`crate::MemoryStore`]
    /// instead; here it counts as [`Durability::Process`].
    pub durability: Durability,
    /// How others can reach this process, for whoever finds the store owned.
    pub reach: Option<String>,
    /// How long to wait for another program that has locked the file, a database browser for
    /// instance.
    pub busy_wait: Duration,
    /// The most bytes the file may have; beyond them the store is [`StoreError::Full`].
    pub bytes_max: Option<u64>,
    /// How long something may be in the journal alone before it is in the other tables as well,
    /// where other programs see it: 100 ms. Whoever asks this store always sees it.
    pub lag: Duration,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            durability: Durability::Process,
            reach: None,
            busy_wait: Duration::from_secs(5),
            bytes_max: None,
            lag: Duration::from_millis(100),
        }
    }
}

/// The store in one SQLite file. Whoever has it open owns it; it is free when this is dropped.
#[derive(Debug)]
pub struct SqliteStore {
    // Closed before the lock is given back: fields are dropped in this order.
    log: Log,
    db: Connection,
    path: PathBuf,
    synchronous: &'static str,
    /// Whether a sync of the log of writes may have failed: here, or while somebody else had it.
    /// Systems drop what they could not write, so the next sync would succeed without it.
    unsure: bool,
    /// Whether something is being written. If it still is when the next thing begins, it ended in a
    /// panic, and memory may be ahead of what is on record.
    is_busy: bool,
    reigns: HashMap<Arc<str>, Reigning>,
    backlog: Backlog,
    prune_from: prune::Cursors,
    _owner: Owner,
}

/// What the store knows of the newest claim of a project.
#[derive(Debug)]
struct Reigning {
    epoch: Epoch,
    /// The last turn that was written, those that recorded nothing included.
    seq: u64,
    /// The live rows; none after a failure: they are read again.
    live: Option<Live>,
}

impl SqliteStore {
    /// Opens a file, or makes it, and brings its schema up to date.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_and_migrate(path.as_ref(), &options, None).map(|(store, _)| store)
    }

    fn open_and_migrate(
        path: &Path,
        options: &OpenOptions,
        backup: Option<&Path>,
    ) -> Result<(SqliteStore, MigrationReport), StoreError> {
        let path = real_path(path)?;
        let owner = Owner::take(&path, options.reach.as_deref())?;
        let mut db = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, options.busy_wait)?;
        // SQLite makes do with reading if it has to.
        if db.is_readonly("main").map_err(|error| StoreError::of_sqlite(&path, &error))? {
            return Err(StoreError::ReadOnly { path });
        }
        // Before anything is changed.
        let found = schema::version(&path, &db)?;
        let copied = backup.filter(|_| found > 0).map(|to| copy(&path, &db, to)).transpose()?;
        let synchronous = match options.durability {
            Durability::Power => SYNCED,
            Durability::Process | Durability::Memory => "NORMAL",
        };
        set_up(&db, synchronous, options.bytes_max)
            .map_err(|error| StoreError::of_sqlite(&path, &error))?;
        let applied = schema::apply(&path, &mut db, found)?;
        let report = MigrationReport {
            path: path.clone(),
            from: found,
            to: schema::NEWEST,
            applied,
            backup: copied,
        };
        let (reigns, prune_from) = (HashMap::new(), prune::Cursors::default());
        let backlog = Backlog::of(options.lag);
        let log = Log::of(&mut db, &path, options)
            .map_err(|error| StoreError::of_sqlite(&path, &error))?;
        let unsure = true;
        let store = SqliteStore {
            log,
            db,
            path,
            synchronous,
            unsure,
            is_busy: false,
            reigns,
            backlog,
            prune_from,
            _owner: owner,
        };
        Ok((store, report))
    }

    fn of_sqlite(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::of_sqlite(&self.path, error)
    }

    /// Writes the batches in one transaction; the outcome of each. The outer error is for all of
    /// them: whoever gets it has to [`SqliteStore::recover`], and nothing is written.
    fn write_together(
        &mut self,
        batches: &[Batch<'_>],
    ) -> Result<Vec<Result<(), StoreError>>, Trouble> {
        self.make_room()?;
        self.is_busy = true;
        let SqliteStore { db, reigns, backlog, .. } = self;
        // A lone batch is one statement, which is a transaction of its own. What records nothing
        // costs no write.
        let together = match batches {
            [] | [_] => false,
            more => more.iter().any(records_something),
        };
        if together {
            db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut reached: Vec<(&Arc<str>, u64)> = Vec::with_capacity(batches.len());
        let mut entries: Vec<Entry> = Vec::with_capacity(batches.len());
        let mut is_stale = false;
        for batch in batches {
            let project = &batch.claim.project;
            let before = reached.iter().rev().find(|(other, _)| *other == project);
            let before = before.map(|(_, seq)| *seq);
            let outcome = match backlog.why_broken(project) {
                Some(why) => Err(why),
                None => write(db, reigns, batch, before, &mut entries)?,
            };
            // Taken into what is live, and not on record: the claim was superseded.
            is_stale |= matches!(outcome, Ok(Written::NotAny(_)));
            let outcome = outcome.and_then(|written| match written {
                Written::All => Ok(()),
                Written::NotAny(why) => Err(why),
            });
            if let (Ok(()), Some(last)) = (&outcome, batch.turns.last()) {
                reached.push((project, last.call().0));
            }
            outcomes.push(outcome);
        }
        if together {
            db.prepare_cached("COMMIT")?.execute([])?;
        }
        for (project, seq) in reached {
            if let Some(reigning) = reigns.get_mut(project) {
                reigning.seq = seq;
            }
        }
        backlog.add(entries);
        if is_stale {
            self.backlog.forget();
        }
        self.is_busy = false;
        Ok(outcomes)
    }

    /// Out of what a panic left behind: nothing can be done in the middle of that.
    fn wake_up(&mut self) {
        if std::mem::take(&mut self.is_busy) || !self.db.is_autocommit() {
            self.recover();
        }
    }

    /// After a failure: out of the transaction, and nothing believed of what is live.
    fn recover(&mut self) {
        self.unsure = true;
        self.backlog.forget();
        self.is_busy = false;
        self.roll_back();
        if let Err(error) = self.db.pragma_update(None, "synchronous", self.synchronous) {
            tracing::warn!(%error, "how commits are synced could not be set back");
        }
    }

    fn roll_back(&self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a failed transaction could not be rolled back");
        }
    }

    fn commit_alone(&mut self, batch: &Batch<'_>) -> Result<(), Trouble> {
        let outcome = self.write_together(std::slice::from_ref(batch));
        if outcome.is_err() {
            self.recover();
        }
        match outcome?.pop() {
            Some(Err(error)) => Err(Trouble::Known(error)),
            _ => Ok(()),
        }
    }
}

impl Store for SqliteStore {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        self.carry_over_for(project)?;
        // The one thing that must not go back, not even after a power cut: tokens grow out of it.
        self.db
            .pragma_update(None, "synchronous", SYNCED)
            .map_err(|error| self.of_sqlite(&error))?;
        let moved = if self.unsure { move_log(&self.db) } else { Ok(true) };
        let claimed = moved.and_then(|moved| {
            let claimed = raise_epoch(&mut self.db, project)?;
            self.unsure = !moved;
            Ok(claimed)
        });
        let back = self.db.pragma_update(None, "synchronous", self.synchronous);
        if claimed.is_err() {
            self.recover();
        }
        let claimed = claimed.map_err(|error| self.of_sqlite(&error))?;
        back.map_err(|error| self.of_sqlite(&error))?;
        let project: Arc<str> = project.into();
        let Some((epoch, last_event)) = claimed else {
            return Err(StoreError::Exhausted { project });
        };
        // What is owed to the tables is still owed.
        let owes = self.backlog.owes(&project);
        let before = self.reigns.remove(&project).filter(|_| owes);
        let live = before.and_then(|before| before.live);
        self.reigns.insert(project.clone(), Reigning { epoch, seq: 0, live });
        Ok(Claim { project, epoch, last_event })
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        live::projects(&self.db).map_err(|error| self.of_sqlite(&error))
    }

    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError> {
        self.carry_over_for(&claim.project)?;
        let SqliteStore { db, path, reigns, .. } = self;
        let loaded = (|| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Deferred)?;
            if let Err(refused) = check_epoch(&transaction, claim)? {
                return Err(Trouble::Known(refused));
            }
            let now = journal::present(&transaction, &claim.project, schema::NEWEST)?;
            let facts = load::facts(&transaction, &claim.project, &now.rows, &now.entries)?;
            Ok((now, facts))
        })();
        let (now, facts) = loaded.map_err(|trouble| trouble.of(path, &claim.project))?;
        if let Some(reigning) = reigns.get_mut(&claim.project)
            && reigning.epoch == claim.epoch
            && now.entries.is_empty()
        {
            reigning.live = Some(Live::of(now.rows));
        } else if !self.backlog.owes(&claim.project) {
            // Another owner has written since.
            self.backlog.forget();
        }
        Ok(facts)
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        let trouble = match self.write_together(batches) {
            Ok(outcomes) => return outcomes,
            Err(trouble) => trouble,
        };
        self.recover();
        let of = |trouble: Trouble, batch: &Batch<'_>, path: &Path| {
            trouble.of(path, &batch.claim.project)
        };
        if batches.len() > 1 && trouble.is_of_one_batch() {
            // One of them takes no other one with it: each for itself.
            let each = batches.iter().map(|batch| {
                self.commit_alone(batch).map_err(|trouble| of(trouble, batch, &self.path))
            });
            return each.collect();
        }
        let Some(first) = batches.first() else { return Vec::new() };
        let error = of(trouble, first, &self.path);
        batches.iter().map(|_| Err(error.clone())).collect()
    }

    fn may_wait(&self) -> bool {
        self.synchronous == SYNCED || self.log.may_wait()
    }

    fn is_untidy(&self) -> bool {
        self.log.is_due() || self.backlog.is_due()
    }

    fn tidy_by(&self) -> Option<Instant> {
        self.backlog.due()
    }

    fn tidy(&mut self) {
        if self.backlog.is_due()
            && let Err(trouble) = self.carry_over()
        {
            let error = trouble.of(&self.path, &"".into());
            tracing::warn!(%error, "what is in the journal could not be carried over");
        }
        self.unsure |= !self.log.tend(&self.db);
    }

    fn prune(&mut self, before: &PruneBefore, at_most: usize) -> Result<usize, StoreError> {
        // What is over may still be in the journal alone. Should there be no room to carry it over,
        // this makes some.
        if let Err(trouble) = self.carry_over() {
            let error = trouble.of(&self.path, &"".into());
            tracing::warn!(%error, "what is in the journal stays there for now");
        }
        let pruned = prune::prune(&mut self.db, &mut self.prune_from, before, at_most);
        if pruned.is_err() {
            self.recover();
        }
        pruned.map_err(|error| self.of_sqlite(&error))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        reader::SqliteReader::open(&self.path).map(|reader| Box::new(reader) as Box<dyn Reader>)
    }
}

/// Brings the schema of a file up to date, and says what was done; before that it copies the file,
/// if a place for the copy is given and there is something to copy.
pub fn migrate(
    path: impl AsRef<Path>,
    backup: Option<PathBuf>,
) -> Result<MigrationReport, StoreError> {
    let options = OpenOptions::default();
    let migrated = SqliteStore::open_and_migrate(path.as_ref(), &options, backup.as_deref());
    migrated.map(|(_, report)| report)
}

/// One file has one name, whatever links lead to it: the owner's lock stands beside that. Makes the
/// file, for this user alone, if it is not there.
fn real_path(path: &Path) -> Result<PathBuf, StoreError> {
    let mut place = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        if place.file_name().is_none() {
            let detail = "it does not name a file: choose another place".to_owned();
            return Err(StoreError::Misplaced { path: path.to_path_buf(), detail });
        }
        create(&place).map_err(|error| StoreError::of_system(&place, &error))?;
        // A link that leads to nothing yet is there and is not: what it leads to is the place.
        match (place.canonicalize(), place.read_link()) {
            (Ok(real), _) => return Ok(real),
            (Err(error), Ok(target)) if error.kind() == io::ErrorKind::NotFound => {
                place.pop();
                place.push(target);
            }
            (Err(error), _) => return Err(StoreError::of_system(path, &error)),
        }
    }
    let detail = "too many links follow one another: name the file itself".to_owned();
    Err(StoreError::Misplaced { path: path.to_path_buf(), detail })
}

/// Each commit is on the disk before it is told.
const SYNCED: &str = "FULL";

/// As many as Linux follows.
const LINKS_MAX: usize = 40;

/// Makes a file unless there is one. That one is never opened here: closing it would drop the locks
/// SQLite has on it in this process.
fn create(path: &Path) -> io::Result<()> {
    // Nor is a new one closed after another thread has got on with it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match private().create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn connect(path: &Path, access: OpenFlags, busy_wait: Duration) -> Result<Connection, StoreError> {
    let of_sqlite = |error: rusqlite::Error| StoreError::of_sqlite(path, &error);
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(of_sqlite)?;
    db.busy_timeout(busy_wait).map_err(of_sqlite)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

fn set_up(db: &Connection, synchronous: &str, bytes_max: Option<u64>) -> rusqlite::Result<()> {
    let journal: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if journal != "wal" {
        tracing::warn!(journal, "the file system has no write-ahead log: readers will wait");
    }
    db.pragma_update(None, "synchronous", synchronous)?;
    db.pragma_update(None, "foreign_keys", true)?;
    // What it keeps of the file: enough for the ends of the tables, where everything happens.
    db.pragma_update(None, "cache_size", -4 * 1024)?;
    db.pragma_update(None, "cell_size_check", true)?;
    // Where a plain sync does not reach the disk, on macOS, this one does.
    db.pragma_update(None, "fullfsync", true)?;
    if let Some(bytes) = bytes_max {
        let page: u64 = db.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = i64::try_from(bytes / page.max(1)).unwrap_or(i64::MAX);
        db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    Ok(())
}

/// A copy as of one moment, whole and on the disk; or none.
fn copy(path: &Path, db: &Connection, to: &Path) -> Result<PathBuf, StoreError> {
    let of_system = |error: io::Error| StoreError::of_system(to, &error);
    let misplaced = |detail: &str| {
        let detail = detail.to_owned();
        StoreError::Misplaced { path: to.to_path_buf(), detail }
    };
    // Whole, so that SQLite takes no name for anything but a file.
    let whole = std::path::absolute(to).map_err(of_system)?;
    let Some(name) = whole.to_str() else {
        return Err(misplaced("its name is not UTF-8: choose another one for the copy"));
    };
    // Never over something that is there already: it may be the only good copy.
    let new = private().create_new(true).open(&whole).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => misplaced(
            "something is there already, and a copy never replaces anything: choose another \
             place for the copy, or move that away",
        ),
        _ => of_system(error),
    })?;
    let copied = db.execute("VACUUM INTO ?1", [name]);
    let copied = copied.map_err(|error| StoreError::of_sqlite(path, &error));
    let copied = copied.and_then(|_| new.sync_all().map_err(of_system));
    drop(new);
    if let Err(error) = copied {
        if let Err(error) = std::fs::remove_file(&whole) {
            tracing::warn!(%error, copy = name, "half a copy could not be removed");
        }
        return Err(error);
    }
    Ok(to.to_path_buf())
}

/// Moves the log of writes into the file, so that whoever writes next begins it anew. What the file
/// is synced for was written just now, so that sync tells the truth. Waits for nobody: while others
/// read, the log may have to go on as it is. Whether all of it is in the file.
fn move_log(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, log, moved): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(!busy && log == moved)
    })
}

/// The new epoch and the last event; none if there is no epoch left.
fn raise_epoch(db: &mut Connection, project: &str) -> rusqlite::Result<Option<(Epoch, u64)>> {
    let at = text::TimeText::from(text::now());
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let meta = "SELECT epoch, coalesce((SELECT last_event FROM journal
            WHERE project_id = ?1 ORDER BY id DESC LIMIT 1), last_event)
        FROM lock_meta WHERE project_id = ?1";
    let old: Option<(u32, u64)> =
        transaction.query_row(meta, [project], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (epoch, last_event) = old.unwrap_or((0, 0));
    if epoch >= Epoch::MAX.get() {
        return Ok(None);
    }
    let epoch = epoch + 1;
    transaction
        .execute("INSERT INTO projects VALUES (?1, ?2) ON CONFLICT DO NOTHING", (project, at))?;
    transaction.execute(
        "INSERT INTO lock_meta (project_id, epoch, seq, last_event, claimed_at)
         VALUES (?1, ?2, 0, 0, ?3)
         ON CONFLICT DO UPDATE SET epoch = ?2, seq = 0, claimed_at = ?3",
        (project, epoch, at),
    )?;
    transaction.commit()?;
    Ok(Some((Epoch::new(epoch), last_event)))
}

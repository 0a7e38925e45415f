//! What is in the journal and owed to the tables: when it is carried over, and what if it fails.
//!
//! Carrying over is no part of a commit: everybody is told before. Should it fail, the journal
//! still has everything, memory is thrown away, and what is owed is read from there again, as after
//! a crash. A project whose facts the tables will not have (which takes a defect, or damage to the
//! file) is left where it is, and refuses to go on; the others do go on.

use super::{
    Reigning, SYNCED, SqliteStore,
    carry::{self, Carrier},
    journal::{self, Entry},
    live::{Live, Rows},
};
use crate::{StoreError, error::Trouble, schema::NEWEST};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// So many facts are carried over at a time: enough that most locks are taken and given back
/// meanwhile, and few enough that whoever comes next hardly waits.
const FACTS: usize = 256;

/// With so many facts it is carried over before anything more is taken.
const FACTS_MAX: usize = 64 * FACTS;

/// After a failure, how long until it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is owed to the tables.
#[derive(Debug)]
pub(super) struct Backlog {
    /// In the order of the journal.
    entries: Vec<Entry>,
    facts: usize,
    /// How long it may wait.
    lag: Duration,
    /// When it is to be carried over, if there is anything.
    due: Option<Instant>,
    failed: bool,
    /// Whether memory has to be read anew: nothing here, and no live row, is to be believed.
    is_stale: bool,
    /// The projects whose facts the tables will not have, and why.
    broken: HashMap<Arc<str>, StoreError>,
}

impl Backlog {
    /// Of a file in which somebody may have left something.
    pub(super) fn of(lag: Duration) -> Backlog {
        let (entries, broken) = (Vec::new(), HashMap::new());
        Backlog { entries, facts: 0, lag, due: None, failed: false, is_stale: true, broken }
    }

    /// What was written.
    pub(super) fn add(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        self.facts += entries.iter().map(|entry| entry.lines.len()).sum::<usize>();
        self.entries.extend(entries);
        if self.due.is_none() {
            // A moment too far away to be told is never.
            self.due = Instant::now().checked_add(self.lag);
        }
    }

    /// Nothing of it is believed any more; it is read again.
    pub(super) fn forget(&mut self) {
        self.is_stale = true;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self) -> bool {
        let is_much = self.facts >= FACTS && !self.failed;
        is_much || self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Whether something of a project is owed.
    pub(super) fn owes(&self, project: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.project == project)
    }

    /// Why a project cannot go on.
    pub(super) fn why_broken(&self, project: &str) -> Option<StoreError> {
        self.broken.get(project).cloned()
    }

    fn clear(&mut self) {
        self.entries.clear();
        (self.facts, self.due) = (0, None);
    }
}

impl SqliteStore {
    /// Before something is written: memory is what is on record, and not too much of it is owed.
    pub(super) fn make_room(&mut self) -> Result<(), Trouble> {
        self.wake_up();
        self.read_again()?;
        match self.backlog.facts >= FACTS_MAX {
            true => self.carry_over(),
            false => Ok(()),
        }
    }

    /// Before a project is taken over or read: the tables have all of it, or memory knows what is
    /// owed to them.
    pub(super) fn carry_over_for(&mut self, project: &str) -> Result<(), StoreError> {
        self.wake_up();
        let Backlog { entries, broken, .. } = &self.backlog;
        let is_ours = journal::is(&self.db, entries, |project| broken.contains_key(project));
        if !is_ours.map_err(|trouble| trouble.of(&self.path, &project.into()))? {
            self.backlog.forget();
        }
        let known = self.carry_over().or_else(|trouble| {
            let error = trouble.of(&self.path, &project.into());
            tracing::warn!(%error, "what is in the journal stays there for now");
            self.read_again()
        });
        known.map_err(|trouble| trouble.of(&self.path, &project.into()))?;
        self.backlog.why_broken(project).map_or(Ok(()), Err)
    }

    /// Carries over all there is.
    pub(super) fn carry_over(&mut self) -> Result<(), Trouble> {
        self.wake_up();
        let carried = self.carry_all();
        self.backlog.failed = carried.is_err();
        if carried.is_err() {
            self.recover();
            self.backlog.due = Some(Instant::now() + RETRY);
        }
        carried
    }

    fn carry_all(&mut self) -> Result<(), Trouble> {
        self.read_again()?;
        match self.carry(None) {
            Err(trouble) if trouble.is_of_one_batch() => self.recover(),
            carried => return carried,
        }
        // One of them takes no other one with it: each for itself.
        self.read_again()?;
        let names: BTreeSet<Arc<str>> =
            self.backlog.entries.iter().map(|entry| entry.project.clone()).collect();
        for project in names {
            match self.carry(Some(&project)) {
                Err(trouble) if trouble.is_of_one_batch() => {
                    self.recover();
                    let error = trouble.of(&self.path, &project);
                    tracing::error!(%project, %error, "what it has done cannot be carried over");
                    self.backlog.broken.insert(project, error);
                    self.read_again()?;
                }
                carried => carried?,
            }
        }
        Ok(())
    }

    /// Carries over what there is of one project, or of all, in one transaction.
    fn carry(&mut self, only: Option<&Arc<str>>) -> Result<(), Trouble> {
        if self.backlog.entries.is_empty() {
            self.backlog.clear();
            return Ok(());
        }
        self.is_busy = true;
        // It is in the journal, and that is synced: this goes to the disk with whatever is synced
        // next.
        let is_synced = self.synchronous == SYNCED;
        if is_synced {
            self.db.pragma_update(None, "synchronous", "NORMAL")?;
        }
        let carried = self.carry_in_one(only);
        if carried.is_err() {
            self.roll_back();
        }
        if is_synced {
            self.db.pragma_update(None, "synchronous", SYNCED)?;
        }
        self.is_busy = false;
        carried
    }

    fn carry_in_one(&mut self, only: Option<&Arc<str>>) -> Result<(), Trouble> {
        let SqliteStore { db, reigns, backlog, .. } = self;
        let is_meant = |entry: &&Entry| only.is_none_or(|only| *only == entry.project);
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut last: HashMap<&Arc<str>, &Entry> = HashMap::new();
        for entry in backlog.entries.iter().filter(is_meant) {
            carry::enter(db, entry)?;
            last.insert(&entry.project, entry);
        }
        for (project, entry) in last {
            let live = reigns.get_mut(project).and_then(|reigning| reigning.live.as_mut());
            let why = || Trouble::Contradiction("what is owed is not known".to_owned());
            Carrier::new(db, project).carry(live.ok_or_else(why)?)?;
            carry::reach(db, entry)?;
        }
        db.prepare_cached("COMMIT")?.execute([])?;
        match only {
            None => backlog.clear(),
            Some(only) => {
                backlog.entries.retain(|entry| entry.project != *only);
                backlog.facts = backlog.entries.iter().map(|entry| entry.lines.len()).sum();
                if backlog.entries.is_empty() {
                    backlog.clear();
                }
            }
        }
        Ok(())
    }

    /// After a start or a failure: what the journal has is what is owed.
    pub(super) fn read_again(&mut self) -> Result<(), Trouble> {
        if !self.backlog.is_stale {
            return Ok(());
        }
        let SqliteStore { db, path, reigns, backlog, .. } = self;
        reigns.values_mut().for_each(|reigning| reigning.live = None);
        let retry = backlog.due.filter(|_| backlog.failed);
        backlog.clear();
        let mut found = Vec::new();
        // All of it as of one moment.
        let db = db.unchecked_transaction()?;
        for mut entry in journal::read(&db, NEWEST)? {
            let project = entry.project.clone();
            if backlog.broken.contains_key(&project) {
                continue;
            }
            let reigning = reigns.entry(project.clone()).or_insert_with(|| Reigning {
                epoch: entry.epoch,
                seq: 0,
                live: None,
            });
            if reigning.epoch == entry.epoch {
                reigning.seq = reigning.seq.max(entry.seq);
            }
            let live = match &mut reigning.live {
                Some(live) => Ok(live),
                none => Rows::read(&db, &project).map(|rows| none.insert(Live::of(rows))),
            };
            match live.and_then(|live| entry.redo(live)) {
                Ok(()) => found.push(entry),
                Err(trouble) if trouble.is_of_one_batch() => {
                    reigning.live = None;
                    let error = trouble.of(path, &project);
                    tracing::error!(%project, %error, "what it has done cannot be read");
                    found.retain(|entry: &Entry| entry.project != project);
                    backlog.broken.insert(project, error);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        backlog.add(found);
        backlog.due = retry.filter(|_| !backlog.entries.is_empty()).or(backlog.due);
        backlog.is_stale = false;
        Ok(())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if let Err(trouble) = self.carry_over() {
            let error = trouble.of(&self.path, &"".into());
            tracing::warn!(%error, "what is in the journal is carried over at the next start");
        }
    }
}

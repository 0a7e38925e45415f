//! A recorded life of a store on a disk that is watched, and what must be left of it after the
//! power was cut at any moment.

use crate::life::{Known, Project, Step, picture, rebuilt};
use lockkeeper_core::*;
use lockkeeper_disk::{Disk, Event, Left, Platter, lay_out};
use lockkeeper_store::{
    Batch, Claim, Durability, OpenOptions, SqliteStore, Store, StoreError, check,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

pub(crate) const NAMES: [&str; 2] = ["p", "q"];

/// A folder in memory, if the system has one: syncs are many here, and watched anyway.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir().then(|| TempDir::new_in(memory)) {
        Some(Ok(folder)) => folder,
        _ => TempDir::new().unwrap(),
    }
}

/// Whatever is in the journal is carried over with the first look after it.
pub(crate) fn try_open(path: &Path, durability: Durability) -> Result<SqliteStore, StoreError> {
    let lag = Duration::ZERO;
    SqliteStore::open(path, OpenOptions { durability, lag, ..OpenOptions::default() })
}

/// Numbers that look random; the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        self.0 >> 33
    }

    pub(crate) fn step(&mut self) -> Step {
        (self.roll() as u8, self.roll() as u8, self.roll() as u8)
    }
}

/// How many facts of each project are written.
type Lengths = [usize; 2];

/// What was told, and when.
#[derive(Clone, Default)]
pub(crate) struct Story {
    /// All facts that were acknowledged, of each project.
    records: [Vec<Record>; 2],
    /// How far each commit came, in their order.
    commits: Vec<Lengths>,
    /// After how many events the commit of that number was acknowledged.
    acknowledged: Vec<(usize, usize)>,
    /// After how many events a project was claimed under an epoch, and after which commit.
    claimed: Vec<(usize, usize, Epoch, usize)>,
}

impl Story {
    /// As it was after so many events, of which a commit was the last one that was left; but an
    /// epoch that was told stays told.
    fn as_far_as(&self, events: usize, commit: usize) -> Story {
        let commits = self.commits[..=commit].to_vec();
        let mut records = self.records.clone();
        records.iter_mut().zip(commits[commit]).for_each(|(of, length)| of.truncate(length));
        let claimed = self.claimed.iter().filter(|(at, ..)| *at <= events);
        let claimed = claimed.map(|&(_, project, epoch, _)| (0, project, epoch, 0));
        // What survived one cut is on the disk, and survives the next one as well.
        Story { records, acknowledged: vec![(0, commit)], claimed: claimed.collect(), commits }
    }

    /// The commits that must be there if the power is cut after so many events, and the newest
    /// epoch that was told of each project.
    fn must_be_there(&self, events: usize, durability: Durability) -> (usize, [u32; 2]) {
        let mut epochs = [0; 2];
        let mut commits = 0;
        for (at, project, epoch, before) in &self.claimed {
            if *at <= events {
                epochs[*project] = epoch.get();
                // A claim is always synced, and all that came before it is with it.
                commits = commits.max(*before);
            }
        }
        if durability == Durability::Power {
            let told = self.acknowledged.iter().filter(|(at, _)| *at <= events);
            commits = commits.max(told.map(|(_, commit)| *commit).max().unwrap_or(0));
        }
        (commits, epochs)
    }
}

/// A store on a watched disk, the tables in front of it, and their story so far.
pub(crate) struct Stage {
    pub(crate) disk: Disk,
    pub(crate) path: PathBuf,
    pub(crate) story: Story,
    pub(crate) projects: Vec<Project>,
    /// The facts of the last commit, unless it was acknowledged.
    refused: [Vec<Record>; 2],
    durability: Durability,
    dice: Dice,
    store: Option<SqliteStore>,
    _folder: TempDir,
}

impl Stage {
    pub(crate) fn new(durability: Durability, seed: u64) -> Stage {
        Stage::on(folder(), durability, seed)
    }

    /// Goes on with what a power cut has left.
    pub(crate) fn after(&self, outcome: (usize, usize, Left), seed: u64) -> Stage {
        let (events, there, left) = outcome;
        let folder = folder();
        lay_out(&left, folder.path()).unwrap();
        let mut next = Stage::on(folder, self.durability, seed);
        next.story = self.story.as_far_as(events, there);
        next
    }

    fn on(folder: TempDir, durability: Durability, seed: u64) -> Stage {
        let disk = Disk::watch(folder.path()).unwrap();
        let path = disk.folder().join("locks.db");
        let story = Story { commits: vec![[0, 0]], ..Story::default() };
        Stage {
            disk,
            path,
            story,
            projects: Vec::new(),
            refused: [Vec::new(), Vec::new()],
            durability,
            dice: Dice::new(seed),
            store: None,
            _folder: folder,
        }
    }

    /// Opens the store and takes both projects over.
    pub(crate) fn open(&mut self) {
        self.try_open().unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn try_open(&mut self) -> Result<(), StoreError> {
        self.store = None;
        self.store = Some(try_open(&self.path, self.durability)?);
        self.claim()
    }

    /// As its users do, also after a failure: everything anew from the disk, and each table is
    /// resumed before anything else.
    pub(crate) fn claim(&mut self) -> Result<(), StoreError> {
        let store = self.store.as_mut().unwrap();
        let mut taken = Vec::new();
        for (at, name) in NAMES.iter().enumerate() {
            let claim = store.claim(name)?;
            let told = (self.disk.events(), at, claim.epoch, self.story.commits.len() - 1);
            self.story.claimed.push(told);
            let records = store.load(&claim)?;
            taken.push(Project {
                table: rebuilt(&claim, &records),
                ledger: Ledger::new(claim.clone()),
                known: self.projects.get(at).map_or_else(Known::default, |old| old.known.clone()),
                claim,
            });
        }
        self.find_out()?;
        self.projects = taken;
        let resumed = [0, 1].map(|at| vec![self.projects[at].apply(Resume { orphaned: false })]);
        self.commit(resumed)
    }

    /// Whether what was refused was written all the same. What was acknowledged must be there, and
    /// nothing that nobody asked for.
    fn find_out(&mut self) -> Result<(), StoreError> {
        let mut reader = self.store.as_ref().unwrap().reader()?;
        let [p, q] = NAMES.map(|name| reader.history(name));
        let found = [p?, q?];
        if found == self.story.records {
            return Ok(());
        }
        for (at, refused) in self.refused.iter().enumerate() {
            self.story.records[at].extend(refused.iter().cloned());
        }
        assert!(found == self.story.records, "something that was acknowledged is gone");
        self.story.commits.push([0, 1].map(|at| found[at].len()));
        Ok(())
    }

    /// So many commits of a few turns each.
    pub(crate) fn live(&mut self, commits: usize) {
        for _ in 0..commits {
            self.step().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// One commit of a few turns.
    pub(crate) fn step(&mut self) -> Result<(), StoreError> {
        let mut turns = [Vec::new(), Vec::new()];
        let shape = self.dice.roll();
        for nth in 0..1 + shape % 3 {
            let at = ((shape >> 8 >> nth) % 2) as usize;
            let project = &mut self.projects[at];
            let command = project.known.command(&project.table, self.dice.step());
            turns[at].push(project.apply(command));
        }
        self.commit(turns)
    }

    fn commit(&mut self, turns: [Vec<Effects>; 2]) -> Result<(), StoreError> {
        self.refused = [0, 1]
            .map(|at| turns[at].iter().flat_map(|turn| turn.records().iter().cloned()).collect());
        let store = self.store.as_mut().unwrap();
        let groups = self.projects.iter_mut().zip(turns);
        let (mut known, mut groups_of) = (Vec::new(), Vec::new());
        for (project, turns) in groups.filter(|(_, turns)| !turns.is_empty()) {
            known.push(&mut project.known);
            groups_of.push((&mut project.ledger, turns));
        }
        let outcomes = Effects::settle_groups(groups_of, &mut Together(store));
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!(refused == 0 || refused == outcomes.len(), "the disk fails for all");
        for (outcome, known) in outcomes.into_iter().zip(known) {
            match outcome {
                Ok(settled) => {
                    let replies = settled.into_iter().flat_map(|turn| turn.into_parts().0);
                    known.learn(&replies.collect::<Vec<_>>());
                }
                Err(NotSettled::Journal(error)) => return Err(error),
                Err(other) => panic!("{other:?}"),
            }
        }
        for (at, written) in std::mem::take(&mut self.refused).into_iter().enumerate() {
            self.story.records[at].extend(written);
        }
        self.story.commits.push([0, 1].map(|at| self.story.records[at].len()));
        self.story.acknowledged.push((self.disk.events(), self.story.commits.len() - 1));
        Ok(())
    }

    /// Closed as it should be: all is in the one file.
    pub(crate) fn close(&mut self) {
        drop(self.store.take());
        assert!(!self.path.with_extension("db-wal").exists(), "everything is in the file");
    }

    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Closed, however that goes.
    pub(crate) fn let_go(&mut self) {
        self.store = None;
    }

    /// What its disk has seen.
    pub(crate) fn log(&self) -> (Platter, Vec<Event>) {
        (self.disk.platter(), self.disk.log())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.disk.leave();
    }
}

struct Together<'a>(&'a mut dyn Store);

impl GroupJournal<Claim> for Together<'_> {
    type Error = StoreError;

    fn append_groups(&mut self, groups: &[Group<'_, Claim>]) -> Vec<Result<(), StoreError>> {
        let batches: Vec<Batch<'_>> =
            groups.iter().map(|group| Batch { claim: group.table, turns: group.turns }).collect();
        let outcomes = self.0.commit(&batches);
        self.0.tidy();
        outcomes
    }
}

/// One power cut.
pub(crate) struct Outage<'a> {
    pub(crate) story: &'a Story,
    pub(crate) durability: Durability,
    /// After how many events.
    pub(crate) events: usize,
}

impl Outage<'_> {
    /// What must be left: what was told, and how much of it was promised.
    pub(crate) fn promised(&self) -> (usize, [u32; 2]) {
        self.story.must_be_there(self.events, self.durability)
    }

    /// The moments at which something was acknowledged.
    pub(crate) fn acknowledgements(story: &Story) -> impl Iterator<Item = usize> {
        story.acknowledged.iter().map(|(at, _)| *at)
    }

    /// The last commit that was acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.story.must_be_there(self.events, Durability::Power).0
    }

    /// Opens what is left in a folder and compares it with what was told; how many of the commits
    /// are there, or what is wrong.
    pub(crate) fn check(&self, left: &Left, folder: &Path) -> Result<usize, String> {
        lay_out(left, folder).unwrap();
        let path = folder.join("locks.db");
        let (must, told) = self.promised();
        let say = |error: StoreError| error.to_string();
        let mut store = try_open(&path, self.durability).map_err(say)?;
        let mut lengths: Lengths = [0; 2];
        for (at, name) in NAMES.iter().enumerate() {
            let history =
                store.reader().and_then(|mut reader| reader.history(name)).map_err(say)?;
            let of_story = self.story.records[at].get(..history.len());
            if of_story != Some(&history[..]) {
                return Err(format!("{name}: what is left is no beginning of what was written"));
            }
            lengths[at] = history.len();
            let claim = store.claim(name).map_err(say)?;
            if claim.epoch.get() <= told[at] {
                let (again, told) = (claim.epoch.get(), told[at]);
                return Err(format!("{name}: epoch {again} after {told}: tokens repeat (I2)"));
            }
            let live = rebuilt(&claim, &store.load(&claim).map_err(say)?);
            let replayed = rebuilt(&claim, &history);
            if picture(&live, false) != picture(&replayed, false) {
                return Err(format!("{name}: the live rows are not what the log gives (I15)"));
            }
        }
        drop(store);
        let problems = check(&path).map_err(say)?.problems;
        if !problems.is_empty() {
            return Err(format!("damaged: {problems:?}"));
        }
        // Two commits can have come equally far, if one of them recorded nothing.
        let there = self.story.commits.iter().rposition(|commit| *commit == lengths);
        let Some(there) = there else {
            return Err(format!("{lengths:?}: a commit came apart, or overtook another one (I11)"));
        };
        match there >= must {
            true => Ok(there),
            false => Err(format!("commit {must} was promised, but only {there} are there")),
        }
    }
}

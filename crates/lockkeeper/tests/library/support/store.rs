//! A store that fails, or stands still, when a test wants it to.

use lockkeeper::store::{Batch, Claim, PruneBefore, Reader, SqliteStore};
use lockkeeper::{Record, StoreError, store::Store};
use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
};

/// The switch of a [`Faulty`] store.
#[derive(Clone, Default)]
pub struct Switch {
    shared: Arc<(Mutex<Faults>, Condvar)>,
}

#[derive(Default)]
struct Faults {
    /// The gate is shut: commits wait.
    shut: bool,
    /// How many commits fail from now on.
    fail: usize,
    /// How many more commits succeed before that.
    spare: usize,
    /// How many claims fail from now on.
    fail_claims: usize,
    /// What fails was written all the same.
    writes_anyway: bool,
    /// How many commits were asked for, and how many turns were in them.
    commits: usize,
    turns: usize,
    claims: usize,
    waiting: bool,
}

impl Switch {
    pub fn new() -> Switch {
        Switch::default()
    }

    fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    fn get<T>(&self, look: impl FnOnce(&Faults) -> T) -> T {
        look(&self.shared.0.lock().unwrap())
    }

    /// No commit goes through until it is opened again.
    pub fn shut(&self) {
        self.set(|faults| faults.shut = true);
    }

    pub fn open(&self) {
        self.set(|faults| faults.shut = false);
    }

    /// So many commits fail.
    pub fn fail(&self, commits: usize) {
        self.set(|faults| faults.fail = commits);
    }

    /// One commit fails after so many that do not.
    pub fn fail_one_after(&self, commits: usize) {
        self.set(|faults| (faults.spare, faults.fail) = (commits, 1));
    }

    /// The next commit is written, and yet said to have failed.
    pub fn fail_but_write(&self) {
        self.set(|faults| (faults.fail, faults.writes_anyway) = (1, true));
    }

    pub fn fail_claims(&self, claims: usize) {
        self.set(|faults| faults.fail_claims = claims);
    }

    pub fn heal(&self) {
        self.set(|faults| (faults.fail, faults.fail_claims) = (0, 0));
    }

    /// How many claims were asked for: one for each life of an actor.
    pub fn claims(&self) -> usize {
        self.get(|faults| faults.claims)
    }

    pub fn commits(&self) -> usize {
        self.get(|faults| faults.commits)
    }

    pub fn is_waiting(&self) -> bool {
        self.get(|faults| faults.waiting)
    }

    /// Whether all faults that were ordered have happened.
    pub fn is_spent(&self) -> bool {
        self.get(|faults| faults.fail == 0)
    }
}

/// A store behind a [`Switch`].
pub struct Faulty {
    store: SqliteStore,
    switch: Switch,
}

impl Faulty {
    pub fn boxed(store: SqliteStore, switch: &Switch) -> Box<dyn Store> {
        Box::new(Faulty { store, switch: switch.clone() })
    }
}

pub fn disk_full() -> StoreError {
    StoreError::Full { path: PathBuf::from("made-up") }
}

impl Store for Faulty {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        let fails = {
            let mut faults = self.switch.shared.0.lock().unwrap();
            faults.claims += 1;
            let fails = faults.fail_claims > 0;
            faults.fail_claims = faults.fail_claims.saturating_sub(1);
            fails
        };
        if fails { Err(disk_full()) } else { self.store.claim(project) }
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.store.projects()
    }

    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError> {
        self.store.load(claim)
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        let (fails, writes) = {
            let mut faults = self.switch.shared.0.lock().unwrap();
            faults.commits += 1;
            faults.turns += batches.iter().map(|batch| batch.turns.len()).sum::<usize>();
            faults.waiting = faults.shut;
            while faults.shut {
                faults = self.switch.shared.1.wait(faults).unwrap();
            }
            faults.waiting = false;
            if faults.spare > 0 {
                faults.spare -= 1;
                (false, true)
            } else {
                let fails = faults.fail > 0;
                faults.fail = faults.fail.saturating_sub(1);
                let writes = !fails || faults.writes_anyway;
                faults.writes_anyway &= !fails;
                (fails, writes)
            }
        };
        let written = if writes { Some(self.store.commit(batches)) } else { None };
        match written {
            Some(written) if !fails => written,
            _ => batches.iter().map(|_| Err(disk_full())).collect(),
        }
    }

    fn prune(&mut self, before: &PruneBefore, at_most: usize) -> Result<usize, StoreError> {
        self.store.prune(before, at_most)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }
}

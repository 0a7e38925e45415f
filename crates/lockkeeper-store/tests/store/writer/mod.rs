//! The writer in front of a store with a gate, so that nothing depends on time: a test waits until
//! the writer stands before it, and opens it when it wants.
//!
//! | file | holds |
//! |---|---|
//! | `queue.rs` | group commit, and who is told when |
//! | `guest.rs` | whoever brings a turn and writes it in place |
//! | `upkeep.rs` | what the store is owed when everybody is told, and what is old |

mod guest;
mod queue;
mod upkeep;

use lockkeeper_core::*;
use lockkeeper_store::{
    Batch, Claim, MemoryStore, PruneBefore, Reader, Store, StoreError, Writer, WriterOptions,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};

/// What a commit with a gate does when it is let through.
enum Fate {
    Passes,
    Fails(StoreError),
    Panics,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// So many more may pass, each with its fate.
    fates: VecDeque<Fate>,
    is_open: bool,
    /// Who stood or stands before the gate: of each commit, how many turns of which project.
    came: Vec<Vec<(String, usize)>>,
    claims: usize,
    pruned: usize,
    prune_panics: bool,
    /// Whether a commit may wait for a disk.
    may_wait: bool,
    /// Whether upkeep is due, and how often it was begun; it ends when the gate is open.
    is_untidy: bool,
    gets_untidy: bool,
    tidied: usize,
    dropped: bool,
}

impl Gate {
    fn pass(&self, fate: Fate) {
        self.state.lock().unwrap().fates.push_back(fate);
        self.changed.notify_all();
    }

    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !until(state)).unwrap());
    }

    fn came(&self) -> Vec<Vec<(String, usize)>> {
        self.state.lock().unwrap().came.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }
}

struct Gated {
    gate: Arc<Gate>,
    store: MemoryStore,
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.gate.change(|state| state.dropped = true);
    }
}

impl Store for Gated {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        self.gate.change(|state| state.claims += 1);
        self.store.claim(project)
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.store.projects()
    }

    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError> {
        self.store.load(claim)
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        let names = batches
            .iter()
            .map(|batch| (batch.claim.project.to_string(), batch.turns.len()))
            .collect();
        self.gate.change(|state| {
            state.came.push(names);
            state.is_untidy |= std::mem::take(&mut state.gets_untidy);
        });
        self.gate.wait(|state| state.is_open || !state.fates.is_empty());
        let fate = self.gate.state.lock().unwrap().fates.pop_front();
        match fate.unwrap_or(Fate::Passes) {
            Fate::Passes => self.store.commit(batches),
            Fate::Fails(error) => batches.iter().map(|_| Err(error.clone())).collect(),
            Fate::Panics => panic!("as the test wants it"),
        }
    }

    fn may_wait(&self) -> bool {
        self.gate.state.lock().unwrap().may_wait
    }

    fn is_untidy(&self) -> bool {
        self.gate.state.lock().unwrap().is_untidy
    }

    fn tidy(&mut self) {
        self.gate.change(|state| {
            state.tidied += 1;
            state.is_untidy = false;
        });
        self.gate.wait(|state| state.is_open);
    }

    fn prune(&mut self, _: &PruneBefore, at_most: usize) -> Result<usize, StoreError> {
        assert!(at_most > 0);
        self.gate.change(|state| state.pruned += 1);
        let panics = self.gate.state.lock().unwrap().prune_panics;
        assert!(!panics, "as the test wants it");
        Ok(usize::from(self.gate.state.lock().unwrap().pruned < 3))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }
}

fn gated(options: WriterOptions) -> (Writer, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let store = Gated { gate: gate.clone(), store: MemoryStore::new() };
    (Writer::start(Box::new(store), options).unwrap(), gate)
}

fn claim(writer: &Writer, project: &str) -> Claim {
    let (told, hears) = channel();
    writer.claim(project.into(), move |claimed| told.send(claimed).unwrap());
    hears.recv().unwrap().unwrap().0
}

fn table(claim: &Claim) -> LockTable {
    LockTable::new(TableConfig::default(), Reign { epoch: claim.epoch, ..Reign::first(3) })
}

fn turn(table: &mut LockTable) -> Effects {
    table.apply(Timestamp(1), OpenSession::default())
}

type Said = (&'static str, Result<(), StoreError>);

fn submit(writer: &Writer, claim: &Claim, turn: Effects, name: &'static str, told: &Sender<Said>) {
    let told = told.clone();
    writer.submit(claim, turn, move |outcome| {
        let settled = outcome.map(|settled| assert_eq!(settled.replies().len(), 1));
        let _ = told.send((name, settled));
    });
}

fn all(hears: &Receiver<Said>) -> Vec<Said> {
    hears.try_iter().collect()
}

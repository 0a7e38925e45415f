//! A store that keeps nothing but the epochs: the locks end with the process.

use crate::{AuditFilter, AuditRow, Batch, Claim, PruneBefore, Reader, Store, StoreError};
use lockkeeper_core::{Epoch, Record};
use std::{collections::HashMap, sync::Arc};

/// [`crate::Durability::Memory`]: for tests, and for locks that need not outlive their process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    reigns: HashMap<Arc<str>, Reigning>,
}

#[derive(Debug)]
struct Reigning {
    epoch: Epoch,
    seq: u64,
    last_event: u64,
}

impl MemoryStore {
    /// A store that nobody has claimed anything in.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn commit_one(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let Claim { project, epoch, .. } = batch.claim;
        let project = project.clone();
        let Some(reigning) = self.reigns.get_mut(&project) else {
            let detail = "the project was never claimed here".to_owned();
            return Err(StoreError::OutOfOrder { project, detail });
        };
        if reigning.epoch != *epoch {
            let (epoch, newest) = (*epoch, reigning.epoch);
            return Err(StoreError::Superseded { project, epoch, newest });
        }
        for (expected, turn) in (reigning.seq + 1..).zip(batch.turns) {
            if turn.call().0 != expected {
                let detail = format!("expected turn {expected}, got turn {}", turn.call().0);
                return Err(StoreError::OutOfOrder { project, detail });
            }
        }
        if let Some(last) = batch.turns.last() {
            (reigning.seq, reigning.last_event) = (last.call().0, last.last_event());
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        let project: Arc<str> = project.into();
        let old = self.reigns.get(&project).map(|old| (old.epoch.get(), old.last_event));
        let (epoch, last_event) = old.unwrap_or((0, 0));
        if epoch >= Epoch::MAX.get() {
            return Err(StoreError::Exhausted { project });
        }
        let epoch = Epoch::new(epoch + 1);
        self.reigns.insert(project.clone(), Reigning { epoch, seq: 0, last_event });
        Ok(Claim { project, epoch, last_event })
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        let mut names: Vec<Arc<str>> = self.reigns.keys().cloned().collect();
        names.sort_unstable();
        Ok(names)
    }

    fn load(&mut self, _: &Claim) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        batches.iter().map(|batch| self.commit_one(batch)).collect()
    }

    fn prune(&mut self, _: &PruneBefore, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(NothingToRead))
    }
}

struct NothingToRead;

impl Reader for NothingToRead {
    fn audit(&mut self, _: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        Ok(Vec::new())
    }

    fn history(&mut self, _: &str) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use lockkeeper_core::{
        Effects, LockTable, OpenSession, Reign, SessionId, TableConfig, Timestamp,
    };

    fn turns(claim: &Claim, count: usize) -> Vec<Effects> {
        let reign = Reign { epoch: claim.epoch, id_seed: 1, last_event: claim.last_event };
        let mut table = LockTable::new(TableConfig::default(), reign);
        (0..count).map(|_| table.apply(Timestamp(1), OpenSession::default())).collect()
    }

    fn commit(store: &mut MemoryStore, claim: &Claim, turns: &[Effects]) -> Result<(), StoreError> {
        store.commit(&[Batch { claim, turns }]).remove(0)
    }

    /// I16, also where nothing is kept: the same refusals as from a file.
    #[test]
    fn i16_it_refuses_what_a_file_would_refuse() {
        let mut store = MemoryStore::new();
        let stranger = Claim { project: "p".into(), epoch: Epoch::new(1), last_event: 0 };
        let of_nobody = turns(&stranger, 1);
        let refused = commit(&mut store, &stranger, &of_nobody);
        assert!(matches!(refused, Err(StoreError::OutOfOrder { .. })), "{refused:?}");
        let old = store.claim("p").unwrap();
        let all = turns(&old, 4);
        let refused = commit(&mut store, &old, &all[1..2]);
        assert!(matches!(refused, Err(StoreError::OutOfOrder { .. })), "{refused:?}");
        commit(&mut store, &old, &all[..2]).unwrap();
        let refused = commit(&mut store, &old, &all[..2]);
        assert!(matches!(refused, Err(StoreError::OutOfOrder { .. })), "twice: {refused:?}");
        // A gap inside of a batch, too.
        let gap = vec![turns(&old, 3).remove(2), turns(&old, 5).remove(4)];
        let refused = commit(&mut store, &old, &gap);
        assert!(matches!(refused, Err(StoreError::OutOfOrder { .. })), "{refused:?}");
        commit(&mut store, &old, &all[2..]).unwrap();
        let new = store.claim("p").unwrap();
        assert!(new.epoch > old.epoch);
        let (project, epoch, newest) = (old.project.clone(), old.epoch, new.epoch);
        let superseded = StoreError::Superseded { project, epoch, newest };
        assert_eq!(commit(&mut store, &old, &turns(&old, 5)[4..]), Err(superseded));
        commit(&mut store, &new, &turns(&new, 1)).unwrap();
        assert_eq!(store.projects().unwrap(), [Arc::from("p")]);
    }

    /// The numbers of events go on from one reign to the next; nothing else does.
    #[test]
    fn it_keeps_the_last_event_and_nothing_else() {
        let mut store = MemoryStore::new();
        let old = store.claim("p").unwrap();
        let reign = Reign { epoch: old.epoch, id_seed: 1, last_event: 0 };
        let mut table = LockTable::new(TableConfig::default(), reign);
        let open = table.apply(Timestamp(1), OpenSession::default());
        let session: SessionId = table.sessions()[0].session;
        let ask = lockkeeper_core::Acquire {
            session,
            resource: lockkeeper_core::Resource::file("a"),
            mode: lockkeeper_core::LockMode::Exclusive,
            options: lockkeeper_core::AskOptions::default(),
        };
        let turns = [open, table.apply(Timestamp(2), ask)];
        assert!(turns[1].last_event() > 0);
        commit(&mut store, &old, &turns).unwrap();
        let new = store.claim("p").unwrap();
        assert_eq!(new.last_event, turns[1].last_event());
        assert!(store.load(&new).unwrap().is_empty());
        let before = PruneBefore { released: Timestamp::NEVER, audit: Timestamp::NEVER };
        assert_eq!(store.prune(&before, 100), Ok(0), "so that nobody comes back for more at once");
        let mut reader = store.reader().unwrap();
        assert!(reader.audit(&AuditFilter::default()).unwrap().is_empty());
        assert!(reader.history("p").unwrap().is_empty());
    }
}

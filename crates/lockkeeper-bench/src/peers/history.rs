//! A store with a long history: so many locks that were taken and given back.

use super::by_hand::ByHand;
use crate::{place, trouble::Result};
use lockkeeper::{Durability, LockManager, Resource};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// How many pairs are written in one transaction.
const BATCH: usize = 1_000;

/// The store, and its folder.
pub(crate) struct History {
    folder: TempDir,
}

impl History {
    /// Writes one, with so many rows that are over, or none.
    pub(crate) async fn write(rows: usize) -> Result<History> {
        let folder = place::folder()?;
        let path = folder.path().join("locks.db");
        let written = spawn_blocking(move || -> Result<()> {
            let mut by_hand =
                ByHand::at(&path, Durability::Process, BATCH.min(rows.max(1)), BATCH)?;
            let mut count = 0;
            while count < rows {
                count += by_hand.round()?;
            }
            Ok(())
        });
        written.await??;
        Ok(History { folder })
    }

    /// Takes so many locks that stay.
    pub(crate) async fn hold(&self, holds: usize) -> Result<()> {
        let manager = LockManager::open(self.path()).await?;
        let session = manager.session(super::library::PROJECT, "leaves").detached().await?;
        let names: Vec<Resource> =
            (0..holds).map(|nth| Resource::file(&format!("held/{nth}"))).collect();
        for some in names.chunks(BATCH) {
            for guard in session.acquire_all(some.iter().cloned()).await? {
                guard.leave();
            }
        }
        drop(session);
        manager.shutdown().await;
        Ok(())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("locks.db")
    }
}

//! The check afterwards: whatever the run said of itself, this is what is on the disk.

use lockkeeper::{AuditFilter, LockManager};
use std::{collections::BTreeMap, error::Error, path::Path};

/// What the audit log has of one project.
#[derive(Clone, Copy, Default)]
pub(crate) struct OnRecord {
    pub(crate) grants: u64,
    pub(crate) ends: u64,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) deadlocks: u64,
    /// What the lock table, rebuilt, still has: holds, waits, sessions.
    pub(crate) in_table: u64,
}

impl OnRecord {
    /// What has no end on record, or is still in the table. Nothing, if nothing leaks.
    pub(crate) fn left(&self) -> u64 {
        self.grants.abs_diff(self.ends) + self.opened.abs_diff(self.closed) + self.in_table
    }
}

/// What the store has, read by a manager that knows nothing of the run.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) by_project: BTreeMap<String, OnRecord>,
}

const PAGE: usize = 10_000;

pub(crate) async fn read_again(path: &Path, projects: &[&str]) -> Result<Kept, Box<dyn Error>> {
    let manager = LockManager::open(path).await?;
    let mut kept = Kept::default();
    // The log first: asking a project takes it over, and that would end what was left.
    let mut filter =
        AuditFilter { oldest_first: true, limit: Some(PAGE), ..AuditFilter::default() };
    loop {
        let rows = manager.audit(filter.clone()).await?;
        let Some(last) = rows.last() else { break };
        filter.after_id = Some(last.id);
        for row in rows {
            let record = kept.by_project.entry(row.project_id).or_default();
            match row.event_type.as_str() {
                "lock_granted" => record.grants += 1,
                "lock_released" | "lease_expired" | "lock_revoked" | "force_release" => {
                    record.ends += 1;
                }
                "session_opened" => record.opened += 1,
                "session_ended" => record.closed += 1,
                "deadlock_detected" => record.deadlocks += 1,
                _ => {}
            }
        }
    }
    for name in projects {
        let stats = manager.project(name).await?.stats().await?;
        let record = kept.by_project.entry((*name).to_owned()).or_default();
        record.in_table = (stats.holds + stats.tickets + stats.sessions) as u64;
    }
    manager.shutdown().await;
    Ok(kept)
}

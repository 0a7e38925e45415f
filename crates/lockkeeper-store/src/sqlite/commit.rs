//! One batch of a group commit: whether it may be written, and the entry of the journal it becomes.

use super::{Reigning, journal::Entry, live, live::Live, project::Projector};
use crate::{Batch, Claim, StoreError, error::Trouble};
use lockkeeper_core::Epoch;
use rusqlite::{Connection, OptionalExtension};
use std::{collections::HashMap, sync::Arc};

pub(super) fn records_something(batch: &Batch<'_>) -> bool {
    batch.turns.iter().any(|turn| !turn.records().is_empty())
}

/// Whether a claim is still the newest one of its project.
pub(super) fn check_epoch(
    db: &Connection,
    claim: &Claim,
) -> Result<Result<u64, StoreError>, Trouble> {
    let mut meta = db.prepare_cached("SELECT epoch, seq FROM lock_meta WHERE project_id = ?1")?;
    let found: Option<(u32, u64)> =
        meta.query_row([&*claim.project], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (project, epoch) = (claim.project.clone(), claim.epoch);
    Ok(match found {
        Some((newest, seq)) if newest == epoch.get() => Ok(seq),
        Some((newest, _)) => {
            Err(StoreError::Superseded { project, epoch, newest: Epoch::new(newest) })
        }
        None => {
            let detail = "the project was never claimed here".to_owned();
            Err(StoreError::OutOfOrder { project, detail })
        }
    })
}

/// Whether the turns of a batch come one after another after this one.
fn follow(batch: &Batch<'_>, mut last: u64) -> Result<(), StoreError> {
    for turn in batch.turns {
        let call = turn.call().0;
        if call != last + 1 {
            let detail = format!("expected turn {}, got turn {call}", last + 1);
            let project = batch.claim.project.clone();
            return Err(StoreError::OutOfOrder { project, detail });
        }
        last = call;
    }
    Ok(())
}

/// Whether a batch may be written, by the newest claim and next in its reign.
fn check_batch(
    db: &Connection,
    reigns: &HashMap<Arc<str>, Reigning>,
    batch: &Batch<'_>,
    before: Option<u64>,
) -> Result<Result<(), StoreError>, Trouble> {
    let claim = batch.claim;
    let known = reigns.get(&claim.project).filter(|reigning| reigning.epoch == claim.epoch);
    let is_sure = known.is_some_and(|reigning| reigning.live.is_some());
    // Turns that recorded nothing are not written, so memory is ahead of the tables.
    let known = before.or(known.map(|reigning| reigning.seq));
    // Whose claim it is, an entry of the journal asks itself.
    if let (Some(last), true) = (known, is_sure && records_something(batch))
        && follow(batch, last).is_ok()
    {
        return Ok(Ok(()));
    }
    // What is only in the journal is known: it was read when memory was.
    let written = match check_epoch(db, claim)? {
        Ok(written) => written,
        Err(refused) => return Ok(Err(refused)),
    };
    Ok(follow(batch, known.unwrap_or(written).max(written)))
}

/// What became of a batch that may be written.
pub(super) enum Written {
    All,
    NotAny(StoreError),
}

/// Writes a batch into the journal, if that may be.
pub(super) fn write(
    db: &Connection,
    reigns: &mut HashMap<Arc<str>, Reigning>,
    batch: &Batch<'_>,
    before: Option<u64>,
    entries: &mut Vec<Entry>,
) -> Result<Result<Written, StoreError>, Trouble> {
    if let Err(refused) = check_batch(db, reigns, batch, before)? {
        return Ok(Err(refused));
    }
    let Some(last) = batch.turns.last().filter(|_| records_something(batch)) else {
        return Ok(Ok(Written::All));
    };
    let claim = batch.claim;
    let reigning = reigns.entry(claim.project.clone()).or_insert_with(|| Reigning {
        epoch: claim.epoch,
        seq: 0,
        live: None,
    });
    let live = match &mut reigning.live {
        Some(live) => live,
        none => none.insert(Live::of(live::Rows::read(db, &claim.project)?)),
    };
    let mut entry = Entry::new(claim, last.call().0, last.last_event());
    let mut projector = Projector::new(live, &mut entry);
    batch.turns.iter().flat_map(|turn| turn.records()).try_for_each(|one| projector.take(one))?;
    if entry.write(db)? {
        entries.push(entry);
        return Ok(Ok(Written::All));
    }
    match check_epoch(db, claim)? {
        Err(refused) => Ok(Ok(Written::NotAny(refused))),
        Ok(_) => Err(Trouble::Contradiction("the claim is gone".to_owned())),
    }
}

//! What a store owes: claim, load, commit.

use crate::{AuditFilter, AuditRow, StoreError};
use lockkeeper_core::{Effects, Epoch, Record, Timestamp};
use std::{sync::Arc, time::Instant};

/// What an acknowledged answer survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The death of the process, by whatever signal.
    #[default]
    Process,
    /// A power cut, too: each commit is on the disk before it is spoken of.
    Power,
    /// Nothing: the locks end with the process, and there is no audit log.
    Memory,
}

/// Where the facts of projects are kept. A fail-over and a restart are the same thing to it: a new
/// claim with a higher epoch, then a load.
pub trait Store: Send {
    /// Takes a project over, and makes that durable before it returns. A project nobody has heard
    /// of begins. From now on no older claim can commit.
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError>;

    /// The names of all projects that were ever claimed, in order.
    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError>;

    /// What is live in a claimed project, as facts to be replayed in this order into a table of
    /// the claim's reign.
    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError>;

    /// Writes all batches in one step and returns when they are durable: one outcome each, in
    /// their order. Of each batch all is written or nothing; a batch that fails takes no other one
    /// with it, unless the store itself has failed.
    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>>;

    /// Whether the next commit may wait for a disk or a network: then nobody writes it in place.
    fn may_wait(&self) -> bool {
        true
    }

    /// Whether [`Store::tidy`] has something to do.
    fn is_untidy(&self) -> bool {
        false
    }

    /// When [`Store::tidy`] will have something to do, if nothing more is written until then.
    fn tidy_by(&self) -> Option<Instant> {
        None
    }

    /// Does what is owed to the store and not to anybody who waits, such as moving a log into its
    /// file: called when everybody has been told of the last commit. What fails is tried again.
    fn tidy(&mut self) {}

    /// Removes at most so many rows that are over and older than asked for; returns how many it
    /// removed.
    fn prune(&mut self, before: &PruneBefore, at_most: usize) -> Result<usize, StoreError>;

    /// A second way in, for questions; it never waits for the writer, nor the writer for it.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
}

/// Answers questions about what is written.
pub trait Reader: Send {
    /// The audit log, filtered; the latest first, unless the filter says otherwise.
    fn audit(&mut self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError>;

    /// The whole history of a project as it was recorded, the earliest first. Replayed, it gives
    /// the table (as far back as nothing was pruned).
    fn history(&mut self, project: &str) -> Result<Vec<Record>, StoreError>;
}

/// One take-over of one project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Which project.
    pub project: Arc<str>,
    /// One more than any claim before.
    pub epoch: Epoch,
    /// The number of the last event that was written.
    pub last_event: u64,
}

/// Turns of one project on their way into a commit: in order, without a gap. The number of the last
/// one ([`Effects::call`]) is the batch's place in the reign; a store refuses a batch that does not
/// come after what it has.
#[derive(Debug)]
pub struct Batch<'a> {
    /// By whom.
    pub claim: &'a Claim,
    /// What.
    pub turns: &'a [Effects],
}

/// What is old enough to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PruneBefore {
    /// Holds that were over before.
    pub released: Timestamp,
    /// Rows of the audit log from before.
    pub audit: Timestamp,
}

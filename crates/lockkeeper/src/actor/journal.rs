//! Where the turns go: to the store's writer, or, for locks in memory, nowhere.

use super::desk::{Caller, Desk};
use crate::error::Unavailable;
use lockkeeper_core::{Effects, Epoch, Forgetful, Ledger, Record};
use lockkeeper_store::{Claim, Writer};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How the projects of a manager are kept.
#[derive(Clone)]
pub(crate) enum Keeping {
    /// On disk, by one writer for all of them.
    Written(Writer),
    /// In memory only: the last epoch of each project.
    Volatile(Arc<Mutex<HashMap<Arc<str>, Epoch>>>),
}

impl Keeping {
    pub(super) async fn claim(
        &self,
        project: &Arc<str>,
    ) -> Result<(Claim, Vec<Record>), Unavailable> {
        match self {
            Keeping::Written(writer) => {
                let (tell, told) = tokio::sync::oneshot::channel();
                writer.claim(project.clone(), move |claimed| {
                    let _ = tell.send(claimed);
                });
                let claimed = told.await.map_err(|_| Unavailable::ShutDown)?;
                claimed.map_err(Unavailable::NotServing)
            }
            Keeping::Volatile(epochs) => {
                let mut epochs = epochs.lock().unwrap_or_else(PoisonError::into_inner);
                let last = epochs.entry(project.clone()).or_insert(Epoch::new(0));
                *last = Epoch::new(last.get() + 1);
                let claim = Claim { project: project.clone(), epoch: *last, last_event: 0 };
                Ok((claim, Vec::new()))
            }
        }
    }

    pub(super) fn open(&self, claim: Claim) -> Journal {
        match self {
            Keeping::Written(writer) => {
                Journal::Written(Pen { writer: writer.clone(), claim, handed_in: 0 })
            }
            Keeping::Volatile(_) => Journal::Volatile(Ledger::new(Forgetful)),
        }
    }
}

/// Where the turns of one reign go, in order.
pub(super) enum Journal {
    Written(Pen),
    Volatile(Ledger<Forgetful>),
}

/// Turns that go to the writer.
pub(super) struct Pen {
    writer: Writer,
    claim: Claim,
    /// How many it was not asked to write yet.
    handed_in: usize,
}

/// So many turns are handed in before the writer is asked to write them, however many more there
/// are.
const TOGETHER: usize = 64;

impl Pen {
    fn write(&mut self) {
        if std::mem::take(&mut self.handed_in) > 0 {
            self.writer.write();
        }
    }
}

impl Drop for Pen {
    /// However the actor ends.
    fn drop(&mut self) {
        self.write();
    }
}

impl Journal {
    /// Whether there is something to be written.
    pub(super) fn owes_a_write(&self) -> bool {
        matches!(self, Journal::Written(pen) if pen.handed_in > 0)
    }

    /// Before the actor sleeps: whatever was handed in is written.
    pub(super) fn write(&mut self) {
        if let Journal::Written(pen) = self {
            pen.write();
        }
    }

    /// Hands in a turn; the desk speaks of it when it is written, which [`Journal::write`] sees to.
    pub(super) fn submit(&mut self, turn: Effects, caller: Caller, desk: &Arc<Mutex<Desk>>) {
        let call = turn.call();
        match self {
            Journal::Written(pen) => {
                let desk = desk.clone();
                pen.writer.hand_in(&pen.claim, turn, move |outcome| {
                    let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok(settled) => desk.settled(call, caller, settled),
                        Err(error) => desk.failed(caller, error),
                    }
                });
                pen.handed_in += 1;
                if pen.handed_in >= TOGETHER {
                    pen.write();
                }
            }
            Journal::Volatile(ledger) => match turn.settle(ledger) {
                Ok(settled) => {
                    let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
                    desk.settled(call, caller, settled);
                }
                Err(out_of_order) => {
                    tracing::error!(%out_of_order, "turns were settled out of order");
                    debug_assert!(false, "turns were settled out of order: {out_of_order}");
                }
            },
        }
    }

    /// Runs `then` when everything handed in before is written.
    pub(super) fn after(&self, then: impl FnOnce(Result<(), Unavailable>) + Send + 'static) {
        match self {
            Journal::Written(pen) => pen.writer.after(&pen.claim, move |outcome| {
                then(outcome.map_err(Unavailable::Store));
            }),
            Journal::Volatile(_) => then(Ok(())),
        }
    }
}

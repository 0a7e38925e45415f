//! The ends of sessions: at once or at their time, and never forgotten.

use crate::{
    house::{House, Phase},
    room::Room,
};
use lockkeeper::{CallError, Unavailable};
use lockkeeper_core::{EndCause, EndSession, SessionId};
use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// How soon what could not be written is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A session that ends unless a client attaches it before.
pub(crate) struct Due {
    at: Instant,
    room: Arc<Room>,
    session: SessionId,
    bound: u64,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, so that the heap gives it first.
impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        other.at.cmp(&self.at)
    }
}

/// Where ends are ordered.
#[derive(Debug)]
pub(crate) struct Ends {
    due: mpsc::UnboundedSender<Due>,
    /// How many sessions are about to end.
    pending: watch::Sender<usize>,
}

impl Ends {
    pub(crate) fn new() -> (Ends, mpsc::UnboundedReceiver<Due>) {
        let (due, dues) = mpsc::unbounded_channel();
        (Ends { due, pending: watch::Sender::new(0) }, dues)
    }

    /// Ends a session after a while, unless it is bound to a connection before.
    pub(crate) fn after(&self, span: Duration, room: &Arc<Room>, session: SessionId, bound: u64) {
        let far = Duration::from_secs(30 * 365 * 24 * 3600);
        let at = Instant::now() + span.min(far);
        // Where the other end is gone the server is, too.
        let _ = self.due.send(Due { at, room: room.clone(), session, bound });
    }

    /// Whether a session is about to end.
    pub(crate) fn are_pending(&self) -> bool {
        *self.pending.borrow() > 0
    }

    /// Waits until no session is about to end.
    pub(crate) async fn done(&self) {
        let mut pending = self.pending.subscribe();
        let _ = pending.wait_for(|count| *count == 0).await;
    }
}

/// One timer for all of them.
pub(crate) async fn end_in_time(house: Weak<House>, mut dues: mpsc::UnboundedReceiver<Due>) {
    let mut heap = BinaryHeap::new();
    loop {
        let next = heap.peek().map(|due: &Due| due.at);
        tokio::select! {
            due = dues.recv() => match due {
                Some(due) => heap.push(due),
                None => return,
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let Some(house) = house.upgrade() else { return };
                let now = Instant::now();
                while heap.peek().is_some_and(|due| due.at <= now)
                    && let Some(due) = heap.pop()
                {
                    if house.phase() == Phase::Serving && due.room.is_over(due.session, due.bound) {
                        house.end(due.room, due.session);
                    }
                }
            }
        }
    }
}

impl House {
    /// Ends a session whose client is gone. It is said again until it is on record.
    pub(crate) fn end(self: &Arc<House>, room: Arc<Room>, session: SessionId) {
        self.ends.pending.send_modify(|count| *count += 1);
        let house = self.clone();
        tokio::spawn(async move {
            end(&house, &room, session).await;
            room.forget(session);
            house.ends.pending.send_modify(|count| *count -= 1);
            house.stir();
        });
    }
}

async fn end(house: &House, room: &Room, session: SessionId) {
    let end = EndSession { session, cause: EndCause::OwnerDied };
    let mut pause = RETRY_FIRST;
    loop {
        // As if this process had died: the next one ends it.
        if house.phase() == Phase::Dead {
            return;
        }
        match room.project.command(end).await {
            Ok(_) | Err(CallError::Refused(_)) => return,
            Err(CallError::Unavailable(Unavailable::ShutDown)) => return,
            Err(CallError::Unavailable(why)) => {
                tracing::warn!(project = %room.name(), %session, %why, "a session cannot be ended");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

//! What the rest of the server knows of a connection: who is at its other end, which sessions live
//! by it, and what is to be said to it without being asked.

use crate::{ear::Ear, room::Room};
use lockkeeper::wire::Note;
use lockkeeper_core::SessionId;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// A connection, as others see it.
#[derive(Debug)]
pub(crate) struct Link {
    unread_max: usize,
    state: Mutex<State>,
    /// Its bell rings for notes and for a cut as well.
    pub(crate) ear: Arc<Ear>,
    pub(crate) in_flight: AtomicUsize,
    standing: watch::Sender<Standing>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    Here,
    /// A newer one has come for one of its sessions.
    Evicted,
    /// Nothing that was asked through it is open any more.
    Over,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    /// Whole lines.
    notes: Vec<u8>,
    is_overfull: bool,
    /// The attached sessions that live by it, with their projects.
    sessions: HashMap<(Arc<str>, SessionId), Arc<Room>>,
}

/// Who asks: a connection, or somebody who is only passing and has none that stays.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub(crate) link: Option<Arc<Link>>,
}

impl Peer {
    /// Somebody without a connection of his own: no session can live by it, and nothing can be said
    /// to it but answers.
    pub fn passing() -> Peer {
        Peer::default()
    }
}

/// A note as a line.
pub(crate) fn write_note(note: &Note, to: &mut Vec<u8>) {
    let start = to.len();
    to.extend_from_slice(br#"{"jsonrpc":"2.0","#);
    let inside = to.len();
    match serde_json::to_writer(&mut *to, note) {
        // It begins with a brace of its own.
        Ok(()) => {
            to.remove(inside);
            to.push(b'\n');
        }
        Err(error) => {
            tracing::error!(%error, "a note cannot be written");
            to.truncate(start);
        }
    }
}

impl Link {
    pub(crate) fn new(unread_max: usize) -> Link {
        Link {
            unread_max,
            state: Mutex::default(),
            ear: Arc::default(),
            in_flight: AtomicUsize::new(0),
            standing: watch::Sender::new(Standing::Here),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something that must not be lost. Whoever lets too much of it pile up is cut.
    pub(crate) fn say(&self, note: &Note) {
        let mut state = self.lock();
        if state.is_closed || state.is_overfull {
            return;
        }
        write_note(note, &mut state.notes);
        if state.notes.len() > self.unread_max {
            state.is_overfull = true;
            state.notes = Vec::new();
        }
        drop(state);
        self.ear.bell.notify_one();
    }

    /// Takes what is to be said. Whether it was not too much.
    pub(crate) fn take_notes(&self, to: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        to.append(&mut state.notes);
        !state.is_overfull
    }

    /// A session lives by it from now on. False if it is over, or has as many as it may.
    pub(crate) fn bind(&self, room: &Arc<Room>, session: SessionId) -> bool {
        let mut state = self.lock();
        if !state.is_closed {
            state.sessions.insert((room.name().clone(), session), room.clone());
        }
        !state.is_closed
    }

    pub(crate) fn unbind(&self, room: &Room, session: SessionId) {
        self.lock().sessions.remove(&(room.name().clone(), session));
    }

    pub(crate) fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// It is over: nothing binds to it any more. The sessions that lived by it.
    pub(crate) fn close(&self) -> Vec<(Arc<Room>, SessionId)> {
        let mut state = self.lock();
        state.is_closed = true;
        state.notes = Vec::new();
        let sessions = std::mem::take(&mut state.sessions);
        drop(state);
        self.ear.to_none();
        sessions.into_iter().map(|((_, session), room)| (room, session)).collect()
    }

    fn go_on_to(&self, standing: Standing) {
        self.standing.send_modify(|now| *now = standing.max(*now));
    }

    /// Closes the connection, and waits until it is.
    pub(crate) async fn evict(&self) {
        self.go_on_to(Standing::Evicted);
        let mut standing = self.standing.subscribe();
        // The sender is here.
        let _ = standing.wait_for(|standing| *standing == Standing::Over).await;
    }

    pub(crate) fn is_evicted(&self) -> bool {
        *self.standing.borrow() != Standing::Here
    }

    /// Waits until somebody wants it closed.
    pub(crate) async fn evicted(&self) {
        let mut standing = self.standing.subscribe();
        let _ = standing.wait_for(|standing| *standing != Standing::Here).await;
    }

    /// It is over, and all that was asked through it is let go.
    pub(crate) fn is_over(&self) {
        self.go_on_to(Standing::Over);
    }

    /// Whether anything would be lost if it ended.
    pub(crate) fn matters(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0 || self.sessions() > 0 || self.ear.listens()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_a_line_of_json_rpc() {
        let mut line = Vec::new();
        write_note(&Note::Missed { missed: 3 }, &mut line);
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line, "{\"jsonrpc\":\"2.0\",\"method\":\"missed\",\"params\":{\"missed\":3}}\n");
    }

    #[test]
    fn what_nobody_reads_is_bounded() {
        let link = Link::new(1000);
        for _ in 0..10_000 {
            link.say(&Note::Missed { missed: 1 });
            assert!(link.lock().notes.len() < 1100);
        }
        assert!(!link.take_notes(&mut Vec::new()));
    }
}

//! What a daemon says without being asked, as it is heard.

use crate::wire::Note;
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;

/// How many events somebody may lag behind before some are missed. What concerns holds is never.
const EVENTS_MAX: usize = 4096;

/// Hears what the daemon says by itself, from the moment it was made: events, if they were
/// subscribed to, and what becomes of the sessions of its connection.
pub struct Notes {
    heard: Arc<Heard>,
}

impl Notes {
    /// Waits for the next one; `None` when the connection is gone and all was heard.
    pub async fn next(&mut self) -> Option<Note> {
        loop {
            let changed = self.heard.changed.notified();
            match self.heard.take() {
                Taken::Note(note) => return Some(note),
                Taken::Nothing => changed.await,
                Taken::Over => return None,
            }
        }
    }

    /// The next one, if it has come already.
    pub fn try_next(&mut self) -> Option<Note> {
        match self.heard.take() {
            Taken::Note(note) => Some(note),
            Taken::Nothing | Taken::Over => None,
        }
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").finish_non_exhaustive()
    }
}

enum Taken {
    Note(Note),
    Nothing,
    Over,
}

/// One listener's queue.
#[derive(Default)]
struct Heard {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    notes: VecDeque<Note>,
    /// How many events came behind the last note and found no room.
    missed: u64,
    is_over: bool,
}

impl Heard {
    fn take(&self) -> Taken {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.notes.pop_front() {
            Some(note) => Taken::Note(note),
            None if queue.missed > 0 => {
                Taken::Note(Note::Missed { missed: std::mem::take(&mut queue.missed) })
            }
            None if queue.is_over => Taken::Over,
            None => Taken::Nothing,
        }
    }

    fn put(&self, note: &Note) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Note::Event(_) if queue.notes.len() >= EVENTS_MAX => queue.missed += 1,
            Note::Missed { missed } if queue.notes.len() >= EVENTS_MAX => queue.missed += missed,
            _ => {
                if queue.missed > 0 {
                    let missed = std::mem::take(&mut queue.missed);
                    queue.notes.push_back(Note::Missed { missed });
                }
                queue.notes.push_back(note.clone());
            }
        }
        drop(queue);
        self.changed.notify_one();
    }

    fn end(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.changed.notify_one();
    }
}

/// Everybody who listens to one connection.
#[derive(Default)]
pub(super) struct Listeners {
    all: Mutex<Vec<Weak<Heard>>>,
    is_over: AtomicBool,
}

impl Listeners {
    pub(super) fn listen(&self) -> Notes {
        let heard = Arc::new(Heard::default());
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|heard| heard.strong_count() > 0);
        all.push(Arc::downgrade(&heard));
        if self.is_over.load(Ordering::Acquire) {
            heard.end();
        }
        Notes { heard }
    }

    pub(super) fn tell(&self, note: &Note) {
        for heard in self.all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(heard) = heard.upgrade() {
                heard.put(note);
            }
        }
    }

    /// Nothing more will be said.
    pub(super) fn end(&self) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_over.store(true, Ordering::Release);
        all.iter().filter_map(Weak::upgrade).for_each(|heard| heard.end());
    }
}

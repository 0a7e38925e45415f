//! The rooms that the locks protect, each with somebody at the door who counts. This is what the
//! whole simulation is for: the locks say who may go in, and here it is seen who really does.
//!
//! Whoever enters shows its guard. Somebody whose lock is gone (expired, revoked) may still be in
//! the room: the machine of a paused agent has no way to be thrown out. It counts as outside from
//! the moment it could know, that is, from when its own guard says so. The next one who enters
//! finds it *evicted*, and when it touches the room's page once more, the fence *bounces* it.
//!
//! So this is what must never be seen, and each is reported as what it is:
//!
//! - two in one room, in modes that exclude each other, whose guards are valid at the same moment;
//! - a newcomer whose token is not larger than that of somebody it had to wait for;
//! - a holder with a valid guard that the fence turns away;
//! - a page that changed between two touches of one visit, although the fence let both through.

use lockkeeper::{FenceGate, GuardWatch, LockGuard, LockMode, Resource, Token};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// One resource, seen from inside.
pub(crate) struct Room {
    pub(crate) resource: Resource,
    pub(crate) capacity: Option<u32>,
    /// What is protected: one page, or one for each slot where there are slots.
    pages: Vec<FenceGate<Page>>,
    roll: Mutex<Roll>,
    pub(crate) evicted: AtomicU64,
    pub(crate) bounced: AtomicU64,
    problems: Mutex<Vec<String>>,
}

/// What agents read and write.
#[derive(Clone, Copy, PartialEq, Default)]
struct Page {
    version: u64,
    writer: u64,
}

#[derive(Default)]
struct Roll {
    visits: u64,
    present: Vec<Present>,
    most: Most,
}

struct Present {
    visit: u64,
    agent: String,
    mode: LockMode,
    token: Token,
    slots: Vec<u32>,
    watch: GuardWatch,
}

/// The most who were inside at once.
#[derive(Clone, Copy, Default)]
pub(crate) struct Most {
    /// Together with a writer, who counts as well: 1, or all is lost.
    pub(crate) exclusive: usize,
    /// Readers and updaters, without a writer.
    pub(crate) readers: usize,
    /// Slots in use.
    pub(crate) permits: usize,
}

impl Most {
    pub(crate) fn or(self, other: Most) -> Most {
        Most {
            exclusive: self.exclusive.max(other.exclusive),
            readers: self.readers.max(other.readers),
            permits: self.permits.max(other.permits),
        }
    }
}

impl Present {
    /// By arithmetic alone, so that the library is not its own judge.
    fn excludes(&self, other: &Present) -> bool {
        use LockMode::{Exclusive, Permit, Shared, Update};
        match (self.mode, other.mode) {
            (Permit(_), Permit(_)) => self.slots.iter().any(|slot| other.slots.contains(slot)),
            (Shared, Shared | Update) | (Update, Shared) => false,
            (Update, Update) | (Exclusive | Permit(_), _) | (_, Exclusive | Permit(_)) => true,
        }
    }
}

impl Room {
    pub(crate) fn new(resource: Resource, capacity: Option<u32>) -> Arc<Room> {
        let pages = 0..capacity.unwrap_or(1);
        Arc::new(Room {
            resource,
            capacity,
            pages: pages.map(|_| FenceGate::default()).collect(),
            roll: Mutex::default(),
            evicted: AtomicU64::new(0),
            bounced: AtomicU64::new(0),
            problems: Mutex::default(),
        })
    }

    /// Goes in. `None`: the lock was lost on the way to the door.
    pub(crate) fn enter(self: &Arc<Room>, guard: &LockGuard) -> Option<Visit> {
        let visit = {
            let mut roll = self.roll.lock().unwrap_or_else(PoisonError::into_inner);
            roll.visits += 1;
            roll.visits
        };
        let visit = Visit { room: self.clone(), visit };
        visit.sign_in(guard).then_some(visit)
    }

    pub(crate) fn most(&self) -> Most {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner).most
    }

    /// How many are still in it; at the end, nobody.
    pub(crate) fn left_inside(&self) -> usize {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner).present.len()
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn problem(&self, what: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.push(format!("{}: {what}", self.resource));
    }
}

/// Somebody's stay in a room. It must end before the lock is given back.
pub(crate) struct Visit {
    room: Arc<Room>,
    visit: u64,
}

/// What somebody saw on the pages.
pub(crate) struct Seen(Vec<Page>);

/// The fence was closed: somebody newer has been here.
pub(crate) struct Bounced;

impl Visit {
    /// Writes oneself on the roll, or anew when mode and token have changed.
    pub(crate) fn sign_in(&self, guard: &LockGuard) -> bool {
        let room = &self.room;
        let mut roll = room.roll.lock().unwrap_or_else(PoisonError::into_inner);
        roll.present.retain(|one| one.visit != self.visit);
        let me = Present {
            visit: self.visit,
            agent: guard.agent().to_owned(),
            mode: guard.mode(),
            token: guard.token(),
            slots: guard.slots().to_vec(),
            watch: guard.watch(),
        };
        // Asked before the others are: whoever of them is valid after this was so beside it.
        if !guard.is_valid() {
            return false;
        }
        roll.present.retain(|other| {
            if !me.excludes(other) {
                return true;
            }
            if other.watch.is_valid() {
                room.problem(format!(
                    "{} ({}, token {}) and {} ({}, token {}) were inside together",
                    other.agent, other.mode, other.token, me.agent, me.mode, me.token
                ));
            } else {
                room.evicted.fetch_add(1, Relaxed);
            }
            if me.token <= other.token {
                room.problem(format!(
                    "{} came after {}, but token {} is not larger than {}",
                    me.agent, other.agent, me.token, other.token
                ));
            }
            other.watch.is_valid()
        });
        roll.present.push(me);
        roll.count();
        true
    }

    /// Says that from now on it only reads. Said before the lock is weakened: the moment it is,
    /// others may come in.
    pub(crate) fn only_reads(&self) {
        let mut roll = self.room.roll.lock().unwrap_or_else(PoisonError::into_inner);
        for me in roll.present.iter_mut().filter(|one| one.visit == self.visit) {
            me.mode = LockMode::Shared;
        }
    }

    /// Writes on the pages, or only reads them, as the lock allows.
    pub(crate) fn begin(&self, guard: &LockGuard) -> Result<Seen, Bounced> {
        let writes = matches!(guard.mode(), LockMode::Exclusive | LockMode::Permit(_));
        self.touch(guard, |page| {
            if writes {
                *page = Page { version: page.version + 1, writer: self.visit };
            }
        })
    }

    /// Looks once more: whatever it saw or wrote must still be there, if it is let in at all.
    pub(crate) fn end(&self, guard: &LockGuard, before: &Seen) -> Result<(), Bounced> {
        let now = self.touch(guard, |_| {})?;
        if now.0 != before.0 {
            let agent = guard.agent();
            self.room.problem(format!("the page changed under {agent}, and the fence let it"));
        }
        Ok(())
    }

    fn touch(&self, guard: &LockGuard, deed: impl Fn(&mut Page)) -> Result<Seen, Bounced> {
        let token = guard.token();
        let mut slots = guard.slots();
        if slots.is_empty() {
            slots.push(0);
        }
        let mut seen = Vec::with_capacity(slots.len());
        for slot in slots {
            let page = self.room.pages[slot as usize].with(token, |page| {
                deed(page);
                *page
            });
            match page {
                Ok(page) => seen.push(page),
                Err(fenced) => {
                    self.room.bounced.fetch_add(1, Relaxed);
                    // Asked after the fence: if it is valid now, it was so then.
                    if guard.is_valid() {
                        let agent = guard.agent();
                        self.room.problem(format!("{agent} holds it, but: {fenced}"));
                    }
                    return Err(Bounced);
                }
            }
        }
        Ok(Seen(seen))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut roll = self.room.roll.lock().unwrap_or_else(PoisonError::into_inner);
        roll.present.retain(|one| one.visit != self.visit);
    }
}

impl Roll {
    /// Counts who is inside now. Whoever has lost its lock is not.
    fn count(&mut self) {
        let inside = || self.present.iter().filter(|one| one.watch.is_valid());
        let permits = inside().map(|one| one.slots.len()).sum();
        let people = inside().filter(|one| one.slots.is_empty()).count();
        let with_writer = inside().any(|one| one.mode == LockMode::Exclusive);
        let now = match with_writer {
            true => Most { exclusive: people, readers: 0, permits },
            false => Most { exclusive: 0, readers: people, permits },
        };
        self.most = self.most.or(now);
    }
}

//! Counts who is inside.

use lockkeeper::{LockGuard, LockMode, Resource};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// What a lock protects: it sees who comes in, and who should not be in at the same time.
pub struct Room {
    pub resource: Resource,
    pub capacity: Option<u32>,
    crowd: Mutex<Crowd>,
    breaches: Mutex<Vec<String>>,
    visits: AtomicUsize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Crowd {
    shared: u32,
    update: u32,
    exclusive: u32,
    permits: u32,
    /// The newest token seen, and the newest one of an exclusive holder.
    newest: u64,
    newest_exclusive: u64,
}

impl Room {
    pub fn new(resource: Resource, capacity: Option<u32>) -> Arc<Room> {
        Arc::new(Room {
            resource,
            capacity,
            crowd: Mutex::default(),
            breaches: Mutex::default(),
            visits: AtomicUsize::new(0),
        })
    }

    /// Goes in with a guard, and out when the visit is dropped, which must be before the guard is.
    pub fn enter(self: &Arc<Room>, guard: &LockGuard) -> Visit {
        assert_eq!(*guard.resource(), self.resource);
        self.come(guard.mode(), guard.token().get());
        self.visits.fetch_add(1, Ordering::Relaxed);
        Visit { room: self.clone(), mode: guard.mode() }
    }

    fn come(&self, mode: LockMode, token: u64) {
        let mut crowd = self.crowd.lock().unwrap();
        let before = *crowd;
        crowd.count(mode, 1);
        let late = match mode {
            LockMode::Exclusive => token <= before.newest,
            LockMode::Permit(_) => false,
            _ => token <= before.newest_exclusive,
        };
        if late {
            self.breach(format!("I2: token {token} for {mode:?} after {before:?}"));
        }
        crowd.newest = crowd.newest.max(token);
        if mode == LockMode::Exclusive {
            crowd.newest_exclusive = crowd.newest_exclusive.max(token);
        }
        let Crowd { shared, update, exclusive, permits, .. } = *crowd;
        let alone = exclusive <= 1 && (exclusive == 0 || shared + update == 0);
        if !(alone && update <= 1 && permits <= self.capacity.unwrap_or(0)) {
            self.breach(format!("I1: {mode:?} came to {before:?}"));
        }
    }

    fn breach(&self, what: String) {
        self.breaches.lock().unwrap().push(format!("{}: {what}", self.resource));
    }

    /// Nobody was ever inside who should not have been, and nobody is now.
    pub fn check(&self) {
        assert_eq!(*self.breaches.lock().unwrap(), Vec::<String>::new());
        let Crowd { shared, update, exclusive, permits, .. } = *self.crowd.lock().unwrap();
        assert_eq!((shared, update, exclusive, permits), (0, 0, 0, 0));
    }

    pub fn visits(&self) -> usize {
        self.visits.load(Ordering::Relaxed)
    }
}

impl Crowd {
    fn count(&mut self, mode: LockMode, by: i64) {
        let (place, by) = match mode {
            LockMode::Shared => (&mut self.shared, by),
            LockMode::Update => (&mut self.update, by),
            LockMode::Exclusive => (&mut self.exclusive, by),
            LockMode::Permit(n) => (&mut self.permits, by * i64::from(n)),
        };
        *place = u32::try_from(i64::from(*place) + by).unwrap();
    }
}

/// Somebody inside.
pub struct Visit {
    room: Arc<Room>,
    mode: LockMode,
}

impl Visit {
    /// The guard has another mode now.
    pub fn changed(&mut self, guard: &LockGuard) {
        self.room.crowd.lock().unwrap().count(self.mode, -1);
        self.mode = guard.mode();
        self.room.come(self.mode, guard.token().get());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.room.crowd.lock().unwrap().count(self.mode, -1);
    }
}

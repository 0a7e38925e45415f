//! What all connections share: the manager, the projects, who is there, and whether the server
//! goes on serving.

use crate::{
    config::ServerConfig,
    ear::{Ear, Told},
    ends::{Ends, end_in_time},
    hub::Hub,
    link::Link,
    post::Post,
    refuse,
    ring::Rings,
    room::{Room, attached_in},
};
use foldhash::quality::RandomState;
use lockkeeper::{
    LastEvent, LockManager, Unavailable,
    wire::{ErrorObject, Subscribe, Subscribed},
};
use lockkeeper_core::{RequestId, SessionId, Timestamp};
use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, OnceCell, watch},
    time::Instant,
};

/// How a server is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    Serving,
    /// Nothing new begins; what waits is told to come back.
    Stopping,
    /// Gone without a word, as if the process had died: nothing that is dropped has any effect.
    Dead,
}

/// Projects by their names; each is taken over once, by whoever asks first.
type Rooms = HashMap<Arc<str>, Arc<OnceCell<Arc<Room>>>, RandomState>;

/// A server's inside, without its doors.
pub struct House {
    pub(crate) manager: LockManager,
    pub(crate) config: ServerConfig,
    pub(crate) started_at: Timestamp,
    /// Where it listens, in words.
    pub(crate) listens: Mutex<Vec<String>>,
    pub(crate) ends: Ends,
    pub(crate) hub: Hub,
    pub(crate) post: Post,
    rings: Arc<Rings>,
    rooms: Mutex<Rooms>,
    links: Mutex<HashMap<u64, Weak<Link>>>,
    phase: Mutex<Phase>,
    /// Rings once, when the server stops serving: for each call that waits somebody listens.
    stops: Notify,
    /// How many connections there are.
    population: watch::Sender<usize>,
    pub(crate) asked_to_stop: Notify,
    /// When something happened for the last time, in milliseconds since the start.
    stirred: AtomicU64,
    began: Instant,
    /// Whether somebody waits for the next time, and how that one is told.
    pub(crate) wants_stir: AtomicBool,
    pub(crate) stir: Notify,
    counter: AtomicU64,
    requests: u64,
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("House").field("config", &self.config).finish_non_exhaustive()
    }
}

impl House {
    /// Starts what goes on inside: whoever hears the news, and whoever ends sessions in time.
    pub(crate) fn start(manager: LockManager, config: ServerConfig) -> Arc<House> {
        let rings = Arc::new(Rings::new(config.limits.events_kept));
        let (hub, listening) = Hub::new(manager.subscribe(), rings.clone());
        let (ends, due) = Ends::new();
        let house = Arc::new(House {
            started_at: manager.now(),
            manager,
            config,
            listens: Mutex::default(),
            ends,
            hub,
            post: Post::start(),
            rings,
            rooms: Mutex::default(),
            links: Mutex::default(),
            phase: Mutex::new(Phase::Serving),
            stops: Notify::new(),
            asked_to_stop: Notify::new(),
            stirred: AtomicU64::new(0),
            began: Instant::now(),
            wants_stir: AtomicBool::new(false),
            stir: Notify::new(),
            population: watch::Sender::new(0),
            counter: AtomicU64::new(0),
            requests: random(),
        });
        listening.begin(&house);
        tokio::spawn(end_in_time(Arc::downgrade(&house), due));
        house
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Weak<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A project; taken over, if this is the first word about it. Its attached sessions of earlier
    /// processes then have their grace.
    pub(crate) async fn room(self: &Arc<House>, name: &str) -> Result<Arc<Room>, ErrorObject> {
        let cell = {
            let mut rooms = self.rooms();
            match rooms.get(name) {
                Some(cell) => cell.clone(),
                None => {
                    refuse::check_project(name)?;
                    if rooms.len() >= self.config.limits.projects {
                        let max = self.config.limits.projects;
                        return Err(refuse::limit(format!(
                            "the daemon serves {max} projects, and that is as many as it may"
                        )));
                    }
                    let cell: Arc<OnceCell<Arc<Room>>> = Arc::default();
                    rooms.insert(name.into(), cell.clone());
                    cell
                }
            }
        };
        if let Some(room) = cell.get() {
            return Ok(room.clone());
        }
        let made = cell.get_or_try_init(|| self.take_over(name)).await;
        made.cloned().map_err(|why| refuse::unavailable(&why))
    }

    async fn take_over(self: &Arc<House>, name: &str) -> Result<Arc<Room>, Unavailable> {
        let project = self.manager.project(name).await?;
        let orphans = attached_in(&project).await?;
        let room = Arc::new(Room::new(project));
        for session in orphans {
            let bound = room.orphan(session);
            self.ends.after(self.config.reattach_grace, &room, session, bound);
        }
        Ok(room)
    }

    /// The projects that are served.
    pub(crate) fn open_rooms(&self) -> Vec<Arc<Room>> {
        self.rooms().values().filter_map(|cell| cell.get().cloned()).collect()
    }

    /// Whether there is such a project, as far as is known.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.rooms().contains_key(name)
    }

    /// A project that is served already.
    pub(crate) fn open_room(&self, name: &str) -> Option<Arc<Room>> {
        self.rooms().get(name)?.get().cloned()
    }

    /// A connection is there.
    pub(crate) fn enter(&self) -> (u64, Arc<Link>) {
        let link = Arc::new(Link::new(self.config.limits.unread_bytes));
        let id = self.counter.fetch_add(1, Ordering::Relaxed);
        self.links().insert(id, Arc::downgrade(&link));
        self.population.send_modify(|count| *count += 1);
        self.stir();
        (id, link)
    }

    /// It is gone, and with it go the sessions that live by it: at once, or after they lingered.
    pub(crate) fn leave(self: &Arc<House>, id: u64, link: &Arc<Link>) {
        self.links().remove(&id);
        let sessions = link.close();
        self.stir();
        if self.phase() == Phase::Serving {
            self.let_go(link, sessions);
        }
        self.population.send_modify(|count| *count -= 1);
    }

    fn let_go(self: &Arc<House>, link: &Arc<Link>, sessions: Vec<(Arc<Room>, SessionId)>) {
        // Whoever has come back for one of them comes for the others next.
        let at_least = match link.is_evicted() {
            true => self.config.reattach_grace,
            false => Duration::ZERO,
        };
        for (room, session) in sessions {
            let Some(left) = room.left(session, link) else { continue };
            match left.linger.max(at_least) {
                Duration::ZERO => {
                    if room.is_over(session, left.bound) {
                        self.end(room, session);
                    }
                }
                linger => self.ends.after(linger, &room, session, left.bound),
            }
        }
    }

    pub(crate) fn connections(&self) -> usize {
        *self.population.borrow()
    }

    /// Waits until all connections are gone.
    pub(crate) async fn deserted(&self) {
        let mut population = self.population.subscribe();
        let _ = population.wait_for(|count| *count == 0).await;
    }

    /// Something happened: the server is not idle.
    pub(crate) fn stir(&self) {
        self.stir_at(Instant::now());
    }

    /// The same, for whoever knows what time it is.
    pub(crate) fn stir_at(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began);
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.stirred.store(now, Ordering::SeqCst);
        if self.wants_stir.load(Ordering::SeqCst) {
            self.stir.notify_one();
        }
    }

    /// When something happened for the last time.
    pub(crate) fn stirred(&self) -> Instant {
        self.began + Duration::from_millis(self.stirred.load(Ordering::SeqCst))
    }

    /// Whether any connection would lose something if the server ended.
    pub(crate) fn is_needed(&self) -> bool {
        self.links().values().filter_map(Weak::upgrade).any(|link| link.matters())
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on to a later phase; never back.
    pub(crate) fn go_on_to(&self, phase: Phase) {
        {
            let mut now = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            *now = phase.max(*now);
        }
        if phase != Phase::Serving {
            self.stops.notify_waiters();
        }
    }

    /// Somebody wants the server to end.
    pub(crate) fn ask_to_stop(&self) {
        self.asked_to_stop.notify_one();
    }

    /// Waits until the server does not serve any more.
    pub(crate) async fn stopping(&self) {
        // It hears what rings from now on, also while it is not polled yet.
        let mut stops = pin!(self.stops.notified());
        if self.phase() == Phase::Serving {
            stops.as_mut().await;
        }
    }

    /// A name for a request whose sender gave it none.
    pub(crate) fn next_request(&self) -> RequestId {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        RequestId::new(u128::from(self.requests) << 64 | u128::from(count))
    }

    pub(crate) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Lets an ear hear what is asked for.
    pub(crate) async fn subscribe(
        self: &Arc<House>,
        ear: &Arc<Ear>,
        ask: Subscribe,
    ) -> Result<Subscribed, ErrorObject> {
        self.hub.listen(ear);
        let Some(project) = ask.project else {
            if ask.since.is_some() {
                return Err(refuse::params(
                    "`since` is the number of an event of one project: name the `project`",
                ));
            }
            // An event may come after the answer to its request, and yet be of before.
            for room in self.open_rooms() {
                if let Ok(last) = room.project.see(LastEvent {}).await {
                    ear.to(room.name(), last);
                }
            }
            ear.to_all();
            return Ok(Subscribed { missed: 0 });
        };
        refuse::check_project(&project)?;
        if !self.has(&project) {
            // To listen for what is not there must not make it; its first event has the number 1.
            ear.to(&project.into(), 0);
            return Ok(Subscribed { missed: 0 });
        }
        let room = self.room(&project).await?;
        let seen = room.project.see(LastEvent {}).await;
        let last = seen.map_err(|why| refuse::unavailable(&why))?;
        // What has happened by then is in the ring now, if it happened while this server serves.
        self.hub.catch_up().await;
        let since = ask.since.unwrap_or(last).min(last);
        let first = self.rings.first(&project).unwrap_or(last + 1).min(last + 1);
        let missed = first.saturating_sub(since + 1);
        ear.to(room.name(), since + missed);
        Ok(Subscribed { missed })
    }

    /// Events for whoever has no connection of the kind that hears them by itself.
    pub async fn listen(self: &Arc<House>, ask: Subscribe) -> Result<Listener, ErrorObject> {
        let ear = Arc::new(Ear::default());
        let subscribed = self.subscribe(&ear, ask).await?;
        Ok(Listener { ear, rings: self.rings.clone(), subscribed })
    }
}

/// Events, one after the other.
#[derive(Debug)]
pub struct Listener {
    ear: Arc<Ear>,
    rings: Arc<Rings>,
    subscribed: Subscribed,
}

impl Listener {
    /// What it was answered with.
    pub fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.ear.next(&self.rings) {
                return told;
            }
            self.ear.bell.notified().await;
        }
    }
}

/// A number nobody can foresee, from the randomness that the standard library seeds its maps with.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

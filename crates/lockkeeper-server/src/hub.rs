//! Hears everything that happens, and passes it on: into the rings, to whoever listens, and to the
//! rooms, which know whose holds it is about.

use crate::{
    ear::Ear,
    house::House,
    ring::{Follows, Rings},
    room::Room,
};
use foldhash::quality::RandomState;
use lockkeeper::{Events, Heard, ProjectEvent, Unavailable};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// How many events are heard before others have their turn.
const AT_ONCE: usize = 64;

/// Projects whose events were heard.
type Known = HashMap<Arc<str>, Weak<Room>, RandomState>;

/// Where listeners are entered.
#[derive(Debug)]
pub(crate) struct Hub {
    ears: Arc<Mutex<Vec<Weak<Ear>>>>,
    catch_up: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

/// What a hub is made with and has not begun to hear.
pub(crate) struct Listening {
    events: Events,
    rings: Arc<Rings>,
    ears: Arc<Mutex<Vec<Weak<Ear>>>>,
    catch_up: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
}

impl Hub {
    pub(crate) fn new(events: Events, rings: Arc<Rings>) -> (Hub, Listening) {
        let ears: Arc<Mutex<Vec<Weak<Ear>>>> = Arc::default();
        let (asked, catch_up) = mpsc::unbounded_channel();
        let hub = Hub { ears: ears.clone(), catch_up: asked };
        (hub, Listening { events, rings, ears, catch_up })
    }

    pub(crate) fn listen(&self, ear: &Arc<Ear>) {
        if ear.is_entered() {
            return;
        }
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        // Now and then those that are gone make room: each time the list would have to grow.
        if ears.len() == ears.capacity() {
            ears.retain(|ear| ear.strong_count() > 0);
        }
        ears.push(Arc::downgrade(ear));
    }

    /// Waits until everything that has happened is in the rings.
    pub(crate) async fn catch_up(&self) {
        let (tell, told) = oneshot::channel();
        if self.catch_up.send(tell).is_ok() {
            let _ = told.await;
        }
    }
}

impl Listening {
    /// Hears, for as long as there is a house.
    pub(crate) fn begin(mut self, house: &Arc<House>) {
        let (house, post) = (Arc::downgrade(house), house.post.clone());
        tokio::spawn(post.reach(async move {
            // Most events are of a project that had one lately.
            let mut rooms = Known::default();
            loop {
                tokio::select! {
                    heard = self.events.next() => {
                        let (Some(heard), Some(house)) = (heard, house.upgrade()) else { return };
                        self.heard(&house, &mut rooms, heard);
                        // What came with it is heard with it, and nobody else waits for long.
                        for _ in 0..AT_ONCE {
                            let Some(heard) = self.events.try_next() else { break };
                            self.heard(&house, &mut rooms, heard);
                        }
                        house.stir();
                    }
                    asked = self.catch_up.recv() => {
                        let (Some(tell), Some(house)) = (asked, house.upgrade()) else { return };
                        while let Some(heard) = self.events.try_next() {
                            self.heard(&house, &mut rooms, heard);
                        }
                        house.stir();
                        let _ = tell.send(());
                    }
                }
            }
        }));
    }

    fn heard(&self, house: &Arc<House>, rooms: &mut Known, heard: Heard) {
        match heard {
            Heard::Event(event) => {
                let room = rooms.get(&event.project_id).and_then(Weak::upgrade);
                let room = room.or_else(|| {
                    let room = house.open_room(&event.project_id)?;
                    rooms.insert(event.project_id.clone(), Arc::downgrade(&room));
                    Some(room)
                });
                if let Some(room) = &room {
                    route(room, &event);
                }
                let follows = self.pass_on(event);
                // What a life of the actor wrote last and could not tell any more.
                if let Some(room) = room.filter(|_| follows != Follows::Next) {
                    tokio::spawn(catch_up(room));
                }
            }
            Heard::Missed(missed) => {
                tracing::warn!(missed, "events came faster than they could be passed on");
                for room in house.open_rooms() {
                    tokio::spawn(catch_up(room));
                }
            }
        }
    }

    fn pass_on(&self, event: Arc<ProjectEvent>) -> Follows {
        let (project, seq) = (event.project_id.clone(), event.event.seq);
        let follows = self.rings.push(event);
        let ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        for ear in ears.iter().filter_map(Weak::upgrade) {
            ear.event(&project, seq, follows);
        }
        follows
    }
}

fn route(room: &Arc<Room>, event: &ProjectEvent) {
    if let Some(session) = room.heard(&event.event.news) {
        tokio::spawn(room.clone().look_at_tickets(session));
    }
}

/// Finds out what was missed, again if the project cannot be asked just now.
async fn catch_up(room: Arc<Room>) {
    let mut pause = Duration::from_millis(20);
    loop {
        match room.clone().catch_up().await {
            Ok(()) | Err(Unavailable::ShutDown) => return,
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

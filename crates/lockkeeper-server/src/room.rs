//! A project as the server sees it: by which connections its sessions live, and what their clients
//! believe to hold, so that they hear of what they lose.

use crate::{asked::Asked, link::Link};
use foldhash::fast::RandomState;
use lockkeeper::{Grants, List, Lost, Project, Sessions, Unavailable, wire::Note};
use lockkeeper_core::{
    Grant, LockId, LockNews, News, Refusal, SessionId, SessionKind, TicketId, Timestamp,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// How many tickets, and how many early endings, are remembered for one session.
const REMEMBERED: usize = 1024;

/// A project.
pub(crate) struct Room {
    name: Arc<str>,
    pub(crate) project: Project,
    sessions: Mutex<Records>,
    /// Held while an agent's session is looked for and, if there is none, opened.
    pub(crate) reuse: tokio::sync::Mutex<()>,
    pub(crate) asked: Arc<Asked>,
}

/// By the numbers that the daemon gave them: nobody can choose them so that they collide.
type Records = HashMap<SessionId, Record, RandomState>;

/// What is known of a session: of each attached one, and of others while they ask for something.
#[derive(Default)]
struct Record {
    is_attached: bool,
    /// The connection it lives by.
    owner: Option<Arc<Link>>,
    /// How long it outlives that.
    linger: Duration,
    /// How often it was bound to a connection; a deadline of an earlier time means nothing.
    bound: u64,
    is_ending: bool,
    /// How many of its calls may be answered with a grant, and whether one of its locks was granted
    /// or news of them were missed meanwhile.
    asking: usize,
    was_granted: bool,
    was_deaf: bool,
    /// Not there before there is anything in it: most sessions that wait have nothing else.
    known: Option<Box<Known>>,
}

/// What the client of a session knows.
#[derive(Default)]
struct Known {
    /// What it knows to hold.
    holds: HashSet<LockId, RandomState>,
    /// What it is giving back.
    releasing: HashSet<LockId, RandomState>,
    /// What was heard while its calls may be answered with a grant: the news may be faster than the
    /// answer it is about.
    early: Vec<Early>,
    /// Tickets that no call waits on, and who was told them last.
    parked: BTreeMap<TicketId, Weak<Link>>,
}

/// What became of a hold whose grant was not answered yet.
enum Early {
    Over(LockId, Lost),
    Revoking(LockId, Timestamp),
}

/// Why a session is not attached.
pub(crate) enum NotAttached {
    /// It is over or about to be.
    Over,
    /// It lives by another connection, which must let go of it first.
    Elsewhere(Arc<Link>),
}

/// A session may be looked at when its connection has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    pub(crate) linger: Duration,
    pub(crate) bound: u64,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Room {
    pub(crate) fn new(project: Project) -> Room {
        Room {
            name: project.name().into(),
            project,
            sessions: Mutex::default(),
            reuse: tokio::sync::Mutex::default(),
            asked: Arc::default(),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of an earlier process, or one whose connection went before it was known.
    pub(crate) fn orphan(&self, session: SessionId) -> u64 {
        let mut sessions = self.lock();
        let record = sessions.entry(session).or_default();
        record.is_attached = true;
        record.owner = None;
        record.bound
    }

    /// An attached session lives by a connection from now on; its own calls are answered from
    /// here. False if the connection is over already.
    pub(crate) fn opened(
        self: &Arc<Room>,
        session: SessionId,
        link: &Arc<Link>,
        linger: Duration,
    ) -> bool {
        let mut sessions = self.lock();
        let record = sessions.entry(session).or_default();
        record.is_attached = true;
        record.linger = linger;
        let is_bound = link.bind(self, session);
        record.owner = is_bound.then(|| link.clone());
        is_bound
    }

    /// An attached session moves to a connection.
    pub(crate) fn attach(
        self: &Arc<Room>,
        session: SessionId,
        link: &Arc<Link>,
        linger: Duration,
    ) -> Result<Asking, NotAttached> {
        let mut sessions = self.lock();
        let record = sessions.get_mut(&session).filter(|it| it.is_attached && !it.is_ending);
        let record = record.ok_or(NotAttached::Over)?;
        if let Some(old) = record.owner.as_ref().filter(|old| !Arc::ptr_eq(old, link)) {
            return Err(NotAttached::Elsewhere(old.clone()));
        }
        // Whoever asks has vanished meanwhile, and the session is as it was.
        if !link.bind(self, session) {
            return Err(NotAttached::Over);
        }
        record.bound += 1;
        record.linger = linger;
        record.owner = Some(link.clone());
        if let Some(known) = &mut record.known {
            known.holds.clear();
        }
        record.asking += 1;
        Ok(Asking { room: self.clone(), session, is_over: false })
    }

    /// It was attached for nothing, and is an orphan again: when it must be looked at.
    pub(crate) fn not_attached(&self, session: SessionId, link: &Arc<Link>) -> Option<u64> {
        let mut sessions = self.lock();
        let record = sessions.get_mut(&session)?;
        if !record.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, link)) {
            return None;
        }
        record.owner = None;
        link.unbind(self, session);
        Some(record.bound)
    }

    /// A connection is over. How long the session goes on, if it lived by that one.
    pub(crate) fn left(&self, session: SessionId, link: &Arc<Link>) -> Option<Left> {
        let mut sessions = self.lock();
        let record = sessions.get_mut(&session)?;
        if !record.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, link)) {
            return None;
        }
        record.owner = None;
        Some(Left { linger: record.linger, bound: record.bound })
    }

    /// Whether the session must be ended now: nobody has attached it since.
    pub(crate) fn is_over(&self, session: SessionId, bound: u64) -> bool {
        let mut sessions = self.lock();
        let Some(record) = sessions.get_mut(&session) else { return false };
        let is_over = record.owner.is_none() && record.bound == bound && !record.is_ending;
        record.is_ending |= is_over;
        is_over
    }

    /// Whether all the session has goes with it now.
    pub(crate) fn is_ending(&self, session: SessionId) -> bool {
        self.lock().get(&session).is_some_and(|record| record.is_ending)
    }

    /// Whether it lives by a connection.
    pub(crate) fn is_attached(&self, session: SessionId) -> bool {
        self.lock().get(&session).is_some_and(|record| record.is_attached)
    }

    /// Whether it has attached sessions.
    pub(crate) fn has_attached(&self) -> bool {
        self.lock().values().any(|record| record.is_attached)
    }

    /// It is on record that the session is over.
    pub(crate) fn forget(&self, session: SessionId) {
        let mut sessions = self.lock();
        if let Some(record) = sessions.remove(&session)
            && let Some(owner) = record.owner
        {
            owner.unbind(self, session);
        }
    }

    /// Whether a session ends with this connection, or lingers behind it.
    pub(crate) fn lives_by(&self, session: SessionId, link: Option<&Arc<Link>>) -> bool {
        self.lock().get(&session).is_some_and(|record| record.lives_by(link))
    }

    /// A call begins that may be answered with a grant, or, if it is cut in slices, with a ticket.
    /// None if nobody would hear of it anyway.
    pub(crate) fn ask(self: &Arc<Room>, session: SessionId, is_sliced: bool) -> Option<Asking> {
        let mut sessions = self.lock();
        match is_sliced {
            true => sessions.entry(session).or_default().asking += 1,
            false => sessions.get_mut(&session)?.asking += 1,
        }
        Some(Asking { room: self.clone(), session, is_over: false })
    }

    /// A call waits on the ticket.
    pub(crate) fn waits(&self, session: SessionId, ticket: TicketId) {
        if let Some(known) = known_of(&mut self.lock(), session) {
            known.parked.remove(&ticket);
        }
    }

    /// A client gives a hold back, of a session that lives by its connection: that it is over then
    /// is no news. False if it is another session.
    pub(crate) fn releasing(
        &self,
        session: SessionId,
        lock: LockId,
        link: Option<&Arc<Link>>,
    ) -> bool {
        let mut sessions = self.lock();
        let record = sessions.get_mut(&session).filter(|record| record.lives_by(link));
        let Some(record) = record else { return false };
        if let Some(known) = &mut record.known
            && known.holds.remove(&lock)
        {
            known.releasing.insert(lock);
        }
        true
    }

    /// It has not; `is_held` if it holds it still.
    pub(crate) fn not_released(&self, session: SessionId, lock: LockId, is_held: bool) {
        if let Some(known) = known_of(&mut self.lock(), session)
            && known.releasing.remove(&lock)
            && is_held
        {
            known.holds.insert(lock);
        }
    }

    /// A client ends a session: that its holds are over then is no news.
    pub(crate) fn closing(&self, session: SessionId) {
        if let Some(known) = known_of(&mut self.lock(), session) {
            let holds = std::mem::take(&mut known.holds);
            known.releasing.extend(holds);
        }
    }

    /// It has not.
    pub(crate) fn not_closed(&self, session: SessionId) {
        if let Some(known) = known_of(&mut self.lock(), session) {
            let holds = std::mem::take(&mut known.releasing);
            known.holds.extend(holds);
        }
    }

    /// Something happened. The session whose tickets must be looked at, if there is one.
    pub(crate) fn heard(&self, news: &News) -> Option<SessionId> {
        match news {
            News::Locked(news) => {
                let mut sessions = self.lock();
                let record = sessions.get_mut(&news.session)?;
                record.was_granted |= record.asking > 0;
                let known = record.known.as_ref();
                known.is_some_and(|known| !known.parked.is_empty()).then_some(news.session)
            }
            News::Unlocked(news) => self.over(news, Lost::Released),
            News::Expired(news) => self.over(news, Lost::Expired),
            News::Revoked(news) => self.over(news, Lost::Revoked),
            News::Revoking(news) => {
                let mut sessions = self.lock();
                let record = sessions.get_mut(&news.session)?;
                if record.knows(news.lock) {
                    record.say_revoking(&self.name, news.session, news.lock, news.expires_at);
                } else {
                    record.note_early(Early::Revoking(news.lock, news.expires_at));
                }
                None
            }
            News::SessionEnded { session, .. } => {
                self.forget(*session);
                None
            }
            _ => None,
        }
    }

    fn over(&self, news: &LockNews, why: Lost) -> Option<SessionId> {
        let mut sessions = self.lock();
        let record = sessions.get_mut(&news.session)?;
        if record.forget(news.lock) {
            record.say_lost(&self.name, news.session, news.lock, why);
        } else if !record.is_released(news.lock) {
            record.note_early(Early::Over(news.lock, why));
        }
        None
    }

    /// Looks whether tickets have become grants, and tells those who were told the tickets.
    pub(crate) async fn look_at_tickets(self: Arc<Room>, session: SessionId) {
        let Ok(grants) = self.project.see(Grants { session }).await else { return };
        let mut by_ticket: BTreeMap<TicketId, Vec<Grant>> = BTreeMap::new();
        for grant in grants {
            by_ticket.entry(grant.ticket).or_default().push(grant);
        }
        let mut sessions = self.lock();
        let Some(known) = known_of(&mut sessions, session) else { return };
        for (ticket, grants) in by_ticket {
            let Some(link) = known.parked.remove(&ticket) else { continue };
            known.holds.extend(grants.iter().map(|grant| grant.lock));
            if let Some(link) = link.upgrade() {
                let project = self.name.clone();
                link.say(&Note::Granted { project, session, ticket, grants });
            }
        }
    }

    /// News were missed: finds out what they were, as far as clients must know.
    pub(crate) async fn catch_up(self: Arc<Room>) -> Result<(), Unavailable> {
        let (mut held, mut all) = (Vec::new(), Vec::new());
        for (&session, record) in &mut *self.lock() {
            all.push(session);
            if let Some(known) = &record.known {
                let locks = known.holds.iter().chain(&known.releasing);
                held.extend(locks.map(|&lock| (session, lock)));
            }
            record.was_deaf = record.asking > 0;
        }
        if all.is_empty() {
            return Ok(());
        }
        let there = self.project.see(List {}).await?;
        let there: HashMap<LockId, Option<Timestamp>> =
            there.into_iter().map(|holder| (holder.lock, holder.revoked_at)).collect();
        let open = self.project.see(Sessions {}).await?;
        let open: HashSet<SessionId> = open.into_iter().map(|view| view.session).collect();
        for (session, lock) in held {
            let mut sessions = self.lock();
            let Some(record) = sessions.get_mut(&session) else { continue };
            match there.get(&lock) {
                Some(None) => {}
                Some(&Some(until)) => {
                    if record.knows(lock) {
                        record.say_revoking(&self.name, session, lock, until);
                    }
                }
                None => {
                    record.is_released(lock);
                    if record.forget(lock) {
                        record.say_lost(&self.name, session, lock, Lost::Released);
                    }
                }
            }
        }
        for session in all {
            match open.contains(&session) {
                true => self.clone().look_at_tickets(session).await,
                false => self.forget(session),
            }
        }
        Ok(())
    }
}

/// What a session's client knows, if there is anything.
fn known_of(sessions: &mut Records, session: SessionId) -> Option<&mut Known> {
    sessions.get_mut(&session)?.known.as_deref_mut()
}

impl Record {
    fn lives_by(&self, link: Option<&Arc<Link>>) -> bool {
        matches!((&self.owner, link), (Some(owner), Some(link)) if Arc::ptr_eq(owner, link))
    }

    fn say_lost(&self, project: &Arc<str>, session: SessionId, lock: LockId, why: Lost) {
        if let Some(owner) = &self.owner {
            owner.say(&Note::Lost { project: project.clone(), session, lock, why });
        }
    }

    fn say_revoking(&self, project: &Arc<str>, session: SessionId, lock: LockId, until: Timestamp) {
        if let Some(owner) = &self.owner {
            owner.say(&Note::Revoking { project: project.clone(), session, lock, until });
        }
    }

    /// Whether its client knows that it holds this.
    fn knows(&self, lock: LockId) -> bool {
        self.known.as_ref().is_some_and(|known| known.holds.contains(&lock))
    }

    /// Its client holds this no longer; whether it knew that it did.
    fn forget(&mut self, lock: LockId) -> bool {
        self.known.as_mut().is_some_and(|known| known.holds.remove(&lock))
    }

    /// Its client is giving this back no longer; whether it was.
    fn is_released(&mut self, lock: LockId) -> bool {
        self.known.as_mut().is_some_and(|known| known.releasing.remove(&lock))
    }

    fn known(&mut self) -> &mut Known {
        self.known.get_or_insert_default()
    }

    fn note_early(&mut self, early: Early) {
        if self.asking > 0 && self.owner.is_some() {
            let known = self.known();
            match known.early.len() < REMEMBERED {
                true => known.early.push(early),
                false => self.was_deaf = true,
            }
        }
    }
}

/// A call that may be answered with a grant, or with a ticket.
#[derive(Debug)]
pub(crate) struct Asking {
    room: Arc<Room>,
    session: SessionId,
    is_over: bool,
}

impl Asking {
    /// The client is told of grants: from now on it hears when they are over. What it should have
    /// heard already, it hears behind the answer.
    pub(crate) fn granted<'a>(mut self, grants: impl Iterator<Item = &'a Grant>) {
        // Here, while the sessions are locked anyway.
        self.is_over = true;
        let mut sessions = self.room.lock();
        let Some(record) = sessions.get_mut(&self.session) else { return };
        if record.owner.is_some() {
            self.tell(record, grants);
        }
        self.is_over_in(&mut sessions);
    }

    fn tell<'a>(&self, record: &mut Record, grants: impl Iterator<Item = &'a Grant>) {
        for grant in grants {
            let known = record.known();
            known.holds.insert(grant.lock);
            if known.early.is_empty() {
                continue;
            }
            let early = std::mem::take(&mut known.early);
            let (mine, others) = early.into_iter().partition(|early| match early {
                Early::Over(lock, _) | Early::Revoking(lock, _) => *lock == grant.lock,
            });
            known.early = others;
            let mine: Vec<Early> = mine;
            for early in mine {
                match early {
                    Early::Over(lock, why) => {
                        record.forget(lock);
                        record.say_lost(&self.room.name, self.session, lock, why);
                    }
                    Early::Revoking(lock, until) => {
                        record.say_revoking(&self.room.name, self.session, lock, until);
                    }
                }
            }
        }
        if record.was_deaf {
            tokio::spawn(self.room.clone().catch_up());
        }
    }

    /// The client is told a ticket: it hears when that is granted while no call waits on it.
    pub(crate) fn queued(&self, ticket: TicketId, link: &Arc<Link>) {
        let mut sessions = self.room.lock();
        let record = sessions.entry(self.session).or_default();
        let parked = &mut record.known().parked;
        parked.insert(ticket, Arc::downgrade(link));
        if parked.len() > REMEMBERED {
            parked.pop_first();
        }
        if record.was_granted || record.was_deaf {
            tokio::spawn(self.room.clone().look_at_tickets(self.session));
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.is_over {
            self.is_over_in(&mut self.room.lock());
        }
    }
}

impl Asking {
    fn is_over_in(&self, sessions: &mut Records) {
        let Some(record) = sessions.get_mut(&self.session) else { return };
        record.asking = record.asking.saturating_sub(1);
        if record.asking == 0 {
            (record.was_granted, record.was_deaf) = (false, false);
            let mut has_parked = false;
            if let Some(known) = &mut record.known {
                known.early = Vec::new();
                has_parked = !known.parked.is_empty();
            }
            if !record.is_attached && !has_parked {
                sessions.remove(&self.session);
            }
        }
    }
}

/// What an attached session that cannot be attached is refused with.
pub(crate) fn gone(session: SessionId) -> Refusal {
    Refusal::SessionEnded { session }
}

/// The attached ones.
pub(crate) async fn attached_in(project: &Project) -> Result<Vec<SessionId>, Unavailable> {
    let views = project.see(Sessions {}).await?;
    let attached = views.into_iter().filter(|view| view.kind == SessionKind::Attached);
    Ok(attached.map(|view| view.session).collect())
}

//! Sessions of clients: opened, found again, taken up again.

use crate::{
    commands::{Done, Receipt, receipt_for_session},
    house::{House, Phase},
    link::Peer,
    refuse,
    room::{NotAttached, Room, gone},
};
use lockkeeper::{
    Grants, Sessions, Unavailable,
    wire::{Attach, Attached, ErrorObject, Open},
};
use lockkeeper_core::{Answer, SessionId, SessionKind};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// Opens a session. It is opened by a task of its own, so that whoever asks can vanish at any
/// moment and leaves none behind.
pub(crate) async fn open(
    house: &Arc<House>,
    peer: &Peer,
    room: &Arc<Room>,
    open: Open,
) -> Result<Done, ErrorObject> {
    let linger = check(house, peer, &open)?;
    let (tell, told) = oneshot::channel();
    let opening =
        Opening { house: house.clone(), peer: peer.clone(), room: room.clone(), open, linger };
    tokio::spawn(async move {
        let outcome = match opening.open.reuse {
            true => opening.find_or_open().await,
            false => opening.open_new().await,
        };
        // If nobody takes it, the receipt in it says so.
        let _ = tell.send(outcome);
    });
    told.await.unwrap_or_else(|_| Err(refuse::internal("a session was not opened")))
}

fn check(house: &House, peer: &Peer, open: &Open) -> Result<Duration, ErrorObject> {
    if open.open.kind == SessionKind::Detached {
        return match open.linger_ms {
            0 => Ok(Duration::ZERO),
            _ => Err(refuse::params(
                "`linger_ms` is for attached sessions: a detached one outlives its connection",
            )),
        };
    }
    if open.reuse {
        return Err(refuse::params(
            "`reuse` is for detached sessions: an attached one belongs to one connection",
        ));
    }
    let Some(link) = &peer.link else {
        return Err(refuse::params(
            "an attached session ends with its connection, and this one does not last: open it \
             with `kind` `detached`",
        ));
    };
    let max = house.config.limits.sessions;
    if link.sessions() >= max {
        return Err(refuse::limit(format!(
            "the connection has {max} attached sessions, and that is as many as it may: close one"
        )));
    }
    Ok(Duration::from_millis(open.linger_ms).min(house.config.limits.linger))
}

struct Opening {
    house: Arc<House>,
    peer: Peer,
    room: Arc<Room>,
    open: Open,
    linger: Duration,
}

impl Opening {
    async fn open_new(&self) -> Result<Done, ErrorObject> {
        let opened = self.room.project.command(self.open.open.clone()).await;
        let answer = opened.map_err(|error| refuse::call(&error))?;
        let Answer::SessionOpened { session } = answer else {
            return Err(refuse::internal(format!("{answer:?} for a session to be opened")));
        };
        let receipt = match (self.open.open.kind, &self.peer.link) {
            (SessionKind::Attached, Some(link)) => {
                if !self.room.opened(session, link, self.linger) {
                    let bound = self.room.orphan(session);
                    // Where the server stops, the next one ends it.
                    if self.room.is_over(session, bound) {
                        self.house.end(self.room.clone(), session);
                    }
                }
                Receipt::default()
            }
            _ => receipt_for_session(&self.house, &self.room, session),
        };
        Ok(Done { answer, receipt })
    }

    /// One at a time in each project, so that two who ask at once get the same one.
    async fn find_or_open(&self) -> Result<Done, ErrorObject> {
        let _alone = self.room.reuse.lock().await;
        let seen = self.room.project.see(Sessions {}).await;
        let open = seen.map_err(|why| refuse::unavailable(&why))?;
        let agent = &self.open.open.agent;
        let is_its = |kind, of: &Arc<str>| kind == SessionKind::Detached && of == agent;
        match open.iter().find(|view| is_its(view.kind, &view.agent)) {
            Some(view) => {
                let answer = Answer::SessionOpened { session: view.session };
                Ok(Done { answer, receipt: Receipt::default() })
            }
            None => {
                let done = self.open_new().await?;
                // Somebody else may have found it by now.
                done.receipt.delivered();
                Ok(Done { answer: done.answer, receipt: Receipt::default() })
            }
        }
    }
}

/// Takes up a session again that lived by another connection, or by one of an earlier daemon.
pub(crate) async fn attach(
    house: &House,
    peer: &Peer,
    room: &Arc<Room>,
    attach: Attach,
) -> Result<Attached, ErrorObject> {
    let Some(link) = &peer.link else {
        return Err(refuse::params("a session can be attached only to a connection that lasts"));
    };
    let max = house.config.limits.sessions;
    if link.sessions() >= max {
        return Err(refuse::limit(format!(
            "the connection has {max} attached sessions, and that is as many as it may: close one"
        )));
    }
    let session = attach.session;
    let linger = Duration::from_millis(attach.linger_ms).min(house.config.limits.linger);
    let asking = loop {
        match room.attach(session, link, linger) {
            Ok(asking) => break asking,
            // It may not even know that it is over. What it asked for ends with it.
            Err(NotAttached::Elsewhere(older)) if house.phase() == Phase::Serving => {
                older.evict().await;
            }
            Err(NotAttached::Elsewhere(_)) => {
                return Err(refuse::unavailable(&Unavailable::ShutDown));
            }
            Err(NotAttached::Over) => return Err(not_attached(room, session).await),
        }
    };
    let grants = match room.project.see(Grants { session }).await {
        Ok(grants) => grants,
        Err(why) => {
            // Nobody was told that it is attached: it waits for its client as it did before.
            if let Some(bound) = room.not_attached(session, link) {
                let grace = linger.max(house.config.reattach_grace);
                house.ends.after(grace, room, session, bound);
            }
            return Err(refuse::unavailable(&why));
        }
    };
    asking.granted(grants.iter());
    Ok(Attached { grants })
}

async fn not_attached(room: &Room, session: SessionId) -> ErrorObject {
    let open = room.project.see(Sessions {}).await.unwrap_or_default();
    let is_detached = |kind| kind == SessionKind::Detached;
    match open.iter().any(|view| view.session == session && is_detached(view.kind)) {
        true => refuse::params(format!(
            "session {session} is detached: it needs no connection, go on using it"
        )),
        false => refuse::call(&gone(session).into()),
    }
}

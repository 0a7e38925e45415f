//! Commands of clients: carried to the project, watched while they wait, taken back when whoever
//! asked has vanished.

use crate::{
    house::{House, Phase},
    link::Peer,
    refuse,
    room::Room,
};
use lockkeeper::{CallError, Unavailable, wire::ErrorObject};
use lockkeeper_core::{
    Answer, Cancel, CancelTarget, Command, Credential, EndCause, EndSession, Grant, LockId,
    Refusal, RequestId, SessionId, TicketId, Wait,
};
use std::{sync::Arc, time::Duration};

/// An answer, and what must be undone should it not reach whoever asked.
pub(crate) struct Done {
    pub(crate) answer: Answer,
    pub(crate) receipt: Receipt,
}

/// Takes back what an answer grants, unless the answer is delivered.
#[derive(Debug, Default)]
pub struct Receipt {
    take_back: Option<TakeBack>,
}

impl Receipt {
    /// The answer has reached whoever asked.
    pub fn delivered(mut self) {
        if let Some(take_back) = &mut self.take_back {
            take_back.what = None;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.take_back.is_none()
    }
}

/// What to do when it is dropped.
#[derive(Debug)]
struct TakeBack {
    house: Arc<House>,
    room: Arc<Room>,
    what: Option<Command>,
}

impl Drop for TakeBack {
    fn drop(&mut self) {
        let Some(command) = self.what.take() else { return };
        // Where the server stops, places are kept for those who come back.
        if self.house.phase() == Phase::Serving {
            self.house.undo(&self.room, command);
        }
    }
}

impl House {
    /// Does what a vanished caller leaves to be done, and again until it is done.
    fn undo(self: &Arc<House>, room: &Arc<Room>, command: Command) {
        let (house, room) = (self.clone(), room.clone());
        tokio::spawn(async move {
            let mut pause = Duration::from_millis(20);
            while house.phase() != Phase::Dead {
                match room.project.command(command.clone()).await {
                    Ok(_) | Err(CallError::Refused(_)) => break,
                    Err(CallError::Unavailable(Unavailable::ShutDown)) => break,
                    Err(CallError::Unavailable(why)) => {
                        tracing::warn!(project = %room.name(), %why, "a call cannot be taken back");
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            house.stir();
        });
    }
}

/// What a command is to the server.
struct Nature {
    /// The session whose call may be answered with a grant.
    asks: Option<SessionId>,
    /// Whether it may be answered with a ticket.
    is_sliced: bool,
    /// Whether it may wait.
    waits: bool,
    /// What a caller leaves behind who vanishes meanwhile.
    vanished: Option<Command>,
    /// Whether the same must be done when only the answer is lost.
    undelivered: bool,
    /// Whether whoever asks knows the request by a name of his own, and can ask again.
    is_named: bool,
}

impl Nature {
    /// Looks at a command, and gives it a request id if it needs one.
    fn of(house: &House, command: &mut Command) -> Nature {
        let mut is_named = true;
        let mut name = |request: &mut Option<RequestId>| {
            is_named = request.is_some();
            CancelTarget::Request(*request.get_or_insert_with(|| house.next_request()))
        };
        let (session, is_sliced, target) = match command {
            Command::Acquire(it) => {
                (it.session, it.options.slice.is_some(), name(&mut it.options.request_id))
            }
            Command::AcquireAll(it) => {
                (it.session, it.options.slice.is_some(), name(&mut it.options.request_id))
            }
            Command::Upgrade(it) => {
                (it.session, it.options.slice.is_some(), name(&mut it.options.request_id))
            }
            Command::ClaimTasks(it) => (it.session, false, name(&mut it.options.request_id)),
            &mut Command::Wait(Wait { session, ticket, slice }) => {
                // The place is kept, for as long as a ticket is that nobody polls.
                let poll = Wait { session, ticket, slice: Some(Duration::ZERO) };
                return Nature {
                    asks: Some(session),
                    is_sliced: slice.is_some(),
                    waits: true,
                    vanished: Some(poll.into()),
                    undelivered: false,
                    is_named: true,
                };
            }
            _ => {
                return Nature {
                    asks: None,
                    is_sliced: false,
                    waits: false,
                    vanished: None,
                    undelivered: false,
                    is_named: true,
                };
            }
        };
        Nature {
            asks: Some(session),
            is_sliced,
            waits: true,
            vanished: Some(Cancel { session, target }.into()),
            undelivered: true,
            is_named,
        }
    }
}

/// Carries out a command.
pub(crate) async fn command(
    house: &Arc<House>,
    peer: &Peer,
    room: &Arc<Room>,
    mut command: Command,
) -> Result<Done, ErrorObject> {
    let nature = Nature::of(house, &mut command);
    let Some(session) = nature.asks else {
        let answer = watched(peer, room, command).await.map_err(|error| refuse::call(&error))?;
        return Ok(Done { answer, receipt: Receipt::default() });
    };
    let asking = room.ask(session, nature.is_sliced && peer.link.is_some());
    if let Command::Wait(wait) = &command {
        room.waits(session, wait.ticket);
    }
    // A session that lives by this connection goes with it, and all it waits for.
    let is_own = room.lives_by(session, peer.link.as_ref());
    // What was asked on a connection that its client has left was asked again on the next, or is
    // not wanted any more. Done here, it would be taken back with the old connection.
    if !is_own && peer.link.as_ref().is_some_and(|link| link.has_lost(room, session)) {
        return Err(refuse::params(format!(
            "session {session} was taken up by another connection: ask there"
        )));
    }
    let what = nature.vanished.filter(|_| !is_own);
    let mut take_back = TakeBack { house: house.clone(), room: room.clone(), what };
    let outcome = match nature.waits {
        false => room.project.command(command).await,
        true => tokio::select! {
            biased;
            outcome = room.project.command(command) => outcome,
            () = house.stopping() => Err(Unavailable::ShutDown.into()),
        },
    };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => {
            // What could not be written may have been done all the same. Whoever cannot ask again
            // cannot take it back either.
            let may_be_done = matches!(&error, CallError::Unavailable(Unavailable::Store(_)));
            if nature.is_named || !may_be_done {
                take_back.what = None;
            }
            return Err(refuse::call(&error));
        }
    };
    if let Some(asking) = asking {
        match &answer {
            Answer::Granted(grants) => asking.granted(&grants.iter().collect::<Vec<_>>()),
            Answer::TasksClaimed(claimed) => {
                let grants: Vec<&Grant> = claimed.iter().map(|one| &one.grant).collect();
                asking.granted(&grants);
            }
            Answer::Queued { ticket, .. } => parked(&asking, *ticket, peer),
            _ => {}
        }
    }
    if !nature.undelivered {
        take_back.what = None;
    }
    let take_back = take_back.what.is_some().then_some(take_back);
    Ok(Done { answer, receipt: Receipt { take_back } })
}

fn parked(asking: &crate::room::Asking, ticket: TicketId, peer: &Peer) {
    if let Some(link) = &peer.link {
        asking.queued(ticket, link);
    }
}

/// A command that grants nothing. What a client gives back of its own is no news to it.
async fn watched(peer: &Peer, room: &Arc<Room>, command: Command) -> Result<Answer, CallError> {
    let given = match &command {
        Command::Release(it) => Some((it.by, it.lock)),
        Command::FinishTask(it) => Some((it.by, it.lock)),
        _ => None,
    };
    let is_own = |session| room.lives_by(session, peer.link.as_ref());
    match (given, &command) {
        (Some((Credential::Session(session), lock)), _) if is_own(session) => {
            given_back(room, session, lock, command).await
        }
        (_, &Command::EndSession(EndSession { session, .. })) if is_own(session) => {
            room.closing(session);
            let outcome = room.project.command(command).await;
            match &outcome {
                Ok(_) | Err(CallError::Refused(Refusal::SessionEnded { .. })) => {
                    room.forget(session);
                }
                Err(_) => room.not_closed(session),
            }
            outcome
        }
        _ => room.project.command(command).await,
    }
}

async fn given_back(
    room: &Arc<Room>,
    session: SessionId,
    lock: LockId,
    command: Command,
) -> Result<Answer, CallError> {
    room.releasing(session, lock);
    let outcome = room.project.command(command).await;
    match &outcome {
        Ok(Answer::Released { remaining: 1.., .. }) => room.not_released(session, lock, true),
        Ok(_) => {}
        Err(CallError::Refused(Refusal::NotHolder { .. })) => {
            room.not_released(session, lock, false);
        }
        Err(_) => room.not_released(session, lock, true),
    }
    outcome
}

/// Takes a session back that was opened for somebody who has vanished.
pub(crate) fn receipt_for_session(
    house: &Arc<House>,
    room: &Arc<Room>,
    session: SessionId,
) -> Receipt {
    let end = EndSession { session, cause: EndCause::OwnerDied };
    let what = Some(Command::from(end));
    Receipt { take_back: Some(TakeBack { house: house.clone(), room: room.clone(), what }) }
}

//! Commands of clients: carried to the project, watched while they wait, taken back when whoever
//! asked has vanished.
//!
//! What waits under a name that its sender chose waits on for a while after a cut, so that it can
//! be asked for again; if it is not, it is cancelled. What was granted under such a name stays
//! granted: asked again it is told again, and else its lease ends it. What the sender cannot name
//! is cancelled at once, also when it was granted and the answer surely was not read.

use crate::{
    asked::Turn,
    house::{House, Phase},
    link::{Link, Peer},
    refuse,
    room::Room,
};
use futures_util::{FutureExt, future::Either};
use lockkeeper::{
    CallError, LastEvent, Unavailable,
    wire::{self, ErrorObject},
};
use lockkeeper_core::{
    Answer, Cancel, CancelTarget, Command, Credential, EndCause, EndSession, LockId, Refusal,
    SessionId, TicketId, Wait,
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
    session: SessionId,
    what: Option<Undo>,
    /// If whoever asked can ask again: which call this was, and how long to wait for the next.
    turn: Option<Box<Turn>>,
    grace: Duration,
    is_answered: bool,
}

/// What a caller leaves behind who vanishes meanwhile. Smaller than a command: for each call that
/// waits there is one.
#[derive(Clone, Copy, Debug)]
enum Undo {
    /// The request is taken back.
    Cancel(CancelTarget),
    /// The place is kept, for as long as a ticket is that nobody polls.
    Poll(TicketId),
    /// The session ends.
    End,
}

impl Undo {
    fn command(self, session: SessionId) -> Command {
        match self {
            Undo::Cancel(target) => Cancel { session, target }.into(),
            Undo::Poll(ticket) => Wait { session, ticket, slice: Some(Duration::ZERO) }.into(),
            Undo::End => EndSession { session, cause: EndCause::OwnerDied }.into(),
        }
    }
}

impl Drop for TakeBack {
    fn drop(&mut self) {
        let Some(undo) = self.what.take() else { return };
        // What goes with a session is not taken back one by one. What an attached one was answered
        // it is told again when it is attached.
        let is_attached = self.room.is_attached(self.session);
        if self.room.is_ending(self.session) || (self.is_answered && is_attached) {
            return;
        }
        // Where the server stops, places are kept for those who come back.
        if self.house.phase() == Phase::Serving {
            let command = undo.command(self.session);
            self.house.undo(&self.room, command, self.turn.take(), self.grace);
        }
    }
}

impl House {
    /// Everything that has happened in a project so far is told to those who must hear it.
    async fn tell_all(&self, room: &Room) {
        // Answered behind the events of all turns before.
        if room.project.see(LastEvent {}).await.is_ok() {
            self.hub.catch_up().await;
        }
    }

    /// Does what a vanished caller leaves to be done, and again until it is done; unless the same
    /// is asked for again before.
    fn undo(
        self: &Arc<House>,
        room: &Arc<Room>,
        command: Command,
        turn: Option<Box<Turn>>,
        grace: Duration,
    ) {
        let (house, room) = (self.clone(), room.clone());
        tokio::spawn(async move {
            if !grace.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(grace) => {}
                    () = house.stopping() => return,
                }
            }
            let mut pause = Duration::from_millis(20);
            while house.phase() != Phase::Dead {
                let last = match &turn {
                    Some(turn) => match turn.is_last().await {
                        Some(last) => Some(last),
                        None => break,
                    },
                    None => None,
                };
                match room.project.command(command.clone()).await {
                    Ok(_) | Err(CallError::Refused(_)) => break,
                    Err(CallError::Unavailable(Unavailable::ShutDown)) => break,
                    Err(CallError::Unavailable(why)) => {
                        tracing::warn!(project = %room.name(), %why, "a call cannot be taken back");
                    }
                }
                drop(last);
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
    session: SessionId,
    /// Whether it may be answered with a ticket.
    is_sliced: bool,
    undo: Undo,
    /// What whoever asks knows it by, and can ask for again.
    name: Option<CancelTarget>,
}

impl Nature {
    /// Looks at a command, and gives it a request id if it needs one. None if it neither waits nor
    /// is answered with a grant.
    fn of(house: &House, command: &mut Command) -> Option<Nature> {
        let (session, is_sliced, request) = match command {
            Command::Acquire(it) => (it.session, it.options.slice.is_some(), &mut it.options),
            Command::AcquireAll(it) => (it.session, it.options.slice.is_some(), &mut it.options),
            Command::Upgrade(it) => (it.session, it.options.slice.is_some(), &mut it.options),
            Command::ClaimTasks(it) => (it.session, false, &mut it.options),
            &mut Command::Wait(Wait { session, ticket, slice }) => {
                let (is_sliced, undo) = (slice.is_some(), Undo::Poll(ticket));
                let name = Some(CancelTarget::Ticket(ticket));
                return Some(Nature { session, is_sliced, undo, name });
            }
            _ => return None,
        };
        let name = request.request_id.map(CancelTarget::Request);
        request.fleeting = name.is_none();
        let request = *request.request_id.get_or_insert_with(|| house.next_request());
        let undo = Undo::Cancel(CancelTarget::Request(request));
        Some(Nature { session, is_sliced, undo, name })
    }

    /// How long to wait for the same to be asked again: a request can be, a poll changes nothing.
    fn grace(&self, house: &House) -> Duration {
        match self.name {
            Some(CancelTarget::Request(_)) => house.config.reattach_grace,
            _ => Duration::ZERO,
        }
    }
}

/// Carries out a command. Nothing begins before the future is polled, and very many of them may
/// wait at a time: what is looked at only before and after the wait is not kept in it.
pub(crate) fn command(
    house: &Arc<House>,
    peer: &Peer,
    room: &Arc<Room>,
    mut command: Command,
) -> impl Future<Output = Result<Done, ErrorObject>> + Send + use<> {
    let nature = Nature::of(house, &mut command);
    let command = Box::new(command);
    let (house, link, room) = (house.clone(), peer.link.clone(), room.clone());
    match nature {
        Some(nature) => Either::Left(waiting(house, link, room, command, nature)),
        None => Either::Right(async move {
            let ends_others = ends_holds_of_others(&command);
            let answer = watched(link.as_ref(), &room, command).await;
            let answer = answer.map_err(|error| refuse::call(&error))?;
            if ends_others {
                Box::pin(house.tell_all(&room)).await;
            }
            Ok(Done { answer, receipt: Receipt::default() })
        }),
    }
}

/// A command that may wait, or be answered with a grant.
fn waiting(
    house: Arc<House>,
    link: Option<Arc<Link>>,
    room: Arc<Room>,
    command: Box<Command>,
    nature: Nature,
) -> impl Future<Output = Result<Done, ErrorObject>> + Send + use<> {
    let Nature { session, is_sliced, undo, name } = nature;
    let (is_named, grace) = (name.is_some(), nature.grace(&house));
    // Whoever asks by a name waits for those who asked by the same before. Few do.
    let turn = name.map(|name| {
        let room = room.clone();
        async move { room.asked.begin(session, name).await }.boxed()
    });
    let what = None;
    let mut take_back =
        TakeBack { house, room, session, what, turn: None, grace, is_answered: false };
    async move {
        if let Some(turn) = turn {
            take_back.turn = Some(Box::new(turn.await));
        }
        let (house, room) = (take_back.house.clone(), take_back.room.clone());
        let asking = room.ask(session, is_sliced && link.is_some());
        if let Command::Wait(wait) = &*command {
            room.waits(session, wait.ticket);
        }
        take_back.what = Some(undo);
        let outcome = tokio::select! {
            biased;
            outcome = room.project.carry_out(command) => outcome,
            () = house.stopping() => Err(Unavailable::ShutDown.into()),
        };
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => {
                // What could not be written may have been done all the same. Whoever cannot ask
                // again cannot take it back either.
                let may_be_done = matches!(&error, CallError::Unavailable(Unavailable::Store(_)));
                if is_named || !may_be_done {
                    take_back.what.take();
                }
                return Err(refuse::call(&error));
            }
        };
        if let Some(asking) = asking {
            match &answer {
                Answer::Granted(grants) => asking.granted(grants.iter()),
                Answer::TasksClaimed(claimed) => {
                    asking.granted(claimed.iter().map(|one| &one.grant));
                }
                Answer::Queued { ticket, .. } => parked(&asking, *ticket, link.as_ref()),
                _ => {}
            }
        }
        take_back.is_answered = true;
        // Whoever can ask again finds it so, or its lease ends it: it may have been told before.
        if is_named {
            take_back.what = None;
            if let (Some(turn), Answer::Granted(_) | Answer::TasksClaimed(_)) =
                (&take_back.turn, &answer)
            {
                turn.told();
            }
        }
        let take_back = take_back.what.is_some().then_some(take_back);
        Ok(Done { answer, receipt: Receipt { take_back } })
    }
}

fn parked(asking: &crate::room::Asking, ticket: TicketId, link: Option<&Arc<Link>>) {
    if let Some(link) = link {
        asking.queued(ticket, link);
    }
}

/// Whether others may lose something by it. They hear so before it is answered: whoever is told
/// that a lock was taken away may count on it.
fn ends_holds_of_others(command: &Command) -> bool {
    use Command::{Cancel, EndSession, ForceUnlock, ReleaseAll, Tick};
    matches!(command, ForceUnlock(_) | ReleaseAll(_) | EndSession(_) | Cancel(_) | Tick)
}

/// The same, by the names of the methods.
pub(crate) const ENDING: &[&str] =
    &["force_unlock", "release_all", "session.close", "cancel", wire::CLEANUP_EXPIRED];

/// A command that grants nothing. What a client gives back of its own is no news to it.
async fn watched(
    link: Option<&Arc<Link>>,
    room: &Arc<Room>,
    command: Box<Command>,
) -> Result<Answer, CallError> {
    let given = match &*command {
        Command::Release(it) => Some((it.by, it.lock)),
        Command::FinishTask(it) => Some((it.by, it.lock)),
        _ => None,
    };
    let is_own = |session| room.lives_by(session, link);
    match (given, &*command) {
        (Some((Credential::Session(session), lock)), _) if room.releasing(session, lock, link) => {
            given_back(room, session, lock, command).await
        }
        (_, &Command::EndSession(EndSession { session, .. })) if is_own(session) => {
            room.closing(session);
            let outcome = room.project.carry_out(command).await;
            match &outcome {
                Ok(_) | Err(CallError::Refused(Refusal::SessionEnded { .. })) => {
                    room.forget(session);
                }
                Err(_) => room.not_closed(session),
            }
            outcome
        }
        _ => room.project.carry_out(command).await,
    }
}

async fn given_back(
    room: &Arc<Room>,
    session: SessionId,
    lock: LockId,
    command: Box<Command>,
) -> Result<Answer, CallError> {
    let outcome = room.project.carry_out(command).await;
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
    let take_back = TakeBack {
        house: house.clone(),
        room: room.clone(),
        session,
        what: Some(Undo::End),
        turn: None,
        grace: Duration::ZERO,
        is_answered: true,
    };
    Receipt { take_back: Some(take_back) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_call<F: Future>(_: fn(&Arc<House>, &Peer, &Arc<Room>, Command) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand agents may wait at a time, each in a future of its own. It was seven times as
    /// large when commands were handed on in it from one function to the next.
    #[test]
    fn a_call_that_waits_is_small() {
        let size = size_of_call(command);
        assert!(size <= 512, "a call takes {size} bytes");
        assert!(size_of::<TakeBack>() <= 96, "of which {} take it back", size_of::<TakeBack>());
    }
}

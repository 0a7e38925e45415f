//! What a daemon says, and what that changes here. It is taken in by the connection's task, line
//! by line, so that guards are in the book before anything else is heard of them.

use super::{
    Link,
    call::{Call, Tell, What},
    client::garbled,
    link::Known,
};
use crate::{
    Lost,
    error::CallError,
    guard::unexpected,
    told::{Change, Told, arm},
    wire::{self, Attached, ErrorObject, Note, STOPPING, Said},
};
use lockkeeper_core::{Answer, Command, Grant, News, Refusal, SessionId, SessionKind, Timestamp};
use serde_json::value::RawValue;
use std::{
    ops::ControlFlow,
    sync::{Arc, Weak},
    time::Duration,
};

/// How soon something that must happen, and could not, is tried again.
const AGAIN: Duration = Duration::from_millis(100);

type Flow = ControlFlow<Arc<str>>;

impl Link {
    pub(super) fn heard(self: &Arc<Link>, line: &[u8]) -> Flow {
        let incoming: Said<'_> = match serde_json::from_slice(line) {
            Ok(incoming) => incoming,
            Err(error) => return Flow::Break(format!("it does not speak: {error}").into()),
        };
        match (incoming.id, incoming.is_note()) {
            (Some(id), false) => {
                let call = self.state().calls.remove(&id);
                match (call, incoming.error) {
                    (None, _) => Flow::Continue(()),
                    (Some(call), Some(error)) => self.refused(id, call, error),
                    (Some(call), None) => self.answered(call, incoming.result),
                }
            }
            (_, true) => {
                match serde_json::from_slice(line) {
                    Ok(note) => self.noted(note),
                    // A newer daemon may have more to say.
                    Err(error) => tracing::debug!(%error, "a note that is not understood"),
                }
                Flow::Continue(())
            }
            (None, false) => match incoming.error {
                Some(error) => Flow::Break(error.message.into()),
                None => Flow::Continue(()),
            },
        }
    }

    fn noted(&self, note: Note) {
        match note {
            Note::Event(event) => {
                self.happened(&event.project_id, &event.event.news);
                let _ = self.events.send(event.into());
            }
            Note::Lost { project, lock, why, .. } => self.book(&project).end(lock, why),
            Note::Revoking { project, lock, until, .. } => {
                if let Some(state) = self.book(&project).find(lock) {
                    state.revoking(self.ours(until));
                }
            }
            // It shows in the numbers.
            Note::Missed { .. } => {}
            // Nothing of ours waits without a call; and if it did, the hold ends with its lease.
            Note::Granted { .. } => {}
        }
    }

    /// What happened to guards of ours. The daemon says it by itself of sessions that live by the
    /// connection; of others only this tells.
    fn happened(&self, project: &Arc<str>, news: &News) {
        match news {
            News::Unlocked(news) => self.book(project).end(news.lock, Lost::Released),
            News::Expired(news) => self.book(project).end(news.lock, Lost::Expired),
            News::Revoked(news) => self.book(project).end(news.lock, Lost::Revoked),
            News::Revoking(news) => {
                if let Some(state) = self.book(project).find(news.lock) {
                    state.revoking(self.ours(news.expires_at));
                }
            }
            _ => {}
        }
    }

    /// A moment of the daemon's on our clock.
    fn ours(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_add(self.ahead()))
    }

    /// An answer with its moments on our clock.
    fn answer(&self, raw: Option<&RawValue>) -> Result<Answer, CallError> {
        let text = raw.as_ref().map_or("null", |raw| raw.get());
        let mut answer = serde_json::from_str(text).map_err(|error| garbled(error.to_string()))?;
        match &mut answer {
            Answer::Granted(grants) => {
                grants.iter_mut().for_each(|it| it.expires_at = self.ours(it.expires_at));
            }
            Answer::TasksClaimed(claimed) => claimed
                .iter_mut()
                .for_each(|it| it.grant.expires_at = self.ours(it.grant.expires_at)),
            Answer::Changed(grant) => grant.expires_at = self.ours(grant.expires_at),
            Answer::Renewed { expires_at, .. } => *expires_at = self.ours(*expires_at),
            _ => {}
        }
        Ok(answer)
    }

    fn answered(self: &Arc<Link>, call: Call, raw: Option<&RawValue>) -> Flow {
        match (call.tell, call.what) {
            (Tell::Raw(tell), _) => drop(tell.send(Ok(raw.map(ToOwned::to_owned)))),
            (Tell::Attach(session), what) => {
                let text = raw.map_or("null", RawValue::get);
                let grants = match what {
                    What::Attach(_) => serde_json::from_str(text).map(|it: Attached| it.grants),
                    _ => serde_json::from_str(text),
                };
                match grants {
                    Ok(grants) => self.attached(&call.project, session, &grants),
                    Err(error) => return Flow::Break(error.to_string().into()),
                }
            }
            (Tell::Open(tell, make), What::Open(open)) => {
                let session = self.answer(raw).and_then(|answer| match answer {
                    Answer::SessionOpened { session } => Ok(make(session)),
                    other => Err(unexpected(&other).into()),
                });
                if let Ok(session) = &session {
                    let owner = Arc::downgrade(&session.owner);
                    let is_attached = open.open.kind == SessionKind::Attached;
                    let key = (call.project, session.id());
                    let mut state = self.state();
                    state.sessions.insert(key, Known { owner, is_attached });
                    if !is_attached {
                        state.want_events();
                    }
                }
                let _ = tell.send(session);
            }
            (tell, What::Command(command)) => {
                let answer = self.answer(raw);
                match (tell, answer) {
                    (Tell::Owner(tell, owner), Ok(answer)) => {
                        let told = match answer {
                            // What is granted changes nothing else.
                            Answer::Granted(_) | Answer::TasksClaimed(_) => arm(answer, &owner),
                            answer => {
                                let change = Change::of(&answer);
                                self.done(&call.project, &command, &answer, change);
                                Told::Answer(answer)
                            }
                        };
                        let _ = tell.send(Ok(told));
                    }
                    (Tell::Owner(tell, _), Err(error)) => drop(tell.send(Err(error))),
                    (tell, answer) => {
                        if let Ok(answer) = &answer {
                            self.done(&call.project, &command, answer, Change::of(answer));
                        }
                        if let Tell::Plain(tell) = tell {
                            let _ = tell.send(answer);
                        }
                    }
                }
            }
            _ => {}
        }
        Flow::Continue(())
    }

    /// What something that was done changes for guards.
    fn done(&self, project: &Arc<str>, command: &Command, answer: &Answer, change: Change) {
        let book = self.book(project);
        change.tell(&book);
        match (command, answer) {
            (Command::Release(it), Answer::Released { remaining: 0, .. }) => {
                book.end(it.lock, Lost::Released);
            }
            (Command::FinishTask(it), Answer::TaskMoved(_)) => book.end(it.lock, Lost::Released),
            (Command::EndSession(it), Answer::SessionEnded { .. }) => {
                self.session_ended(project, it.session);
            }
            (Command::Renew(it), _) => {
                self.state().renewing.remove(&it.lock);
            }
            _ => {}
        }
    }

    fn refused(self: &Arc<Link>, id: u64, call: Call, error: ErrorObject) -> Flow {
        let is_stopping = error.data.as_ref().is_some_and(|data| data.code == STOPPING);
        if is_stopping && !matches!(call.tell, Tell::Attach(_)) {
            // The next daemon will answer.
            self.state().calls.insert(id, call);
            return Flow::Continue(());
        }
        let is_passing = matches!(error.code, wire::code::UNAVAILABLE | wire::code::LIMIT);
        let error = CallError::from(error);
        let refusal = match &error {
            CallError::Refused(refusal) => Some(refusal.clone()),
            CallError::Unavailable(_) => None,
        };
        if let Some(Refusal::SessionEnded { session }) = &refusal {
            self.session_ended(&call.project, *session);
        }
        let is_ended = matches!(refusal, Some(Refusal::SessionEnded { .. }));
        if is_ended
            && call.is_repeated
            && matches!(call.what, What::Command(Command::EndSession(_)))
        {
            // That was done, and it was not heard how much there was to end.
            if let Tell::Owner(tell, _) = call.tell {
                let ended = Answer::SessionEnded { released: 0, left: 0 };
                let _ = tell.send(Ok(Told::Answer(ended)));
            }
            return Flow::Continue(());
        }
        if let What::Command(command) = &call.what {
            self.not_done(&call.project, command, refusal.as_ref());
        }
        match call.tell {
            Tell::Owner(tell, _) => drop(tell.send(Err(error))),
            Tell::Plain(tell) => drop(tell.send(Err(error))),
            Tell::Open(tell, _) => drop(tell.send(Err(error))),
            Tell::Raw(tell) => drop(tell.send(Err(error))),
            Tell::Attach(_) if refusal.is_some() => self.one_attached(),
            Tell::Attach(_) => return Flow::Break(error.to_string().into()),
            Tell::Debt if is_passing => self.again(id, call),
            Tell::Debt if refusal.is_none() => tracing::error!(%error, "a debt is given up"),
            Tell::Debt | Tell::Renewal => {}
        }
        Flow::Continue(())
    }

    /// What something that was refused changes for guards.
    fn not_done(&self, project: &Arc<str>, command: &Command, refusal: Option<&Refusal>) {
        let is_over = matches!(refusal, Some(Refusal::NotHolder { .. }));
        let lock = match command {
            // Only this acquire of a counted hold may be over.
            Command::Release(it) => return self.book(project).tidy(it.lock),
            Command::Renew(it) => {
                self.state().renewing.remove(&it.lock);
                it.lock
            }
            Command::Upgrade(it) => it.lock,
            Command::Downgrade(it) => it.lock,
            Command::FinishTask(it) => it.lock,
            _ => return,
        };
        if is_over {
            self.book(project).end(lock, Lost::Released);
        }
    }

    /// Something must happen and could not be done now: the store is full, or the daemon busy.
    fn again(self: &Arc<Link>, id: u64, call: Call) {
        let link: Weak<Link> = Arc::downgrade(self);
        self.state().calls.insert(id, call);
        tokio::spawn(async move {
            tokio::time::sleep(AGAIN).await;
            if let Some(link) = link.upgrade() {
                link.say_again(id);
            }
        });
    }

    /// The session is over, and with it all it held.
    fn session_ended(&self, project: &Arc<str>, session: SessionId) {
        let known = self.state().sessions.remove(&(project.clone(), session));
        if let Some(owner) = known.and_then(|known| known.owner.upgrade()) {
            owner.mark_ended();
        }
        let book = self.book(project);
        book.of(session).into_iter().for_each(|lock| book.end(lock, Lost::Released));
    }

    /// A session is taken up again: what it still has goes on, what it has not is lost.
    fn attached(&self, project: &Arc<str>, session: SessionId, grants: &[Grant]) {
        let book = self.book(project);
        for lock in book.of(session) {
            let grant = grants.iter().find(|grant| grant.lock == lock);
            match (grant, book.find(lock)) {
                (Some(grant), Some(state)) => {
                    let expires_at = self.ours(grant.expires_at);
                    state.converted(&Grant { expires_at, ..grant.clone() });
                }
                (Some(_), None) => {}
                (None, _) => book.end(lock, Lost::Released),
            }
        }
        self.one_attached();
    }

    fn one_attached(&self) {
        let gone = {
            let mut state = self.state();
            state.attaching = state.attaching.saturating_sub(1);
            if state.attaching == 0 { state.flush() } else { Vec::new() }
        };
        drop(gone);
    }
}

//! What a manager and its daemon have to do with each other: the calls that are open, the sessions,
//! the books of guards. It outlives connections; the keeper brings one after the other.
//!
//! Everything that is to be done at the daemon is a [`Call`] with a number. A new connection takes
//! the sessions up again first, and then asks again for all calls, in the order in which they were
//! wished: a release that was owed before an acquire was asked for is still before it. They are
//! asked again as they were, with the same request id, for which nothing is done twice.
//!
//! Nothing is told, and no handle is dropped, while the state is locked: either may come back here.

use super::{
    Address, Connect, Far,
    call::{Call, Tell, What},
    client::garbled,
    dial::Dialled,
    pump::Outbox,
};
use crate::{
    AuditFilter, AuditRow, Grants, ProjectEvent, ShutdownReport, StoreError,
    clock::Clock,
    error::{CallError, Unavailable},
    guard::GuardBook,
    session::Owner,
    wire::{self, Attach, Hello, Subscribe},
};
use lockkeeper_core::{LockId, SessionId};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, broadcast, oneshot};

/// A manager's way to its daemon.
pub(crate) struct Link {
    pub(super) connect: Connect,
    clock: Clock,
    /// Who is at the other end, or was last.
    hello: Mutex<Hello>,
    /// By how much our clock is ahead of the daemon's, in milliseconds: after it was started anew
    /// and its clock was set back meanwhile.
    ahead: AtomicU64,
    books: Mutex<HashMap<Arc<str>, Arc<GuardBook>>>,
    pub(super) events: broadcast::Sender<Arc<ProjectEvent>>,
    state: Mutex<State>,
    /// The keeper has something to look at.
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    last: u64,
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) sessions: BTreeMap<(Arc<str>, SessionId), Known>,
    /// Leases whose renewal is on its way.
    pub(super) renewing: HashSet<LockId>,
    /// There is a connection.
    outbox: Option<Arc<Outbox>>,
    /// And all sessions are taken up again on it.
    is_open: bool,
    /// How many are still to be.
    pub(super) attaching: usize,
    /// Why nobody has to wait any more for a connection.
    given_up: Option<Unavailable>,
    /// All handles are gone; what they owed is still to be said.
    is_closing: bool,
    /// Why nothing goes any more.
    over: Option<Unavailable>,
    is_subscribed: bool,
}

/// A session that was opened here.
pub(super) struct Known {
    pub(super) owner: Weak<Owner>,
    pub(super) is_attached: bool,
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Says it, if there is somebody to say it to.
    fn write(&self, id: u64, call: &Call) -> Result<bool, serde_json::Error> {
        let Some(outbox) = &self.outbox else { return Ok(false) };
        outbox.put(|bytes| {
            let before = bytes.len();
            call.write(id, bytes).inspect_err(|_| bytes.truncate(before))
        })?;
        Ok(true)
    }

    fn admit(&mut self, mut call: Call) -> Result<(), Box<(Call, CallError)>> {
        let refused = match (&self.over, &self.given_up) {
            (Some(why), _) => Some(why),
            (None, Some(why)) if call.is_awaited() => Some(why),
            _ => None,
        };
        if let Some(why) = refused {
            return Err(Box::new((call, why.clone().into())));
        }
        let id = self.next();
        if self.is_open {
            match self.write(id, &call) {
                Ok(is_sent) => call.is_sent = is_sent,
                Err(error) => return Err(Box::new((call, garbled(error.to_string())))),
            }
        }
        self.calls.insert(id, call);
        Ok(())
    }

    /// All sessions are taken up again: says everything that is to be said. Returns what nobody
    /// waits for any more.
    pub(super) fn flush(&mut self) -> Vec<Call> {
        self.is_open = true;
        self.given_up = None;
        if self.is_subscribed {
            self.write_subscribe();
        }
        let gone: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.is_gone()).map(|(id, _)| *id).collect();
        let gone = gone.into_iter().filter_map(|id| self.calls.remove(&id)).collect();
        let mut calls = std::mem::take(&mut self.calls);
        for (id, call) in &mut calls {
            call.is_repeated |= call.is_sent;
            // What was written once can be written.
            call.is_sent |= self.write(*id, call).unwrap_or(false);
        }
        self.calls = calls;
        if self.is_closing
            && let Some(outbox) = &self.outbox
        {
            outbox.close();
        }
        gone
    }

    pub(super) fn want_events(&mut self) {
        if !std::mem::replace(&mut self.is_subscribed, true) && self.is_open {
            self.write_subscribe();
        }
    }

    /// Nobody waits for the answer: what is missed shows in the numbers.
    fn write_subscribe(&mut self) {
        let id = self.next();
        if let Some(outbox) = &self.outbox {
            let all = Subscribe::default();
            let _ = outbox.put(|bytes| wire::write_line(id, wire::SUBSCRIBE, &all, bytes));
        }
    }
}

impl Link {
    pub(super) fn new(connect: Connect, first: &Dialled) -> Link {
        let (events, _) = broadcast::channel(connect.events_capacity.max(1));
        Link {
            connect,
            clock: Clock::following(first.asked, first.hello.clock()),
            hello: Mutex::new(first.hello.clone()),
            ahead: AtomicU64::new(0),
            books: Mutex::default(),
            events,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.connect.address
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn hello(&self) -> Hello {
        self.hello.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn linger_ms(&self) -> u64 {
        u64::try_from(self.connect.linger.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn ahead(&self) -> u64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// The way to a project.
    pub(crate) fn project(self: &Arc<Link>, project: &str) -> Result<Far, Unavailable> {
        if let Some(why) = &self.state().over {
            return Err(why.clone());
        }
        let name: Arc<str> = project.into();
        Ok(Far::new(self.clone(), name.clone(), self.book(&name)))
    }

    pub(super) fn book(&self, project: &Arc<str>) -> Arc<GuardBook> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.entry(project.clone()).or_default().clone()
    }

    /// Wishes for something: from any thread, without waiting and without a runtime.
    pub(super) fn wish(&self, call: Call) -> Result<(), CallError> {
        let admitted = self.state().admit(call);
        admitted.map_err(|refused| refused.1)
    }

    /// Asks for something whose answer the caller reads.
    pub(super) async fn call<P: Serialize, R: DeserializeOwned>(
        &self,
        project: Arc<str>,
        method: &'static str,
        params: P,
    ) -> Result<R, CallError> {
        let unreadable = |error: serde_json::Error| garbled(error.to_string());
        let params = serde_json::value::to_raw_value(&params).map_err(unreadable)?;
        let (tell, told) = oneshot::channel();
        self.wish(Call::new(project, What::Other(method, params), Tell::Raw(tell)))?;
        let raw = told.await.map_err(|_| Unavailable::ShutDown)??;
        serde_json::from_str(raw.as_ref().map_or("null", |raw| raw.get())).map_err(unreadable)
    }

    /// Everything that happens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<ProjectEvent>> {
        let heard = self.events.subscribe();
        self.state().want_events();
        heard
    }

    pub(crate) async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        let rows = self.call("".into(), wire::AUDIT, filter).await;
        rows.map_err(|error| self.no_store(&error))
    }

    pub(crate) async fn projects(&self) -> Result<Vec<Arc<str>>, StoreError> {
        #[derive(Serialize)]
        struct Nothing {}
        let names = self.call("".into(), wire::PROJECTS, Nothing {}).await;
        names.map_err(|error| self.no_store(&error))
    }

    /// The store cannot be asked, because its daemon cannot.
    fn no_store(&self, error: &CallError) -> StoreError {
        match error {
            CallError::Unavailable(Unavailable::ShutDown) => StoreError::Closed,
            other => {
                let path = self.address().to_string().into();
                StoreError::Io { path, detail: other.to_string() }
            }
        }
    }

    /// Ends the sessions that end with this manager, and then everything.
    pub(crate) async fn shut_down(self: &Arc<Link>) -> ShutdownReport {
        let mut sessions: BTreeMap<Arc<str>, Vec<SessionId>> = BTreeMap::new();
        for ((project, session), known) in &self.state().sessions {
            if known.is_attached {
                sessions.entry(project.clone()).or_default().push(*session);
            }
        }
        let mut report = ShutdownReport::default();
        for (project, sessions) in sessions {
            let Ok(far) = self.project(&project) else { break };
            match far.end_all(&sessions).await {
                Ok((ended, released)) => {
                    report.sessions += ended;
                    report.released.insert(project, released);
                }
                Err(why) => {
                    report.failed.insert(project, why);
                }
            }
        }
        self.end(Unavailable::ShutDown);
        report
    }

    /// All handles are gone. What they owed is still said.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closing = true;
        if state.is_open
            && let Some(outbox) = &state.outbox
        {
            outbox.close();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Nothing goes any more. The first reason counts.
    pub(super) fn end(&self, why: Unavailable) {
        let calls = {
            let mut state = self.state();
            if state.over.is_some() {
                return;
            }
            state.over = Some(why.clone());
            if let Some(outbox) = &state.outbox {
                outbox.close();
            }
            std::mem::take(&mut state.calls)
        };
        calls.into_values().for_each(|call| call.fail(&why));
        self.changed.notify_one();
    }

    /// A connection is there. The sessions are taken up again, before anything else is asked.
    pub(super) fn resume(&self, dialled: &Dialled) -> Arc<Outbox> {
        let ahead = self.clock.follow(dialled.asked, dialled.hello.clock());
        self.ahead.store(ahead, Ordering::Relaxed);
        *self.hello.lock().unwrap_or_else(PoisonError::into_inner) = dialled.hello.clone();
        let outbox = Arc::new(Outbox::default());
        let linger_ms = self.linger_ms();
        let mut state = self.state();
        if state.over.is_some() {
            outbox.close();
        }
        state.outbox = Some(outbox.clone());
        let is_needed = |known: &Known| known.is_attached || known.owner.strong_count() > 0;
        state.sessions.retain(|_, known| is_needed(known));
        let sessions: Vec<_> = state
            .sessions
            .iter()
            .map(|((project, session), known)| (project.clone(), *session, known.is_attached))
            .collect();
        state.attaching = sessions.len();
        for (project, session, is_attached) in sessions {
            let what = match is_attached {
                true => What::Attach(Attach { session, linger_ms }),
                false => What::Grants(Grants { session }),
            };
            let call = Call::new(project, what, Tell::Attach(session));
            let id = state.next();
            // Two numbers can be written.
            let _ = state.write(id, &call);
            state.calls.insert(id, call);
        }
        let gone = if state.attaching == 0 { state.flush() } else { Vec::new() };
        drop(state);
        drop(gone);
        outbox
    }

    /// The connection is gone. Whether there is any need for another one.
    pub(super) fn interrupted(&self, why: &str) -> bool {
        let (calls, is_needed) = {
            let mut state = self.state();
            state.outbox = None;
            let was_open = std::mem::replace(&mut state.is_open, false);
            state.attaching = 0;
            let is_settled = |call: &Call| {
                matches!(call.tell, Tell::Attach(_)) || call.is_sent && !call.can_be_repeated()
            };
            let ids: Vec<u64> = state
                .calls
                .iter()
                .filter(|(_, call)| is_settled(call))
                .map(|(id, _)| *id)
                .collect();
            let calls: Vec<Call> =
                ids.into_iter().filter_map(|id| state.calls.remove(&id)).collect();
            (calls, state.over.is_none() && !(state.is_closing && was_open))
        };
        let why = format!("{}: {why}; what was asked may have been done", self.address());
        let why = Unavailable::Unreachable(why.into());
        calls.into_iter().for_each(|call| call.fail(&why));
        is_needed
    }

    /// Nobody has to wait any longer for a connection. It is still looked for.
    pub(super) fn give_up(&self, why: &str) {
        let why = Unavailable::Unreachable(why.into());
        let calls: Vec<Call> = {
            let mut state = self.state();
            state.given_up = Some(why.clone());
            let ids: Vec<u64> = state
                .calls
                .iter()
                .filter(|(_, call)| !matches!(call.tell, Tell::Debt))
                .map(|(id, _)| *id)
                .collect();
            state.renewing.clear();
            ids.into_iter().filter_map(|id| state.calls.remove(&id)).collect()
        };
        calls.into_iter().for_each(|call| call.fail(&why));
    }

    /// Says again what must happen, if there was no answer meanwhile.
    pub(super) fn say_again(&self, id: u64) {
        let state = self.state();
        if state.is_open
            && let Some(call) = state.calls.get(&id)
        {
            let _ = state.write(id, call);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over.is_some()
    }

    /// Whether all handles are gone.
    pub(super) fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    /// Whether nothing would be lost if nobody looked for the daemon any more.
    pub(super) fn owes_nothing(&self) -> bool {
        self.state().calls.is_empty()
    }
}

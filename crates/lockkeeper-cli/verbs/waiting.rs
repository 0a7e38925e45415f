//! A wait, as somebody sits through it: who has it, the place in the queue, the time left. On a
//! terminal in one line that is rewritten, in a log once.
//!
//! It ends with its answer, with Ctrl-C, or with another signal that asks the process to go. Where
//! a `lockkeeper run` is further up, that waits as well, for as long: this is declared, so that a
//! deadlock through it is seen.

use crate::{
    daemon::desk::{Desk, Reach},
    output::{self, style::Style, table::cut, words},
    places::{self, Here},
    trouble::{Trouble, Wanted},
};
use lockkeeper::{
    Answer, CallError, Command, ContentionNow, DeclareWait, Inspect, Inspection, Queue, Refusal,
    Resource, SessionId, TicketId, Timestamp, WithdrawWait,
};
use std::{
    env,
    io::{self, Write},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at},
};

/// Whoever is served sooner sees no line.
pub(super) const QUIET_FOR: Duration = Duration::from_millis(200);

/// How often the line is looked after.
pub(super) const PACE: Duration = Duration::from_secs(1);

/// How a wait ended.
pub(super) enum Ended {
    /// It was answered.
    Answered(Result<Answer, CallError>),
    /// The user pressed Ctrl-C.
    Interrupted,
    /// Somebody asked the process to end; the number of the signal.
    Asked(u8),
}

/// What is waited for.
pub(super) enum For {
    /// Locks, until this moment.
    Locks(Vec<Resource>, Timestamp),
    /// The turn of a ticket.
    Ticket(TicketId),
}

/// Asks for something that may take its time.
pub(super) async fn wait(
    desk: &mut Desk,
    session: SessionId,
    what: For,
    command: Command,
) -> Result<Ended, Trouble> {
    let outer = declared(desk, session).await?;
    let mut line = Line::new(desk.reach(), &desk.here, session, what);
    let heard = |kind| signal(kind).map_err(|error| no_signals(&error));
    let mut interrupt = heard(SignalKind::interrupt())?;
    let mut terminate = heard(SignalKind::terminate())?;
    let mut hang_up = heard(SignalKind::hangup())?;
    let ended = {
        let asked = desk.command(command);
        tokio::pin!(asked);
        let mut pace = interval_at(Instant::now() + QUIET_FOR, PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => break answer.map(Ended::Answered),
                _ = interrupt.recv() => break Ok(Ended::Interrupted),
                _ = terminate.recv() => break Ok(Ended::Asked(15)),
                _ = hang_up.recv() => break Ok(Ended::Asked(1)),
                _ = pace.tick(), if line.is_shown() => line.show().await,
            }
        }
    };
    line.clear();
    if let Some(outer) = outer {
        // It may be over, and its waits with it.
        let _ = desk.command(WithdrawWait { session: outer, on: session }).await?;
    }
    ended
}

fn no_signals(error: &io::Error) -> Trouble {
    let what = format!("the system does not let Ctrl-C be heard: {error}");
    Trouble::new(crate::exit::Exit::Unavailable, "no_signals", what)
}

/// Says that the session this command runs under waits as well.
async fn declared(desk: &mut Desk, session: SessionId) -> Result<Option<SessionId>, Trouble> {
    let var = |name| env::var(name).ok();
    // A session of another project is one of another table.
    if var(places::PROJECT).as_deref() != Some(desk.here.project.as_str()) {
        return Ok(None);
    }
    let outer = var(places::SESSION).and_then(|text| text.parse().ok()).map(SessionId::from_u64);
    let Some(outer) = outer.filter(|&outer| outer != session) else { return Ok(None) };
    match desk.command(DeclareWait { session: outer, on: session }).await? {
        Ok(_) => Ok(Some(outer)),
        Err(error @ CallError::Refused(Refusal::Deadlock(_))) => {
            Err(desk.told(&error, Wanted::Lock { wait_flag: "--wait" }))
        }
        // The `run` is over while its child goes on: then there is nothing to declare.
        Err(CallError::Refused(_)) => Ok(None),
        Err(error) => Err(desk.told(&error, Wanted::Admin)),
    }
}

/// The line on stderr. It goes when this is dropped.
pub(super) struct Line {
    reach: Reach,
    project: String,
    session: SessionId,
    what: For,
    /// What the ticket turned out to wait for.
    found: Vec<Resource>,
    how: How,
    is_open: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    /// Rewritten in place, in so many columns.
    Rewritten(usize),
    /// Said once.
    Once,
    /// Not at all.
    Never,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Line {
    pub(super) fn new(reach: Reach, here: &Here, session: SessionId, what: For) -> Line {
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let how = match Style::of_stderr().width {
            _ if here.json => How::Never,
            Some(width) if !is_dumb => How::Rewritten(width),
            _ => How::Once,
        };
        let project = here.project.clone();
        Line { reach, project, session, what, found: Vec::new(), how, is_open: false }
    }

    pub(super) fn is_shown(&self) -> bool {
        self.how != How::Never
    }

    pub(super) async fn show(&mut self) {
        // A daemon that is gone for a moment has nothing to show.
        let Some(text) = self.text().await else { return };
        match self.how {
            How::Rewritten(width) => {
                let text = cut(&text, width.saturating_sub(1));
                let mut err = io::stderr().lock();
                let _ = write!(err, "\r{text}\x1b[K").and_then(|()| err.flush());
                self.is_open = true;
            }
            How::Once => {
                output::remark(&text);
                self.how = How::Never;
            }
            How::Never => {}
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }

    async fn text(&mut self) -> Option<String> {
        if let For::Ticket(ticket) = self.what
            && self.found.is_empty()
        {
            self.found = self.resources_of(ticket).await?;
        }
        let resources = match &self.what {
            For::Locks(resources, _) => resources,
            For::Ticket(_) => &self.found,
        };
        let client = self.reach.client();
        for resource in resources {
            let question = Inspect { resource: resource.clone() };
            let inspection = client.see(&self.project, question).await.ok()??;
            if let Some(text) = self.told(&inspection, client.now()) {
                return Some(text);
            }
        }
        None
    }

    fn told(&self, inspection: &Inspection, now: Timestamp) -> Option<String> {
        let mine = |waiter: &lockkeeper::Waiter| waiter.session == self.session;
        let place = inspection.queue.iter().position(mine)?;
        let waiter = inspection.queue.get(place)?;
        let mut text = format!("waiting for {}", inspection.resource);
        if let Some(holder) = inspection.holders.first() {
            text.push_str(&format!(", locked by {}", holder.agent));
            if inspection.holders.len() > 1 {
                text.push_str(&format!(" and {} more", inspection.holders.len() - 1));
            }
            if let Some(reason) = &holder.reason {
                text.push_str(&format!(" for {}", words::quoted(reason)));
            }
        }
        let until = match self.what {
            For::Locks(_, until) => until.min(waiter.wait_until),
            For::Ticket(_) => waiter.wait_until,
        };
        let left = words::span(until.since(now).div_ceil(1000) * 1000);
        let of = inspection.queue.len();
        text.push_str(&format!("; number {} of {of} in the queue, {left} left", place + 1));
        Some(words::plain(&text))
    }

    /// The resources in whose queues a ticket stands.
    async fn resources_of(&self, ticket: TicketId) -> Option<Vec<Resource>> {
        /// Whoever looks does not read through thousands of queues.
        const MOST: usize = 100;
        let client = self.reach.client();
        let contended = client.see(&self.project, ContentionNow {}).await.ok()?;
        let mut found = Vec::new();
        for contention in contended.into_iter().take(MOST) {
            let question = Queue { resource: contention.resource.clone() };
            let queue = client.see(&self.project, question).await.ok()?;
            if queue.iter().any(|waiter| waiter.ticket == ticket) {
                found.push(contention.resource);
            }
        }
        Some(found)
    }
}

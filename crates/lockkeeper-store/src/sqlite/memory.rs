//! What sessions remember of finished requests, so that asking again changes nothing (I12).
//!
//! The audit log has it, and the journal what is not there yet: a row that ends a request somebody
//! may ask for again (it has an id, or its asker was told its ticket) names the session that
//! remembers it, and so do the row that queued the request and the verdicts that struck the
//! session. A fleeting request is remembered by the hold that came of it, while that lives.

use super::{
    journal::Entry,
    live::{HoldRow, Rows, from_json, opt_text, parse_request, text, time},
};
use crate::error::Trouble;
use lockkeeper_core::{
    DeadlockReport, Fact, LeaveCause, LockId, LockMode, Outcome, Queued, Record, Refusal,
    RequestId, Resource, SessionId, TicketId, Timestamp,
};
use rusqlite::Connection;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// The most requests that are remembered: as many as a table remembers, if not told otherwise.
const REMEMBERED_MAX: usize = 64;

/// The most rows that are read of waits and verdicts, which end no request themselves.
const UNFINISHED_MAX: usize = 16 * REMEMBERED_MAX;

/// What a session remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) requests: Vec<Record>,
    /// The last verdict against it.
    pub(super) verdict: Option<Record>,
}

struct Row {
    at: Timestamp,
    request_id: Option<RequestId>,
    fact: Fact,
}

struct Finished {
    at: Timestamp,
    request_id: Option<RequestId>,
    ticket: Option<TicketId>,
    outcome: Outcome,
}

/// Of a session, with its live holds out of fleeting requests.
pub(super) fn of(
    db: &Connection,
    project: &str,
    session: SessionId,
    live: &Rows,
    fleeting: &[&HoldRow],
    entries: &[Entry],
) -> Result<Memory, Trouble> {
    let mut finished: Vec<Finished> = Vec::new();
    let mut verdict: Option<(Timestamp, Arc<DeadlockReport>)> = None;
    let mut queued: HashMap<TicketId, (Timestamp, Box<Queued>)> = HashMap::new();
    for Row { at, request_id, fact } in rows(db, project, session, entries)? {
        let (ticket, outcome) = match fact {
            Fact::Queued(request) => {
                queued.insert(request.ticket, (at, request));
                continue;
            }
            Fact::DeadlockFound(report) => {
                verdict = Some((at, report));
                continue;
            }
            Fact::Granted(granted) => {
                got(&mut finished, at, granted.ticket, request_id, granted.lock);
                continue;
            }
            Fact::Reentered { ticket, lock, .. } => {
                got(&mut finished, at, ticket, request_id, lock);
                continue;
            }
            Fact::Released { lock, remaining, .. } => (None, Outcome::Released(lock, remaining)),
            Fact::Renewed { lock, expires_at, .. } => (None, Outcome::Renewed(lock, expires_at)),
            // An upgrade has a ticket of its own; a downgrade carries that of the hold.
            Fact::Converted { lock, ticket, mode, .. } => {
                let own = Some(ticket).filter(|_| mode == LockMode::Exclusive);
                (own, Outcome::Converted(lock))
            }
            Fact::Left { ticket, cause, .. } => {
                let verdict = verdict.as_ref().map(|(_, report)| report);
                let refusal = refusal(ticket, &cause, at, queued.get(&ticket), verdict, live);
                (Some(ticket), Outcome::Refused(Box::new(refusal)))
            }
            // Says it anew: what was known of this request is outdated.
            Fact::Remembered { ticket, outcome, .. } => {
                finished.retain(|one| (one.request_id, one.ticket) != (request_id, ticket));
                (ticket, outcome)
            }
            _ => continue,
        };
        finished.push(Finished { at, request_id, ticket, outcome });
    }
    for hold in fleeting {
        // Behind what was before it, before what was asked after it: tickets only go up.
        let in_time = finished.partition_point(|one| one.at <= hold.at);
        let is_later = |one: &Finished| one.ticket.is_some_and(|ticket| ticket > hold.ticket);
        let at = finished.iter().take(in_time).position(is_later).unwrap_or(in_time);
        let (ticket, outcome) = (Some(hold.ticket), Outcome::Granted(vec![hold.lock]));
        let one = Finished { at: hold.at, request_id: hold.request_id, ticket, outcome };
        finished.insert(at, one);
    }
    let skip = finished.len().saturating_sub(REMEMBERED_MAX);
    let mut requests = Vec::new();
    for Finished { at, request_id, ticket, outcome } in finished.into_iter().skip(skip) {
        let fact = Fact::Remembered { session, request_id, ticket, outcome };
        requests.push(Record { at, fact });
    }
    let verdict = verdict.map(|(at, report)| Record { at, fact: Fact::DeadlockFound(report) });
    Ok(Memory { requests, verdict })
}

/// The rows that tell the latest requests, the earliest first. They are bounded: so many requests,
/// each with at most a batch of grants, and so many rows of waits and verdicts. Of a session that
/// has more of those, what is older is forgotten.
fn rows(
    db: &Connection,
    project: &str,
    session: SessionId,
    entries: &[Entry],
) -> Result<Vec<Row>, Trouble> {
    let mut latest = Latest::default();
    for entry in entries.iter().rev() {
        for line in entry.lines.iter().rev().filter(|line| line.session == Some(session)) {
            let fact = from_json(entry.details(line))?;
            if !latest.take(Row { at: line.at, request_id: line.request_id, fact }) {
                return Ok(latest.in_order());
            }
        }
    }
    let mut question = db.prepare_cached(
        "SELECT event_time, request_id, details FROM audit_log
         WHERE project_id = ?1 AND session_id = ?2 ORDER BY id DESC",
    )?;
    let mut rows = question.query((project, session.get()))?;
    while let Some(row) = rows.next()? {
        let fact = from_json(text(row, 2)?)?;
        let request_id = opt_text(row, 1)?.map(parse_request).transpose()?;
        if !latest.take(Row { at: time(row, 0)?, request_id, fact }) {
            break;
        }
    }
    Ok(latest.in_order())
}

/// The latest rows of a session, the last one first.
#[derive(Default)]
struct Latest {
    rows: Vec<Row>,
    tickets: BTreeSet<TicketId>,
    others: usize,
    unfinished: usize,
}

impl Latest {
    /// Takes one more; whether there was room for it.
    fn take(&mut self, row: Row) -> bool {
        match &row.fact {
            Fact::Granted(granted) => drop(self.tickets.insert(granted.ticket)),
            Fact::Reentered { ticket, .. } | Fact::Left { ticket, .. } => {
                self.tickets.insert(*ticket);
            }
            Fact::Queued(_) | Fact::DeadlockFound(_) => self.unfinished += 1,
            _ => self.others += 1,
        }
        // One more than is remembered, so that the last one is whole.
        let is_too_much =
            self.tickets.len() + self.others > REMEMBERED_MAX || self.unfinished > UNFINISHED_MAX;
        if !is_too_much {
            self.rows.push(row);
        }
        !is_too_much
    }

    fn in_order(mut self) -> Vec<Row> {
        self.rows.reverse();
        self.rows
    }
}

/// The grants of a batch come one by one.
fn got(
    finished: &mut Vec<Finished>,
    at: Timestamp,
    ticket: TicketId,
    request_id: Option<RequestId>,
    lock: LockId,
) {
    if let Some(last) = finished.last_mut()
        && last.ticket == Some(ticket)
        && let Outcome::Granted(locks) = &mut last.outcome
    {
        return locks.push(lock);
    }
    let outcome = Outcome::Granted(vec![lock]);
    finished.push(Finished { at, request_id, ticket: Some(ticket), outcome });
}

/// What a request is told again that ended without a grant. Who stood in its way is not written
/// anywhere, so a wait that ran out does not name them any more.
fn refusal(
    ticket: TicketId,
    cause: &LeaveCause,
    at: Timestamp,
    queued: Option<&(Timestamp, Box<Queued>)>,
    verdict: Option<&Arc<DeadlockReport>>,
    live: &Rows,
) -> Refusal {
    match cause {
        LeaveCause::TimedOut => {
            let waited_ms = queued.map_or(0, |(since, _)| at.since(*since));
            Refusal::TimedOut { obstacles: Vec::new(), waited_ms }
        }
        LeaveCause::Deadlock => {
            verdict.map_or(Refusal::Cancelled, |report| Refusal::Deadlock(report.clone()))
        }
        LeaveCause::HoldEnded(lock) => Refusal::NotHolder { lock: *lock, holder: None },
        LeaveCause::Abandoned => Refusal::Abandoned { ticket },
        LeaveCause::Exhausted => Refusal::Exhausted,
        LeaveCause::CapacityShrunk => queued
            .and_then(|(_, request)| over_capacity(&request.wants, live))
            .unwrap_or(Refusal::Cancelled),
        LeaveCause::Cancelled | LeaveCause::ReleasedAll | LeaveCause::SessionEnded => {
            Refusal::Cancelled
        }
    }
}

fn over_capacity(wants: &[(Resource, LockMode)], live: &Rows) -> Option<Refusal> {
    wants.iter().find_map(|(resource, mode)| {
        let LockMode::Permit(asked) = *mode else { return None };
        let known = live.capacities.iter().find(|(_, name, _)| name == resource);
        let capacity = known.map_or(0, |(_, _, capacity)| *capacity);
        let resource = resource.clone();
        (asked > capacity).then_some(Refusal::OverCapacity { resource, asked, capacity })
    })
}

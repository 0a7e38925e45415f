//! The live rows as facts: replayed in this order, they give the table.

use super::{
    journal::Entry,
    live::{HoldRow, Rows, SessionRow},
    memory,
};
use crate::error::Trouble;
use lockkeeper_core::{Fact, Granted, Record, ReleaseCause, SessionId, Task, TicketId, Timestamp};
use rusqlite::Connection;
use std::collections::HashMap;

/// The rows are as they are after these entries, which the audit log does not have yet.
pub(super) fn facts(
    db: &Connection,
    project: &str,
    rows: &Rows,
    entries: &[Entry],
) -> Result<Vec<Record>, Trouble> {
    let mut fleeting: HashMap<SessionId, Vec<&HoldRow>> = HashMap::new();
    for row in rows.holds.iter().filter(|row| row.fleeting) {
        fleeting.entry(row.session).or_default().push(row);
    }
    let mut memories = Vec::with_capacity(rows.sessions.len());
    for row in &rows.sessions {
        let own = fleeting.get(&row.id).map_or(&[][..], Vec::as_slice);
        memories.push(memory::of(db, project, row.id, rows, own, entries)?);
    }
    let mut facts = Vec::new();
    let mut tell = |at: Timestamp, fact: Fact| facts.push(Record { at, fact });
    for (at, resource, capacity) in &rows.capacities {
        let (resource, capacity) = (resource.clone(), Some(*capacity));
        tell(*at, Fact::CapacityDeclared { resource, capacity });
    }
    for row in &rows.tasks {
        let (resource, version, status) = (row.resource.clone(), row.version, row.status);
        let task = Task { resource, version, status };
        tell(row.at, Fact::TaskMoved { task, lock: row.lock });
    }
    let births = Births::of(rows);
    let mut struck = Vec::new();
    for (row, memory) in rows.sessions.iter().zip(&mut memories) {
        // A victim that got nothing since, but kept some holds: those would tell a replay that
        // its work goes on, so the verdict is told once more, after them.
        let verdict = memory.verdict.take().filter(|_| row.retrying);
        let told_again = u32::from(verdict.is_some());
        struck.extend(verdict);
        let aborts = row.aborts.saturating_sub(told_again);
        tell(row.at, opened(row, births.to_be_told(row), aborts));
    }
    for row in &rows.holds {
        hold(row, &mut tell);
    }
    for row in &rows.holds {
        if let Some(until) = row.revoked_at {
            tell(row.at, Fact::RevocationSet { lock: row.lock, until });
        }
    }
    for verdict in struck {
        tell(verdict.at, verdict.fact);
    }
    for row in &rows.waits {
        let (session, on, birth) = (row.session, row.on, row.birth);
        tell(row.at, Fact::WaitDeclared { session, on, birth });
    }
    for row in &rows.tickets {
        tell(row.at, Fact::Queued(Box::new(row.request.clone())));
    }
    for row in rows.tickets.iter().filter(|row| row.parked) {
        let ticket = row.request.ticket;
        // Once told, a ticket stays known to its asker, also while a call waits on it.
        if row.poll_by.is_none() {
            tell(row.at, Fact::PollSet { ticket, poll_by: Some(row.at) });
        }
        tell(row.at, Fact::PollSet { ticket, poll_by: row.poll_by });
    }
    for memory in memories {
        facts.extend(memory.requests);
    }
    Ok(facts)
}

fn opened(row: &SessionRow, birth: Option<TicketId>, aborts: u32) -> Fact {
    Fact::SessionOpened {
        session: row.id,
        agent: row.agent.clone(),
        kind: row.kind,
        priority: row.priority,
        birth,
        aborts,
    }
}

/// A hold as it is now: granted, counted up by each later acquire, and counted down again if the
/// acquire that began it was taken back since.
fn hold(row: &HoldRow, tell: &mut impl FnMut(Timestamp, Fact)) {
    let (lock, session) = (row.lock, row.session);
    tell(
        row.at,
        Fact::Granted(Granted {
            lock,
            ticket: row.ticket,
            session,
            resource: row.resource.clone(),
            mode: row.mode,
            token: row.token,
            slots: row.slots.clone(),
            lease_ms: row.lease_ms,
            expires_at: row.expires_at,
            wait_ms: row.wait_ms,
            reason: row.reason.clone(),
            metadata: row.metadata.clone(),
            // What is remembered of requests follows at the end, in one piece each.
            request_id: None,
            fleeting: false,
        }),
    );
    let Some(shares) = &row.shares else { return };
    let later = shares.iter().filter(|share| **share != row.ticket);
    let mut count = 1;
    for &ticket in later {
        count += 1;
        tell(row.at, Fact::Reentered { ticket, session, lock, count, request_id: None });
    }
    if !shares.contains(&row.ticket) {
        let (remaining, cause) = (count - 1, ReleaseCause::Released);
        let share = Some(row.ticket);
        tell(row.at, Fact::Released { lock, remaining, cause, share, request_id: None });
    }
}

/// When the present work of each session began, where the other facts would not tell it.
struct Births {
    /// The earliest that a row knows of, and what a replay would take for it.
    known: HashMap<SessionId, (TicketId, TicketId)>,
}

impl Births {
    fn of(rows: &Rows) -> Births {
        let mut known: HashMap<SessionId, (TicketId, TicketId)> = HashMap::new();
        let holds = rows.holds.iter().map(|row| (row.session, row.birth, row.ticket));
        let waits = rows.waits.iter().filter_map(|row| {
            let birth = row.birth?;
            Some((row.session, birth, birth))
        });
        let tickets =
            rows.tickets.iter().map(|row| (row.request.session, row.birth, row.request.ticket));
        for (session, birth, ticket) in holds.chain(waits).chain(tickets) {
            let known = known.entry(session).or_insert((birth, ticket));
            known.0 = known.0.min(birth);
        }
        Births { known }
    }

    fn to_be_told(&self, row: &SessionRow) -> Option<TicketId> {
        let told_by_others = self.known.get(&row.id).filter(|(birth, first)| birth == first);
        match (row.birth, told_by_others) {
            (Some(birth), _) => Some(birth),
            (None, Some(_)) => None,
            (None, None) => self.known.get(&row.id).map(|(birth, _)| *birth),
        }
    }
}

//! The verb `why`: how a resource came to be as it is, for the agent who asks.
//!
//! Now, from the lock table: who has it, who waits, and what those in the way wait for themselves.
//! Before, from the audit log: deadlocks, leases that ended, waits that came to nothing.

use super::{
    history::{before, row_json},
    views,
};
use crate::{
    daemon::look::Look,
    output::{
        Answer, graph, shape,
        style::{Ink, Style},
        words,
    },
    places::Here,
    trouble::Trouble,
};
use lockkeeper::{
    AuditFilter, AuditRow, DeadlockReport, Fact, Inspection, Resource, SessionId, Timestamp,
    WaitGraph, WaitGraphNow,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How far back is looked, and how much is told.
const BACK: Duration = Duration::from_secs(24 * 3600);
const ROWS_READ: usize = 500;
const ROWS_TOLD: usize = 8;

/// How many steps a chain of waits is followed.
const CHAIN_MAX: usize = 8;

pub(super) async fn why(
    look: &mut Look,
    here: &Here,
    resource: Resource,
) -> Result<Answer, Trouble> {
    let style = Style::of_stdout();
    let found = views::inspected(look, &resource).await?;
    let waits = look.see(WaitGraphNow {}).await?;
    let now = look.now();
    let chain = chain(&waits, &found);
    let history = history(look, here, &resource, now).await?;
    let deadlock = deadlock(look, here, &resource, now).await?;

    let mut parts = vec![views::told(&found, now, style)];
    let mine = found.queue.iter().position(|waiter| *waiter.agent == *here.agent);
    if let Some(place) = mine {
        parts.push(format!("you are number {} in the queue", place + 1));
    }
    parts.extend(chain.iter().map(|step| step.text()));
    if let Some(report) = &deadlock {
        let when = words::span(now.since(report.at));
        let mut text = format!("{when} ago there was a deadlock:");
        for line in graph::ring(report) {
            text.push_str(&format!("\n  {line}"));
        }
        parts.push(text);
    }
    if !history.is_empty() {
        let lines: Vec<String> = history.iter().map(|row| past(row, now)).collect();
        let title = style.paint(Ink::Quiet, "in the last 24 hours:");
        parts.push(format!("{title}\n{}", lines.join("\n")));
    }

    let rows: Vec<Value> = history.iter().map(row_json).collect();
    let steps: Vec<Value> = chain.iter().map(Step::json).collect();
    let fields = json!({
        "now": views::inspection(&found, now),
        "place": mine.map(|place| place + 1),
        "chain": steps,
        "deadlock": deadlock.as_deref().map(shape::deadlock),
        "history": rows,
    });
    Ok(Answer::done(parts.join("\n"), fields))
}

/// Somebody in the way who waits, too.
struct Step {
    agent: Arc<str>,
    waits_for: Option<Resource>,
    held_by: Arc<str>,
}

impl Step {
    fn text(&self) -> String {
        let Step { agent, held_by, .. } = self;
        words::plain(&match &self.waits_for {
            Some(resource) => format!("{agent} itself waits for {resource}, behind {held_by}"),
            None => format!("{agent} itself waits for {held_by}"),
        })
    }

    fn json(&self) -> Value {
        json!({
            "agent": &*self.agent,
            "waits_for": self.waits_for.as_ref().map(|resource| resource.as_str()),
            "behind": &*self.held_by,
        })
    }
}

/// What the holders wait for, and those in turn, as far as it can be followed.
fn chain(waits: &WaitGraph, found: &Inspection) -> Vec<Step> {
    let agent = |session: SessionId| {
        let node = waits.nodes.iter().find(|node| node.session == session);
        node.map_or_else(|| session.to_string().into(), |node| node.agent.clone())
    };
    let mut open: Vec<SessionId> = found.holders.iter().map(|holder| holder.session).collect();
    let mut seen: BTreeSet<SessionId> = open.iter().copied().collect();
    let mut steps = Vec::new();
    while let Some(session) = open.pop() {
        for edge in waits.edges.iter().filter(|edge| edge.from == session) {
            if steps.len() >= CHAIN_MAX {
                return steps;
            }
            steps.push(Step {
                agent: agent(edge.from),
                waits_for: edge.resource.clone(),
                held_by: agent(edge.to),
            });
            if seen.insert(edge.to) {
                open.push(edge.to);
            }
        }
    }
    steps
}

/// What became of earlier holds and waits, the latest last: what went as planned is left out.
async fn history(
    look: &mut Look,
    here: &Here,
    resource: &Resource,
    now: Timestamp,
) -> Result<Vec<AuditRow>, Trouble> {
    let filter = AuditFilter {
        project: Some(here.project.clone()),
        resource: Some(resource.to_string()),
        since: Some(before(now, BACK)),
        limit: Some(ROWS_READ),
        ..AuditFilter::default()
    };
    let mut rows = look.audit(&filter).await?;
    rows.sort_by_key(|row| row.id);
    rows.retain(is_telling);
    let skipped = rows.len().saturating_sub(ROWS_TOLD);
    Ok(rows.split_off(skipped))
}

fn is_telling(row: &AuditRow) -> bool {
    match row.event_type.as_str() {
        "lease_expired" | "lock_revoked" | "force_release" => true,
        "wait_left" => cause(row) != "cancelled",
        _ => false,
    }
}

/// The word for why somebody left.
pub(super) fn cause(row: &AuditRow) -> String {
    let cause = row.details.pointer("/left/cause").or(row.details.pointer("/released/cause"));
    match cause {
        Some(Value::String(word)) => word.clone(),
        Some(Value::Object(word)) => word.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

fn past(row: &AuditRow, now: Timestamp) -> String {
    let agent = row.agent_id.as_deref().unwrap_or("somebody");
    let what = match (row.event_type.as_str(), cause(row).as_str()) {
        ("lease_expired", _) => format!("the lease of {agent} ended"),
        ("lock_revoked", _) => format!("{agent} lost it to break a deadlock"),
        ("force_release", _) => {
            let forced = row.details.pointer("/released/cause/forced");
            let by = forced.and_then(|forced| forced["admin"].as_str()).unwrap_or("somebody");
            let reason = forced.and_then(|forced| forced["reason"].as_str());
            let reason = reason.map(|text| format!(" for {}", words::quoted(text)));
            format!("{by} took it from {agent}{}", reason.unwrap_or_default())
        }
        ("wait_left", "timed_out") => format!("{agent} waited in vain: the time ran out"),
        ("wait_left", "deadlock") => format!("{agent} gave way to break a deadlock"),
        ("wait_left", "abandoned") => format!("{agent} did not come back with its ticket"),
        ("wait_left", "session_ended") => format!("{agent} ended while it waited"),
        (kind, cause) => format!("{agent}: {kind} {cause}"),
    };
    format!("  {}  {}", words::clock(now, row.event_time), words::plain(&what))
}

/// The latest deadlock the resource was part of.
async fn deadlock(
    look: &mut Look,
    here: &Here,
    resource: &Resource,
    now: Timestamp,
) -> Result<Option<Arc<DeadlockReport>>, Trouble> {
    let filter = AuditFilter {
        project: Some(here.project.clone()),
        event_type: Some("deadlock_detected".to_owned()),
        since: Some(before(now, BACK)),
        limit: Some(ROWS_READ),
        ..AuditFilter::default()
    };
    let mut rows = look.audit(&filter).await?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    let reports = rows.into_iter().filter_map(|row| serde_json::from_value(row.details).ok());
    let mut reports = reports.filter_map(|fact| match fact {
        Fact::DeadlockFound(report) => Some(report),
        _ => None,
    });
    Ok(reports.find(|report| {
        let mut ring = report.participants.iter();
        ring.any(|one| {
            one.resource.as_ref() == Some(resource)
                || one.holds.iter().any(|held| held.resource == *resource)
        })
    }))
}

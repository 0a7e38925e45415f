//! The verbs about what happened and how much: `audit`, `stats`.

use super::why;
use crate::{
    args::views::{Audit, Stats},
    daemon::look::Look,
    output::{Answer, shape, style::Style, table::Table, words},
    places::Here,
    trouble::Trouble,
};
use lockkeeper::{
    AuditFilter, AuditRow, Contention, ContentionNow, LeaseCounts, Leases, Resource, StatsNow,
    Timestamp,
};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) async fn audit(
    look: &mut Look,
    here: &Here,
    wanted: &Audit,
    resource: Option<Resource>,
) -> Result<Answer, Trouble> {
    let now = look.now();
    let filter = AuditFilter {
        project: (!wanted.everywhere).then(|| here.project.clone()),
        resource: resource.map(|resource| resource.to_string()),
        agent: wanted.agent.clone(),
        event_type: wanted.kind.clone(),
        since: wanted.since.map(|span| before(now, span)),
        // Bounded by its parser.
        limit: Some(wanted.limit as usize),
        ..AuditFilter::default()
    };
    let mut rows = look.audit(&filter).await?;
    // The latest were asked for; they are read from the top.
    rows.sort_by_key(|row| row.id);
    let fields: Vec<Value> = rows.iter().map(row_json).collect();
    let text = match rows.is_empty() {
        true => "nothing like that is on record".to_owned(),
        false => table(&rows, wanted.everywhere).text(Style::of_stdout()),
    };
    Ok(Answer::done(text, json!({ "rows": fields })))
}

pub(super) fn before(now: Timestamp, span: Duration) -> Timestamp {
    let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Timestamp(now.0.saturating_sub(span))
}

pub(super) fn row_json(row: &AuditRow) -> Value {
    json!({
        "id": row.id,
        "project": row.project_id,
        "kind": row.event_type,
        "at": shape::moment(row.event_time),
        "agent": row.agent_id,
        "resource": row.resource,
        "token": row.token.map(|token| token.get()),
        "details": row.details,
    })
}

fn table(rows: &[AuditRow], everywhere: bool) -> Table {
    let mut table = Table::new(&["WHEN", "PROJECT", "WHAT", "AGENT", "RESOURCE", "WHY"]);
    for row in rows {
        let when = row.event_time.to_string();
        table.row([
            when.get(..19).unwrap_or(&when).replace('T', " "),
            if everywhere { row.project_id.clone() } else { String::new() },
            row.event_type.clone(),
            row.agent_id.clone().unwrap_or_default(),
            row.resource.clone().unwrap_or_default(),
            reason(row),
        ]);
    }
    table
}

/// What somebody wanted it for, or the word for how it ended where that was not by will.
fn reason(row: &AuditRow) -> String {
    let said = ["granted", "queued"].iter().find_map(|fact| row.details[fact]["reason"].as_str());
    match said {
        Some(reason) => reason.to_owned(),
        None => Some(why::cause(row)).filter(|word| word != "released").unwrap_or_default(),
    }
}

/// What counts as ending soon, and as held for long.
const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3600);

/// One project in numbers.
struct Counted {
    project: String,
    stats: lockkeeper::Stats,
    leases: LeaseCounts,
    contended: Vec<Contention>,
}

pub(super) async fn stats(look: &mut Look, here: &Here, wanted: &Stats) -> Result<Answer, Trouble> {
    let projects = match wanted.everywhere {
        true => look.projects().await?,
        false => vec![here.project.clone()],
    };
    let mut counted = Vec::new();
    for project in projects {
        counted.push(Counted {
            stats: look.see_in(&project, StatsNow {}).await?,
            leases: look.see_in(&project, Leases { soon: SOON, long: LONG }).await?,
            contended: look.see_in(&project, ContentionNow {}).await?,
            project,
        });
    }
    let mut fields: Vec<Value> = counted.iter().map(Counted::json).collect();
    let mut fields = match (wanted.everywhere, fields.pop()) {
        (false, Some(only)) => only,
        (_, last) => {
            fields.extend(last);
            json!({ "projects": fields })
        }
    };
    let mut texts: Vec<String> = counted.iter().map(|one| one.text(wanted.everywhere)).collect();
    if let Some(status) = look.daemon().await? {
        let served = words::span(status.hello.now.since(status.hello.started_at));
        texts.push(format!(
            "daemon {} (process {}), serving for {served}: {}, {}",
            status.hello.version,
            status.hello.pid,
            words::count(status.connections, "connection"),
            words::count(status.sessions, "session"),
        ));
        fields["daemon"] = json!({
            "version": status.hello.version,
            "pid": status.hello.pid,
            "started_at": shape::moment(status.hello.started_at),
            "connections": status.connections,
            "sessions": status.sessions,
        });
    } else {
        texts.push("no daemon runs".to_owned());
        fields["daemon"] = Value::Null;
    }
    Ok(Answer::done(texts.join("\n\n"), fields))
}

impl Counted {
    fn json(&self) -> Value {
        let contended: Vec<Value> = self
            .contended
            .iter()
            .take(10)
            .map(|one| {
                json!({
                    "resource": one.resource.as_str(),
                    "holders": one.holders,
                    "waiting": one.waiting,
                    "longest_wait_ms": one.longest_wait_ms,
                })
            })
            .collect();
        json!({
            "project": self.project,
            "locks": self.leases.held,
            "ending_soon": self.leases.near_expiry,
            "held_for_long": self.leases.stale,
            "waits": self.stats.tickets,
            "sessions": self.stats.sessions,
            "tasks": self.stats.tasks,
            "contended": contended,
        })
    }

    fn text(&self, with_project: bool) -> String {
        let rows = [
            ("locks held", self.leases.held),
            ("  ending within a minute", self.leases.near_expiry),
            ("  held for an hour or more", self.leases.stale),
            ("waits", self.stats.tickets),
            ("sessions", self.stats.sessions),
            ("tasks", self.stats.tasks),
        ];
        let mut lines: Vec<String> =
            rows.iter().map(|(what, number)| format!("{what:<28}{number}")).collect();
        if with_project {
            lines.insert(0, words::plain(&self.project));
        }
        if !self.contended.is_empty() {
            let mut table = Table::new(&["MOST WAITED FOR", "WAITING", "LONGEST"]);
            for one in self.contended.iter().take(10) {
                table.row([
                    one.resource.to_string(),
                    one.waiting.to_string(),
                    words::span(one.longest_wait_ms),
                ]);
            }
            lines.push(table.text(Style::of_stdout()));
        }
        lines.join("\n")
    }
}

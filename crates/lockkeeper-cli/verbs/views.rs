//! The verbs that show how things are: `check`, `status`, `queue`, `graph`.

use crate::{
    args::views::{Check, Graph, GraphFormat, Status},
    daemon::look::Look,
    output::{
        Answer, graph as drawing, shape,
        style::{Ink, Style},
        table::Table,
        words,
    },
    places::Here,
    trouble::{Asker, Trouble, Wanted},
};
use lockkeeper::{
    CallError, ContentionNow, Holder, Inspect, Inspection, List, LockMode, Obstacle, Refusal,
    Resource, Timestamp, WaitGraphNow, Waiter,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) async fn check(
    look: &mut Look,
    here: &Here,
    wanted: &Check,
    resources: Vec<Resource>,
) -> Result<Answer, Trouble> {
    let mode = if wanted.shared { LockMode::Shared } else { LockMode::Exclusive };
    let mut lines = Vec::new();
    let mut fields = Vec::new();
    let mut obstacles = Vec::new();
    for resource in resources {
        let found = inspected(look, &resource).await?;
        let state = State::of(&found, mode, &here.agent);
        if state == State::Taken {
            obstacles.push(obstacle(&found, mode));
        }
        lines.push(format!("{resource} is {}", state.word()));
        fields.push(json!({ "resource": resource.as_str(), "state": state.word() }));
    }
    if obstacles.is_empty() {
        return Ok(Answer::done(lines.join("\n"), json!({ "resources": fields })));
    }
    // The same words as a refusal, without its advice: nothing was asked for.
    let Here { agent, is_named, .. } = here;
    let asker = Asker { agent, is_named: *is_named, wanted: Wanted::Admin, now: look.now() };
    let mut trouble = Trouble::call(&CallError::Refused(Refusal::Busy { obstacles }), &asker);
    trouble.code = "taken".into();
    trouble.next = None;
    Err(trouble.with("resources", fields))
}

/// How a resource stands to somebody who might want it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Yours,
    Taken,
}

impl State {
    /// As the lock table would decide: compatible with each holder and with whoever waits already.
    fn of(found: &Inspection, mode: LockMode, agent: &str) -> State {
        let covers = |holder: &Holder| *holder.agent == *agent && holder.mode.covers(mode);
        if found.holders.iter().any(covers) {
            return State::Yours;
        }
        if let Some(capacity) = found.capacity {
            let used: u32 = found.holders.iter().map(|holder| slots(holder.mode)).sum();
            let is_free = used < capacity && found.queue.is_empty();
            return if is_free { State::Free } else { State::Taken };
        }
        let held = found.holders.iter().any(|holder| holder.mode.conflicts_with(mode));
        let awaited = found.queue.iter().any(|waiter| waiter.mode.conflicts_with(mode));
        if held || awaited { State::Taken } else { State::Free }
    }

    fn word(self) -> &'static str {
        match self {
            State::Free => "free",
            State::Yours => "yours",
            State::Taken => "taken",
        }
    }
}

fn slots(mode: LockMode) -> u32 {
    match mode {
        LockMode::Permit(number) => number,
        _ => 0,
    }
}

fn obstacle(found: &Inspection, mode: LockMode) -> Obstacle {
    let in_the_way =
        |holder: &&Holder| found.capacity.is_some() || holder.mode.conflicts_with(mode);
    let holders: Vec<Holder> = found.holders.iter().filter(in_the_way).cloned().collect();
    Obstacle {
        resource: found.resource.clone(),
        held_by: holders.len(),
        holders,
        waiting: found.queue.len(),
    }
}

/// A resource nobody has heard of is free.
pub(super) async fn inspected(look: &mut Look, resource: &Resource) -> Result<Inspection, Trouble> {
    let found = look.see(Inspect { resource: resource.clone() }).await?;
    let none = || Inspection {
        resource: resource.clone(),
        capacity: None,
        holders: Vec::new(),
        queue: Vec::new(),
    };
    Ok(found.unwrap_or_else(none))
}

pub(super) async fn status(
    look: &mut Look,
    here: &Here,
    wanted: &Status,
    resources: Vec<Resource>,
) -> Result<Answer, Trouble> {
    let style = Style::of_stdout();
    if !resources.is_empty() {
        return status_of(look, resources, style).await;
    }
    let projects = match wanted.everywhere {
        true => look.projects().await?,
        false => vec![here.project.clone()],
    };
    let mut texts = Vec::new();
    let mut fields = Vec::new();
    for project in &projects {
        let (text, object) = status_in(look, here, project, wanted, style).await?;
        texts.push(text);
        fields.push(object);
    }
    if let (false, Some(Value::Object(only))) = (wanted.everywhere, fields.first()) {
        let mut only = only.clone();
        only.insert("daemon".into(), look.is_running().into());
        return Ok(Answer::done(texts.join("\n\n"), Value::Object(only)));
    }
    if texts.is_empty() {
        texts.push("no project has ever locked anything".to_owned());
    }
    let fields = json!({ "projects": fields, "daemon": look.is_running() });
    Ok(Answer::done(texts.join("\n\n"), fields))
}

/// One project: a table of what is held, and how many wait.
async fn status_in(
    look: &mut Look,
    here: &Here,
    project: &str,
    wanted: &Status,
    style: Style,
) -> Result<(String, Value), Trouble> {
    let mut holders = look.see_in(project, List {}).await?;
    let contended = look.see_in(project, ContentionNow {}).await?;
    let now = look.now();
    if wanted.mine {
        holders.retain(|holder| *holder.agent == *here.agent);
    }
    let mut waiting: BTreeMap<Resource, usize> = BTreeMap::new();
    for one in contended {
        let is_shown = !wanted.mine || holders.iter().any(|holder| holder.resource == one.resource);
        if is_shown {
            waiting.insert(one.resource, one.waiting);
        }
    }
    let mut of_resource: BTreeMap<Resource, Vec<Holder>> = BTreeMap::new();
    for holder in holders {
        of_resource.entry(holder.resource.clone()).or_default().push(holder);
    }
    // What is waited for and held by nobody is promised, for a moment.
    for resource in waiting.keys() {
        of_resource.entry(resource.clone()).or_default();
    }
    let mut table = Table::new(&["RESOURCE", "LOCKED BY", "MODE", "FOR", "ENDS", "WAITING", "WHY"]);
    let mut rows = Vec::new();
    for (resource, holders) in &of_resource {
        let waiting = waiting.get(resource).copied().unwrap_or_default();
        for (at, holder) in holders.iter().enumerate() {
            // Told once, beside the first of several holders.
            let waiting = (at == 0 && waiting > 0).then(|| waiting.to_string());
            table.row(row(holder, waiting.unwrap_or_default(), now));
        }
        if holders.is_empty() {
            let cells = [resource.to_string(), String::new(), String::new()];
            let [a, b, c] = cells;
            table.row([a, b, c, String::new(), String::new(), waiting.to_string(), String::new()]);
        }
        let holders: Vec<Value> = holders.iter().map(|holder| shape::holder(holder, now)).collect();
        rows.push(json!({ "resource": resource.as_str(), "holders": holders, "waiting": waiting }));
    }
    let held: usize = of_resource.values().map(Vec::len).sum();
    let waits: usize = waiting.values().sum();
    let summary = summary(held, waits, project, look, style);
    let text = match table.is_empty() {
        true => summary,
        false => format!("{}\n{summary}", table.text(style)),
    };
    let object = json!({
        "project": project,
        "held": held,
        "waiting": waits,
        "resources": rows,
    });
    Ok((text, object))
}

fn summary(held: usize, waits: usize, project: &str, look: &Look, style: Style) -> String {
    let what = match (held, waits) {
        (0, 0) => "nothing is locked".to_owned(),
        (held, 0) => format!("{}, nobody waits", words::count(held, "lock")),
        (held, 1) => format!("{}, 1 waits", words::count(held, "lock")),
        (held, waits) => format!("{}, {waits} wait", words::count(held, "lock")),
    };
    let rest = match look.is_running() || held == 0 {
        true => "",
        // Whoever starts the daemon gives them their full time again.
        false => "; no daemon runs: leases begin anew with the next one",
    };
    style.paint(Ink::Quiet, &words::plain(&format!("{what} in {project}{rest}")))
}

fn row(holder: &Holder, waiting: String, now: Timestamp) -> [String; 7] {
    let ends = match holder.revoked_at {
        Some(end) => format!("taken away {}", words::ahead(now, end)),
        None => words::ahead(now, holder.expires_at),
    };
    [
        holder.resource.to_string(),
        holder.agent.to_string(),
        match holder.mode {
            LockMode::Exclusive => String::new(),
            mode => mode.to_string(),
        },
        words::span(now.since(holder.acquired_at)),
        ends,
        waiting,
        holder.reason.as_deref().unwrap_or_default().to_owned(),
    ]
}

/// Single resources, with their queues.
async fn status_of(
    look: &mut Look,
    resources: Vec<Resource>,
    style: Style,
) -> Result<Answer, Trouble> {
    let mut texts = Vec::new();
    let mut rows = Vec::new();
    for resource in resources {
        let found = inspected(look, &resource).await?;
        let now = look.now();
        texts.push(told(&found, now, style));
        rows.push(inspection(&found, now));
    }
    let fields = json!({ "resources": rows, "daemon": look.is_running() });
    Ok(Answer::done(texts.join("\n\n"), fields))
}

/// For programs: a resource with everything about it.
pub(super) fn inspection(found: &Inspection, now: Timestamp) -> Value {
    let holders: Vec<Value> =
        found.holders.iter().map(|holder| shape::holder(holder, now)).collect();
    let queue: Vec<Value> =
        found.queue.iter().zip(1..).map(|(one, place)| shape::waiter(one, place, now)).collect();
    json!({
        "resource": found.resource.as_str(),
        "capacity": found.capacity,
        "holders": holders,
        "waiting": found.queue.len(),
        "queue": queue,
    })
}

/// For people: holders, then the queue.
pub(super) fn told(found: &Inspection, now: Timestamp, style: Style) -> String {
    let title = style.paint(Ink::Title, &words::plain(found.resource.as_str()));
    let slots = match found.capacity {
        Some(capacity) => {
            let used: u32 = found.holders.iter().map(|holder| self::slots(holder.mode)).sum();
            format!(", {used} of {} used", words::count(capacity as usize, "slot"))
        }
        None => String::new(),
    };
    let state = match (found.holders.is_empty(), found.queue.is_empty()) {
        (true, true) => "is free",
        (true, false) => "is promised to whoever waits for it",
        (false, _) => "is locked",
    };
    let mut text = format!("{title} {state}{slots}");
    for holder in &found.holders {
        let [_, agent, _, since, ends, _, why] = row(holder, String::new(), now);
        let (agent, mode) = (words::plain(&agent), words::mode(holder.mode));
        text.push_str(&format!("\n  by {agent}{mode}, taken {since} ago, ends {ends}"));
        if !why.is_empty() {
            text.push_str(&format!(", for {}", words::quoted(&why)));
        }
    }
    if !found.queue.is_empty() {
        text.push_str(&format!("\n{}", queue_table(&found.queue, now).text(style)));
    }
    text
}

fn queue_table(queue: &[Waiter], now: Timestamp) -> Table {
    let mut table = Table::new(&["", "WAITS", "MODE", "FOR", "UNTIL", "WHY"]);
    for (waiter, place) in queue.iter().zip(1..) {
        let mut mode = match waiter.mode {
            LockMode::Exclusive => String::new(),
            mode => mode.to_string(),
        };
        if waiter.upgrade {
            mode = "upgrade".to_owned();
        }
        table.row([
            format!("{place:>3}"),
            waiter.agent.to_string(),
            mode,
            words::span(now.since(waiter.queued_at)),
            words::ahead(now, waiter.wait_until),
            waiter.reason.as_deref().unwrap_or_default().to_owned(),
        ]);
    }
    table
}

pub(super) async fn queue(look: &mut Look, resource: Resource) -> Result<Answer, Trouble> {
    let found = inspected(look, &resource).await?;
    let now = look.now();
    let text = match found.queue.is_empty() {
        true => format!("nobody waits for {resource}"),
        false => queue_table(&found.queue, now).text(Style::of_stdout()),
    };
    Ok(Answer::done(text, inspection(&found, now)))
}

pub(super) async fn graph(look: &mut Look, here: &Here, wanted: &Graph) -> Result<Answer, Trouble> {
    let graph = look.see(WaitGraphNow {}).await?;
    let fields = drawing::json(&graph);
    let text = match wanted.format {
        GraphFormat::Text => drawing::drawn(&graph, Style::of_stdout()),
        GraphFormat::Dot => words::plain_lines(&graph.to_dot()),
        GraphFormat::Mermaid => words::plain_lines(&graph.to_mermaid()),
        GraphFormat::Json => fields.to_string(),
    };
    if here.json && matches!(wanted.format, GraphFormat::Dot | GraphFormat::Mermaid) {
        let (name, text) = (format!("{:?}", wanted.format).to_lowercase(), text.trim_end());
        return Ok(Answer::done(text.to_owned(), json!({ name: text })));
    }
    Ok(Answer::done(text, fields))
}

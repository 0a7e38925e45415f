//! The verb `watch`: events as they happen.
//!
//! It starts no daemon; where none runs nothing happens. When one comes, or comes back, it goes on
//! where it was.

use crate::{
    args::views::Watch,
    daemon::link,
    exit::Exit,
    output::{self, graph, shape, words},
    places::Here,
    trouble::{Asker, Trouble, Wanted},
};
use lockkeeper::{
    LockNews, News, ProjectEvent, Resource, Timestamp,
    remote::Client,
    wire::{Note, Subscribe},
};
use serde_json::{Value, json};
use std::{io, time::Duration};
use tokio::signal;

/// How often it is looked whether there is a daemon again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(super) async fn watch(
    here: Here,
    wanted: &Watch,
    resources: Vec<Resource>,
) -> Result<Exit, Trouble> {
    let mut eyes =
        Eyes { here, resources, last: wanted.since, left: wanted.count, was_without_daemon: false };
    tokio::select! {
        ended = eyes.look() => ended,
        _ = signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

struct Eyes {
    here: Here,
    resources: Vec<Resource>,
    /// The number of the last event that was heard.
    last: Option<u64>,
    /// How many more are wanted.
    left: Option<u64>,
    was_without_daemon: bool,
}

impl Eyes {
    async fn look(&mut self) -> Result<Exit, Trouble> {
        loop {
            if self.left == Some(0) {
                return Ok(Exit::Done);
            }
            let client = self.daemon().await?;
            if let Some(exit) = self.hear(&client).await? {
                return Ok(exit);
            }
        }
    }

    /// Waits until there is a daemon.
    async fn daemon(&mut self) -> Result<Client, Trouble> {
        loop {
            match link::running(&self.here).await {
                Ok(Some(client)) => return Ok(client),
                Ok(None) => {}
                // One that is just coming or going.
                Err(trouble) if trouble.retryable => {}
                Err(trouble) => return Err(trouble),
            }
            if !self.was_without_daemon && !self.here.json {
                output::remark("no daemon runs, so nothing happens; waiting for one");
            }
            self.was_without_daemon = true;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Listens until the connection ends, or enough was heard.
    async fn hear(&mut self, client: &Client) -> Result<Option<Exit>, Trouble> {
        let mut notes = client.notes();
        // A daemon that came while we looked has done nothing yet that is not wanted.
        let is_new = std::mem::take(&mut self.was_without_daemon) && self.last.is_none();
        let since = if is_new { Some(0) } else { self.last };
        let to = Subscribe { project: Some(self.here.project.clone()), since };
        let missed = match client.subscribe(to).await {
            Ok(subscribed) => subscribed.missed,
            Err(_) if !client.is_connected() => return Ok(None),
            Err(error) => {
                let Here { agent, is_named, .. } = &self.here;
                let (is_named, now) = (*is_named, client.now());
                let asker = Asker { agent, is_named, wanted: Wanted::Admin, now };
                return Err(Trouble::call(&error, &asker));
            }
        };
        if missed > 0 && !is_new && !self.missed(missed)? {
            return Ok(Some(Exit::Done));
        }
        while let Some(note) = notes.next().await {
            let goes_on = match note {
                Note::Event(event) => self.event(&event)?,
                Note::Missed { missed } => self.missed(missed)?,
                _ => true,
            };
            if !goes_on || self.left == Some(0) {
                return Ok(Some(Exit::Done));
            }
        }
        Ok(None)
    }

    /// Tells one event, if it is wanted. `false`: nobody reads any more.
    fn event(&mut self, event: &ProjectEvent) -> Result<bool, Trouble> {
        // After a break the same one may come twice.
        if self.last.is_some_and(|last| event.event.seq <= last) {
            return Ok(true);
        }
        self.last = Some(event.event.seq);
        if !self.is_wanted(&event.event.news) {
            return Ok(true);
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        match self.here.json {
            true => said(&json(event).to_string()),
            false => said(&text(event)),
        }
    }

    fn missed(&self, missed: u64) -> Result<bool, Trouble> {
        match self.here.json {
            true => said(&json!({ "event": "missed", "missed": missed }).to_string()),
            false => {
                output::remark(&format!("{missed} events were missed; `lockkeeper audit` has all"));
                Ok(true)
            }
        }
    }

    fn is_wanted(&self, news: &News) -> bool {
        let mut resources = self.resources.iter();
        match news {
            _ if self.resources.is_empty() => true,
            News::Waiting(wait) => resources.any(|one| wait.resources.contains(one)),
            News::Deadlock { report } => resources.any(|one| {
                report.participants.iter().any(|party| party.resource.as_ref() == Some(one))
            }),
            other => of_lock(other).is_some_and(|lock| resources.any(|one| *one == lock.resource)),
        }
    }
}

fn of_lock(news: &News) -> Option<&LockNews> {
    match news {
        News::Locked(lock)
        | News::Unlocked(lock)
        | News::Expired(lock)
        | News::Revoked(lock)
        | News::Revoking(lock) => Some(lock),
        _ => None,
    }
}

fn said(line: &str) -> Result<bool, Trouble> {
    output::say(&mut io::stdout().lock(), line).map_err(|error| Trouble::unwritten(&error))
}

/// An event for people: one line, a deadlock with its ring below.
fn text(event: &ProjectEvent) -> String {
    let at = event.event.at.to_string();
    let at = at.get(11..23).unwrap_or(&at);
    let what = match &event.event.news {
        News::Waiting(wait) => {
            let resources: Vec<String> = wait.resources.iter().map(ToString::to_string).collect();
            let why = reason(wait.reason.as_deref());
            words::plain(&format!("waiting   {}  {}{why}", words::listed(&resources), wait.agent))
        }
        News::Deadlock { report } => {
            let mut text = "deadlock".to_owned();
            for line in graph::ring(report) {
                text.push_str(&format!("\n    {line}"));
            }
            text
        }
        News::SessionEnded { agent, .. } => words::plain(&format!("ended     {agent}")),
        other => match (of_lock(other), word(other)) {
            (Some(lock), word) => {
                let held = match lock.held_ms {
                    Some(held) => format!(" after {}", words::span(held)),
                    None => String::new(),
                };
                let (why, mode) = (reason(lock.reason.as_deref()), words::mode(lock.mode));
                let what = format!("{word:<9} {}  {}", lock.resource, lock.agent);
                words::plain(&format!("{what}{mode}{held}{why}"))
            }
            (None, word) => word.to_owned(),
        },
    };
    format!("{at}  {what}")
}

fn word(news: &News) -> &'static str {
    match news {
        News::Locked(_) => "locked",
        News::Unlocked(_) => "unlocked",
        News::Expired(_) => "expired",
        News::Revoked(_) => "revoked",
        News::Revoking(_) => "revoking",
        _ => "other",
    }
}

fn reason(reason: Option<&str>) -> String {
    reason.map(|reason| format!("  {}", words::quoted(reason))).unwrap_or_default()
}

/// An event for programs: as it travels, with its moments in RFC 3339.
fn json(event: &ProjectEvent) -> Value {
    let mut object = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(fields) = &mut object {
        for name in ["at", "expires_at", "wait_until"] {
            if let Some(moment) = fields.get_mut(name)
                && let Some(millis) = moment.as_u64()
            {
                *moment = shape::moment(Timestamp(millis));
            }
        }
    }
    if let News::Deadlock { report } = &event.event.news {
        object["report"] = shape::deadlock(report);
    }
    object
}

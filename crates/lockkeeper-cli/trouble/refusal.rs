//! Each refusal of the lock table, told to the one who asked.

use super::{Asker, Trouble, Wanted};
use crate::{
    exit::Exit,
    output::{graph, shape, words},
};
use lockkeeper::{
    DeadlockReport, FailedClaim, Holder, Limit, Obstacle, Refusal, Subject, Timestamp,
    WhyNotClaimed,
};
use serde_json::Value;

pub(super) fn told(refusal: &Refusal, asker: &Asker<'_>) -> Trouble {
    let mut trouble = Trouble::new(exit_of(refusal), refusal.code(), message(refusal, asker));
    trouble.legacy_code = Some(refusal.legacy_code());
    trouble.retryable = refusal.retryable();
    trouble.next = next(refusal, asker);
    let now = asker.now;
    match refusal {
        Refusal::Busy { obstacles } => trouble.with("obstacles", all(obstacles, now)),
        Refusal::TimedOut { obstacles, waited_ms } => {
            trouble.with("obstacles", all(obstacles, now)).with("waited_ms", *waited_ms)
        }
        Refusal::Deadlock(report) => trouble.with("deadlock", shape::deadlock(report)),
        Refusal::AlreadyHeld { holder } => trouble.with("holder", shape::holder(holder, now)),
        Refusal::NotHolder { holder: Some(holder), .. } => {
            trouble.with("holder", shape::holder(holder, now))
        }
        Refusal::AlreadyWaiting { ticket, .. } => trouble.with("ticket", ticket.get()),
        Refusal::ClaimFailed { failed } => {
            let failed: Vec<Value> =
                failed.iter().map(|one| shape::failed_claim(one, now)).collect();
            trouble.with("failed", failed)
        }
        Refusal::VersionMismatch { task, expected } => {
            trouble.with("task", shape::task(task)).with("expected_version", *expected)
        }
        Refusal::WrongStatus { task } => trouble.with("task", shape::task(task)),
        _ => trouble,
    }
}

fn all(obstacles: &[Obstacle], now: Timestamp) -> Vec<Value> {
    obstacles.iter().map(|one| shape::obstacle(one, now)).collect()
}

fn exit_of(refusal: &Refusal) -> Exit {
    match refusal {
        Refusal::Deadlock(_) => Exit::Deadlock,
        Refusal::NotHolder { holder: Some(_), .. } => Exit::NotPermitted,
        Refusal::NotHolder { holder: None, .. }
        | Refusal::StaleToken { .. }
        | Refusal::SessionEnded { .. }
        | Refusal::Revoking { .. }
        | Refusal::Unknown(_) => Exit::Lost,
        Refusal::LimitReached { limit: Limit::Batch | Limit::TextBytes | Limit::Slots, .. }
        | Refusal::WrongMode { .. }
        | Refusal::OverCapacity { .. }
        | Refusal::InvalidResource { .. }
        | Refusal::EmptyBatch
        | Refusal::RequestIdReused { .. } => Exit::Usage,
        Refusal::Exhausted => Exit::Unavailable,
        _ => Exit::NotObtained,
    }
}

fn message(refusal: &Refusal, asker: &Asker<'_>) -> String {
    match refusal {
        Refusal::Busy { obstacles } => obstructed(obstacles, asker),
        Refusal::TimedOut { obstacles, waited_ms } => {
            let waited = format!("not obtained in {}", words::span(*waited_ms));
            match obstacles.is_empty() {
                true => waited,
                false => format!("{waited}:\n{}", obstructed(obstacles, asker)),
            }
        }
        Refusal::Deadlock(report) => ring(report, asker),
        Refusal::AlreadyHeld { holder } => {
            format!("{} is yours already, {}", holder.resource, taken(holder, asker))
        }
        Refusal::NotHolder { holder: Some(holder), .. } if *holder.agent == *asker.agent => {
            format!(
                "{} is held by {} in another way, such as a `lockkeeper run`, and ends with that",
                holder.resource,
                words::plain(&holder.agent)
            )
        }
        Refusal::NotHolder { holder: Some(holder), .. } => {
            format!("{} is not yours: it {}", holder.resource, locked_by(holder, asker))
        }
        Refusal::ClaimFailed { failed } => {
            let lines: Vec<String> = failed.iter().map(|one| unclaimed(one, asker)).collect();
            format!("nothing was claimed:\n{}", lines.join("\n"))
        }
        other => words::plain(&other.to_string()),
    }
}

/// Each resource in the way, a line or two for each.
fn obstructed(obstacles: &[Obstacle], asker: &Asker<'_>) -> String {
    let lines: Vec<String> = obstacles.iter().map(|one| obstacle(one, asker)).collect();
    lines.join("\n")
}

fn obstacle(obstacle: &Obstacle, asker: &Asker<'_>) -> String {
    let resource = &obstacle.resource;
    let mut text = match obstacle.holders.as_slice() {
        [] => format!("{resource} is promised to whoever waits for it"),
        [one] if obstacle.held_by <= 1 => format!("{resource} {}", locked_by(one, asker)),
        [one, ..] => {
            let more = obstacle.held_by.saturating_sub(1);
            format!("{resource} {}, and by {more} more", locked_by(one, asker))
        }
    };
    if obstacle.waiting > 0 {
        text.push_str(&format!("; {}", words::waiting(obstacle.waiting)));
    }
    text
}

/// `is locked by …`: the words the users of earlier tools look for.
fn locked_by(holder: &Holder, asker: &Asker<'_>) -> String {
    let you = if *holder.agent == *asker.agent { " (you)" } else { "" };
    format!(
        "is locked by {}{you}{}, {}",
        words::plain(&holder.agent),
        words::mode(holder.mode),
        taken(holder, asker)
    )
}

fn taken(holder: &Holder, asker: &Asker<'_>) -> String {
    let mut text = format!("taken {} ago", words::span(asker.now.since(holder.acquired_at)));
    if let Some(reason) = &holder.reason {
        text.push_str(&format!(" for {}", words::quoted(reason)));
    }
    let (end, unless) = match holder.revoked_at {
        Some(end) => (end, ""),
        None => (holder.expires_at, " unless renewed"),
    };
    let (ahead, clock) = (words::ahead(asker.now, end), words::clock(asker.now, end));
    text.push_str(&format!("; its lease ends {ahead} ({clock}){unless}"));
    text
}

fn unclaimed(failed: &FailedClaim, asker: &Asker<'_>) -> String {
    let task = &failed.task;
    match &failed.why {
        WhyNotClaimed::Held(why) => obstacle(why, asker),
        WhyNotClaimed::Done => format!("{} is done", task.resource),
        WhyNotClaimed::VersionMismatch { expected } => {
            format!("{} is at version {}, not {expected}", task.resource, task.version)
        }
        _ => format!("{} cannot be claimed", task.resource),
    }
}

/// The ring of a deadlock, from the requester on, and who lost.
fn ring(report: &DeadlockReport, asker: &Asker<'_>) -> String {
    let mut text = String::from("deadlock: nobody in this ring could ever have gone on");
    for line in graph::ring(report) {
        text.push_str(&format!("\n  {line}"));
    }
    if let Some(victim) = report.victim() {
        let name = &*victim.rank.agent;
        let who = if name == asker.agent { "you".to_owned() } else { words::plain(name) };
        text.push_str(&format!("\n{who} gave way"));
        match report.freed.len() {
            0 => {}
            1 => text.push_str(", and 1 lock was released for the others"),
            n => text.push_str(&format!(", and {n} locks were released for the others")),
        }
    }
    text
}

/// One thing to do now, and never one that takes something from somebody.
fn next(refusal: &Refusal, asker: &Asker<'_>) -> Option<String> {
    let text = match (refusal, asker.wanted) {
        (Refusal::Busy { .. }, Wanted::Lock { wait_flag }) => {
            format!("stand in the queue with {wait_flag} 10m, or work on something else meanwhile")
        }
        (Refusal::TimedOut { obstacles, .. }, Wanted::Lock { wait_flag }) => {
            match obstacles.first() {
                Some(one) => format!(
                    "ask again with a longer {wait_flag}; `lockkeeper why {}` tells more",
                    one.resource
                ),
                None => format!("ask again with a longer {wait_flag}"),
            }
        }
        (Refusal::Busy { .. } | Refusal::TimedOut { .. }, _) => "ask again later".to_owned(),
        (Refusal::Deadlock(report), _) => {
            let lost = report.victim().is_some_and(|one| *one.rank.agent == *asker.agent);
            let first = match lost && !report.freed.is_empty() {
                true => "undo what you began under the locks that were released, then ",
                false => "",
            };
            format!("{first}ask for all you need in one command: that holds nothing while it waits")
        }
        (Refusal::AlreadyHeld { .. }, _) if !asker.is_named => format!(
            "if it was another agent, give each a name with --as or {}; if it was you, go on",
            crate::places::AGENT
        ),
        (Refusal::AlreadyHeld { .. }, _) => {
            "go on; --reentrant counts it up, so that it takes one more release".to_owned()
        }
        (Refusal::AlreadyWaiting { ticket, .. }, _) => {
            format!("go on waiting with `lockkeeper wait {ticket}`")
        }
        (Refusal::NotHolder { holder: Some(holder), .. }, _) => {
            format!("wait until it is free: `lockkeeper acquire {} --wait 10m`", holder.resource)
        }
        (
            Refusal::NotHolder { .. } | Refusal::SessionEnded { .. } | Refusal::StaleToken { .. },
            _,
        ) => "stop using the resource, and ask for it again".to_owned(),
        (Refusal::Unknown(Subject::Ticket(_)), _) | (Refusal::Abandoned { .. }, _) => {
            "ask for the resource again; a ticket keeps its place for 2 min between waits"
                .to_owned()
        }
        (Refusal::QueueFull { .. }, _) => "work on something else, and ask again later".to_owned(),
        (Refusal::ClaimFailed { .. }, _) => "claim another task: `lockkeeper task list`".to_owned(),
        (Refusal::VersionMismatch { .. } | Refusal::WrongStatus { .. }, _) => {
            "look at it again: `lockkeeper task list`".to_owned()
        }
        (Refusal::WrongMode { capacity: None, resource, .. }, _) => {
            format!("ask without --permits, or declare slots: `lockkeeper capacity {resource} N`")
        }
        (Refusal::WrongMode { .. }, _) => "ask for slots with --permits 1".to_owned(),
        (Refusal::OverCapacity { capacity, .. }, _) => format!("ask for {capacity} at most"),
        _ => return None,
    };
    Some(text)
}

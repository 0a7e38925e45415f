//! The verbs `acquire`, `wait` and `cancel`.

use super::waiting::{self, Ended, For};
use crate::{
    args::locks::{Acquire, Cancel, Wait},
    daemon::desk::{self, Desk},
    exit::Exit,
    output::{self, Answer, shape, words},
    places::Here,
    trouble::{Trouble, Wanted},
};
use lockkeeper::{
    AskOptions, CallError, CancelTarget, Command, Grant, LockMode, Refusal, Resource, SessionId,
    TicketId, Timestamp,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const LOCK: Wanted = Wanted::Lock { wait_flag: "--wait" };

pub(crate) async fn acquire(
    desk: &mut Desk,
    wanted: &Acquire,
    resources: Vec<Resource>,
) -> Result<Answer, Trouble> {
    let request = desk::request_id();
    let options = AskOptions {
        wait: Some(wanted.wait.unwrap_or(Duration::ZERO)),
        slice: wanted.slice,
        lease: wanted.lease,
        reason: wanted.reason.as_deref().map(Arc::from),
        priority: wanted.priority,
        reentrant: wanted.reentrant,
        request_id: Some(request),
        ..AskOptions::default()
    };
    let mode = mode(wanted);
    // A detached session that had nothing for long may end between two commands: then once more.
    for is_last in [false, true] {
        let session = desk.session().await?;
        let command = command(session, resources.clone(), mode, options.clone());
        let told = match wanted.wait {
            None => Ended::Answered(desk.command(command).await?),
            Some(wait) => {
                let what = For::Locks(resources.clone(), desk.now().after(wait));
                waiting::wait(desk, session, what, command).await?
            }
        };
        return match told {
            Ended::Interrupted => {
                left(desk, session, CancelTarget::Request(request), Exit::Interrupted).await
            }
            Ended::Asked(signal) => {
                let exit = Exit::Of(128 + signal);
                left(desk, session, CancelTarget::Request(request), exit).await
            }
            Ended::Answered(Err(CallError::Refused(Refusal::SessionEnded { .. }))) if !is_last => {
                desk.forget_session();
                continue;
            }
            Ended::Answered(answer) => obtained(desk, answer, LOCK),
        };
    }
    unreachable!("the second round returns")
}

fn mode(wanted: &Acquire) -> LockMode {
    match wanted.permits {
        // The parser bounds it far below any u32.
        Some(permits) => LockMode::Permit(permits as u32),
        None if wanted.shared => LockMode::Shared,
        None if wanted.update => LockMode::Update,
        None => LockMode::Exclusive,
    }
}

fn command(
    session: SessionId,
    mut resources: Vec<Resource>,
    mode: LockMode,
    options: AskOptions,
) -> Command {
    match resources.len() {
        1 => {
            let resource = resources.swap_remove(0);
            lockkeeper::Acquire { session, resource, mode, options }.into()
        }
        _ => {
            let wants = resources.into_iter().map(|resource| (resource, mode)).collect();
            lockkeeper::AcquireAll { session, wants, options }.into()
        }
    }
}

pub(crate) async fn wait(desk: &mut Desk, wanted: &Wait) -> Result<Answer, Trouble> {
    let session = desk.session().await?;
    let ticket = TicketId::from_u64(wanted.ticket);
    let command = lockkeeper::Wait { session, ticket, slice: wanted.slice };
    let told = match wanted.slice {
        Some(Duration::ZERO) => Ended::Answered(desk.command(command).await?),
        _ => waiting::wait(desk, session, For::Ticket(ticket), command.into()).await?,
    };
    match told {
        Ended::Interrupted => {
            left(desk, session, CancelTarget::Ticket(ticket), Exit::Interrupted).await
        }
        // Whoever started this may only have run out of patience: the ticket is still good.
        Ended::Asked(signal) => {
            let what = format!("asked to end; ticket {ticket} keeps its place for 2 min");
            Err(Trouble::new(Exit::Of(128 + signal), "interrupted", what)
                .next(format!("lockkeeper wait {ticket}")))
        }
        Ended::Answered(answer) => obtained(desk, answer, Wanted::Ticket),
    }
}

/// What came of asking for locks.
fn obtained(
    desk: &Desk,
    answer: Result<lockkeeper::Answer, CallError>,
    wanted: Wanted,
) -> Result<Answer, Trouble> {
    match answer.map_err(|error| desk.told(&error, wanted))? {
        lockkeeper::Answer::Granted(grants) => Ok(granted(&desk.here, &grants, desk.now())),
        lockkeeper::Answer::Queued { ticket, ahead, poll_by } => {
            Err(queued(ticket, ahead, poll_by, desk.now()))
        }
        other => Err(strange(&other)),
    }
}

/// The daemon answered with something that is no answer to what was asked.
pub(super) fn strange(answer: &lockkeeper::Answer) -> Trouble {
    let what = format!("the daemon answered with what was not asked: {answer:?}");
    Trouble::new(Exit::Unavailable, "garbled", what).next("`lockkeeper doctor` compares versions")
}

fn granted(here: &Here, grants: &[Grant], now: Timestamp) -> Answer {
    let lines: Vec<String> = grants.iter().map(|grant| yours(here, grant, now)).collect();
    let grants: Vec<Value> = grants.iter().map(|grant| shape::grant(grant, now)).collect();
    let fields = json!({
        "project": here.project,
        "agent": here.agent,
        "grants": grants,
    });
    Answer::done(lines.join("\n"), fields)
}

fn yours(here: &Here, grant: &Grant, now: Timestamp) -> String {
    let whose = match here.is_named {
        true => format!("is locked by {}", here.agent),
        false => "is yours".to_owned(),
    };
    // Rounded, so that five minutes are not told as 4 min 59 s.
    let left = grant.expires_at.since(now).div_ceil(1000) * 1000;
    let mode = words::mode(grant.mode);
    let mut text = format!("{} {whose}{mode} for {}", grant.resource, words::span(left));
    if !grant.slots.is_empty() {
        let slots: Vec<String> = grant.slots.iter().map(ToString::to_string).collect();
        text.push_str(&format!(", slot {}", words::listed(&slots)));
    }
    if grant.wait_ms >= 1000 {
        text.push_str(&format!(", after {} in the queue", words::span(grant.wait_ms)));
    }
    if grant.count > 1 {
        text.push_str(&format!(", and takes {} releases now", grant.count));
    }
    text
}

fn queued(ticket: TicketId, ahead: usize, poll_by: Timestamp, now: Timestamp) -> Trouble {
    let place = ahead + 1;
    let keeps = words::span(poll_by.since(now));
    let what = format!(
        "not yet: you are number {place} in the queue; ticket {ticket} keeps the place for {keeps}"
    );
    let mut trouble = Trouble::new(Exit::NotObtained, "queued", what)
        .next(format!("lockkeeper wait {ticket}"))
        .with("ticket", ticket.get())
        .with("place", place)
        .with("poll_by", shape::moment(poll_by))
        .with("poll_within_ms", poll_by.since(now));
    trouble.retryable = true;
    trouble
}

pub(crate) async fn cancel(desk: &mut Desk, wanted: &Cancel) -> Result<Answer, Trouble> {
    let session = desk.session().await?;
    let ticket = TicketId::from_u64(wanted.ticket);
    let cancel = lockkeeper::Cancel { session, target: CancelTarget::Ticket(ticket) };
    let answer = desk.command(cancel).await?;
    match answer.map_err(|error| desk.told(&error, Wanted::Ticket))? {
        lockkeeper::Answer::Cancelled { released, was_waiting } => {
            let text = match (was_waiting, released) {
                (true, _) => format!("ticket {ticket} has left the queue"),
                (false, 0) => {
                    let what = format!("ticket {ticket} was over already");
                    return Err(Trouble::new(Exit::Lost, "unknown", what));
                }
                (false, _) => format!("ticket {ticket} had been granted: released"),
            };
            let fields = json!({
                "ticket": ticket.get(),
                "was_waiting": was_waiting,
                "released": released,
            });
            Ok(Answer::done(text, fields))
        }
        other => Err(strange(&other)),
    }
}

/// After Ctrl-C: out of the queue at once.
async fn left(
    desk: &mut Desk,
    session: SessionId,
    target: CancelTarget,
    exit: Exit,
) -> Result<Answer, Trouble> {
    let answer = desk.command(lockkeeper::Cancel { session, target }).await?;
    let what = match answer {
        Ok(lockkeeper::Answer::Cancelled { released: 1.., .. }) => {
            "interrupted; it had been granted in this moment, and is released"
        }
        // A request nobody has heard of waits for nothing.
        Ok(_) | Err(CallError::Refused(_)) => "interrupted; you have left the queue",
        Err(error) => return Err(desk.told(&error, Wanted::Ticket)),
    };
    Err(Trouble::new(exit, "interrupted", what))
}

/// Says so when a bare word is taken for a file that is not there: it may have been meant as
/// something else.
pub(crate) fn remark_names(here: &Here, words: &[String]) {
    for word in words.iter().filter(|_| !here.json) {
        let is_bare = !word.contains(['.', '/', ':']);
        if is_bare && here.folder.join(word).symlink_metadata().is_err() {
            output::remark(&format!(
                "note: there is no file {word} here; what is no file is written type:{word}"
            ));
        }
    }
}

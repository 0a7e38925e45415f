//! The verbs about what one holds already: `renew`, `release`, `cleanup`.

use super::acquire::strange;
use crate::{
    args::locks::{Cleanup, Release, Renew},
    daemon::desk::{self, Desk},
    exit::Exit,
    output::{Answer, shape, words},
    places::Here,
    trouble::{Trouble, Wanted},
};
use lockkeeper::{
    CallError, Credential, Holder, Inspect, LockId, Refusal, ReleaseAll, Resource, Timestamp,
};
use serde_json::{Value, json};
use std::fmt;

/// What a hold is named by.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Target {
    /// The resource; the hold is the agent's own.
    Resource(Resource),
    /// Its id.
    Lock(LockId),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Resource(resource) => resource.fmt(f),
            Target::Lock(lock) => lock.fmt(f),
        }
    }
}

/// What a list of words names.
pub(super) fn targets(here: &Here, words: &[String]) -> Result<Vec<Target>, Trouble> {
    let one = |word: &String| match word.parse() {
        Ok(lock) => Ok(Target::Lock(lock)),
        Err(_) => here.resource(word).map(Target::Resource),
    };
    words.iter().map(one).collect()
}

/// What became of each of several holds.
struct Each {
    lines: Vec<String>,
    done: Vec<Value>,
    failed: Vec<(String, Trouble)>,
}

impl Each {
    fn new() -> Each {
        Each { lines: Vec::new(), done: Vec::new(), failed: Vec::new() }
    }

    /// One answer for all of them: the first failure speaks for the others.
    fn answer(self, field: &str) -> Result<Answer, Trouble> {
        let Each { lines, done, mut failed } = self;
        if failed.is_empty() {
            return Ok(Answer::done(lines.join("\n"), json!({ field: done })));
        }
        let others: Vec<Value> = failed
            .iter()
            .map(|(target, trouble)| json!({ "target": target, "error": trouble.json()["error"] }))
            .collect();
        let messages: Vec<String> =
            lines.into_iter().chain(failed.iter().map(|(_, one)| one.message.clone())).collect();
        let (_, mut first) = failed.swap_remove(0);
        first.message = messages.join("\n");
        Err(first.with(field, done).with("failed", others))
    }
}

pub(super) async fn release(
    desk: &mut Desk,
    wanted: &Release,
    targets: Vec<Target>,
) -> Result<Answer, Trouble> {
    let mut each = Each::new();
    for target in targets {
        match release_one(desk, &target).await {
            Ok((line, fields)) => {
                each.lines.push(line);
                each.done.push(fields);
            }
            Err(trouble) if wanted.if_held && is_not_held(&trouble) => {
                each.lines.push(format!("{target} was not yours to release"));
            }
            Err(trouble) if is_of_one(&trouble) => each.failed.push((target.to_string(), trouble)),
            Err(trouble) => return Err(trouble),
        }
    }
    each.answer("released")
}

async fn release_one(desk: &mut Desk, target: &Target) -> Result<(String, Value), Trouble> {
    let (lock, by) = own(desk, target).await?;
    let request_id = Some(desk::request_id());
    let release = lockkeeper::Release { by, lock, share: None, request_id };
    match desk.command(release).await?.map_err(|error| desk.told(&error, Wanted::Hold))? {
        lockkeeper::Answer::Released { remaining, .. } => {
            let line = match remaining {
                0 => format!("{target} is released"),
                1 => format!("{target} is still yours: it takes 1 more release"),
                n => format!("{target} is still yours: it takes {n} more releases"),
            };
            let mut fields = json!({ "lock_id": lock.to_string(), "remaining": remaining });
            if let Target::Resource(resource) = target {
                fields["resource"] = resource.as_str().into();
            }
            Ok((line, fields))
        }
        other => Err(strange(&other)),
    }
}

pub(super) async fn renew(
    desk: &mut Desk,
    wanted: &Renew,
    targets: Vec<Target>,
) -> Result<Answer, Trouble> {
    let mut each = Each::new();
    for target in targets {
        match renew_one(desk, &target, wanted.lease, wanted.shorten).await {
            Ok((line, fields)) => {
                each.lines.push(line);
                each.done.push(fields);
            }
            Err(trouble) if is_of_one(&trouble) => each.failed.push((target.to_string(), trouble)),
            Err(trouble) => return Err(trouble),
        }
    }
    each.answer("renewed")
}

pub(super) async fn renew_one(
    desk: &mut Desk,
    target: &Target,
    lease: Option<std::time::Duration>,
    shorten: bool,
) -> Result<(String, Value), Trouble> {
    let (lock, by) = own(desk, target).await?;
    let request_id = Some(desk::request_id());
    let renew = lockkeeper::Renew { by, lock, lease, shorten, request_id };
    match desk.command(renew).await?.map_err(|error| desk.told(&error, Wanted::Hold))? {
        lockkeeper::Answer::Renewed { expires_at, .. } => {
            let now = desk.now();
            let mut fields = json!({
                "lock_id": lock.to_string(),
                "expires_at": shape::moment(expires_at),
                "expires_in_ms": expires_at.since(now),
            });
            if let Target::Resource(resource) = target {
                fields["resource"] = resource.as_str().into();
            }
            Ok((kept(target, expires_at, now), fields))
        }
        other => Err(strange(&other)),
    }
}

fn kept(target: &Target, expires_at: Timestamp, now: Timestamp) -> String {
    let left = expires_at.since(now).div_ceil(1000) * 1000;
    let (span, clock) = (words::span(left), words::clock(now, expires_at));
    format!("{target} is yours for {span} from now ({clock})")
}

/// The agent's own hold of a resource, and who may end it.
pub(super) async fn own(desk: &mut Desk, target: &Target) -> Result<(LockId, Credential), Trouble> {
    let resource = match target {
        Target::Lock(lock) => return Ok((*lock, Credential::Session(desk.session().await?))),
        Target::Resource(resource) => resource,
    };
    let inspection = desk.see(Inspect { resource: resource.clone() }).await?;
    let holders = inspection.map(|inspection| inspection.holders).unwrap_or_default();
    let agent = desk.here.agent.clone();
    if !holders.iter().any(|holder| *holder.agent == *agent) {
        return Err(not_held(desk, resource, holders.first()));
    }
    let session = desk.session().await?;
    match holders.iter().find(|holder| holder.session == session) {
        Some(holder) => Ok((holder.lock, Credential::Session(session))),
        // The same agent has it through a `lockkeeper run`, or a program of its own.
        None => Err(not_held(desk, resource, holders.iter().find(|one| *one.agent == *agent))),
    }
}

/// Nobody holds it, or somebody else does.
fn not_held(desk: &Desk, resource: &Resource, holder: Option<&Holder>) -> Trouble {
    match holder {
        Some(holder) => {
            let refusal =
                Refusal::NotHolder { lock: holder.lock, holder: Some(Box::new(holder.clone())) };
            desk.told(&CallError::Refused(refusal), Wanted::Hold)
        }
        None => {
            let what = format!("{resource} is not locked, by {} or anybody", desk.here.agent);
            let mut trouble = Trouble::new(Exit::Lost, "not_holder", what).next(format!(
                "if you had it, its lease has ended or it was taken away: `lockkeeper why \
                 {resource}`"
            ));
            trouble.legacy_code = Some("E302");
            trouble
        }
    }
}

/// Whether it is only that somebody does not hold something.
fn is_not_held(trouble: &Trouble) -> bool {
    trouble.code == "not_holder"
}

/// Whether it concerns one of several, so that the others are still tried.
fn is_of_one(trouble: &Trouble) -> bool {
    matches!(trouble.exit, Exit::Lost | Exit::NotPermitted | Exit::NotObtained | Exit::Usage)
}

pub(super) async fn cleanup(desk: &mut Desk, wanted: &Cleanup) -> Result<Answer, Trouble> {
    let agent = &wanted.agent;
    let answer = desk.command(ReleaseAll { agent: agent.as_str().into() }).await?;
    match answer.map_err(|error| desk.told(&error, Wanted::Admin))? {
        lockkeeper::Answer::AllReleased { released, left } => {
            let text = match (released, left) {
                (0, 0) => format!("{agent} held nothing and waited for nothing"),
                _ => format!(
                    "{} of {agent} released, {} left",
                    words::count(released, "lock"),
                    words::count(left, "queue place")
                ),
            };
            let fields = json!({ "agent": agent, "released": released, "left": left });
            Ok(Answer::done(text, fields))
        }
        other => Err(strange(&other)),
    }
}

//! The JSON of the things answers are made of. Programs rely on it: a field that goes, or changes
//! its kind, is a breaking change. Moments are RFC 3339 in UTC; spans end in `_ms`.

use lockkeeper::{
    DeadlockReport, FailedClaim, Grant, Holder, LockMode, Obstacle, Participant, Task, Timestamp,
    Waiter, WhyNotClaimed,
};
use serde_json::{Value, json};

/// A moment; `null` for one that never comes.
pub(crate) fn moment(moment: Timestamp) -> Value {
    match moment {
        Timestamp::NEVER => Value::Null,
        moment => moment.to_string().into(),
    }
}

/// `exclusive`, `shared`, `update` or `permits`.
pub(crate) fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Shared => "shared",
        LockMode::Update => "update",
        LockMode::Exclusive => "exclusive",
        LockMode::Permit(_) => "permits",
    }
}

fn permits(mode: LockMode) -> Option<u32> {
    match mode {
        LockMode::Permit(number) => Some(number),
        _ => None,
    }
}

/// Puts a field in, if there is something to put.
fn put(object: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let (Value::Object(fields), Some(value)) = (object, value) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// What somebody has been granted: the only place where a token is told.
pub(crate) fn grant(grant: &Grant, now: Timestamp) -> Value {
    let mut object = json!({
        "resource": grant.resource.as_str(),
        "lock_id": grant.lock.to_string(),
        "token": grant.token.get(),
        "mode": mode(grant.mode),
        "expires_at": moment(grant.expires_at),
        "expires_in_ms": grant.expires_at.since(now),
        "waited_ms": grant.wait_ms,
        "count": grant.count,
    });
    put(&mut object, "permits", permits(grant.mode));
    put(&mut object, "slots", (!grant.slots.is_empty()).then(|| json!(grant.slots)));
    object
}

/// Who holds something, as others may know it.
pub(crate) fn holder(holder: &Holder, now: Timestamp) -> Value {
    let mut object = json!({
        "resource": holder.resource.as_str(),
        "lock_id": holder.lock.to_string(),
        "agent": &*holder.agent,
        "mode": mode(holder.mode),
        "acquired_at": moment(holder.acquired_at),
        "held_ms": now.since(holder.acquired_at),
        "expires_at": moment(holder.expires_at),
        "expires_in_ms": holder.expires_at.since(now),
    });
    put(&mut object, "permits", permits(holder.mode));
    put(&mut object, "reason", holder.reason.as_deref());
    put(&mut object, "metadata", holder.metadata.as_deref());
    put(&mut object, "revoked_at", holder.revoked_at.map(moment));
    object
}

/// One place in a queue. The ticket is its owner's business.
pub(crate) fn waiter(waiter: &Waiter, place: usize, now: Timestamp) -> Value {
    let mut object = json!({
        "place": place,
        "agent": &*waiter.agent,
        "mode": mode(waiter.mode),
        "upgrade": waiter.upgrade,
        "resources_in_all": waiter.batch,
        "queued_at": moment(waiter.queued_at),
        "waited_ms": now.since(waiter.queued_at),
        "wait_until": moment(waiter.wait_until),
    });
    put(&mut object, "permits", permits(waiter.mode));
    put(&mut object, "reason", waiter.reason.as_deref());
    put(&mut object, "poll_by", waiter.poll_by.map(moment));
    object
}

/// What stands in the way on one resource.
pub(crate) fn obstacle(obstacle: &Obstacle, now: Timestamp) -> Value {
    let holders: Vec<Value> = obstacle.holders.iter().map(|one| holder(one, now)).collect();
    json!({
        "resource": obstacle.resource.as_str(),
        "holders": holders,
        "held_by": obstacle.held_by,
        "waiting": obstacle.waiting,
    })
}

/// A task.
pub(crate) fn task(task: &Task) -> Value {
    json!({
        "task": task.resource.key(),
        "version": task.version,
        "state": task.status.to_string(),
    })
}

/// A task that could not be claimed, and why.
pub(crate) fn failed_claim(failed: &FailedClaim, now: Timestamp) -> Value {
    let mut object = task(&failed.task);
    match &failed.why {
        WhyNotClaimed::Held(why) => {
            put(&mut object, "why", Some("held"));
            put(&mut object, "obstacle", Some(obstacle(why, now)));
        }
        WhyNotClaimed::Done => put(&mut object, "why", Some("done")),
        WhyNotClaimed::VersionMismatch { expected } => {
            put(&mut object, "why", Some("version_mismatch"));
            put(&mut object, "expected_version", Some(*expected));
        }
        _ => put(&mut object, "why", Some("other")),
    }
    object
}

/// The story of a deadlock.
pub(crate) fn deadlock(report: &DeadlockReport) -> Value {
    let name = |session| {
        let found = report.participants.iter().find(|one| one.rank.session == session);
        found.map(|one| &*one.rank.agent)
    };
    let ring: Vec<Value> = report
        .participants
        .iter()
        .map(|one| participant(one, name(one.waits_for), one.rank.session == report.victim))
        .collect();
    let mut object = json!({
        "at": moment(report.at),
        "victim": name(report.victim),
        "requester": name(report.requester),
        "policy": report.policy,
        "ring": ring,
        "released": report.freed.len(),
    });
    put(&mut object, "resource", report.resource.as_ref().map(|resource| resource.as_str()));
    object
}

fn participant(one: &Participant, waits_for: Option<&str>, is_victim: bool) -> Value {
    let holds: Vec<Value> = one
        .holds
        .iter()
        .map(|held| {
            json!({
                "resource": held.resource.as_str(),
                "mode": mode(held.mode),
                "held_ms": held.age_ms,
            })
        })
        .collect();
    let mut object = json!({
        "agent": &*one.rank.agent,
        "waits_for": waits_for,
        "kind": one.edge.to_string(),
        "waited_ms": one.waiting_ms,
        "holds": holds,
        "priority": one.rank.priority,
        "is_victim": is_victim,
    });
    put(&mut object, "resource", one.resource.as_ref().map(|resource| resource.as_str()));
    put(&mut object, "mode", one.mode.map(mode));
    object
}

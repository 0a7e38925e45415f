//! What no decent client sends, and an administrator's rough hand.

use super::places::{Places, pick};
use lockkeeper_core::{
    Acquire, AcquireAll, AskOptions, Cancel, CancelTarget, ClaimTasks, Command, Credential,
    DeclareCapacity, DeclareWait, Downgrade, EndCause, EndSession, FinishTask, ForceUnlock,
    ForgetTask, LockId, LockMode, OpenSession, Release, ReleaseAll, ReopenTask, RequestId,
    Resource, ResourceType, Resume, SessionId, TaskClaim, TicketId, Token, Upgrade, Wait,
    WithdrawWait,
};
use rand::{Rng, rngs::SmallRng};

/// An administrator: capacities come and go, locks are forced, agents are emptied.
pub(crate) fn rough_hand(rng: &mut SmallRng, places: &Places, agents: usize) -> Command {
    match rng.random_range(0..16) {
        10..=14 => {
            let task = pick(rng, &places.tasks).clone();
            let expect_version = rng.random_bool(0.2).then(|| rng.random_range(0..4));
            ReopenTask { task, expect_version }.into()
        }
        15 => ForgetTask { task: pick(rng, &places.tasks).clone() }.into(),
        0..=6 => {
            let resource = match rng.random_bool(0.9) {
                true => pick(rng, &places.models).clone(),
                false => places.any(rng),
            };
            let capacity = match rng.random_bool(0.9) {
                true => Some(rng.random_range(1..=4)),
                false => *pick(rng, &[None, Some(0), Some(u32::MAX)]),
            };
            DeclareCapacity { resource, capacity }.into()
        }
        7..=8 => {
            let resource = places.any(rng);
            let reason = if rng.random_bool(0.1) { "x".repeat(80) } else { "stuck".to_owned() };
            ForceUnlock { resource, admin: "admin".into(), reason: reason.into() }.into()
        }
        9 if rng.random_bool(0.3) => {
            // Not the first command, and not after a rebuild: it must do no harm.
            let orphaned = rng.random_bool(0.1);
            Resume { orphaned }.into()
        }
        _ => {
            let agent = format!("agent-{}", rng.random_range(0..=agents));
            ReleaseAll { agent: agent.into() }.into()
        }
    }
}

/// Something malformed, unknown, or out of bounds, perhaps in the name of a living session.
pub(crate) fn garbage(rng: &mut SmallRng, places: &Places, sessions: &[SessionId]) -> Command {
    let session = match sessions {
        [] => SessionId::from_u64(rng.random_range(0..9)),
        known if rng.random_bool(0.8) => *pick(rng, known),
        _ => SessionId::from_u64(rng.random()),
    };
    let lock = LockId::from_u128(rng.random());
    let options = AskOptions::default();
    let request_id = None;
    match rng.random_range(0..20) {
        16 => ClaimTasks { session, claims: vec![], options }.into(),
        17 => {
            let task = places.any(rng);
            let claims = vec![TaskClaim { task, expect_version: Some(rng.random()) }];
            ClaimTasks { session, claims, options }.into()
        }
        18 => {
            let by = Credential::Session(session);
            FinishTask { by, lock, done: true, expect_version: None, request_id }.into()
        }
        19 => {
            let claims = (0..9)
                .map(|_| TaskClaim { task: pick(rng, &places.tasks).clone(), expect_version: None })
                .collect();
            ClaimTasks { session, claims, options }.into()
        }
        0 => AcquireAll { session, wants: vec![], options }.into(),
        1 => {
            let resource = pick(rng, &places.models).clone();
            let mode = LockMode::Permit(*pick(rng, &[0, 5, u32::MAX]));
            Acquire { session, resource, mode, options }.into()
        }
        2 => {
            let resource = places.any(rng);
            let mode = *pick(rng, &[LockMode::Permit(1), LockMode::Exclusive]);
            let wait = Some(std::time::Duration::ZERO);
            let options = AskOptions { wait, ..options };
            Acquire { session, resource, mode, options }.into()
        }
        3 => {
            let kind = ResourceType::from(*pick(rng, &["", "File", "a b", "ok"]));
            let key = pick(rng, &["", "line\nbreak", "x"]).repeat(70);
            let resource = Resource::new(kind, &key);
            Acquire { session, resource, mode: LockMode::Shared, options }.into()
        }
        4 => {
            let wants = (0..9).map(|_| (places.any(rng), LockMode::Shared)).collect();
            AcquireAll { session, wants, options }.into()
        }
        5 => {
            let reason = Some("why ".repeat(40).into());
            let options = AskOptions { reason, ..options };
            let resource = places.any(rng);
            Acquire { session, resource, mode: LockMode::Exclusive, options }.into()
        }
        6 => Wait { session, ticket: TicketId::from_u64(rng.random()), slice: None }.into(),
        7 => {
            let target = CancelTarget::Request(RequestId::new(rng.random_range(0..4)));
            Cancel { session, target }.into()
        }
        8 => Release { by: Credential::Session(session), lock, share: None, request_id }.into(),
        9 => {
            let by = Credential::Token(Token::from_u64(rng.random_range(0..99)));
            Release { by, lock, share: None, request_id }.into()
        }
        10 => Upgrade { session, lock, options }.into(),
        11 => Downgrade { session, lock, mode: LockMode::Permit(0), request_id }.into(),
        12 => DeclareWait { session, on: *pick(rng, &[session, SessionId::from_u64(7)]) }.into(),
        13 => WithdrawWait { session, on: session }.into(),
        14 => {
            let cause = EndCause::Closed;
            EndSession { session: SessionId::from_u64(rng.random()), cause }.into()
        }
        _ => OpenSession { agent: "n".repeat(65).into(), ..OpenSession::default() }.into(),
    }
}

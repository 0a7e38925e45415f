//! Any sequence of commands, beside the model: proptest picks them, and shrinks what fails.
#![allow(clippy::unwrap_used, reason = "a test")]

use lockkeeper_core::{
    Acquire, AcquireAll, AskOptions, Cancel, CancelTarget, ClaimTasks, Command, Credential,
    DeclareCapacity, DeclareWait, Downgrade, EndCause, EndSession, Fact, FinishTask, ForceUnlock,
    ForgetTask, Lineage, LockId, LockMode, OpenSession, Record, Release, ReleaseAll, Renew,
    ReopenTask, RequestId, Resource, Resume, SessionId, SessionKind, TaskClaim, TicketId,
    Timestamp, Token, Upgrade, Wait, WithdrawWait,
};
use lockkeeper_sim::{Bench, Policy, Rules};
use proptest::prelude::*;
use std::time::Duration;

/// A command in small numbers: which verb, who, what, how, and after how long. What they mean
/// depends on what is known by then, so that most commands hit something, also after shrinking.
type Small = (u8, u8, u8, u8, u16);

/// What was minted so far.
#[derive(Default)]
struct Known {
    sessions: Vec<SessionId>,
    tickets: Vec<(SessionId, TicketId)>,
    holds: Vec<(SessionId, LockId, Token)>,
}

impl Known {
    fn learn(&mut self, records: &[Record]) {
        for record in records {
            match &record.fact {
                Fact::SessionOpened { session, .. } => self.sessions.push(*session),
                Fact::Queued(queued) => self.tickets.push((queued.session, queued.ticket)),
                Fact::Reentered { ticket, session, .. } => self.tickets.push((*session, *ticket)),
                Fact::Granted(granted) => {
                    self.tickets.push((granted.session, granted.ticket));
                    self.holds.push((granted.session, granted.lock, granted.token));
                }
                _ => {}
            }
        }
    }

    /// Among the latest few, so that the living are hit more often than the dead.
    fn session(&self, nth: u8) -> SessionId {
        let latest = self.sessions.iter().rev().take(6).nth(usize::from(nth) % 6);
        latest.or(self.sessions.first()).copied().unwrap_or(SessionId::from_u64(1))
    }

    fn ticket(&self, nth: u8) -> (SessionId, TicketId) {
        let latest = self.tickets.iter().rev().take(8).nth(usize::from(nth) % 8);
        let any = (self.session(nth), TicketId::from_u64(u64::from(nth)));
        latest.or(self.tickets.first()).copied().unwrap_or(any)
    }

    fn hold(&self, nth: u8) -> (SessionId, LockId, Token) {
        let latest = self.holds.iter().rev().take(8).nth(usize::from(nth) % 8);
        let any =
            (self.session(nth), LockId::from_u128(u128::from(nth)), Token::from_u64(nth.into()));
        latest.or(self.holds.first()).copied().unwrap_or(any)
    }
}

fn resource(what: u8) -> Resource {
    match what % 6 {
        0 | 1 => Resource::file("a"),
        2 => Resource::file("b"),
        3 => Resource::file("c"),
        4 => Resource::llm("small"),
        _ => Resource::llm("large"),
    }
}

fn task(what: u8) -> Resource {
    match what % 16 {
        15 => Resource::file("no task"),
        what => Resource::task(["a", "b", "c"][usize::from(what) % 3]),
    }
}

fn mode(what: u8, how: u8) -> LockMode {
    if what % 6 >= 4 {
        return LockMode::Permit(u32::from(how % 3) + 1);
    }
    [LockMode::Exclusive, LockMode::Shared, LockMode::Update][usize::from(how) % 3]
}

fn options(how: u8, who: u8) -> AskOptions {
    let bit = |nth: u8| how & (1 << nth) != 0;
    AskOptions {
        wait: match (bit(2), bit(3)) {
            (false, _) => None,
            (true, false) => Some(Duration::from_millis(400)),
            (true, true) => Some(Duration::ZERO),
        },
        slice: (bit(4) && bit(5)).then_some(Duration::from_millis(u64::from(how & 3) * 30)),
        lease: bit(6).then_some(Duration::from_millis(300)),
        reentrant: bit(5),
        priority: (bit(6) && bit(4)).then_some(1),
        request_id: bit(7).then_some(RequestId::new(u128::from(who % 16))),
        fleeting: bit(0),
        ..AskOptions::default()
    }
}

fn command(known: &Known, (verb, who, what, how, _): Small) -> Command {
    let session = known.session(who);
    let request_id = (how >= 200).then_some(RequestId::new(u128::from(who % 16)));
    let (holder, lock, token) = known.hold(what);
    let by = match who % 5 {
        0 => Credential::Session(session),
        1 => Credential::Token(token),
        _ => Credential::Session(holder),
    };
    match verb % 38 {
        0..=2 => OpenSession {
            agent: ["agent-a", "agent-b", "agent-c"][usize::from(who) % 3].into(),
            kind: if how % 4 == 0 { SessionKind::Detached } else { SessionKind::Attached },
            priority: (how % 3) as i8 - 1,
            lineage: (how % 7 == 0)
                .then_some(Lineage { birth: TicketId::from_u64(what.into()), aborts: 2 }),
        }
        .into(),
        3..=11 => Acquire {
            session,
            resource: resource(what),
            mode: mode(what, how),
            options: options(how, who),
        }
        .into(),
        12..=14 => {
            let wants = (0..usize::from(how % 4))
                .map(|nth| what.wrapping_add(nth as u8))
                .map(|what| (resource(what), mode(what, how)))
                .collect();
            AcquireAll { session, wants, options: options(how, who) }.into()
        }
        32..=34 => {
            let claims = (0..usize::from(how % 4))
                .map(|nth| TaskClaim {
                    task: task(what.wrapping_add(nth as u8)),
                    expect_version: (who % 3 == 0).then_some(u64::from(how % 8)),
                })
                .collect();
            ClaimTasks { session, claims, options: options(how, who) }.into()
        }
        35..=36 => FinishTask {
            by,
            lock,
            done: how % 3 == 0,
            expect_version: (how % 4 == 0).then_some(u64::from(who % 4)),
            request_id,
        }
        .into(),
        37 => {
            let expect_version = (how % 4 == 0).then_some(u64::from(who % 4));
            match how % 5 {
                0 => ForgetTask { task: task(what) }.into(),
                _ => ReopenTask { task: task(what), expect_version }.into(),
            }
        }
        15 => {
            let (session, ticket) = known.ticket(what);
            Wait { session, ticket, slice: options(how, who).slice }.into()
        }
        16 => {
            let (session, ticket) = known.ticket(what);
            Cancel { session, target: CancelTarget::Ticket(ticket) }.into()
        }
        17 => {
            let target = CancelTarget::Request(RequestId::new(u128::from(what % 16)));
            Cancel { session, target }.into()
        }
        18..=21 => {
            let share = (how % 3 == 0).then_some(known.ticket(who).1);
            Release { by, lock, share, request_id }.into()
        }
        22 => {
            let lease = options(how, who).lease;
            Renew { by, lock, lease, shorten: how % 2 == 0, request_id }.into()
        }
        23..=24 => Upgrade { session: holder, lock, options: options(how, who) }.into(),
        25 => Downgrade { session: holder, lock, mode: mode(who, how), request_id }.into(),
        26 => DeclareWait { session, on: known.session(what) }.into(),
        27 => WithdrawWait { session, on: known.session(what) }.into(),
        28 => EndSession { session, cause: EndCause::OwnerDied }.into(),
        29 => match how % 3 {
            0 => {
                let (admin, reason) = ("admin".into(), "stuck".into());
                ForceUnlock { resource: resource(what), admin, reason }.into()
            }
            1 => ReleaseAll { agent: "agent-a".into() }.into(),
            _ if how % 5 == 0 => Resume { orphaned: who % 8 == 0 }.into(),
            _ => Command::Tick,
        },
        31 if how % 4 == 0 => Acquire {
            session,
            resource: task(what),
            mode: mode(0, how),
            options: options(how, who),
        }
        .into(),
        _ => {
            let capacity = (how % 8 != 0).then_some(u32::from(how % 4));
            DeclareCapacity { resource: resource(4 + what % 2), capacity }.into()
        }
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let few = prop::sample::select(vec![2usize, 4, 64]);
    (0..4usize, any::<bool>(), few, 1..4u32).prop_map(|(policy, grace, memory, shield_after)| {
        let mut rules = Rules {
            policy: Policy::ALL[policy],
            grace: Duration::from_millis(if grace { 100 } else { 0 }),
            ticket_grace: Duration::from_millis(150),
            session_idle: Duration::from_millis(500),
            lease_default: Duration::from_secs(2),
            shield_after,
            ..Rules::default()
        };
        rules.limits.remembered_per_session = memory;
        rules.limits.waits_per_session_max = 3;
        rules
    })
}

fn drive(rules: Rules, steps: &[Small]) -> Result<(), String> {
    let mut bench = Bench::new(rules, 7, true);
    let mut known = Known::default();
    let mut now = Timestamp(1_000);
    for (at, small) in steps.iter().enumerate() {
        let told = |broken: lockkeeper_sim::Violation| format!("step {at}: {broken}");
        now.0 += u64::from(small.4 % 64);
        if small.4 > 65_300 {
            let turn = bench.crash(now, small.0 % 2 == 0).map_err(told)?;
            known.learn(&turn.records);
        }
        let command = command(&known, *small);
        let turn = bench.apply(now, &command).map_err(|e| format!("{} in {command:?}", told(e)))?;
        known.learn(&turn.records);
    }
    Ok(())
}

fn config() -> ProptestConfig {
    // PROPTEST_CASES asks for more.
    let cases = ProptestConfig::default().cases.max(400);
    ProptestConfig { cases, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_keeps_every_promise(
        rules in rules(),
        steps in prop::collection::vec(any::<Small>(), 1..160),
    ) {
        if let Err(broken) = drive(rules, &steps) {
            return Err(TestCaseError::fail(broken));
        }
    }

    #[test]
    fn garbage_is_refused_and_breaks_nothing(
        steps in prop::collection::vec((any::<Small>(), any::<[u64; 3]>(), ".{0,40}"), 1..80),
    ) {
        let mut bench = Bench::new(Rules::default(), 7, true);
        let mut known = Known::default();
        for (at, (small, raw, text)) in steps.iter().enumerate() {
            let command = garbage(&known, *small, *raw, text);
            // Moments from the whole range of time.
            let now = Timestamp(if small.4 % 9 == 0 { raw[0] } else { at as u64 });
            match bench.apply(now, &command) {
                Ok(turn) => known.learn(&turn.records),
                Err(broken) => {
                    let what = format!("step {at}: {broken} in {command:?}");
                    return Err(TestCaseError::fail(what));
                }
            }
        }
    }
}

/// A command with numbers and texts from anywhere, now and then with a living session's.
fn garbage(known: &Known, small: Small, raw: [u64; 3], text: &str) -> Command {
    let (verb, who, what, how, _) = small;
    if who % 4 == 0 {
        return command(known, small);
    }
    let session = match who % 4 {
        1 => SessionId::from_u64(raw[0]),
        _ => known.session(who),
    };
    let lock = LockId::from_u128(u128::from(raw[1]) << 64 | u128::from(raw[2]));
    let ticket = TicketId::from_u64(raw[1]);
    let token = Token::from_u64(raw[2]);
    let by = if how % 2 == 0 { Credential::Session(session) } else { Credential::Token(token) };
    let resource = || Resource::new(text.into(), &text.repeat(usize::from(what % 3)));
    let modes =
        [LockMode::Permit(raw[0] as u32), LockMode::Update, LockMode::Permit(0), LockMode::Shared];
    let mode = modes[usize::from(how) % 4];
    let span = Some(Duration::new(raw[0], 999_999_999));
    let request_id = Some(RequestId::new(u128::from(how % 4)));
    let options = AskOptions {
        wait: span,
        slice: span,
        lease: span,
        reason: Some(text.into()),
        metadata: Some(text.into()),
        priority: Some(how as i8),
        reentrant: how % 3 == 0,
        request_id,
        fleeting: how.is_multiple_of(2),
    };
    match verb % 16 {
        0 => OpenSession {
            agent: text.into(),
            priority: how as i8,
            lineage: Some(Lineage { birth: ticket, aborts: u32::MAX }),
            ..OpenSession::default()
        }
        .into(),
        1 => EndSession { session, cause: EndCause::Idle }.into(),
        2 | 3 => Acquire { session, resource: resource(), mode, options }.into(),
        4 => {
            let wants = vec![(resource(), mode); usize::from(how % 3)];
            AcquireAll { session, wants, options }.into()
        }
        5 => Wait { session, ticket, slice: span }.into(),
        6 => Cancel { session, target: CancelTarget::Ticket(ticket) }.into(),
        7 => Release { by, lock, share: None, request_id }.into(),
        8 => Renew { by, lock, lease: span, shorten: how % 2 == 0, request_id }.into(),
        9 => Upgrade { session, lock, options }.into(),
        10 => Downgrade { session, lock, mode, request_id }.into(),
        11 => DeclareWait { session, on: SessionId::from_u64(raw[1]) }.into(),
        12 => WithdrawWait { session, on: session }.into(),
        13 => ForceUnlock { resource: resource(), admin: text.into(), reason: text.into() }.into(),
        14 => ReleaseAll { agent: text.into() }.into(),
        _ => DeclareCapacity { resource: resource(), capacity: Some(raw[1] as u32) }.into(),
    }
}

//! Numbers at the edge of what a number can be, in every field that takes one. They may be refused;
//! they may not bring a project down. The journal fails when its disk does, and for nothing else.

use crate::support::{Bench, DEMO, until};
use lockkeeper::{
    Acquire, Answer, AskOptions, CallError, Cancel, CancelTarget, ClaimTasks, Command, Credential,
    DeclareCapacity, DeclareWait, Downgrade, EndCause, EndSession, FinishTask, ForceUnlock,
    Lineage, LockId, LockMode, OpenSession, Refusal, Release, ReleaseAll, Renew, ReopenTask,
    RequestId, Resource, SessionId, SessionKind, TaskClaim, TicketId, Token, Upgrade, Wait,
    WithdrawWait,
};
use proptest::{prelude::*, test_runner::TestCaseResult};
use std::{sync::Arc, time::Duration};

/// What, and two numbers for whatever it takes.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    which: u8,
    one: u64,
    other: u64,
}

fn number() -> impl Strategy<Value = u64> {
    let edges = vec![
        0,
        1,
        u64::from(u32::MAX),
        // The last number of the next reign.
        (2 << 32) | u64::from(u32::MAX),
        (1 << 53) - 1,
        1 << 53,
        i64::MAX as u64,
        i64::MAX as u64 + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![4 => prop::sample::select(edges), 1 => any::<u64>()]
}

fn step() -> impl Strategy<Value = Step> {
    let parts = (any::<u8>(), any::<u8>(), number(), number());
    parts.prop_map(|(what, which, one, other)| Step { what, which, one, other })
}

#[derive(Default)]
struct Known {
    sessions: Vec<SessionId>,
    locks: Vec<LockId>,
    tickets: Vec<TicketId>,
}

impl Known {
    fn pick<T: Copy>(known: &[T], which: u8, or: T) -> T {
        match known.len() {
            0 => or,
            length => known.get(usize::from(which) % (length + 1)).copied().unwrap_or(or),
        }
    }

    fn command(&self, Step { what, which, one, other }: Step) -> Command {
        let session = Known::pick(&self.sessions, which, SessionId::from_u64(one));
        let on = Known::pick(&self.sessions, which / 3, SessionId::from_u64(other));
        let lock = LockId::from_u128(u128::from(one) << 64 | u128::from(other));
        let lock = Known::pick(&self.locks, which / 2, lock);
        let ticket = Known::pick(&self.tickets, which / 5, TicketId::from_u64(other));
        let request = RequestId::new(u128::from(one) << 64 | u128::from(other));
        let request_id = which.is_multiple_of(3).then_some(request);
        let text: Option<Arc<str>> = which.is_multiple_of(4).then(|| "\0\u{7f}\u{10ffff}".into());
        let priority = which.is_multiple_of(2).then_some(which as i8);
        let options = AskOptions {
            wait: Some(Duration::from_millis(one)),
            // Nobody moves the time: a call that waits ends with its session.
            slice: which.is_multiple_of(2).then_some(Duration::from_millis(other)),
            lease: Some(Duration::from_millis(other)),
            reason: text.clone(),
            metadata: text.clone(),
            priority,
            reentrant: which.is_multiple_of(5),
            request_id,
            fleeting: false,
        };
        let by = match which % 7 {
            0 => Credential::Token(Token::from_u64(one)),
            _ => Credential::Session(session),
        };
        let name = |at: u8| ["file:a", "llm:b", "file:c"][usize::from(at) % 3].parse().unwrap();
        let resource: Resource = name(which);
        let task = Resource::task(["a", "b"][usize::from(which) % 2]);
        let expect_version = which.is_multiple_of(3).then_some(other);
        let mode = match which % 4 {
            0 => LockMode::Shared,
            1 => LockMode::Update,
            2 => LockMode::Exclusive,
            _ => LockMode::Permit(one as u32),
        };
        match what % 18 {
            0 | 1 => OpenSession {
                agent: text.unwrap_or_else(|| "a".into()),
                kind: [SessionKind::Attached, SessionKind::Detached][usize::from(which) % 2],
                priority: which as i8,
                lineage: Some(Lineage { birth: TicketId::from_u64(one), aborts: other as u32 }),
            }
            .into(),
            2..=5 => Acquire { session, resource, mode, options }.into(),
            6 => Wait { session, ticket, slice: Some(Duration::from_millis(one)) }.into(),
            7 => Cancel {
                session,
                target: match which % 2 {
                    0 => CancelTarget::Ticket(ticket),
                    _ => CancelTarget::Request(request),
                },
            }
            .into(),
            8 => {
                let share = which.is_multiple_of(2).then_some(ticket);
                Release { by, lock, share, request_id }.into()
            }
            9 => {
                let (lease, shorten) = (options.lease, which.is_multiple_of(2));
                Renew { by, lock, lease, shorten, request_id }.into()
            }
            10 => Upgrade { session, lock, options }.into(),
            11 => Downgrade { session, lock, mode, request_id }.into(),
            12 if which.is_multiple_of(2) => DeclareWait { session, on }.into(),
            12 => WithdrawWait { session, on }.into(),
            13 => DeclareCapacity { resource, capacity: Some(one as u32) }.into(),
            14 => {
                let claims = vec![TaskClaim { task, expect_version }];
                ClaimTasks { session, claims, options }.into()
            }
            15 => {
                let done = which.is_multiple_of(2);
                FinishTask { by, lock, done, expect_version, request_id }.into()
            }
            16 => ReopenTask { task, expect_version }.into(),
            _ if which.is_multiple_of(2) => {
                ForceUnlock { resource, admin: "\0".into(), reason: "".into() }.into()
            }
            _ => ReleaseAll { agent: "a".into() }.into(),
        }
    }

    fn learn(&mut self, answer: &Answer) {
        match answer {
            Answer::SessionOpened { session } => self.sessions.push(*session),
            Answer::Granted(grants) => {
                self.locks.extend(grants.iter().map(|grant| grant.lock));
                self.tickets.extend(grants.iter().map(|grant| grant.ticket));
            }
            Answer::TasksClaimed(claimed) => {
                self.locks.extend(claimed.iter().map(|one| one.grant.lock));
            }
            Answer::Queued { ticket, .. } => self.tickets.push(*ticket),
            _ => {}
        }
    }
}

/// Refused is fine; out of order is not.
fn judge(step: Step, outcome: &Result<Answer, CallError>) -> TestCaseResult {
    let is_fine = match outcome {
        Ok(_) => true,
        Err(CallError::Refused(refusal)) => !matches!(refusal, Refusal::Exhausted),
        Err(CallError::Unavailable(_)) => false,
    };
    prop_assert!(is_fine, "{step:?}: {outcome:?}");
    Ok(())
}

async fn play(steps: Vec<Step>) -> TestCaseResult {
    let bench = Bench::file().await.still();
    let demo = bench.demo().await;
    let mut known = Known::default();
    let mut waiting = Vec::new();
    for step in steps {
        let (command, demo) = (known.command(step), demo.clone());
        let call = tokio::spawn(async move { demo.command(command).await });
        bench.settle().await;
        match call.is_finished() {
            true => {
                let outcome = call.await.unwrap();
                judge(step, &outcome)?;
                outcome.iter().for_each(|answer| known.learn(answer));
            }
            false => waiting.push((step, call)),
        }
    }
    // What was written is read again as it was, and goes on.
    let list = bench.list().await;
    demo.actor().unwrap().kill();
    until("it serves", async || demo.stats().await.is_ok()).await;
    let again = bench.list().await;
    let locks = |list: &[lockkeeper::Holder]| list.iter().map(|it| it.lock).collect::<Vec<_>>();
    prop_assert_eq!(locks(&list), locks(&again));
    prop_assert_eq!(bench.replayed(DEMO).list(), again, "I15");
    for &session in &known.sessions {
        let open = Step { what: 255, which: 0, one: session.get(), other: 0 };
        let ask = Acquire {
            session,
            resource: Resource::file("last"),
            mode: LockMode::Shared,
            options: AskOptions::default(),
        };
        judge(open, &demo.command(ask).await)?;
        let end = EndSession { session, cause: EndCause::Closed };
        judge(open, &demo.command(end).await)?;
    }
    for (step, call) in waiting {
        // Sent again after the restart, without a request id, it may meet itself.
        judge(step, &call.await.unwrap())?;
    }
    drop(demo);
    bench.close_empty().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    /// I15.
    #[test]
    fn no_number_brings_a_project_down(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(steps))?;
    }
}

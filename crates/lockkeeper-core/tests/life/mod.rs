//! A made-up life of a table: every number steers something, and most of it is legal.

use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, Cancel, CancelTarget, ClaimTasks, Command, Credential,
    DeclareCapacity, DeclareWait, Downgrade, EndCause, EndSession, FinishTask, ForgetTask, LockId,
    LockMode, OpenSession, Release, ReopenTask, Reply, RequestId, Resource, SessionId, SessionKind,
    TaskClaim, TicketId, Upgrade, WithdrawWait,
};
use proptest::prelude::*;
use std::time::Duration;

const NAMES: [&str; 8] =
    ["file:a", "file:b", "llm:c", "llm:d", "file:e", "file:f", "file:g", "task:a"];

/// What the agents of a life know.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) now: u64,
    /// How much less time than usual passes from step to step.
    pub(crate) patience: u64,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) locks: Vec<LockId>,
    pub(crate) tickets: Vec<TicketId>,
    /// Whether some of them make request ids up that they will not ask by again. Whoever asks again
    /// after all, of a table that a store gave back, is told something else.
    pub(crate) is_fleeting: bool,
}

/// What, who, which.
pub(crate) type Step = (u8, u8, u8);

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 1..most)
}

impl Known {
    /// The next command; time goes on a little.
    pub(crate) fn command(&mut self, (what, who, which): Step) -> Command {
        self.now += u64::from(which) * 7 / (1 + self.patience);
        let session = |at: u8| {
            let at = usize::from(at) % self.sessions.len().max(1);
            self.sessions.get(at).copied().unwrap_or(SessionId::from_u64(0))
        };
        let lock = self.locks.get(usize::from(which) % self.locks.len().max(1)).copied();
        let lock = lock.unwrap_or(LockId::from_u128(0));
        let name = |at: u8| NAMES[usize::from(at) % 8].parse::<Resource>().expect("well formed");
        let mode = |at: u8| match at % 4 {
            0 => LockMode::Shared,
            1 => LockMode::Update,
            2 => LockMode::Exclusive,
            _ => LockMode::Permit(1 + u32::from(at) % 2),
        };
        let options = AskOptions {
            lease: Some(Duration::from_millis(u64::from(who) * 40)),
            slice: who.is_multiple_of(7).then_some(Duration::from_millis(5)),
            reentrant: who.is_multiple_of(3),
            request_id: who.is_multiple_of(2).then_some(RequestId::new(u128::from(which))),
            fleeting: self.is_fleeting && who.is_multiple_of(4),
            ..AskOptions::default()
        };
        let (me, other) = (session(who), session(which));
        let task = |at: u8| Resource::task(["a", "b", "c"][usize::from(at) % 3]);
        match what % 18 {
            0 | 1 => {
                let kind = match who.is_multiple_of(5) {
                    true => SessionKind::Detached,
                    false => SessionKind::Attached,
                };
                OpenSession { agent: "a".into(), kind, ..Default::default() }.into()
            }
            2..=4 => {
                let (resource, mode) = (name(which), mode(which / 8));
                Acquire { session: me, resource, mode, options }.into()
            }
            5 => {
                let wants = vec![(name(which), mode(who)), (name(which / 4), mode(which))];
                AcquireAll { session: me, wants, options }.into()
            }
            6 => {
                let share = self.tickets.get(usize::from(who) % self.tickets.len().max(1)).copied();
                let share = share.filter(|_| which.is_multiple_of(3));
                Release { by: Credential::Session(me), lock, share, request_id: None }.into()
            }
            7 => Upgrade { session: me, lock, options }.into(),
            8 => Downgrade { session: me, lock, mode: mode(which), request_id: None }.into(),
            9 => DeclareWait { session: me, on: other }.into(),
            10 => DeclareCapacity {
                resource: name(2 + which % 2),
                capacity: (!which.is_multiple_of(5)).then_some(u32::from(which) % 5),
            }
            .into(),
            11 => WithdrawWait { session: me, on: other }.into(),
            12 => {
                let target = CancelTarget::Request(RequestId::new(u128::from(which)));
                Cancel { session: me, target }.into()
            }
            14 => {
                let expect_version = who.is_multiple_of(3).then_some(u64::from(which) % 3);
                let claims =
                    [which, which / 4].map(|at| TaskClaim { task: task(at), expect_version });
                ClaimTasks { session: me, claims: claims.to_vec(), options }.into()
            }
            15 => FinishTask {
                by: Credential::Session(me),
                lock,
                done: which.is_multiple_of(2),
                expect_version: None,
                request_id: options.request_id,
            }
            .into(),
            16 if which.is_multiple_of(3) => ForgetTask { task: task(who) }.into(),
            16 => ReopenTask { task: task(who), expect_version: None }.into(),
            _ => EndSession { session: me, cause: EndCause::OwnerDied }.into(),
        }
    }

    /// What the replies of a turn tell the agents.
    pub(crate) fn learn(&mut self, replies: &[Reply]) {
        for reply in replies {
            match &reply.outcome {
                Ok(Answer::SessionOpened { session }) => self.sessions.push(*session),
                Ok(Answer::Granted(grants)) => {
                    self.locks.extend(grants.iter().map(|grant| grant.lock));
                    self.tickets.extend(grants.iter().map(|grant| grant.ticket));
                }
                Ok(Answer::TasksClaimed(claimed)) => {
                    self.locks.extend(claimed.iter().map(|one| one.grant.lock));
                    self.tickets.extend(claimed.iter().map(|one| one.grant.ticket));
                }
                _ => {}
            }
        }
    }
}

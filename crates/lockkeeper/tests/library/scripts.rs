//! Random scripts of several sessions, in which what is on record is judged by a second opinion.

use crate::support::{Bench, DEMO, both, file, millis, poll_once};
use lockkeeper::{
    AcquireError, Fact, LockGuard, LockId, LockMode, Record, RequestFuture, Resource, Session,
};
use proptest::{prelude::*, test_runner::TestCaseResult};
use std::{collections::BTreeMap, future::IntoFuture, pin::pin};

const AGENTS: usize = 4;
const FILES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Ask { who: usize, what: usize, mode: LockMode, wait: u64, lease: u64, reentrant: bool },
    AskAll { who: usize, mode: LockMode },
    Release(usize),
    Drop(usize),
    Renew(usize, u64),
    Upgrade(usize),
    Downgrade(usize),
    Cancel(usize),
    Pass(u64),
    End(usize),
    Force(usize),
    ReleaseAll(usize),
}

fn mode() -> impl Strategy<Value = LockMode> {
    prop_oneof![
        3 => Just(LockMode::Exclusive),
        2 => Just(LockMode::Shared),
        1 => Just(LockMode::Update),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (0..AGENTS, 0..FILES, mode(), 0..3u64, 1..30u64, any::<bool>());
    prop_oneof![
        10 => ask.prop_map(|(who, what, mode, wait, lease, reentrant)| {
            Step::Ask { who, what, mode, wait: wait * 8_000, lease: lease * 1_000, reentrant }
        }),
        2 => (0..AGENTS, mode()).prop_map(|(who, mode)| Step::AskAll { who, mode }),
        4 => (0..8usize).prop_map(Step::Release),
        2 => (0..8usize).prop_map(Step::Drop),
        2 => (0..8usize, 1..60u64).prop_map(|(n, lease)| Step::Renew(n, lease * 1_000)),
        2 => (0..8usize).prop_map(Step::Upgrade),
        1 => (0..8usize).prop_map(Step::Downgrade),
        2 => (0..8usize).prop_map(Step::Cancel),
        4 => (1..20_000u64).prop_map(Step::Pass),
        1 => (0..AGENTS).prop_map(Step::End),
        1 => (0..FILES).prop_map(Step::Force),
        1 => (0..AGENTS).prop_map(Step::ReleaseAll),
    ]
}

/// The world a script plays in.
struct Play {
    bench: Bench,
    sessions: Vec<Session>,
    guards: Vec<LockGuard>,
    waiting: Vec<RequestFuture<'static, LockGuard, AcquireError>>,
}

fn name(what: usize) -> Resource {
    file(&format!("{what}"))
}

impl Play {
    async fn begin() -> Play {
        let bench = Bench::file().await.still();
        let mut sessions = Vec::new();
        for n in 0..AGENTS {
            sessions.push(bench.session(&format!("agent-{n}")).await);
        }
        Play { bench, sessions, guards: Vec::new(), waiting: Vec::new() }
    }

    fn pick(&self, at: usize) -> Option<usize> {
        (!self.guards.is_empty()).then(|| at % self.guards.len())
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Ask { who, what, mode, wait, lease, reentrant } => {
                let ask = self.sessions[who].acquire(name(what)).mode(mode).wait(millis(wait));
                let ask = ask.lease(millis(lease));
                let ask = if reentrant { ask.reentrant() } else { ask };
                self.waiting.push(ask.into_future());
            }
            Step::AskAll { who, mode } => {
                let wants = (0..FILES).map(|what| (name(what), mode));
                let all = self.sessions[who].acquire_each(wants).no_wait().reentrant().await;
                self.guards.extend(all.into_iter().flatten());
            }
            Step::Release(at) => {
                if let Some(at) = self.pick(at) {
                    let _ = self.guards.swap_remove(at).release().await;
                }
            }
            Step::Drop(at) => {
                if let Some(at) = self.pick(at) {
                    drop(self.guards.swap_remove(at));
                }
            }
            Step::Renew(at, lease) => {
                if let Some(at) = self.pick(at) {
                    let _ = self.guards[at].renew(millis(lease)).await;
                }
            }
            Step::Upgrade(at) => {
                if let Some(at) = self.pick(at) {
                    let _ = self.guards[at].upgrade().no_wait().await;
                }
            }
            Step::Downgrade(at) => {
                if let Some(at) = self.pick(at) {
                    let _ = self.guards[at].downgrade(LockMode::Shared).await;
                }
            }
            Step::Cancel(at) => {
                if !self.waiting.is_empty() {
                    let at = at % self.waiting.len();
                    drop(self.waiting.swap_remove(at));
                }
            }
            Step::Pass(span) => self.bench.pass(millis(span)).await,
            Step::End(who) => {
                let again = self.bench.session(&format!("agent-{who}")).await;
                let _ = std::mem::replace(&mut self.sessions[who], again).close().await;
            }
            Step::Force(what) => {
                let _ = self.bench.demo().await.force_unlock(name(what), "admin", "script").await;
            }
            Step::ReleaseAll(who) => {
                let agent = format!("agent-{who}");
                self.bench.demo().await.release_all(&agent).await.unwrap();
            }
        }
        self.poll().await;
    }

    /// Sees what has become of the waits.
    async fn poll(&mut self) {
        let mut still = Vec::new();
        for mut request in std::mem::take(&mut self.waiting) {
            match poll_once(pin!(&mut request)).await {
                None => still.push(request),
                Some(Ok(guard)) => self.guards.push(guard),
                Some(Err(_)) => {}
            }
        }
        self.waiting = still;
        self.bench.settle().await;
    }

    /// A valid guard is one that the coordinator knows, with the same mode, and never for longer.
    async fn check(&self) -> TestCaseResult {
        let list = self.bench.list().await;
        for guard in self.guards.iter().filter(|guard| guard.is_valid()) {
            let hold = list.iter().find(|holder| holder.lock == guard.id());
            prop_assert!(hold.is_some(), "{:?} is not held", guard);
            let hold = hold.unwrap();
            prop_assert_eq!(hold.mode, guard.mode());
            prop_assert!(guard.expires_at() <= hold.expires_at, "I14");
        }
        prop_assert_eq!(self.bench.replayed(DEMO).list(), list, "I15");
        Ok(())
    }
}

/// Reads the record with nothing but the matrix of modes in mind.
fn judge(history: &[Record]) -> TestCaseResult {
    let mut live: BTreeMap<LockId, (Resource, LockMode, u64)> = BTreeMap::new();
    let mut newest: BTreeMap<Resource, (u64, u64)> = BTreeMap::new();
    let fits = |live: &BTreeMap<LockId, (Resource, LockMode, u64)>, lock: LockId| {
        let (resource, mode, _) = &live[&lock];
        live.iter().all(|(other, (at, held, _))| {
            *other == lock || at != resource || !held.conflicts_with(*mode)
        })
    };
    for record in history {
        let came = match &record.fact {
            Fact::Granted(grant) => {
                let hold = (grant.resource.clone(), grant.mode, grant.token.get());
                prop_assert!(live.insert(grant.lock, hold).is_none());
                Some(grant.lock)
            }
            Fact::Converted { lock, mode, token, .. } => {
                let hold = live.get_mut(lock).expect("it is held");
                (hold.1, hold.2) = (*mode, token.get());
                Some(*lock)
            }
            Fact::Released { lock, remaining: 0, .. } => {
                prop_assert!(live.remove(lock).is_some(), "released twice");
                None
            }
            _ => None,
        };
        let Some(lock) = came else { continue };
        prop_assert!(fits(&live, lock), "I1: {:?} beside another one", record);
        let (resource, mode, token) = live[&lock].clone();
        let (any, alone) = newest.entry(resource).or_default();
        let is_granted = matches!(record.fact, Fact::Granted(_));
        match mode {
            LockMode::Exclusive if is_granted => {
                prop_assert!(token > *any, "I2: {:?}", record);
            }
            _ if is_granted => prop_assert!(token > *alone, "I2: {:?}", record),
            _ => {}
        }
        *any = token.max(*any);
        if mode == LockMode::Exclusive {
            *alone = token.max(*alone);
        }
    }
    Ok(())
}

async fn play(steps: Vec<Step>) -> TestCaseResult {
    let mut play = Play::begin().await;
    for step in steps {
        play.step(step).await;
        play.check().await?;
    }
    judge(&play.bench.history(DEMO))?;
    let Play { bench, sessions, guards, waiting } = play;
    drop((waiting, guards, sessions));
    bench.settle().await;
    judge(&bench.history(DEMO))?;
    bench.close_empty().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    /// I1, I2, I5, I13, I14, I15, I18.
    #[test]
    fn what_is_on_record_is_true(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(steps))?;
    }
}

both!(still: a_script_that_is_known);

/// One script that goes through every kind of step, so that it is played on each run.
async fn a_script_that_is_known(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let mut first = a.acquire(name(0)).mode(LockMode::Update).await.unwrap();
    let second = b.acquire(name(0)).shared().await.unwrap();
    first.upgrade().no_wait().await.unwrap_err();
    drop(second);
    first.upgrade().await.unwrap();
    first.downgrade(LockMode::Shared).await.unwrap();
    let third = b.acquire(name(0)).shared().await.unwrap();
    bench.demo().await.force_unlock(name(0), "admin", "script").await.unwrap();
    assert!(!first.is_valid() && !third.is_valid());
    drop((first, third, a, b));
    if bench.is_on_file() {
        judge(&bench.history(DEMO)).unwrap();
    }
    bench.close_empty().await;
}

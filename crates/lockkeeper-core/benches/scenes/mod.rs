//! The scenes that the benchmarks play: tables brought into a state, and one step to measure.

use lockkeeper_core::{
    Acquire, Answer, AskOptions, Cancel, CancelTarget, Command, Credential, Effects, Forgetful,
    Ledger, LockId, LockMode, LockTable, OpenSession, Refusal, Reign, Release, RequestId, Resource,
    SessionId, Settled, TableConfig, Timestamp,
};
use std::{collections::VecDeque, time::Duration};

/// A table and its clock.
pub(crate) struct Scene {
    pub(crate) table: LockTable,
    ledger: Ledger<Forgetful>,
    now: Timestamp,
    requests: u128,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let mut config = TableConfig::default();
        config.limits.queue_length_max = usize::MAX;
        config.limits.sessions_max = usize::MAX;
        config.limits.holds_per_session_max = usize::MAX;
        Scene {
            table: LockTable::new(config, Reign::first(1)),
            ledger: Ledger::new(Forgetful),
            now: Timestamp(1),
            requests: 0,
        }
    }

    pub(crate) fn apply(&mut self, command: impl Into<Command>) -> Settled {
        let effects: Effects = self.table.apply(self.now, command);
        effects.settle(&mut self.ledger).expect("settled in order")
    }

    pub(crate) fn open(&mut self) -> SessionId {
        let settled = self.apply(OpenSession { agent: "agent".into(), ..Default::default() });
        match settled.replies()[0].outcome {
            Ok(Answer::SessionOpened { session }) => session,
            ref other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, session: SessionId, resource: &Resource) -> Option<LockId> {
        let options = AskOptions { wait: Some(Duration::from_secs(3600)), ..Default::default() };
        self.ask_with(session, resource, options)
    }

    fn ask_with(
        &mut self,
        session: SessionId,
        resource: &Resource,
        options: AskOptions,
    ) -> Option<LockId> {
        let mode = LockMode::Exclusive;
        let ask = Acquire { session, resource: resource.clone(), mode, options };
        let settled = self.apply(ask);
        match settled.replies().last().map(|reply| &reply.outcome) {
            Some(Ok(Answer::Granted(grants))) => Some(grants[0].lock),
            _ => None,
        }
    }

    /// Gives a hold back; the hold that somebody else got for it in the same turn.
    pub(crate) fn release(&mut self, session: SessionId, lock: LockId) -> Option<LockId> {
        let by = Credential::Session(session);
        let settled = self.apply(Release { by, lock, share: None, request_id: None });
        settled.replies().iter().find_map(|reply| match &reply.outcome {
            Ok(Answer::Granted(grants)) => Some(grants[0].lock),
            _ => None,
        })
    }

    /// Asks, waits, and gives up again: one deadlock check that finds nothing.
    pub(crate) fn ask_and_cancel(&mut self, session: SessionId, resource: &Resource) {
        assert!(self.waits_in_vain(session, resource));
    }

    /// The same; whether it did wait.
    fn waits_in_vain(&mut self, session: SessionId, resource: &Resource) -> bool {
        self.requests += 1;
        let request = RequestId::new(self.requests);
        let options = AskOptions {
            wait: Some(Duration::from_secs(3600)),
            request_id: Some(request),
            ..Default::default()
        };
        let granted = self.ask_with(session, resource, options);
        let target = CancelTarget::Request(request);
        let settled = self.apply(Cancel { session, target });
        let cancelled = settled
            .replies()
            .iter()
            .any(|reply| matches!(reply.outcome, Ok(Answer::Cancelled { was_waiting: true, .. })));
        granted.is_none() && cancelled
    }
}

/// One resource, one holder, and so many writers waiting: each step hands over and queues again.
pub(crate) struct HandOver {
    scene: Scene,
    resource: Resource,
    holder: (SessionId, LockId),
    waiting: VecDeque<SessionId>,
}

impl HandOver {
    pub(crate) fn new(waiters: usize) -> HandOver {
        let mut scene = Scene::new();
        let resource = Resource::file("hot");
        let session = scene.open();
        let lock = scene.ask(session, &resource).expect("free");
        let waiting: VecDeque<SessionId> = (0..waiters).map(|_| scene.open()).collect();
        for &waiter in &waiting {
            assert!(scene.ask(waiter, &resource).is_none());
        }
        HandOver { scene, resource, holder: (session, lock), waiting }
    }

    pub(crate) fn step(&mut self) {
        let (last, lock) = self.holder;
        let next = self.waiting.pop_front().expect("somebody waits");
        let granted = self.scene.release(last, lock).expect("handed over");
        self.holder = (next, granted);
        assert!(self.scene.ask(last, &self.resource).is_none());
        self.waiting.push_back(last);
    }
}

/// A shape of waits, and a session whose request is checked against it.
pub(crate) struct Check {
    scene: Scene,
    asker: SessionId,
    wanted: Resource,
}

impl Check {
    pub(crate) fn step(&mut self) {
        self.scene.ask_and_cancel(self.asker, &self.wanted);
    }

    /// A chain of waits, each agent for the next; the asker joins at its end and nobody waits for
    /// it: it takes the O(1) way out, whatever the length.
    pub(crate) fn nobody_waits_for_the_asker(length: usize) -> Check {
        let (mut scene, first) = chain(length, "ahead");
        let asker = scene.open();
        scene.ask(asker, &Resource::file("asker")).expect("free");
        Check { scene, asker, wanted: first }
    }

    /// The asker in the middle: half of the agents wait, one behind the other, for the asker, and
    /// it asks for what the first of the other half holds. This is the worst that a chain can do:
    /// neither way from the asker is short.
    pub(crate) fn chain(length: usize) -> Check {
        let (mut scene, first) = chain(length.div_ceil(2), "ahead");
        let asker = scene.open();
        let own = Resource::file("asker");
        scene.ask(asker, &own).expect("free");
        let mut behind = own;
        for n in 0..length / 2 {
            let follower = scene.open();
            let next = Resource::file(&format!("behind{n}"));
            scene.ask(follower, &next).expect("free");
            assert!(scene.ask(follower, &behind).is_none());
            behind = next;
        }
        Check { scene, asker, wanted: first }
    }

    /// Every agent holds something, and six of ten wait for one to three others that come after
    /// them. The asker is one of those who run, in the middle, so that many wait for it and it
    /// comes to wait for many: neither way from it is short.
    pub(crate) fn random(agents: usize) -> Check {
        let mut scene = Scene::new();
        let sessions: Vec<SessionId> = (0..agents).map(|_| scene.open()).collect();
        let own: Vec<Resource> = (0..agents).map(|n| Resource::file(&format!("r{n}"))).collect();
        for (session, resource) in sessions.iter().zip(&own) {
            scene.ask(*session, resource).expect("free");
        }
        let mut random = Random(agents as u64 + 1);
        let middle = agents / 2;
        for at in (0..agents).filter(|&at| at != middle) {
            if random.below(10) < 4 {
                continue;
            }
            let span = (agents - at - 1) as u64;
            for _ in 0..(1 + random.below(3)).min(span) {
                let target = at + 1 + random.below(span) as usize;
                scene.ask(sessions[at], &own[target]);
            }
        }
        // Queues add edges of their own, so not every wait is harmless: take one that is.
        let asker = sessions[middle];
        let is_harmless = |resource: &&Resource| scene.waits_in_vain(asker, resource);
        let wanted = own[middle + 1..].iter().rev().find(is_harmless);
        let wanted = wanted.expect("some wait closes no cycle").clone();
        Check { scene, asker, wanted }
    }

    /// Everybody waits for one agent, each for another of its resources; that agent asks.
    pub(crate) fn hub(agents: usize) -> Check {
        let mut scene = Scene::new();
        let hub = scene.open();
        for n in 0..agents {
            let resource = Resource::file(&format!("h{n}"));
            scene.ask(hub, &resource).expect("free");
            let waiter = scene.open();
            assert!(scene.ask(waiter, &resource).is_none());
        }
        let runner = scene.open();
        let wanted = Resource::file("wanted");
        scene.ask(runner, &wanted).expect("free");
        Check { scene, asker: hub, wanted }
    }
}

/// So many agents, each waiting for the next; and the first one's resource.
fn chain(length: usize, name: &str) -> (Scene, Resource) {
    let mut scene = Scene::new();
    let resources: Vec<Resource> =
        (0..length).map(|n| Resource::file(&format!("{name}{n}"))).collect();
    let sessions: Vec<SessionId> = (0..length).map(|_| scene.open()).collect();
    for (session, resource) in sessions.iter().zip(&resources) {
        scene.ask(*session, resource).expect("free");
    }
    for (session, next) in sessions.iter().zip(&resources[1..]) {
        assert!(scene.ask(*session, next).is_none());
    }
    (scene, resources[0].clone())
}

/// A ring but for one request: the step closes it, which finds the cycle, picks a victim and hands
/// over; then everybody lets go of everything and the ring is built again, unmeasured.
pub(crate) struct Ring {
    scene: Scene,
    sessions: Vec<SessionId>,
    resources: Vec<Resource>,
}

impl Ring {
    pub(crate) fn new(length: usize) -> Ring {
        let mut scene = Scene::new();
        let sessions: Vec<SessionId> = (0..length).map(|_| scene.open()).collect();
        let resources: Vec<Resource> =
            (0..length).map(|n| Resource::file(&format!("r{n}"))).collect();
        for (session, resource) in sessions.iter().zip(&resources) {
            scene.ask(*session, resource).expect("free");
        }
        for (session, next) in sessions.iter().zip(&resources[1..]) {
            assert!(scene.ask(*session, next).is_none());
        }
        Ring { scene, sessions, resources }
    }

    /// Closes the ring. Everybody is as old and has as much to lose; the youngest is the one who
    /// closes it, loses, and is told so.
    pub(crate) fn close(&mut self) {
        let session = self.sessions[self.sessions.len() - 1];
        let (resource, mode) = (self.resources[0].clone(), LockMode::Exclusive);
        let settled =
            self.scene.apply(Acquire { session, resource, mode, options: AskOptions::default() });
        let outcome = settled.replies().first().map(|reply| &reply.outcome);
        assert!(matches!(outcome, Some(Err(Refusal::Deadlock(_)))), "{outcome:?}");
    }
}

/// Enough randomness for a shape: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

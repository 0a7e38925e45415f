//! The small worlds, and what can be done in each.

use crate::search::{Fault, Menu};
use lockkeeper_core::{
    Acquire, AcquireAll, AskOptions, Cancel, CancelTarget, Command, Credential, DeclareCapacity,
    DeclareWait, Downgrade, EndCause, EndSession, ForceUnlock, LockMode, OpenSession, Release,
    ReleaseAll, Renew, RequestId, Resource, SessionId, Timestamp, Upgrade, Wait, WithdrawWait,
};
use lockkeeper_sim::{Input, Policy, Rules};
use std::time::Duration;

/// One small world.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) rules: Rules,
    /// How many sessions are open at most, and at the beginning.
    pub(crate) owners: usize,
    /// What can be locked, and how.
    pub(crate) resources: Vec<(Resource, Vec<LockMode>)>,
    /// The slots of a resource: what it begins with, and what may be declared later.
    pub(crate) slots: Vec<(Resource, Vec<Option<u32>>)>,
    /// What batches ask for.
    pub(crate) batches: Vec<Vec<LockMode>>,
    pub(crate) verbs: Vec<Verb>,
    /// How often the coordinator may die.
    pub(crate) crashes: u32,
    /// How many steps the short version takes.
    pub(crate) depth: usize,
    /// One state in so many is played to its end.
    pub(crate) drain_one_in: u64,
    pub(crate) fault: Option<Fault>,
}

/// What can be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    Acquire,
    Batch,
    Reenter,
    Upgrade,
    Downgrade,
    Release,
    Cancel,
    EndSession,
    OpenSession,
    Declare,
    Capacity,
    /// A call that returns with a ticket before its wait is over.
    Slice,
    Poll,
    Renew,
    Time,
    /// An acquire and a release with a request id, and the same once more.
    Retry,
    Force,
    Crash,
}

const LOCKS: [LockMode; 3] = [LockMode::Shared, LockMode::Update, LockMode::Exclusive];

/// Deadlines a few milliseconds away, so that whole lives fit into a few steps.
fn rules() -> Rules {
    let mut rules = Rules {
        lease_default: Duration::from_millis(3),
        wait_default: Duration::from_millis(2),
        ticket_grace: Duration::from_millis(2),
        shield_after: 2,
        ..Rules::default()
    };
    rules.limits.waits_per_session_max = 1;
    rules.limits.remembered_per_session = 2;
    rules
}

fn scene(name: &'static str, depth: usize, verbs: &[Verb]) -> Scene {
    let files = [Resource::file("a"), Resource::file("b")];
    Scene {
        name,
        rules: rules(),
        owners: 3,
        resources: files.map(|file| (file, LOCKS.to_vec())).into(),
        slots: Vec::new(),
        batches: Vec::new(),
        verbs: verbs.to_vec(),
        crashes: 0,
        depth,
        drain_one_in: 16,
        fault: None,
    }
}

/// All modes on two resources, held, awaited, turned into one another, given up.
pub(crate) fn modes() -> Scene {
    use Verb::{Acquire, Cancel, Downgrade, Release, Upgrade};
    scene("modes", 4, &[Acquire, Upgrade, Downgrade, Release, Cancel])
}

/// All or nothing, beside single locks; holds that are counted; owners that die in between.
pub(crate) fn batches() -> Scene {
    use Verb::{Acquire, Batch, Crash, EndSession, OpenSession, Reenter, Release};
    let verbs = [Acquire, Batch, Reenter, Release, EndSession, OpenSession, Crash];
    let (s, x) = (LockMode::Shared, LockMode::Exclusive);
    let mut scene = scene("batches", 3, &verbs);
    scene.resources.iter_mut().for_each(|(_, modes)| modes.retain(|mode| [s, x].contains(mode)));
    Scene { batches: vec![vec![x, x], vec![s, x], vec![x, s]], crashes: 1, ..scene }
}

/// A model with two slots beside a file, and a capacity that changes.
pub(crate) fn permits() -> Scene {
    use Verb::{Acquire, Batch, Cancel, Capacity, Crash, Downgrade, Release};
    let llm = Resource::llm("c");
    let (one, two) = (LockMode::Permit(1), LockMode::Permit(2));
    Scene {
        resources: vec![
            (Resource::file("a"), vec![LockMode::Shared, LockMode::Exclusive]),
            (llm.clone(), vec![one, two]),
        ],
        slots: vec![(llm, vec![Some(2), Some(1), Some(3)])],
        batches: vec![vec![LockMode::Exclusive, one]],
        crashes: 1,
        ..scene("permits", 4, &[Acquire, Batch, Release, Downgrade, Cancel, Capacity, Crash])
    }
}

/// Leases, waits, and tickets that nobody polls, each a few steps long.
pub(crate) fn time() -> Scene {
    use Verb::{Acquire, Crash, Poll, Release, Renew, Slice, Time};
    let mut scene = scene("time", 5, &[Acquire, Slice, Poll, Release, Renew, Time, Crash]);
    scene.rules.wait_default = Duration::from_millis(3);
    scene.rules.ticket_grace = Duration::from_millis(1);
    scene.resources.pop();
    scene.resources[0].1 = vec![LockMode::Shared, LockMode::Exclusive];
    Scene { crashes: 1, ..scene }
}

/// A guard that loses has a moment to clean up; parents wait for children.
pub(crate) fn grace() -> Scene {
    use Verb::{Acquire, Declare, Release, Time, Upgrade};
    let mut scene = scene("grace", 4, &[Acquire, Upgrade, Release, Declare, Time]);
    scene.rules.grace = Duration::from_millis(1);
    scene.rules.policy = Policy::Youngest;
    scene.rules.limits.waits_per_session_max = 2;
    scene.resources.iter_mut().for_each(|(_, modes)| modes.retain(|m| *m != LockMode::Update));
    scene
}

/// Answers that got lost: everything is asked twice. And an administrator.
pub(crate) fn retries() -> Scene {
    use Verb::{Acquire, Cancel, Crash, EndSession, Force, OpenSession, Retry};
    let verbs = [Acquire, Retry, Cancel, Force, EndSession, OpenSession, Crash];
    let mut scene = scene("retries", 3, &verbs);
    scene.resources.iter_mut().for_each(|(_, modes)| modes.retain(|m| *m != LockMode::Update));
    Scene { crashes: 1, ..scene }
}

impl Scene {
    /// What comes before the first step.
    pub(crate) fn setup(&self) -> Vec<Command> {
        let slots = self.slots.iter().map(|(resource, counts)| {
            DeclareCapacity { resource: resource.clone(), capacity: counts[0] }.into()
        });
        (0..self.owners).map(|_| open()).chain(slots).collect()
    }

    /// Everything that can be done next.
    pub(crate) fn inputs(&self, menu: &Menu, crashes: u32, now: Timestamp) -> Vec<Input> {
        let mut commands: Vec<Command> = Vec::new();
        let mut inputs = Vec::new();
        for verb in &self.verbs {
            match verb {
                Verb::Time if menu.has_deadlines => {
                    inputs.push(Input::Command(Timestamp(now.0 + 1), Command::Tick));
                }
                Verb::Crash if crashes < self.crashes => {
                    inputs.push(Input::Crash(Timestamp(now.0 + 1), false));
                    inputs.push(Input::Crash(Timestamp(now.0 + 1), true));
                }
                _ => self.commands(*verb, menu, &mut commands),
            }
        }
        inputs.extend(commands.into_iter().map(|command| Input::Command(now, command)));
        inputs
    }

    fn commands(&self, verb: Verb, menu: &Menu, out: &mut Vec<Command>) {
        match verb {
            Verb::Acquire => self.asks(menu, AskOptions::default(), out),
            Verb::Slice => {
                let slice = Some(Duration::from_millis(1));
                self.asks(menu, AskOptions { slice, ..AskOptions::default() }, out);
                let now = Some(Duration::ZERO);
                self.asks(menu, AskOptions { slice: now, ..AskOptions::default() }, out);
            }
            Verb::Batch => {
                for session in menu.idle(self.rules.limits.waits_per_session_max) {
                    for modes in &self.batches {
                        let names = self.resources.iter().map(|(name, _)| name.clone());
                        let wants = names.zip(modes.iter().copied()).collect();
                        out.push(AcquireAll { session, wants, options: patient() }.into());
                    }
                }
            }
            Verb::Declare => {
                for one in &menu.sessions {
                    let session = one.session;
                    for on in menu.sessions.iter().map(|on| on.session).filter(|on| *on != session)
                    {
                        match one.declared.contains(&on) {
                            true => out.push(WithdrawWait { session, on }.into()),
                            false => out.push(DeclareWait { session, on }.into()),
                        }
                    }
                }
            }
            Verb::EndSession => {
                out.extend(menu.sessions.iter().map(|one| {
                    EndSession { session: one.session, cause: EndCause::OwnerDied }.into()
                }))
            }
            Verb::OpenSession if menu.sessions.len() < self.owners => out.push(open()),
            Verb::Capacity => {
                for (resource, counts) in &self.slots {
                    let declare = |capacity: &Option<u32>| DeclareCapacity {
                        resource: resource.clone(),
                        capacity: *capacity,
                    };
                    out.extend(counts.iter().map(|capacity| declare(capacity).into()));
                }
            }
            Verb::Retry => {
                let request_id = Some(RequestId::new(7));
                self.asks(menu, AskOptions { request_id, ..patient() }, out);
                // Also of what it has or waits for already: only then is it a retry.
                for one in menu.sessions.iter().filter(|one| one.waits > 0) {
                    let options = AskOptions { request_id, ..patient() };
                    out.push(ask(one.session, &self.resources[0], options));
                }
                for hold in &menu.holds {
                    let again = (self.resources[0].0.clone(), vec![hold.mode]);
                    out.push(ask(hold.session, &again, AskOptions { request_id, ..patient() }));
                }
                let by_id = CancelTarget::Request(RequestId::new(7));
                out.extend(
                    menu.sessions
                        .iter()
                        .map(|one| Cancel { session: one.session, target: by_id }.into()),
                );
                let request_id = Some(RequestId::new(8));
                out.extend(menu.holds.iter().map(|hold| {
                    let by = Credential::Session(hold.session);
                    Release { by, lock: hold.lock, share: None, request_id }.into()
                }));
                out.extend(menu.gone.iter().map(|(session, lock)| {
                    let by = Credential::Session(*session);
                    Release { by, lock: *lock, share: None, request_id }.into()
                }));
            }
            Verb::Force => {
                out.extend(self.resources.iter().filter(|(name, _)| menu.is_held(name)).map(
                    |(resource, _)| {
                        let (admin, reason) = ("admin".into(), "stuck".into());
                        ForceUnlock { resource: resource.clone(), admin, reason }.into()
                    },
                ));
                out.push(ReleaseAll { agent: "agent".into() }.into());
            }
            _ => self.changes(verb, menu, out),
        }
    }

    /// What can be done about holds and waits that are there.
    fn changes(&self, verb: Verb, menu: &Menu, out: &mut Vec<Command>) {
        for hold in &menu.holds {
            let (session, lock) = (hold.session, hold.lock);
            let by = Credential::Session(session);
            match verb {
                Verb::Release => {
                    out.push(Release { by, lock, share: None, request_id: None }.into());
                }
                Verb::Renew => {
                    let (lease, shorten) = (None, false);
                    out.push(Renew { by, lock, lease, shorten, request_id: None }.into());
                }
                Verb::Reenter if hold.count < 2 => {
                    let again = (hold.resource.clone(), vec![hold.mode]);
                    let options = AskOptions { reentrant: true, ..patient() };
                    out.push(ask(session, &again, options));
                }
                Verb::Upgrade if matches!(hold.mode, LockMode::Shared | LockMode::Update) => {
                    out.push(Upgrade { session, lock, options: patient() }.into());
                }
                Verb::Downgrade => {
                    let weaker: &[LockMode] = match hold.mode {
                        LockMode::Exclusive => &[LockMode::Update, LockMode::Shared],
                        LockMode::Update => &[LockMode::Shared],
                        LockMode::Permit(2..) => &[LockMode::Permit(1)],
                        _ => &[],
                    };
                    out.extend(weaker.iter().map(|mode| {
                        Downgrade { session, lock, mode: *mode, request_id: None }.into()
                    }));
                }
                _ => {}
            }
        }
        for (session, ticket) in menu.waits.iter().copied() {
            match verb {
                Verb::Cancel => {
                    let target = CancelTarget::Ticket(ticket);
                    out.push(Cancel { session, target }.into());
                }
                Verb::Poll => {
                    let slice = Some(Duration::from_millis(1));
                    out.push(Wait { session, ticket, slice }.into());
                }
                _ => {}
            }
        }
    }

    /// Whoever has room for another wait asks for each thing it does not hold, in each mode.
    fn asks(&self, menu: &Menu, options: AskOptions, out: &mut Vec<Command>) {
        for session in menu.idle(self.rules.limits.waits_per_session_max) {
            for (resource, modes) in &self.resources {
                let has = |hold: &crate::search::Holding| {
                    hold.session == session && hold.resource == *resource
                };
                if menu.holds.iter().any(has) {
                    continue;
                }
                for mode in modes {
                    let one = (resource.clone(), vec![*mode]);
                    out.push(ask(session, &one, options.clone()));
                }
            }
        }
    }
}

fn open() -> Command {
    OpenSession { agent: "agent".into(), ..OpenSession::default() }.into()
}

fn patient() -> AskOptions {
    AskOptions::default()
}

fn ask(session: SessionId, what: &(Resource, Vec<LockMode>), options: AskOptions) -> Command {
    Acquire { session, resource: what.0.clone(), mode: what.1[0], options }.into()
}

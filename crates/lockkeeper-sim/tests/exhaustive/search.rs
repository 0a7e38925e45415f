//! The search itself: states, steps, and what came of them.

use crate::scenes::Scene;
use lockkeeper_core::{
    Answer, Command, DeclareCapacity, EndCause, EndSession, Fact, LeaveCause, LockId, LockMode,
    LockTable, ReleaseCause, Resource, SessionId, TicketId, Timestamp, WaitEdge,
};
use lockkeeper_sim::{Bench, Checked, Input, Invariant, Model, Policy, Turn, Violation};
use stateright::{Checker as _, HasDiscoveries, Model as World, Property};
use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const BEGINNING: Timestamp = Timestamp(1_000_000);

/// What is done to a table to see the search go red.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A cancel lets nobody in.
    ForgetsAfterCancel,
    /// Deadlocks are broken by another order than the model's.
    OtherVictims(Policy),
    /// Leases are a millisecond longer than asked for.
    LongerLeases,
    /// A release is answered, but is in no record.
    SpeaksUnwritten,
}

/// What can happen in a turn: counted, so that a search that saw little is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Granted,
    BatchGranted,
    Queued,
    Upgraded,
    Downgraded,
    Reentered,
    Cancelled,
    SessionEnded,
    Deadlock,
    /// There was a cycle through permits, and it was no deadlock.
    Cleared,
    Expired,
    TimedOut,
    Abandoned,
    Renewed,
    Sliced,
    Declared,
    Revoking,
    Retried,
    Unlocked,
    Crashed,
}

const KINDS: usize = Kind::Crashed as usize + 1;

/// A hold, as far as somebody needs to know who wants to do something about it.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) session: SessionId,
    pub(crate) lock: LockId,
    pub(crate) resource: Resource,
    pub(crate) mode: LockMode,
    pub(crate) count: u32,
}

/// A session, likewise.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) session: SessionId,
    /// How many waits it has, declared ones included.
    pub(crate) waits: usize,
    /// For whom it declared to wait.
    pub(crate) declared: Vec<SessionId>,
    /// Whether it has not done anything yet.
    pub(crate) is_fresh: bool,
}

/// What there is to do something about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Menu {
    pub(crate) sessions: Vec<Owner>,
    pub(crate) holds: Vec<Holding>,
    pub(crate) waits: Vec<(SessionId, TicketId)>,
    /// The last hold that somebody gave back who is still there.
    pub(crate) gone: Vec<(SessionId, LockId)>,
    pub(crate) has_deadlines: bool,
}

impl Menu {
    fn of(table: &LockTable, gone: Vec<(SessionId, LockId)>) -> Menu {
        let views = table.sessions();
        let waits = views.iter().flat_map(|one| {
            let session = one.session;
            one.tickets.iter().map(move |ticket| (session, *ticket))
        });
        let holds = table.list().into_iter().map(|holder| Holding {
            count: table.grant(holder.lock).map_or(0, |grant| grant.count),
            session: holder.session,
            lock: holder.lock,
            resource: holder.resource,
            mode: holder.mode,
        });
        Menu {
            waits: waits.collect(),
            holds: holds.collect(),
            gone: gone
                .into_iter()
                .filter(|(session, _)| table.agent_of(*session).is_some())
                .collect(),
            has_deadlines: table.next_deadline().is_some(),
            sessions: views
                .into_iter()
                .map(|one| Owner {
                    session: one.session,
                    waits: one.tickets.len() + one.declared.len(),
                    is_fresh: one.birth.is_none(),
                    declared: one.declared,
                })
                .collect(),
        }
    }

    /// Who may wait once more. Of several who have not done anything yet only one may: they differ
    /// in nothing but the order of their ids, and no two of them are ever weighed by that alone.
    pub(crate) fn idle(&self, waits_max: usize) -> impl Iterator<Item = SessionId> + '_ {
        let mut fresh = 0;
        let mut is_like_another = move |one: &&Owner| {
            fresh += usize::from(one.is_fresh);
            one.is_fresh && fresh > 1
        };
        let idle = self.sessions.iter().filter(move |one| one.waits < waits_max);
        idle.filter(move |one| !is_like_another(one)).map(|one| one.session)
    }

    pub(crate) fn is_held(&self, resource: &Resource) -> bool {
        self.holds.iter().any(|hold| hold.resource == *resource)
    }
}

/// One step of a history, and the history before it.
#[derive(Debug)]
struct Link {
    input: Input,
    before: Option<Arc<Link>>,
}

/// A state of the world, and how one gets there.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    path: Option<Arc<Link>>,
    model: Arc<Model>,
    menu: Arc<Menu>,
    now: Timestamp,
    crashes: u32,
    /// What it comes down to.
    shape: (u64, u64),
    broken: Option<Arc<Violation>>,
}

impl Hash for Seen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.shape, self.crashes, self.broken.is_some()).hash(state);
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Seen) -> bool {
        let of = |seen: &Seen| (seen.shape, seen.crashes, seen.broken.is_some());
        of(self) == of(other)
    }
}

impl Seen {
    fn history(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut next = self.path.as_ref();
        while let Some(link) = next {
            inputs.push(link.input.clone());
            next = link.before.as_ref();
        }
        inputs.reverse();
        inputs
    }
}

/// A promise that was broken, and the shortest way there.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: Invariant,
    pub(crate) path: Vec<Input>,
    message: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)?;
        self.path.iter().try_for_each(|input| writeln!(f, "  {input:?}"))
    }
}

/// What a search came to.
pub(crate) struct Found {
    pub(crate) broken: Option<Broken>,
    states: usize,
    steps: u64,
    depth: usize,
    /// Whether there is nothing further.
    is_all: bool,
    happened: [u64; KINDS],
    took: Duration,
}

impl Found {
    pub(crate) fn happened(&self, kind: Kind) -> u64 {
        self.happened[kind as usize]
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { states, steps, depth, .. } = self;
        let all = if self.is_all { ", which is all there are" } else { "" };
        let deadlocks = self.happened(Kind::Deadlock);
        write!(
            f,
            "{states} states{all}, {steps} steps, up to {depth} in a row, {deadlocks} deadlocks, \
             {:.1} s",
            self.took.as_secs_f64()
        )
    }
}

/// A scene as a world to be searched.
struct Search {
    scene: Scene,
    happened: Arc<[AtomicU64; KINDS]>,
    steps: Arc<AtomicU64>,
    /// The states whose steps were not taken, because they are too far.
    cut: Arc<AtomicU64>,
    depth: usize,
    first: Arc<Mutex<Option<Broken>>>,
}

/// Walks all histories of a scene.
pub(crate) fn search(scene: Scene, further: usize) -> Found {
    let began = Instant::now();
    let depth = scene.depth + further;
    let search = Search {
        scene,
        depth,
        happened: Arc::new(std::array::from_fn(|_| AtomicU64::new(0))),
        steps: Arc::default(),
        cut: Arc::default(),
        first: Arc::default(),
    };
    let (happened, steps) = (search.happened.clone(), search.steps.clone());
    let (cut, first) = (search.cut.clone(), search.first.clone());
    // As many as there are of us to each core: the tests of this file run side by side.
    let threads = if further > 0 { 2 } else { 1 };
    let checker = search
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let broken = first.lock().unwrap().take();
    Found {
        broken,
        states: checker.unique_state_count(),
        steps: steps.load(Ordering::Relaxed),
        depth: checker.max_depth() - 1,
        is_all: cut.load(Ordering::Relaxed) == 0,
        happened: std::array::from_fn(|at| happened[at].load(Ordering::Relaxed)),
        took: began.elapsed(),
    }
}

impl World for Search {
    type State = Seen;
    type Action = Input;

    fn init_states(&self) -> Vec<Seen> {
        let rules = self.scene.rules;
        let mut bench = self.bench();
        let mut model = Model::new(rules, lockkeeper_core::Epoch::new(1), 0);
        for command in self.scene.setup() {
            let turn = bench.apply(BEGINNING, &command).unwrap();
            model.follow(BEGINNING, &command, &turn).unwrap();
        }
        vec![self.seen(None, model, &bench, BEGINNING, 0, Vec::new())]
    }

    fn actions(&self, state: &Seen, actions: &mut Vec<Input>) {
        if state.broken.is_some() {
            return;
        }
        if state.history().len() >= self.depth {
            self.cut.fetch_add(1, Ordering::Relaxed);
            return;
        }
        actions.extend(self.scene.inputs(&state.menu, state.crashes, state.now));
    }

    fn next_state(&self, last: &Seen, input: Input) -> Option<Seen> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        Some(self.step(last, input))
    }

    fn properties(&self) -> Vec<Property<Search>> {
        vec![Property::always("every promise is kept", |_, state: &Seen| state.broken.is_none())]
    }
}

impl Search {
    /// An empty table, as the fault wants it.
    fn bench(&self) -> Bench {
        let mut rules = self.scene.rules;
        match self.scene.fault {
            Some(Fault::OtherVictims(policy)) => rules.policy = policy,
            Some(Fault::LongerLeases) => rules.lease_default += Duration::from_millis(1),
            _ => {}
        }
        Bench::new(rules, 7, false)
    }

    /// The table after a history, which was checked when it was walked.
    fn rebuilt(&self, history: &[Input]) -> Bench {
        let mut bench = self.bench();
        for command in self.scene.setup() {
            bench.apply(BEGINNING, &command).unwrap();
        }
        for input in history {
            let played = match input {
                Input::Command(now, command) => bench.apply(*now, command),
                Input::Crash(now, orphaned) => bench.crash(*now, *orphaned),
            };
            played.unwrap();
        }
        bench
    }

    fn step(&self, last: &Seen, input: Input) -> Seen {
        let mut bench = self.rebuilt(&last.history());
        let link = Some(Arc::new(Link { input: input.clone(), before: last.path.clone() }));
        let (now, crashes) = match &input {
            Input::Command(now, _) => (*now, last.crashes),
            Input::Crash(now, _) => (*now, last.crashes + 1),
        };
        match self.play(&mut bench, &last.model, &input) {
            Ok((model, turn)) => {
                self.count(&last.model, &model, &input, &turn);
                let gone = gone(last, &input, &turn);
                let seen = self.seen(link, model, &bench, now, crashes, gone);
                match self.drain(&seen, bench) {
                    Ok(()) => seen,
                    Err(broken) => self.broken(seen, broken),
                }
            }
            Err(broken) => {
                let seen = Seen { path: link, now, crashes, ..last.clone() };
                self.broken(seen, broken)
            }
        }
    }

    /// One step of table and model; what it broke.
    fn play(
        &self,
        bench: &mut Bench,
        model: &Model,
        input: &Input,
    ) -> Result<(Model, Turn), Violation> {
        let mut model = model.clone();
        match input {
            Input::Crash(now, orphaned) => {
                bench.model = Some(model);
                let turn = bench.crash(*now, *orphaned)?;
                Ok((bench.model.take().unwrap(), turn))
            }
            Input::Command(now, command) => {
                let mut turn = bench.apply(*now, command)?;
                self.tamper(command, &mut turn);
                model.follow(*now, command, &turn)?;
                model.compare(&bench.table)?;
                Ok((model, turn))
            }
        }
    }

    fn tamper(&self, command: &Command, turn: &mut Turn) {
        match (self.scene.fault, command) {
            (Some(Fault::ForgetsAfterCancel), Command::Cancel(_)) => {
                turn.records.retain(|record| !matches!(record.fact, Fact::Granted(_)));
                turn.replies.retain(|reply| !matches!(reply.outcome, Ok(Answer::Granted(_))));
            }
            (Some(Fault::SpeaksUnwritten), Command::Release(_)) => turn.records.clear(),
            _ => {}
        }
    }

    fn broken(&self, seen: Seen, broken: Violation) -> Seen {
        let mut first = self.first.lock().unwrap();
        let path = seen.history();
        if first.as_ref().is_none_or(|first| first.path.len() > path.len()) {
            let (invariant, message) = (broken.invariant, broken.to_string());
            *first = Some(Broken { invariant, path, message });
        }
        drop(first);
        Seen { broken: Some(Arc::new(broken)), ..seen }
    }

    fn seen(
        &self,
        path: Option<Arc<Link>>,
        model: Model,
        bench: &Bench,
        now: Timestamp,
        crashes: u32,
        gone: Vec<(SessionId, LockId)>,
    ) -> Seen {
        let menu = Menu::of(&bench.table, gone);
        let words = model.shape();
        let open: Vec<SessionId> = menu.sessions.iter().map(|one| one.session).collect();
        // Which of the possible edges the table keeps is its own affair, but it may matter later.
        let edges: Vec<_> = bench.table.wait_graph().edges.iter().map(|e| edge(e, &open)).collect();
        let hash = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, &words, &edges, &menu.gone.len()).hash(&mut hasher);
            hasher.finish()
        };
        let shape = (hash(1), hash(2));
        let (model, menu) = (Arc::new(model), Arc::new(menu));
        Seen { path, model, menu, now, crashes, shape, broken: None }
    }

    /// I10 and I18: left alone, every call is answered and every wait and hold ends; with the
    /// sessions gone nothing is left at all. Looked at in some of the states.
    fn drain(&self, seen: &Seen, mut bench: Bench) -> Checked {
        if !seen.shape.0.is_multiple_of(self.scene.drain_one_in) || self.scene.fault.is_some() {
            return Ok(());
        }
        bench.model = Some((*seen.model).clone());
        while let Some(at) = bench.table.next_deadline() {
            bench.apply(at, &Command::Tick)?;
        }
        let at = Timestamp(u64::MAX / 4);
        for one in &seen.menu.sessions {
            let end = EndSession { session: one.session, cause: EndCause::Closed };
            bench.apply(at, &end.into())?;
        }
        for (resource, _) in &self.scene.slots {
            let none = DeclareCapacity { resource: resource.clone(), capacity: None };
            bench.apply(at, &none.into())?;
        }
        bench.check_empty(false)
    }

    fn count(&self, before: &Model, after: &Model, input: &Input, turn: &Turn) {
        for kind in turn.records.iter().filter_map(|record| kind_of(&record.fact)) {
            self.tally(kind, 1);
        }
        for reply in &turn.replies {
            match &reply.outcome {
                Ok(Answer::Queued { .. }) => self.tally(Kind::Sliced, 1),
                Ok(Answer::Granted(grants)) if grants.len() > 1 => {
                    self.tally(Kind::BatchGranted, 1);
                }
                Ok(Answer::Granted(_)) if turn.records.is_empty() && asks_by_id(input) => {
                    self.tally(Kind::Retried, 1);
                }
                _ => {}
            }
        }
        self.tally(Kind::Cleared, after.cleared() - before.cleared());
        self.tally(Kind::Crashed, u64::from(matches!(input, Input::Crash(..))));
    }

    fn tally(&self, kind: Kind, times: u64) {
        self.happened[kind as usize].fetch_add(times, Ordering::Relaxed);
    }
}

fn asks_by_id(input: &Input) -> bool {
    matches!(input, Input::Command(_, Command::Acquire(ask)) if ask.options.request_id.is_some())
}

fn kind_of(fact: &Fact) -> Option<Kind> {
    Some(match fact {
        Fact::Granted(_) => Kind::Granted,
        Fact::Queued(_) => Kind::Queued,
        Fact::Reentered { .. } => Kind::Reentered,
        Fact::SessionEnded { .. } => Kind::SessionEnded,
        Fact::DeadlockFound(_) => Kind::Deadlock,
        Fact::Renewed { .. } => Kind::Renewed,
        Fact::WaitDeclared { .. } => Kind::Declared,
        Fact::RevocationSet { .. } => Kind::Revoking,
        Fact::Left { cause: LeaveCause::Cancelled, .. } => Kind::Cancelled,
        Fact::Left { cause: LeaveCause::TimedOut, .. } => Kind::TimedOut,
        Fact::Left { cause: LeaveCause::Abandoned, .. } => Kind::Abandoned,
        Fact::Released { cause: ReleaseCause::Expired, .. } => Kind::Expired,
        Fact::Released { cause: ReleaseCause::Forced { .. }, .. } => Kind::Unlocked,
        Fact::Converted { mode: LockMode::Exclusive, .. } => Kind::Upgraded,
        Fact::Converted { .. } => Kind::Downgraded,
        _ => return None,
    })
}

/// An edge by the places of its ends.
fn edge(edge: &WaitEdge, open: &[SessionId]) -> (Option<usize>, Option<usize>, String) {
    let place = |session: SessionId| open.iter().position(|one| *one == session);
    (place(edge.from), place(edge.to), format!("{:?} {:?}", edge.kind, edge.resource))
}

/// The hold that was given back last, for whoever gives it back again.
fn gone(last: &Seen, input: &Input, turn: &Turn) -> Vec<(SessionId, LockId)> {
    let Input::Command(_, Command::Release(release)) = input else { return last.menu.gone.clone() };
    let is_over = turn.records.iter().any(|record| {
        matches!(&record.fact, Fact::Released { lock, remaining: 0, .. } if *lock == release.lock)
    });
    let holder = last.menu.holds.iter().find(|hold| hold.lock == release.lock);
    match (is_over, holder) {
        (true, Some(hold)) => vec![(hold.session, hold.lock)],
        _ => last.menu.gone.clone(),
    }
}

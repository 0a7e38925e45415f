//! A made-up life of a table in front of a store: every number steers something, and most of it is
//! legal.

use lockkeeper_core::*;
use lockkeeper_store::{
    Batch, Claim, OpenOptions, PruneBefore, Snapshot, SqliteStore, Store, StoreError,
};
use proptest::prelude::*;
use std::{path::Path, time::Duration};

const NAMES: [&str; 8] =
    ["file:a", "file:b", "llm:c", "llm:d", "file:e", "file:f:g", "task:1", "task:2"];

pub(crate) const START: u64 = 1_700_000_000_000;

/// What the agents of a life know.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) now: u64,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) locks: Vec<LockId>,
    pub(crate) tickets: Vec<TicketId>,
    /// Whether some of them make request ids up that they will not ask by again.
    pub(crate) is_fleeting: bool,
}

impl Default for Known {
    fn default() -> Known {
        let (sessions, locks, tickets) = (Vec::new(), Vec::new(), Vec::new());
        Known { now: START, sessions, locks, tickets, is_fleeting: false }
    }
}

/// What, who, which.
pub(crate) type Step = (u8, u8, u8);

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 1..most)
}

impl Known {
    /// The next command; time goes on a little.
    pub(crate) fn command(&mut self, table: &LockTable, (what, who, which): Step) -> Command {
        self.now += u64::from(which);
        let open: Vec<SessionId> = table.sessions().iter().map(|one| one.session).collect();
        let open = if which == 77 { &self.sessions } else { &open };
        let session = |at: u8| pick(open, at).unwrap_or(SessionId::from_u64(0));
        let (me, other) = (session(who), session(which));
        let own = table.list().into_iter().filter(|holder| holder.session == me);
        let own: Vec<LockId> = own.map(|holder| holder.lock).collect();
        let lock = pick(&own, which).or(pick(&self.locks, which));
        let lock = lock.unwrap_or(LockId::from_u128(0));
        let waiting = table.sessions().into_iter().filter(|one| one.session == me);
        let waiting: Vec<TicketId> = waiting.flat_map(|one| one.tickets).collect();
        let ticket = pick(&waiting, which).or(pick(&self.tickets, which));
        let ticket = ticket.unwrap_or(TicketId::from_u64(0));
        let what = if open.len() < 3 { what % 10 } else { what % 32 };
        let name = |at: u8| NAMES[usize::from(at) % 8].parse::<Resource>().unwrap();
        let mode = |at: u8| match at % 4 {
            0 => LockMode::Shared,
            1 => LockMode::Update,
            2 => LockMode::Exclusive,
            _ => LockMode::Permit(1 + u32::from(at) % 2),
        };
        let request_id = who.is_multiple_of(2).then_some(RequestId::new(u128::from(which) << 70));
        let options = AskOptions {
            lease: Some(Duration::from_millis(u64::from(who) * 40)),
            slice: who.is_multiple_of(7).then_some(Duration::from_millis(5)),
            reentrant: who.is_multiple_of(3),
            reason: who.is_multiple_of(5).then(|| "why, \"quoted\"\n".into()),
            metadata: who.is_multiple_of(11).then(|| r#"{"ü":[1,null]}"#.into()),
            request_id,
            fleeting: self.is_fleeting && who.is_multiple_of(4),
            ..AskOptions::default()
        };
        let by = Credential::Session(me);
        match what {
            0 | 1 => {
                let kind = match who.is_multiple_of(3) {
                    true => SessionKind::Detached,
                    false => SessionKind::Attached,
                };
                let agent = format!("agent-{}", who % 4).into();
                let lineage =
                    which.is_multiple_of(9).then_some(Lineage { birth: ticket, aborts: 1 });
                OpenSession { agent, kind, priority: (which % 3) as i8 - 1, lineage }.into()
            }
            2..=9 => {
                let (resource, mode) = (name(which), mode(which / 8));
                Acquire { session: me, resource, mode, options }.into()
            }
            10 => {
                let wants = vec![(name(which), mode(who)), (name(which / 4), mode(which))];
                AcquireAll { session: me, wants, options }.into()
            }
            11..=16 => {
                let share = which.is_multiple_of(3).then_some(ticket);
                Release { by, lock, share, request_id }.into()
            }
            17 | 18 => Upgrade { session: me, lock, options }.into(),
            19 | 20 => Downgrade { session: me, lock, mode: mode(which), request_id }.into(),
            21 => DeclareWait { session: me, on: other }.into(),
            22 => {
                let capacity = (!which.is_multiple_of(5)).then_some(u32::from(which) % 5);
                DeclareCapacity { resource: name(2 + which % 2), capacity }.into()
            }
            23 => WithdrawWait { session: me, on: other }.into(),
            24 | 25 => {
                let target = match which.is_multiple_of(2) {
                    true => CancelTarget::Ticket(ticket),
                    false => CancelTarget::Request(RequestId::new(u128::from(which) << 70)),
                };
                Cancel { session: me, target }.into()
            }
            26 => {
                let lease = Some(Duration::from_millis(u64::from(who) * 90));
                Renew { by, lock, lease, shorten: which.is_multiple_of(2), request_id }.into()
            }
            27 => Wait { session: me, ticket, slice: options.slice }.into(),
            28 | 29 => match which % 8 {
                0 => ReleaseAll { agent: format!("agent-{}", who % 4).into() }.into(),
                1 => {
                    let (admin, reason) = ("root".into(), "stuck".into());
                    ForceUnlock { resource: name(who), admin, reason }.into()
                }
                _ => Command::Tick,
            },
            30 => {
                let claims = vec![TaskClaim { task: name(6 + which % 2), expect_version: None }];
                ClaimTasks { session: me, claims, options }.into()
            }
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
                Ok(Answer::Queued { ticket, .. }) => self.tickets.push(*ticket),
                _ => {}
            }
        }
    }
}

fn pick<T: Copy>(from: &[T], at: u8) -> Option<T> {
    // The latest ones are the interesting ones.
    let at = usize::from(at) % from.len().clamp(1, 7);
    from.iter().rev().nth(at).copied()
}

/// A table in front of a store, as the library has it.
pub(crate) struct Project {
    pub(crate) claim: Claim,
    pub(crate) table: LockTable,
    pub(crate) ledger: Ledger<Claim>,
    pub(crate) known: Known,
}

pub(crate) fn config() -> TableConfig {
    TableConfig { grace: Duration::from_millis(400), ..TableConfig::default() }
}

pub(crate) fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, OpenOptions::default()).unwrap()
}

/// A table of the claim's reign, into which the facts are replayed.
pub(crate) fn rebuilt(claim: &Claim, records: &[Record]) -> LockTable {
    let name: u64 = claim.project.bytes().map(u64::from).sum();
    let id_seed = name * 1_000 + u64::from(claim.epoch.get());
    let reign = Reign { epoch: claim.epoch, id_seed, last_event: claim.last_event };
    let mut table = LockTable::new(config(), reign);
    records.iter().for_each(|record| table.replay(record));
    table
}

impl Project {
    pub(crate) fn take_over(store: &mut dyn Store, project: &str) -> Project {
        let claim = store.claim(project).unwrap();
        let records = store.load(&claim).unwrap();
        let table = rebuilt(&claim, &records);
        Project { ledger: Ledger::new(claim.clone()), claim, table, known: Known::default() }
    }

    pub(crate) fn apply(&mut self, command: impl Into<Command>) -> Effects {
        self.table.apply(Timestamp(self.known.now), command)
    }

    /// Applies and commits one command.
    pub(crate) fn turn(
        &mut self,
        store: &mut dyn Store,
        command: impl Into<Command>,
    ) -> Result<Vec<Reply>, StoreError> {
        let effects = self.apply(command);
        self.commit(store, vec![effects])
    }

    pub(crate) fn commit(
        &mut self,
        store: &mut dyn Store,
        turns: Vec<Effects>,
    ) -> Result<Vec<Reply>, StoreError> {
        let mut outcomes =
            Effects::settle_groups(vec![(&mut self.ledger, turns)], &mut Direct(store));
        match outcomes.remove(0) {
            Ok(settled) => {
                let replies: Vec<Reply> =
                    settled.into_iter().flat_map(|turn| turn.into_parts().0).collect();
                self.known.learn(&replies);
                Ok(replies)
            }
            Err(NotSettled::Journal(error)) => Err(error),
            Err(NotSettled::OutOfOrder { .. }) => panic!("the test lost count"),
        }
    }

    pub(crate) fn open_session(&mut self, store: &mut dyn Store, agent: &str) -> SessionId {
        let open = OpenSession { agent: agent.into(), ..OpenSession::default() };
        let replies = self.turn(store, open).unwrap();
        let Ok(Answer::SessionOpened { session }) = replies[0].outcome else { panic!() };
        session
    }

    pub(crate) fn grant(&mut self, store: &mut dyn Store, session: SessionId, name: &str) -> Grant {
        let replies = self.turn(store, ask(session, name)).unwrap();
        let Ok(Answer::Granted(grants)) = &replies[0].outcome else { panic!("{replies:?}") };
        grants[0].clone()
    }
}

pub(crate) fn ask(session: SessionId, name: &str) -> Acquire {
    let resource = name.parse().unwrap();
    Acquire { session, resource, mode: LockMode::Exclusive, options: AskOptions::default() }
}

pub(crate) fn give_back(session: SessionId, lock: LockId) -> Release {
    Release { by: Credential::Session(session), lock, share: None, request_id: None }
}

struct Direct<'a>(&'a mut dyn Store);

impl GroupJournal<Claim> for Direct<'_> {
    type Error = StoreError;

    fn append_groups(&mut self, groups: &[Group<'_, Claim>]) -> Vec<Result<(), StoreError>> {
        let batches: Vec<Batch<'_>> =
            groups.iter().map(|group| Batch { claim: group.table, turns: group.turns }).collect();
        let outcomes = self.0.commit(&batches);
        self.0.tidy();
        outcomes
    }
}

/// Everything a table shows of itself, tokens included; the age of everybody's work if wanted.
pub(crate) fn picture(table: &LockTable, with_ages: bool) -> String {
    let holds = table.list();
    let grants: Vec<_> = holds.iter().map(|holder| table.grant(holder.lock)).collect();
    let resources = table.resources();
    let queues: Vec<_> = resources.iter().map(|resource| table.inspect(resource)).collect();
    let mut sessions = table.sessions();
    for session in sessions.iter_mut().filter(|_| !with_ages) {
        (session.birth, session.aborts) = (None, 0);
    }
    let (graph, stats) = (table.wait_graph(), Stats { deadlines: 0, ..table.stats() });
    format!("{holds:#?}\n{grants:#?}\n{queues:#?}\n{sessions:#?}\n{graph:#?}\n{stats:#?}")
}

/// The next turn of a project, by a table that has heard of a session which is not on record.
pub(crate) fn contradicting(project: &mut Project, store: &mut dyn Store) -> Effects {
    let records = store.load(&project.claim).unwrap();
    let mut other = rebuilt(&project.claim, &records);
    let at = Timestamp(project.known.now);
    let replies = other.apply(at, OpenSession::default());
    let Fact::SessionOpened { session, .. } = replies.records()[0].fact else { panic!() };
    let next = project.apply(Command::Tick).call();
    loop {
        let turn = other.apply(at, ask(session, "file:a"));
        if turn.call() == next {
            break turn;
        }
    }
}

/// The keys of the live holds on record, in order.
pub(crate) fn held(path: &Path, project: &str) -> Vec<String> {
    let (_, records) = Snapshot::read(path).unwrap().live(project).unwrap().unwrap();
    let mut keys: Vec<String> = records
        .into_iter()
        .filter_map(|record| match record.fact {
            Fact::Granted(granted) => Some(granted.resource.key().to_owned()),
            _ => None,
        })
        .collect();
    keys.sort_unstable();
    keys
}

/// Carries over into the tables whatever the journal has.
pub(crate) fn carry_over(store: &mut SqliteStore) {
    let nothing = PruneBefore { released: Timestamp(0), audit: Timestamp(0) };
    assert_eq!(store.prune(&nothing, 0), Ok(0));
}

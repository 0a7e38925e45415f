//! The same paths on two real stores that have one file open.

use crate::world::{Bounds, CLIENTS, Entry, Heard, OWNERS, Outcome, Owner, Protocol, State, Step};
use lockkeeper_core::*;
use lockkeeper_store::{
    AuditFilter, Batch, Claim, OpenOptions, Snapshot, SqliteStore, Store, StoreError,
};
use proptest::prelude::*;
use rusqlite::Connection;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

const PROJECT: &str = "p";
const LOCK: &str = "file:a";

/// Longer than what is searched, and only a sample of it.
const BOUNDS: Bounds = Bounds { epochs: 9, calls: 20, turns: 3, attempts: 9, log: 40, writes: 40 };

/// One owner, with a table and what it has not written yet.
struct Real {
    store: SqliteStore,
    claim: Option<Claim>,
    table: Option<LockTable>,
    turns: Vec<Effects>,
}

/// Two owners of one file, and somebody who looks into it.
struct Both {
    owners: Vec<Real>,
    file: Connection,
    sessions: [SessionId; CLIENTS],
    /// How long the journal was before the first step.
    before: usize,
}

impl Both {
    /// Two processes are kept apart by the lock of the system on a file beside the store. Should
    /// that file be removed, the epochs are all there is; so it is removed here.
    fn open(path: &Path) -> Both {
        let open = || {
            let lag = Duration::ZERO;
            let options = OpenOptions { lag, ..OpenOptions::default() };
            let store = SqliteStore::open(path, options).unwrap();
            std::fs::remove_file(format!("{}.owner", path.display())).unwrap();
            Real { store, claim: None, table: None, turns: Vec::new() }
        };
        let mut owners: Vec<Real> = (0..OWNERS).map(|_| open()).collect();
        let file = Connection::open(path).unwrap();
        // The clients' sessions are from a reign before.
        let first = owners[0].store.claim(PROJECT).unwrap();
        let mut table = table(&first, &[]);
        let opened = [(); CLIENTS].map(|()| table.apply(NOW, OpenSession::default()));
        let batch = Batch { claim: &first, turns: &opened };
        assert_eq!(owners[0].store.commit(&[batch]), [Ok(())]);
        let sessions: Vec<SessionId> = table.sessions().iter().map(|one| one.session).collect();
        let sessions = sessions.try_into().unwrap();
        Both { owners, file, sessions, before: CLIENTS }
    }

    /// One step; what it came to must be what the protocol says.
    fn play(&mut self, before: &State, step: Step, after: &State, world: &Protocol) {
        match step {
            Step::Claim(owner) => {
                let real = &mut self.owners[owner];
                let claim = real.store.claim(PROJECT).unwrap();
                let Owner::Claimed { epoch, .. } = after.owners[owner] else { panic!() };
                // One more: the reign before the first step.
                assert_eq!(claim.epoch.get(), u32::from(epoch) + 1);
                (real.claim, real.table) = (Some(claim), None);
                real.turns.clear();
            }
            Step::Load(owner) => {
                let real = &mut self.owners[owner];
                let claim = real.claim.clone().unwrap();
                let loaded = real.store.load(&claim);
                match &after.owners[owner] {
                    Owner::Up(_) => real.table = Some(table(&claim, &loaded.unwrap())),
                    _ => assert!(matches!(loaded, Err(StoreError::Superseded { .. }))),
                }
            }
            Step::Ask { owner, client } => {
                let attempt = u128::from(before.attempt(client));
                let request_id = Some(RequestId::new(client as u128 * 100 + attempt));
                let wait = Some(std::time::Duration::ZERO);
                let options = AskOptions { request_id, wait, ..AskOptions::default() };
                let (session, mode) = (self.sessions[client], LockMode::Exclusive);
                let ask = Acquire { session, resource: LOCK.parse().unwrap(), mode, options };
                self.decide(owner, ask.into(), after);
            }
            Step::GiveBack { owner, client } => {
                let session = self.sessions[client];
                let token = after.token_given_back(client);
                let by = Credential::Session(session);
                let lock = self.lock_of(owner, token);
                let release = Release { by, lock, share: None, request_id: None };
                self.decide(owner, release.into(), after);
            }
            Step::Force(owner) => {
                let (admin, reason) = ("admin".into(), "a test".into());
                let resource = LOCK.parse().unwrap();
                self.decide(owner, ForceUnlock { resource, admin, reason }.into(), after);
            }
            Step::Commit(owner, heard) => {
                let due = world.commit(&mut before.clone(), owner, heard);
                let real = &mut self.owners[owner];
                if let Some(due) = due {
                    let batch = Batch { claim: real.claim.as_ref().unwrap(), turns: &real.turns };
                    let got = match real.store.commit(&[batch]).remove(0) {
                        Ok(()) => Outcome::Written,
                        Err(StoreError::Superseded { .. }) => Outcome::Superseded,
                        Err(StoreError::OutOfOrder { .. }) => Outcome::OutOfOrder,
                        Err(other) => panic!("{other}"),
                    };
                    assert_eq!(got, due, "{step:?}");
                    if (got, heard) == (Outcome::Written, Heard::Truth) {
                        real.turns.clear();
                    }
                }
            }
            Step::Stop(_) | Step::Tell { .. } | Step::Lose(_) => {}
            Step::GiveUp(_) | Step::Write(_) => {}
        }
        self.compare(after);
    }

    /// The real table takes the turn; it records what the protocol's table records.
    fn decide(&mut self, owner: usize, command: Command, after: &State) {
        let real = &mut self.owners[owner];
        let effects = real.table.as_mut().unwrap().apply(NOW, command);
        let Owner::Up(reign) = &after.owners[owner] else { panic!() };
        let due = reign.turns.last().unwrap();
        assert_eq!(effects.call().0, u64::from(due.call));
        let told: Vec<(Option<usize>, (u8, u8))> = effects
            .records()
            .iter()
            .filter_map(|record| match &record.fact {
                Fact::Granted(granted) => {
                    let whose = self.sessions.iter().position(|one| *one == granted.session);
                    Some((whose, small(granted.token)))
                }
                _ => None,
            })
            .collect();
        match due.entry {
            Some(Entry::Granted { client, token, .. }) => {
                assert_eq!(told, [(Some(client), token)]);
            }
            Some(Entry::Released { .. } | Entry::Forced { .. }) => {
                let is_over =
                    |record: &Record| matches!(&record.fact, Fact::Released { remaining: 0, .. });
                assert!(effects.records().iter().any(is_over), "{:?}", effects.records());
            }
            None => assert!(effects.records().is_empty(), "{:?}", effects.records()),
        }
        real.turns.push(effects);
    }

    /// The hold with this token, or one that is nowhere.
    fn lock_of(&self, owner: usize, token: (u8, u8)) -> LockId {
        let table = self.owners[owner].table.as_ref().unwrap();
        let mut grants = table.list().into_iter().filter_map(|holder| table.grant(holder.lock));
        let found = grants.find(|grant| small(grant.token) == token);
        found.map_or(LockId::from_u128(0), |grant| grant.lock)
    }

    /// Whoever owns the file, or has owned it, carries over what it takes for its own.
    fn tidy(&mut self, owner: usize, after: &State) {
        self.owners[owner].store.tidy();
        self.compare(after);
    }

    /// The file says what the protocol's file says.
    fn compare(&self, state: &State) {
        let meta = "SELECT epoch, max(seq, coalesce((SELECT max(seq) FROM journal
                WHERE journal.project_id = ?1 AND journal.epoch = lock_meta.epoch), 0))
            FROM lock_meta WHERE project_id = ?1";
        let (epoch, seq): (u32, u64) =
            self.file.query_row(meta, [PROJECT], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let due = &state.file;
        assert_eq!(epoch, u32::from(due.epoch) + 1);
        if due.epoch > 0 {
            assert_eq!(seq, u64::from(due.seq));
        }
        let mut seen = Snapshot::read(self.file.path().unwrap()).unwrap();
        let (_, records) = seen.live(PROJECT).unwrap().unwrap();
        let live = records.iter().filter_map(|record| match &record.fact {
            Fact::Granted(granted) => Some(small(granted.token)),
            _ => None,
        });
        let live: Vec<(u8, u8)> = live.collect();
        let held: Vec<(u8, u8)> = due.live.iter().map(|hold| hold.token).collect();
        assert_eq!(live, held);
        let rows = seen.audit(&AuditFilter::default()).unwrap().len();
        assert_eq!(rows, self.before + due.log.len());
    }
}

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// As the protocol counts: without the reign before the first step.
fn small(token: Token) -> (u8, u8) {
    (token.epoch().get() as u8 - 1, token.counter() as u8)
}

fn table(claim: &Claim, records: &[Record]) -> LockTable {
    let Claim { epoch, last_event, .. } = *claim;
    let reign = Reign { epoch, id_seed: u64::from(epoch.get()), last_event };
    let mut table = LockTable::new(TableConfig::default(), reign);
    records.iter().for_each(|record| table.replay(record));
    table
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// I16 and I15 on the real thing: what is refused, what is written, and what is live afterwards
    /// are the same as in the world that was searched.
    #[test]
    fn real_stores_do_what_the_protocol_says(
        choices in prop::collection::vec(any::<u16>(), 10..160),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut both = Both::open(&folder.path().join("locks.db"));
        let world = Protocol::new(BOUNDS, None);
        let mut state = State::default();
        let mut path = Vec::new();
        for choice in choices {
            let mut steps = world.steps(&state);
            // A claim makes an end of much; it is possible everywhere, and should be rarer.
            if choice % 7 > 0 {
                let others = steps.iter().filter(|step| !matches!(step, Step::Claim(_)));
                let others: Vec<Step> = others.copied().collect();
                steps = if others.is_empty() { steps } else { others };
            }
            let Some(step) = steps.get(usize::from(choice) % steps.len().max(1)).copied() else {
                break;
            };
            let next = world.next(&state, step);
            path.push(step);
            let played = catch_unwind(AssertUnwindSafe(|| {
                assert_eq!(next.wrong, None);
                both.play(&state, step, &next, &world);
                for owner in 0..OWNERS {
                    if choice >> (8 + 2 * owner) & 3 == 0 {
                        both.tidy(owner, &next);
                    }
                }
            }));
            prop_assert!(played.is_ok(), "the last step of {path:?}");
            state = next;
        }
    }
}

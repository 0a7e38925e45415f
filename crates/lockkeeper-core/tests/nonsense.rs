//! A journal that was cut, doubled or shuffled must not bring the table down, nor may any command
//! after it: `replay` and `apply` are total.

use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, Command, Credential, DeclareCapacity, DeclareWait,
    Downgrade, EndCause, EndSession, Ledger, LockId, LockMode, LockTable, OpenSession, Record,
    Reign, Release, Resource, SessionId, TableConfig, Timestamp, Upgrade,
};
use proptest::prelude::*;
use std::time::Duration;

const NAMES: [&str; 4] = ["file:a", "file:b", "llm:c", "llm:d"];

/// A short made-up life: every number steers something.
fn live(
    table: &mut LockTable,
    ledger: &mut Ledger<Vec<Record>>,
    known: &mut Known,
    steps: &[(u8, u8, u8)],
) {
    for &(what, who, which) in steps {
        known.now += u64::from(which) * 7;
        let command = known.command(what, who, which);
        let Ok(settled) = table.apply(Timestamp(known.now), command).settle(ledger) else {
            panic!("the journal keeps everything");
        };
        for reply in settled.replies() {
            match &reply.outcome {
                Ok(Answer::SessionOpened { session }) => known.sessions.push(*session),
                Ok(Answer::Granted(grants)) => {
                    known.locks.extend(grants.iter().map(|grant| grant.lock));
                }
                _ => {}
            }
        }
    }
}

#[derive(Clone)]
struct Known {
    now: u64,
    sessions: Vec<SessionId>,
    locks: Vec<LockId>,
}

impl Known {
    fn command(&self, what: u8, who: u8, which: u8) -> Command {
        let session = |at: u8| {
            let at = usize::from(at) % self.sessions.len().max(1);
            self.sessions.get(at).copied().unwrap_or(SessionId::from_u64(0))
        };
        let lock = self.locks.get(usize::from(which) % self.locks.len().max(1)).copied();
        let lock = lock.unwrap_or(LockId::from_u128(0));
        let name = |at: u8| NAMES[usize::from(at) % 4].parse::<Resource>().expect("well formed");
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
            ..AskOptions::default()
        };
        let (me, other) = (session(who), session(which));
        match what % 12 {
            0 | 1 => OpenSession { agent: "a".into(), ..Default::default() }.into(),
            2..=4 => {
                let (resource, mode) = (name(which), mode(which / 4));
                Acquire { session: me, resource, mode, options }.into()
            }
            5 => {
                let wants = vec![(name(which), mode(who)), (name(which / 4), mode(which))];
                AcquireAll { session: me, wants, options }.into()
            }
            6 => Release { by: Credential::Session(me), lock, request_id: None }.into(),
            7 => Upgrade { session: me, lock, options }.into(),
            8 => Downgrade { session: me, lock, mode: mode(which), request_id: None }.into(),
            9 => DeclareWait { session: me, on: other }.into(),
            10 => DeclareCapacity {
                resource: name(2 + which % 2),
                capacity: (!which.is_multiple_of(5)).then_some(u32::from(which) % 5),
            }
            .into(),
            _ => EndSession { session: me, cause: EndCause::OwnerDied }.into(),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec(any::<(u8, u8, u8)>(), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_journal_brings_nothing_down(
        before in steps(),
        after in steps(),
        damage in prop::collection::vec(any::<(u8, u16, u16)>(), 0..12),
    ) {
        let mut known = Known { now: 1_000, sessions: Vec::new(), locks: Vec::new() };
        let mut table = LockTable::new(TableConfig::default(), Reign::first(5));
        let mut ledger = Ledger::new(Vec::new());
        live(&mut table, &mut ledger, &mut known, &before);
        let mut records = ledger.into_journal();
        for (how, at, to) in damage {
            if records.is_empty() {
                break;
            }
            let (at, to) = (usize::from(at) % records.len(), usize::from(to) % records.len());
            match how % 3 {
                0 => {
                    records.remove(at);
                }
                1 => records.swap(at, to),
                _ => records.insert(to, records[at].clone()),
            }
        }
        let mut table = LockTable::new(TableConfig::default(), Reign::first(6));
        for record in &records {
            table.replay(record);
        }
        live(&mut table, &mut Ledger::new(Vec::new()), &mut known, &after);
        // Whatever it was, it can be looked at, and it ends when everybody goes.
        let _ = (table.list(), table.wait_graph().to_mermaid(), table.contention(Timestamp(0)));
        for session in table.sessions() {
            let end = EndSession { session: session.session, cause: EndCause::Closed };
            let _ = table.apply(Timestamp(known.now), end);
        }
        let stats = table.stats();
        prop_assert_eq!((stats.holds, stats.tickets, stats.graph_edges), (0, 0, 0));
        prop_assert_eq!((stats.declared_waits, stats.deadlines, stats.remembered), (0, 0, 0));
    }
}

//! A journal that was cut, doubled or shuffled must not bring the table down, nor may any command
//! after it: `replay` and `apply` are total.

mod life;

use life::{Known, Step};
use lockkeeper_core::{
    DeclareWait, EndCause, EndSession, Fact, Ledger, LockTable, OpenSession, Record, Reign,
    SessionKind, TableConfig, Timestamp, WithdrawWait,
};
use proptest::prelude::*;

fn live(
    table: &mut LockTable,
    ledger: &mut Ledger<Vec<Record>>,
    known: &mut Known,
    steps: &[Step],
) {
    for &step in steps {
        let command = known.command(step);
        let effects = table.apply(Timestamp(known.now), command);
        known.learn(effects.settle(ledger).expect("settled in order").replies());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_journal_brings_nothing_down(
        before in life::steps(80),
        after in life::steps(80),
        damage in prop::collection::vec(any::<(u8, u16, u16)>(), 0..12),
    ) {
        let mut known = Known { now: 1_000, is_fleeting: true, ..Known::default() };
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

/// A journal that tells twice how a session became idle: its time goes on, and it ends.
#[test]
fn an_idle_session_ends_also_if_its_journal_was_doubled() {
    let mut table = LockTable::new(TableConfig::default(), Reign::first(5));
    let mut ledger = Ledger::new(Vec::new());
    for (agent, kind) in [("ann", SessionKind::Detached), ("bob", SessionKind::Attached)] {
        let open = OpenSession { agent: agent.into(), kind, ..OpenSession::default() };
        let _ = table.apply(Timestamp(0), open).settle(&mut ledger).expect("in order");
    }
    let [ann, bob] = &table.sessions()[..] else { panic!("two were opened") };
    let (session, on) = (ann.session, bob.session);
    let at = Timestamp(1_000);
    let _ = table.apply(at, DeclareWait { session, on }).settle(&mut ledger).expect("in order");
    let _ = table.apply(at, WithdrawWait { session, on }).settle(&mut ledger).expect("in order");
    let records = ledger.into_journal();
    let last = records.last().expect("recorded");
    assert_eq!(last.fact, Fact::WaitWithdrawn { session, on });
    let mut doubled = LockTable::new(TableConfig::default(), Reign::first(6));
    for record in records.iter().chain([last]) {
        doubled.replay(record);
    }
    let end = table.next_deadline().expect("it is idle");
    assert_eq!(doubled.next_deadline(), Some(end));
    let end = Timestamp(end.0 + 1);
    let _ = doubled.apply(end, lockkeeper_core::Command::Tick);
    assert_eq!(doubled.agent_of(session), None);
}

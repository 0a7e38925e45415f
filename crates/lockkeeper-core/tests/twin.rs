//! A table rebuilt from its journal goes on exactly like the one that was lost (I15, I20): the same
//! records, the same victims, whatever else its memory has seen before.

mod life;

use life::Known;
use lockkeeper_core::{
    EndCause, Epoch, Fact, Forgetful, Granted, Ledger, LockId, LockMode, LockTable, Queued, Record,
    Reign, Resource, SessionId, SessionKind, TableConfig, TicketId, Timestamp, Token,
};
use proptest::prelude::*;
use std::time::Duration;

fn table(grace: bool) -> LockTable {
    let grace = Duration::from_millis(if grace { 400 } else { 0 });
    LockTable::new(TableConfig { grace, ..TableConfig::default() }, Reign::first(5))
}

/// Lets sessions of an earlier epoch come, hold, wait for each other and go in an order of their
/// own, so that every arena and the graph have a history, and places are handed out crosswise.
fn unsettle_memory(table: &mut LockTable, leave: &[u8]) {
    let count = leave.len() as u32;
    let session = |n: u32| SessionId::new(Epoch::new(0), n);
    let resource = |n: u32| Resource::file(&format!("before-{n}"));
    let mut replay = |fact| table.replay(&Record { at: Timestamp(0), fact });
    for n in 0..count {
        replay(Fact::SessionOpened {
            session: session(n),
            agent: "before".into(),
            kind: SessionKind::Attached,
            priority: 0,
            birth: None,
            aborts: 0,
        });
        replay(Fact::Granted(Granted {
            lock: LockId::from_u128(u128::from(n)),
            ticket: TicketId::new(Epoch::new(0), n),
            session: session(n),
            resource: resource(n),
            mode: LockMode::Exclusive,
            token: Token::new(Epoch::new(0), n),
            slots: Vec::new(),
            lease_ms: 1,
            expires_at: Timestamp::NEVER,
            wait_ms: 0,
            reason: None,
            metadata: None,
            request_id: None,
            fleeting: false,
        }));
    }
    for n in 0..count {
        replay(Fact::Queued(Box::new(Queued {
            ticket: TicketId::new(Epoch::new(0), 1_000 + n),
            session: session(n),
            wants: vec![(resource((n + 1) % count), LockMode::Exclusive)],
            built_on: Vec::new(),
            upgrade: false,
            wait_until: Timestamp::NEVER,
            lease_ms: 1,
            priority: 0,
            reason: None,
            metadata: None,
            request_id: None,
        })));
    }
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_key(|&n| leave[n as usize]);
    for n in order {
        let (session, agent, cause) = (session(n), "before".into(), EndCause::Closed);
        replay(Fact::SessionEnded { session, agent, cause });
    }
    assert_eq!(table.stats(), lockkeeper_core::Stats::default());
}

/// The same step without a slice, which is routing and in no journal; and mostly asking for locks,
/// so that there are many cycles, and several at once to choose from.
fn crowded((what, who, which): life::Step) -> life::Step {
    const ACQUIRE: u8 = 2;
    let what = if what > 100 { ACQUIRE } else { what };
    (what, if who.is_multiple_of(7) { who ^ 1 } else { who }, which)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_rebuilt_table_goes_on_like_the_lost_one(
        before in life::steps(120),
        after in life::steps(120),
        history in prop::collection::vec(any::<u8>(), 2..30),
        grace: bool,
    ) {
        let mut known = Known { now: 1_000, is_fleeting: true, ..Known::default() };
        let mut lost = table(grace);
        let mut ledger = Ledger::new(Vec::new());
        for step in before {
            let command = known.command(crowded(step));
            let effects = lost.apply(Timestamp(known.now), command);
            known.learn(effects.settle(&mut ledger).expect("settled in order").replies());
        }
        let mut rebuilt = table(grace);
        unsettle_memory(&mut rebuilt, &history);
        for record in ledger.journal() {
            rebuilt.replay(record);
        }
        let mut other = Ledger::new(Forgetful);
        for step in after {
            let command = known.command(crowded(step));
            let live = lost.apply(Timestamp(known.now), command.clone());
            let twin = rebuilt.apply(Timestamp(known.now), command);
            prop_assert_eq!(live.records(), twin.records());
            let live = live.settle(&mut ledger).expect("settled in order");
            let _ = twin.settle(&mut other).expect("settled in order");
            known.learn(live.replies());
        }
        prop_assert_eq!(lost.list(), rebuilt.list());
        prop_assert_eq!(lost.sessions(), rebuilt.sessions());
        prop_assert_eq!(lost.wait_graph(), rebuilt.wait_graph());
        prop_assert_eq!(lost.next_deadline(), rebuilt.next_deadline());
    }
}

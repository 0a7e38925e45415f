//! A table rebuilt from what is live (one row for each session, hold and ticket, as a store keeps
//! them) is the one that its whole journal gives, and decides the same.

mod life;
mod rows;

use life::Known;
use lockkeeper_core::{
    Answer, Command, Epoch, Forgetful, Ledger, LockTable, Record, Refusal, Reign, Resume,
    SessionView, TableConfig, Timestamp,
};
use proptest::prelude::*;
use rows::Rows;
use std::time::Duration;

fn table(grace: bool, reign: Reign) -> LockTable {
    let grace = Duration::from_millis(if grace { 400 } else { 0 });
    let mut config = TableConfig {
        grace,
        session_idle: Duration::from_secs(5),
        ticket_grace: Duration::from_secs(3),
        ..TableConfig::default()
    };
    config.limits.remembered_per_session = 5;
    LockTable::new(config, reign)
}

/// The same step, but mostly asking for locks, so that there are holds, queues and cycles.
fn crowded((what, who, which): life::Step) -> life::Step {
    const ACQUIRE: u8 = 2;
    const CLAIM: u8 = 14;
    let what = match what {
        0..=80 => what,
        81..=110 => CLAIM,
        _ => ACQUIRE,
    };
    (what, who, which)
}

fn rebuilt(grace: bool, reign: Reign, records: &[Record]) -> LockTable {
    let mut table = table(grace, reign);
    for record in records {
        table.replay(record);
    }
    table
}

/// What a command is told, save what a remembered refusal says beside its code.
fn words(outcome: &Result<Answer, Refusal>) -> Result<Answer, &'static str> {
    outcome.clone().map_err(|refusal| refusal.code())
}

fn sessions(table: &LockTable, with_births: bool) -> Vec<SessionView> {
    let mut sessions = table.sessions();
    for session in sessions.iter_mut().filter(|_| !with_births) {
        (session.birth, session.aborts) = (None, 0);
    }
    sessions
}

fn compare(one: &LockTable, other: &LockTable, with_births: bool) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.list(), other.list());
    prop_assert_eq!(one.resources(), other.resources());
    prop_assert_eq!(one.tasks(), other.tasks());
    for resource in one.resources() {
        prop_assert_eq!(one.inspect(&resource), other.inspect(&resource));
    }
    for holder in one.list() {
        prop_assert_eq!(one.grant(holder.lock), other.grant(holder.lock));
    }
    prop_assert_eq!(sessions(one, with_births), sessions(other, with_births));
    prop_assert_eq!(one.wait_graph(), other.wait_graph());
    prop_assert_eq!(one.stats(), other.stats());
    prop_assert_eq!(one.next_deadline(), other.next_deadline());
    Ok(())
}

fn config() -> ProptestConfig {
    // PROPTEST_CASES asks for more.
    let cases = ProptestConfig::default().cases.max(600);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn live_rows_tell_as_much_as_the_journal(
        before in life::steps(160),
        after in life::steps(60),
        pause in 0..400_000_u64,
        grace: bool,
        orphaned: bool,
    ) {
        let mut known = Known { now: 1_000, patience: 30, is_fleeting: true, ..Known::default() };
        let mut lost = table(grace, Reign::first(5));
        let (mut ledger, mut rows) = (Ledger::new(Vec::new()), Rows::new(5));
        for step in before {
            let effects = lost.apply(Timestamp(known.now), known.command(crowded(step)));
            rows.see(effects.records());
            known.learn(effects.settle(&mut ledger).expect("settled in order").replies());
        }
        let reign = Reign { epoch: Epoch::new(2), id_seed: 99, last_event: lost.last_event() };
        let (live, is_exact) = rows.tell(&lost.sessions());
        let mut short = rebuilt(grace, reign, &live);
        let mut full = rebuilt(grace, reign, ledger.journal());
        known.now += pause;
        let (mut one, mut other) = (Ledger::new(Forgetful), Ledger::new(Forgetful));
        let resume = Command::from(Resume { orphaned });
        let mut commands = vec![(known.now, resume)];
        for step in after {
            let command = known.command(crowded(step));
            commands.push((known.now, command));
        }
        for (now, command) in commands {
            let got = short.apply(Timestamp(now), command.clone());
            let due = full.apply(Timestamp(now), command.clone());
            prop_assert_eq!(got.records(), due.records());
            let got = got.settle(&mut one).expect("settled in order");
            let due = due.settle(&mut other).expect("settled in order");
            let said = |settled: &lockkeeper_core::Settled| -> Vec<_> {
                let replies = settled.replies().iter();
                replies.map(|reply| (reply.call, words(&reply.outcome))).collect()
            };
            prop_assert_eq!(said(&got), said(&due));
            compare(&short, &full, is_exact)?;
            if !is_exact {
                // Rows cannot tell everything about the age of work: victims may differ.
                return Ok(());
            }
        }
    }

    /// Whoever is outdated must not serve; but it must not fall over either.
    #[test]
    fn a_journal_of_a_newer_epoch_brings_nothing_down(
        before in life::steps(160),
        after in life::steps(160),
        orphaned: bool,
    ) {
        let newest = Reign { epoch: Epoch::new(9), id_seed: 4, last_event: 0 };
        let mut known = Known { patience: 30, is_fleeting: true, ..Known::default() };
        let mut ledger = Ledger::new(Vec::new());
        let mut newer = table(false, newest);
        for step in before {
            let effects = newer.apply(Timestamp(known.now), known.command(crowded(step)));
            known.learn(effects.settle(&mut ledger).expect("settled in order").replies());
        }
        let mut older = rebuilt(false, Reign::first(5), ledger.journal());
        let mut again = Ledger::new(Forgetful);
        let effects = older.apply(Timestamp(known.now), Resume { orphaned });
        let _ = effects.settle(&mut again).expect("settled in order");
        for step in after {
            let effects = older.apply(Timestamp(known.now), known.command(crowded(step)));
            known.learn(effects.settle(&mut again).expect("settled in order").replies());
        }
        prop_assert_eq!(older.wait_graph().edges.len(), older.stats().graph_edges);
    }
}

//! A table rebuilt from what is live (one row for each session, hold and ticket, as a store keeps
//! them) is the one that its whole journal gives, and decides the same.

mod life;
mod rows;

use life::Known;
use lockkeeper_core::{
    Answer, Command, Epoch, Forgetful, Ledger, LockTable, OpenSession, Record, Refusal, Reign,
    Resume, SessionView, TableConfig, Timestamp,
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
    (if what > 70 { ACQUIRE } else { what }, who, which)
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
        let mut known = Known { now: 1_000, patience: 30, ..Known::default() };
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
}

#[test]
fn a_journal_of_a_newer_epoch_brings_nothing_down() {
    let mut newer = table(false, Reign { epoch: Epoch::new(9), id_seed: 4, last_event: 0 });
    let (mut ledger, mut known) = (Ledger::new(Vec::new()), Known::default());
    let mut seed = 1_u32;
    let mut steps = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed.to_be_bytes()[0], seed.to_be_bytes()[1], seed.to_be_bytes()[2])
    });
    let mut drive = |table: &mut LockTable, known: &mut Known, ledger: &mut Ledger<Vec<Record>>| {
        for step in steps.by_ref().take(400) {
            let effects = table.apply(Timestamp(known.now), known.command(crowded(step)));
            known.learn(effects.settle(ledger).expect("settled in order").replies());
        }
    };
    drive(&mut newer, &mut known, &mut ledger);
    assert!(newer.stats().holds > 0 && newer.stats().tickets > 0, "{:?}", newer.stats());
    let mut older = rebuilt(false, Reign::first(5), ledger.journal());
    let mut again = Ledger::new(Vec::new());
    let effects = older.apply(Timestamp(known.now), Resume { orphaned: false });
    let _ = effects.settle(&mut again).expect("settled in order");
    drive(&mut older, &mut known, &mut again);
    let open = OpenSession { agent: "late".into(), ..OpenSession::default() };
    let _ = older.apply(Timestamp(known.now), open).settle(&mut again).expect("settled in order");
}

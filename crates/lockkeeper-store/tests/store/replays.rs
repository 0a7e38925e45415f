//! What is written gives the table back: the whole story (I15), and the live rows (I11, I17).

use crate::life::{self, Project, Step, carry_over, open, picture, rebuilt};
use lockkeeper_core::*;
use lockkeeper_store::{Claim, Store};
use proptest::prelude::*;
use rusqlite::Connection;
use std::{collections::HashMap, path::Path};

fn config() -> ProptestConfig {
    // PROPTEST_CASES asks for more.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(60),
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// I15, and recovery: at each restart the table rebuilt from live rows is the one that was
    /// lost, and resumes like the one that the whole history gives; at the end the history gives
    /// the table once more.
    #[test]
    fn i15_history_and_live_rows_give_the_table_back(
        steps in life::steps(260),
        restart_every in 20..120_usize,
        group in 1..6_usize,
        pause in 0..20_000_u64,
        orphaned: bool,
        is_fleeting: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        let mut store = open(&path);
        let mut project = Project::take_over(&mut store, "p");
        project.known.is_fleeting = is_fleeting;
        let (mut records, mut sight) = (0, Sight { ages: true, memory: !is_fleeting });
        for (at, steps) in steps.chunks(group).enumerate() {
            let turns: Vec<Effects> = steps.iter().map(|step| one(&mut project, *step)).collect();
            records += count(&turns);
            project.commit(&mut store, turns).unwrap();
            if (at + 1) % restart_every.div_ceil(group) == 0 {
                drop(store);
                store = open(&path);
                let lost = project;
                sight = sight.after_a_loss_of(&lost.table);
                project = Project::take_over(&mut store, "p");
                project.known = lost.known;
                same("live rows", &lost.table, &project.table, sight)?;
                project.known.now += pause;
                records += resume_twice(&mut project, &mut store, orphaned, sight)?;
            }
        }
        carry_over(&mut store);
        check_rows(&path, &project.table, records)?;
        let history = store.reader().unwrap().history("p").unwrap();
        prop_assert_eq!(history.len(), records, "one row a fact");
        let again = rebuilt(&project.claim, &history);
        same("history", &project.table, &again, sight)?;
    }
}

fn count(turns: &[Effects]) -> usize {
    turns.iter().map(|turn| turn.records().len()).sum()
}

/// Resumes the table that live rows gave and the one that the history gives: they decide the same,
/// and no lease gets shorter by it (I17).
fn resume_twice(
    project: &mut Project,
    store: &mut dyn Store,
    orphaned: bool,
    sight: Sight,
) -> Result<usize, TestCaseError> {
    let history = store.reader().unwrap().history("p").unwrap();
    let mut twin = rebuilt(&project.claim, &history);
    let before: HashMap<LockId, Timestamp> =
        project.table.list().iter().map(|holder| (holder.lock, holder.expires_at)).collect();
    let turn = project.apply(Resume { orphaned });
    let other = twin.apply(Timestamp(project.known.now), Resume { orphaned });
    if sight.ages {
        prop_assert_eq!(turn.records(), other.records());
    }
    for holder in project.table.list() {
        let had = before.get(&holder.lock).copied().unwrap_or_default();
        prop_assert!(holder.expires_at >= had, "I17");
    }
    let records = turn.records().len();
    project.commit(store, vec![turn]).unwrap();
    // What was written of it is what the table made of it.
    let claim: Claim = project.claim.clone();
    let written = rebuilt(&claim, &store.load(&claim).unwrap());
    same("resumed rows", &project.table, &written, sight.after_a_loss_of(&project.table))?;
    Ok(records)
}

/// How closely two tables are to be compared.
#[derive(Clone, Copy)]
struct Sight {
    /// Whether the age of everybody's work is known exactly. Rows do not tell it of a session that
    /// has nothing but waits left of work that began before them: there it comes out as a victim's
    /// would.
    ages: bool,
    /// Whether everything is remembered that was asked for: what is fleeting goes with its hold.
    memory: bool,
}

impl Sight {
    fn after_a_loss_of(self, table: &LockTable) -> Sight {
        let is_lost = |one: &SessionView| {
            let waits = !one.tickets.is_empty() || !one.declared.is_empty();
            let is_younger = one.declared.is_empty() && one.birth != one.tickets.first().copied();
            one.holds == 0 && waits && (is_younger || one.aborts > 0)
        };
        Sight { ages: self.ages && !table.sessions().iter().any(is_lost), ..self }
    }
}

fn one(project: &mut Project, step: Step) -> Effects {
    let command = project.known.command(&project.table, step);
    project.apply(command)
}

/// Two tables show the same; if not, the first lines that differ.
fn same(
    what: &str,
    live: &LockTable,
    other: &LockTable,
    sight: Sight,
) -> Result<(), TestCaseError> {
    let picture = |table| {
        let whole = picture(table, sight.ages);
        let is_seen = |line: &&str| sight.memory || !line.trim_start().starts_with("remembered:");
        whole.lines().filter(is_seen).collect::<Vec<_>>().join("\n")
    };
    let (live, other) = (picture(live), picture(other));
    let differ = live.lines().zip(other.lines()).position(|(a, b)| a != b);
    let around = |text: &str| {
        let from = differ.unwrap_or(0).saturating_sub(25);
        text.lines().skip(from).take(40).collect::<Vec<_>>().join("\n")
    };
    prop_assert!(live == other, "{what}, live:\n{}\nother:\n{}", around(&live), around(&other));
    Ok(())
}

/// The live rows are as many as the table has, and nothing else is live.
fn check_rows(path: &Path, table: &LockTable, records: usize) -> Result<(), TestCaseError> {
    let db = Connection::open(path).unwrap();
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, usize>(0)).unwrap();
    let stats = table.stats();
    prop_assert_eq!(
        count("SELECT count(*) FROM resource_locks WHERE released_at IS NULL"),
        stats.holds
    );
    prop_assert_eq!(count("SELECT count(*) FROM lock_tickets"), stats.tickets);
    prop_assert_eq!(count("SELECT count(*) FROM sessions"), stats.sessions);
    prop_assert_eq!(count("SELECT count(*) FROM declared_waits"), stats.declared_waits);
    prop_assert_eq!(count("SELECT count(*) FROM resource_capacities"), stats.capacities);
    prop_assert_eq!(count("SELECT count(*) FROM audit_log"), records);
    let cause = "SELECT count(*) FROM resource_locks
        WHERE (released_at IS NULL) <> (release_cause IS NULL)
            OR (released_at IS NULL) <> (released_by IS NULL)";
    prop_assert_eq!(count(cause), 0);
    Ok(())
}

#[test]
fn nothing_is_known_of_a_life_that_was_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let _ = project.apply(life::ask(ann, "file:a"));
    drop(store);
    let mut store = open(&path);
    let project = Project::take_over(&mut store, "p");
    assert_eq!((project.table.stats().sessions, project.table.stats().holds), (1, 0));
}

/// So that nobody believes the lives above while they tell nothing.
#[test]
fn the_made_up_lives_know_every_kind_of_fact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let mut number = 1_u64;
    let mut byte = || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (number >> 40) as u8
    };
    for _ in 0..3_000 {
        let turns = (0..2).map(|_| one(&mut project, (byte(), byte(), byte()))).collect();
        project.commit(&mut store, turns).unwrap();
    }
    let db = Connection::open(&path).unwrap();
    let mut kinds = db.prepare("SELECT event_type, count(*) FROM audit_log GROUP BY 1").unwrap();
    let kinds = kinds.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?)));
    let kinds: Vec<(String, u32)> = kinds.unwrap().map(Result::unwrap).collect();
    let told: Vec<&str> = kinds.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected = [
        "capacity_declared",
        "deadlock_detected",
        "force_release",
        "lease_expired",
        "lock_converted",
        "lock_counted_down",
        "lock_granted",
        "lock_reentered",
        "lock_released",
        "lock_renewed",
        "lock_revoked",
        "lock_revoking",
        "lock_waiting",
        "session_ended",
        "session_opened",
        "ticket_polled",
        "wait_declared",
        "wait_left",
        "wait_withdrawn",
    ];
    for kind in expected {
        assert!(told.contains(&kind), "no {kind} in {kinds:?}");
    }
}

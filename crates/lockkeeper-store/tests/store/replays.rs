//! What is written gives the table back: the whole story (I15), and the live rows (I11, I17).

use crate::life::{self, Known, Project, Step, open, picture, rebuilt};
use lockkeeper_core::*;
use lockkeeper_store::Store;
use proptest::prelude::*;
use rusqlite::Connection;
use std::path::Path;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, max_shrink_time: 15_000, ..ProptestConfig::default() })]

    /// I15, and recovery: at each restart the table rebuilt from live rows is the one that was
    /// lost, and at the end the whole history gives that table once more.
    #[test]
    fn i15_history_and_live_rows_give_the_table_back(
        steps in life::steps(220),
        restart_every in 20..120_usize,
        group in 1..9_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        let mut store = open(&path);
        let mut project = Project::take_over(&mut store, "p");
        let mut records = 0;
        for (at, steps) in steps.chunks(group).enumerate() {
            let turns: Vec<Effects> = steps.iter().map(|step| one(&mut project, *step)).collect();
            records += turns.iter().map(|turn| turn.records().len()).sum::<usize>();
            project.commit(&mut store, turns).unwrap();
            if (at + 1) % restart_every.div_ceil(group) == 0 {
                drop(store);
                store = open(&path);
                let known = project.known.clone();
                let lost = project.table;
                project = Project::take_over(&mut store, "p");
                project.known = known;
                same("live rows", &lost, &project.table)?;
            }
        }
        check_rows(&path, &project.table, records)?;
        let history = store.reader().unwrap().history("p").unwrap();
        prop_assert_eq!(history.len(), records, "one row a fact");
        let again = rebuilt(&project.claim, &history);
        same("history", &project.table, &again)?;
    }
}

fn one(project: &mut Project, step: Step) -> Effects {
    let command = project.known.command(&project.table, step);
    project.apply(command)
}

/// Two tables show the same; if not, the first lines that differ.
fn same(what: &str, live: &LockTable, other: &LockTable) -> Result<(), TestCaseError> {
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
    let _ = Known::default();
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
    println!("{kinds:#?}");
}

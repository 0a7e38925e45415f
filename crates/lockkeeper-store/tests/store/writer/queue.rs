//! Group commit, and who is told when.

use super::{Fate, all, claim, gated, submit, table, turn};
use crate::life::{ask, give_back, open};
use lockkeeper_core::*;
use lockkeeper_store::{CommitStats, MemoryStore, Store, StoreError, Writer, WriterOptions};
use std::sync::{Arc, Mutex, mpsc::channel};

#[test]
fn nobody_is_told_before_it_is_written() {
    let (writer, gate) = gated(WriterOptions::default());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    submit(&writer, &claim, turn(&mut table), "first", &told);
    let after = told.clone();
    writer.after(&claim, move |outcome| after.send(("after", outcome)).unwrap());
    gate.wait(|state| state.came.len() == 1);
    assert_eq!(all(&hears), [], "it stands before the gate");
    gate.open();
    writer.close();
    assert_eq!(all(&hears), [("first", Ok(())), ("after", Ok(()))]);
}

#[test]
fn what_queues_up_during_a_commit_goes_into_the_next_one_together() {
    let (writer, gate) = gated(WriterOptions::default());
    let (p, q) = (claim(&writer, "p"), claim(&writer, "q"));
    let (mut of_p, mut of_q) = (table(&p), table(&q));
    let (told, hears) = channel();
    submit(&writer, &p, turn(&mut of_p), "p", &told);
    gate.wait(|state| state.came.len() == 1);
    for _ in 0..30 {
        submit(&writer, &p, turn(&mut of_p), "p", &told);
        submit(&writer, &q, turn(&mut of_q), "q", &told);
        submit(&writer, &q, turn(&mut of_q), "q", &told);
    }
    gate.open();
    writer.close();
    let of = |project: &str, turns| (project.to_owned(), turns);
    assert_eq!(gate.came(), [vec![of("p", 1)], vec![of("p", 30), of("q", 60)]]);
    let heard = all(&hears);
    assert!(heard.iter().all(|(_, outcome)| outcome.is_ok()));
    let order: Vec<&str> = heard.iter().map(|(name, _)| *name).collect();
    let mut expected = vec!["p"];
    (0..30).for_each(|_| expected.extend(["p", "q", "q"]));
    assert_eq!(order, expected, "in the order in which they came");
}

#[test]
fn a_commit_has_a_most() {
    let observed = Arc::new(Mutex::new(Vec::new()));
    let seen = observed.clone();
    let observe = move |stats: CommitStats| seen.lock().unwrap().push(stats);
    let options =
        WriterOptions { batch_max: 4, observe: Some(Box::new(observe)), ..Default::default() };
    let (writer, gate) = gated(options);
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, _hears) = channel();
    submit(&writer, &claim, turn(&mut table), "", &told);
    gate.wait(|state| state.came.len() == 1);
    (0..10).for_each(|_| submit(&writer, &claim, turn(&mut table), "", &told));
    gate.open();
    writer.close();
    let sizes: Vec<usize> = gate.came().iter().map(|commit| commit[0].1).collect();
    assert_eq!(sizes, [1, 4, 4, 2]);
    let observed = observed.lock().unwrap();
    let told: Vec<_> = observed.iter().map(|one| (one.turns, one.records, one.failed)).collect();
    assert_eq!(told, [(1, 1, false), (4, 4, false), (4, 4, false), (2, 2, false)]);
}

#[test]
fn a_failed_commit_ends_its_claims_and_nobody_is_told_that_it_is_well() {
    let (writer, gate) = gated(WriterOptions::default());
    let (p, q) = (claim(&writer, "p"), claim(&writer, "q"));
    let (mut of_p, mut of_q) = (table(&p), table(&q));
    let (told, hears) = channel();
    submit(&writer, &p, turn(&mut of_p), "p1", &told);
    gate.wait(|state| state.came.len() == 1);
    submit(&writer, &p, turn(&mut of_p), "p2", &told);
    let after = told.clone();
    writer.after(&p, move |outcome| after.send(("after p2", outcome)).unwrap());
    submit(&writer, &p, turn(&mut of_p), "p3", &told);
    let full = StoreError::Full { path: "x".into() };
    gate.pass(Fate::Passes);
    gate.wait(|state| state.came.len() == 2);
    gate.pass(Fate::Fails(full.clone()));
    // Once it has failed, nothing of the claim goes to the store any more; the others go on.
    submit(&writer, &p, turn(&mut of_p), "p4", &told);
    let after = told.clone();
    writer.after(&p, move |outcome| after.send(("after p4", outcome)).unwrap());
    submit(&writer, &q, turn(&mut of_q), "q1", &told);
    gate.open();
    let p = claim(&writer, "p");
    submit(&writer, &p, turn(&mut table(&p)), "p again", &told);
    writer.close();
    let failed = || Err(full.clone());
    let expected = [
        ("p1", Ok(())),
        ("p2", failed()),
        ("after p2", failed()),
        ("p3", failed()),
        ("p4", failed()),
        ("after p4", failed()),
        ("q1", Ok(())),
        ("p again", Ok(())),
    ];
    assert_eq!(all(&hears), expected);
    let of = |project: &str, turns| vec![(project.to_owned(), turns)];
    assert_eq!(gate.came(), [of("p", 1), of("p", 2), of("q", 1), of("p", 1)]);
}

#[test]
fn a_claim_comes_after_what_was_submitted_before_it_and_ends_the_older_one() {
    let (writer, gate) = gated(WriterOptions::default());
    let old = claim(&writer, "p");
    let mut of_old = table(&old);
    let (told, hears) = channel();
    submit(&writer, &old, turn(&mut of_old), "old", &told);
    gate.wait(|state| state.came.len() == 1);
    submit(&writer, &old, turn(&mut of_old), "old, queued", &told);
    let (newer, claimed) = channel();
    let also = told.clone();
    writer.claim("p".into(), move |outcome| {
        also.send(("claim", Ok(()))).unwrap();
        newer.send(outcome.unwrap().0).unwrap();
    });
    submit(&writer, &old, turn(&mut of_old), "old, late", &told);
    gate.open();
    let newest = claimed.recv().unwrap();
    assert_eq!((old.epoch.get(), newest.epoch.get()), (1, 2));
    submit(&writer, &newest, turn(&mut table(&newest)), "new", &told);
    writer.close();
    let heard = all(&hears);
    let names: Vec<&str> = heard.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["old", "old, queued", "claim", "old, late", "new"]);
    let outcomes: Vec<bool> = heard.iter().map(|(_, outcome)| outcome.is_ok()).collect();
    assert_eq!(outcomes, [true, true, true, false, true], "I16");
    assert!(matches!(heard[3].1, Err(StoreError::Superseded { .. })), "{:?}", heard[3]);
}

#[test]
fn a_turn_out_of_its_place_is_refused_with_all_that_follow() {
    let (writer, gate) = gated(WriterOptions::default());
    gate.open();
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    submit(&writer, &claim, turn(&mut table), "first", &told);
    drop(turn(&mut table));
    submit(&writer, &claim, turn(&mut table), "third", &told);
    submit(&writer, &claim, turn(&mut table), "fourth", &told);
    writer.close();
    let heard = all(&hears);
    // Whether the first went in a commit of its own or failed with them: never the others.
    assert_eq!(heard.len(), 3);
    for (name, outcome) in &heard[1..] {
        assert!(matches!(outcome, Err(StoreError::OutOfOrder { .. })), "{name}: {outcome:?}");
    }
}

#[test]
fn a_panic_in_a_then_or_in_the_store_takes_nobody_else_with_it() {
    let observe = |_: CommitStats| panic!("as the test wants it");
    let options = WriterOptions { observe: Some(Box::new(observe)), ..WriterOptions::default() };
    let (writer, gate) = gated(options);
    let (p, q) = (claim(&writer, "p"), claim(&writer, "q"));
    let (mut of_p, mut of_q) = (table(&p), table(&q));
    let (told, hears) = channel();
    writer.submit(&p, turn(&mut of_p), |_| panic!("as the test wants it"));
    submit(&writer, &p, turn(&mut of_p), "p2", &told);
    gate.pass(Fate::Passes);
    gate.pass(Fate::Passes);
    // Both may have come in one commit or in two.
    let (ready, waits) = channel();
    writer.after(&p, move |_| ready.send(()).unwrap());
    waits.recv().unwrap();
    gate.change(|state| state.fates.clear());
    gate.pass(Fate::Panics);
    submit(&writer, &q, turn(&mut of_q), "q1", &told);
    let (ready, waits) = channel();
    writer.after(&q, move |_| ready.send(()).unwrap());
    waits.recv().unwrap();
    gate.open();
    submit(&writer, &p, turn(&mut of_p), "p3", &told);
    writer.close();
    let heard = all(&hears);
    assert_eq!((&heard[0], &heard[2]), (&("p2", Ok(())), &("p3", Ok(()))));
    assert!(matches!(heard[1], ("q1", Err(StoreError::Io { .. }))), "{:?}", heard[1]);
}

#[test]
fn closing_from_a_then_does_not_wait_for_itself() {
    let (writer, gate) = gated(WriterOptions::default());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    let (inner, also) = (writer.clone(), told.clone());
    writer.submit(&claim, turn(&mut table), move |outcome| {
        inner.close();
        assert!(inner.reader().is_ok(), "it is still writing");
        also.send(("closes", outcome.map(drop))).unwrap();
    });
    gate.wait(|state| state.came.len() == 1);
    submit(&writer, &claim, turn(&mut table), "queued", &told);
    gate.open();
    writer.close();
    assert!(gate.state.lock().unwrap().dropped, "the store is free");
    submit(&writer, &claim, turn(&mut table), "late", &told);
    let late = told.clone();
    writer.after(&claim, move |outcome| late.send(("after", outcome)).unwrap());
    let (claimed, waits) = channel();
    writer.claim("p".into(), move |outcome| claimed.send(outcome.is_err()).unwrap());
    assert!(waits.recv().unwrap());
    let closed = || Err(StoreError::Closed);
    let expected =
        [("closes", Ok(())), ("queued", Ok(())), ("late", closed()), ("after", closed())];
    assert_eq!(all(&hears), expected);
    assert!(matches!(writer.reader(), Err(StoreError::Closed)));
    writer.close();
}

#[test]
fn the_last_handle_ends_the_thread_after_everything_is_written() {
    let (writer, gate) = gated(WriterOptions::default());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    submit(&writer, &claim, turn(&mut table), "first", &told);
    gate.wait(|state| state.came.len() == 1);
    // The last handle may even be dropped by a `then`, on the writer's own thread.
    let last = writer.clone();
    writer.submit(&claim, turn(&mut table), move |_| drop(last));
    submit(&writer, &claim, turn(&mut table), "third", &told);
    drop(writer);
    assert!(!gate.state.lock().unwrap().dropped, "dropping does not wait, nor cut short");
    gate.open();
    gate.wait(|state| state.dropped);
    assert_eq!(all(&hears), [("first", Ok(())), ("third", Ok(()))]);
}

/// Whoever has claimed before the writer began hands in turns like others; the newest claim counts,
/// whichever the writer has seen first.
#[test]
fn claims_from_before_the_writer_are_known_by_their_epoch() {
    let mut store = MemoryStore::new();
    let [old, other, new] = ["p", "q", "p"].map(|project| store.claim(project).unwrap());
    let writer = Writer::start(Box::new(store), WriterOptions::default()).unwrap();
    let mut tables = [&old, &other, &new].map(table);
    let (told, hears) = channel();
    for (at, claim) in [&old, &other, &new, &old, &other, &new].into_iter().enumerate() {
        submit(&writer, claim, turn(&mut tables[at % 3]), "told", &told);
    }
    writer.close();
    let (project, epoch, newest) = (old.project.clone(), old.epoch, new.epoch);
    let over = || Err(StoreError::Superseded { project: project.clone(), epoch, newest });
    let told: Vec<_> = all(&hears).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(told, [over(), Ok(()), Ok(()), over(), Ok(()), Ok(())]);
}

/// From end to end: agents on many threads, a real file, and what they were told is there after.
#[test]
fn what_was_told_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let writer = Writer::start(Box::new(open(&path)), WriterOptions::default()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|nth| {
            let writer = writer.clone();
            std::thread::spawn(move || an_agent(&writer, nth))
        })
        .collect();
    let mut held: Vec<(String, Grant)> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    writer.close();
    let db = rusqlite::Connection::open(&path).unwrap();
    let mut rows =
        db.prepare("SELECT project_id, id FROM resource_locks WHERE released_at IS NULL").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut rows: Vec<(String, String)> = rows.map(Result::unwrap).collect();
    rows.sort();
    held.sort_by_key(|(project, grant)| (project.clone(), grant.lock));
    let held: Vec<(String, String)> =
        held.into_iter().map(|(project, grant)| (project, grant.lock.to_string())).collect();
    assert_eq!(rows, held);
    drop(open(&path));
}

/// Takes and gives back; returns what it holds in the end.
fn an_agent(writer: &Writer, nth: u64) -> Vec<(String, Grant)> {
    let project = format!("project {nth}");
    let claim = claim(writer, &project);
    let reign = Reign { epoch: claim.epoch, ..Reign::first(100 + nth) };
    let mut table = LockTable::new(TableConfig::default(), reign);
    let (told, hears) = channel();
    let mut ask_and_wait = |command: Command| {
        let told = told.clone();
        let turn = table.apply(Timestamp(1_000_000), command);
        writer.submit(&claim, turn, move |settled| {
            told.send(settled.unwrap().into_parts().0.remove(0).outcome.unwrap()).unwrap();
        });
        hears.recv().unwrap()
    };
    let Answer::SessionOpened { session } = ask_and_wait(OpenSession::default().into()) else {
        panic!()
    };
    let mut held = Vec::new();
    for n in 0..60 {
        let Answer::Granted(grants) = ask_and_wait(ask(session, &format!("file:{n}")).into())
        else {
            panic!()
        };
        match n % 3 {
            0 => held.push((project.clone(), grants[0].clone())),
            _ => drop(ask_and_wait(give_back(session, grants[0].lock).into())),
        }
    }
    held
}

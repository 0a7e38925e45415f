//! A disk that fails at any moment: nobody is told anything false, nothing that was acknowledged is
//! lost, and everything goes on as soon as the disk does.

use crate::{
    life::Project,
    story::{Outage, Stage, folder},
};
use lockkeeper_core::OpenSession;
use lockkeeper_disk::{Cut, Disk, Fault, Kind, Times, What, lay_out};
use lockkeeper_store::{Batch, Durability, OpenOptions, SqliteStore, Store, StoreError};
use std::{collections::BTreeSet, time::Duration};

/// How many acts lie between two that fail; 1 is every single one.
fn stride() -> usize {
    let stride = std::env::var("LOCKKEEPER_FAULT_STRIDE").ok().and_then(|text| text.parse().ok());
    stride.unwrap_or(3)
}

/// What the users of a store that failed were told.
#[derive(Default)]
struct Told {
    errors: BTreeSet<String>,
    refusals: usize,
}

impl Told {
    /// The cause and the next step, in words that fit.
    fn hear(&mut self, error: &StoreError, what: What) {
        let said = error.to_string();
        assert!(said.contains("locks.db"), "{said}");
        // A file that SQLite cannot open is said to be one that cannot be written, whatever the
        // system's reason was: SQLite does not hand it on.
        let fits = match error {
            StoreError::Full { .. } => what == What::Full,
            StoreError::Io { .. } | StoreError::ReadOnly { .. } => true,
            _ => false,
        };
        assert!(fits, "{what:?}: {error:?}");
        self.refusals += 1;
        self.errors.insert(said.split("locks.db").last().unwrap_or_default().to_owned());
    }
}

/// A life on a disk that fails. As often as the store refuses, everything is taken over anew; the
/// third time somebody has looked after the disk.
fn live(stage: &mut Stage, what: What, told: &mut Told) {
    for life in 0..2 {
        let mut is_open = false;
        let mut steps = 0;
        let mut tries = 0;
        while steps < 4 {
            let outcome = match is_open {
                _ if tries > 0 && stage.has_store() => stage.claim(),
                false => stage.try_open(),
                true => stage.step(),
            };
            match outcome {
                Ok(()) => {
                    steps += usize::from(is_open && tries == 0);
                    (is_open, tries) = (true, 0);
                }
                Err(error) => {
                    told.hear(&error, what);
                    tries += 1;
                    if tries > 2 {
                        stage.disk.heal();
                    }
                    assert!(tries < 6, "it does not go on by itself: {error}");
                }
            }
        }
        if life == 0 {
            stage.let_go();
        }
    }
}

/// After everything: opened once more it has what was acknowledged, and is whole; and so it would
/// be had the power been cut at the end, or after some acknowledgement, with whatever the failed
/// syncs gave up.
fn check(stage: &mut Stage, durability: Durability, seed: usize) {
    stage.disk.heal();
    stage.open();
    stage.step().unwrap();
    let (mut platter, log) = stage.log();
    let room = folder();
    let told: Vec<usize> = Outage::acknowledgements(&stage.story).collect();
    let some = told[seed * 7 % told.len()];
    for (at, event) in log.iter().enumerate() {
        platter.replay(event);
        let events = at + 1;
        let cuts: &[Cut] = match events {
            _ if events == log.len() => &[Cut::Written, Cut::Any(seed as u64)],
            _ if events == some => &[Cut::Any(seed as u64)],
            _ => &[],
        };
        for &cut in cuts {
            let outage = Outage { story: &stage.story, durability, events };
            if let Err(what) = outage.check(&platter.leave(cut), room.path()) {
                panic!("{cut:?} after {events} of {} events: {what}", log.len());
            }
        }
    }
}

fn fails_anywhere(what: What, times: Times, durability: Durability) {
    let mut told = Told::default();
    let (mut after, mut failures) = (0, 0);
    loop {
        let mut stage = Stage::new(durability, 5);
        stage.disk.fail(Fault { kinds: Vec::new(), ending: "", after, what, times });
        live(&mut stage, what, &mut told);
        if stage.disk.failed() == 0 {
            break;
        }
        failures += 1;
        check(&mut stage, durability, after);
        after += stride();
    }
    assert!(failures > 20 && told.refusals > 20, "{failures} failures, {} refusals", told.refusals);
    // The cause and the next step, and nothing else.
    let next =
        ["nothing was acknowledged; look after the disk", "give this user the right", "free some"];
    let explains = |said: &String| next.iter().any(|next| said.contains(next));
    assert!(told.errors.iter().all(explains), "{:?}", told.errors);
}

#[test]
fn a_disk_that_breaks_once() {
    fails_anywhere(What::Broken, Times::Once, Durability::Power);
}

#[test]
fn a_disk_that_breaks_until_somebody_mends_it() {
    fails_anywhere(What::Broken, Times::Always, Durability::Power);
}

#[test]
fn a_disk_that_is_full_for_a_while() {
    fails_anywhere(What::Full, Times::Always, Durability::Process);
}

/// I2: a claim outlives a power cut although a sync failed before it. What that sync dropped no
/// later one writes, and with it all that follows in the log would be lost.
#[test]
fn a_claim_trusts_no_sync_of_what_was_written_before() {
    let mut stage = Stage::new(Durability::Process, 3);
    stage.open();
    stage.live(3);
    stage.disk.fail(a_sync_of_the_log_fails());
    let refused = stage.claim().unwrap_err();
    assert!(matches!(refused, StoreError::Io { .. }), "{refused:?}");
    stage.claim().unwrap();
    let (mut platter, log) = stage.log();
    log.iter().for_each(|event| platter.replay(event));
    let room = folder();
    let outage = Outage { story: &stage.story, durability: Durability::Process, events: log.len() };
    for cut in [Cut::Synced, Cut::Written, Cut::Any(1), Cut::Any(2)] {
        outage.check(&platter.leave(cut), room.path()).unwrap();
    }
}

fn a_sync_of_the_log_fails() -> Fault {
    let (kinds, ending) = (vec![Kind::Sync], "-wal");
    Fault { kinds, ending, after: 0, what: What::Broken, times: Times::Once }
}

/// A store on a disk that is watched, and another program that has its file open.
struct Shared {
    _folder: tempfile::TempDir,
    disk: Disk,
    store: SqliteStore,
    other: rusqlite::Connection,
}

impl Shared {
    fn new() -> Shared {
        let folder = folder();
        let disk = Disk::watch(folder.path()).unwrap();
        let path = disk.folder().join("locks.db");
        let options = OpenOptions { lag: Duration::MAX, ..OpenOptions::default() };
        let store = SqliteStore::open(&path, options).unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        Shared { _folder: folder, disk, store, other }
    }

    fn take_over(&mut self) -> Project {
        Project::take_over(&mut self.store, "p")
    }

    /// Something that no sync follows.
    fn write(&mut self, project: &mut Project) {
        let turn = project.apply(OpenSession::default());
        let batch = Batch { claim: &project.claim, turns: std::slice::from_ref(&turn) };
        assert_eq!(self.store.commit(&[batch]), [Ok(())]);
    }

    /// The last claim is there after a power cut.
    fn claims_what_outlives_a_cut(&mut self) {
        let epoch = self.store.claim("p").unwrap().epoch.get();
        let (mut platter, log) = (self.disk.platter(), self.disk.log());
        log.iter().for_each(|event| platter.replay(event));
        let room = folder();
        for cut in [Cut::Synced, Cut::Any(1), Cut::Any(2)] {
            lay_out(&platter.leave(cut), room.path()).unwrap();
            let left = rusqlite::Connection::open(room.path().join("locks.db")).unwrap();
            let found = left.query_row("SELECT epoch FROM lock_meta", [], |row| row.get(0));
            assert_eq!(found, Ok(epoch), "{cut:?}");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.disk.leave();
    }
}

/// I2: nor does a claim trust what a sync may have dropped while the log was moved into the file,
/// which nobody was told of.
#[test]
fn a_claim_trusts_no_sync_that_failed_between_commits() {
    let mut shared = Shared::new();
    let mut project = shared.take_over();
    // More than a log may have, and nobody has moved it yet.
    let much = "PRAGMA wal_autocheckpoint = 0; CREATE TABLE ballast (bytes BLOB);
        INSERT INTO ballast VALUES (zeroblob(2100 * 4096))";
    shared.other.execute_batch(much).unwrap();
    shared.write(&mut project);
    assert!(shared.store.is_untidy(), "the log is to be moved into the file");
    shared.disk.fail(a_sync_of_the_log_fails());
    shared.store.tidy();
    assert_eq!(shared.disk.failed(), 1);
    shared.claims_what_outlives_a_cut();
}

/// I2: while somebody reads, the log cannot be moved out of the way of a claim. It is by the next
/// one.
#[test]
fn a_claim_that_could_not_move_the_log_leaves_that_to_the_next_one() {
    let mut shared = Shared::new();
    let mut project = shared.take_over();
    shared.other.execute_batch("BEGIN; SELECT * FROM lock_meta").unwrap();
    shared.write(&mut project);
    shared.disk.fail(a_sync_of_the_log_fails());
    assert!(shared.store.claim("p").is_err());
    shared.store.claim("p").unwrap();
    shared.other.execute_batch("COMMIT").unwrap();
    shared.claims_what_outlives_a_cut();
}

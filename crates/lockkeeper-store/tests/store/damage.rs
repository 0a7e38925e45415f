//! Bytes that turn while a store works, or between a kill and the next start; and a place that can
//! only be read from some moment on.

use crate::{
    life::Project,
    story::{Outage, Stage, folder, try_open},
};
use lockkeeper_disk::{Cut, Fault, Times, What, lay_out};
use lockkeeper_store::{Durability, Store, StoreError, check};
use std::{
    fs::OpenOptions,
    io::{Seek, SeekFrom, Write},
    path::Path,
};

/// Everything behind the first page is garbage from now on.
fn garble(path: &Path) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xa5; length - 4096]).unwrap();
}

/// Whoever reads from the file hears of it, and so does the next owner; and nothing panics. What
/// the running store has in memory it may go on with.
#[test]
fn pages_that_are_garbled_under_a_running_store() {
    let folder = folder();
    let path = folder.path().join("locks.db");
    let mut store = try_open(&path, Durability::Process).unwrap();
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    (0..40).for_each(|n| drop(project.grant(&mut store, session, &format!("file:{n}"))));
    // All of it into the file, so that nothing is read from the log.
    drop(store);
    let mut store = try_open(&path, Durability::Process).unwrap();
    let mut project = Project::take_over(&mut store, "p");
    garble(&path);
    let read = store.reader().and_then(|mut reader| reader.history("p"));
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    for n in 0..40 {
        let asked = crate::life::ask(session, &format!("file:more-{n}"));
        match project.turn(&mut store, asked) {
            Ok(_) => {}
            Err(StoreError::Corrupt { .. }) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    drop(store);
    let checked = check(&path).map(|checkup| checkup.problems);
    assert!(!matches!(&checked, Ok(problems) if problems.is_empty()), "{checked:?}");
    let next = try_open(&path, Durability::Process).and_then(|mut store| {
        let claim = store.claim("p")?;
        store.load(&claim)
    });
    let refused = next.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    assert!(refused.to_string().contains("restore a copy"), "{refused}");
}

/// A bit that turns in the log of writes takes with it what comes after it, and nobody can tell it
/// from a log that was cut short: this is what SQLite's checksums are for. What is left is a whole
/// beginning, as after a power cut in `Process`. That so much can be lost is written in
/// `docs/reliability.md`.
#[test]
fn a_log_that_is_damaged_at_rest_leaves_a_beginning() {
    let mut stage = Stage::new(Durability::Power, 7);
    stage.open();
    stage.live(12);
    let (mut platter, log) = stage.log();
    log.iter().for_each(|event| platter.replay(event));
    let whole = platter.leave(Cut::Written);
    let length = whole["locks.db-wal"].len();
    let room = folder();
    let outage = Outage { story: &stage.story, durability: Durability::Power, events: log.len() };
    outage.check(&whole, room.path()).unwrap();
    let mut lost = 0;
    for nth in 0..24 {
        let mut left = whole.clone();
        let log = left.get_mut("locks.db-wal").unwrap();
        log[nth * length / 24 + nth] ^= 0x40;
        match outage.check(&left, room.path()) {
            Ok(_) => {}
            Err(what) if what.contains("was promised") || what.contains("tokens repeat") => {
                lost += 1;
            }
            Err(what) => panic!("{nth}: {what}"),
        }
        lay_out(&left, room.path()).unwrap();
        assert_eq!(check(room.path().join("locks.db")).unwrap().problems, [""; 0], "{nth}");
    }
    assert!(lost > 12, "{lost} of 24");
}

/// Refused at the start, and refused from the moment on at which it happens; then it goes on.
#[test]
fn a_file_system_that_can_only_be_read() {
    let mut stage = Stage::new(Durability::Power, 9);
    stage.open();
    stage.live(2);
    let only_read = || {
        let (what, times) = (What::ReadOnly, Times::Always);
        Fault { kinds: Vec::new(), ending: "", after: 0, what, times }
    };
    stage.disk.fail(only_read());
    // Some turns record nothing, and so need no disk.
    let refused = (0..20).find_map(|_| stage.step().err()).expect("nothing was to be written");
    assert!(refused.to_string().contains("nothing was acknowledged; look after"), "{refused}");
    assert!(stage.claim().is_err());
    stage.disk.heal();
    stage.claim().unwrap();
    stage.live(2);
    stage.close();
    stage.disk.fail(only_read());
    let refused = stage.try_open().unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused:?}");
    stage.disk.heal();
    stage.open();
    stage.live(2);
}

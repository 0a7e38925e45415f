//! A store's file, damaged: a clear word, or it works; nothing panics, nothing hangs, and what is
//! refused stays as it was.

use crate::life::{Life, config};
use lockkeeper_core::{Command, LockTable, OpenSession, Record, Reign, Timestamp};
use lockkeeper_store::{
    AuditFilter, Batch, Claim, OpenOptions, Snapshot, SqliteStore, Store, StoreError, check,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

const PROJECT: &str = "demo";

/// A file with something in every table, and what is known of it.
struct Whole {
    /// As a store leaves it that is closed.
    closed: Vec<u8>,
    /// As one leaves it that is killed: the file, and the log of writes.
    killed: (Vec<u8>, Vec<u8>),
    /// The first steps of the schema only.
    old: Vec<u8>,
    holds: usize,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("locks.db");
        let mut store = SqliteStore::open(&path, OpenOptions::default()).expect("a new store");
        let claim = store.claim(PROJECT).expect("a claim");
        let life = Life::lived(Reign { epoch: claim.epoch, id_seed: 7, last_event: 0 });
        let (early, late) = life.turns.split_at(life.turns.len() / 2);
        commit(&mut store, &claim, early).expect("it is written");
        let file = fs::read(&path).expect("the file");
        let log = beside(&path, "-wal");
        commit(&mut store, &claim, late).expect("it is written");
        let killed = (fs::read(&path).unwrap_or(file), fs::read(log).unwrap_or_default());
        drop(store);
        let closed = fs::read(&path).expect("the file");
        let old = older(&folder.path().join("old.db"));
        Whole { closed, killed, old, holds: life.table.list().len() }
    })
}

/// A store as the first version of the program made it: empty, one migration short.
fn older(path: &Path) -> Vec<u8> {
    drop(SqliteStore::open(path, OpenOptions::default()).expect("a new store"));
    let bytes = fs::read(path).expect("the file");
    // `user_version` stands in the header; that the tables are newer is for the migration to find.
    let mut bytes = bytes;
    bytes[60..64].copy_from_slice(&1_u32.to_be_bytes());
    bytes
}

fn commit(
    store: &mut SqliteStore,
    claim: &Claim,
    turns: &[lockkeeper_core::Effects],
) -> Result<(), StoreError> {
    store.commit(&[Batch { claim, turns }]).remove(0)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The bytes are a list of damages: which file, what is done, where, and how much of it.
pub(crate) fn damaged(bytes: &[u8]) {
    let Some((&which, damages)) = bytes.split_first() else { return };
    let whole = whole();
    let (mut file, mut log) = match which % 3 {
        0 => (whole.closed.clone(), Vec::new()),
        1 => whole.killed.clone(),
        _ => (whole.old.clone(), Vec::new()),
    };
    let mut is_damaged = false;
    for damage in damages.chunks_exact(5).take(16) {
        let target = if damage[0] & 0x80 > 0 && !log.is_empty() { &mut log } else { &mut file };
        let before = (target.len(), target.clone());
        harm(target, damage);
        is_damaged |= before != (target.len(), target.clone());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("locks.db");
    fs::write(&path, &file).expect("the file is written");
    if !log.is_empty() {
        fs::write(beside(&path, "-wal"), &log).expect("the log is written");
    }
    looked_at(&path, &file, &log);
    let opened = opened(&path, &file, log.is_empty());
    if !is_damaged && which % 3 < 2 {
        assert_eq!(opened.ok(), Some(whole.holds), "what is whole can be opened");
    }
}

fn harm(bytes: &mut Vec<u8>, damage: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let place = usize::from(u16::from_be_bytes([damage[1], damage[2]])) << 4;
    let at = (place | usize::from(damage[3] & 0xf)) % bytes.len();
    let size = 1_usize << (damage[3] >> 4).min(13);
    let end = (at + size).min(bytes.len());
    match damage[0] & 0x7f {
        0..=31 => bytes[at] = damage[4],
        32..=47 => bytes[at] ^= 1 << (damage[4] & 7),
        48..=63 => bytes[at..end].fill(0),
        64..=71 => bytes[at..end].fill(damage[4]),
        72..=95 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= damage[4]),
        96..=103 => bytes.truncate(at),
        104..=119 => {
            // A page in the place of another one: written, but elsewhere.
            let (page, from) = (at / 4096 * 4096, usize::from(damage[4]) * 4096);
            if from + 4096 <= bytes.len() && page + 4096 <= bytes.len() {
                bytes.copy_within(from..from + 4096, page);
            }
        }
        _ => {
            let more = vec![damage[4]; size];
            bytes.extend(more);
        }
    }
}

/// A look changes no byte, whatever it sees.
fn looked_at(path: &Path, file: &[u8], log: &[u8]) {
    let seen = Snapshot::read(path).and_then(|mut snapshot| {
        for project in snapshot.projects()? {
            if let Some((claim, records)) = snapshot.live(&project)? {
                rebuilt(&claim, &records);
            }
        }
        snapshot.audit(&AuditFilter { limit: Some(10_000), ..AuditFilter::default() })?;
        snapshot.check()
    });
    said(path, seen.err().or(check(path).err()));
    assert_eq!(fs::read(path).ok().as_deref(), Some(file), "a look changed the file");
    if !log.is_empty() {
        let now = fs::read(beside(path, "-wal")).ok();
        assert_eq!(now.as_deref(), Some(log), "a look changed the log of writes");
    }
    let names = fs::read_dir(path.parent().unwrap_or(path)).map_or(0, |names| names.count());
    assert_eq!(names, 1 + usize::from(!log.is_empty()), "a look left something behind");
}

/// How many holds there are when it is opened and taken over.
fn opened(path: &Path, file: &[u8], is_alone: bool) -> Result<usize, StoreError> {
    let mut store = match SqliteStore::open(path, OpenOptions::default()) {
        Ok(store) => store,
        Err(refused) => {
            said(path, Some(refused.clone()));
            // With a log of writes beside it, what is in the log may have moved to the file.
            if is_alone {
                let now = fs::read(path).unwrap_or_default();
                assert!(now == file, "a file that is refused is changed: {refused}");
            }
            return Err(refused);
        }
    };
    let worked = work(&mut store);
    drop(store);
    said(path, worked.as_ref().err().cloned());
    let (holds, claim) = worked?;
    // What was acknowledged is there when it is opened again, or somebody says that it is not.
    let again = SqliteStore::open(path, OpenOptions::default()).and_then(|mut store| {
        let next = store.claim(PROJECT)?;
        assert!(next.epoch > claim.epoch, "I2: an epoch came back");
        let records = store.load(&next)?;
        Ok(rebuilt(&next, &records))
    });
    match again {
        Ok(table) => {
            let agents = table.sessions();
            let newest = agents.iter().any(|one| &*one.agent == "the newest");
            assert!(newest, "what was acknowledged is lost, and nobody says so");
        }
        Err(error) => said(path, Some(error)),
    }
    Ok(holds)
}

/// Takes the project over and goes on, as the library does.
fn work(store: &mut SqliteStore) -> Result<(usize, Claim), StoreError> {
    store.projects()?;
    let claim = store.claim(PROJECT)?;
    let records = store.load(&claim)?;
    let mut table = rebuilt(&claim, &records);
    let holds = table.list().len();
    let now = Timestamp(crate::life::START + 1_000);
    let open = OpenSession { agent: "the newest".into(), ..OpenSession::default() };
    let turns = [table.apply(now, open), table.apply(now, Command::Tick)];
    commit(store, &claim, &turns)?;
    let mut reader = store.reader()?;
    reader.history(PROJECT)?;
    Ok((holds, claim))
}

fn rebuilt(claim: &Claim, records: &[Record]) -> LockTable {
    let Claim { epoch, last_event, .. } = *claim;
    let mut table = LockTable::new(config(), Reign { epoch, id_seed: 9, last_event });
    records.iter().for_each(|record| table.replay(record));
    table
}

/// Whatever is wrong is said, and names the file or the project it is about.
fn said(path: &Path, error: Option<StoreError>) {
    let Some(error) = error else { return };
    let text = error.to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    assert!(text.contains(&*name) || text.contains("project"), "{text}");
    match error {
        StoreError::Corrupt { .. }
        | StoreError::ForeignSchema { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::Contradiction { .. }
        | StoreError::Exhausted { .. } => {}
        // A file whose header asks for a later version of SQLite to write it can only be read.
        StoreError::ReadOnly { .. } => {}
        other => panic!("that is not what is wrong: {other:?}"),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..3).map(|which| vec![which]).collect();
    // One damage of each kind in each file, in the header and further in.
    for kind in (0..128).step_by(8) {
        for which in 0..3 {
            let place = u16::from(kind).wrapping_mul(577).to_be_bytes();
            seeds.push(vec![which, kind, place[0], place[1], 0xa3, 0x5a]);
            seeds.push(vec![which, kind, 0, kind / 32, 0x34, 0xff]);
        }
        seeds.push(vec![1, 0x80 | kind, 0, kind, 0x43, 0x5a]);
    }
    seeds
}

//! The disk itself fails under a manager, or loses power: whoever asks is refused and told why,
//! guards stay what they are, and it goes on by itself when the disk does.

use crate::support::{DEMO, Still, file, millis, secs, until, yields};
use lockkeeper::{
    AcquireError, AuditFilter, Config, Durability, LockId, LockManager, Project, RequestId,
    Session, store::check,
};
use lockkeeper_disk::{Cut, Disk, Fault, Kind, Times, What, lay_out};
use std::{collections::BTreeMap, path::Path};
use tempfile::TempDir;

/// In memory, if the system has such a folder: syncs are many here.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir().then(|| TempDir::new_in(memory)) {
        Some(Ok(folder)) => folder,
        _ => TempDir::new().unwrap(),
    }
}

async fn open(folder: &Path) -> LockManager {
    let config = Config { durability: Durability::Power, ..Config::at(folder.join("locks.db")) };
    LockManager::open_with(config).await.unwrap()
}

async fn detached(manager: &LockManager, agent: &str) -> Session {
    manager.session(DEMO, agent).detached().await.unwrap()
}

/// What the disk had seen when something was acknowledged.
type Acknowledged = BTreeMap<LockId, (u64, usize)>;

/// Every lock on record with its token.
async fn recorded(demo: &Project) -> BTreeMap<LockId, u64> {
    let filter = AuditFilter { oldest_first: true, limit: Some(usize::MAX), ..Default::default() };
    let rows = demo.audit(filter).await.unwrap();
    let granted = rows.iter().filter_map(|row| row.details.get("granted"));
    granted
        .map(|fact| {
            let lock = fact["lock"].as_str().unwrap().parse().unwrap();
            (lock, fact["token"].as_u64().unwrap())
        })
        .collect()
}

/// Nothing is granted while the disk fails; each refusal names the cause and the next step.
async fn is_refused(session: &Session, key: &str) {
    let refused = session.acquire(file(key)).no_wait().await.unwrap_err();
    assert!(matches!(refused, AcquireError::Unavailable(_)), "{refused:?}");
    assert!(refused.retryable(), "{refused}");
    let said = refused.to_string();
    let next = ["look after the disk", "free some", "the right to write"];
    assert!(said.contains("locks.db") && next.iter().any(|next| said.contains(next)), "{said}");
}

/// Until it serves again, while time passes.
async fn comes_back(session: &Session, key: &str) -> lockkeeper::LockGuard {
    let mut guard = None;
    until("it serves again", async || {
        tokio::time::advance(millis(50)).await;
        yields(20).await;
        match session.acquire(file(key)).no_wait().await {
            Ok(granted) => guard = Some(granted),
            Err(AcquireError::Unavailable(_)) => {}
            // The disk failed after it was written, and it is still being taken back.
            Err(AcquireError::Busy { .. } | AcquireError::AlreadyHeld { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        guard.is_some()
    })
    .await;
    guard.unwrap()
}

/// I12: an id that somebody chose may be asked by again when the process is gone, one that was
/// made up here may not.
#[tokio::test]
async fn i12_only_an_id_that_was_made_up_is_fleeting() {
    let folder = folder();
    let manager = open(folder.path()).await;
    let ann = detached(&manager, "ann").await;
    let _named = ann.acquire(file("named")).request_id(RequestId::new(7)).await.unwrap();
    let _made_up = ann.acquire(file("made-up")).await.unwrap();
    let event_type = Some("lock_granted".to_owned());
    let filter = AuditFilter { event_type, oldest_first: true, ..AuditFilter::default() };
    let rows = manager.project(DEMO).await.unwrap().audit(filter).await.unwrap();
    let said: Vec<(&str, bool)> = rows
        .iter()
        .map(|row| {
            let fact = &row.details["granted"];
            (fact["resource"].as_str().unwrap(), fact["fleeting"] == true)
        })
        .collect();
    assert_eq!(said, [("file:named", false), ("file:made-up", true)]);
}

/// I1, I2, I13: one outage of the disk, at one of the things it is asked to do.
async fn outage(fault: Fault) {
    let folder = folder();
    let disk = Disk::watch(folder.path()).unwrap();
    let manager = open(disk.folder()).await;
    let (ann, bob) = (detached(&manager, "ann").await, detached(&manager, "bob").await);
    let mut acknowledged = Acknowledged::new();
    let mut held = Vec::new();
    let mut note = |guard: &lockkeeper::LockGuard, disk: &Disk| {
        acknowledged.insert(guard.id(), (guard.token().get(), disk.events()));
    };
    let before = ann.acquire(file("before")).lease(secs(100_000)).await.unwrap();
    note(&before, &disk);
    let what = fault.what;
    disk.fail(fault);
    // Granted, as long as what fails does not matter yet.
    let mut key = 0;
    let refused = loop {
        match bob.acquire(file(&format!("{key}"))).lease(secs(100_000)).no_wait().await {
            Ok(guard) => {
                note(&guard, &disk);
                held.push(guard);
            }
            Err(refused) => break refused,
        }
        key += 1;
        assert!(key < 100, "{what:?} never mattered");
    };
    assert!(matches!(refused, AcquireError::Unavailable(_)), "{refused:?}");
    for _ in 0..3 {
        tokio::time::advance(secs(1)).await;
        yields(20).await;
        is_refused(&ann, "more").await;
        assert!(before.is_valid() && held.iter().all(|guard| guard.is_valid()));
    }
    disk.heal();
    let after = comes_back(&ann, "after").await;
    note(&after, &disk);
    assert!(before.is_valid() && held.iter().all(|guard| guard.is_valid()));
    let newest = held.iter().chain([&before]).map(|guard| guard.token()).max().unwrap();
    assert!(after.token() > newest, "I2");
    let busy = bob.acquire(file("before")).no_wait().await.unwrap_err();
    assert_eq!(busy.holder().map(|holder| holder.lock), Some(before.id()), "I1");
    let demo = manager.project(DEMO).await.unwrap();
    let on_record = recorded(&demo).await;
    for (lock, (token, _)) in &acknowledged {
        assert_eq!(on_record.get(lock), Some(token), "an acknowledged grant is gone");
    }
    drop(demo);
    let events = disk.events();
    loses_power(&disk, events, &acknowledged).await;
    drop((before, held, after, ann, bob));
    manager.shutdown().await;
    disk.leave();
    let problems = check(folder.path().join("locks.db")).unwrap().problems;
    assert_eq!(problems, [""; 0]);
}

/// And then the power is cut: whoever comes next finds everything that was acknowledged, whatever
/// became of what failed syncs gave up.
async fn loses_power(disk: &Disk, events: usize, acknowledged: &Acknowledged) {
    let mut platter = disk.platter();
    disk.log()[..events].iter().for_each(|event| platter.replay(event));
    for cut in [Cut::Synced, Cut::Any(events as u64)] {
        let folder = folder();
        lay_out(&platter.leave(cut), folder.path()).unwrap();
        let manager = open(folder.path()).await;
        let demo = manager.project(DEMO).await.unwrap();
        let on_record = recorded(&demo).await;
        let list = demo.list().await.unwrap();
        for (lock, (token, at)) in acknowledged {
            assert!(*at <= events);
            assert_eq!(on_record.get(lock), Some(token), "{cut:?}: a grant is gone");
            assert!(list.iter().any(|holder| holder.lock == *lock), "{cut:?}: a hold is gone");
        }
        let session = detached(&manager, "next").await;
        let next = session.acquire(file("next")).await.unwrap();
        let newest = acknowledged.values().map(|(token, _)| *token).max().unwrap_or(0);
        assert!(next.token().get() > newest, "I2");
        next.release().await.unwrap();
        manager.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_breaks_and_is_mended() {
    let _still = Still::new();
    for after in [0, 1, 2, 3, 5, 8, 13, 21] {
        let (what, times) = (What::Broken, Times::Always);
        outage(Fault { kinds: Vec::new(), ending: "", after, what, times }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_until_there_is_room() {
    let _still = Still::new();
    for after in [0, 1, 4, 9, 16, 25] {
        let (what, times) = (What::Full, Times::Always);
        outage(Fault { kinds: vec![Kind::Write], ending: "", after, what, times }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_turns_read_only_for_a_while() {
    let _still = Still::new();
    for after in [0, 7] {
        let (what, times) = (What::ReadOnly, Times::Always);
        outage(Fault { kinds: Vec::new(), ending: "", after, what, times }).await;
    }
}

/// The sync is the one thing that fails: what was written is in everybody's sight and yet promised
/// to nobody.
#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_sync() {
    let _still = Still::new();
    for after in [0, 1, 2] {
        let (what, times) = (What::Broken, Times::Always);
        outage(Fault { kinds: vec![Kind::Sync], ending: "-wal", after, what, times }).await;
    }
}

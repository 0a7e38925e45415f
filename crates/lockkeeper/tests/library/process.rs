//! The death of a process: another one takes the store over, ends what died with it, and brings
//! back what did not. The other process is this test program, told by an environment variable to
//! play that part.

use crate::support::{DEMO, active_rows, file, millis, secs};
use lockkeeper::{
    Acquire, Answer, AskOptions, AuditFilter, Command, Config, Credential, EndCause, EndSession,
    LockManager, LockMode, OpenSession, Release, SessionKind, StoreError, Token,
};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command as Process, Stdio},
};

const PLAY: &str = "LOCKKEEPER_TEST_STORE";

/// Starts the other process and waits until it holds what it holds.
fn other(path: &Path) -> (Child, String) {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::the_other_process", "--nocapture", "--test-threads=1"])
        .env(PLAY, path)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .find_map(|line| line.unwrap().split_once("ready ").map(|(_, words)| words.to_owned()))
        .expect("the other process is ready");
    (child, ready)
}

/// Not a test of its own: what the other process does.
#[tokio::test]
async fn the_other_process() {
    let Some(path) = std::env::var_os(PLAY) else { return };
    let config = Config { reach: Some("/run/other.sock".to_owned()), ..Config::at(path) };
    let manager = LockManager::open_with(config).await.unwrap();
    let actor = manager.lock_actor(DEMO).await.unwrap();
    let coder = manager.session(DEMO, "coder").await.unwrap();
    let held = coder.acquire_all((0..50).map(|n| file(&format!("{n}")))).await.unwrap();
    let next = manager.session(DEMO, "next").await.unwrap();
    let waiting = next.acquire(file("0"));
    let waiting = tokio::spawn(async move { waiting.await.map(drop) });
    let open = OpenSession {
        agent: "detached".into(),
        kind: SessionKind::Detached,
        ..OpenSession::default()
    };
    let Answer::SessionOpened { session } = actor.ask(Command::from(open)).await.unwrap() else {
        panic!("not opened");
    };
    let options = AskOptions { lease: Some(secs(600)), ..AskOptions::default() };
    let mode = LockMode::Exclusive;
    let ask = Acquire { session, resource: file("detached"), mode, options };
    let Answer::Granted(grants) = actor.ask(Command::from(ask)).await.unwrap() else {
        panic!("not granted");
    };
    let demo = manager.project(DEMO).await.unwrap();
    crate::support::until("it waits", async || demo.stats().await.unwrap().tickets == 1).await;
    let (token, until) = (grants[0].token, grants[0].expires_at.0);
    println!("ready {token} {until} {} {}", session.get(), held.len());
    std::io::stdout().flush().unwrap();
    // Until it is killed.
    let _ = std::io::stdin().read_line(&mut String::new());
    drop((held, waiting));
}

/// I2, I13, I17: kill -9 in the middle of everything.
#[tokio::test]
async fn killed_and_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let (mut child, ready) = other(&path);
    let words: Vec<u64> = ready.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let (token, until) = (Token::from_u64(words[0]), words[1]);
    match LockManager::open(&path).await {
        Err(StoreError::Owned { pid, reach, path: told }) => {
            assert_eq!((pid, reach.as_deref()), (Some(child.id()), Some("/run/other.sock")));
            assert_eq!(told.file_name(), path.file_name());
        }
        other => panic!("two processes own one store: {other:?}"),
    }
    let told = LockManager::open(&path).await.unwrap_err().to_string();
    assert!(told.contains(&child.id().to_string()) && told.contains("/run/other.sock"), "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
    let manager = LockManager::open(&path).await.unwrap();
    let demo = manager.project(DEMO).await.unwrap();
    let list = demo.list().await.unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((&list[0].resource, &*list[0].agent), (&file("detached"), "detached"));
    assert!(list[0].expires_at.0 >= until, "I17: a lease is shorter than it was");
    let stats = demo.stats().await.unwrap();
    assert_eq!((stats.sessions, stats.tickets), (1, 0));
    let event_type = Some("session_ended".to_owned());
    let filter = AuditFilter { event_type, oldest_first: true, ..AuditFilter::default() };
    let ended = demo.audit(filter).await.unwrap();
    let agents: Vec<_> = ended.iter().map(|row| row.agent_id.as_deref().unwrap()).collect();
    assert_eq!(agents, ["coder", "next"]);
    assert!(ended.iter().all(|row| row.details["session_ended"]["cause"] == "owner_died"));
    let event_type = Some("lock_released".to_owned());
    let filter = AuditFilter { event_type, ..AuditFilter::default() };
    let released = demo.audit(filter).await.unwrap();
    assert_eq!(released.len(), 50);
    assert!(released.iter().all(|row| row.details.to_string().contains("owner_died")));
    let next = manager.session(DEMO, "next").await.unwrap();
    let guard = next.acquire(file("0")).no_wait().await.unwrap();
    assert!(guard.token() > token, "I2");
    next.acquire(file("detached")).no_wait().await.unwrap_err();
    // Whoever knows the token can end the hold that came back.
    let by = Credential::Token(token);
    let release = Release { by, lock: list[0].lock, share: None, request_id: None };
    let actor = manager.lock_actor(DEMO).await.unwrap();
    actor.ask(Command::from(release)).await.unwrap();
    next.acquire(file("detached")).no_wait().await.unwrap().release().await.unwrap();
    guard.release().await.unwrap();
    manager.shutdown().await;
}

/// Two managers in one process are two owners, too.
#[tokio::test]
async fn a_second_manager_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let first = LockManager::open(&path).await.unwrap();
    let refused = LockManager::open(&path).await.unwrap_err();
    let StoreError::Owned { pid, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert_eq!(refused.legacy_code(), "E306");
    let session = first.session(DEMO, "a").await.unwrap();
    let guard = session.acquire(file("x")).await.unwrap();
    let token = guard.token();
    let report = first.clone().shutdown().await;
    assert_eq!((report.sessions, report.released[DEMO].len()), (1, 1));
    let second = LockManager::open(&path).await.unwrap();
    let session = second.session(DEMO, "a").await.unwrap();
    let again = session.acquire(file("x")).no_wait().await.unwrap();
    assert!(again.token() > token, "I2");
    drop(guard);
    assert!(again.is_valid());
    assert!(second.project(DEMO).await.unwrap().is_locked(file("x")).await.unwrap());
    second.shutdown().await;
    assert_eq!(active_rows(&path, DEMO), []);
}

/// I17: a detached hold outlives an orderly shutdown, with its token, and gets a full lease again.
#[tokio::test(start_paused = true)]
async fn a_detached_hold_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let manager = LockManager::open(&path).await.unwrap();
    let still = crate::support::Still::new();
    let detached = manager.session(DEMO, "d").detached().await.unwrap();
    let guard = detached.acquire(file("x")).lease(secs(100)).await.unwrap();
    let (id, token, session) = (guard.id(), guard.token(), detached.id());
    guard.leave();
    drop(detached);
    tokio::time::advance(secs(60)).await;
    let report = manager.shutdown().await;
    assert_eq!((report.sessions, report.released.len()), (0, 0));
    drop(still);
    let manager = LockManager::open(&path).await.unwrap();
    let _still = crate::support::Still::new();
    let demo = manager.project(DEMO).await.unwrap();
    let list = demo.list().await.unwrap();
    assert_eq!((list[0].lock, list[0].session), (id, session));
    let actor = demo.actor().unwrap().clone();
    tokio::time::advance(millis(90_000)).await;
    assert_eq!(demo.list().await.unwrap().len(), 1, "I17");
    let by = Credential::Token(token);
    let release = Release { by, lock: id, share: None, request_id: None };
    actor.ask(Command::from(release)).await.unwrap();
    assert_eq!(demo.list().await.unwrap(), []);
    let end = EndSession { session, cause: EndCause::Closed };
    actor.ask(Command::from(end)).await.unwrap();
    manager.shutdown().await;
    assert_eq!(active_rows(&path, DEMO), []);
}

/// A store that was never shut down, many times over: epochs rise, nothing is left over.
#[tokio::test]
async fn again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let mut last = 0;
    for _ in 0..10 {
        let manager = LockManager::open(&path).await.unwrap();
        let session = manager.session(DEMO, "a").await.unwrap();
        let guard = session.acquire(file("x")).no_wait().await.unwrap();
        assert!(guard.token().get() > last, "I2");
        last = guard.token().get();
        manager.shutdown().await;
    }
    assert_eq!(active_rows(&path, DEMO), []);
}

/// A child that is being started has a copy of everything that is open, for a moment. The store is
/// free all the same as soon as it is said to be closed.
#[cfg(unix)]
#[test]
fn closed_while_children_are_started() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    Process::new("true").status().unwrap();
                }
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            for _ in 0..150 {
                LockManager::open(&path).await?.shutdown().await;
            }
            Ok::<(), StoreError>(())
        });
        over.store(true, Ordering::Relaxed);
        outcome
    });
    assert_eq!(outcome, Ok(()));
}

//! Attached sessions that outlive their process, for a daemon whose clients come back: killed or
//! shut down, the next one finds holds, places and requests as they were. And projects that go on
//! without anybody naming them.

use crate::support::{DEMO, Still, file, secs, until};
use lockkeeper::{
    Acquire, Answer, AskOptions, AuditFilter, CallError, Command, Config, Credential, EndCause,
    EndSession, Grant, List, LockActor, LockManager, LockMode, News, OpenSession, Project, Queue,
    Release, RequestId, SessionId, SessionKind, Snapshot, StatsNow, Unavailable, WaitGraphNow,
    store::owner,
};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
    sync::Arc,
};

type Actor = kameo::actor::ActorRef<LockActor>;

fn daemon(path: &Path) -> Config {
    Config { attached_outlive: true, ..Config::at(path) }
}

async fn open(actor: &Actor, agent: &str, kind: SessionKind) -> SessionId {
    let open = OpenSession { agent: agent.into(), kind, ..OpenSession::default() };
    match actor.ask(Command::from(open)).await.unwrap() {
        Answer::SessionOpened { session } => session,
        other => panic!("{other:?}"),
    }
}

fn wants(session: SessionId, key: &str, request: u128) -> Command {
    let request_id = Some(RequestId::new(request));
    let options = AskOptions { request_id, ..AskOptions::default() };
    Acquire { session, resource: file(key), mode: LockMode::Exclusive, options }.into()
}

fn granted(answer: Result<Answer, CallError>) -> Grant {
    match answer {
        Ok(Answer::Granted(mut grants)) if grants.len() == 1 => grants.remove(0),
        other => panic!("{other:?}"),
    }
}

fn ask(actor: &Actor, command: Command) -> tokio::task::JoinHandle<Result<Answer, CallError>> {
    let actor = actor.clone();
    tokio::spawn(async move { actor.ask(command).await.map_err(|error| error.err().unwrap()) })
}

/// One session that holds, three that wait in this order; the last one is detached.
struct Scene {
    sessions: [SessionId; 4],
    held: Grant,
    waiting: Vec<tokio::task::JoinHandle<Result<Answer, CallError>>>,
}

const KINDS: [SessionKind; 4] =
    [SessionKind::Attached, SessionKind::Attached, SessionKind::Attached, SessionKind::Detached];

async fn scene(manager: &LockManager) -> Scene {
    let actor = manager.lock_actor(DEMO).await.unwrap();
    let demo = manager.project(DEMO).await.unwrap();
    let mut sessions = [SessionId::from_u64(0); 4];
    for (nth, kind) in KINDS.into_iter().enumerate() {
        sessions[nth] = open(&actor, &format!("agent-{nth}"), kind).await;
    }
    let held = granted(actor.ask(wants(sessions[0], "x", 100)).await.map_err(|_| panic!()));
    let mut waiting = Vec::new();
    for (nth, session) in sessions.into_iter().enumerate().skip(1) {
        waiting.push(ask(&actor, wants(session, "x", 100 + nth as u128)));
        until("it waits", async || demo.stats().await.unwrap().tickets == nth).await;
    }
    Scene { sessions, held, waiting }
}

/// What a client that comes back finds: the rest of the scene, from the re-sent requests to the
/// last hold.
async fn goes_on(manager: &LockManager, sessions: [SessionId; 4], lock: &str, token: u64) {
    let demo = manager.project(DEMO).await.unwrap();
    let actor = demo.actor().unwrap().clone();
    let list = demo.list().await.unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((list[0].lock.to_string().as_str(), list[0].session), (lock, sessions[0]));
    let queue = demo.queue(file("x")).await.unwrap();
    let queued = |queue: &[lockkeeper::Waiter]| -> Vec<_> {
        queue.iter().map(|one| (one.ticket, one.session)).collect()
    };
    let places = queued(&queue);
    assert_eq!(places.iter().map(|one| one.1).collect::<Vec<_>>(), sessions[1..], "I9");
    // A request that was granted is told the same grant, and nothing is granted twice.
    let again = granted(actor.ask(wants(sessions[0], "x", 100)).await.map_err(|_| panic!()));
    assert_eq!((again.lock.to_string().as_str(), again.token.get()), (lock, token), "I12");
    // One that waits finds its place again; the last comes back first.
    let mut calls = Vec::new();
    for nth in [3, 1, 2] {
        calls.push((nth, ask(&actor, wants(sessions[nth], "x", 100 + nth as u128))));
    }
    until("all wait again", async || {
        let queue = demo.queue(file("x")).await.unwrap();
        assert_eq!(queued(&queue), places);
        queue.iter().all(|one| one.poll_by.is_none())
    })
    .await;
    calls.sort_by_key(|(nth, _)| *nth);
    let mut before = token;
    let mut session = sessions[0];
    for (nth, call) in calls {
        let end = EndSession { session, cause: EndCause::OwnerDied };
        actor.ask(Command::from(end)).await.unwrap();
        let grant = granted(call.await.unwrap());
        assert!(grant.token.get() > before, "I2");
        (before, session) = (grant.token.get(), sessions[nth]);
    }
    actor.ask(Command::from(EndSession { session, cause: EndCause::Closed })).await.unwrap();
    let stats = demo.stats().await.unwrap();
    assert_eq!((stats.sessions, stats.holds, stats.tickets), (0, 0, 0), "I18");
}

const PLAY: &str = "LOCKKEEPER_TEST_OUTLIVE";

/// Not a test of its own: the daemon that is killed.
#[tokio::test]
async fn the_daemon_that_dies() {
    let Some(path) = std::env::var_os(PLAY) else { return };
    let manager = LockManager::open_with(daemon(Path::new(&path))).await.unwrap();
    let scene = scene(&manager).await;
    let ids: Vec<String> = scene.sessions.iter().map(|one| one.get().to_string()).collect();
    println!("ready {} {} {}", scene.held.lock, scene.held.token.get(), ids.join(" "));
    std::io::stdout().flush().unwrap();
    // Until it is killed.
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(scene);
}

fn other(path: &Path) -> (Child, String, u64, [SessionId; 4]) {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "outlive::the_daemon_that_dies", "--nocapture", "--test-threads=1"])
        .env(PLAY, path)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .find_map(|line| line.unwrap().split_once("ready ").map(|(_, words)| words.to_owned()))
        .expect("the other process is ready");
    let mut words = ready.split_whitespace();
    let (lock, token) = (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap());
    let ids: Vec<SessionId> =
        words.map(|word| SessionId::from_u64(word.parse().unwrap())).collect();
    (child, lock, token, ids.try_into().unwrap())
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

/// I2, I9, I12, I17: `kill -9`, and every client finds what it had.
#[tokio::test]
async fn a_killed_daemon_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let (mut child, lock, token, sessions) = other(&path);
    for is_killed in [false, true] {
        if is_killed {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Whoever looks meanwhile sees it as it is on record, and changes nothing.
        assert_eq!(owner(&path).unwrap().is_none(), is_killed);
        let before = files(dir.path());
        let mut snapshot = Snapshot::of(&path).unwrap();
        assert_eq!(snapshot.projects().unwrap(), [Arc::from(DEMO)]);
        let grants = snapshot.see(DEMO, &List {}).unwrap();
        assert_eq!((grants[0].lock.to_string(), grants.len()), (lock.clone(), 1));
        let queue = snapshot.see(DEMO, &Queue { resource: file("x") }).unwrap();
        assert_eq!(queue.iter().map(|one| one.session).collect::<Vec<_>>(), sessions[1..]);
        assert_eq!(snapshot.see(DEMO, &WaitGraphNow {}).unwrap().edges.len(), 3);
        assert_eq!(snapshot.see("unheard of", &StatsNow {}).unwrap().sessions, 0);
        assert_eq!(snapshot.audit(&AuditFilter::default()).unwrap().len(), 9);
        assert_eq!(snapshot.check().unwrap().problems.len(), 0);
        drop(snapshot);
        assert_eq!(files(dir.path()), before);
    }
    let manager = LockManager::open_with(daemon(&path)).await.unwrap();
    goes_on(&manager, sessions, &lock, token).await;
    manager.shutdown().await;
}

/// Whoever does not ask for it finds the attached sessions of the dead ended, as ever.
#[tokio::test]
async fn a_program_of_its_own_ends_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let (mut child, _, _, sessions) = other(&path);
    child.kill().unwrap();
    child.wait().unwrap();
    let manager = LockManager::open(&path).await.unwrap();
    let demo = manager.project(DEMO).await.unwrap();
    let list = demo.list().await.unwrap();
    assert_eq!(list.iter().map(|one| one.session).collect::<Vec<_>>(), [sessions[3]]);
    assert_eq!(demo.stats().await.unwrap().sessions, 1);
    manager.shutdown().await;
}

/// An orderly end ends nothing: whoever waits is told, and the next one goes on, however often.
#[tokio::test]
async fn a_shutdown_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let manager = LockManager::open_with(daemon(&path)).await.unwrap();
    let scene = scene(&manager).await;
    let guarded = manager.session("other", "guarded").await.unwrap();
    let guard = guarded.acquire(file("y")).await.unwrap();
    let (id, y_token) = (guard.id(), guard.token());
    assert!(!manager.audit(AuditFilter::default()).await.unwrap().is_empty());
    let report = manager.shutdown().await;
    assert_eq!((report.sessions, report.released.len(), report.failed.len()), (0, 0, 0));
    for call in scene.waiting {
        let told = call.await.unwrap();
        assert!(matches!(told, Err(CallError::Unavailable(Unavailable::ShutDown))), "{told:?}");
    }
    // Handles that are dropped later reach nobody.
    drop((guard, guarded));
    assert!(!dir.path().join("locks.db-wal").exists(), "it is closed cleanly");
    // Dropped without a word, in between.
    let manager = LockManager::open_with(daemon(&path)).await.unwrap();
    assert_eq!(manager.project(DEMO).await.unwrap().stats().await.unwrap().tickets, 3);
    drop(manager);
    let manager = loop {
        match LockManager::open_with(daemon(&path)).await {
            Ok(manager) => break manager,
            Err(lockkeeper::StoreError::Owned { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    };
    let by = Credential::Token(y_token);
    let release = Release { by, lock: id, share: None, request_id: None };
    let other = manager.lock_actor("other").await.unwrap();
    other.ask(Command::from(release)).await.unwrap();
    let lock = scene.held.lock.to_string();
    goes_on(&manager, scene.sessions, &lock, scene.held.token.get()).await;
    manager.shutdown().await;
}

/// A request nobody sends again gives its place up after the grace of its ticket; one that is sent
/// again waits on.
#[tokio::test(start_paused = true)]
async fn a_place_nobody_comes_back_for_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let manager = LockManager::open_with(daemon(&path)).await.unwrap();
    let still = Still::new();
    let scene = scene(&manager).await;
    manager.shutdown().await;
    drop(still);
    let manager = LockManager::open_with(daemon(&path)).await.unwrap();
    let _still = Still::new();
    let demo = manager.project(DEMO).await.unwrap();
    let call = ask(demo.actor().unwrap(), wants(scene.sessions[2], "x", 102));
    let returned = async |demo: &Project| {
        let queue = demo.queue(file("x")).await.unwrap();
        queue.iter().filter(|one| one.poll_by.is_none()).count()
    };
    until("it waits again", async || returned(&demo).await == 1).await;
    tokio::time::advance(secs(119)).await;
    assert_eq!(demo.stats().await.unwrap().tickets, 3);
    tokio::time::advance(secs(2)).await;
    until("the others left", async || demo.stats().await.unwrap().tickets == 1).await;
    let end = EndSession { session: scene.sessions[0], cause: EndCause::OwnerDied };
    demo.actor().unwrap().ask(Command::from(end)).await.unwrap();
    assert_eq!(granted(call.await.unwrap()).resource, file("x"));
    manager.shutdown().await;
}

/// A daemon that starts takes over what it finds: leases end in projects nobody has named.
#[tokio::test(start_paused = true)]
async fn every_project_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let manager = LockManager::open(&path).await.unwrap();
    let still = Still::new();
    assert_eq!(manager.take_over_all().await.unwrap(), Vec::<Arc<str>>::new());
    for project in ["b", "a", "c"] {
        let session = manager.session(project, "d").detached().await.unwrap();
        session.acquire(file("x")).lease(secs(100)).await.unwrap().leave();
    }
    assert_eq!(manager.projects().await.unwrap(), ["a", "b", "c"].map(Arc::from));
    manager.shutdown().await;
    drop(still);
    let manager = LockManager::open(&path).await.unwrap();
    let _still = Still::new();
    let mut events = manager.subscribe();
    assert_eq!(manager.projects().await.unwrap().len(), 3, "known before they are started");
    assert_eq!(manager.take_over_all().await.unwrap(), ["a", "b", "c"].map(Arc::from));
    tokio::time::advance(secs(101)).await;
    let mut expired = Vec::new();
    while expired.len() < 3 {
        let lockkeeper::Heard::Event(heard) = events.next().await.unwrap() else { panic!() };
        if let News::Expired(news) = &heard.event.news {
            assert_eq!(news.resource, file("x"));
            expired.push(heard.project_id.clone());
        }
    }
    expired.sort_unstable();
    assert_eq!(expired, ["a", "b", "c"].map(Arc::from));
    manager.clone().shutdown().await;
    let over = manager.take_over_all().await.unwrap_err();
    assert!(matches!(over, Unavailable::ShutDown), "{over:?}");
}

/// Without a file the projects are those that were started.
#[tokio::test]
async fn projects_in_memory() {
    let manager = LockManager::in_memory(Config::default());
    assert_eq!(manager.projects().await.unwrap(), Vec::<Arc<str>>::new());
    drop(manager.session("p", "a").await.unwrap());
    assert_eq!(manager.take_over_all().await.unwrap(), [Arc::from("p")]);
    let config = Config { attached_outlive: true, ..Config::in_memory() };
    let manager = LockManager::open_with(config).await.unwrap();
    let scene = scene(&manager).await;
    manager.shutdown().await;
    for call in scene.waiting {
        let told = call.await.unwrap();
        assert!(matches!(told, Err(CallError::Unavailable(Unavailable::ShutDown))), "{told:?}");
    }
}

//! Daemons that stop, or die, and are started again under their clients.

use crate::support::{DEMO, Room, file, poll_once, secs, until};
use lockkeeper::{
    AcquireError, Config, LockManager, Lost,
    remote::{Connect, ConnectError, Revive},
};
use lockkeeper_server::{Server, ServerConfig, StopReport, Stopper};
use std::{
    future::IntoFuture,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A store, a socket, and a daemon that may be there or not.
pub struct Home {
    dir: TempDir,
    daemon: Option<(Stopper, JoinHandle<StopReport>)>,
}

impl Home {
    pub async fn start() -> Home {
        let mut home = Home { dir: tempfile::tempdir().unwrap(), daemon: None };
        home.begin().await;
        home
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The store itself, while no daemon has it.
    pub async fn open(&self) -> LockManager {
        // A writer that was left alone may still be closing the file.
        let mut manager = None;
        until("the store is free", async || {
            let config = Config::at(self.dir.path().join("locks.db"));
            let config = Config { attached_outlive: true, ..config };
            manager = LockManager::open_with(config).await.ok();
            manager.is_some()
        })
        .await;
        manager.unwrap()
    }

    pub async fn begin(&mut self) {
        let config = ServerConfig::at(self.socket());
        let server = Server::start(self.open().await, config).await.unwrap();
        let stopper = server.stopper();
        self.daemon = Some((stopper, tokio::spawn(server.run())));
    }

    /// In order, or as if its process had died.
    pub async fn end(&mut self, in_order: bool) {
        let (stopper, running) = self.daemon.take().unwrap();
        match in_order {
            true => stopper.stop(),
            false => running.abort(),
        }
        let _ = running.await;
    }

    pub async fn connect(&self) -> LockManager {
        LockManager::connect(self.socket()).await.unwrap()
    }
}

/// I2, I9, I12, I13: everything that is held and waited for goes on, and what was given back or
/// given up meanwhile is free.
async fn everything_goes_on(in_order: bool) {
    let mut home = Home::start().await;
    let far = home.connect().await;
    let demo = far.project(DEMO).await.unwrap();
    let session = async |agent| far.session(DEMO, agent).await.unwrap();
    let a = session("a").await;
    let guard = a.acquire(file("x")).await.unwrap();
    let dropped = a.acquire(file("y")).await.unwrap();
    let released = a.acquire(file("z")).shared().await.unwrap();
    let before = (guard.id(), guard.token());
    let turns = Arc::new(AtomicUsize::new(0));
    let mut waits = Vec::new();
    for (n, agent) in ["b", "c"].into_iter().enumerate() {
        let (turns, wait) = (turns.clone(), session(agent).await.acquire(file("x")).into_future());
        waits.push(tokio::spawn(async move {
            let guard = wait.await.unwrap();
            assert_eq!(turns.fetch_add(1, Ordering::SeqCst), n, "it lost its place");
            guard.token()
        }));
        let queued = async || demo.queue(file("x")).await.unwrap().len() == n + 1;
        until("it waits", queued).await;
    }
    let mut given_up = Box::pin(session("d").await.acquire(file("x")).into_future());
    assert!(poll_once(given_up.as_mut()).await.is_none());
    until("it waits", async || demo.queue(file("x")).await.unwrap().len() == 3).await;

    home.end(in_order).await;
    drop(dropped);
    drop(given_up);
    let again = a.acquire(file("y")).into_future();
    let meanwhile = tokio::spawn(async move { (released.release().await, again.await) });
    tokio::task::yield_now().await;
    assert!(guard.is_valid(), "it ends at its deadline, and not with the daemon");
    home.begin().await;

    let (released, again) = meanwhile.await.unwrap();
    released.unwrap();
    again.expect("what was owed before it came before it").release().await.unwrap();
    assert!(guard.is_valid());
    assert_eq!((guard.id(), guard.token()), before);
    let queue = demo.queue(file("x")).await.unwrap();
    assert_eq!(queue.iter().map(|it| &*it.agent).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(demo.get_owner(file("x")).await.unwrap().as_deref(), Some("a"));
    assert_eq!(demo.stats().await.unwrap().holds, 1);
    guard.renew(secs(500)).await.unwrap();
    guard.release().await.unwrap();
    let mut last = before.1;
    for wait in waits {
        let token = wait.await.unwrap();
        assert!(token > last, "I2");
        last = token;
    }
    assert_eq!(a.close().await.unwrap().released, 0);
    until("all is at rest", async || demo.stats().await.unwrap().sessions == 0).await;
    far.shutdown().await;
    home.end(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_on_after_a_stop_in_order() {
    everything_goes_on(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_on_after_a_death() {
    everything_goes_on(false).await;
}

/// I1, I8: agents go in and out while the daemon dies under them again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_inside_twice_while_daemons_come_and_go() {
    let mut home = Home::start().await;
    let room = Room::new(file("room"), None);
    let far = [home.connect().await, home.connect().await];
    let mut agents = Vec::new();
    for n in 0..6 {
        let session = far[n % 2].session(DEMO, &format!("agent-{n}")).await.unwrap();
        let room = room.clone();
        agents.push(tokio::spawn(async move {
            for round in 0..30 {
                let guard = session.acquire(room.resource.clone()).await.unwrap();
                assert!(guard.is_valid());
                let visit = room.enter(&guard);
                tokio::task::yield_now().await;
                drop(visit);
                match round % 2 {
                    0 => guard.release().await.unwrap(),
                    _ => drop(guard),
                }
            }
        }));
    }
    for round in 0..6 {
        let seen = room.visits();
        let is_over = || agents.iter().all(|agent| agent.is_finished());
        until("somebody was inside", async || room.visits() > seen + 3 || is_over()).await;
        home.end(round % 2 == 0).await;
        home.begin().await;
    }
    for agent in agents {
        agent.await.unwrap();
    }
    room.check();
    assert_eq!(room.visits(), 6 * 30);
    let demo = far[0].project(DEMO).await.unwrap();
    until("all is at rest", async || demo.stats().await.unwrap().sessions == 0).await;
    assert_eq!(demo.stats().await.unwrap().holds, 0);
}

/// A session whose client does not come back in time is over, and its guards are lost.
#[tokio::test]
async fn a_session_that_is_over_takes_its_guards_along() {
    let mut home = Home::start().await;
    let far = home.connect().await;
    let a = far.session(DEMO, "a").await.unwrap();
    let guard = a.acquire(file("x")).await.unwrap();
    home.end(false).await;
    // Somebody else ends it before its client is back.
    let path = home.dir().join("locks.db");
    let mut manager = None;
    until("the store is free", async || {
        manager = LockManager::open(&path).await.ok();
        manager.is_some()
    })
    .await;
    let manager = manager.unwrap();
    assert_eq!(manager.project(DEMO).await.unwrap().stats().await.unwrap().sessions, 0);
    manager.shutdown().await;
    home.begin().await;
    assert_eq!(guard.lost().await, Lost::Released);
    let error = a.acquire(file("y")).await.unwrap_err();
    assert!(matches!(error, AcquireError::SessionEnded { .. }), "{error}");
    let next = far.session(DEMO, "a").await.unwrap();
    next.acquire(file("x")).no_wait().await.unwrap().release().await.unwrap();
}

/// What was taken away while its holder could not be told is lost when it comes back; what was not
/// is still held.
#[tokio::test]
async fn a_hold_that_was_taken_away_meanwhile_is_lost() {
    let mut home = Home::start().await;
    let far = home.connect().await;
    let a = far.session(DEMO, "a").await.unwrap();
    let taken = a.acquire(file("x")).await.unwrap();
    let kept = a.acquire(file("y")).await.unwrap();
    home.end(true).await;
    let manager = home.open().await;
    let demo = manager.project(DEMO).await.unwrap();
    demo.force_unlock(file("x"), "admin", "a test").await.unwrap();
    manager.shutdown().await;
    home.begin().await;
    assert_eq!(taken.lost().await, Lost::Released);
    assert!(kept.is_valid());
    kept.release().await.unwrap();
}

/// A daemon that is started by those who need it.
#[tokio::test]
async fn a_daemon_is_brought_back_by_whoever_needs_it() {
    let mut home = Home::start().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, wish) = (calls.clone(), Arc::new(tokio::sync::Notify::new()));
    let wished = wish.clone();
    let revive: Revive = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        wished.notify_one();
        Box::pin(async {})
    });
    let connect = Connect { revive: Some(revive), ..Connect::to(home.socket()) };
    let far = LockManager::connect_with(connect).await.unwrap();
    let a = far.session(DEMO, "a").await.unwrap();
    let guard = a.acquire(file("x")).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    home.end(true).await;
    wish.notified().await;
    home.begin().await;
    guard.release().await.unwrap();
    assert!(calls.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let error = LockManager::connect(dir.path().join("sock")).await.unwrap_err();
    assert!(matches!(error, ConnectError::NobodyThere { .. }), "{error}");
}

//! Connections that are cut at each of their messages.

use crate::{
    restarted::Home,
    support::{DEMO, Room, file, millis, poll_once, secs, until},
};
use lockkeeper::{
    AdminError, LockManager, Lost, Unavailable,
    remote::{Client, Connect},
};
use std::{
    future::IntoFuture,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::watch,
};

/// The message that says that a session was opened, behind two hellos and its request.
const OPENED: usize = 3;

/// What becomes of the message at which a connection is cut.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cut {
    /// It never arrives.
    Before,
    /// It arrives at the daemon, but after its client is back on another connection.
    Late,
}

/// Stands between a client and its daemon, and cuts one connection at one message.
struct Proxy {
    path: PathBuf,
    /// How many messages have gone through.
    seen: Arc<AtomicUsize>,
    has_cut: Arc<AtomicBool>,
    /// Whether the message has arrived late.
    is_late: Arc<AtomicBool>,
}

impl Proxy {
    fn start(home: &Home, at: usize, how: Cut) -> Proxy {
        let path = home.dir().join(format!("proxy-{at}-{how:?}"));
        let listener = UnixListener::bind(&path).unwrap();
        let (seen, has_cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let is_late = Arc::new(AtomicBool::new(false));
        let it = Between {
            to: home.socket(),
            at,
            how,
            seen: seen.clone(),
            has_cut: has_cut.clone(),
            is_late: is_late.clone(),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(it.clone().carry(client));
            }
        });
        Proxy { path, seen, has_cut, is_late }
    }
}

#[derive(Clone)]
struct Between {
    to: PathBuf,
    at: usize,
    how: Cut,
    seen: Arc<AtomicUsize>,
    has_cut: Arc<AtomicBool>,
    is_late: Arc<AtomicBool>,
}

impl Between {
    async fn carry(self, client: UnixStream) {
        let Ok(daemon) = UnixStream::connect(&self.to).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_daemon, to_daemon) = daemon.into_split();
        let cut = watch::Sender::new(false);
        let there = self.pass(BufReader::new(from_client), to_daemon, &cut, true);
        let back = self.pass(BufReader::new(from_daemon), to_client, &cut, false);
        tokio::join!(there, back);
    }

    /// Carries lines one way until the connection is cut or over.
    async fn pass(
        &self,
        mut from: impl AsyncBufReadExt + Unpin,
        mut to: OwnedWriteHalf,
        cut: &watch::Sender<bool>,
        is_request: bool,
    ) {
        let mut is_cut = cut.subscribe();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = tokio::select! {
                read = from.read_until(b'\n', &mut line) => read.unwrap_or(0),
                _ = is_cut.wait_for(|cut| *cut) => 0,
            };
            if read == 0 {
                break;
            }
            if self.seen.fetch_add(1, Ordering::SeqCst) == self.at {
                self.has_cut.store(true, Ordering::SeqCst);
                cut.send_replace(true);
                if self.how == Cut::Late && is_request {
                    // The client's end is closed; the daemon's is not yet.
                    drop(from);
                    tokio::time::sleep(millis(30)).await;
                    let _ = to.write_all(&line).await;
                    drop(to);
                    self.is_late.store(true, Ordering::SeqCst);
                }
                return;
            }
            if to.write_all(&line).await.is_err() {
                break;
            }
        }
        cut.send_replace(true);
    }
}

/// Goes through all there is, beside a rival who wants the same.
async fn live(far: LockManager, room: &Arc<Room>) {
    let a = far.session(DEMO, "a").await.unwrap();
    for round in 0..2 {
        let guard = a.acquire(room.resource.clone()).await.unwrap();
        assert!(guard.is_valid());
        let visit = room.enter(&guard);
        tokio::task::yield_now().await;
        drop(visit);
        match round {
            0 => guard.release().await.unwrap(),
            _ => drop(guard),
        }
    }
    let mut update = a.acquire(file("u")).update().await.unwrap();
    update.upgrade().await.unwrap();
    update.downgrade(lockkeeper::LockMode::Shared).await.unwrap();
    update.renew(secs(400)).await.unwrap();
    {
        let mut given_up = Box::pin(a.acquire(room.resource.clone()).into_future());
        let _ = poll_once(given_up.as_mut()).await;
        tokio::task::yield_now().await;
    }
    let batch = a.acquire_all([file("v"), file("w")]).await.unwrap();
    assert!(batch.all_valid() && update.is_valid());
    let task = a.claim("t").await.unwrap();
    assert!(task.release().await.is_ok());
    batch.release().await.unwrap();
    drop(update);
    a.close().await.unwrap();
}

async fn rival(direct: LockManager, room: Arc<Room>, is_over: Arc<AtomicBool>) {
    let session = direct.session(DEMO, "rival").await.unwrap();
    while !is_over.load(Ordering::SeqCst) {
        let guard = session.acquire(room.resource.clone()).await.unwrap();
        drop(room.enter(&guard));
        guard.release().await.unwrap();
        tokio::time::sleep(millis(1)).await;
    }
}

async fn one_life(home: &Home, at: usize, how: Cut) -> bool {
    let proxy = Proxy::start(home, at, how);
    let direct = home.connect().await;
    let demo = direct.project(DEMO).await.unwrap();
    let before = demo.stats().await.unwrap().sessions;
    let (room, is_over) = (Room::new(file("room"), None), Arc::new(AtomicBool::new(false)));
    let rival = tokio::spawn(rival(home.connect().await, room.clone(), is_over.clone()));
    // The first hello may be cut, too: then whoever connects is told so.
    let far = loop {
        let connect = Connect { linger: secs(60), ..Connect::to(proxy.path.as_path()) };
        if let Ok(far) = LockManager::connect_with(connect).await {
            break far;
        }
    };
    live(far.clone(), &room).await;
    far.shutdown().await;
    is_over.store(true, Ordering::SeqCst);
    rival.await.unwrap();
    room.check();
    until(&format!("all is at rest after a cut {how:?} {at}"), async || {
        let stats = demo.stats().await.unwrap();
        // A session whose opening was not heard of lingers; it has nothing. Of that nothing is
        // heard either if the request comes late, but before its connection is over.
        let may_linger = at == OPENED || (at + 1 == OPENED && matches!(how, Cut::Late));
        let sessions = before + usize::from(may_linger);
        (stats.sessions <= sessions, stats.holds, stats.tickets) == (true, 0, 0)
    })
    .await;
    assert!(proxy.seen.load(Ordering::SeqCst) > 0);
    proxy.has_cut.load(Ordering::SeqCst)
}

async fn each_message(how: Cut) {
    let home = Home::start().await;
    let mut at = 0;
    while one_life(&home, at, how).await {
        at += 1;
    }
    // Requests and answers: less would mean that not much was cut.
    assert!(at > 30, "only {at} messages");
}

/// I1, I12, I13: no grant is lost or made twice, nothing is left behind, and whoever asked hears of
/// all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_never_arrives() {
    each_message(Cut::Before).await;
}

/// The same, when what was said on the old connection arrives behind what is said on the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_arrives_late() {
    each_message(Cut::Late).await;
}

/// I13: the request of an earlier connection arrives when its client is back on another one and has
/// long got what it asked for: it is not taken away again when the earlier connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_request_takes_nothing_away() {
    let home = Home::start().await;
    let watcher = Client::connect(&home.socket().into()).await.unwrap();
    // Behind the opening of the session.
    let proxy = Proxy::start(&home, OPENED + 1, Cut::Late);
    let connect = Connect { linger: secs(60), ..Connect::to(proxy.path.as_path()) };
    let far = LockManager::connect_with(connect).await.unwrap();
    let a = far.session(DEMO, "a").await.unwrap();
    let guard = a.acquire(file("x")).await.unwrap();
    assert!(proxy.has_cut.load(Ordering::SeqCst));
    until("the old request has arrived, and its connection is over", async || {
        proxy.is_late.load(Ordering::SeqCst) && watcher.status().await.unwrap().connections == 2
    })
    .await;
    for _ in 0..20 {
        watcher.status().await.unwrap();
        assert!(guard.is_valid());
        let owner = far.project(DEMO).await.unwrap().get_owner(file("x")).await.unwrap();
        assert_eq!(owner.as_deref(), Some("a"));
    }
    guard.release().await.unwrap();
}

/// What an administrator breaks is not broken twice: by then it may be somebody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_something_is_not_asked_again() {
    let home = Home::start().await;
    let direct = home.connect().await;
    let holder = direct.session(DEMO, "holder").await.unwrap();
    let broken = holder.acquire(file("x")).await.unwrap();
    let next = direct.session(DEMO, "next").await.unwrap();
    let waiting = tokio::spawn(next.acquire(file("x")).into_future());
    let demo = direct.project(DEMO).await.unwrap();
    until("it waits", async || demo.queue(file("x")).await.unwrap().len() == 1).await;
    // Behind a hello, its answer, and the request.
    let proxy = Proxy::start(&home, 3, Cut::Before);
    let far = LockManager::connect(proxy.path.as_path()).await.unwrap();
    let far = far.project(DEMO).await.unwrap();
    let error = far.force_unlock(file("x"), "admin", "a test").await.unwrap_err();
    assert!(matches!(error, AdminError::Unavailable(Unavailable::Unreachable(_))), "{error}");
    assert_eq!(broken.lost().await, Lost::Revoked);
    let guard = waiting.await.unwrap().unwrap();
    assert_eq!(far.get_owner(file("x")).await.unwrap().as_deref(), Some("next"));
    assert!(guard.is_valid());
}

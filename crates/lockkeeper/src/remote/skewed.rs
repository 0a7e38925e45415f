//! Daemons whose clocks show something else than ours.

use super::{
    Connect, PROTOCOL,
    tests::{Daemon, Place, place},
};
use crate::{LockGuard, LockManager, Lost};
use serde_json::{Value, json};
use std::time::Duration;

const LOCK: &str = "0190b5a2-7c1e-7000-8000-000000000001";

/// While it lives, paused time moves only by hand.
struct Still {
    _end: std::sync::mpsc::Sender<()>,
}

fn still() -> Still {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || ended.recv().is_err());
    Still { _end: end }
}

fn grant(expires_at: u64) -> Value {
    json!({
        "lock": LOCK, "ticket": 1, "resource": "file:x", "mode": "exclusive", "token": 7,
        "slots": [], "expires_at": expires_at, "count": 1, "wait_ms": 0,
    })
}

async fn accept(place: &Place, now: u64) -> Daemon {
    let mut daemon = Daemon::accept(&place.listener).await;
    daemon.hello_at(PROTOCOL, now).await;
    daemon
}

/// A manager and a guard of a lock that is leased for a second, at a daemon whose clock shows this.
async fn guarded(place: &Place, now: u64) -> (LockManager, LockGuard, Daemon) {
    let serve = async {
        let mut daemon = accept(place, now).await;
        let asked = daemon.next().await;
        daemon.answer(&asked, json!({"session_opened": {"session": 1}})).await;
        let asked = daemon.next().await;
        daemon.answer(&asked, json!({"granted": [grant(now + 1_000)]})).await;
        daemon
    };
    let ask = async {
        let connect = Connect::to(place.address.clone());
        let manager = LockManager::connect_with(connect).await.unwrap();
        let session = manager.session("demo", "a").await.unwrap();
        let guard = session.acquire(lockkeeper_core::Resource::file("x")).await.unwrap();
        (manager, guard)
    };
    let ((manager, guard), daemon) = tokio::join!(ask, serve);
    (manager, guard, daemon)
}

async fn ends_in(guard: &LockGuard, millis: u64) {
    tokio::time::advance(Duration::from_millis(millis - 1)).await;
    assert!(guard.is_valid(), "early");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!guard.is_valid(), "late");
    assert_eq!(guard.lost().await, Lost::Expired);
}

/// I14: in 1970, and in a far future.
#[tokio::test(start_paused = true)]
async fn a_lease_is_measured_by_the_daemons_clock() {
    for now in [5_000, 4_000_000_000_000] {
        let _still = still();
        let place = place();
        let (_manager, guard, _daemon) = guarded(&place, now).await;
        assert_eq!(guard.expires_at().0, now + 1_000);
        ends_in(&guard, 1_000).await;
    }
}

/// I14, I17: a daemon is started again, and somebody has set its clock, back or forward. The guard
/// goes on, and ends when the daemon's lease does.
#[tokio::test(start_paused = true)]
async fn a_daemons_clock_is_set_while_it_is_away() {
    let hour = 3_600_000;
    for now in [100 * hour - hour, 100 * hour + hour] {
        let _still = still();
        let place = place();
        let (manager, guard, daemon) = guarded(&place, 100 * hour).await;
        drop(daemon);
        // The pause before it is looked for again.
        let mut again = Box::pin(accept(&place, now));
        let mut daemon = loop {
            tokio::select! {
                biased;
                daemon = &mut again => break daemon,
                () = tokio::time::advance(Duration::from_millis(1)) => {}
            }
        };
        let asked = daemon.next().await;
        assert_eq!(asked["method"], "session.attach");
        daemon.answer(&asked, json!({"grants": [grant(now + 1_000)]})).await;
        // An answer behind it shows that it was taken in.
        let serve = async {
            let asked = daemon.next().await;
            daemon.answer(&asked, json!([])).await;
        };
        let demo = manager.project("demo").await.unwrap();
        let (list, ()) = tokio::join!(demo.list(), serve);
        assert_eq!(list.unwrap(), []);
        ends_in(&guard, 1_000).await;
    }
}

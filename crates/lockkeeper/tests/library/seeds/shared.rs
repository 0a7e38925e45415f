//! What all of them fail or lack, where it is not a test of its own elsewhere: 1 is `inside` and
//! `storm`, 2 `deadlock`, 5 `drops`, 6 `process`, 13 `tests/metrics.rs`.

use crate::support::{Bench, DEMO, Room, file, secs, yields};
use lockkeeper::{Resource, ResourceProblem};
use std::sync::{Arc, Mutex};

/// Two files in opposite order by one request for several: no deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seed_6_3_two_files_in_opposite_order() {
    let bench = Bench::file().await;
    let rooms: Arc<[_]> = [Room::new(file("1"), None), Room::new(file("2"), None)].into();
    let mut tasks = Vec::new();
    for n in 0..2 {
        let (session, rooms) = (bench.session(&format!("{n}")).await, rooms.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..100 {
                let order = [rooms[n].resource.clone(), rooms[1 - n].resource.clone()];
                let guards = session.acquire_all(order).await.unwrap();
                let visits = guards.iter().map(|guard| {
                    let at = rooms.iter().position(|room| room.resource == *guard.resource());
                    rooms[at.unwrap()].enter(guard)
                });
                let visits: Vec<_> = visits.collect();
                yields(1).await;
                drop(visits);
                drop(guards);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for room in rooms.iter() {
        room.check();
        assert_eq!(room.visits(), 200);
    }
    bench.close_empty().await;
}

#[tokio::test(start_paused = true)]
async fn seed_6_4_an_old_holder_after_its_lease() {
    let bench = Bench::file().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let gate = lockkeeper::FenceGate::new(Vec::new());
    let old = a.acquire(file("x")).lease(secs(1)).await.unwrap();
    gate.with(old.token(), |log: &mut Vec<&str>| log.push("old")).unwrap();
    bench.pass(secs(2)).await;
    let new = b.acquire(file("x")).await.unwrap();
    gate.with(new.token(), |log| log.push("new")).unwrap();
    gate.with(old.token(), |log| log.push("stale")).unwrap_err();
    old.renew(secs(9)).await.unwrap_err();
    old.release().await.unwrap_err();
    assert!(new.is_valid());
    assert_eq!(gate.into_inner(), ["old", "new"]);
}

/// The order of grants is the order of requests, and nobody is left over.
#[tokio::test]
async fn seed_6_7_grants_come_in_the_order_of_requests() {
    let bench = Bench::file().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let first = bench.session("first").await.acquire(file("x")).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..30 {
        let (session, order) = (bench.session(&format!("{n}")).await, order.clone());
        tasks.push(tokio::spawn(async move {
            let guard = session.acquire(file("x")).await.unwrap();
            order.lock().unwrap().push(n);
            drop(guard);
        }));
        crate::support::until("it waits", async || bench.stats().await.tickets == n + 1).await;
    }
    drop(first);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..30).collect::<Vec<_>>());
    bench.close_empty().await;
}

#[tokio::test]
async fn seed_6_9_a_failing_batch_leaves_nothing_and_says_so() {
    let bench = Bench::file().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let _two = a.acquire(file("2")).await.unwrap();
    let _four = a.acquire(file("4")).await.unwrap();
    let names = (1..=5).map(|n| file(&format!("{n}")));
    let refused = b.acquire_all(names).no_wait().await.unwrap_err();
    let told: Vec<&str> =
        refused.obstacles().iter().map(|obstacle| obstacle.resource.as_str()).collect();
    assert_eq!(told, ["file:2", "file:4"]);
    assert_eq!(bench.list().await.len(), 2);
}

/// The file is the same, byte for byte, after any number of questions.
#[tokio::test]
async fn seed_6_10_questions_do_not_change_the_store() {
    let bench = Bench::file().await;
    let a = bench.session("a").await;
    let _guard = a.acquire(file("x")).await.unwrap();
    let demo = bench.demo().await;
    let read = || {
        let wal = bench.path().with_extension("db-wal");
        (std::fs::read(bench.path()).unwrap(), std::fs::read(wal).unwrap_or_default())
    };
    let before = read();
    for _ in 0..20 {
        demo.list().await.unwrap();
        demo.inspect(file("x")).await.unwrap();
        demo.audit(<_>::default()).await.unwrap();
        demo.stats().await.unwrap();
    }
    assert!(read() == before, "a question was written");
    assert_eq!(demo.name(), DEMO);
}

/// Keys that look alike are different, and strange ones are kept whole.
#[tokio::test]
async fn seed_6_11_the_spelling_of_keys() {
    let bench = Bench::file().await;
    let a = bench.session("a").await;
    let long = "ü/".repeat(5_000);
    let keys = ["x/y", "x_y", "x:y", "x\\y", "X/y", " x/y", "x/y ", "日本語", "🔒", "'; --", &long];
    let guards = a.acquire_all(keys.iter().map(|key| file(key))).await.unwrap();
    assert_eq!(guards.len(), keys.len());
    let replayed = bench.replayed(DEMO).list();
    for key in keys {
        assert!(replayed.iter().any(|holder| holder.resource == file(key)), "{key}");
    }
    let no_colon = "src/main.rs".parse::<Resource>().unwrap_err();
    assert_eq!(no_colon, ResourceProblem::NoColon);
    drop((guards, a));
    bench.close_empty().await;
}

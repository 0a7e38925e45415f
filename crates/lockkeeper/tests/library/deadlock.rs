//! Deadlocks are broken at the request that closes them: one victim, everybody else goes on, and
//! the whole story is told in every way it is told.

use crate::{
    place::Place,
    support::{Bench, Room, both, file, listen, poll_once, secs, until, warnings_of, yields},
};
use lockkeeper::{
    AcquireError, AuditFilter, ConvertError, DeadlockReport, EdgeKind, Events, FenceGate, Heard,
    LockGuard, LockMode, Lost, Project, SessionError,
};
use std::{
    future::IntoFuture,
    pin::pin,
    sync::{Arc, Mutex},
};

both!(
    threads:
    two_in_opposite_order,
    a_ring_of_eight,
    philosophers,
);
both!(still: two_upgrades, a_declared_wait, a_batch_is_never_part_of_one);

async fn all_waiting(project: &Project, count: usize) {
    until("all wait", async || project.stats().await.unwrap().tickets == count).await;
}

/// The deadlocks that a subscriber has heard of.
fn deadlocks(events: &mut Events, found: &mut Vec<Arc<lockkeeper::ProjectEvent>>) {
    while let Some(heard) = events.try_next() {
        let Heard::Event(event) = heard else { panic!("{heard:?}") };
        let json = serde_json::to_value(&*event).unwrap();
        if json["event"] == "deadlock.detected" {
            found.push(event);
        }
    }
}

/// Everything a deadlock has to leave behind, once: warning, audit row, event.
async fn told_once(bench: &Bench, project: &Project, events: &mut Events, report: &DeadlockReport) {
    let key = report.resource.as_ref().unwrap().key();
    let name = project.name();
    until("the warning", async || !warnings_of(name).is_empty()).await;
    let warnings = warnings_of(name);
    let found: Vec<_> = warnings.iter().filter(|one| one.message.starts_with("Deadlock")).collect();
    assert_eq!(found.len(), 1, "{warnings:?}");
    assert_eq!(found[0].message, format!("Deadlock detected on resource {key}"));
    let agents: Vec<&str> = report.participants.iter().map(|one| &*one.rank.agent).collect();
    assert_eq!(found[0].field("cycle"), agents.join(" -> "));
    assert_eq!(found[0].field("victim"), &*report.victim().unwrap().rank.agent);
    // Whoever asked may hear of it a moment before the subscribers do.
    let mut found = Vec::new();
    until("the event", async || {
        deadlocks(events, &mut found);
        !found.is_empty()
    })
    .await;
    project.stats().await.unwrap();
    deadlocks(events, &mut found);
    assert_eq!(found.len(), 1);
    let json = serde_json::to_value(&*found[0]).unwrap();
    assert_eq!(json["project_id"], name);
    assert_eq!(json["report"], serde_json::to_value(report).unwrap());
    if bench.is_on_file() {
        let event_type = Some("deadlock_detected".to_owned());
        let filter = AuditFilter { event_type, ..AuditFilter::default() };
        let rows = project.audit(filter).await.unwrap();
        assert_eq!(rows.len(), 1);
        let told: DeadlockReport =
            serde_json::from_value(rows[0].details["deadlock_found"].clone()).unwrap();
        assert_eq!(told, *report);
        assert_eq!(rows[0].resource.as_deref(), report.resource.as_ref().map(|it| it.as_str()));
    }
}

/// I6, I7: one holds 1 and wants 2, the other holds 2 and wants 1.
async fn two_in_opposite_order(bench: Bench) {
    listen();
    let name = format!("opposite-{}", bench.is_on_file());
    let project = bench.manager.project(&name).await.unwrap();
    let mut events = project.subscribe();
    let a = project.session("a").await.unwrap();
    let b = project.session("b").await.unwrap();
    let one = a.acquire(file("1")).reason("first").await.unwrap();
    let two = b.acquire(file("2")).await.unwrap();
    let waiting = tokio::spawn(a.acquire(file("2")).into_future());
    all_waiting(&project, 1).await;
    let refused = b.acquire(file("1")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.legacy_code(), refused.retryable()),
        ("deadlock", "E304", true)
    );
    let AcquireError::Deadlock(report) = refused else { panic!("{refused}") };
    assert_eq!((report.requester, report.victim), (b.id(), b.id()));
    assert_eq!(report.participants.len(), 2);
    assert_eq!(report.participants[0].edge, EdgeKind::Hard);
    assert_eq!(report.freed, vec![two.id()]);
    let got = waiting.await.unwrap().unwrap();
    assert!(got.token() > two.token(), "I2");
    assert!(one.is_valid() && got.is_valid());
    // In this process before the other one had it; from a daemon the news come beside the answer.
    assert!(Place::IS_FAR || !two.is_valid());
    assert_eq!((two.lost().await, two.is_valid()), (Lost::Revoked, false));
    told_once(&bench, &project, &mut events, &report).await;
    assert!(project.wait_graph().await.unwrap().edges.is_empty());
    // The victim's late release disturbs nobody.
    two.release().await.unwrap_err();
    assert_eq!(project.list().await.unwrap().len(), 2);
    drop((one, got));
    let two = b.acquire_all([file("1"), file("2")]).no_wait().await.unwrap();
    two.release().await.unwrap();
}

/// I6, I7, I10: of eight in a ring exactly one loses; the seven others get what they want.
async fn a_ring_of_eight(bench: Bench) {
    listen();
    let name = format!("ring-{}", bench.is_on_file());
    let project = bench.manager.project(&name).await.unwrap();
    let mut events = project.subscribe();
    let rooms: Vec<_> = (0..8).map(|n| Room::new(file(&format!("{n}")), None)).collect();
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    let mut firsts = Vec::new();
    for (n, room) in rooms.iter().enumerate() {
        let session = project.session(&format!("agent-{n}")).await.unwrap();
        let first = session.acquire(room.resource.clone()).await.unwrap();
        firsts.push(first.watch());
        tasks.push((session, first));
    }
    let tasks: Vec<_> = (0..8).zip(tasks).collect();
    let mut handles = Vec::new();
    for (n, (session, first)) in tasks {
        let room = rooms[(n + 1) % 8].clone();
        let (outcomes, before) = (outcomes.clone(), firsts[(n + 1) % 8].clone());
        handles.push(tokio::spawn(async move {
            let got = session.acquire(room.resource.clone()).await;
            if let Ok(second) = &got {
                if Place::IS_FAR {
                    before.lost().await;
                }
                assert!(!before.is_valid(), "I3: the one before has it, too");
                assert!(first.is_valid());
                drop(room.enter(second));
            }
            outcomes.lock().unwrap().push(got.err());
            drop(first);
        }));
        if n < 7 {
            all_waiting(&project, n + 1).await;
        }
    }
    for handle in handles {
        handle.await.unwrap();
    }
    let refused: Vec<_> = outcomes.lock().unwrap().iter().flatten().cloned().collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let AcquireError::Deadlock(report) = &refused[0] else { panic!("{refused:?}") };
    assert_eq!(report.participants.len(), 8);
    for room in &rooms {
        room.check();
    }
    assert_eq!(rooms.iter().map(|room| room.visits()).sum::<usize>(), 7);
    told_once(&bench, &project, &mut events, report).await;
    assert_eq!(project.stats().await.unwrap().holds, 0);
}

/// I1, I4, I10: philosophers who take their forks one after the other, and begin anew when they are
/// chosen; all of them eat as often as they want to.
async fn philosophers(bench: Bench) {
    const SEATS: usize = 6;
    let forks: Arc<Vec<FenceGate<Option<usize>>>> =
        Arc::new((0..SEATS).map(|_| FenceGate::new(None)).collect());
    let mut tasks = Vec::new();
    for seat in 0..SEATS {
        let (session, forks) = (bench.session(&format!("seat-{seat}")).await, forks.clone());
        tasks.push(tokio::spawn(async move {
            let (mut meals, mut lost) = (0, 0);
            let sides = [seat, (seat + 1) % SEATS];
            while meals < 25 {
                let left = session.acquire(file(&format!("fork-{}", sides[0]))).await;
                let Ok(left) = left else {
                    lost += 1;
                    continue;
                };
                yields(1).await;
                match session.acquire(file(&format!("fork-{}", sides[1]))).await {
                    Ok(right) => {
                        eat(&forks, sides, seat, [&left, &right]).await;
                        meals += 1;
                    }
                    Err(AcquireError::Deadlock(report)) => {
                        assert_eq!(report.victim, session.id(), "I7");
                        lost += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            lost
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    bench.close_empty().await;
}

async fn eat(
    forks: &[FenceGate<Option<usize>>],
    sides: [usize; 2],
    seat: usize,
    guards: [&LockGuard; 2],
) {
    for (side, guard) in sides.into_iter().zip(guards) {
        let before = forks[side].with(guard.token(), |fork| fork.replace(seat)).unwrap();
        assert_eq!(before, None, "I1: a fork in two hands");
    }
    yields(2).await;
    for (side, guard) in sides.into_iter().zip(guards) {
        assert!(guard.is_valid(), "whoever does not wait is not a victim (I7)");
        let before = forks[side].with(guard.token(), |fork| fork.take()).unwrap();
        assert_eq!(before, Some(seat), "I4");
    }
}

/// I6: of two readers that both want to be alone the second one is refused at once.
async fn two_upgrades(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let mut first = a.acquire(file("x")).shared().await.unwrap();
    let mut second = b.acquire(file("x")).shared().await.unwrap();
    {
        let mut upgrade = pin!(first.upgrade().into_future());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        bench.settle().await;
        let refused = second.upgrade().await.unwrap_err();
        assert!(matches!(refused, ConvertError::Deadlock(_)), "{refused}");
        drop(second);
        upgrade.await.unwrap();
    }
    assert_eq!((first.mode(), first.is_valid()), (LockMode::Exclusive, true));
    drop(first);
    drop((a, b));
    bench.close_empty().await;
}

/// I6: a parent waits for its child outside the table, the child for a lock of its parent.
async fn a_declared_wait(bench: Bench) {
    let (parent, child) = (bench.session("parent").await, bench.session("child").await);
    let held = parent.acquire(file("x")).await.unwrap();
    parent.declare_wait(child.id()).await.unwrap();
    let AcquireError::Deadlock(report) =
        child.acquire(file("x")).wait(secs(1_000_000)).await.unwrap_err()
    else {
        panic!("no deadlock");
    };
    assert_eq!(report.participants.len(), 2);
    assert!(report.participants.iter().any(|one| one.edge == EdgeKind::Declared));
    assert!(held.is_valid());
    parent.withdraw_wait(child.id()).await.unwrap();
    // The other way round: the wait that is declared closes the cycle.
    let mut asking = pin!(child.acquire(file("x")).into_future());
    assert!(poll_once(asking.as_mut()).await.is_none());
    bench.settle().await;
    match parent.declare_wait(child.id()).await {
        Err(SessionError::Deadlock(report)) => assert_eq!(report.victim, parent.id()),
        Ok(()) => assert!(matches!(asking.as_mut().await, Err(AcquireError::Deadlock(_)))),
        Err(other) => panic!("{other}"),
    }
    drop(held);
    drop((parent, child));
}

/// I6, I11: two batches in opposite order hold nothing while they wait.
async fn a_batch_is_never_part_of_one(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let between = bench.session("between").await;
    let blocker = between.acquire(file("1")).await.unwrap();
    let mut first = pin!(a.acquire_all([file("1"), file("2")]).into_future());
    assert!(poll_once(first.as_mut()).await.is_none());
    let mut second = pin!(b.acquire_all([file("2"), file("1")]).into_future());
    assert!(poll_once(second.as_mut()).await.is_none());
    drop(blocker);
    let first = first.await.unwrap();
    assert!(poll_once(second.as_mut()).await.is_none());
    drop(first);
    assert_eq!(second.await.unwrap().len(), 2);
    drop((a, b, between));
}

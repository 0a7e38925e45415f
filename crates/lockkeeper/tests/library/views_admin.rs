//! What an administrator may do, and what the audit log says of it.

use crate::{
    place::Place,
    support::{Bench, both, file, poll_once, secs},
};
use lockkeeper::{AdminError, AuditFilter, LockMode, Lost, Resource};
use std::{future::IntoFuture, pin::pin};

both!(still: force_unlock, release_all, capacities);

async fn force_unlock(bench: Bench) {
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    let first = a.acquire(file("x")).shared().reason("reading").await.unwrap();
    let second = b.acquire(file("x")).shared().await.unwrap();
    let c = bench.session("c").await;
    let mut waiting = pin!(c.acquire(file("x")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    let previous = demo.force_unlock(file("x"), "root", "stuck since noon").await.unwrap();
    let agents: Vec<&str> = previous.iter().map(|holder| &*holder.agent).collect();
    assert_eq!(agents, ["a", "b"]);
    assert_eq!(previous[0].reason.as_deref(), Some("reading"));
    assert!(!first.is_valid() && !second.is_valid());
    assert_eq!((first.lost().await, second.lost().await), (Lost::Revoked, Lost::Revoked));
    let got = waiting.await.unwrap();
    assert!(got.token() > first.token() && got.token() > second.token(), "I2");
    // Their late releases and drops disturb nobody.
    first.release().await.unwrap_err();
    drop(second);
    assert_eq!(demo.get_owner(file("x")).await.unwrap().as_deref(), Some("c"));
    if bench.is_on_file() {
        let event_type = Some("force_release".to_owned());
        let filter = AuditFilter { event_type, ..AuditFilter::default() };
        let rows = demo.audit(filter).await.unwrap();
        assert_eq!(rows.len(), 2);
        for row in &rows {
            let text = row.details.to_string();
            assert!(text.contains("root") && text.contains("stuck since noon"), "{text}");
            assert!(["a", "b"].contains(&row.agent_id.as_deref().unwrap()));
            assert_eq!(row.resource.as_deref(), Some("file:x"));
        }
    }
    drop(got);
    let nothing = demo.force_unlock(file("x"), "root", "again").await.unwrap_err();
    assert!(matches!(nothing, AdminError::NotLocked { resource } if resource == file("x")));
    drop((a, b, c));
    bench.close_empty().await;
}

/// I18: everything of all sessions of an agent, and nothing of anybody else; sessions stay.
async fn release_all(bench: Bench) {
    let (a, again, b) =
        (bench.session("a").await, bench.session("a").await, bench.session("b").await);
    let demo = bench.demo().await;
    let held = a.acquire_all((0..20).map(|n| file(&format!("{n}")))).await.unwrap();
    let more = again.acquire(file("more")).await.unwrap();
    let others = b.acquire(file("other")).await.unwrap();
    let mut waiting = pin!(again.acquire(file("other")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    assert_eq!(demo.release_all("a").await.unwrap(), 21);
    waiting.await.unwrap_err();
    if Place::IS_FAR {
        bench.settle().await;
    }
    assert!(others.is_valid() && !more.is_valid());
    assert!(held.iter().all(|guard| !guard.is_valid()));
    assert_eq!(demo.list().await.unwrap().len(), 1);
    assert_eq!(demo.sessions().await.unwrap().len(), 3);
    assert_eq!(demo.release_all("a").await.unwrap(), 0);
    assert_eq!(demo.release_all("nobody").await.unwrap(), 0);
    drop(a.acquire(file("0")).no_wait().await.unwrap());
    drop((held, more, others, a, again, b));
    bench.close_empty().await;
}

/// I1: never more permits than slots, also when their number changes.
async fn capacities(bench: Bench) {
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    let llm = Resource::llm("model");
    a.acquire(llm.clone()).permit().await.unwrap_err();
    demo.declare_capacity(llm.clone(), Some(2)).await.unwrap();
    let two = a.acquire(llm.clone()).permits(2).await.unwrap();
    assert_eq!((two.slots().len(), two.mode()), (2, LockMode::Permit(2)));
    let mut waiting = pin!(b.acquire(llm.clone()).permit().into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    demo.declare_capacity(llm.clone(), Some(3)).await.unwrap();
    let one = waiting.await.unwrap();
    assert!(!two.slots().contains(&one.slots()[0]), "I1: one slot twice");
    demo.declare_capacity(llm.clone(), None).await.unwrap_err();
    b.acquire(llm.clone()).permit().no_wait().await.unwrap_err();
    drop((one, two));
    demo.declare_capacity(llm.clone(), None).await.unwrap();
    drop(a.acquire(llm.clone()).await.unwrap());
    assert_eq!(demo.stats().await.unwrap().capacities, 0);
    drop((a, b));
    bench.close_empty().await;
}

/// Every filter of the audit log, and that nobody's token is told to others by a view.
#[tokio::test(start_paused = true)]
async fn audit_filters() {
    let bench = Bench::file().await.still();
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    a.acquire(file("x")).await.unwrap().release().await.unwrap();
    bench.pass(secs(10)).await;
    let guard = b.acquire(file("y")).await.unwrap();
    b.acquire(file("x")).await.unwrap().release().await.unwrap();
    let elsewhere = bench.manager.session("elsewhere", "a").await.unwrap();
    drop(elsewhere.acquire(file("x")).await.unwrap());
    bench.settle().await;
    let all = demo.audit(AuditFilter::default()).await.unwrap();
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id), "the latest first");
    assert!(all.iter().all(|row| row.project_id == "demo"));
    let filter = |change: &dyn Fn(&mut AuditFilter)| {
        let mut filter = AuditFilter { oldest_first: true, ..AuditFilter::default() };
        change(&mut filter);
        demo.audit(filter)
    };
    let of_a = filter(&|it| it.agent = Some("a".to_owned())).await.unwrap();
    assert!(!of_a.is_empty() && of_a.iter().all(|row| row.agent_id.as_deref() == Some("a")));
    let of_x = filter(&|it| it.resource = Some("file:x".to_owned())).await.unwrap();
    assert_eq!(of_x.len(), 4, "{of_x:?}");
    let grants = filter(&|it| it.event_type = Some("lock_granted".to_owned())).await.unwrap();
    assert_eq!(grants.len(), 3);
    assert!(grants.windows(2).all(|pair| pair[0].token < pair[1].token), "I2");
    let between = (grants[0].event_time, grants[1].event_time);
    assert!(between.0 < between.1);
    let late = filter(&|it| it.since = Some(between.1)).await.unwrap();
    let early = filter(&|it| it.until = Some(between.0)).await.unwrap();
    assert!(late.iter().all(|row| row.event_time >= between.1));
    assert!(early.iter().all(|row| row.event_time <= between.0));
    assert!(early.len() + late.len() <= all.len());
    let after = filter(&|it| it.after_id = Some(grants[1].id)).await.unwrap();
    assert!(after.iter().all(|row| row.id > grants[1].id));
    let two = filter(&|it| it.limit = Some(2)).await.unwrap();
    assert_eq!(two.len(), 2);
    let everywhere = bench.manager.audit(AuditFilter::default()).await.unwrap();
    assert!(everywhere.iter().any(|row| row.project_id == "elsewhere"));
    drop((guard, a, b, elsewhere));
}

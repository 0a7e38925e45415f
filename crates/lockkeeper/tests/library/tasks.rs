//! Tasks: exactly one agent works on each, and versions tell who has seen what.

use crate::{
    cancel::everywhere,
    support::{Bench, both, secs},
};
use lockkeeper::{Lost, TaskError, TaskStatus, WhyNotClaimed};
use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

both!(
    still:
    a_life_of_a_task,
    a_batch_is_all_or_nothing,
    a_claim_that_ends_by_itself,
    versions,
    a_claim_cut_off_anywhere,
    a_finish_cut_off_anywhere,
);
both!(
    threads:
    one_winner,
);

async fn claim_one(session: &lockkeeper::Session, task: &str) -> lockkeeper::TaskGuard {
    session.claim(task).lease(secs(100)).await.unwrap()
}

async fn a_life_of_a_task(bench: Bench) {
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    assert_eq!(demo.task("t").await.unwrap(), None);
    let claim = claim_one(&a, "t").await;
    assert_eq!((claim.name(), claim.task().status), ("t", TaskStatus::Claimed));
    let first = claim.task().version;
    let refused = b.claim("t").await.unwrap_err();
    let TaskError::ClaimFailed { failed } = &refused else { panic!("{refused}") };
    let WhyNotClaimed::Held(by) = &failed[0].why else { panic!("{failed:?}") };
    assert_eq!(&*by.holders[0].agent, "a");
    assert_eq!(by.holders[0].expires_at, claim.guard().expires_at());
    let until = claim.renew(secs(500)).await.unwrap();
    assert_eq!(until, claim.guard().expires_at());
    let open = claim.release().await.unwrap();
    assert_eq!((open.status, open.version > first), (TaskStatus::Open, true));
    let claim = claim_one(&b, "t").await;
    assert!(claim.task().version > open.version);
    let done = claim.complete().await.unwrap();
    assert_eq!(done.status, TaskStatus::Done);
    let refused = a.claim("t").await.unwrap_err();
    let TaskError::ClaimFailed { failed } = &refused else { panic!("{refused}") };
    assert_eq!(failed[0].why, WhyNotClaimed::Done);
    let again = a.reopen("t", Some(done.version)).await.unwrap();
    assert_eq!(again.status, TaskStatus::Open);
    drop(claim_one(&a, "t").await);
    bench.settle().await;
    assert_eq!(demo.task("t").await.unwrap().unwrap().status, TaskStatus::Open);
    assert_eq!(demo.tasks().await.unwrap().len(), 1);
    demo.forget_task("t").await.unwrap();
    assert_eq!(demo.tasks().await.unwrap(), []);
    drop((a, b));
    bench.at_rest().await;
}

/// I11.
async fn a_batch_is_all_or_nothing(bench: Bench) {
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    let taken = claim_one(&a, "2").await;
    let refused = b.claim_batch(["1", "2", "3"]).await.unwrap_err();
    let TaskError::ClaimFailed { failed } = &refused else { panic!("{refused}") };
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].task.resource.key(), "2");
    assert_eq!(demo.list().await.unwrap().len(), 1);
    taken.release().await.unwrap();
    let all = b.claim_batch(["1", "2", "3"]).await.unwrap();
    let names: Vec<&str> = all.iter().map(|claim| claim.name()).collect();
    assert_eq!(names, ["1", "2", "3"]);
    drop(all);
    drop((a, b));
    bench.settle().await;
    assert_eq!(bench.stats().await.holds, 0);
}

/// I14: taken over after its lease; the one before finishes and renews in vain.
async fn a_claim_that_ends_by_itself(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let old = a.claim("t").lease(secs(10)).await.unwrap();
    bench.pass(secs(11)).await;
    assert_eq!(old.guard().lost().await, Lost::Expired);
    let new = claim_one(&b, "t").await;
    assert!(new.guard().token() > old.guard().token(), "I2");
    old.renew(secs(10)).await.unwrap_err();
    let refused = old.complete().await.unwrap_err();
    assert!(matches!(refused, TaskError::NotHeld { .. }), "{refused}");
    assert!(new.guard().is_valid());
    assert_eq!(new.complete().await.unwrap().status, TaskStatus::Done);
    let kept = a.claim("kept").lease(secs(9)).keep_alive().await.unwrap();
    for _ in 0..30 {
        bench.pass(secs(1)).await;
        assert!(kept.guard().is_valid());
    }
    drop((kept, a, b));
}

async fn versions(bench: Bench) {
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let version = claim_one(&a, "t").await.release().await.unwrap().version;
    let refused = a.claim("t").expect_version(version + 1).await.unwrap_err();
    let TaskError::ClaimFailed { failed } = &refused else { panic!("{refused}") };
    assert_eq!(failed[0].why, WhyNotClaimed::VersionMismatch { expected: version + 1 });
    assert_eq!(failed[0].task.version, version);
    let claim = a.claim("t").expect_version(version).await.unwrap();
    assert_eq!(claim.task().version, version + 1);
    claim.complete().await.unwrap();
    let refused = a.reopen("t", Some(version)).await.unwrap_err();
    assert!(matches!(refused, TaskError::VersionMismatch { .. }), "{refused}");
    assert_eq!(demo.task("t").await.unwrap().unwrap().version, version + 2);
    drop(a);
}

/// I13.
async fn a_claim_cut_off_anywhere(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let ended = everywhere(12, async |cut| {
        let got = cut.run(&bench, a.claim_batch(["x", "y"]).into_future()).await;
        let ended = got.is_some();
        drop(got);
        let next = b.claim_batch(["x", "y"]).await.unwrap();
        assert_eq!(bench.stats().await.holds, 2);
        for claim in next {
            claim.release().await.unwrap();
        }
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    drop((a, b));
    bench.close_empty().await;
}

/// I13: either it is done or it is open; nobody has it.
async fn a_finish_cut_off_anywhere(bench: Bench) {
    let a = bench.session("a").await;
    for done in [false, true] {
        let ended = everywhere(12, async |cut| {
            let task = "t";
            let claim = claim_one(&a, task).await;
            let finish = async move {
                match done {
                    true => claim.complete().await,
                    false => claim.release().await,
                }
            };
            let ended = cut.run(&bench, finish).await.is_some();
            bench.settle().await;
            assert_eq!(bench.stats().await.holds, 0);
            let found = bench.demo().await.task(task).await.unwrap().unwrap();
            assert_ne!(found.status, TaskStatus::Claimed);
            if found.status == TaskStatus::Done {
                a.reopen(task, None).await.unwrap();
            }
            ended
        })
        .await;
        assert!(ended, "no attempt came to its end");
    }
    drop(a);
    bench.close_empty().await;
}

/// I1: many agents, one task: one winner; the others learn who it is.
async fn one_winner(bench: Bench) {
    let winners = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for n in 0..32 {
        let (session, winners) = (bench.session(&format!("agent-{n}")).await, winners.clone());
        tasks.push(tokio::spawn(async move {
            match session.claim("t").lease(secs(600)).await {
                Ok(claim) => {
                    winners.fetch_add(1, Ordering::SeqCst);
                    Some(claim)
                }
                Err(TaskError::ClaimFailed { failed }) => {
                    let WhyNotClaimed::Held(by) = &failed[0].why else { panic!("{failed:?}") };
                    assert!(by.holders[0].agent.starts_with("agent-"));
                    None
                }
                Err(other) => panic!("{other}"),
            }
        }));
    }
    let mut kept = Vec::new();
    for task in tasks {
        kept.extend(task.await.unwrap());
    }
    assert_eq!((winners.load(Ordering::SeqCst), kept.len()), (1, 1));
    drop(kept);
    bench.at_rest().await;
}

//! exarp-go: task leases, versions, stale and near-expiry counts, a git lock around work.

use crate::support::{Bench, Room, file, millis, secs};
use lockkeeper::{LeaseCounts, Resource, TaskError, WhyNotClaimed};

const LEASE: u64 = 30 * 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seed_3_4_many_agents_claim_one_task_and_one_wins() {
    let bench = Bench::file().await;
    let room = Room::new(Resource::task("T-1"), None);
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (session, room) = (bench.session(&format!("agent-{n}")).await, room.clone());
        tasks.push(tokio::spawn(async move {
            match session.claim("T-1").lease(secs(LEASE)).await {
                Ok(claim) => {
                    let visit = room.enter(claim.guard());
                    tokio::task::yield_now().await;
                    drop(visit);
                    Some(claim)
                }
                Err(TaskError::ClaimFailed { failed }) => {
                    let WhyNotClaimed::Held(by) = &failed[0].why else { panic!("{failed:?}") };
                    assert!(by.holders[0].agent.starts_with("agent-"), "by whom");
                    assert!(by.holders[0].expires_at.0 > 0, "until when");
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
    assert_eq!((kept.len(), room.visits()), (1, 1));
}

#[tokio::test]
async fn seed_3_4_a_batch_with_one_taken_claims_nothing_and_names_that_one() {
    let bench = Bench::file().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let _taken = a.claim("2").await.unwrap();
    let TaskError::ClaimFailed { failed } = b.claim_batch(["1", "2", "3"]).await.unwrap_err()
    else {
        panic!("another refusal");
    };
    let names: Vec<&str> = failed.iter().map(|one| one.task.resource.key()).collect();
    assert_eq!(names, ["2"]);
    assert_eq!(bench.list().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn seed_3_4_an_expired_claim_is_taken_over() {
    let bench = Bench::file().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let old = a.claim("t").lease(millis(100)).await.unwrap();
    bench.pass(millis(102)).await;
    let new = b.claim("t").lease(secs(LEASE)).await.unwrap();
    assert!(new.guard().token() > old.guard().token());
    assert!(new.task().version > old.task().version);
    old.renew(secs(LEASE)).await.unwrap_err();
    old.release().await.unwrap_err();
    assert!(new.guard().is_valid());
}

/// Theirs: leases below a second were born expired, and one second of the clock belonged to nobody.
#[tokio::test(start_paused = true)]
async fn seed_3_4_leases_below_a_second() {
    let bench = Bench::memory().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(Resource::task("t")).lease(millis(5)).await.unwrap();
    assert!(guard.is_valid());
    bench.pass(millis(5)).await;
    bench.pass(millis(1)).await;
    drop(b.acquire(Resource::task("t")).no_wait().await.unwrap());
}

#[tokio::test]
async fn seed_3_4_renew_and_release_by_another_are_refused() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(Resource::task("t")).await.unwrap();
    let actor = bench.manager.lock_actor("demo").await.unwrap();
    let by = lockkeeper::Credential::Session(b.id());
    let lock = guard.id();
    let renew = lockkeeper::Renew { by, lock, lease: None, shorten: false, request_id: None };
    let refused = format!("{:?}", actor.ask(renew).await.unwrap_err());
    assert!(refused.contains("NotHolder"), "{refused}");
    let release = lockkeeper::Release { by, lock, share: None, request_id: None };
    actor.ask(release).await.unwrap_err();
    assert!(guard.is_valid());
}

/// Theirs went on renewing and never told that the lease was lost.
#[tokio::test(start_paused = true)]
async fn seed_3_4_renewal_in_the_background_and_the_news_of_its_end() {
    let bench = Bench::file().await.still();
    let guard = bench.session("a").await.acquire(Resource::task("t")).lease(millis(300));
    let guard = guard.keep_alive().await.unwrap();
    for _ in 0..50 {
        bench.pass(millis(50)).await;
        assert!(guard.is_valid());
    }
    bench.demo().await.force_unlock(Resource::task("t"), "admin", "test").await.unwrap();
    assert_eq!(guard.lost().await, lockkeeper::Lost::Revoked);
}

#[tokio::test(start_paused = true)]
async fn seed_3_4_counts_of_near_expiry_and_stale() {
    let bench = Bench::memory().await.still();
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let _long = a.acquire(Resource::task("long")).lease(secs(LEASE)).await.unwrap();
    bench.pass(secs(600)).await;
    let _short = a.acquire(Resource::task("short")).lease(secs(100)).await.unwrap();
    let counts = demo.lease_counts(secs(300), secs(300)).await.unwrap();
    assert_eq!(counts, LeaseCounts { held: 2, near_expiry: 1, expired: 0, stale: 1 });
    assert_eq!(demo.find_stale(secs(300)).await.unwrap().len(), 1);
    assert_eq!(demo.get_lock_info(Resource::task("free")).await.unwrap(), None);
}

/// Work under the git lock: done, or failed with the lock given back, or refused in time.
#[tokio::test(start_paused = true)]
async fn seed_3_4_work_under_a_lock() {
    let bench = Bench::memory().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let git: Resource = "git:index".parse().unwrap();
    let work = async |fails: bool| -> Result<u32, &'static str> {
        let _guard = a.acquire(git.clone()).await.map_err(|_| "refused")?;
        if fails { Err("work failed") } else { Ok(7) }
    };
    assert_eq!(work(false).await, Ok(7));
    assert_eq!(work(true).await, Err("work failed"));
    assert!(!bench.demo().await.is_locked(git.clone()).await.unwrap());
    let _busy = b.acquire(git.clone()).await.unwrap();
    let waiting = tokio::spawn({
        let ask = a.acquire(git.clone()).wait(secs(60));
        async move { ask.await.map(drop) }
    });
    bench.settle().await;
    bench.pass(millis(60_002)).await;
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), "timed_out");
}

/// Theirs counted what it freed; so does this.
#[tokio::test(start_paused = true)]
async fn seed_3_4_clean_up_frees_only_what_has_expired() {
    let bench = Bench::file().await.still();
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let _live = a.acquire(file("live")).lease(secs(LEASE)).await.unwrap();
    let dead = a.acquire(file("dead")).lease(secs(1)).await.unwrap();
    tokio::time::advance(secs(300)).await;
    demo.cleanup_expired().await.unwrap();
    let left = demo.list().await.unwrap();
    assert_eq!((left.len(), &left[0].resource), (1, &file("live")));
    assert!(!dead.is_valid());
    assert_eq!(demo.cleanup_expired().await.unwrap(), 0);
}

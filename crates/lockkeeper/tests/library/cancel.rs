//! Requests whose future is dropped at any of its await points leave neither a hold nor a place in
//! a queue (I13).

use crate::support::{Bench, both, file, poll_once, yields};
use lockkeeper::{LockMode, Resource, Session};
use std::{
    future::{Future, IntoFuture},
    pin::pin,
};

/// How far a future gets before it is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    times: usize,
    /// Whether everything that can happen happens after each poll, so that an answer may already
    /// be there when the future is dropped; otherwise the scheduler takes one step between polls,
    /// and none after the last one, so that the request itself may not have been read yet.
    settled: bool,
}

impl Cut {
    /// Whether the future was polled at all.
    pub fn was_begun(self) -> bool {
        self.times > 0
    }

    pub async fn run<F: Future>(self, bench: &Bench, future: F) -> Option<F::Output> {
        let mut future = Box::pin(future);
        for at in 0..self.times {
            if at > 0 && !self.settled {
                yields(1).await;
            }
            if let Some(output) = poll_once(future.as_mut()).await {
                return Some(output);
            }
            if self.settled {
                bench.settle().await;
            }
        }
        None
    }
}

/// Makes an attempt for every point at which a future can be dropped, until it comes to its end
/// (the attempt says so) or so often.
pub async fn everywhere(at_most: usize, mut attempt: impl AsyncFnMut(Cut) -> bool) -> bool {
    let mut ended = false;
    for settled in [false, true] {
        for times in 0..at_most {
            if attempt(Cut { times, settled }).await {
                ended = true;
                break;
            }
        }
    }
    ended
}

/// Exactly so much is held, nobody waits, and each of the resources goes to the next who asks.
pub async fn is_free(bench: &Bench, next: &Session, held: usize, resources: &[Resource]) {
    let guards = next.acquire_all(resources.to_vec()).no_wait().await.unwrap();
    let stats = bench.stats().await;
    assert_eq!((stats.holds, stats.tickets), (held + resources.len(), 0));
    assert_eq!(stats.graph_edges, 0);
    guards.release().await.unwrap();
}

both!(
    still: an_acquire_of_what_is_free,
    an_acquire_that_waits,
    an_acquire_that_is_granted_while_nobody_looks,
    a_batch,
    a_batch_that_waits,
    a_reentrant_acquire_takes_back_its_own_share_only,
    a_wait_that_runs_out,
    a_keep_alive_acquire,
);

/// I13: cut off anywhere, the lock is free at once.
async fn an_acquire_of_what_is_free(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let lock = file("x");
    let ended = everywhere(12, async |cut| {
        let got = cut.run(&bench, a.acquire(lock.clone()).into_future()).await;
        let ended = got.is_some();
        drop(got);
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    drop((a, next));
    bench.close_empty().await;
}

/// I8, I13: a place in the middle of a queue is given up, and whoever stands behind moves up.
async fn an_acquire_that_waits(bench: Bench) {
    let (holder, a) = (bench.session("holder").await, bench.session("a").await);
    let (behind, lock) = (bench.session("behind").await, file("x"));
    let demo = bench.demo().await;
    everywhere(4, async |cut| {
        let held = holder.acquire(lock.clone()).await.unwrap();
        let got = cut.run(&bench, a.acquire(lock.clone()).into_future()).await;
        assert!(got.is_none(), "it was granted beside another one (I1)");
        let mut next = pin!(behind.acquire(lock.clone()).into_future());
        assert!(poll_once(next.as_mut()).await.is_none());
        bench.settle().await;
        let queue = demo.queue(lock.clone()).await.unwrap();
        assert_eq!(queue.len(), 1);
        assert_eq!(&*queue[0].agent, "behind");
        held.release().await.unwrap();
        let next = next.await.unwrap();
        assert_eq!(bench.stats().await.holds, 1);
        next.release().await.unwrap();
        false
    })
    .await;
    drop((holder, a, behind));
    bench.close_empty().await;
}

/// I13: the grant comes, but nobody takes it: neither before nor after it could have been seen.
async fn an_acquire_that_is_granted_while_nobody_looks(bench: Bench) {
    let (holder, a) = (bench.session("holder").await, bench.session("a").await);
    let (next, lock) = (bench.session("next").await, file("x"));
    for steps in 0..12 {
        let held = holder.acquire(lock.clone()).await.unwrap();
        let mut waiting = Box::pin(a.acquire(lock.clone()).into_future());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        bench.settle().await;
        drop(held);
        match steps {
            11 => bench.settle().await,
            _ => yields(steps).await,
        }
        drop(waiting);
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
    }
    drop((holder, a, next));
    bench.close_empty().await;
}

/// I11, I13.
async fn a_batch(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let locks = [file("x"), file("y"), file("z")];
    let ended = everywhere(12, async |cut| {
        let got = cut.run(&bench, a.acquire_all(locks.clone()).into_future()).await;
        let ended = got.is_some();
        drop(got);
        is_free(&bench, &next, 0, &locks).await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    drop((a, next));
    bench.close_empty().await;
}

/// I11, I13: a batch that waits for one of its members stands in every queue, and leaves them all.
async fn a_batch_that_waits(bench: Bench) {
    let (holder, a) = (bench.session("holder").await, bench.session("a").await);
    let (next, locks) = (bench.session("next").await, [file("x"), file("y"), file("z")]);
    everywhere(4, async |cut| {
        let held = holder.acquire(locks[1].clone()).await.unwrap();
        let got = cut.run(&bench, a.acquire_all(locks.clone()).into_future()).await;
        assert!(got.is_none());
        is_free(&bench, &next, 1, &[locks[0].clone(), locks[2].clone()]).await;
        held.release().await.unwrap();
        is_free(&bench, &next, 0, &locks).await;
        false
    })
    .await;
    drop((holder, a, next));
    bench.close_empty().await;
}

/// I12, I13: of three acquires of one hold one is cut off; two releases are still needed.
async fn a_reentrant_acquire_takes_back_its_own_share_only(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let lock = file("x");
    let ended = everywhere(12, async |cut| {
        let first = a.acquire(lock.clone()).await.unwrap();
        let second = a.acquire(lock.clone()).reentrant().await.unwrap();
        let third = a.acquire(lock.clone()).mode(LockMode::Shared).reentrant();
        let third = cut.run(&bench, third.into_future()).await;
        let ended = third.is_some();
        drop(third);
        bench.settle().await;
        assert!(first.is_valid() && second.is_valid());
        assert_eq!((first.id(), first.token()), (second.id(), second.token()));
        // In the order of acquires or against it.
        let (one, other) = if cut.times % 2 == 0 { (first, second) } else { (second, first) };
        one.release().await.unwrap();
        assert!(other.is_valid());
        next.acquire(lock.clone()).no_wait().await.unwrap_err();
        other.release().await.unwrap();
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    drop((a, next));
    bench.close_empty().await;
}

/// I13: the wait ends by itself at the same moment at which the future is dropped.
async fn a_wait_that_runs_out(bench: Bench) {
    let (holder, a) = (bench.session("holder").await, bench.session("a").await);
    let (next, lock) = (bench.session("next").await, file("x"));
    for settled in [false, true] {
        let held = holder.acquire(lock.clone()).await.unwrap();
        let waits = a.acquire(lock.clone()).wait(crate::support::secs(5));
        let mut waiting = Box::pin(waits.into_future());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        bench.settle().await;
        match settled {
            true => bench.pass(crate::support::millis(5_002)).await,
            false => tokio::time::advance(crate::support::millis(5_002)).await,
        }
        drop(waiting);
        bench.settle().await;
        assert_eq!(bench.stats().await.tickets, 0);
        drop(held);
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
    }
    drop((holder, a, next));
    bench.close_empty().await;
}

/// I13, I18: a lease that would have renewed itself does not, when nobody took the guard.
async fn a_keep_alive_acquire(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let lock = file("x");
    everywhere(12, async |cut| {
        let ask = a.acquire(lock.clone()).keep_alive().lease(crate::support::secs(3));
        let got = cut.run(&bench, ask.into_future()).await;
        let ended = got.is_some();
        drop(got);
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
        bench.pass(crate::support::secs(10)).await;
        assert_eq!(bench.stats().await.holds, 0);
        ended
    })
    .await;
    drop((a, next));
    bench.close_empty().await;
}

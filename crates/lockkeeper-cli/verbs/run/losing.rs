//! When a lock is about to be lost, early enough to end what runs under it.

use lockkeeper::{LockGuard, Lost, Resource};
use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

/// The times of a command's end, all before the lease's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lead {
    /// For the command to end by itself.
    grace: Duration,
    /// For us to kill it and to see it dead.
    margin: Duration,
}

impl Lead {
    /// The lease is renewed when a third of it is over: with less than this left, something is
    /// wrong, and with more, nothing is yet.
    pub(super) fn of(lease: Duration, grace: Duration) -> Lead {
        let margin = (lease / 20).clamp(Duration::from_millis(20), Duration::from_secs(1));
        Lead { grace: grace.min(lease / 4), margin: margin.min(lease / 10) }
    }

    fn all(self) -> Duration {
        self.grace + self.margin
    }

    /// What the command gets of the time that is left.
    pub(super) fn grace_in(self, left: Duration) -> Duration {
        left.saturating_sub(self.margin)
    }
}

/// A lock that is being lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Losing {
    pub(super) resource: Resource,
    pub(super) why: Why,
    /// How long nobody else can have it.
    pub(super) left: Duration,
    /// Why the command goes on all the same.
    pub(super) cannot_end: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Its lease ends and was not renewed.
    NotRenewed,
    /// It is being taken away.
    TakenAway,
    /// Its session was ended by somebody else.
    GivenBack,
    /// It was over when it was to be given back.
    FoundLost,
}

impl Why {
    /// For programs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Why::NotRenewed => "not_renewed",
            Why::TakenAway => "taken_away",
            Why::GivenBack => "given_back",
            Why::FoundLost => "found_lost",
        }
    }
}

impl Losing {
    pub(super) fn of(guard: &LockGuard, why: Why) -> Losing {
        let resource = guard.resource().clone();
        Losing { resource, why, left: guard.lease_left(), cannot_end: None }
    }

    pub(super) fn found(resource: Resource) -> Losing {
        Losing { resource, why: Why::FoundLost, left: Duration::ZERO, cannot_end: None }
    }
}

/// Waits until the first of several locks is being lost.
pub(super) async fn losing(guards: &[LockGuard], lead: Lead) -> Losing {
    let mut each: Vec<_> = guards.iter().map(|guard| Box::pin(one(guard, lead))).collect();
    poll_fn(|context| {
        let first = each.iter_mut().find_map(|one| match one.as_mut().poll(context) {
            Poll::Ready(losing) => Some(losing),
            Poll::Pending => None,
        });
        first.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

async fn one(guard: &LockGuard, lead: Lead) -> Losing {
    let why = loop {
        let left = guard.lease_left();
        tokio::select! {
            biased;
            lost = guard.lost() => break match lost {
                Lost::Revoked => Why::TakenAway,
                Lost::Released => Why::GivenBack,
                _ => Why::NotRenewed,
            },
            _ = guard.revoking() => break Why::TakenAway,
            // Renewed meanwhile, it has more left then.
            () = tokio::time::sleep(left.saturating_sub(lead.all())) => {
                if guard.lease_left() <= lead.all() {
                    break Why::NotRenewed;
                }
            }
        }
    };
    Losing::of(guard, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockkeeper::{Config, LockManager};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_end_begins_after_a_renewal_was_due_and_before_the_lease_ends() {
        for millis in [50, 1_000, 30_000, 300_000, 604_800_000] {
            let lease = Duration::from_millis(millis);
            for grace in [Duration::ZERO, SECOND, lease * 2] {
                let lead = Lead::of(lease, grace);
                assert!(lead.all() < lease / 2, "{lease:?} {lead:?}");
                assert!(lead.margin > Duration::ZERO);
                assert_eq!(lead.grace_in(lead.all()), lead.grace);
            }
        }
        assert_eq!(Lead::of(SECOND, SECOND).grace_in(Duration::ZERO), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_nobody_renews_is_seen_to_end() {
        let manager = LockManager::in_memory(Config::default());
        let session = manager.session("demo", "ann").await.unwrap();
        let guard = session.acquire(Resource::file("a")).lease(20 * SECOND).await.unwrap();
        let lead = Lead::of(20 * SECOND, 4 * SECOND);
        let losing = losing(&[guard], lead).await;
        assert_eq!(losing.why, Why::NotRenewed);
        let left = losing.left;
        assert!(left > 4 * SECOND && left <= 5 * SECOND, "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_is_not() {
        let manager = LockManager::in_memory(Config::default());
        let session = manager.session("demo", "ann").await.unwrap();
        let guard = session.acquire(Resource::file("a")).lease(20 * SECOND).keep_alive();
        let guards = [guard.await.unwrap()];
        let lead = Lead::of(20 * SECOND, 4 * SECOND);
        let waited = tokio::time::timeout(200 * SECOND, losing(&guards, lead)).await;
        assert!(waited.is_err(), "{waited:?}");
        session.close().await.unwrap();
        assert_eq!(losing(&guards, lead).await.why, Why::GivenBack);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_several_counts() {
        let manager = LockManager::in_memory(Config::default());
        let session = manager.session("demo", "ann").await.unwrap();
        let ask = |name| session.acquire(Resource::file(name)).lease(20 * SECOND).keep_alive();
        let guards = [ask("a").await.unwrap(), ask("b").await.unwrap()];
        let project = manager.project("demo").await.unwrap();
        project.force_unlock(Resource::file("b"), "admin", "a test").await.unwrap();
        let losing = losing(&guards, Lead::of(20 * SECOND, SECOND)).await;
        assert_eq!((losing.resource, losing.why), (Resource::file("b"), Why::TakenAway));
    }
}

//! The guards of several locks that were asked for at once.

use super::{LockGuard, Lost};
use crate::error::ReleaseError;
use lockkeeper_core::Resource;
use std::{fmt, future::Future, task::Poll};

/// The guards of a batch, in the order of their resources.
#[must_use = "guards that are dropped give their locks back at once"]
#[derive(Debug)]
pub struct LockGuards {
    guards: Vec<LockGuard>,
}

impl LockGuards {
    pub(crate) fn new(guards: Vec<LockGuard>) -> LockGuards {
        LockGuards { guards }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.guards.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.guards.is_empty()
    }

    /// Whether all of them still hold.
    pub fn all_valid(&self) -> bool {
        self.guards.iter().all(LockGuard::is_valid)
    }

    /// Waits until any of them is lost, and says which, and how.
    pub async fn lost(&self) -> (&LockGuard, Lost) {
        let mut waits: Vec<_> = self
            .guards
            .iter()
            .map(|guard| Box::pin(async move { (guard, guard.lost().await) }))
            .collect();
        std::future::poll_fn(|context| {
            let ready = waits.iter_mut().find_map(|wait| match wait.as_mut().poll(context) {
                Poll::Ready(lost) => Some(lost),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, LockGuard> {
        self.guards.iter()
    }

    /// The guard of one resource.
    pub fn get(&self, resource: &Resource) -> Option<&LockGuard> {
        self.guards.iter().find(|guard| guard.resource() == resource)
    }

    /// Gives all of them back. The first error is told, the others are tried all the same.
    pub async fn release(self) -> Result<(), ReleaseError> {
        let mut outcome = Ok(());
        for guard in self.guards {
            let released = guard.release().await;
            outcome = outcome.and(released);
        }
        outcome
    }

    /// Each for itself.
    pub fn into_vec(self) -> Vec<LockGuard> {
        self.guards
    }
}

impl<'a> IntoIterator for &'a LockGuards {
    type Item = &'a LockGuard;
    type IntoIter = std::slice::Iter<'a, LockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.guards.iter()
    }
}

impl IntoIterator for LockGuards {
    type Item = LockGuard;
    type IntoIter = std::vec::IntoIter<LockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.guards.into_iter()
    }
}

impl fmt::Display for LockGuards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MultiLock[")?;
        for (at, guard) in self.guards.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, guard.resource())?;
        }
        f.write_str("]")
    }
}

//! All projects of a store at once, for a daemon: what it finds there goes on when it starts.
#![cfg_attr(
    not(feature = "remote"),
    allow(clippy::infallible_destructuring_match, reason = "with it there are two ends")
)]

use crate::{LockManager, actor::Keeping, error::Unavailable, manager::End};
use lockkeeper_store::StoreError;
use std::{collections::BTreeSet, sync::Arc};

impl LockManager {
    /// The names of all projects, in order: those the store knows, and those that were started.
    pub async fn projects(&self) -> Result<Vec<Arc<str>>, StoreError> {
        let house = match self.inner().end() {
            End::House(house) => house,
            #[cfg(feature = "remote")]
            End::Far(link) => return link.projects().await,
        };
        let mut names: BTreeSet<Arc<str>> = house.started().into_iter().collect();
        names.extend(house.keeping().projects().await?);
        Ok(names.into_iter().collect())
    }

    /// Takes over every project of the store, so that its leases, its waits and its idle sessions
    /// go on, also those nobody asks about. Returns their names.
    ///
    /// Otherwise a project begins with the first word about it. One that cannot be taken over does
    /// not keep the others from it: it is tried again by itself, and whoever asks is told why.
    pub async fn take_over_all(&self) -> Result<Vec<Arc<str>>, Unavailable> {
        let names = self.projects().await.map_err(|error| match error {
            StoreError::Closed => Unavailable::ShutDown,
            error => Unavailable::NotServing(error),
        })?;
        for name in &names {
            self.inner().line(name).await?;
        }
        Ok(names)
    }
}

impl Keeping {
    async fn projects(&self) -> Result<Vec<Arc<str>>, StoreError> {
        let Keeping::Written(writer) = self else { return Ok(Vec::new()) };
        let (tell, told) = tokio::sync::oneshot::channel();
        writer.projects(move |names| {
            let _ = tell.send(names);
        });
        told.await.unwrap_or(Err(StoreError::Closed))
    }
}

//! What one writes by hand in one process: a map of mutexes, and a crate that is one.

use super::{Client, Granted, Key, Peer};
use crate::trouble::Result;
use dashmap::DashMap;
use lockable::{AsyncLimit, LockableHashMap};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A `DashMap` of tokio mutexes. They stay in the map, which is its cheapest use.
#[derive(Clone, Default)]
pub(crate) struct Mutexes(Arc<DashMap<Arc<str>, Arc<Mutex<()>>>>);

pub(crate) struct MutexClient {
    peer: Mutexes,
    held: Option<OwnedMutexGuard<()>>,
}

impl Peer for Mutexes {
    type Client = MutexClient;

    async fn client(&self, _: usize) -> Result<MutexClient> {
        Ok(MutexClient { peer: self.clone(), held: None })
    }
}

impl Client for MutexClient {
    fn burst(&self) -> u64 {
        16
    }

    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        let known = self.peer.0.get(&key.text).map(|mutex| mutex.clone());
        let mutex =
            known.unwrap_or_else(|| self.peer.0.entry(key.text.clone()).or_default().clone());
        self.held = Some(mutex.lock_owned().await);
        Ok(Granted::Yes)
    }

    async fn release(&mut self) -> Result<()> {
        self.held = None;
        Ok(())
    }
}

/// One tokio mutex, whatever the key: the least that handing over can cost.
#[derive(Clone, Default)]
pub(crate) struct OneMutex(Arc<Mutex<()>>);

pub(crate) struct OneMutexClient {
    mutex: Arc<Mutex<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Peer for OneMutex {
    type Client = OneMutexClient;

    async fn client(&self, _: usize) -> Result<OneMutexClient> {
        Ok(OneMutexClient { mutex: self.0.clone(), held: None })
    }
}

impl Client for OneMutexClient {
    fn burst(&self) -> u64 {
        16
    }

    async fn acquire(&mut self, _: &Key) -> Result<Granted> {
        self.held = Some(self.mutex.clone().lock_owned().await);
        Ok(Granted::Yes)
    }

    async fn release(&mut self) -> Result<()> {
        self.held = None;
        Ok(())
    }
}

type Map = LockableHashMap<Arc<str>, ()>;

/// The crate `lockable`.
#[derive(Clone, Default)]
pub(crate) struct Lockable(Arc<Map>);

pub(crate) struct LockableClient {
    map: Arc<Map>,
    held: Option<<Map as lockable::Lockable<Arc<str>, ()>>::OwnedGuard>,
}

impl Peer for Lockable {
    type Client = LockableClient;

    async fn client(&self, _: usize) -> Result<LockableClient> {
        Ok(LockableClient { map: self.0.clone(), held: None })
    }
}

impl Client for LockableClient {
    fn burst(&self) -> u64 {
        16
    }

    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        let guard = self.map.async_lock_owned(key.text.clone(), AsyncLimit::no_limit()).await;
        let Ok(guard) = guard;
        self.held = Some(guard);
        Ok(Granted::Yes)
    }

    async fn release(&mut self) -> Result<()> {
        self.held = None;
        Ok(())
    }
}

//! Ours as a library: in this process, or through a connection to a daemon.

use super::{Client, Granted, Key, Peer};
use crate::trouble::Result;
use lockkeeper::{
    AcquireError, Config, Durability, LockGuard, LockManager, Resource, Session,
    remote::{Address, Connect},
};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;

/// The project in which everything is measured.
pub(crate) const PROJECT: &str = "bench";

/// A manager, and what it needs to live.
pub(crate) struct Library {
    manager: LockManager,
    /// Whether a release is waited for until it is on record; without a record there is nothing
    /// to wait for, and a guard is dropped.
    is_durable: bool,
    _folder: Option<TempDir>,
}

impl Library {
    /// Keeps its locks in memory.
    pub(crate) fn in_memory() -> Library {
        let manager = LockManager::in_memory(Config::in_memory());
        Library { manager, is_durable: false, _folder: None }
    }

    /// Keeps its locks in a file of its own.
    pub(crate) async fn durable(durability: Durability) -> Result<Library> {
        let folder = crate::place::folder()?;
        let mut library = Library::at(&folder.path().join("locks.db"), durability).await?;
        library._folder = Some(folder);
        Ok(library)
    }

    /// Keeps its locks in this file.
    pub(crate) async fn at(path: &Path, durability: Durability) -> Result<Library> {
        let config = Config { durability, ..Config::at(path) };
        let manager = LockManager::open_with(config).await?;
        Ok(Library { manager, is_durable: true, _folder: None })
    }

    /// At the other end of a socket; all clients share one connection, as the agents of a program
    /// would.
    pub(crate) async fn connected(socket: &Path) -> Result<Library> {
        let address = Address::Unix(socket.to_owned());
        let manager = LockManager::connect_with(Connect::to(address)).await?;
        Ok(Library { manager, is_durable: true, _folder: None })
    }

    /// Writes what is to be written, and closes.
    pub(crate) async fn shutdown(self) {
        self.manager.shutdown().await;
    }

    /// An agent in a project.
    pub(crate) async fn agent(&self, project: &str, nth: usize) -> Result<Agent> {
        let session = self.manager.session(project, &format!("agent-{nth}")).await?;
        let (held, last, is_durable) = (Vec::new(), None, self.is_durable);
        Ok(Agent { session, held, last, is_durable })
    }

    pub(crate) fn manager(&self) -> &LockManager {
        &self.manager
    }
}

impl Peer for Library {
    type Client = Agent;

    async fn client(&self, nth: usize) -> Result<Agent> {
        self.agent(PROJECT, nth).await
    }

    fn at_once(&self) -> usize {
        256
    }
}

impl Peer for Arc<Library> {
    type Client = Agent;

    async fn client(&self, nth: usize) -> Result<Agent> {
        Library::client(self, nth).await
    }
}

/// A session that takes locks.
pub(crate) struct Agent {
    session: Session,
    held: Vec<LockGuard>,
    /// The last key as ours, since programs keep the names of what they lock.
    last: Option<(Key, Resource)>,
    is_durable: bool,
}

impl Agent {
    fn resource(&mut self, key: &Key) -> Resource {
        match &self.last {
            Some((last, resource)) if Arc::ptr_eq(&last.text, &key.text) => resource.clone(),
            _ => {
                let resource = Resource::file(&key.text);
                self.last = Some((key.clone(), resource.clone()));
                resource
            }
        }
    }
}

impl Client for Agent {
    fn burst(&self) -> u64 {
        if self.is_durable { 1 } else { 16 }
    }

    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        let resource = self.resource(key);
        match self.session.acquire(resource).await {
            Ok(guard) => self.held.push(guard),
            Err(AcquireError::Deadlock(_)) => return Ok(Granted::Deadlock),
            Err(error) => return Err(error.into()),
        }
        Ok(Granted::Yes)
    }

    async fn acquire_all(&mut self, keys: &[Key]) -> Result<()> {
        let resources = keys.iter().map(|key| Resource::file(&key.text));
        self.held.extend(self.session.acquire_all(resources).await?.into_vec());
        Ok(())
    }

    async fn release(&mut self) -> Result<()> {
        for guard in self.held.drain(..) {
            if !self.is_durable {
                drop(guard);
            } else if guard.is_valid() {
                guard.release().await?;
            }
        }
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.session.close().await?;
        Ok(())
    }
}

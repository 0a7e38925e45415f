//! Where the locks of these tests are: at a daemon, in the same process but behind a socket.

use crate::support::Still;
use lockkeeper::{Config, LockManager, remote::Connect};
use lockkeeper_server::{Server, ServerConfig, StopReport, Stopper};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// What is between the handles of a test and the actors.
pub struct Place {
    stopper: Stopper,
    running: JoinHandle<StopReport>,
    dir: TempDir,
}

impl Place {
    pub const IS_FAR: bool = true;

    /// How often one has to look until everything has arrived.
    pub const WAYS: usize = 6;

    pub fn config(config: Config) -> Config {
        Config { attached_outlive: true, ..config }
    }

    pub async fn of(home: &LockManager) -> (LockManager, Place) {
        // Where time is paused, it does not jump while the system brings the connection about.
        let _still = Still::new();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let server = Server::start(home.clone(), ServerConfig::at(&socket)).await.unwrap();
        let stopper = server.stopper();
        let running = tokio::spawn(server.run());
        let events_capacity = home.config().unwrap().events_capacity;
        let connect = Connect { events_capacity, ..Connect::to(socket) };
        let manager = LockManager::connect_with(connect).await.unwrap();
        (manager, Place { stopper, running, dir })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// As if the daemon's process had died, for good.
    pub async fn kill(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
    }

    pub async fn close(self, home: &LockManager) {
        let _still = Still::new();
        self.stopper.stop();
        let report = self.running.await.unwrap();
        assert!(report.shutdown.failed.is_empty(), "{report:?}");
        home.clone().shutdown().await;
    }
}

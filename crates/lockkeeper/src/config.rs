//! How a manager is set up.

use lockkeeper_core::TableConfig;
use lockkeeper_store::{Durability, Retention};
use std::path::{Path, PathBuf};

/// How a [`crate::LockManager`] works. The defaults are sane; change what you must.
///
/// ```
/// use lockkeeper::{Config, Durability};
/// use std::time::Duration;
///
/// let mut config = Config { durability: Durability::Power, ..Config::at("locks.db") };
/// config.table.lease_default = Duration::from_secs(60);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's file; none: the locks end with the process, and there is no audit log.
    pub path: Option<PathBuf>,
    /// What an acknowledged answer survives.
    pub durability: Durability,
    /// How the lock tables of all projects behave: defaults, limits, who loses in a deadlock.
    pub table: TableConfig,
    /// How long what is over is kept.
    pub retention: Retention,
    /// How many events a subscriber may lag behind before it misses some.
    pub events_capacity: usize,
    /// What is counted.
    pub metrics: Metrics,
    /// Attached sessions outlive this process: those of an earlier one are not ended when a project
    /// is taken over, nor those of this one at [`crate::LockManager::shutdown`]. It is for a daemon
    /// whose clients come back to it after its restart; the daemon ends the sessions of those that
    /// do not. A client finds its holds as they were, and a request that waited in its place: it
    /// sends it again with the same id.
    ///
    /// False: a session that is bound to its process dies with it, which is what a program wants
    /// that uses the library itself. Also then a handle that is dropped ends its session, and so it
    /// does when this is set.
    pub attached_outlive: bool,
    /// How another process that finds the store in use can reach this one, such as the path of a
    /// socket.
    pub reach: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            path: None,
            durability: Durability::default(),
            table: TableConfig::default(),
            retention: Retention::default(),
            events_capacity: 1024,
            metrics: Metrics::default(),
            attached_outlive: false,
            reach: None,
        }
    }
}

impl Config {
    /// Locks in this file, which is made if it is not there.
    pub fn at(path: impl AsRef<Path>) -> Config {
        Config { path: Some(path.as_ref().to_owned()), ..Config::default() }
    }

    /// Locks that end with the process, without a file: for tests and for the short-lived.
    pub fn in_memory() -> Config {
        Config { durability: Durability::Memory, ..Config::default() }
    }
}

/// What is counted, through the `metrics` facade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metrics {
    /// Whether anything is.
    pub enabled: bool,
    /// Whether the series carry the agent's name.
    pub agent_label: bool,
    /// How many agents have series of their own; the rest count as `other`.
    pub agents_max: usize,
    /// How many types of resources have; the rest count as `other`.
    pub types_max: usize,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { enabled: true, agent_label: true, agents_max: 100, types_max: 50 }
    }
}

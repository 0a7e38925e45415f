//! A manager whose locks are at a daemon.

use super::{Address, ConnectError, Link, dial::dial, keeper::keep};
use crate::{LockManager, manager::End};
use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

/// Called before the daemon is looked for again because it is gone; may start another one.
pub type Revive = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How a manager is connected. The defaults are sane; change what you must.
///
/// ```
/// use lockkeeper::remote::{Address, Connect};
/// use std::time::Duration;
///
/// let address = Address::Tcp { addr: "127.0.0.1:7070".into(), token: Some("secret".into()) };
/// let connect = Connect { linger: Duration::from_secs(5), ..Connect::to(address) };
/// ```
#[derive(Clone)]
pub struct Connect {
    /// Where the daemon listens.
    pub address: Address,
    /// How long the daemon keeps a session whose connection is gone, for the case that it comes
    /// back. Nothing, the default, frees its locks at once, which is right where a connection ends
    /// only with a process; over a network that loses connections it should be some seconds.
    ///
    /// If it is the daemon that ends and is started again, sessions are kept in any case.
    pub linger: Duration,
    /// How long requests wait for a daemon that is gone, before they fail with
    /// [`crate::Unavailable::Unreachable`]. It is looked for all the same, for as long as the
    /// manager lives; guards stay valid until their own deadline.
    pub give_up_after: Duration,
    /// How many events a subscriber may lag behind before it misses some.
    pub events_capacity: usize,
    /// What brings a daemon back that is gone.
    pub revive: Option<Revive>,
}

impl Connect {
    /// To this daemon, with the defaults.
    pub fn to(address: impl Into<Address>) -> Connect {
        Connect {
            address: address.into(),
            linger: Duration::ZERO,
            give_up_after: Duration::from_secs(30),
            events_capacity: 1024,
            revive: None,
        }
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("address", &self.address)
            .field("linger", &self.linger)
            .field("give_up_after", &self.give_up_after)
            .field("events_capacity", &self.events_capacity)
            .finish_non_exhaustive()
    }
}

impl LockManager {
    /// Connects to a daemon that has a store open. Sessions, guards, requests, projects and errors
    /// are those of an embedded manager.
    ///
    /// When the connection is gone it is made again, and what was asked is asked again, with the
    /// same request ids: nothing is done twice. Guards outlive the connection and the daemon, but
    /// never their own deadline. A manager without handles, sessions and guards closes its
    /// connection.
    pub async fn connect(address: impl Into<Address>) -> Result<LockManager, ConnectError> {
        LockManager::connect_with(Connect::to(address)).await
    }

    /// The same, set up otherwise.
    pub async fn connect_with(connect: Connect) -> Result<LockManager, ConnectError> {
        let first = dial(&connect.address).await?;
        let link = Arc::new(Link::new(connect, &first));
        tokio::spawn(keep(link.clone(), first));
        Ok(LockManager::of(End::Far(link)))
    }
}

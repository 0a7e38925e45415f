//! Who takes part, and how one talks to each of them.
//!
//! Every client that goes through a socket is a bare one: the peer's own protocol, spoken by hand
//! over one connection for each client, with one request under way at a time. So no peer pays for
//! somebody's driver, and ours has no other way than theirs.

pub(crate) mod by_hand;
pub(crate) mod daemon;
pub(crate) mod etcd;
pub(crate) mod floor;
pub(crate) mod history;
pub(crate) mod house;
pub(crate) mod library;
pub(crate) mod mariadb;
pub(crate) mod mutexes;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod server;
pub(crate) mod wire;
pub(crate) mod writer;

use crate::trouble::{Result, trouble};
use std::sync::Arc;

/// Something that locks.
pub(crate) trait Peer: Send + Sync + 'static {
    type Client: Client;

    /// The client of this number, ready to ask.
    fn client(&self, nth: usize) -> impl Future<Output = Result<Self::Client>> + Send;

    /// How many may get ready at once, where thousands would take long one after the other.
    fn at_once(&self) -> usize {
        1
    }
}

/// Who asks it.
pub(crate) trait Client: Send + 'static {
    /// How many pairs go by between two looks at the clock, where a look would be felt.
    fn burst(&self) -> u64 {
        1
    }

    /// Waits until it has a lock.
    fn acquire(&mut self, key: &Key) -> impl Future<Output = Result<Granted>> + Send;

    /// Waits until it has all of them.
    fn acquire_all(&mut self, _: &[Key]) -> impl Future<Output = Result<()>> + Send {
        async { trouble("it cannot take several at once") }
    }

    /// Gives back everything it has.
    fn release(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Says good-bye, where that matters.
    fn close(self) -> impl Future<Output = Result<()>> + Send
    where
        Self: Sized,
    {
        async { Ok(()) }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Granted {
    Yes,
    /// It was told that there is a deadlock.
    Deadlock,
}

/// The name of a lock, for those who like words and for those who like numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) text: Arc<str>,
    pub(crate) number: usize,
}

impl Key {
    /// One that nobody else wants.
    pub(crate) fn own(nth: usize) -> Key {
        Key { text: format!("own/{nth}").into(), number: nth }
    }

    /// One that all want.
    pub(crate) fn hot() -> Key {
        Key { text: "hot".into(), number: 1 << 20 }
    }
}

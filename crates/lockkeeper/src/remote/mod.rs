//! A daemon at the other end of a socket.
//!
//! [`Client`] is one connection: it says hello, asks many things at once, hears what the daemon
//! says by itself, and ends when its connection does. It is what a command line needs.
//! [`crate::LockManager::connect`] gives the handles of the library instead; it keeps one
//! connection after the other, so that sessions and guards outlive them.

mod call;
mod client;
mod connect;
mod dial;
mod far;
mod hear;
mod keeper;
mod link;
mod notes;
mod pump;
#[cfg(test)]
mod skewed;
#[cfg(test)]
mod tests;

use crate::wire::{ErrorObject, PROTOCOL};
use std::{fmt, io, path::PathBuf};

pub use client::Client;
pub use connect::{Connect, Revive};
pub(crate) use far::Far;
pub(crate) use link::Link;
pub use notes::Notes;

/// Where a daemon listens.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// At a Unix socket.
    Unix(PathBuf),
    /// On the network.
    Tcp {
        /// Host and port.
        addr: String,
        /// What proves that one may ask.
        token: Option<String>,
    },
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address::Unix(path)
    }
}

impl From<&std::path::Path> for Address {
    fn from(path: &std::path::Path) -> Address {
        Address::Unix(path.to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Tcp { addr, .. } => f.write_str(addr),
        }
    }
}

/// Never shows the token.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// No daemon listens there: nothing is at the path, or what is there is left over.
    NobodyThere {
        /// Where.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon, or the system on its behalf, does not let this user in: another user's socket, a
    /// wrong token or none.
    Refused {
        /// Where.
        address: Address,
        /// In whose words.
        said: String,
    },
    /// Whoever listens at the Unix socket is another user, who could say of every lock that it is
    /// granted. Nothing was said to him.
    ForeignDaemon {
        /// Where.
        address: Address,
        /// The user who listens there.
        uid: u32,
    },
    /// The daemon is of another version and speaks otherwise.
    OtherProtocol {
        /// Where.
        address: Address,
        /// The daemon's version.
        version: String,
        /// What it speaks; here it is [`PROTOCOL`].
        protocol: u32,
    },
    /// The daemon does not take this connection, in its words: it has too many, or is about to
    /// stop.
    Said {
        /// Where.
        address: Address,
        /// What it said.
        error: Box<ErrorObject>,
    },
    /// Something else, such as a daemon that is there but does not answer.
    Io {
        /// Where.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::NobodyThere { address, .. } => {
                write!(f, "no daemon listens at {address}")
            }
            ConnectError::Refused { address, said } => {
                write!(f, "the daemon at {address} does not let you in: {said}")
            }
            ConnectError::ForeignDaemon { address, uid } => write!(
                f,
                "user {uid} listens at {address}, neither you nor root, and is not trusted with \
                 your locks: use a socket in a folder that only you can write, or ask user {uid} \
                 to remove that one"
            ),
            ConnectError::OtherProtocol { address, version, protocol } => write!(
                f,
                "the daemon at {address} is version {version} and speaks protocol {protocol}, this \
                 program speaks {PROTOCOL}: stop the daemon, the next command starts the right one"
            ),
            ConnectError::Said { address, error } => {
                write!(f, "the daemon at {address} says: {error}")
            }
            ConnectError::Io { address, source } => {
                write!(f, "the daemon at {address} cannot be reached: {source}")
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectError::NobodyThere { source, .. } | ConnectError::Io { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

impl ConnectError {
    /// Whether there is no daemon, so that one can be started.
    pub fn is_nobody_there(&self) -> bool {
        matches!(self, ConnectError::NobodyThere { .. })
    }

    /// What the system said to opening the connection.
    fn of(address: &Address, source: io::Error) -> ConnectError {
        let address = address.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ConnectError::NobodyThere { address, source }
            }
            io::ErrorKind::PermissionDenied => {
                ConnectError::Refused { address, said: source.to_string() }
            }
            _ => ConnectError::Io { address, source },
        }
    }
}

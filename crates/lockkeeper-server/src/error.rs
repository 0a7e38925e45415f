//! Why a server does not start, in words that name the next step.

use lockkeeper::Unavailable;
use std::{fmt, io, net::SocketAddr, path::PathBuf};

/// Why a server does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket's path is longer than the system allows.
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        bytes: usize,
        /// How many it may have.
        max: usize,
    },
    /// Somebody listens there already.
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// What is at the path is not a socket, so it is left alone.
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The socket's folder is open to others, who could put a socket of their own there.
    Folder {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system says no.
    Io {
        /// To what.
        what: String,
        /// In its words.
        source: io::Error,
    },
    /// The network would be let in without a token.
    NeedsToken {
        /// Where.
        addr: SocketAddr,
    },
    /// A token that could be guessed.
    TokenTooShort {
        /// Its bytes.
        bytes: usize,
    },
    /// There is nowhere to listen.
    Nowhere,
    /// The projects of the store could not be taken over.
    Unavailable(Unavailable),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::PathTooLong { path, bytes, max } => write!(
                f,
                "the socket's path has {bytes} bytes, and the system allows {max}: choose a \
                 shorter one than {}",
                path.display()
            ),
            ServeError::InUse { path } => {
                write!(f, "somebody listens at {} already", path.display())
            }
            ServeError::NotASocket { path } => write!(
                f,
                "{} is there and is not a socket: move it away, or choose another path",
                path.display()
            ),
            ServeError::Folder { path, why } => {
                write!(f, "the socket's folder {} {why}: choose another one", path.display())
            }
            ServeError::Io { what, source } => write!(f, "cannot {what}: {source}"),
            ServeError::NeedsToken { addr } => write!(
                f,
                "{addr} can be reached from other machines: set a token, or listen on 127.0.0.1"
            ),
            ServeError::TokenTooShort { bytes } => write!(
                f,
                "the token has {bytes} bytes, at least {} are needed: draw a random one",
                crate::Token::MIN
            ),
            ServeError::Nowhere => f.write_str("there is nowhere to listen: name a socket"),
            ServeError::Unavailable(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Io { source, .. } => Some(source),
            ServeError::Unavailable(why) => Some(why),
            _ => None,
        }
    }
}

impl ServeError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ServeError {
        let what = what.into();
        move |source| ServeError::Io { what, source }
    }
}

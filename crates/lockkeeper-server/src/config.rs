//! How a server is set up.

use crate::{ServeError, http::HttpConfig};
use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use subtle::ConstantTimeEq;

/// Where a server listens, whom it lets in, and what it bounds.
///
/// ```
/// use lockkeeper_server::{Limits, ServerConfig};
///
/// let mut config = ServerConfig::at("/run/user/1000/lockkeeper/locks.sock");
/// config.limits = Limits { connections: 100, ..Limits::default() };
/// ```
#[derive(Clone)]
pub struct ServerConfig {
    /// The Unix socket's path; none: it does not listen there.
    pub socket: Option<PathBuf>,
    /// Which users may connect to it: by default the one this process runs as, and root.
    pub uids: Vec<u32>,
    /// Where else it listens for the same lines.
    pub tcp: Vec<TcpConfig>,
    /// And where for HTTP.
    pub http: Vec<HttpConfig>,
    /// What is bounded.
    pub limits: Limits,
    /// How long after a restart an attached session waits for its client to attach it again; and
    /// how long a wait of a detached one, whose connection was cut, waits to be asked for again
    /// with the same request id.
    pub reattach_grace: Duration,
    /// After how long with no client, no hold and no wait the server ends; none: never.
    pub idle_exit: Option<Duration>,
    /// What the method `metrics` is answered with: a page that Prometheus can read.
    pub metrics: Option<Metrics>,
}

/// Renders the page of metrics.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            socket: None,
            uids: vec![rustix::process::geteuid().as_raw(), 0],
            tcp: Vec::new(),
            http: Vec::new(),
            limits: Limits::default(),
            reattach_grace: Duration::from_secs(15),
            idle_exit: None,
            metrics: None,
        }
    }
}

impl ServerConfig {
    /// Listens at this socket.
    pub fn at(socket: impl Into<PathBuf>) -> ServerConfig {
        ServerConfig { socket: Some(socket.into()), ..ServerConfig::default() }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("socket", &self.socket)
            .field("uids", &self.uids)
            .field("tcp", &self.tcp)
            .field("http", &self.http)
            .field("limits", &self.limits)
            .field("reattach_grace", &self.reattach_grace)
            .field("idle_exit", &self.idle_exit)
            .finish_non_exhaustive()
    }
}

/// A listener on the network.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Where.
    pub addr: SocketAddr,
    /// What a client must show first. Without one only this machine may be listened to.
    pub token: Option<Token>,
}

impl TcpConfig {
    /// Refuses what would let everybody on the network in.
    pub fn check(&self) -> Result<(), ServeError> {
        match self.token.is_none() && !self.addr.ip().is_loopback() {
            true => Err(ServeError::NeedsToken { addr: self.addr }),
            false => Ok(()),
        }
    }
}

/// A shared secret. It is never shown.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// The shortest one that is taken, in bytes.
    pub const MIN: usize = 16;

    /// Takes a secret, unless it is too short to be one. White space around it does not count.
    pub fn new(text: &str) -> Result<Token, ServeError> {
        let text = text.trim();
        match text.len() < Token::MIN {
            true => Err(ServeError::TokenTooShort { bytes: text.len() }),
            false => Ok(Token(text.as_bytes().into())),
        }
    }

    /// Whether somebody knows it. How long this takes does not tell where a guess is wrong.
    pub fn is(&self, shown: &str) -> bool {
        self.0.ct_eq(shown.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The bounds of a server. Past one of them there is a clear error, and nobody else is disturbed.
/// What one project bounds is in `lockkeeper::Limits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one line, and so of one request.
    pub line_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// Waits of one connection that are not answered yet.
    pub in_flight: usize,
    /// Attached sessions of one connection.
    pub sessions: usize,
    /// How long a connection may be silent that has no session, no request and no subscription.
    pub idle: Duration,
    /// How long a connection over TCP may take to say `hello`.
    pub hello: Duration,
    /// Bytes that wait for a client to read them.
    pub unread_bytes: usize,
    /// How long a client may read nothing while something waits for it.
    pub unread_for: Duration,
    /// Events of each project that are kept for whoever was away.
    pub events_kept: usize,
    /// Projects.
    pub projects: usize,
    /// How long a session may ask to outlive its connection.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_bytes: 1 << 20,
            connections: 4096,
            in_flight: 1024,
            sessions: 10_000,
            idle: Duration::from_secs(15 * 60),
            hello: Duration::from_secs(10),
            unread_bytes: 8 << 20,
            unread_for: Duration::from_secs(30),
            events_kept: 4096,
            projects: 10_000,
            linger: Duration::from_secs(3600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_or_not() {
        let token = Token::new("  a secret of some length\n").unwrap();
        assert!(token.is("a secret of some length"));
        for guess in ["", "a secret of some lengtH", "a secret of some length and more"] {
            assert!(!token.is(guess), "{guess:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
        let short = Token::new("fifteen letters").unwrap_err();
        assert!(short.to_string().contains("16"), "{short}");
    }

    #[test]
    fn the_network_needs_a_token() {
        let at = |addr: &str| TcpConfig { addr: addr.parse().unwrap(), token: None };
        assert!(at("127.0.0.1:0").check().is_ok());
        assert!(at("[::1]:0").check().is_ok());
        for addr in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
            assert!(matches!(at(addr).check(), Err(ServeError::NeedsToken { .. })), "{addr}");
        }
        let token = Some(Token::new("sixteen letters.").unwrap());
        assert!(TcpConfig { token, ..at("0.0.0.0:0") }.check().is_ok());
    }
}

//! Serves a lock manager to other processes.
//!
//! ```no_run
//! use lockkeeper::{Config, LockManager};
//! use lockkeeper_server::{Server, ServerConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config { attached_outlive: true, ..Config::at("locks.db") };
//! let manager = LockManager::open_with(config).await?;
//! let server = Server::start(manager, ServerConfig::at("/run/user/1000/locks.sock")).await?;
//! let report = server.run().await; // until somebody says `daemon.stop`, or nobody needs it
//! # Ok(()) }
//! ```
//!
//! What travels is in [`lockkeeper::wire`]. No lock rule lives here: a request becomes a command of
//! the core, its answer goes back as it is.
//!
//! # The tour
//!
//! ```text
//!   socket, TCP ─► server: doors ─► connection: one task each ─► dispatch ─► commands, sessions
//!                                     ▲ lines                                       │
//!                                     │                                             ▼
//!                                   link ◄── room: whose holds ◄── hub ◄── events  Project
//!                                     ▲                             │
//!                                     └──────── ear ◄── rings ◄─────┘
//! ```
//!
//! - A *door* (`server`) lets a connection in if its user may ([`ServerConfig::uids`]) or, over
//!   TCP, once it has said `hello` with the token.
//! - A *connection* cuts lines, begins each request at once, and answers in whatever order. What
//!   its client does not read costs others nothing.
//! - [`dispatch`] knows methods and nothing of sockets: other doors use it as well.
//! - [`http`] is such a door: the same methods, views, events as a stream.
//! - A *room* is a project with the connections its sessions live by. The *hub* hears all events
//!   and tells it; so clients hear `lost`, `revoking` and `granted`.
//! - *Rings* keep the latest events, an *ear* knows how far somebody has heard them.
//! - *Ends* end sessions whose connection is gone, at once or in time, until it is on record.
#![forbid(unsafe_code)]

mod asked;
mod commands;
mod config;
mod connection;
mod dispatch;
mod ear;
mod ends;
mod envelope;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod house;
pub mod http;
mod hub;
mod idle;
mod line;
mod link;
mod params;
mod post;
mod refuse;
mod ring;
mod room;
mod server;
mod sessions;
mod socket;
mod stream;

pub use commands::Receipt;
pub use config::{Limits, Metrics, ServerConfig, TcpConfig, Token};
pub use dispatch::{Answered, dispatch, methods};
pub use ear::Told;
pub use error::ServeError;
pub use house::{House, Listener};
pub use link::Peer;
pub use ring::Kept;
pub use server::{Server, StopReason, StopReport, Stopper};
pub use socket::PATH_MAX;

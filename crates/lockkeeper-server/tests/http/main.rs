//! The server over HTTP, asked by a client that knows no more of HTTP than it must.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod client;
mod described;
mod events;
mod gone;
mod guarded;
mod inside;
mod limits;
mod live;
mod routes;

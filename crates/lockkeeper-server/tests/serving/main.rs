//! The server from the outside: real sockets, real stores, in folders of their own.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod again;
mod attach;
mod basics;
mod doors;
mod events;
mod lines;
mod notes;
mod nowhere;
mod races;
mod sessions;
mod stopping;
mod support;
mod trouble;

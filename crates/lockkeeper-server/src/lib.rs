//! Serves a lock manager to other processes.
#![forbid(unsafe_code)]

//! Breaks: a disk under SQLite that loses power, and fails when it is told to. For tests alone.
//!
//! # What it is
//!
//! A [`Disk`] watches a folder. Whatever SQLite does to files there, in this process, goes through
//! the disk, which writes it down and lets it happen, or makes it fail as a [`Fault`] says. Nothing
//! of what is tested knows of it: SQLite's default way to files is another one, that is all.
//!
//! ```text
//!   store ── SQLite ── shim ── the system's files
//!                       │ asks, tells
//!                      Disk ── log of events ── Platter ── what a Cut leaves ── another folder
//! ```
//!
//! # What a power cut leaves
//!
//! A [`Platter`] replays the log up to any moment and knows what must be on it, what may be, and
//! what cannot be. What was synced is there. Of what was written since, each sector of 512 bytes
//! may have any of the contents it had since, independently of all others; a file's length any of
//! those it had; a name that came or went since its folder was synced may be there or not. What
//! lies between the old end of a file and the new one, and was not written, may be anything.
//!
//! A sync that *failed* promises nothing, and takes with it the hope in the next one: systems drop
//! what they could not write, and tell of it once. What was waiting for it may be on the platter
//! or not, for ever, until it is written again.
//!
//! # What it does not show
//!
//! Pages that are mapped into memory, files that others write past SQLite, a disk that itself lies
//! about what it synced (but see [`Disk::lie`]), and bits that turn while they lie there.
//!
//! | file | does |
//! |---|---|
//! | `disk.rs` | watches folders, writes down, fails |
//! | `platter.rs` | what must and what may be there after a cut |
//! | `shim.rs` | the border to C |

mod disk;
mod platter;
mod shim;

pub use disk::{Disk, Event, Fault, Kind, Times, What};
pub use platter::{Cut, Left, Platter, lay_out};

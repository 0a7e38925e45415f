//! The log of writes beside the file: when it is moved into the file, and its way to the disk.
//!
//! Moving it begins with a sync of the log: all that was written since the last time has to reach
//! the disk while everybody waits. So a thread of its own sends it there meanwhile, a piece at a
//! time, and little is left to wait for. Nobody relies on that thread: what has to be on the disk
//! is synced by SQLite itself, where it always was.

use super::OpenOptions;
use crate::{Durability, owner::with_ending};
use rusqlite::{Connection, MAIN_DB, hooks::Wal, wal::CheckpointMode};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, SyncSender},
    },
    thread::JoinHandle,
};

/// How many pages the log may have before they are moved into the file.
pub(super) const PAGES_MAX: u32 = 2000;

/// How many pages are sent to the disk at a time.
const PIECE: u32 = 250;

/// The log of one connection.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    /// How many pages it has, as SQLite says after each commit.
    pages: Arc<AtomicU32>,
    /// So many of them are on their way to the disk.
    sent: u32,
    sender: Sender,
}

/// The thread that sends it to the disk.
#[derive(Debug)]
enum Sender {
    /// It is not needed, or could not be had.
    None,
    /// There was nothing to do yet.
    NotYet,
    Runs(SyncSender<()>, JoinHandle<()>),
}

impl Log {
    /// From now on the log is moved by [`Log::tend`], and not by SQLite.
    pub(super) fn of(
        db: &mut Connection,
        path: &Path,
        options: &OpenOptions,
    ) -> rusqlite::Result<Log> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        db.wal_hook(Some(move |_: &mut Wal, count: std::ffi::c_int| {
            counted.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        // With a sync in each commit there is nothing left to send. Elsewhere than on Linux a sync
        // may stop whoever writes meanwhile.
        let is_synced = options.durability == Durability::Power;
        let sender =
            if is_synced || !cfg!(target_os = "linux") { Sender::None } else { Sender::NotYet };
        Ok(Log { path: with_ending(path, "-wal"), pages, sent: 0, sender })
    }

    /// Whether the next commit syncs something: where there is no such log each one does, and where
    /// there is, the one that begins it anew.
    pub(super) fn may_wait(&self) -> bool {
        !(1..PAGES_MAX).contains(&self.pages.load(Ordering::Relaxed))
    }

    /// Whether [`Log::tend`] would do something.
    pub(super) fn is_due(&self) -> bool {
        let pages = self.pages.load(Ordering::Relaxed);
        pages < self.sent || pages >= PAGES_MAX.min(self.sent + PIECE)
    }

    /// After a commit: moves the log into the file if it is long enough. That may fail, which this
    /// tells, and is tried again after the next commit; what was committed is in the log.
    pub(super) fn tend(&mut self, db: &Connection) -> bool {
        let pages = self.pages.load(Ordering::Relaxed);
        // It began anew.
        if pages < self.sent {
            self.sent = 0;
        }
        if pages >= PAGES_MAX {
            self.sent = pages;
            if let Err(error) = db.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE) {
                tracing::warn!(%error, "the log could not be moved into the file");
                return false;
            }
        } else if pages >= self.sent + PIECE {
            self.sent = pages;
            self.sender.send(&self.path);
        }
        true
    }
}

impl Sender {
    fn send(&mut self, path: &Path) {
        if matches!(self, Sender::NotYet) {
            *self = Sender::start(path);
        }
        if let Sender::Runs(wake, _) = self {
            // If it is still busy it gets more to do the next time.
            let _ = wake.try_send(());
        }
    }

    fn start(path: &Path) -> Sender {
        // There are no locks on this file, so that closing it drops none.
        let Ok(log) = File::open(path) else { return Sender::None };
        let (wake, woken) = mpsc::sync_channel(1);
        let thread =
            std::thread::Builder::new().name("lockkeeper-log".to_owned()).spawn(move || {
                while woken.recv().is_ok() {
                    if let Err(error) = log.sync_data() {
                        tracing::debug!(%error, "the log could not be sent to the disk");
                    }
                }
            });
        thread.map_or(Sender::None, |thread| Sender::Runs(wake, thread))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Sender::Runs(wake, thread) = std::mem::replace(&mut self.sender, Sender::None) {
            drop(wake);
            let _ = thread.join();
        }
    }
}

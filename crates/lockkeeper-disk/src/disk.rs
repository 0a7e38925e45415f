//! Folders that are watched: what happens there is written down, and fails when it is told to.

use crate::{Platter, shim};
use rusqlite::ffi;
use std::{
    collections::BTreeMap,
    ffi::c_int,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What happened to a watched folder. Files have numbers, because a name can be given again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A file came to be under a name.
    Made(usize, String),
    /// A name is gone.
    Removed(String),
    /// Bytes were written.
    Wrote(usize, usize, Vec<u8>),
    /// A file has this length now.
    Cut(usize, usize),
    /// All of a file is on the platter.
    Synced(usize),
    /// The system could not say so, and has forgotten what it could not write.
    SyncFailed(usize),
    /// The names of the folder are on the platter.
    FolderSynced,
}

/// What can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Opening a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Giving a file another length.
    Truncate,
    /// Syncing.
    Sync,
    /// Removing a file.
    Remove,
    /// Making room for memory that connections share.
    Share,
}

/// How it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The disk is broken: `EIO`.
    Broken,
    /// There is no room left: `ENOSPC`. Half of what is written still finds some.
    Full,
    /// The file system may only be read from now on: `EROFS`.
    ReadOnly,
}

/// How often it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// The next time.
    Once,
    /// From then on, until [`Disk::heal`].
    Always,
}

/// A failure to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which acts count, and fail; none is all that change something.
    pub kinds: Vec<Kind>,
    /// In files whose names end like this.
    pub ending: &'static str,
    /// So many of them succeed first.
    pub after: usize,
    /// How it fails.
    pub what: What,
    /// How often.
    pub times: Times,
}

/// What one act is.
pub(crate) enum Act<'a> {
    Read,
    Write { at: usize, bytes: &'a [u8] },
    Truncate { size: usize },
    Sync,
    Share,
}

/// What the system said, and whether the folder was synced on the way.
pub(crate) struct Told {
    pub(crate) code: c_int,
    pub(crate) folder_synced: bool,
}

/// A folder under watch.
#[derive(Clone, Debug)]
pub struct Disk {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default, Debug)]
struct State {
    /// What was there when the watch began.
    before: BTreeMap<String, Vec<u8>>,
    /// Names and the numbers of their files.
    names: BTreeMap<String, usize>,
    files: usize,
    log: Vec<Event>,
    fault: Option<Fault>,
    failed: usize,
    lies: bool,
}

/// A file of a watched folder that SQLite has open.
#[derive(Debug)]
pub(crate) struct Watched {
    disk: Disk,
    file: usize,
    name: String,
}

static DISKS: Mutex<BTreeMap<PathBuf, Disk>> = Mutex::new(BTreeMap::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk that watches a path, and the name there.
pub(crate) fn find(path: &Path) -> Option<(Disk, String)> {
    let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
    let disk = locked(&DISKS).get(folder)?.clone();
    Some((disk, name.to_owned()))
}

/// Files that are no part of what a disk keeps: shared memory, which dies with the machine, and
/// what the store itself writes past SQLite.
pub(crate) fn is_passing(name: &str) -> bool {
    name.ends_with("-shm") || name.ends_with(".owner")
}

impl Disk {
    /// Watches a folder. What is there by now is taken to be on the platter. Connections that were
    /// opened before are not seen.
    pub fn watch(folder: impl AsRef<Path>) -> io::Result<Disk> {
        shim::install();
        let folder = folder.as_ref().canonicalize()?;
        let mut state = State::default();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_passing(&name) && entry.file_type()?.is_file() {
                state.before.insert(name, fs::read(entry.path())?);
            }
        }
        // Numbered by their names, as the platter does.
        state.names = state.before.keys().cloned().zip(0..).collect();
        state.files = state.names.len();
        let disk = Disk { folder: folder.clone(), state: Arc::new(Mutex::new(state)) };
        locked(&DISKS).insert(folder, disk.clone());
        Ok(disk)
    }

    /// The folder, without links on the way.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Watches no longer, for connections to come.
    pub fn leave(&self) {
        locked(&DISKS).remove(&self.folder);
    }

    /// How many events there were.
    pub fn events(&self) -> usize {
        self.state().log.len()
    }

    /// What happened.
    pub fn log(&self) -> Vec<Event> {
        self.state().log.clone()
    }

    /// What was on the platter when the watch began.
    pub fn platter(&self) -> Platter {
        Platter::new(&self.state().before)
    }

    /// Something will fail.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.state();
        (state.fault, state.failed) = (Some(fault), 0);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// How often something failed since the last [`Disk::fail`].
    pub fn failed(&self) -> usize {
        self.state().failed
    }

    /// Says from now on that it has synced what it has not. For those who want to see that their
    /// test would notice.
    pub fn lie(&self) {
        self.state().lies = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(crate) fn is_read_only(&self) -> bool {
        let state = self.state();
        let Some(Fault { what: What::ReadOnly, after: 0, .. }) = &state.fault else { return false };
        true
    }

    /// Opens a file by `open`.
    pub(crate) fn open(
        &self,
        name: &str,
        makes: bool,
        open: impl FnOnce() -> c_int,
    ) -> Result<Box<Watched>, c_int> {
        let mut state = self.state();
        // What a read-only file system makes of it, SQLite says itself.
        if makes && state.what_fails(Kind::Open, name).is_some_and(|what| what != What::ReadOnly) {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        match open() {
            ffi::SQLITE_OK => {}
            code => return Err(code),
        }
        let file = match state.names.get(name) {
            Some(&file) => file,
            None => {
                let file = state.files;
                state.files += 1;
                state.names.insert(name.to_owned(), file);
                state.log.push(Event::Made(file, name.to_owned()));
                file
            }
        };
        Ok(Box::new(Watched { disk: self.clone(), file, name: name.to_owned() }))
    }

    pub(crate) fn remove(&self, name: &str, remove: impl FnOnce() -> Told) -> c_int {
        let mut state = self.state();
        if state.what_fails(Kind::Remove, name).is_some() {
            return ffi::SQLITE_IOERR_DELETE;
        }
        let told = remove();
        if told.code == ffi::SQLITE_OK && state.names.remove(name).is_some() {
            state.log.push(Event::Removed(name.to_owned()));
        }
        state.sync_folder(&told);
        told.code
    }
}

impl State {
    /// How the next act of a kind fails; nothing, if it does not.
    fn what_fails(&mut self, kind: Kind, name: &str) -> Option<What> {
        let fault = self.fault.as_mut()?;
        let counts = match fault.kinds.is_empty() {
            true => kind != Kind::Read,
            false => fault.kinds.contains(&kind),
        };
        if !counts || !name.ends_with(fault.ending) {
            return None;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let what = fault.what;
        if fault.times == Times::Once {
            self.fault = None;
        }
        self.failed += 1;
        Some(what)
    }

    fn sync_folder(&mut self, told: &Told) {
        if told.folder_synced && !self.lies {
            self.log.push(Event::FolderSynced);
        }
    }
}

impl Act<'_> {
    fn kind(&self) -> Kind {
        match self {
            Act::Read => Kind::Read,
            Act::Write { .. } => Kind::Write,
            Act::Truncate { .. } => Kind::Truncate,
            Act::Sync => Kind::Sync,
            Act::Share => Kind::Share,
        }
    }

    /// What SQLite makes of the system's refusal.
    fn refusal(&self, what: What) -> c_int {
        match (self, what) {
            (Act::Write { .. }, What::Full) => ffi::SQLITE_FULL,
            (Act::Write { .. }, _) => ffi::SQLITE_IOERR_WRITE,
            (Act::Read, _) => ffi::SQLITE_IOERR_READ,
            (Act::Truncate { .. }, _) => ffi::SQLITE_IOERR_TRUNCATE,
            (Act::Sync, _) => ffi::SQLITE_IOERR_FSYNC,
            (Act::Share, _) => ffi::SQLITE_IOERR_SHMSIZE,
        }
    }
}

impl Watched {
    /// Does something to the file by `act`, which is told how many bytes to write, or lets it fail.
    pub(crate) fn act(&self, what: Act<'_>, act: impl FnOnce(usize) -> Told) -> c_int {
        let mut state = self.disk.state();
        let file = self.file;
        let fails = state.what_fails(what.kind(), &self.name);
        if let Some(fault) = fails {
            match what {
                Act::Write { at, bytes } if fault == What::Full => {
                    let half = &bytes[..bytes.len() / 2];
                    if act(half.len()).code == ffi::SQLITE_OK {
                        state.log.push(Event::Wrote(file, at, half.to_vec()));
                    }
                }
                Act::Sync => state.log.push(Event::SyncFailed(file)),
                _ => {}
            }
            return what.refusal(fault);
        }
        let bytes = if let Act::Write { bytes, .. } = &what { bytes.len() } else { 0 };
        let told = act(bytes);
        if told.code == ffi::SQLITE_OK {
            let lies = state.lies;
            match what {
                Act::Write { at, bytes } => state.log.push(Event::Wrote(file, at, bytes.to_vec())),
                Act::Truncate { size } => state.log.push(Event::Cut(file, size)),
                Act::Sync if !lies => state.log.push(Event::Synced(file)),
                Act::Sync | Act::Read | Act::Share => {}
            }
        }
        state.sync_folder(&told);
        told.code
    }
}

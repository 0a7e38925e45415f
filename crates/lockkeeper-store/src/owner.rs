//! One process owns a store. The lock of the operating system on a file beside it says so, and
//! ends with the process, however that ends.

use crate::{StoreError, text};
use lockkeeper_core::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// What the owner says of itself.
#[derive(Serialize, Deserialize)]
struct Card {
    pid: u32,
    reach: Option<String>,
    since: Timestamp,
}

/// The lock on a store, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    file: File,
}

impl Owner {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(path: &Path, reach: Option<&str>) -> Result<Owner, StoreError> {
        let beside = beside(path);
        let of_system = |error: &std::io::Error| StoreError::of_system(path, error);
        let mut file = private().truncate(false).open(&beside).map_err(|e| of_system(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(owned(path, &mut file)),
            Err(TryLockError::Error(error)) => return Err(of_system(&error)),
        }
        let reach = reach.map(str::to_owned);
        let card = Card { pid: std::process::id(), reach, since: text::now() };
        let card = serde_json::to_vec(&card).unwrap_or_default();
        file.set_len(0).and_then(|()| file.write_all(&card)).map_err(|e| of_system(&e))?;
        Ok(Owner { file })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Only so that nobody reads a name that is no longer true.
        let _ = self.file.set_len(0);
        // Closing it is not enough: a child that is being started has a copy of it for a moment.
        let _ = self.file.unlock();
    }
}

/// A file that is made, if need be, for this user alone: it names tokens, or who may be reached.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".owner");
    PathBuf::from(name)
}

fn owned(path: &Path, file: &mut File) -> StoreError {
    let mut said = String::new();
    let card = file.read_to_string(&mut said).ok().and_then(|_| serde_json::from_str(&said).ok());
    let card: Option<Card> = card;
    StoreError::Owned {
        path: path.to_path_buf(),
        pid: card.as_ref().map(|card| card.pid),
        reach: card.and_then(|card| card.reach),
    }
}

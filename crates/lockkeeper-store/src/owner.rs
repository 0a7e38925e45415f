//! One process owns a store. The lock of the operating system on a file beside it says so, and
//! ends with the process, however that ends.

use crate::{StoreError, text};
use lockkeeper_core::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What the owner of a store says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Card {
    /// Its process.
    pub pid: Option<u32>,
    /// How it can be reached, if it said so.
    pub reach: Option<String>,
    /// Since when it owns the store.
    pub since: Option<Timestamp>,
}

/// How long those who only look may keep an owner from its lock. Each of them takes microseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an owner may need from its lock to its card.
const CARD_PATIENCE: Duration = Duration::from_millis(100);

/// Who owns a store right now; none if nobody does, or if there is no store. Changes nothing, and
/// keeps nobody from becoming the owner. For a moment after a take-over the card may still be that
/// of the owner before, if that one was killed.
pub fn owner(path: impl AsRef<Path>) -> Result<Option<Card>, StoreError> {
    let path = path.as_ref();
    let of_system = |error: &io::Error| StoreError::of_reading(path, error);
    let file = path.canonicalize().and_then(|real| File::open(beside(&real)));
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| of_system(&error))?,
    };
    // Shared, so that those who look do not see each other; an owner shares it with nobody.
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| None).map_err(|error| of_system(&error)),
        Err(TryLockError::Error(error)) => Err(of_system(&error)),
        Err(TryLockError::WouldBlock) => Ok(Some(card(&mut file, CARD_PATIENCE))),
    }
}

/// The lock on a store, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    file: File,
    _here: Here,
}

impl Owner {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(path: &Path, reach: Option<&str>) -> Result<Owner, StoreError> {
        let beside = beside(path);
        let of_system = |error: &io::Error| StoreError::of_system(path, error);
        let mut file = private().truncate(false).open(&beside).map_err(|e| of_system(&e))?;
        if is_led_elsewhere(&file, &beside).map_err(|e| of_system(&e))? {
            let detail = "it is a link, or another file took its place: move it away".to_owned();
            return Err(StoreError::Misplaced { path: beside, detail });
        }
        if !lock(&file, PATIENCE).map_err(|error| of_system(&error))? {
            let Card { pid, reach, .. } = card(&mut file, Duration::ZERO);
            return Err(StoreError::Owned { path: path.to_path_buf(), pid, reach });
        }
        let _here = Here::enter(path);
        let (pid, reach) = (Some(std::process::id()), reach.map(str::to_owned));
        let card = Card { pid, reach, since: Some(text::now()) };
        let card = serde_json::to_vec(&card).unwrap_or_default();
        file.set_len(0).and_then(|()| file.write_all(&card)).map_err(|e| of_system(&e))?;
        Ok(Owner { file, _here })
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

/// Takes the lock, unless somebody owns it. Whoever only looks is waited for, but not for ever.
fn lock(file: &File, patience: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        match file.try_lock_shared() {
            Ok(()) => file.unlock()?,
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => return Ok(false),
        }
        if began.elapsed() > patience {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The files this process has open through SQLite, and how often.
static HERE: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

/// As long as it lives, nothing in this process opens the file in any way but through SQLite:
/// closing it again would drop the locks that SQLite has on it.
#[derive(Debug)]
pub(crate) struct Here {
    path: PathBuf,
}

impl Here {
    pub(crate) fn enter(path: &Path) -> Here {
        *here().entry(path.to_path_buf()).or_default() += 1;
        Here { path: path.to_path_buf() }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut here = here();
        if let Some(times) = here.get_mut(&self.path) {
            *times -= 1;
            if *times == 0 {
                here.remove(&self.path);
            }
        }
    }
}

/// Does something with the file itself, unless this process has it open; and keeps it from that
/// meanwhile.
pub(crate) fn unless_here<T>(path: &Path, act: impl FnOnce() -> T) -> Option<T> {
    let here = here();
    (!here.contains_key(path)).then(act)
}

fn here() -> MutexGuard<'static, BTreeMap<PathBuf, usize>> {
    HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that is made, if need be, for this user alone: it names tokens, or who may be reached.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whether an open file is another one than the name says by itself, as when somebody made a link
/// of that name: what is written beside a store must not go into another file.
#[cfg(unix)]
fn is_led_elsewhere(file: &File, name: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (open, named) = (file.metadata()?, name.symlink_metadata()?);
    Ok((open.dev(), open.ino()) != (named.dev(), named.ino()))
}

#[cfg(not(unix))]
fn is_led_elsewhere(_: &File, name: &Path) -> io::Result<bool> {
    Ok(name.symlink_metadata()?.is_symlink())
}

fn beside(path: &Path) -> PathBuf {
    with_ending(path, ".owner")
}

/// A file beside another one, by its ending.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// What the owner says of itself; nothing, if it does not say it in time.
fn card(file: &mut File, patience: Duration) -> Card {
    use std::io::{Seek, SeekFrom};
    let began = Instant::now();
    loop {
        let mut said = String::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut said));
        if let Some(card) = read.ok().and_then(|_| serde_json::from_str(&said).ok()) {
            return card;
        }
        if began.elapsed() >= patience {
            return Card::default();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_place_of_the_card_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (path, precious) = (folder.path().join("locks.db"), folder.path().join("precious"));
        std::fs::write(&precious, "do not lose this").unwrap();
        std::os::unix::fs::symlink(&precious, beside(&path)).unwrap();
        let error = Owner::take(&path, None).unwrap_err();
        assert!(matches!(error, StoreError::Misplaced { .. }), "{error}");
        assert!(error.to_string().contains("locks.db.owner"), "{error}");
        assert_eq!(std::fs::read(&precious).unwrap(), b"do not lose this");
        std::fs::remove_file(beside(&path)).unwrap();
        Owner::take(&path, None).unwrap();
    }

    /// Somebody looks at the very moment at which somebody else opens.
    #[test]
    fn a_look_is_waited_for_and_an_owner_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        drop(Owner::take(&path, None).unwrap());
        let look = File::open(beside(&path)).unwrap();
        look.lock_shared().unwrap();
        std::thread::scope(|scope| {
            let (begins, begun) = std::sync::mpsc::channel();
            let path = &path;
            let taken = scope.spawn(move || {
                begins.send(()).unwrap();
                Owner::take(path, None)
            });
            begun.recv().unwrap();
            // Long enough that it is nearly always found; too short would only find less.
            std::thread::sleep(Duration::from_millis(30));
            look.unlock().unwrap();
            let taken = taken.join().unwrap().unwrap();
            assert!(look.try_lock_shared().is_err(), "it is owned");
            let began = Instant::now();
            let refused = Owner::take(path, None).unwrap_err();
            assert!(matches!(refused, StoreError::Owned { .. }), "{refused:?}");
            assert!(began.elapsed() < PATIENCE, "a true owner is told at once");
            drop(taken);
        });
        assert!(look.try_lock_shared().is_ok());
    }

    /// Somebody who looks and never ends keeps nobody waiting for ever.
    #[test]
    fn a_look_that_does_not_end_is_not_waited_for_any_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        drop(Owner::take(&path, None).unwrap());
        let (look, owner) =
            (File::open(beside(&path)).unwrap(), File::open(beside(&path)).unwrap());
        look.lock_shared().unwrap();
        assert!(!lock(&owner, Duration::from_millis(5)).unwrap());
        look.unlock().unwrap();
        assert!(lock(&owner, Duration::ZERO).unwrap());
    }

    #[test]
    fn whoever_goes_takes_its_card_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        std::fs::write(&path, "").unwrap();
        let taken = Owner::take(&path, Some("unix:/run/l.sock")).unwrap();
        let card = owner(&path).unwrap().unwrap();
        assert_eq!(card.pid, Some(std::process::id()));
        assert_eq!(card.reach.as_deref(), Some("unix:/run/l.sock"));
        assert!(card.since.is_some_and(|since| since <= text::now()));
        // A child that is being started has a copy of the open file; that must not keep the lock.
        let copy = taken.file.try_clone().unwrap();
        drop(taken);
        assert_eq!(owner(&path).unwrap(), None);
        assert_eq!(std::fs::read(beside(&path)).unwrap(), b"");
        drop(copy);
    }

    #[test]
    fn nobody_owns_what_is_not_there_and_trouble_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("locks.db"), folder.path().join("file"));
        assert_eq!(owner(&path).unwrap(), None);
        std::fs::write(&file, "").unwrap();
        assert_eq!(owner(&file).unwrap(), None, "nobody ever was beside it");
        for (path, word) in
            [(file.join("locks.db"), "no lock store"), ("l".repeat(300).into(), "long")]
        {
            let told = owner(&path).unwrap_err();
            assert!(told.to_string().contains(word), "{told}");
        }
    }

    /// An owner that has its lock already, but not written its card yet.
    #[test]
    fn a_card_that_is_not_there_is_waited_for_as_long_as_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("locks.db.owner");
        std::fs::write(&name, "").unwrap();
        let mut file = File::open(&name).unwrap();
        assert_eq!(card(&mut file, Duration::ZERO), Card::default());
        let said = Card { pid: Some(7), ..Card::default() };
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || card(&mut file, Duration::from_secs(600)));
            std::fs::write(&name, serde_json::to_vec(&said).unwrap()).unwrap();
            assert_eq!(waits.join().unwrap(), said);
        });
    }

    #[test]
    fn a_file_is_left_alone_as_long_as_anybody_here_has_it_open() {
        let (path, other) = (Path::new("/here/locks.db"), Path::new("/here/other.db"));
        let is_left_alone = |path| unless_here(path, || ()).is_none();
        assert!(!is_left_alone(path));
        let three = [Here::enter(path), Here::enter(path), Here::enter(path)];
        assert!(is_left_alone(path) && !is_left_alone(other));
        for here in three {
            assert!(is_left_alone(path));
            drop(here);
        }
        assert!(!is_left_alone(path));
        assert_eq!(unless_here(path, || 7), Some(7));
    }
}

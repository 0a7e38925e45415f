//! Why something could not be remembered.

#[cfg(test)]
mod tests;

use crate::owner::with_ending;
use lockkeeper_core::Epoch;
use rusqlite::ErrorCode;
use std::{fmt, fs::File, io, path::Path, path::PathBuf, sync::Arc};

/// Why something could not be remembered. Nothing was, and nobody was told that it was.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    Owned {
        /// The file.
        path: PathBuf,
        /// Which process, if it said so.
        pid: Option<u32>,
        /// How it can be reached, if it said so.
        reach: Option<String>,
    },
    /// It was written by a newer program.
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest one this program knows.
        known: u32,
    },
    /// A migration that was applied is not the one this program knows by that number.
    ForeignSchema {
        /// The file.
        path: PathBuf,
        /// The migration.
        migration: String,
    },
    /// The file is not a store, or is damaged.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The place cannot be used as it was named: there is no such folder, or something is there
    /// already.
    Misplaced {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        detail: String,
    },
    /// There is no store yet.
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder cannot be written.
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Another program holds the file's lock for too long.
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A newer owner has claimed the project.
    Superseded {
        /// The project.
        project: Arc<str>,
        /// The epoch of the claim that is over.
        epoch: Epoch,
        /// The epoch of the newest one.
        newest: Epoch,
    },
    /// A batch does not come after what is written; nothing of the reign can be written any more.
    OutOfOrder {
        /// The project.
        project: Arc<str>,
        /// What was found.
        detail: String,
    },
    /// A batch contradicts what is written: a second exclusive hold, a release of a hold that is
    /// not there. None of it is written.
    Contradiction {
        /// The project.
        project: Arc<str>,
        /// What contradicts.
        detail: String,
    },
    /// The project has been claimed as often as it can be.
    Exhausted {
        /// The project.
        project: Arc<str>,
    },
    /// Something else of the file or the system.
    Io {
        /// The file.
        path: PathBuf,
        /// What was said.
        detail: String,
    },
    /// The writer has stopped.
    Closed,
}

impl StoreError {
    /// The number of the earlier lock registries: E307 for a damaged store, E306 for any other
    /// trouble with it.
    pub fn legacy_code(&self) -> &'static str {
        match self {
            StoreError::Corrupt { .. } => "E307",
            _ => "E306",
        }
    }

    /// Says what SQLite said in our words.
    pub(crate) fn of_sqlite(path: &Path, error: &rusqlite::Error) -> StoreError {
        let path = path.to_path_buf();
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full { path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                StoreError::ReadOnly { path }
            }
            Some(ErrorCode::CannotOpen) => StoreError::of_opening(&path),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Locked { path }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Corrupt { path, detail }
            }
            // An error in a question. Ours are always the same, so the file is not what it was: a
            // format that nobody knows, a table that is gone.
            Some(_) if is_plain(error) => StoreError::Corrupt { path, detail },
            Some(_) => StoreError::Io { path, detail },
            // Not from the engine, so a row is not what it should be.
            None => StoreError::Corrupt { path, detail },
        }
    }

    /// A file could not be opened, and SQLite does not hand on why. So the system is asked what it
    /// says now of the folder, of the file, and of the longest name that SQLite makes of the
    /// file's. Neither the file nor one beside it is opened for that: closing it again would drop
    /// the locks that SQLite has on it.
    fn of_opening(path: &Path) -> StoreError {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Opened, because that also fails where too many files are open.
        let asked = File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|_| path.metadata())
            .and_then(|_| match with_ending(path, "-journal").symlink_metadata() {
                Err(error) if !is_gone(&error) => Err(error),
                _ => Ok(()),
            });
        match asked {
            Err(error) => StoreError::of_system(path, &error),
            // There it is, so it is its rights or those of its folder, which bind a writer alone.
            Ok(()) => StoreError::ReadOnly { path: path.to_path_buf() },
        }
    }

    /// Says what the system said to somebody who only looks.
    pub(crate) fn of_reading(path: &Path, error: &io::Error) -> StoreError {
        let path = path.to_path_buf();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::Missing { path },
            io::ErrorKind::PermissionDenied => StoreError::Unreadable { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
            _ => StoreError::Io { path, detail: error.to_string() },
        }
    }

    /// The same trouble of somebody who only looks.
    pub(crate) fn of_looking(self) -> StoreError {
        match self {
            StoreError::ReadOnly { path } => StoreError::Unreadable { path },
            other => other,
        }
    }

    /// The same trouble of another file: what was opened instead is nobody's business.
    pub(crate) fn with_path(self, name: &Path) -> StoreError {
        let path = name.to_path_buf();
        match self {
            StoreError::ReadOnly { .. } => StoreError::ReadOnly { path },
            StoreError::Corrupt { detail, .. } => StoreError::Corrupt { path, detail },
            StoreError::Locked { .. } => StoreError::Locked { path },
            StoreError::Io { detail, .. } => StoreError::Io { path, detail },
            other => other,
        }
    }

    /// Says what the system said in our words.
    pub(crate) fn of_system(path: &Path, error: &io::Error) -> StoreError {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|_| is_gone(error))
            && folder.metadata().is_err_and(|error| is_gone(&error))
        {
            let detail = format!("the folder {} does not exist: create it first", folder.display());
            return StoreError::Misplaced { path: path.to_path_buf(), detail };
        }
        let path = path.to_path_buf();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::ReadOnly { path }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
            _ => StoreError::Io { path, detail: error.to_string() },
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Owned { path, pid, reach } => owned(f, path, *pid, reach.as_deref()),
            StoreError::NewerSchema { path, found, known } => write!(
                f,
                "{} was written by a newer program (schema {found}, this one knows {known}): run \
                 that program, or restore a copy that was made before",
                path.display()
            ),
            StoreError::ForeignSchema { path, migration } => write!(
                f,
                "migration {migration} of {} is not the one this program knows by that number: \
                 run the program that made the file, or start with another file",
                path.display()
            ),
            StoreError::Corrupt { path, detail } => write!(
                f,
                "{} is not a lock store, or is damaged ({detail}): move it away and restore a \
                 copy, or start with another file",
                path.display()
            ),
            StoreError::Misplaced { path, detail } => {
                write!(f, "{} cannot be used: {detail}", path.display())
            }
            StoreError::Missing { path } => write!(
                f,
                "there is no lock store at {} yet: the first lock makes it",
                path.display()
            ),
            StoreError::Unreadable { path } => write!(
                f,
                "{} cannot be read: give this user the right to read the file and its folder, or \
                 ask its owner",
                path.display()
            ),
            StoreError::Full { path } => write!(
                f,
                "there is no room left for {}: free some, and it goes on by itself; nothing that \
                 was acknowledged is lost",
                path.display()
            ),
            StoreError::ReadOnly { path } => write!(
                f,
                "{} cannot be written: give this user the right to write the file and its folder, \
                 or choose another place",
                path.display()
            ),
            StoreError::Locked { path } => write!(
                f,
                "another program has kept {} locked for too long: close whatever else has it open, \
                 a database browser for instance, and try again",
                path.display()
            ),
            StoreError::Superseded { project, epoch, newest } => write!(
                f,
                "another owner has taken project {project} over (epoch {}, this one was {}): \
                 nothing was written; take it over again, or leave it to the other",
                newest.get(),
                epoch.get()
            ),
            StoreError::OutOfOrder { project, detail } => write!(
                f,
                "a turn of project {project} does not follow what is written ({detail}): nothing \
                 was written; take the project over again"
            ),
            StoreError::Contradiction { project, detail } => write!(
                f,
                "a turn of project {project} contradicts what is written ({detail}): nothing was \
                 written; take the project over again, and report this"
            ),
            StoreError::Exhausted { project } => write!(
                f,
                "project {project} was taken over as often as it can be: go on under another name"
            ),
            StoreError::Io { path, detail } => write!(
                f,
                "{} could not be read or written ({detail}): nothing was acknowledged; look after \
                 the disk and try again",
                path.display()
            ),
            StoreError::Closed => {
                f.write_str("the store is closed: open it again to go on; nothing was written")
            }
        }
    }
}

fn owned(
    f: &mut fmt::Formatter<'_>,
    path: &Path,
    pid: Option<u32>,
    reach: Option<&str>,
) -> fmt::Result {
    write!(f, "{} is already open in ", path.display())?;
    match pid {
        Some(pid) => write!(f, "process {pid}")?,
        None => f.write_str("another process")?,
    }
    match reach {
        Some(reach) => write!(f, ": talk to that one at {reach}"),
        None => f.write_str(": ask that process, or wait until it has ended"),
    }
}

impl std::error::Error for StoreError {}

/// What can go wrong while rows are written or read.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The engine said so.
    Sql(rusqlite::Error),
    /// What is to be written does not fit what is there.
    Contradiction(String),
    /// What is there cannot be understood.
    Damaged(String),
    /// It is said already.
    Known(StoreError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        Trouble::Sql(error)
    }
}

impl Trouble {
    /// Whether it is about one batch; otherwise the whole store is in trouble.
    pub(crate) fn is_of_one_batch(&self) -> bool {
        match self {
            Trouble::Contradiction(_) | Trouble::Damaged(_) => true,
            Trouble::Known(_) => false,
            Trouble::Sql(error) => match error.sqlite_error_code() {
                Some(code) => matches!(
                    code,
                    ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch
                ),
                // Not from the engine: a value of this batch, or of the rows it is about.
                None => true,
            },
        }
    }

    pub(crate) fn of(self, path: &Path, project: &Arc<str>) -> StoreError {
        let contradicts = match &self {
            // What was read cannot be understood; anything else was to be written.
            Trouble::Sql(error) => self.is_of_one_batch() && !is_of_reading(error),
            _ => false,
        };
        let project = project.clone();
        match self {
            Trouble::Contradiction(detail) => StoreError::Contradiction { project, detail },
            Trouble::Known(error) => error,
            Trouble::Damaged(detail) => StoreError::Corrupt { path: path.to_path_buf(), detail },
            Trouble::Sql(error) if contradicts => {
                StoreError::Contradiction { project, detail: error.to_string() }
            }
            Trouble::Sql(error) => StoreError::of_sqlite(path, &error),
        }
    }
}

/// Whether the engine has no better word for it than that it is an error.
fn is_plain(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|said| said.extended_code == rusqlite::ffi::SQLITE_ERROR)
}

/// Whether a row is not what it should be.
fn is_of_reading(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows,
        Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | QueryReturnedNoRows
            | Utf8Error(..)
    )
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

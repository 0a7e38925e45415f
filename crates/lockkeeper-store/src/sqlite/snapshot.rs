//! A store as it is, read without owning it and without changing a byte of its folder.
//!
//! Where everything is in the one file it is read in place, as a file that does not change; should
//! an owner write into it meanwhile, the file shows it, and the question is asked again. Where
//! there is a log of writes beside it, after the death of an owner or while one works, even reading
//! would change files: both are copied to a private place and read there.
//!
//! A copy is whole although nobody waits for it: the file first, then the log. What an owner moved
//! from the log to the file meanwhile is still in the log, unless it began the log anew; then the
//! log's header has other numbers, and it is copied once more.

#[cfg(test)]
mod tests;

use super::{connect, journal, live, load, reader};
use crate::{
    AuditFilter, AuditRow, Claim, StoreError,
    error::Trouble,
    owner::{self, Here, with_ending},
    schema,
};
use lockkeeper_core::{Epoch, Record};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::{
    fs::{self, File, Metadata},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// How often a question is asked again because somebody wrote meanwhile.
const TRIES: u32 = 200;

/// How long to wait for a database browser that has locked the file.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// A store as it is recorded, for whoever only wants to look. It is read without being owned,
/// migrated or changed, whether or not somebody owns it: no file of its folder is made, changed or
/// removed.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    view: View,
}

/// One way of looking at the file.
#[derive(Debug)]
struct View {
    // Closed before its folder goes: fields are dropped in this order.
    db: Connection,
    schema: u32,
    /// What the files looked like, if they are read where they are.
    in_place: Option<Stamp>,
    _copy: Option<Folder>,
    _here: Option<Here>,
}

/// What can be told of a store without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    file: Side,
    log: Side,
    journal: Side,
}

/// How long a file is and when it was changed; nothing, if it is not there.
type Side = (u64, Option<SystemTime>);

/// The state of a store's file, for whoever looks after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkup {
    /// The file.
    pub path: PathBuf,
    /// Its schema; 0 if it is empty.
    pub schema: u32,
    /// The newest schema this program knows. An older one is brought up to date when the store is
    /// opened, or by `lockkeeper migrate`.
    pub newest: u32,
    /// How large it is.
    pub bytes: u64,
    /// How large the log of writes beside it is: what a killed owner left, or a living one writes.
    pub log_bytes: u64,
    /// How much of the file is free for what comes.
    pub free_bytes: u64,
    /// What is damaged; nothing, if all is well.
    pub problems: Vec<String>,
}

/// Looks whether a store is well, and changes nothing. Reads all of it.
pub fn check(path: impl AsRef<Path>) -> Result<Checkup, StoreError> {
    Snapshot::read(path)?.check()
}

impl Snapshot {
    /// Looks at a store. One that is not there is [`StoreError::Missing`].
    pub fn read(path: impl AsRef<Path>) -> Result<Snapshot, StoreError> {
        let named = path.as_ref();
        let of_system = |error: io::Error| StoreError::of_reading(named, &error);
        let path = named.canonicalize().map_err(of_system)?;
        if !path.metadata().map_err(of_system)?.is_file() {
            let detail = "it is no file: name the store's file".to_owned();
            return Err(StoreError::Misplaced { path, detail });
        }
        let view = View::of(&path)?;
        Ok(Snapshot { path, view })
    }

    /// The names of all projects, in order.
    pub fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.ask("", |db, schema| match schema {
            0 => Ok(Vec::new()),
            _ => Ok(live::projects(db)?),
        })
    }

    /// What is live in a project: its newest claim, and the facts to be replayed, in this order,
    /// into a table of that reign. None if nobody has ever claimed it.
    pub fn live(&mut self, project: &str) -> Result<Option<(Claim, Vec<Record>)>, StoreError> {
        self.ask(project, |db, schema| {
            if schema == 0 {
                return Ok(None);
            }
            // All of it as of one moment.
            let moment = db.unchecked_transaction()?;
            let meta = "SELECT epoch, last_event FROM lock_meta WHERE project_id = ?1";
            let meta: Option<(u32, u64)> = moment
                .query_row(meta, [project], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((epoch, mut last_event)) = meta else { return Ok(None) };
            let now = journal::present(&moment, project, schema)?;
            let records = load::facts(&moment, project, &now.rows, &now.entries)?;
            last_event = now.entries.last().map_or(last_event, |entry| entry.last_event);
            let claim = Claim { project: project.into(), epoch: Epoch::new(epoch), last_event };
            Ok(Some((claim, records)))
        })
    }

    /// The audit log, filtered; the latest first, unless the filter says otherwise.
    pub fn audit(&mut self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        self.ask(filter.project.as_deref().unwrap_or_default(), |db, schema| match schema {
            0 => Ok(Vec::new()),
            _ => reader::audit(db, filter, schema),
        })
    }

    /// Looks whether it is well. Reads all of it.
    pub fn check(&mut self) -> Result<Checkup, StoreError> {
        let stamp = Stamp::of(&self.path)?;
        let path = self.path.clone();
        self.ask("", |db, schema| {
            let number = |name: &str| -> Result<u64, Trouble> {
                Ok(db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
            };
            Ok(Checkup {
                path: path.clone(),
                schema,
                newest: schema::NEWEST,
                bytes: stamp.file.0,
                log_bytes: stamp.log.0,
                free_bytes: number("freelist_count")?.saturating_mul(number("page_size")?),
                problems: problems(db),
            })
        })
    }

    /// Asks, and asks again if what was read was written meanwhile.
    fn ask<T>(
        &mut self,
        project: &str,
        see: impl Fn(&Connection, u32) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        for tries in 0..TRIES {
            let seen = see(&self.view.db, self.view.schema);
            if self.view.is_true(&self.path)? {
                let project = project.into();
                return seen.map_err(|trouble| trouble.of(&self.path, &project).of_looking());
            }
            pause(tries);
            self.view = View::of(&self.path)?;
        }
        Err(StoreError::Locked { path: self.path.clone() })
    }
}

/// What SQLite finds wrong; a few lines of it are enough.
fn problems(db: &Connection) -> Vec<String> {
    let found = db.prepare("PRAGMA quick_check(20)").and_then(|mut check| {
        let lines = check.query_map([], |row| row.get::<_, String>(0))?;
        lines.collect::<rusqlite::Result<Vec<String>>>()
    });
    match found {
        Ok(lines) => lines.into_iter().filter(|line| line != "ok").collect(),
        Err(error) => vec![error.to_string()],
    }
}

impl View {
    fn of(path: &Path) -> Result<View, StoreError> {
        for tries in 0..TRIES {
            let stamp = Stamp::of(path)?;
            let viewed = match stamp.is_one_file() {
                true => View::in_place(path, stamp).map(Some),
                false => View::beside(path, stamp),
            };
            let is_true = match &viewed {
                Ok(Some(view)) => view.is_true(path)?,
                Ok(None) => false,
                // What is written meanwhile may look like anything; a copy is whole.
                Err(_) => !stamp.is_one_file() || Stamp::of(path)? == stamp,
            };
            if let (Some(view), true) =
                (viewed.map_err(StoreError::of_looking).transpose(), is_true)
            {
                return view;
            }
            pause(tries);
        }
        Err(StoreError::Locked { path: path.to_path_buf() })
    }

    /// Everything is in the file.
    fn in_place(path: &Path, stamp: Stamp) -> Result<View, StoreError> {
        let access = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let db = connect(Path::new(&unchanging(path)), access, BUSY_WAIT)
            .map_err(|error| error.with_path(path))?;
        View::over(path, db, Some(stamp), None, None)
    }

    /// There is more beside the file. None if it changed while it was copied.
    fn beside(path: &Path, stamp: Stamp) -> Result<Option<View>, StoreError> {
        let Some(copied) = owner::unless_here(path, || copy(path, stamp)) else {
            // Whoever has it open in this process may look like any reader of it.
            let here = Some(Here::enter(path));
            let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, BUSY_WAIT)?;
            return View::over(path, db, None, None, here).map(Some);
        };
        let Some(folder) = copied.map_err(|error| StoreError::of_reading(path, &error))? else {
            return Ok(None);
        };
        let access = match stamp.journal.0 {
            0 => OpenFlags::SQLITE_OPEN_READ_ONLY,
            _ => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let db = connect(&folder.0.join(COPY), access, BUSY_WAIT)
            .map_err(|error| error.with_path(path))?;
        View::over(path, db, None, Some(folder), None).map(Some)
    }

    fn over(
        path: &Path,
        db: Connection,
        in_place: Option<Stamp>,
        copy: Option<Folder>,
        here: Option<Here>,
    ) -> Result<View, StoreError> {
        let schema = schema::version(path, &db)?;
        db.pragma_update(None, "query_only", true)
            .map_err(|error| StoreError::of_sqlite(path, &error))?;
        Ok(View { db, schema, in_place, _copy: copy, _here: here })
    }

    /// Whether nobody has written into the file since, or it does not matter.
    fn is_true(&self, path: &Path) -> Result<bool, StoreError> {
        match self.in_place {
            Some(stamp) => Ok(Stamp::of(path)? == stamp),
            None => Ok(true),
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Result<Stamp, StoreError> {
        let side = |metadata: Metadata| (metadata.len(), metadata.modified().ok());
        let look = |ending: &str| match fs::metadata(with_ending(path, ending)) {
            Ok(metadata) => Ok(side(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((0, None)),
            Err(error) => Err(StoreError::of_reading(path, &error)),
        };
        // The file last: it changes after the log has something in it.
        let (log, journal) = (look("-wal")?, look("-journal")?);
        let file = fs::metadata(path).map_err(|error| StoreError::of_reading(path, &error))?;
        Ok(Stamp { file: side(file), log, journal })
    }

    /// Whether there is nothing beside the file that belongs to it.
    fn is_one_file(&self) -> bool {
        (self.log.0, self.journal.0) == (0, 0)
    }
}

/// The name of the copy in its folder.
const COPY: &str = "copy.db";

/// Copies a store; none if it is not whole because somebody wrote meanwhile.
fn copy(path: &Path, stamp: Stamp) -> io::Result<Option<Folder>> {
    let log = with_ending(path, "-wal");
    let header = || -> io::Result<Vec<u8>> {
        let mut header = Vec::new();
        match File::open(&log) {
            Ok(file) => file.take(32).read_to_end(&mut header).map(|_| header),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(header),
            Err(error) => Err(error),
        }
    };
    let before = header()?;
    let folder = Folder::new()?;
    let to = folder.0.join(COPY);
    let copied = fs::copy(path, &to).and_then(|_| {
        for (ending, side) in [("-wal", stamp.log), ("-journal", stamp.journal)] {
            if side.0 > 0 {
                fs::copy(with_ending(path, ending), with_ending(&to, ending))?;
            }
        }
        Ok(())
    });
    match copied {
        // It was closed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        copied => copied?,
    }
    let is_whole = match stamp.journal.0 {
        0 => before == header()?,
        // Without a log of writes the file itself is written at any time.
        _ => Stamp::of(path).is_ok_and(|now| now == stamp),
    };
    Ok(is_whole.then_some(folder))
}

/// A folder for this user alone, which goes with everything in it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // A number nobody can foresee, from the randomness that the standard library has.
        let random = RandomState::new().build_hasher().finish();
        let name = format!("lockkeeper-{}-{random:016x}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // Refuses what is there already.
        builder.create(&folder)?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a copy could not be removed");
        }
    }
}

/// The name of a file that SQLite takes for one that does not change: it makes nothing beside it,
/// and locks nothing.
fn unchanging(path: &Path) -> String {
    let mut name = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                name.push(char::from(*byte));
            }
            other => name += &format!("%{other:02x}"),
        }
    }
    name + "?immutable=1"
}

/// Somebody writes: a moment later, and later still if that does not help.
fn pause(tries: u32) {
    std::thread::sleep(Duration::from_millis(u64::from(tries.min(20))));
}

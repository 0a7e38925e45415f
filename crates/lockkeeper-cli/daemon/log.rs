//! The log of a daemon that nobody watches: a file beside the store that does not grow for ever.

use super::start::beside;
use crate::places::runtime;
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tracing_subscriber::fmt::MakeWriter;

/// When it has so many bytes, what was written so far becomes the old log, in place of the one
/// before.
const BYTES_MAX: u64 = 1 << 20;

/// Where it is.
pub(crate) fn path(store: &Path) -> PathBuf {
    beside(store, ".log")
}

/// Opens it, for this user alone, to go on at its end.
pub(crate) fn open(store: &Path) -> io::Result<File> {
    if let Some(folder) = store.parent() {
        runtime::make_private(folder)?;
    }
    let mut options = File::options();
    runtime::no_link(options.append(true).create(true).mode(0o600)).open(path(store))
}

/// Writes lines, and starts over when there are too many.
pub(crate) struct Log {
    file: Mutex<Bounded>,
}

struct Bounded {
    file: File,
    bytes: u64,
    path: PathBuf,
    bytes_max: u64,
}

impl Log {
    pub(crate) fn beside(store: &Path) -> io::Result<Log> {
        Log::bounded(store, BYTES_MAX)
    }

    fn bounded(store: &Path, bytes_max: u64) -> io::Result<Log> {
        let file = open(store)?;
        let bytes = file.metadata()?.len();
        Ok(Log { file: Mutex::new(Bounded { file, bytes, path: path(store), bytes_max }) })
    }
}

impl Bounded {
    /// Whatever else writes to the same file, such as a panic, does so at its end as well.
    fn make_room(&mut self) -> io::Result<()> {
        if self.bytes >= self.bytes_max {
            keep(&self.path, &beside(&self.path, ".old"))?;
            self.file.set_len(0)?;
            self.bytes = 0;
        }
        Ok(())
    }
}

/// Copies a log in the place of an older one; not to where a link in its place may lead.
fn keep(log: &Path, old: &Path) -> io::Result<()> {
    match fs::remove_file(old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(old)?;
    io::copy(&mut File::open(log)?, &mut copy).map(drop)
}

/// Writes one line of the log.
pub(crate) struct Turn<'a>(MutexGuard<'a, Bounded>);

impl Write for Turn<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.make_room()?;
        let written = self.0.file.write(bytes)?;
        self.0.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.file.flush()
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Turn<'a>;

    fn make_writer(&'a self) -> Turn<'a> {
        Turn(self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("locks.db");
        let log = Log::bounded(&store, 1000).unwrap();
        for line in 0..1000 {
            writeln!(log.make_writer(), "line {line}").unwrap();
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let (now, old) = (read(&path(&store)), read(&beside(&path(&store), ".old")));
        assert!(now.len() <= 1020 && old.len() <= 1020, "{} {}", now.len(), old.len());
        assert!(now.ends_with("line 999\n"), "the latest is kept");
        assert!(format!("{old}{now}").lines().count() > 100, "and what came before it");
        let again = Log::bounded(&store, 1000).unwrap();
        writeln!(again.make_writer(), "later").unwrap();
        assert!(read(&path(&store)).ends_with("line 999\nlater\n"), "a restart goes on");
    }
}

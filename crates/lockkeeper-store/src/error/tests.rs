//! Which word each error of the system and of SQLite becomes.

use super::*;
use rusqlite::ffi;

fn path() -> PathBuf {
    std::env::temp_dir().join("locks.db")
}

fn sqlite(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("as it said".to_owned()))
}

/// The variant, and the detail where there is one.
fn word(error: &StoreError) -> (&'static str, Option<&str>) {
    match error {
        StoreError::Owned { .. } => ("owned", None),
        StoreError::NewerSchema { .. } => ("newer schema", None),
        StoreError::ForeignSchema { .. } => ("foreign schema", None),
        StoreError::Corrupt { detail, .. } => ("corrupt", Some(detail)),
        StoreError::Misplaced { detail, .. } => ("misplaced", Some(detail)),
        StoreError::Missing { .. } => ("missing", None),
        StoreError::Unreadable { .. } => ("unreadable", None),
        StoreError::Full { .. } => ("full", None),
        StoreError::ReadOnly { .. } => ("read only", None),
        StoreError::Locked { .. } => ("locked", None),
        StoreError::Superseded { .. } => ("superseded", None),
        StoreError::OutOfOrder { detail, .. } => ("out of order", Some(detail)),
        StoreError::Contradiction { detail, .. } => ("contradiction", Some(detail)),
        StoreError::Exhausted { .. } => ("exhausted", None),
        StoreError::Io { detail, .. } => ("io", Some(detail)),
        StoreError::Closed => ("closed", None),
    }
}

#[test]
fn every_code_of_sqlite_has_a_word() {
    let said = Some("as it said");
    // Beside each code: whether it is about one batch alone, and the word for such a batch.
    for (code, expected, of_one_batch) in [
        (ffi::SQLITE_ERROR, ("corrupt", said), false),
        (ffi::SQLITE_ERROR_SNAPSHOT, ("io", said), false),
        (ffi::SQLITE_INTERNAL, ("io", said), false),
        (ffi::SQLITE_PERM, ("read only", None), false),
        (ffi::SQLITE_ABORT, ("io", said), false),
        (ffi::SQLITE_BUSY, ("locked", None), false),
        (ffi::SQLITE_BUSY_SNAPSHOT, ("locked", None), false),
        (ffi::SQLITE_LOCKED, ("locked", None), false),
        (ffi::SQLITE_NOMEM, ("io", said), false),
        (ffi::SQLITE_READONLY, ("read only", None), false),
        (ffi::SQLITE_READONLY_DIRECTORY, ("read only", None), false),
        (ffi::SQLITE_INTERRUPT, ("io", said), false),
        (ffi::SQLITE_IOERR, ("io", said), false),
        (ffi::SQLITE_IOERR_FSYNC, ("io", said), false),
        (ffi::SQLITE_CORRUPT, ("corrupt", said), false),
        (ffi::SQLITE_NOTFOUND, ("io", said), false),
        (ffi::SQLITE_FULL, ("full", None), false),
        (ffi::SQLITE_PROTOCOL, ("io", said), false),
        (ffi::SQLITE_SCHEMA, ("io", said), false),
        (ffi::SQLITE_TOOBIG, ("io", said), true),
        (ffi::SQLITE_CONSTRAINT, ("io", said), true),
        (ffi::SQLITE_CONSTRAINT_UNIQUE, ("io", said), true),
        (ffi::SQLITE_MISMATCH, ("io", said), true),
        (ffi::SQLITE_MISUSE, ("io", said), false),
        (ffi::SQLITE_NOLFS, ("io", said), false),
        (ffi::SQLITE_AUTH, ("io", said), false),
        (ffi::SQLITE_RANGE, ("io", said), false),
        (ffi::SQLITE_NOTADB, ("corrupt", said), false),
    ] {
        let error = StoreError::of_sqlite(&path(), &sqlite(code));
        assert_eq!(word(&error), expected, "{code}");
        let trouble = Trouble::from(sqlite(code));
        assert_eq!(trouble.is_of_one_batch(), of_one_batch, "{code}");
        let told = trouble.of(&path(), &"demo".into());
        let expected = if of_one_batch { ("contradiction", said) } else { expected };
        assert_eq!(word(&told), expected, "{code}");
    }
}

#[test]
fn a_row_that_cannot_be_understood_is_damage_and_a_value_that_cannot_be_written_is_not() {
    use rusqlite::{Error, types::Type};
    let utf8 = || std::str::from_utf8(b"\xff".as_slice()).unwrap_err();
    for error in [
        Error::FromSqlConversionFailure(0, Type::Text, Box::new(utf8())),
        Error::IntegralValueOutOfRange(0, -1),
        Error::InvalidColumnType(0, "token".to_owned(), Type::Null),
        Error::QueryReturnedNoRows,
        Error::Utf8Error(0, utf8()),
    ] {
        assert_eq!(word(&StoreError::of_sqlite(&path(), &error)).0, "corrupt", "{error}");
        let trouble = Trouble::from(error);
        assert!(trouble.is_of_one_batch(), "{trouble:?}");
        assert_eq!(word(&trouble.of(&path(), &"demo".into())).0, "corrupt");
    }
    let trouble = Trouble::from(Error::ToSqlConversionFailure(Box::new(utf8())));
    assert!(trouble.is_of_one_batch());
    assert_eq!(word(&trouble.of(&path(), &"demo".into())).0, "contradiction");
    let what = || "what".to_owned();
    let project = Arc::from("demo");
    let damaged = Trouble::Damaged(what());
    assert!(damaged.is_of_one_batch());
    assert_eq!(word(&damaged.of(&path(), &project)), ("corrupt", Some("what")));
    let contradicts = Trouble::Contradiction(what());
    assert!(contradicts.is_of_one_batch());
    assert_eq!(word(&contradicts.of(&path(), &project)), ("contradiction", Some("what")));
    let known = Trouble::Known(StoreError::Closed);
    assert!(!known.is_of_one_batch());
    assert_eq!(known.of(&path(), &project), StoreError::Closed);
}

#[test]
fn every_error_of_the_system_has_a_word_for_writers_and_one_for_lookers() {
    use io::ErrorKind::*;
    let nothing = "nothing of that kind";
    for (kind, writing, looking) in [
        (NotFound, "io", "missing"),
        (NotADirectory, "io", "missing"),
        (PermissionDenied, "read only", "unreadable"),
        (ReadOnlyFilesystem, "read only", "io"),
        (StorageFull, "full", "full"),
        (QuotaExceeded, "full", "full"),
        (FileTooLarge, "io", "io"),
        (InvalidFilename, "io", "io"),
        (IsADirectory, "io", "io"),
        (ResourceBusy, "io", "io"),
        (TimedOut, "io", "io"),
        (Interrupted, "io", "io"),
        (OutOfMemory, "io", "io"),
        (Other, "io", "io"),
    ] {
        let error = io::Error::new(kind, nothing);
        for (told, expected) in [
            (StoreError::of_system(&path(), &error), writing),
            (StoreError::of_reading(&path(), &error), looking),
        ] {
            let (word, detail) = word(&told);
            assert_eq!(word, expected, "{kind:?}");
            assert!(detail.is_none_or(|detail| detail == nothing), "{kind:?}: {told}");
            assert!(told.to_string().contains("locks.db"), "{told}");
        }
    }
}

#[test]
fn a_folder_is_missed_only_where_something_was_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no").join("locks.db");
    let told = |kind: io::ErrorKind| StoreError::of_system(&path, &io::Error::from(kind));
    let (word_of, detail) = (told(io::ErrorKind::NotFound), "create it first");
    assert!(
        matches!(word(&word_of), ("misplaced", Some(said)) if said.contains(detail)),
        "{word_of}"
    );
    assert_eq!(word(&told(io::ErrorKind::StorageFull)).0, "full");
    // A name alone stands in the folder where everybody is.
    let bare = io::Error::from(io::ErrorKind::NotFound);
    assert_eq!(word(&StoreError::of_system(Path::new("locks.db"), &bare)).0, "io");
}

#[test]
fn why_a_file_cannot_be_opened_is_asked_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let cannot = sqlite(ffi::SQLITE_CANTOPEN);
    let told = |path: &Path| StoreError::of_sqlite(path, &cannot);
    let path = folder.path().join("locks.db");
    // Somebody has removed it.
    let gone = told(&path);
    assert!(matches!(word(&gone), ("io", Some(said)) if said.contains("os error")), "{gone}");
    // It is there, and nothing is wrong with it: then it is about rights.
    std::fs::write(&path, "").unwrap();
    assert_eq!(told(&path), StoreError::ReadOnly { path: path.clone() });
    assert_eq!(word(&told(&path).of_looking()), ("unreadable", None));
    // SQLite's journal has the name of the file, and some letters more.
    let long = folder.path().join("l".repeat(250));
    std::fs::write(&long, "").unwrap();
    let long = told(&long);
    assert!(matches!(word(&long), ("io", Some(said)) if said.contains("long")), "{long}");
    // And the whole folder.
    let lost = told(&folder.path().join("no").join("locks.db"));
    assert!(
        matches!(word(&lost), ("misplaced", Some(said)) if said.contains("create it")),
        "{lost}"
    );
}

#[test]
fn the_same_trouble_of_another_file_keeps_its_word() {
    let (other, name) = (PathBuf::from("/tmp/copy"), Path::new("/var/locks.db"));
    let detail = "what".to_owned();
    for error in [
        StoreError::ReadOnly { path: other.clone() },
        StoreError::Corrupt { path: other.clone(), detail: detail.clone() },
        StoreError::Locked { path: other.clone() },
        StoreError::Io { path: other.clone(), detail },
    ] {
        let told = error.clone().with_path(name);
        assert_eq!(word(&told), word(&error));
        let said = told.to_string();
        assert!(said.contains("/var/locks.db") && !said.contains("/tmp/copy"), "{said}");
        assert_eq!(told.clone().with_path(&other), error);
        let looking = told.clone().of_looking();
        match told {
            StoreError::ReadOnly { .. } => assert_eq!(word(&looking).0, "unreadable"),
            other => assert_eq!(looking, other),
        }
    }
    assert_eq!(StoreError::Closed.with_path(name), StoreError::Closed);
}

//! What happens in the middle of a look, and how a name is spelled.

use super::*;

#[test]
fn a_copy_is_private_and_goes() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("locks.db");
    fs::write(&path, "the file").unwrap();
    fs::write(with_ending(&path, "-wal"), "the log").unwrap();
    let folder = copy(&path, Stamp::of(&path).unwrap()).unwrap().unwrap();
    let place = folder.0.clone();
    assert_eq!(fs::read(place.join("copy.db")).unwrap(), b"the file");
    assert_eq!(fs::read(place.join("copy.db-wal")).unwrap(), b"the log");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    }
    drop(folder);
    assert!(!place.exists());
}

#[test]
fn a_name_is_spelled_so_that_sqlite_reads_it() {
    assert_eq!(unchanging(Path::new("/a b/c?d#e%.db")), "file:/a%20b/c%3fd%23e%25.db?immutable=1");
}

/// The log went because the owner closed meanwhile: it is looked at once more.
#[test]
fn a_log_that_went_meanwhile_is_no_trouble() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("locks.db");
    fs::write(&path, "the file").unwrap();
    let log = with_ending(&path, "-wal");
    fs::write(&log, "the log").unwrap();
    let stamp = Stamp::of(&path).unwrap();
    fs::remove_file(&log).unwrap();
    assert!(copy(&path, stamp).unwrap().is_none());
}

/// What cannot be read is told as it is, and is not taken for something that went meanwhile.
#[cfg(unix)]
#[test]
fn what_cannot_be_read_is_told() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("locks.db");
    fs::write(&path, "the file").unwrap();
    let stamp = Stamp::of(&path).unwrap();
    assert!(copy(&path, stamp).unwrap().is_some());
    // A log that leads round and round.
    std::os::unix::fs::symlink("locks.db-wal", with_ending(&path, "-wal")).unwrap();
    assert!(matches!(Stamp::of(&path), Err(StoreError::Io { .. })));
    assert!(copy(&path, stamp).is_err());
    // Something else that cannot be copied.
    let folder = store.path().join("folder.db");
    fs::create_dir(&folder).unwrap();
    assert!(copy(&folder, stamp).is_err());
}

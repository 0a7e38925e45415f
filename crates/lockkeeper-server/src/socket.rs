//! The Unix socket's file: made for its owner alone, taken over from a dead server, left to a
//! living one.
//!
//! Whoever has a socket holds a lock on a file beside it for as long as it lives, so that of two
//! servers that find a stale socket only one removes it.

use crate::ServeError;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// How long a socket's path may be, in bytes: the system's field for it, without its last byte.
pub const PATH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Connections that wait until they are looked at.
const BACKLOG: i32 = 1024;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Bound {
    path: PathBuf,
    /// The file that is ours, should somebody have put another one in its place.
    file: (u64, u64),
    /// Held as long as this lives.
    _lock: File,
}

/// Makes the socket, and its folder if that is missing.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, Bound), ServeError> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > PATH_MAX {
        return Err(ServeError::PathTooLong { path: path.to_owned(), bytes, max: PATH_MAX });
    }
    look_after_folder(path)?;
    let lock = lock(path)?;
    make_room(path)?;
    let listener = listen(path).map_err(ServeError::io(format!("listen at {}", path.display())))?;
    let found = fs::symlink_metadata(path)
        .map_err(ServeError::io(format!("look at {}", path.display())))?;
    let bound = Bound { path: path.to_owned(), file: (found.dev(), found.ino()), _lock: lock };
    Ok((listener, bound))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// A folder that is missing is made for its owner alone. One that is there stays as it is, but
/// nobody else may be able to put a socket of his own in the place of ours.
fn look_after_folder(path: &Path) -> Result<(), ServeError> {
    let folder = folder_of(path);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(ServeError::io(format!("make the folder {}", folder.display())))?;
    let found = fs::metadata(folder)
        .map_err(ServeError::io(format!("look at the folder {}", folder.display())))?;
    let me = rustix::process::geteuid().as_raw();
    let wrong = |why| Err(ServeError::Folder { path: folder.to_owned(), why });
    let is_sticky = found.mode() & 0o1000 != 0;
    if found.uid() != me && found.uid() != 0 {
        return wrong("belongs to another user");
    }
    if found.mode() & 0o022 != 0 && !is_sticky {
        return wrong("can be written by other users");
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, ServeError> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let name = PathBuf::from(name);
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits();
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(i32::try_from(no_link).unwrap_or(0))
        .open(&name);
    let file = opened.map_err(ServeError::io(format!("open {}", name.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => {
            Err(ServeError::io(format!("lock {}", name.display()))(error))
        }
    }
}

/// Removes a socket at which nobody answers.
fn make_room(path: &Path) -> Result<(), ServeError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ServeError::io(format!("look at {}", path.display()))(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        // Also a full backlog is somebody.
        Ok(_) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(ServeError::InUse { path: path.to_owned() })
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(ServeError::io(format!("remove the stale socket {}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ServeError::io(format!("ask who is at {}", path.display()))(error)),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Where the system makes the file with the mode of the socket, it is never open to others, not
    // for a moment. Where it does not, the folder keeps them out.
    let _ = rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

impl Bound {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, if it is still ours.
    pub(crate) fn remove(self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/it.sock");
        (folder, path)
    }

    #[test]
    fn it_is_for_its_owner_alone() {
        let (_folder, path) = place();
        let (_listener, bound) = bind(&path).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        bound.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_one_is_taken_over_and_a_living_one_is_not() {
        let (_folder, path) = place();
        fs::create_dir(path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, _bound) = bind(&path).expect("nobody answers there");
        assert!(matches!(bind(&path), Err(ServeError::InUse { .. })), "by the lock");
        let other = path.with_file_name("other.sock");
        let _living = UnixListener::bind(&other).unwrap();
        assert!(matches!(bind(&other), Err(ServeError::InUse { .. })), "somebody answers");
        assert!(other.exists());
    }

    #[test]
    fn of_many_that_find_a_stale_one_only_one_gets_it() {
        let (_folder, path) = place();
        fs::create_dir(path.parent().unwrap()).unwrap();
        for _ in 0..20 {
            let _ = fs::remove_file(&path);
            drop(UnixListener::bind(&path).unwrap());
            let barrier = std::sync::Barrier::new(8);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            bind(&path)
                        })
                    })
                    .collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            let winners: Vec<_> = bound.iter().filter(|bound| bound.is_ok()).collect();
            assert_eq!(winners.len(), 1, "{bound:?}");
            UnixStream::connect(&path).expect("the winner can be reached");
        }
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let (_folder, path) = place();
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(ServeError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_path_that_is_too_long_is_told_so() {
        let (folder, _) = place();
        let path = folder.path().join("x".repeat(PATH_MAX));
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, ServeError::PathTooLong { max: PATH_MAX, .. }));
        assert!(error.to_string().contains(&PATH_MAX.to_string()), "{error}");
        let bytes = folder.path().as_os_str().len();
        let fits = folder.path().join("x".repeat(PATH_MAX - bytes - 1));
        let (_listener, _bound) = bind(&fits).expect("the longest one");
        UnixStream::connect(&fits).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let (_folder, path) = place();
        let folder = path.parent().unwrap();
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(bind(&path), Err(ServeError::Folder { .. })));
        fs::set_permissions(folder, Permissions::from_mode(0o1777)).unwrap();
        bind(&path).expect("where only owners may remove, it is safe");
    }

    #[test]
    fn only_the_own_file_is_removed() {
        let (_folder, path) = place();
        let (_listener, bound) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        bound.remove();
        assert!(path.exists());
    }
}

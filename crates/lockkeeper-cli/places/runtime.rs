//! Where the store and the daemon's socket are.
//!
//! - Store: `--store`, else `$LOCKKEEPER_STORE`, else `lockkeeper/locks.db` in `$XDG_STATE_HOME`,
//!   else in `~/.local/state`. It holds all projects.
//! - Socket: `--socket`, else `$LOCKKEEPER_SOCKET`, else one for each store, in a folder only its
//!   user can enter: `$XDG_RUNTIME_DIR/lockkeeper`, else `/tmp/lockkeeper-<uid>`.

use super::{SOCKET, STORE, Surroundings, walk};
use crate::{exit::Exit, trouble::Trouble};
use rustix::{fs::OFlags, process::geteuid};
use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// The longest path a Unix socket can have. Linux has room for 107 bytes and the end, macOS and the
/// BSDs for 103.
pub(crate) const SOCKET_PATH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Where the store is, absolute and free of links. Nothing is made yet.
pub(crate) fn store(around: &Surroundings, named: Option<&Path>) -> Result<PathBuf, Trouble> {
    let named = named.map(Path::to_path_buf).or(around.var(STORE).map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        None => state_folder(around)?.join("lockkeeper/locks.db"),
    };
    led(around, &path, "store")
}

fn state_folder(around: &Surroundings) -> Result<PathBuf, Trouble> {
    // A relative one is to be ignored, says the standard that names the variable.
    let absolute = |name| around.var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return Ok(state);
    }
    match absolute("HOME") {
        Some(home) => Ok(home.join(".local/state")),
        None => Err(Trouble::new(
            Exit::Config,
            "no_home",
            "there is no home folder to keep the store in: $HOME is not set",
        )
        .next(format!("name a file with --store or {STORE}"))),
    }
}

/// Where the daemon of the store listens. Nothing is made yet.
pub(crate) fn socket(
    around: &Surroundings,
    named: Option<&Path>,
    store: &Path,
) -> Result<PathBuf, Trouble> {
    let named = named.map(Path::to_path_buf).or(around.var(SOCKET).map(PathBuf::from));
    if let Some(path) = named {
        let path = led(around, &path, "socket")?;
        return match fits(&path) {
            true => Ok(path),
            false => Err(Trouble::new(
                Exit::Config,
                "socket_path_too_long",
                format!(
                    "{} has {} bytes, the path of a socket can have {SOCKET_PATH_MAX}",
                    path.display(),
                    path.as_os_str().len()
                ),
            )
            .next(format!("name a shorter one with --socket or {SOCKET}"))),
        };
    }
    let name = format!("{:016x}.sock", stable_hash(store.as_os_str().as_bytes()));
    let runtime = around.var("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|folder| folder.is_absolute() && folder.is_dir());
    let path = runtime.map(|folder| folder.join("lockkeeper").join(&name));
    // A folder that is too long to be used is as good as none.
    Ok(path.filter(|path| fits(path)).unwrap_or_else(|| own_folder().join(name)))
}

/// Where sockets go when the system has no place for them.
fn own_folder() -> PathBuf {
    PathBuf::from(format!("/tmp/lockkeeper-{}", geteuid().as_raw()))
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_MAX
}

fn led(around: &Surroundings, path: &Path, what: &str) -> Result<PathBuf, Trouble> {
    walk::lead(&around.folder, path).map_err(|error| {
        let what = format!("the {what} {} cannot be reached: {error}", path.display());
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Config,
        };
        Trouble::new(exit, "bad_place", what).next("name another place")
    })
}

/// FNV-1a. The name of a socket must be the same in every version, so it is spelled out here.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Makes a folder that only its user can enter, if it is not there.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Has a file opened only where it is, and not where a link of somebody else may lead: what we
/// write beside a store must not go into another file.
pub(crate) fn no_link(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
}

/// Whether the folder of a socket can be trusted: ours, no link, and nobody else can put a socket
/// of his own in the place of ours.
///
/// In `/tmp` anybody could have made it first, to be asked in our stead.
pub(crate) fn check_folder(folder: &Path) -> Result<(), Trouble> {
    let found = match folder.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let what = format!("{} cannot be looked at: {error}", folder.display());
            let exit = match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::NotPermitted,
                _ => Exit::Config,
            };
            return Err(Trouble::new(exit, "bad_place", what));
        }
    };
    let (mode, uid) = (found.mode(), found.uid());
    let (exit, problem) = if found.file_type().is_symlink() {
        (Exit::Config, "is a link")
    } else if !found.is_dir() {
        (Exit::Config, "is no folder")
    } else if uid != geteuid().as_raw() && uid != 0 {
        (Exit::NotPermitted, "belongs to another user")
    } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        (Exit::Config, "can be written by other users")
    } else {
        return Ok(());
    };
    let what = format!("{} {problem}, so its sockets cannot be trusted", folder.display());
    Err(Trouble::new(exit, "untrusted_folder", what)
        .next(format!("move it away, or name another place with --socket or {SOCKET}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, ffi::OsString, os::unix::fs::PermissionsExt};

    fn around(folder: &Path, variables: &[(&str, &str)]) -> Surroundings {
        let variables: HashMap<String, OsString> =
            variables.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
        Surroundings {
            variable: Box::new(move |name| variables.get(name).cloned()),
            folder: folder.to_path_buf(),
        }
    }

    #[test]
    fn the_store_is_where_the_nearest_word_says() {
        let path = |variables: &[(&str, &str)], named: Option<&str>| {
            let around = around(Path::new("/nowhere/here"), variables);
            store(&around, named.map(Path::new)).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/nowhere/ann");
        let state = ("XDG_STATE_HOME", "/nowhere/state");
        let variable = (STORE, "a.db");
        let all = [home, state, variable];
        assert_eq!(path(&all, Some("../b.db")).unwrap(), "/nowhere/b.db");
        assert_eq!(path(&all, None).unwrap(), "/nowhere/here/a.db");
        assert_eq!(path(&[home, state], None).unwrap(), "/nowhere/state/lockkeeper/locks.db");
        let default = "/nowhere/ann/.local/state/lockkeeper/locks.db";
        assert_eq!(path(&[home], None).unwrap(), default);
        assert_eq!(path(&[home, ("XDG_STATE_HOME", "state"), (STORE, "")], None).unwrap(), default);
        assert_eq!(path(&[], None).unwrap_err().exit, Exit::Config);
    }

    #[test]
    fn each_store_has_a_socket_of_its_own() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let runtime = folder.path().to_str().unwrap();
        let around = around(Path::new("/"), &[("XDG_RUNTIME_DIR", runtime)]);
        let of = |store: &str| socket(&around, None, Path::new(store)).unwrap();
        // The name is a promise: a newer version must find the daemon of an older one.
        let expected = folder.path().join("lockkeeper/cb6fcac8f1f9b2ad.sock");
        assert_eq!(of("/a/locks.db").file_name().unwrap().len(), "0123456789abcdef.sock".len());
        assert_ne!(of("/a/locks.db"), of("/b/locks.db"));
        assert_eq!(of("/a/locks.db").parent(), expected.parent());
        assert_eq!(format!("{:016x}", stable_hash(b"foobar")), "85944171f73967e8");
    }

    #[test]
    fn a_runtime_folder_that_cannot_be_used_is_none() {
        let uid = geteuid().as_raw();
        let own = format!("/tmp/lockkeeper-{uid}");
        let long = tempfile::tempdir_in("/tmp").unwrap();
        let deep = long.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        for runtime in ["/nowhere/at/all", "relative", "", deep.to_str().unwrap()] {
            let around = around(Path::new("/"), &[("XDG_RUNTIME_DIR", runtime)]);
            let path = socket(&around, None, Path::new("/a.db")).unwrap();
            assert_eq!(path.parent(), Some(Path::new(&own)), "{runtime}");
        }
        let around = around(Path::new("/"), &[]);
        let trouble = socket(&around, Some(&deep.join("s")), Path::new("/a.db")).unwrap_err();
        assert_eq!((trouble.exit, &*trouble.code), (Exit::Config, "socket_path_too_long"));
    }

    #[test]
    fn a_folder_others_could_write_to_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("mine");
        assert!(check_folder(&mine).is_ok(), "it will be made");
        make_private(&mine).unwrap();
        assert!(check_folder(&mine).is_ok());
        fs::set_permissions(&mine, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(&*check_folder(&mine).unwrap_err().code, "untrusted_folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(check_folder(&link).unwrap_err().message.contains("is a link"));
    }
}

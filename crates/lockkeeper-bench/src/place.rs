//! Where servers live while they are measured: folders that go away, and ports that are free.

use crate::trouble::Result;
use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
};
use tempfile::TempDir;

/// Names the folder in which everything is written.
pub(crate) const FOLDER: &str = "LOCKKEEPER_BENCH_DIR";

/// A folder of its own, which goes away with what it is for.
pub(crate) fn folder() -> Result<TempDir> {
    let place = env::var_os(FOLDER).map_or_else(env::temp_dir, PathBuf::from);
    // The path of a socket must be short.
    Ok(TempDir::with_prefix_in("lb", place)?)
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Where a program of this name is, also where the system hides servers.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from));
    // Debian keeps each version of Postgres in a folder of its own; the newest one is taken.
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|all| all.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_not() {
        assert!(program("sh").is_some_and(|path| path.ends_with("sh")));
        assert_eq!(program("no-such-program"), None);
    }

    #[test]
    fn folders_go_away() {
        let folder = folder().unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}

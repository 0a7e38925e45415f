//! The files of the project, by their paths from its root.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One text file.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Where the project lies.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of one file.
pub(crate) fn read(path: &str) -> File {
    let text = fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{path} cannot be read: {error}"));
    File { path: path.to_owned(), text }
}

/// Every path, directories included, in a fixed order, without what git or a build put there.
pub(crate) fn paths() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name().into_string().expect("file names are UTF-8");
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if entry.path().is_dir() && !is_foreign(&entry.path()) {
                open.push(path.clone());
                found.push(path);
            } else if entry.path().is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_foreign(folder: &Path) -> bool {
    folder.ends_with(".git") || folder.ends_with("target") || folder.join("CACHEDIR.TAG").exists()
}

/// Every Rust file.
pub(crate) fn rust_files() -> Vec<File> {
    let files: Vec<File> =
        paths().iter().filter(|path| path.ends_with(".rs")).map(|path| read(path)).collect();
    assert!(files.len() > 10, "the tree was not found, so nothing would be checked");
    files
}

/// Whether the file is part of what runs, not a test, example or benchmark.
pub(crate) fn is_production(path: &str) -> bool {
    path.starts_with("crates/lockkeeper-cli/")
        || (path.starts_with("crates/") && path.contains("/src/"))
}

/// Whether the file is part of the deciding core.
pub(crate) fn is_core(path: &str) -> bool {
    path.starts_with("crates/lockkeeper-core/src/")
}

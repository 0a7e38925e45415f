//! Where a path leads: links followed, `.` and `..` done, whether or not it exists.

use std::{
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The links one path may lead through; as many as the system allows itself.
const LINKS_MAX: usize = 40;

/// Where `path` leads, counted from `base`, which must be absolute and free of links.
///
/// As the system sees it: `..` after a link is the parent of where the link leads. From the first
/// part on that does not exist, names are taken as they are.
pub(crate) fn lead(base: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut reached = base.to_path_buf();
    let mut links = 0;
    // The next part is at the end.
    let mut ahead: Vec<Part> = parts(path);
    while let Some(part) = ahead.pop() {
        match part {
            Part::Root => reached = PathBuf::from("/"),
            Part::Up => {
                reached.pop();
            }
            Part::Name(name) => {
                reached.push(name);
                let is_link = match fs::symlink_metadata(&reached) {
                    Ok(found) => found.file_type().is_symlink(),
                    Err(error) if is_absent(&error) => false,
                    Err(error) => return Err(error),
                };
                if is_link {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::other("its links lead in a circle"));
                    }
                    let target = fs::read_link(&reached)?;
                    reached.pop();
                    ahead.extend(parts(&target));
                }
            }
        }
    }
    Ok(reached)
}

/// Absent, or below something that is no folder: then it is only a name.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

enum Part {
    Root,
    Up,
    Name(OsString),
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<Part> {
    let each = path.components().rev();
    each.filter_map(|component| match component {
        Component::RootDir | Component::Prefix(_) => Some(Part::Root),
        Component::CurDir => None,
        Component::ParentDir => Some(Part::Up),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn house() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("deep/er")).unwrap();
        fs::write(root.join("deep/er/a"), "").unwrap();
        symlink("deep/er", root.join("short")).unwrap();
        symlink("../../away", root.join("deep/er/out")).unwrap();
        symlink("ring", root.join("ring")).unwrap();
        (folder, root)
    }

    #[test]
    fn links_are_followed_as_the_system_does() {
        let (_folder, root) = house();
        let to = |path: &str| lead(&root, Path::new(path)).unwrap();
        assert_eq!(to("short/a"), root.join("deep/er/a"));
        assert_eq!(to("short/../b"), root.join("deep/b"), "the parent of where the link leads");
        assert_eq!(to("short/out/b"), root.join("away/b"), "a link to what is not there");
        assert_eq!(to("."), root);
        assert_eq!(to("/../.."), Path::new("/"));
        assert!(lead(&root, Path::new("ring/a")).is_err());
        assert_eq!(to("deep/er/a/below"), root.join("deep/er/a/below"), "a file is no folder");
    }

    proptest! {
        /// The system's own answer, where there is one.
        #[test]
        fn it_leads_where_the_system_leads(
            names in prop::collection::vec(prop::sample::select(
                vec!["deep", "er", "a", "short", "out", "..", ".", "new"]), 0..8)
        ) {
            let (_folder, root) = house();
            let path = root.join(names.join("/"));
            if let Ok(expected) = path.canonicalize() {
                prop_assert_eq!(lead(&root, Path::new(&names.join("/"))).unwrap(), expected);
            }
        }

        #[test]
        fn without_links_it_is_arithmetic(
            names in prop::collection::vec(prop::sample::select(
                vec!["x", "y", "..", ".", "z"]), 0..10)
        ) {
            let base = PathBuf::from("/nowhere/at/all");
            let mut expected = base.clone();
            for name in &names {
                match *name {
                    ".." => { expected.pop(); }
                    "." => {}
                    name => expected.push(name),
                }
            }
            prop_assert_eq!(lead(&base, Path::new(&names.join("/"))).unwrap(), expected);
        }
    }
}

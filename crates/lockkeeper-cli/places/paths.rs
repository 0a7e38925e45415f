//! Which resource a text means.
//!
//! - `type:key` with a lower-case word before the colon is taken as it is written, whatever files
//!   there may be. `file:` counts from the project's root, as it is shown everywhere.
//! - Anything else is a path, counted from the current folder. It may lead through links, need not
//!   exist, and may not leave the root.
//! - A path with a colon must begin with `./`, `../` or `/`, or exist: `src/main.rs:12` is most
//!   likely a slip, and a lock on a file of that name would protect nothing.

use super::walk;
use crate::{exit::Exit, trouble::Trouble};
use lockkeeper::{Limits, Resource, ResourceProblem};
use std::path::{Component, Path, PathBuf};

/// The resource that `text` means in `folder`, below `root`. Both are absolute and free of links.
pub(crate) fn resource(text: &str, folder: &Path, root: &Path) -> Result<Resource, Trouble> {
    if let Some(key) = text.strip_prefix("file:") {
        // Empty is refused below, with the table's own words.
        return match key.is_empty() {
            true => checked(text, Resource::file("")),
            false => file(text, Path::new(key), root, root),
        };
    }
    let says_path = ["./", "../", "/"].iter().any(|start| text.starts_with(start));
    match text.split_once(':') {
        None => file(text, Path::new(text), folder, root),
        Some(_) if says_path => file(text, Path::new(text), folder, root),
        Some((word, _)) => match text.parse::<Resource>() {
            Ok(resource) => checked(text, resource),
            Err(ResourceProblem::Type) if folder.join(text).symlink_metadata().is_ok() => {
                file(text, Path::new(text), folder, root)
            }
            Err(ResourceProblem::Type) if is_path_like(word) => Err(wrong(format!(
                "{text:?} is neither type:key nor a file that exists"
            ))
            .next(format!("leave off what follows {word:?}, or write ./{text} if you mean it"))),
            Err(problem) => Err(invalid(text, &problem)),
        },
    }
}

/// Where a path leads that is outside of `root`; `None` for everything else.
pub(crate) fn outside(text: &str, folder: &Path, root: &Path) -> Option<PathBuf> {
    let is_path = !text.is_empty()
        && (!text.contains(':') || ["./", "../", "/"].iter().any(|start| text.starts_with(start)));
    let reached = is_path.then(|| walk::lead(folder, Path::new(text)).ok()).flatten()?;
    (!reached.starts_with(root)).then_some(reached)
}

fn is_path_like(word: &str) -> bool {
    word.contains(['/', '.'])
}

fn file(text: &str, path: &Path, base: &Path, root: &Path) -> Result<Resource, Trouble> {
    if text.is_empty() {
        return Err(wrong("an empty name is no resource".to_owned())
            .next("is a variable not set? Name a path, or type:key"));
    }
    let reached = walk::lead(base, path).map_err(|error| {
        Trouble::new(Exit::Usage, "invalid_resource", format!("{text}: {error}"))
            .next("name the file by a path that can be followed")
    })?;
    let Ok(inside) = reached.strip_prefix(root) else {
        let root = root.display();
        let led = match path.components().any(|part| part == Component::ParentDir)
            || path.is_absolute()
        {
            true => String::new(),
            false => format!(" (it leads to {})", reached.display()),
        };
        return Err(wrong(format!("{text} is outside of the project{led}; its root is {root}"))
            .next("name what is elsewhere by a type of your own, for example path:/etc/hosts"));
    };
    let key = match inside.to_str() {
        Some("") => ".",
        Some(key) => key,
        None => return Err(wrong(format!("{text} leads to a name that is not UTF-8"))),
    };
    checked(text, Resource::file(key))
}

fn checked(text: &str, resource: Resource) -> Result<Resource, Trouble> {
    match resource.problem(Limits::default().key_bytes_max) {
        None => Ok(resource),
        Some(problem) => Err(invalid(text, &problem)),
    }
}

fn invalid(text: &str, problem: &ResourceProblem) -> Trouble {
    wrong(format!("{text:?} is not a resource: {problem}"))
        .next("name a path, or type:key, for example git:index")
}

fn wrong(message: String) -> Trouble {
    Trouble::new(Exit::Usage, "invalid_resource", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    fn house() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("repo");
        fs::create_dir_all(root.join("src/deep")).unwrap();
        fs::write(root.join("src/a.rs"), "").unwrap();
        fs::write(root.join("src/odd:name"), "").unwrap();
        fs::write(root.join("git:index"), "").unwrap();
        symlink("src/a.rs", root.join("link.rs")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        (folder, root)
    }

    #[test]
    fn one_file_is_one_resource_however_it_is_spelled() {
        let (_folder, root) = house();
        let absolute = root.join("src/a.rs").display().to_string();
        let below = [
            ("", "src/a.rs"),
            ("", "./src/a.rs"),
            ("", "src/../src/a.rs"),
            ("", "src//./a.rs"),
            ("", "not/there/../../src/a.rs"),
            ("", "link.rs"),
            ("", "../repo/src/a.rs"),
            ("", "file:src/a.rs"),
            ("", "file:./src/a.rs"),
            ("", &absolute),
            ("src", "a.rs"),
            ("src/deep", "../a.rs"),
            ("src/deep", "file:src/a.rs"),
        ];
        for (folder, text) in below {
            let found = resource(text, &root.join(folder), &root).unwrap();
            assert_eq!(found, Resource::file("src/a.rs"), "{text} in {folder:?}");
        }
        assert_eq!(resource(".", &root, &root).unwrap(), Resource::file("."));
        assert_eq!(resource("src/", &root, &root).unwrap(), Resource::file("src"));
        assert_eq!(resource("new", &root, &root).unwrap(), Resource::file("new"));
    }

    #[test]
    fn a_type_is_taken_as_it_is_written() {
        let (_folder, root) = house();
        for text in ["git:index", "gpu:0", "database:orders:rows", "x:../../a", "url:https://a/b"] {
            assert_eq!(resource(text, &root, &root).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_colon_in_a_path_is_never_guessed_at() {
        let (_folder, root) = house();
        let here = |text: &str| resource(text, &root, &root).map(|found| found.to_string());
        assert_eq!(here("src/odd:name").unwrap(), "file:src/odd:name", "it exists");
        assert_eq!(here("./git:index").unwrap(), "file:git:index");
        assert_eq!(here("./src/a.rs:12").unwrap(), "file:src/a.rs:12", "who insists, gets it");
        let slip = here("src/a.rs:12").unwrap_err();
        assert!(slip.message.contains("nor a file that exists"), "{slip:?}");
        assert_eq!(slip.exit, Exit::Usage);
        assert!(here("Git:index").unwrap_err().message.contains("lower-case word"));
        assert!(here("git:").unwrap_err().message.contains("empty"));
        assert!(here("").unwrap_err().message.contains("empty name"));
        assert!(here("a\nb").unwrap_err().message.contains("line break"));
        assert!(here("file:").unwrap_err().message.contains("empty"));
    }

    #[test]
    fn nobody_leaves_the_root() {
        let (_folder, root) = house();
        for text in ["../x", "src/../../x", "/etc/hosts", "etc/hosts", "file:../x", "file:/etc/x"] {
            let trouble = resource(text, &root, &root).unwrap_err();
            assert!(trouble.message.contains("outside of the project"), "{text}: {trouble:?}");
            assert_eq!((trouble.exit, trouble.code), (Exit::Usage, "invalid_resource".into()));
        }
        let link = resource("etc/hosts", &root, &root).unwrap_err();
        assert!(link.message.contains("it leads to /etc/hosts"), "{link:?}");
        // A folder whose name only begins like the root is outside, too.
        let beside = format!("{}-2/a", root.display());
        assert!(resource(&beside, &root, &root).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_resource_or_refused(text in "[a-c./: \u{e9}~-]{0,24}") {
            let root = Path::new("/nowhere/repo");
            if let Ok(found) = resource(&text, &root.join("sub"), root) {
                prop_assert!(found.problem(usize::MAX).is_none(), "{:?}", found);
            }
        }

        /// What is shown can be typed again, from anywhere.
        #[test]
        fn what_is_shown_means_itself(text in "[a-c./:]{1,16}", folder in "(/[ab]){0,3}") {
            let root = Path::new("/nowhere/repo");
            let folder = root.join(folder.trim_start_matches('/'));
            if let Ok(found) = resource(&text, &folder, root) {
                prop_assert_eq!(resource(found.as_str(), root, root).unwrap(), found.clone());
                prop_assert_eq!(resource(found.as_str(), &folder, root).unwrap(), found);
            }
        }

        /// Detours do not matter.
        #[test]
        fn detours_do_not_matter(
            names in prop::collection::vec("[a-c]{1,3}", 1..5),
            at in 0usize..5,
            detour in prop::sample::select(vec!["./", "x/../", "x/y/../../", "/"]),
        ) {
            let root = Path::new("/nowhere/repo");
            let plain = names.join("/");
            let at = at % names.len();
            let (before, after) = names.split_at(at);
            let start = before.iter().map(|name| format!("{name}/")).collect::<String>();
            // A slash at the very start would make it absolute.
            let detour = if at == 0 && detour == "/" { "./" } else { detour };
            let winding = format!("{start}{detour}{}", after.join("/"));
            prop_assert_eq!(
                resource(&winding, root, root).unwrap(),
                resource(&plain, root, root).unwrap()
            );
        }
    }
}

//! Which lock space: the repository around the current folder, one for all its worktrees; without
//! a repository the folder itself.
//!
//! Read from the files, not asked of `git`: this happens at every call, and git need not be there.

use super::walk;
use crate::{exit::Exit, trouble::Trouble};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the current folder belongs to.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Ground {
    /// The folder that stands for the lock space.
    pub(crate) project: PathBuf,
    /// What paths are counted from: the root of this worktree.
    pub(crate) root: PathBuf,
}

/// The ground of a folder, which must be absolute and free of links.
pub(crate) fn ground(folder: &Path) -> Result<Ground, Trouble> {
    for root in folder.ancestors() {
        let dot_git = root.join(".git");
        if is_git_folder(&dot_git) {
            let git = dot_git.canonicalize().unwrap_or(dot_git);
            return Ok(Ground { project: main_worktree(&git), root: root.to_path_buf() });
        }
        if dot_git.is_file() {
            let git = pointed_at(&dot_git)?;
            return Ok(Ground { project: main_worktree(&git), root: root.to_path_buf() });
        }
        // A repository without worktree, or the inside of a `.git`.
        if is_git_folder(root) {
            let project = main_worktree(root);
            return Ok(Ground { root: project.clone(), project });
        }
    }
    Ok(Ground { project: folder.to_path_buf(), root: folder.to_path_buf() })
}

/// The name of the lock space of a folder.
pub(crate) fn name_of(project: &Path) -> Result<String, Trouble> {
    project.to_str().map(str::to_owned).ok_or_else(|| {
        let what = format!("the project's folder has a name that is not UTF-8: {project:?}");
        Trouble::new(Exit::Config, "bad_project", what)
            .next("name the lock space with --project or LOCKKEEPER_PROJECT")
    })
}

/// The lock space somebody named: a folder stands for the repository it is in.
pub(crate) fn named(name: &str, folder: &Path) -> Result<String, Trouble> {
    let is_folder = matches!(name, "." | "..")
        || ["/", "./", "../"].iter().any(|start| name.starts_with(start));
    if !is_folder {
        return Ok(name.to_owned());
    }
    let reached = walk::lead(folder, Path::new(name)).ok().filter(|reached| reached.is_dir());
    match reached {
        Some(reached) => name_of(&ground(&reached)?.project),
        // A repository that is gone still has its locks, and `.` may be gone as well.
        None if name.starts_with('/') => Ok(name.to_owned()),
        None => Err(Trouble::new(
            Exit::Usage,
            "bad_project",
            format!("there is no folder {name:?}, and a name does not begin with a dot"),
        )
        .next("name a folder that exists, or any word")),
    }
}

/// As git itself decides it, in short.
fn is_git_folder(folder: &Path) -> bool {
    folder.join("HEAD").symlink_metadata().is_ok()
        && (folder.join("commondir").is_file()
            || (folder.join("objects").is_dir() && folder.join("refs").is_dir()))
}

/// The git folder a `.git` file names: that of a linked worktree, or of a submodule.
fn pointed_at(file: &Path) -> Result<PathBuf, Trouble> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let named = text.strip_prefix("gitdir:").map(str::trim).filter(|named| !named.is_empty());
    let base = file.parent().unwrap_or(Path::new("/"));
    let git = named.and_then(|named| base.join(named).canonicalize().ok());
    // To go on without it would give this worktree a lock space of its own, and two agents the same
    // file.
    git.filter(|git| is_git_folder(git)).ok_or_else(|| {
        let what = format!("{} leads to no repository", file.display());
        Trouble::new(Exit::Config, "broken_repository", what)
            .next("mend it with `git worktree repair`, or name the lock space with --project")
    })
}

/// The folder that stands for a git folder and all its worktrees.
fn main_worktree(git: &Path) -> PathBuf {
    let common = match fs::read_to_string(git.join("commondir")) {
        Ok(named) => git.join(named.trim_end()).canonicalize().unwrap_or(git.to_path_buf()),
        Err(_) => git.to_path_buf(),
    };
    // A submodule says where it is checked out; a bare repository stands for itself.
    let noted = noted_worktree(&common);
    match common.parent() {
        _ if noted.is_some() => noted.unwrap_or_default(),
        Some(parent) if common.file_name().is_some_and(|name| name == ".git") => {
            parent.to_path_buf()
        }
        _ => common,
    }
}

/// `core.worktree` of a git folder's config.
fn noted_worktree(common: &Path) -> Option<PathBuf> {
    let config = fs::read_to_string(common.join("config")).ok()?;
    let mut in_core = false;
    let mut noted = None;
    for line in config.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let name = section.split(']').next().unwrap_or_default();
            in_core = name.trim().eq_ignore_ascii_case("core");
            continue;
        }
        if let Some((key, value)) = line.split_once('=')
            && in_core
            && key.trim().eq_ignore_ascii_case("worktree")
        {
            noted = Some(value.trim().trim_matches('"').to_owned());
        }
    }
    let folder = common.join(noted?).canonicalize().ok()?;
    // A config that was copied along may name somebody else's folder.
    folder.join(".git").exists().then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A git folder as git makes them, as far as it is looked at.
    fn git_folder(path: &Path) {
        fs::create_dir_all(path.join("objects")).unwrap();
        fs::create_dir_all(path.join("refs")).unwrap();
        fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    }

    /// A linked worktree at `path` of the repository whose common folder is given.
    fn worktree(path: &Path, common: &Path, name: &str) {
        let git = common.join("worktrees").join(name);
        fs::create_dir_all(&git).unwrap();
        fs::create_dir_all(path).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/side\n").unwrap();
        fs::write(git.join("commondir"), "../..\n").unwrap();
        fs::write(path.join(".git"), format!("gitdir: {}\n", git.display())).unwrap();
    }

    fn house() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        (folder, root)
    }

    fn found(folder: &Path) -> (PathBuf, PathBuf) {
        let Ground { project, root } = ground(folder).unwrap();
        (project, root)
    }

    #[test]
    fn without_a_repository_it_is_the_folder() {
        let (_folder, root) = house();
        fs::create_dir_all(root.join("a/b")).unwrap();
        let below = root.join("a/b");
        assert_eq!(found(&below), (below.clone(), below.clone()));
        fs::create_dir(root.join("a/.git")).unwrap();
        assert_eq!(found(&below), (below.clone(), below), "an empty `.git` is none");
    }

    #[test]
    fn all_worktrees_of_a_repository_are_one_space() {
        let (_folder, root) = house();
        git_folder(&root.join("main/.git"));
        fs::create_dir_all(root.join("main/src")).unwrap();
        worktree(&root.join("side"), &root.join("main/.git"), "side");
        fs::create_dir_all(root.join("side/src")).unwrap();
        assert_eq!(found(&root.join("main/src")), (root.join("main"), root.join("main")));
        assert_eq!(found(&root.join("side/src")), (root.join("main"), root.join("side")));
        // In `.git` itself, as a hook may be.
        assert_eq!(found(&root.join("main/.git/refs")).0, root.join("main"));
    }

    #[test]
    fn a_bare_repository_stands_for_itself_and_its_worktrees() {
        let (_folder, root) = house();
        git_folder(&root.join("repo.git"));
        worktree(&root.join("side"), &root.join("repo.git"), "side");
        assert_eq!(found(&root.join("repo.git")).0, root.join("repo.git"));
        assert_eq!(found(&root.join("side")), (root.join("repo.git"), root.join("side")));
    }

    #[test]
    fn a_submodule_is_a_space_of_its_own() {
        let (_folder, root) = house();
        git_folder(&root.join("main/.git"));
        let git = root.join("main/.git/modules/sub");
        git_folder(&git);
        fs::create_dir_all(root.join("main/sub/src")).unwrap();
        fs::write(root.join("main/sub/.git"), "gitdir: ../.git/modules/sub\n").unwrap();
        let config = "[core]\n\tbare = false\n\tworktree = ../../../sub\n[user]\n\tworktree = no\n";
        fs::write(git.join("config"), config).unwrap();
        worktree(&root.join("side"), &git, "side");
        let sub = root.join("main/sub");
        assert_eq!(found(&sub.join("src")), (sub.clone(), sub.clone()));
        assert_eq!(found(&root.join("side")), (sub, root.join("side")));
        assert_eq!(found(&root.join("main")).0, root.join("main"));
    }

    #[test]
    fn a_git_folder_elsewhere_stands_for_all_its_worktrees() {
        let (_folder, root) = house();
        git_folder(&root.join("gits/one"));
        fs::create_dir_all(root.join("main")).unwrap();
        fs::write(root.join("main/.git"), "gitdir: ../gits/one").unwrap();
        worktree(&root.join("side"), &root.join("gits/one"), "side");
        assert_eq!(found(&root.join("main")).0, found(&root.join("side")).0);
    }

    #[test]
    fn a_broken_worktree_is_not_taken_for_another_space() {
        let (_folder, root) = house();
        for text in ["gitdir: /nowhere/at/all\n", "gitdir:\n", "hello\n"] {
            fs::write(root.join(".git"), text).unwrap();
            let trouble = ground(&root).unwrap_err();
            assert_eq!((trouble.exit, &*trouble.code), (Exit::Config, "broken_repository"));
        }
    }

    #[test]
    fn a_space_is_named_by_a_word_or_by_a_folder() {
        let (_folder, root) = house();
        git_folder(&root.join("main/.git"));
        fs::create_dir_all(root.join("main/src")).unwrap();
        let main = root.join("main").display().to_string();
        assert_eq!(named("demo", &root).unwrap(), "demo");
        assert_eq!(named("team/demo", &root).unwrap(), "team/demo");
        assert_eq!(named(".", &root.join("main/src")).unwrap(), main);
        assert_eq!(named("./main/src", &root).unwrap(), main);
        assert_eq!(named(&main, Path::new("/")).unwrap(), main);
        assert_eq!(named("/gone/for/good", &root).unwrap(), "/gone/for/good");
        assert_eq!(named("./gone", &root).unwrap_err().exit, Exit::Usage);
    }
}

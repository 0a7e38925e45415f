//! Where things are: the store, the socket, the project, the files, and who is asking.
//!
//! All of it follows from the flags, a few variables and the current folder, by rules that are
//! written down here and nowhere else.
//!
//! | file | answers |
//! |---|---|
//! | `agent.rs` | who asks, and which last word is an agent |
//! | `paths.rs` | which resource a text means |
//! | `project.rs` | which lock space, and which folder paths are counted from |
//! | `runtime.rs` | where the store and the socket are |
//! | `walk.rs` | where a path leads, links included |

pub(crate) mod agent;
pub(crate) mod paths;
pub(crate) mod project;
pub(crate) mod runtime;
pub(crate) mod walk;

use crate::{args::Global, exit::Exit, trouble::Trouble};
use lockkeeper::Resource;
use project::Ground;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The variables this program reads.
pub(crate) const AGENT: &str = "LOCKKEEPER_AGENT";
pub(crate) const PROJECT: &str = "LOCKKEEPER_PROJECT";
pub(crate) const STORE: &str = "LOCKKEEPER_STORE";
pub(crate) const SOCKET: &str = "LOCKKEEPER_SOCKET";
/// The session of the `lockkeeper run` this process runs under.
pub(crate) const SESSION: &str = "LOCKKEEPER_SESSION";
/// What it holds, one line for each resource.
pub(crate) const TOKEN: &str = "LOCKKEEPER_TOKEN";
pub(crate) const LOCK_ID: &str = "LOCKKEEPER_LOCK_ID";
pub(crate) const RESOURCE: &str = "LOCKKEEPER_RESOURCE";
pub(crate) const EXPIRES_AT: &str = "LOCKKEEPER_EXPIRES_AT";

type Lookup = Box<dyn Fn(&str) -> Option<OsString>>;

/// After how long a daemon that was started by itself ends when nobody needs it.
pub(crate) const IDLE_EXIT: &str = "LOCKKEEPER_IDLE_EXIT";

/// What a `lockkeeper run` tells the command it runs, and nobody else.
pub(crate) const OF_RUN: &[&str] =
    &[SESSION, PROJECT, AGENT, SOCKET, STORE, TOKEN, LOCK_ID, RESOURCE, EXPIRES_AT];

/// What the process was given: its variables and its folder. A value, so that tests can make one
/// up.
pub(crate) struct Surroundings {
    /// Looks a variable up.
    pub(crate) variable: Lookup,
    /// The current folder, without links.
    pub(crate) folder: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn real() -> Result<Surroundings, Trouble> {
        let folder = env::current_dir().and_then(|folder| folder.canonicalize());
        let folder = folder.map_err(|error| {
            Trouble::new(Exit::Config, "no_folder", format!("the current folder is gone: {error}"))
                .next("change to a folder that exists")
        })?;
        Ok(Surroundings { variable: Box::new(|name| env::var_os(name)), folder })
    }

    /// One variable; an empty one is one that was not set.
    pub(crate) fn var(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// One that must be text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Trouble> {
        let Some(value) = self.var(name) else { return Ok(None) };
        value.into_string().map(Some).map_err(|value| {
            let what = format!("${name} is not UTF-8: {}", value.to_string_lossy());
            Trouble::new(Exit::Config, "bad_variable", what).next(format!("set {name} to a text"))
        })
    }
}

/// Everything a verb needs to know of where it was called and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Here {
    /// Whether a program reads the answer.
    pub(crate) json: bool,
    /// The lock space.
    pub(crate) project: String,
    /// Who asks.
    pub(crate) agent: String,
    /// Whether somebody named the agent: a flag, a variable, a word.
    pub(crate) is_named: bool,
    /// The file that remembers.
    pub(crate) store: PathBuf,
    /// Where its daemon listens.
    pub(crate) socket: PathBuf,
    /// What bare paths are counted from.
    pub(crate) folder: PathBuf,
    /// What they may not leave.
    pub(crate) root: PathBuf,
}

impl Here {
    /// Finds it all out.
    pub(crate) fn find(global: &Global) -> Result<Here, Trouble> {
        let around = Surroundings::real()?;
        let ground = project::ground(&around.folder)?;
        Here::on(ground, &around, global)
    }

    /// The same for a verb that is about the daemon: a repository that is broken is in nobody's way
    /// then.
    pub(crate) fn anywhere(global: &Global) -> Result<Here, Trouble> {
        let around = Surroundings::real()?;
        let (project, root) = (around.folder.clone(), around.folder.clone());
        let ground = project::ground(&around.folder).unwrap_or(Ground { project, root });
        Here::on(ground, &around, global)
    }

    fn on(ground: Ground, around: &Surroundings, global: &Global) -> Result<Here, Trouble> {
        let project = match global.project.clone().or(around.text(PROJECT)?) {
            Some(name) => project::named(&name, &around.folder)?,
            None => project::name_of(&ground.project)?,
        };
        let (agent, is_named) = match global.agent.clone().or(around.text(AGENT)?) {
            Some(name) => (name, true),
            None => (agent::default_name(around), false),
        };
        let store = runtime::store(around, global.store.as_deref())?;
        let socket = runtime::socket(around, global.socket.as_deref(), &store)?;
        Ok(Here {
            json: global.json,
            project,
            agent,
            is_named,
            store,
            socket,
            folder: around.folder.clone(),
            root: ground.root,
        })
    }

    /// The resource a text means.
    pub(crate) fn resource(&self, text: &str) -> Result<Resource, Trouble> {
        paths::resource(text, &self.folder, &self.root)
    }

    /// The resources of a list, in its order.
    pub(crate) fn resources(&self, texts: &[String]) -> Result<Vec<Resource>, Trouble> {
        texts.iter().map(|text| self.resource(text)).collect()
    }

    /// For a lock file outside of the project, as scripts have them: `/var/lock/backup.lock` is one
    /// lock for whoever names it, whatever folder it is named from. So its lock space is that of
    /// the file. Several are of one space, or none of them is meant like that.
    pub(crate) fn at_lock_file(
        mut self,
        words: &[String],
        global: &Global,
    ) -> Result<(Here, Vec<String>), Trouble> {
        let outside = words.iter().map(|word| paths::outside(word, &self.folder, &self.root));
        let unchanged = |here| Ok((here, words.to_vec()));
        let Some(files) = outside.collect::<Option<Vec<PathBuf>>>() else {
            return unchanged(self);
        };
        let folders: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        let grounds = folders.iter().map(|folder| project::ground(folder));
        let grounds = grounds.collect::<Result<Vec<Ground>, Trouble>>()?;
        let [first, others @ ..] = &grounds[..] else { return unchanged(self) };
        if global.project.is_some() || others.iter().any(|other| other != first) {
            return unchanged(self);
        }
        self.project = project::name_of(&first.project)?;
        self.root.clone_from(&first.root);
        let names: Option<Vec<&str>> = files.iter().map(|file| file.to_str()).collect();
        let names = names.map(|names| names.into_iter().map(str::to_owned).collect());
        // A name that is not UTF-8 is told where all others are.
        Ok((self, names.unwrap_or_else(|| words.to_vec())))
    }

    /// Takes the last word for the agent if it is one: `acquire src/a.js AH-011`.
    pub(crate) fn last_word(
        mut self,
        mut words: Vec<String>,
        global: &Global,
    ) -> Result<(Here, Vec<String>), Trouble> {
        let named = global.agent.as_deref();
        if let Some(agent) = agent::last_word(&words, named, &self.folder)? {
            words.pop();
            self.agent = agent;
            self.is_named = true;
        }
        Ok((self, words))
    }
}

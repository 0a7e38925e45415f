//! The made-up world: projects, and in each the rooms that agents fight over.

use crate::{args::Args, room::Room, tally::Tally};
use lockkeeper::{LockManager, Resource, ResourceType};
use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

const PROJECTS: &[&str] =
    &["checkout", "search", "billing", "mobile", "mailer", "catalog", "ledger", "website"];

const FILES: &[&str] = &[
    "lib.rs",
    "api.rs",
    "parser.rs",
    "store.rs",
    "auth.rs",
    "routes.rs",
    "jobs.rs",
    "cache.rs",
    "mail.rs",
    "search.rs",
    "export.rs",
    "health.rs",
];

/// Everything that agents share.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) sites: Vec<Arc<Site>>,
    open: AtomicBool,
    surprises: Mutex<Vec<String>>,
}

/// One project.
pub(crate) struct Site {
    pub(crate) name: String,
    /// What is locked alone, or shared by readers.
    pub(crate) rooms: Vec<Arc<Room>>,
    /// Language models, whose slots are handed out as permits.
    pub(crate) models: Vec<Arc<Room>>,
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(args: &Args) -> Arc<World> {
        let sites = (0..args.projects).map(|at| Arc::new(Site::new(at))).collect();
        let (open, surprises) = (AtomicBool::new(true), Mutex::default());
        Arc::new(World { seed: args.seed, sites, open, surprises })
    }

    /// Declares how many slots the models have.
    pub(crate) async fn prepare(&self, manager: &LockManager) -> Result<(), Box<dyn Error>> {
        for site in &self.sites {
            let project = manager.project(&site.name).await?;
            for model in &site.models {
                project.declare_capacity(model.resource.clone(), model.capacity).await?;
            }
        }
        Ok(())
    }

    /// Whether agents should take up more work.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// Something that must not happen, and is no matter of who is inside.
    pub(crate) fn surprise(&self, what: String) {
        self.surprises.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// All that went wrong, in words. Nothing, if the locks are locks.
    pub(crate) fn problems(&self) -> Vec<String> {
        let surprises = self.surprises.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = surprises.clone();
        for site in &self.sites {
            for room in site.all_rooms() {
                let told = room.problems();
                problems.extend(told.into_iter().map(|what| format!("{}: {what}", site.name)));
                if room.left_inside() > 0 {
                    let what = format!("somebody is still inside {}", room.resource);
                    problems.push(format!("{}: {what}", site.name));
                }
            }
        }
        problems
    }
}

impl Site {
    fn new(at: usize) -> Site {
        let name = match (PROJECTS[at % PROJECTS.len()], at / PROJECTS.len()) {
            (name, 0) => name.to_owned(),
            (name, again) => format!("{name}-{}", again + 1),
        };
        let files = FILES.iter().map(|file| Resource::file(&format!("src/{file}")));
        let others = [
            Resource::database("main"),
            Resource::database("tests"),
            Resource::new(ResourceType::from("git"), "index"),
        ];
        let models = [(Resource::llm("large"), Some(2)), (Resource::llm("small"), Some(5))];
        Site {
            name,
            rooms: files.chain(others).map(|one| Room::new(one, None)).collect(),
            models: models.into_iter().map(|(one, slots)| Room::new(one, slots)).collect(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn all_rooms(&self) -> impl Iterator<Item = &Arc<Room>> {
        self.rooms.iter().chain(&self.models)
    }
}

//! Who listens to events, and how far each has heard.
//!
//! Nothing is queued for a listener: it remembers the number of the last event it was told of each
//! project, and which projects have news. So replay and what happens now are one and the same, in
//! order, and a slow listener costs others nothing; what has left the ring meanwhile it has missed.

use crate::ring::{Follows, Kept, Rings};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;

/// One listener.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    is_entered: AtomicBool,
    heard: Mutex<Heard>,
    pub(crate) bell: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    to_all: bool,
    /// The last event told, by project.
    told: HashMap<Arc<str>, u64>,
    /// Projects with news, each once.
    news: VecDeque<Arc<str>>,
}

/// What a listener is told next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Told {
    /// An event.
    Event(Arc<Kept>),
    /// So many events of a project are not kept any more.
    Missed {
        /// Which project.
        project: Arc<str>,
        /// How many.
        missed: u64,
    },
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is in the list of those that hear; it is from now on.
    pub(crate) fn is_entered(&self) -> bool {
        self.is_entered.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn listens(&self) -> bool {
        let heard = self.lock();
        heard.to_all || !heard.told.is_empty()
    }

    /// From now on to everything.
    pub(crate) fn to_all(&self) {
        self.lock().to_all = true;
    }

    /// To a project, from behind the event of this number.
    pub(crate) fn to(&self, project: &Arc<str>, after: u64) {
        let mut heard = self.lock();
        heard.told.insert(project.clone(), after);
        heard.has_news(project);
        drop(heard);
        self.bell.notify_one();
    }

    pub(crate) fn to_none(&self) {
        *self.lock() = Heard::default();
    }

    /// An event of this number is in the ring.
    pub(crate) fn event(&self, project: &Arc<str>, seq: u64, follows: Follows) {
        let mut heard = self.lock();
        let to_all = heard.to_all;
        match heard.told.get_mut(project) {
            // Otherwise a listener that is at least that far has read it in the ring already.
            Some(told) if follows == Follows::Anew && *told >= seq => *told = seq - 1,
            Some(_) => {}
            None if to_all => {
                heard.told.insert(project.clone(), seq - 1);
            }
            None => return,
        }
        if heard.has_news(project) {
            drop(heard);
            self.bell.notify_one();
        }
    }

    /// What to tell next; none when everything is told.
    pub(crate) fn next(&self, rings: &Rings) -> Option<Told> {
        let mut heard = self.lock();
        loop {
            let project = heard.news.front()?.clone();
            let told = heard.told.get_mut(&project)?;
            match rings.after(&project, *told) {
                Some(kept) => {
                    let seq = kept.event().event.seq;
                    let missed = seq - *told - 1;
                    if missed > 0 {
                        *told = seq - 1;
                        return Some(Told::Missed { project, missed });
                    }
                    *told = seq;
                    return Some(Told::Event(kept));
                }
                None => {
                    heard.news.pop_front();
                }
            }
        }
    }
}

impl Heard {
    /// Whether that is news.
    fn has_news(&mut self, project: &Arc<str>) -> bool {
        let is_news = !self.news.contains(project);
        if is_news {
            self.news.push_back(project.clone());
        }
        is_news
    }
}

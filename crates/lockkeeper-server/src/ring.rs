//! The latest events of each project, so that whoever was away can be told what happened
//! meanwhile, and whoever listens slowly costs no memory of its own.

use foldhash::quality::RandomState;
use lockkeeper::ProjectEvent;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// An event, and how it is written, once somebody wants it written.
#[derive(Debug)]
pub struct Kept {
    event: Arc<ProjectEvent>,
    json: OnceLock<Box<str>>,
}

impl Kept {
    /// The event.
    pub fn event(&self) -> &Arc<ProjectEvent> {
        &self.event
    }

    /// The event as JSON, written once for all who hear it.
    pub fn json(&self) -> &str {
        self.json.get_or_init(|| {
            let written = serde_json::to_string(&*self.event);
            // It is made of numbers and text. Should that ever change, a hole is better than none.
            written.unwrap_or_else(|_| "null".to_owned()).into()
        })
    }

    fn seq(&self) -> u64 {
        self.event.event.seq
    }
}

/// How an event follows the last one of its project.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Follows {
    /// It is the next.
    Next,
    /// Some between them are missing.
    Gap,
    /// The numbers have begun anew: locks in memory whose actor died.
    Anew,
}

/// The latest events of one project, by their numbers. There are gaps where some were missed.
#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Kept>>,
    last: u64,
}

/// The rings of all projects.
#[derive(Debug)]
pub(crate) struct Rings {
    max: usize,
    rings: Mutex<HashMap<Arc<str>, Ring, RandomState>>,
}

impl Rings {
    pub(crate) fn new(max: usize) -> Rings {
        Rings { max: max.max(1), rings: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Ring, RandomState>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next event in.
    pub(crate) fn push(&self, event: Arc<ProjectEvent>) -> Follows {
        let mut rings = self.lock();
        let ring = match rings.get_mut(&event.project_id) {
            Some(ring) => ring,
            None => rings.entry(event.project_id.clone()).or_default(),
        };
        let seq = event.event.seq;
        let follows = match ring.last {
            0 => Follows::Next,
            last if seq <= last => Follows::Anew,
            last if seq == last + 1 => Follows::Next,
            _ => Follows::Gap,
        };
        if follows == Follows::Anew {
            ring.kept.clear();
        }
        ring.last = seq;
        ring.kept.push_back(Arc::new(Kept { event, json: OnceLock::new() }));
        if ring.kept.len() > self.max {
            ring.kept.pop_front();
        }
        follows
    }

    /// The first event that is kept.
    pub(crate) fn first(&self, project: &str) -> Option<u64> {
        self.lock().get(project)?.kept.front().map(|kept| kept.seq())
    }

    /// The next event after the one of this number, if there is one.
    pub(crate) fn after(&self, project: &str, seq: u64) -> Option<Arc<Kept>> {
        let rings = self.lock();
        let ring = rings.get(project)?;
        let at = ring.kept.partition_point(|kept| kept.seq() <= seq);
        ring.kept.get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockkeeper_core::{EndCause, Event, News, SessionId, Timestamp};

    fn event(seq: u64) -> Arc<ProjectEvent> {
        let session = SessionId::from_u64(1);
        let news = News::SessionEnded { session, agent: "a".into(), cause: EndCause::Closed };
        let event = Event { seq, at: Timestamp(0), news };
        Arc::new(ProjectEvent { project_id: "p".into(), event })
    }

    #[test]
    fn it_keeps_the_latest_and_knows_its_gaps() {
        let rings = Rings::new(3);
        let next = |seq| rings.after("p", seq).map(|kept| kept.seq());
        assert_eq!((next(0), rings.first("p")), (None, None));
        let follows = [4, 5, 8, 9, 9].map(|seq| rings.push(event(seq)));
        use Follows::{Anew, Gap, Next};
        assert_eq!(follows, [Next, Next, Gap, Next, Anew]);
        let rings = Rings::new(3);
        let next = |seq| rings.after("p", seq).map(|kept| kept.seq());
        for seq in [1, 2, 5, 6] {
            rings.push(event(seq));
        }
        assert_eq!(rings.first("p"), Some(2));
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(next).map(|n| n.unwrap_or(0)), [2, 2, 5, 5, 5, 6, 0]);
        assert_eq!(rings.after("q", 0).map(|kept| kept.seq()), None);
    }

    #[test]
    fn numbers_that_begin_anew_begin_a_new_history() {
        let rings = Rings::new(9);
        for seq in [1, 2, 3, 1] {
            rings.push(event(seq));
        }
        assert_eq!(rings.first("p"), Some(1));
        assert_eq!(rings.after("p", 0).unwrap().seq(), 1);
        assert!(rings.after("p", 1).is_none());
    }
}

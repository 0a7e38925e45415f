//! Events, as they are heard: what happened, in which project, and how much was missed.

use lockkeeper_core::Event;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, fmt, sync::Arc};
use tokio::sync::broadcast;

/// An event and the project it happened in. As JSON it is one flat object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProjectEvent {
    /// In which project.
    pub project_id: Arc<str>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a subscriber hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Heard {
    /// The next event.
    Event(Arc<ProjectEvent>),
    /// The subscriber was too slow, and so many events are gone. The locks do not wait for it;
    /// the audit log has them all.
    Missed(u64),
}

/// A subscription. It hears everything from the moment it was made, in order, project by project.
pub struct Events {
    heard: broadcast::Receiver<Arc<ProjectEvent>>,
    project: Option<Arc<str>>,
    /// What comes from afar may have lost some on the way: the last number of each project.
    far: Option<HashMap<Arc<str>, u64>>,
    /// An event behind a gap, until the gap is told.
    kept: Option<Arc<ProjectEvent>>,
}

impl Events {
    pub(crate) fn new(
        heard: broadcast::Receiver<Arc<ProjectEvent>>,
        project: Option<Arc<str>>,
    ) -> Events {
        Events { heard, project, far: None, kept: None }
    }

    /// From a daemon: what is lost with a connection shows in the numbers.
    #[cfg(feature = "remote")]
    pub(crate) fn far(
        heard: broadcast::Receiver<Arc<ProjectEvent>>,
        project: Option<Arc<str>>,
    ) -> Events {
        Events { heard, project, far: Some(HashMap::new()), kept: None }
    }

    /// Waits for the next one; `None` when the manager is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        if let Some(event) = self.kept.take() {
            return Some(Heard::Event(event));
        }
        loop {
            match self.heard.recv().await {
                Ok(event) => {
                    if let Some(heard) = self.hear(event) {
                        return Some(heard);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Some(self.lagged(missed));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next one, if it has happened already.
    pub fn try_next(&mut self) -> Option<Heard> {
        if let Some(event) = self.kept.take() {
            return Some(Heard::Event(event));
        }
        loop {
            match self.heard.try_recv() {
                Ok(event) => {
                    if let Some(heard) = self.hear(event) {
                        return Some(heard);
                    }
                }
                Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                    return Some(self.lagged(missed));
                }
                Err(_) => return None,
            }
        }
    }

    fn lagged(&mut self, missed: u64) -> Heard {
        // Told now: the numbers must not tell it again.
        if let Some(far) = &mut self.far {
            far.clear();
        }
        Heard::Missed(missed)
    }

    /// An event, or first how many before it are gone. What was heard before is not heard again.
    fn hear(&mut self, event: Arc<ProjectEvent>) -> Option<Heard> {
        if !self.concerns(&event) {
            return None;
        }
        let Some(far) = &mut self.far else { return Some(Heard::Event(event)) };
        let seq = event.event.seq;
        match far.insert(event.project_id.clone(), seq) {
            Some(last) if seq <= last => {
                far.insert(event.project_id.clone(), last);
                None
            }
            Some(last) if seq > last + 1 => {
                self.kept = Some(event);
                Some(Heard::Missed(seq - last - 1))
            }
            _ => Some(Heard::Event(event)),
        }
    }

    fn concerns(&self, event: &ProjectEvent) -> bool {
        self.project.as_ref().is_none_or(|project| *project == event.project_id)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("project", &self.project).finish_non_exhaustive()
    }
}

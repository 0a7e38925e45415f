//! Events, as they are heard: what happened, in which project, and how much was missed.

use lockkeeper_core::Event;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
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
}

impl Events {
    pub(crate) fn new(
        heard: broadcast::Receiver<Arc<ProjectEvent>>,
        project: Option<Arc<str>>,
    ) -> Events {
        Events { heard, project }
    }

    /// Waits for the next one; `None` when the manager is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.heard.recv().await {
                Ok(event) if self.concerns(&event) => return Some(Heard::Event(event)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Some(Heard::Missed(missed));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next one, if it has happened already.
    pub fn try_next(&mut self) -> Option<Heard> {
        loop {
            match self.heard.try_recv() {
                Ok(event) if self.concerns(&event) => return Some(Heard::Event(event)),
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                    return Some(Heard::Missed(missed));
                }
                Err(_) => return None,
            }
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

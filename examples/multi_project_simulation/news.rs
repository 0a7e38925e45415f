//! What the projects tell while they work: their events, heard and counted.

use crate::world::World;
use lockkeeper::{DeadlockReport, EdgeKind, Events, Heard, LockManager, News, Participant};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

/// So many participants of a deadlock are shown; the rest are counted.
const SHOWN_MAX: usize = 6;

/// Everything that was heard, project by project.
pub(crate) struct Chronicle {
    events: Events,
    pub(crate) told: BTreeMap<Arc<str>, Told>,
    pub(crate) latest: Option<Picture>,
    /// Pictures nobody has looked at yet: the first few only.
    fresh: Vec<Picture>,
    pictures_wanted: usize,
    /// Events that are gone because nobody listened in time. The counts are incomplete then.
    pub(crate) missed: u64,
}

/// What one project told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) by_length: BTreeMap<usize, u64>,
    pub(crate) victims: BTreeSet<Arc<str>>,
    pub(crate) expired: u64,
    pub(crate) revoked: u64,
}

impl Told {
    pub(crate) fn deadlocks(&self) -> u64 {
        self.by_length.values().sum()
    }
}

/// A deadlock to look at.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) lines: Vec<String>,
}

impl Chronicle {
    /// Listens from now on, and keeps the first few pictures.
    pub(crate) fn start(manager: &LockManager, world: &World, pictures: usize) -> Chronicle {
        let names = world.sites.iter().map(|site| Arc::from(site.name.as_str()));
        Chronicle {
            events: manager.subscribe(),
            told: names.map(|name| (name, Told::default())).collect(),
            latest: None,
            fresh: Vec::new(),
            pictures_wanted: pictures,
            missed: 0,
        }
    }

    /// Takes in what has happened since the last time.
    pub(crate) fn catch_up(&mut self) {
        while let Some(heard) = self.events.try_next() {
            let happened = match heard {
                Heard::Event(happened) => happened,
                Heard::Missed(count) => {
                    self.missed += count;
                    continue;
                }
            };
            let told = self.told.entry(happened.project_id.clone()).or_default();
            match &happened.event.news {
                News::Expired(_) => told.expired += 1,
                News::Revoked(_) => told.revoked += 1,
                News::Deadlock { report } => {
                    *told.by_length.entry(report.participants.len()).or_default() += 1;
                    told.victims.extend(report.victim().map(|victim| victim.rank.agent.clone()));
                    let number = self.deadlocks();
                    let picture = Picture::of(report, &happened.project_id, number);
                    if self.pictures_wanted > 0 {
                        self.pictures_wanted -= 1;
                        self.fresh.push(picture.clone());
                    }
                    self.latest = Some(picture);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn deadlocks(&self) -> u64 {
        self.told.values().map(Told::deadlocks).sum()
    }

    pub(crate) fn fresh_pictures(&mut self) -> Vec<Picture> {
        std::mem::take(&mut self.fresh)
    }
}

impl Picture {
    fn of(report: &DeadlockReport, project: &str, number: u64) -> Picture {
        let ring = &report.participants;
        let mut lines =
            vec![format!("deadlock {number}, in {project}: {} wait in a ring", ring.len())];
        let shown = match ring.len() {
            all if all <= SHOWN_MAX => all,
            _ => SHOWN_MAX - 1,
        };
        for (at, one) in ring.iter().enumerate() {
            let next = &ring[(at + 1) % ring.len()].rank.agent;
            let is_victim = one.rank.session == report.victim;
            // The last closes the ring, and the victim is why it is told: both are always shown.
            if at + 1 >= shown && at + 1 < ring.len() && !is_victim {
                continue;
            }
            let edge = match at {
                0 => "╭▸",
                _ if at + 1 == ring.len() => "╰─",
                _ => "│ ",
            };
            lines.push(format!("  {edge} {}", tell(one, next, is_victim, report)));
        }
        let hidden = ring.len() + 1 - lines.len();
        if hidden > 0 {
            lines.insert(lines.len() - 1, format!("  │  … and {hidden} more"));
        }
        Picture { lines }
    }
}

fn tell(one: &Participant, next: &str, is_victim: bool, report: &DeadlockReport) -> String {
    let wanted = one.resource.as_ref().map_or("a word", |resource| resource.as_str());
    let how = match one.edge {
        EdgeKind::Hard | EdgeKind::Permit => "held by",
        EdgeKind::Soft => "behind",
        EdgeKind::Declared => "of",
    };
    // Who waits for what it holds is a reader that wants to write.
    let has_it = one.holds.iter().any(|held| Some(&held.resource) == one.resource.as_ref());
    let what = if has_it { "to write" } else { "for" };
    let mut line = format!(
        "{:<12}waits {:>4} ms {:<28} {:<20}",
        one.rank.agent,
        one.waiting_ms,
        format!("{what} {wanted}"),
        format!("{how} {next}")
    );
    if is_victim {
        let freed = one.holds.iter().filter(|held| report.freed.contains(&held.lock));
        let freed: Vec<&str> = freed.map(|held| held.resource.as_str()).collect();
        line.push_str("✗ gives way");
        if !freed.is_empty() {
            // Writing into a string cannot fail.
            let _ = write!(line, ", loses {}", freed.join(" and "));
        }
    }
    line.trim_end().to_owned()
}

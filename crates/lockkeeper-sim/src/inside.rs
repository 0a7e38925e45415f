//! Counts who is inside: from the records alone, with no rule but arithmetic.

use crate::{Checked, Invariant, Violation, ensure};
use lockkeeper_core::{Fact, LockId, LockMode, Record, Resource, SessionId, Token};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everybody who is inside some resource, and the worst that was seen.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    holders: BTreeMap<LockId, Insider>,
    capacities: BTreeMap<Resource, u32>,
    /// The most who were inside any resource together with somebody exclusive. One, or all is lost.
    pub exclusive_max: u64,
    /// The most readers and updaters together.
    pub shared_max: u64,
    /// The most permits in use at a grant, and the capacity then.
    pub permits_max: (u64, u64),
    /// The most inside each resource.
    pub most: BTreeMap<Resource, Most>,
}

/// The most who were inside one resource at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Most {
    /// Together with somebody exclusive, who counts as well: 1, or all is lost.
    pub exclusive: u64,
    /// Readers and updaters.
    pub shared: u64,
    /// Permits.
    pub permits: u64,
}

impl Most {
    /// The worse of two, each for itself.
    pub fn or(self, other: Most) -> Most {
        Most {
            exclusive: self.exclusive.max(other.exclusive),
            shared: self.shared.max(other.shared),
            permits: self.permits.max(other.permits),
        }
    }
}

/// One who is inside.
#[derive(Clone, Debug)]
pub struct Insider {
    /// What it is in.
    pub resource: Resource,
    /// Whose.
    pub session: SessionId,
    /// How.
    pub mode: LockMode,
    /// With which token.
    pub token: Token,
    /// In which slots, where there are slots.
    pub slots: Vec<u32>,
}

impl Inside {
    /// Who holds this, if it is still held.
    pub fn get(&self, lock: LockId) -> Option<&Insider> {
        self.holders.get(&lock)
    }

    /// Everybody inside a resource.
    pub fn of<'a>(&'a self, resource: &'a Resource) -> impl Iterator<Item = &'a Insider> {
        self.holders.values().filter(move |insider| insider.resource == *resource)
    }

    /// Lets everybody in and out as the records say.
    pub fn see(&mut self, records: &[Record]) -> Checked {
        for record in records {
            match &record.fact {
                Fact::Granted(granted) => {
                    let insider = Insider {
                        resource: granted.resource.clone(),
                        session: granted.session,
                        mode: granted.mode,
                        token: granted.token,
                        slots: granted.slots.clone(),
                    };
                    self.holders.insert(granted.lock, insider);
                    self.count(&granted.resource)?;
                }
                Fact::Converted { lock, mode, token, .. } => {
                    if let Some(insider) = self.holders.get_mut(lock) {
                        insider.mode = *mode;
                        insider.token = *token;
                        if let LockMode::Permit(left) = mode {
                            insider.slots.truncate(*left as usize);
                        }
                        let resource = insider.resource.clone();
                        self.count(&resource)?;
                    }
                }
                Fact::Released { lock, remaining: 0, .. } => {
                    self.holders.remove(lock);
                }
                Fact::CapacityDeclared { resource, capacity } => {
                    match capacity {
                        Some(slots) => self.capacities.insert(resource.clone(), *slots),
                        None => self.capacities.remove(resource),
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, resource: &Resource) -> Result<(), Violation> {
        let (mut all, mut exclusive, mut permits) = (0, 0, 0);
        for insider in self.holders.values().filter(|one| one.resource == *resource) {
            all += 1;
            match insider.mode {
                LockMode::Exclusive => exclusive += 1,
                LockMode::Permit(n) => permits += u64::from(n),
                LockMode::Shared | LockMode::Update => {}
            }
        }
        let capacity = u64::from(self.capacities.get(resource).copied().unwrap_or(0));
        let now = Most {
            exclusive: if exclusive > 0 { all } else { 0 },
            shared: if exclusive == 0 && permits == 0 { all } else { 0 },
            permits,
        };
        self.exclusive_max = self.exclusive_max.max(now.exclusive);
        self.shared_max = self.shared_max.max(now.shared);
        let most = self.most.entry(resource.clone()).or_default();
        *most = most.or(now);
        if permits > self.permits_max.0 {
            self.permits_max = (permits, capacity);
        }
        ensure(exclusive == 0 || all == 1, Invariant::I1, || {
            format!("{all} are inside {resource}, {exclusive} of them exclusive")
        })
    }
}

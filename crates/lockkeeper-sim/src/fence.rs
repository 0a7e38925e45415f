//! A protected resource that sees only tokens, and rejects what is outdated.

use crate::{Checked, Invariant, ensure, inside::Inside};
use lockkeeper_core::{Grant, LockMode, Resource, Token};
use std::collections::BTreeMap;

/// The registers behind all resources, one for each slot where there are slots.
#[derive(Clone, Debug, Default)]
pub struct Fences {
    highest: BTreeMap<(Resource, u32), Token>,
    /// Writes that went through.
    pub accepted: u64,
    /// Writes that bounced because a newer token had been seen.
    pub rejected: u64,
}

impl Fences {
    /// Somebody who believes to hold it touches the resource with its token.
    pub fn touch(&mut self, grant: &Grant, inside: &Inside) -> Checked {
        let slots = if grant.slots.is_empty() { &[0][..] } else { &grant.slots };
        for slot in slots {
            self.touch_one(grant, *slot, inside)?;
        }
        Ok(())
    }

    fn touch_one(&mut self, grant: &Grant, slot: u32, inside: &Inside) -> Checked {
        let highest = self.highest.entry((grant.resource.clone(), slot)).or_insert(grant.token);
        let accepted = grant.token >= *highest;
        let seen = *highest;
        *highest = seen.max(grant.token);
        match accepted {
            true => self.accepted += 1,
            false => self.rejected += 1,
        }
        // A slot that was given back is not its any more, although the token stays.
        let counted = matches!(grant.mode, LockMode::Permit(_));
        let insider = inside.get(grant.lock).filter(|insider| {
            insider.token == grant.token && (!counted || insider.slots.contains(&slot))
        });
        if insider.is_some() {
            return ensure(accepted, Invariant::I3, || {
                format!("the holder of {} has {}, but {seen} was seen", grant.resource, grant.token)
            });
        }
        // A latecomer: harmless until a newer holder whom it conflicts with has shown itself.
        let newer = inside.of(&grant.resource).find(|other| {
            let conflicts = !counted && other.mode.conflicts_with(grant.mode);
            conflicts && other.token == seen && other.token != grant.token
        });
        ensure(!accepted || newer.is_none(), Invariant::I4, || {
            format!("{} writes to {} with {} after {seen}", grant.lock, grant.resource, grant.token)
        })
    }
}

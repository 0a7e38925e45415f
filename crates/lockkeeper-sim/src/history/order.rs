//! I1, I2, I3, I5: who held what, when, and with which token.
//!
//! Conflicting holds of one resource have tokens in the order in which they were granted. So they
//! are sorted by token, and of all earlier ones only the one that was held longest matters: it must
//! be over when the next one is granted. Tokens, in turn, must be in the order of time wherever
//! time is sure. Both are one sort and one sweep.

use super::{Capacities, Hold, Story, read::Seconds};
use crate::{Checked, Invariant, broken, ensure};
use lockkeeper_core::{LockMode, Resource, Token};
use std::collections::{BTreeMap, HashMap};

/// What stands in the way of what: permits of one slot exclude each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Shared = 0,
    Update = 1,
    Alone = 2,
}

const SIDES: [Side; 3] = [Side::Shared, Side::Update, Side::Alone];

fn side(mode: LockMode) -> Side {
    match mode {
        LockMode::Shared => Side::Shared,
        LockMode::Update => Side::Update,
        LockMode::Exclusive | LockMode::Permit(_) => Side::Alone,
    }
}

fn conflict(a: Side, b: Side) -> bool {
    !matches!((a, b), (Side::Shared, Side::Shared | Side::Update) | (Side::Update, Side::Shared))
}

/// One that stays below a certain rank, for each side.
type Best<'a> = [Option<&'a Hold>; 3];

pub(super) fn check(story: &Story, capacities: &Capacities) -> Checked {
    tokens_are_unique(story)?;
    for (resource, holds) in story.by_resource() {
        let mut slots: BTreeMap<u32, Vec<&Hold>> = BTreeMap::new();
        for hold in &holds {
            match hold.mode {
                LockMode::Permit(wanted) => {
                    let capacity = capacities.get(&resource).copied().unwrap_or(0);
                    fits(hold, wanted, capacity)?;
                    hold.slots.iter().for_each(|slot| slots.entry(*slot).or_default().push(hold));
                }
                // All in one room.
                _ => slots.entry(0).or_default().push(hold),
            }
        }
        permits_fit(&resource, &holds, capacities)?;
        for holds in slots.into_values() {
            // First what is surely wrong with the tokens: the other one goes by them.
            by_time(&holds)?;
            by_token(&holds)?;
        }
    }
    Ok(())
}

/// I2: nobody was given what another one has, save readers of one phase.
fn tokens_are_unique(story: &Story) -> Checked {
    let mut seen: HashMap<Token, &Hold> = HashMap::new();
    let mut locks: HashMap<_, &Hold> = HashMap::new();
    for hold in &story.holds {
        if let Some(other) = locks.insert(hold.lock, hold) {
            return broken(Invariant::I2, format!("one lock was granted twice: {other}; {hold}"));
        }
        let Some(other) = seen.insert(hold.token, hold) else { continue };
        let shares = |hold: &Hold| side(hold.mode) != Side::Alone;
        let is_phase = shares(hold) && shares(other) && hold.resource == other.resource;
        ensure(is_phase, Invariant::I2, || format!("two have one token: {other}; {hold}"))?;
    }
    Ok(())
}

/// I1: so many slots as were asked for, and only such as there are.
fn fits(hold: &Hold, wanted: u32, capacity: u32) -> Checked {
    let mut slots = hold.slots.clone();
    slots.sort_unstable();
    slots.dedup();
    let fits = slots.len() == wanted as usize && slots.iter().all(|slot| *slot < capacity);
    ensure(fits, Invariant::I1, || {
        format!("slots {:?} for {wanted} permits of {capacity}: {hold}", hold.slots)
    })
}

/// I1: never more permits in use than there are.
fn permits_fit(resource: &Resource, holds: &[&Hold], capacities: &Capacities) -> Checked {
    let Some(capacity) = capacities.get(resource) else { return Ok(()) };
    let mut steps: Vec<(u64, i64, &Hold)> = Vec::new();
    for hold in holds.iter().filter(|hold| hold.end > hold.start) {
        let LockMode::Permit(wanted) = hold.mode else { continue };
        steps.push((hold.start, i64::from(wanted), hold));
        steps.push((hold.end, -i64::from(wanted), hold));
    }
    // Who leaves at a moment leaves before others come.
    steps.sort_by_key(|(at, change, _)| (*at, *change));
    let mut used = 0;
    for (_, change, hold) in steps {
        used += change;
        ensure(used <= i64::from(*capacity), Invariant::I1, || {
            format!("{used} of {capacity} permits are in use when {hold}")
        })?;
    }
    Ok(())
}

/// I1 and I3: whoever has a smaller token is gone when a conflicting one is granted.
fn by_token(holds: &[&Hold]) -> Checked {
    let mut sorted = holds.to_vec();
    sorted.sort_by_key(|hold| (hold.token, hold.start));
    let mut longest: Best<'_> = [None; 3];
    for hold in sorted {
        let mine = side(hold.mode);
        for other in SIDES.into_iter().filter(|other| conflict(mine, *other)) {
            let Some(earlier) = longest[other as usize] else { continue };
            if earlier.end > hold.start {
                // What the service itself acknowledged is its own contradiction.
                let invariant =
                    if earlier.proven > hold.start { Invariant::I1 } else { Invariant::I3 };
                let message = format!("two are inside: {earlier}, and {hold}");
                return broken(invariant, message);
            }
        }
        let best = &mut longest[mine as usize];
        if best.is_none_or(|best| best.end < hold.end) {
            *best = Some(hold);
        }
    }
    Ok(())
}

/// I2 and I5: what was asked for after another grant was known has a larger token.
fn by_time(holds: &[&Hold]) -> Checked {
    let mut asked = holds.to_vec();
    asked.sort_by_key(|hold| hold.asked);
    let mut known = holds.to_vec();
    known.sort_by_key(|hold| hold.start);
    let mut known = known.into_iter().peekable();
    let mut newest: Best<'_> = [None; 3];
    for hold in asked {
        while let Some(earlier) = known.next_if(|earlier| earlier.start < hold.asked) {
            let best = &mut newest[side(earlier.mode) as usize];
            if best.is_none_or(|best| best.token < earlier.token) {
                *best = Some(earlier);
            }
        }
        for other in SIDES {
            let Some(earlier) = newest[other as usize] else { continue };
            let mine = side(hold.mode);
            // Readers and updaters of one phase share a token.
            let may_share = mine != Side::Alone && other != Side::Alone;
            let grows = earlier.token < hold.token || may_share && earlier.token == hold.token;
            let was_released = earlier.released_at.is_some_and(|at| at < hold.asked);
            let invariant = if was_released { Invariant::I5 } else { Invariant::I2 };
            ensure(grows, invariant, || match earlier.released_at.filter(|_| was_released) {
                Some(at) => format!(
                    "the token does not grow: {earlier}, and its release was acknowledged at {}; \
                     then {hold}",
                    Seconds(at)
                ),
                None => format!("the token does not grow: {earlier}; then {hold}"),
            })?;
        }
    }
    Ok(())
}

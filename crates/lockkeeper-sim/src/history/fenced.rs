//! I3, I4: what the resources behind the locks let in.
//!
//! A register shows what was written last. Its operations are sorted by token; a call without an
//! answer may have been done at any time until a larger token was let in, or never.

use super::{Hold, Story, Touch, TouchOutcome, read::Seconds};
use crate::{Checked, Invariant, broken, ensure};
use lockkeeper_core::{Resource, Token};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(story: &Story) -> Checked {
    let mut registers: BTreeMap<(&Resource, u32), Vec<&Touch>> = BTreeMap::new();
    for touch in &story.touches {
        let hold = &story.holds[touch.hold];
        if touch.token != hold.token {
            let what = format!("token {} was shown for another one's: {hold}", touch.token);
            return broken(Invariant::I4, what);
        }
        holders_get_in(touch, hold)?;
        registers.entry((&hold.resource, touch.slot)).or_default().push(touch);
    }
    for touches in registers.into_values() {
        nobody_comes_late(story, &touches)?;
        shows_what_was_written(story, &touches)?;
    }
    Ok(())
}

fn told(story: &Story, touch: &Touch) -> String {
    let deed = match (touch.write, touch.outcome) {
        (Some(value), _) => format!("wrote {value}"),
        (None, TouchOutcome::Accepted(value)) => format!("read {value}"),
        (None, _) => "read".to_owned(),
    };
    let (from, to) = (Seconds(touch.call.from), touch.call.to.map(Seconds));
    let to = to.map_or("never".to_owned(), |to| to.to_string());
    format!("token {} {deed} at {from}, answered {to} ({})", touch.token, story.holds[touch.hold])
}

/// I3: whoever certainly holds the lock has the newest token there is.
fn holders_get_in(touch: &Touch, hold: &Hold) -> Checked {
    let TouchOutcome::Bounced(newest) = touch.outcome else { return Ok(()) };
    let is_definite =
        touch.call.from >= hold.start && touch.call.to.is_some_and(|to| to <= hold.end);
    ensure(!is_definite && newest > touch.token, Invariant::I3, || {
        format!(
            "a holder was turned away at {}: {newest} had been seen; {hold}",
            Seconds(touch.call.from)
        )
    })
}

/// I4: nothing is let in with a token after a larger one was.
fn nobody_comes_late(story: &Story, touches: &[&Touch]) -> Checked {
    let accepted = |touch: &&&Touch| matches!(touch.outcome, TouchOutcome::Accepted(_));
    let mut asked: Vec<&Touch> = touches.iter().filter(accepted).copied().collect();
    asked.sort_by_key(|touch| touch.call.from);
    let mut answered = asked.clone();
    answered.sort_by_key(|touch| touch.call.to);
    let mut answered = answered.into_iter().peekable();
    let mut newest: Option<&Touch> = None;
    for touch in asked {
        let is_earlier = |other: &&Touch| other.call.to < Some(touch.call.from);
        while let Some(other) = answered.next_if(is_earlier) {
            if newest.is_none_or(|newest| newest.token < other.token) {
                newest = Some(other);
            }
        }
        if let Some(newer) = newest.filter(|newer| newer.token > touch.token) {
            let message = format!("{}; and after it {}", told(story, newer), told(story, touch));
            return broken(Invariant::I4, message);
        }
    }
    Ok(())
}

/// What a register may show.
struct Register {
    /// One of these, to begin with 0.
    values: BTreeSet<u64>,
    /// Writes without an answer, which may still come.
    pending: Vec<(Token, u64, u64)>,
}

/// I4: each read sees the last write, so that nobody was in between.
fn shows_what_was_written(story: &Story, touches: &[&Touch]) -> Checked {
    let mut sorted: Vec<&Touch> = touches
        .iter()
        .filter(|touch| !matches!(touch.outcome, TouchOutcome::Bounced(_)))
        .copied()
        .collect();
    // Of one token by time: a holder asks for one thing after the other, readers do not write.
    sorted.sort_by_key(|touch| (touch.token, touch.call.from));
    let mut register = Register { values: BTreeSet::from([0]), pending: Vec::new() };
    for touch in sorted {
        let (values, pending) = (&mut register.values, &mut register.pending);
        // Whatever is on its way with a smaller token is there, or will be turned away.
        values.extend(pending.iter().filter(|one| one.0 < touch.token).map(|one| one.2));
        pending.retain(|one| one.0 >= touch.token);
        match (touch.write, touch.outcome) {
            (Some(value), TouchOutcome::Unknown) => {
                pending.push((touch.token, touch.call.from, value));
            }
            (None, TouchOutcome::Unknown) => {}
            (Some(value), _) => *values = BTreeSet::from([value]),
            (None, TouchOutcome::Accepted(value)) => {
                let is_late = pending.iter().any(|one| one.2 == value);
                ensure(is_late || values.contains(&value), Invariant::I4, || {
                    format!("only {values:?} could be read there: {}", told(story, touch))
                })?;
                pending.retain(|one| one.2 != value);
                *values = BTreeSet::from([value]);
            }
            (None, TouchOutcome::Bounced(_)) => {}
        }
    }
    Ok(())
}

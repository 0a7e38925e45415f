//! Who is on a cycle only because of its place in a queue, so that its sacrifice would be in vain.
//!
//! A waiter points at its nearest blockers only (see `edges`), so a cycle leads through a queue
//! from waiter to waiter. Take such a stretch: `head` waits for a resource, one or more waiters
//! stand between, each of which is waited for and waits with one and the same ticket there, and
//! `end` holds the resource or waits for it before them all. If a waiter between leaves, the head
//! waits for whoever comes next, and the cycle closes again, one shorter. Its sacrifice breaks the
//! cycle only if without it the head no longer reaches the end:
//!
//! - head and end conflict: nobody between is needed;
//! - they do not (two readers, or a reader and an updater): whoever conflicts with both carries the
//!   cycle, and if there is one such waiter only, that one is needed.
//!
//! By the matrix these are all the ways there are, see the tests. Where head and end are one
//! session (two upgrades), it does not wait for itself: they count as compatible.
//!
//! **Somebody eligible is always left.** The head of a stretch is no bystander, and it can lose its
//! wait, since that is one in a queue. There is a head, because along the waits of one queue the
//! places descend, which cannot go on round a cycle.
//!
//! **I10.** Sparing somebody never makes the oldest of the top class lose who would not have lost
//! anyway. Let `o` be that one. In a stretch with somebody spared the head can lose, so let it be
//! `o`. The end is not `o`: nobody but upgrades wait for their own hold, and between two of those
//! stands no third. If the end holds what is waited for, or waits for something else, it can lose.
//! Otherwise it led on by a declared wait; follow the cycle from there to the next wait in a queue.
//! Whoever that is can lose, unless it is `o` again. Then only the stretch and `o` could ever lose.
//! If `o` and the end conflict, breaking this cycle takes `o`: sparing nobody would sacrifice the
//! bystanders one by one, and `o` all the same. If they do not, it takes all those who carry it, so
//! those are not spared where nobody outside of the stretch can lose.
//!
//! **Permits.** Two waiters for permits always conflict, and each waits, maybe, for each holder.
//! But a cycle through permits is sought among direct edges (see `cycle`), so no stretch of permits
//! has anybody between. And such a deadlock is over as soon as the rest is reducible: a bystander
//! in some other queue may be the one who would finish and give permits back, or whose batch keeps
//! others from theirs. So nobody is a bystander on a cycle that took a reduction.

use super::{
    cycle::{Deadlock, Step},
    state::State,
};
use crate::{EdgeKind, LockMode, graph::Why, places::SessionAt};

impl State {
    /// For each step of a deadlock whether its session is a bystander.
    pub(super) fn bystanders(&self, deadlock: &Deadlock) -> Vec<bool> {
        let steps = &deadlock.steps;
        let count = steps.len();
        let mut spared = vec![false; count];
        let before = |at: usize| (at + count - 1) % count;
        let stands_between = |at: usize| is_one_wait(&steps[before(at)].why, &steps[at].why);
        if deadlock.reduced {
            return spared;
        }
        for head in (0..count).filter(|&at| !stands_between(at)) {
            let behind = (head + 1..head + count).map(|at| at % count);
            let between: Vec<usize> = behind.take_while(|&at| stands_between(at)).collect();
            let Some(&last) = between.last() else { continue };
            let end = steps[(last + 1) % count];
            let modes = self.wanted_mode(&steps[head]);
            let modes = modes.zip(self.blocking_mode(&steps[last], end.session));
            let Some((wanted, blocking)) = modes else { continue };
            let is_direct = steps[head].session != end.session && wanted.conflicts_with(blocking);
            let mut others =
                (last + 1..last + count - between.len()).map(|at| &steps[at % count].why);
            let other_can_lose = self.kind_of(&steps[last].why) == EdgeKind::Hard
                || others.any(|why| *why != Why::Declared);
            let carries = |at: usize| {
                let mode = self.wanted_mode(&steps[at]);
                mode.is_some_and(|m| m.conflicts_with(wanted) && m.conflicts_with(blocking))
            };
            let carriers = between.iter().filter(|&&at| carries(at)).count();
            for at in between {
                let is_needed = match carries(at) {
                    true => carriers == 1 || !other_can_lose,
                    false => carriers == 0,
                };
                spared[at] = is_direct || !is_needed;
            }
        }
        spared
    }

    /// What a step asks for on the resource of its edge.
    fn wanted_mode(&self, step: &Step) -> Option<LockMode> {
        let ticket = &self.tickets[self.ticket(step.why.ticket()?)?];
        let want = ticket.wants.iter().find(|want| Some(want.entry) == step.why.resource());
        want.map(|want| want.mode)
    }

    /// What the session at the end of a step's edge asks for there, or else holds.
    fn blocking_mode(&self, step: &Step, end: SessionAt) -> Option<LockMode> {
        let resource = step.why.resource()?;
        match step.why.blocker().and_then(|blocker| self.ticket(blocker)) {
            Some(ticket) => {
                let mut wants = self.tickets[ticket].wants.iter();
                wants.find(|want| want.entry == resource).map(|want| want.mode)
            }
            None => self.own_hold(end, resource).map(|hold| self.holds[hold].mode),
        }
    }
}

/// Whether the wait at which one edge ends is the wait from which the next one leads on, in the
/// same queue.
pub(super) fn is_one_wait(arrives: &Why, leads_on: &Why) -> bool {
    match (arrives, leads_on) {
        (Why::Lock { blocker, resource: here, .. }, Why::Lock { ticket, resource, .. }) => {
            blocker == ticket && here == resource
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::mode::{CLASSES, Class};

    /// What the rule rests on: who does not conflict directly, but through others, does so through
    /// any one of them that conflicts with both, and there is one.
    #[test]
    fn one_waiter_between_is_enough_to_lead_from_head_to_end() {
        let locks = CLASSES.into_iter().filter(|&class| class != Class::Permit);
        let locks: Vec<Class> = locks.collect();
        let conflict = |a: Class, b: Class| a.conflicts().contains(b);
        for &head in &locks {
            for &end in &locks {
                for &first in locks.iter().filter(|&&first| conflict(head, first)) {
                    for &last in locks.iter().filter(|&&last| conflict(last, end)) {
                        let carries = |one| conflict(head, one) && conflict(one, end);
                        let is_led = conflict(head, end) || carries(first) || carries(last);
                        assert!(is_led, "{head:?} {first:?} {last:?} {end:?}");
                    }
                }
            }
        }
    }
}

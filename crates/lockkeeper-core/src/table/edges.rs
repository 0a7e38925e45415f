//! Which edges a waiter has in the wait-for graph.
//!
//! In full, a waiter waits for every holder and for every earlier waiter whose mode conflicts with
//! its own. That is quadratic in a queue. It is enough to point at the *nearest* ones: whatever
//! stands before an earlier waiter `e` and conflicts with `e` is reached through `e`. So each
//! waiter walks back through the queue with the set of classes that it has not reached yet, points
//! at each blocker of such a class, takes out of the set what that one conflicts with, and looks at
//! the holders only for what is left. A queue of writers becomes a chain of single edges.
//!
//! Why hand-over needs no new edges: when `e` is granted, nothing that conflicts with `e` is left
//! before it, so nothing of what it stood for blocks those behind it. (Permits are counted, so that
//! this does not hold for them: the new head gets its edges anew.)

use super::{
    queue::{Place, Queue, Queuer},
    state::State,
};
use crate::{
    TicketId,
    graph::Why,
    mode::{CLASSES, Class, ClassSet},
    places::{EntryAt, SessionAt},
};
use smallvec::SmallVec;
use std::collections::BTreeMap;

impl State {
    /// Gives the waiter at `place` its edges.
    pub(super) fn link_waiter(&mut self, at: EntryAt, place: Place, class: Class) {
        let entry = &self.entries[at];
        let Some(queuer) = entry.queue.get(place, class) else { return };
        let mut blockers: SmallVec<[(SessionAt, TicketId); 2]> = SmallVec::new();
        let open = entry.queue.walk_back(place, class, |nearest, blocker| {
            blockers.push((blocker.session, nearest.ticket));
        });
        if entry.held_classes(None).intersects(open) {
            for (session, hold) in entry.holders.iter() {
                let hold = &self.holds[hold];
                let stands_in_the_way = open.contains(hold.mode.class())
                    && hold.revoked_at.is_none()
                    && session != queuer.session;
                if stands_in_the_way {
                    blockers.push((session, hold.ticket));
                }
            }
        }
        let ticket = place.ticket;
        for (session, blocker) in blockers {
            let why = match class {
                Class::Permit => Why::Permit { ticket, resource: at, blocker },
                _ => Why::Lock { ticket, resource: at, blocker },
            };
            self.graph.link(queuer.session, session, why);
        }
    }

    /// Gives those waiters their edges anew who may point at a hold of one of these classes.
    pub(super) fn relink_behind_holds(&mut self, at: EntryAt, classes: ClassSet) {
        self.relink(at, None, classes, ClassSet::ALL);
    }

    /// Gives those waiters their edges anew who see a waiter that has just come to `place`, before
    /// them: it hides from them what they saw so far.
    pub(super) fn relink_behind_new(&mut self, at: EntryAt, place: Place, class: Class) {
        let classes = class.conflicts().with(ClassSet::one(class));
        self.relink(at, Some(place), classes, class.conflicts());
    }

    /// Mends the edges behind a waiter that has gone from `place`: those that led to it go, and
    /// whoever reached through it what it conflicted with gets its edges anew.
    pub(super) fn relink_behind_gone(&mut self, at: EntryAt, place: Place, class: Class) {
        let among = class.conflicts();
        let behind = self.entries[at].queue.visible_behind(Some(place), class, among);
        // The graph lists the latest edge first and walks that list to remove one.
        for (_, queuer) in behind.into_iter().rev() {
            self.graph.unlink_blocker(queuer.session, place.ticket, at);
        }
        self.relink(at, Some(place), class.conflicts(), among);
    }

    fn relink(&mut self, at: EntryAt, after: Option<Place>, classes: ClassSet, among: ClassSet) {
        let mut behind = BTreeMap::new();
        for class in CLASSES.into_iter().filter(|&class| classes.contains(class)) {
            behind.extend(self.entries[at].queue.visible_behind(after, class, among));
        }
        for (place, queuer) in behind.iter().rev() {
            self.graph.unlink_ticket(queuer.session, place.ticket, at);
        }
        for (place, queuer) in behind {
            self.link_waiter(at, place, queuer.mode.class());
        }
    }

    /// Takes away the edges that lead to a hold. Nobody needs others for them: holders stand for
    /// nobody else.
    pub(super) fn unlink_hold(&mut self, at: EntryAt, class: Class, blocker: TicketId) {
        if self.entries[at].queue.is_empty() {
            return;
        }
        let behind = self.entries[at].queue.visible_behind(None, class, ClassSet::ALL);
        for (_, queuer) in behind.into_iter().rev() {
            self.graph.unlink_blocker(queuer.session, blocker, at);
        }
    }
}

/// Waiters in the order of their queue; often a single one, which costs no memory of its own.
type Seen = SmallVec<[(Place, Queuer); 1]>;

impl Queue {
    /// Calls `link` with each earlier waiter that a waiter of `class` at `place` has to point at,
    /// the nearest first, and returns the classes it has not reached by then.
    fn walk_back(
        &self,
        place: Place,
        class: Class,
        mut link: impl FnMut(Place, Queuer),
    ) -> ClassSet {
        let mut open = class.conflicts();
        // Whom it waits for, itself or through those it points at already.
        let mut reached = open;
        let mut cursor = place;
        while let Some((nearest, found)) = self.nearest_before(cursor, useful(reached, open)) {
            let conflicts = found.mode.class().conflicts();
            if open.contains(found.mode.class()) {
                link(nearest, found);
            }
            open = open.without(conflicts);
            reached = reached.with(conflicts);
            cursor = nearest;
        }
        open
    }

    /// The waiters behind `after`, of the classes `among`, who may point at something of `class`
    /// there: those who conflict with it and from whom nobody hides it who stands between and
    /// conflicts with both.
    fn visible_behind(&self, after: Option<Place>, class: Class, among: ClassSet) -> Seen {
        let mut found = Seen::new();
        for viewer in CLASSES {
            if !(class.conflicts().contains(viewer) && among.contains(viewer) && self.has(viewer)) {
                continue;
            }
            let hiding = class.conflicts().and(viewer.conflicts());
            let last = self.nearest_behind(after, hiding).map(|(place, _)| place);
            found.extend(self.all_behind(after, last, viewer));
        }
        found.sort_unstable_by_key(|(place, _)| *place);
        found
    }
}

/// The classes worth looking for on the way back: those that are reached, and of which either a new
/// edge would come or something would be hidden that is open yet.
fn useful(reached: ClassSet, open: ClassSet) -> ClassSet {
    let mut set = ClassSet::EMPTY;
    for class in CLASSES {
        let helps = open.contains(class) || class.conflicts().intersects(open);
        if reached.contains(class) && helps {
            set.insert(class);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`State::relink_behind_gone`] rests on: only those who conflict with a waiter rely on
    /// it. Were the matrix such that one could reach it through a third alone, and need it, too,
    /// they would have to be relinked as well.
    #[test]
    fn nobody_relies_on_a_waiter_it_does_not_conflict_with() {
        let conflict = |a: Class, b: Class| a.conflicts().contains(b);
        for (waiter, gone) in pairs().filter(|&(a, b)| !conflict(a, b)) {
            for (between, beyond) in pairs() {
                let reaches = conflict(waiter, between) && conflict(between, gone);
                let needs = conflict(waiter, beyond) && conflict(gone, beyond);
                let is_covered = conflict(between, beyond);
                assert!(!(reaches && needs) || is_covered, "{waiter:?} {between:?} {gone:?}");
            }
        }
    }

    fn pairs() -> impl Iterator<Item = (Class, Class)> {
        CLASSES.into_iter().flat_map(|a| CLASSES.into_iter().map(move |b| (a, b)))
    }
}

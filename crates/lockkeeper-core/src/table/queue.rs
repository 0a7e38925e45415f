//! Who waits for one resource, in which order.

use crate::{
    LockMode, TicketId,
    mode::{CLASSES, Class, ClassSet},
    places::{SessionAt, TicketAt},
};
use std::{collections::BTreeMap, ops::Bound};

/// Who waits for one resource. Kept by class, because most questions are about the nearest waiter
/// of some classes; in its order as a whole it is the four of them merged.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Not there before somebody waits: most resources come and go without a queue.
    classes: Option<Box<[BTreeMap<Place, Queuer>; 4]>>,
}

/// The order of a queue: those who turn a hold exclusive first, then by ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) holds_nothing: bool,
    pub(super) ticket: TicketId,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Queuer {
    pub(super) ticket: TicketAt,
    pub(super) session: SessionAt,
    pub(super) mode: LockMode,
}

impl Queue {
    pub(super) fn insert(&mut self, place: Place, queuer: Queuer) {
        let classes = self.classes.get_or_insert_default();
        classes[queuer.mode.class() as usize].insert(place, queuer);
    }

    pub(super) fn remove(&mut self, place: Place, class: Class) {
        if let Some(classes) = &mut self.classes {
            classes[class as usize].remove(&place);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.of(ClassSet::ALL).map(BTreeMap::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_none() || self.of(ClassSet::ALL).next().is_none()
    }

    pub(super) fn get(&self, place: Place, class: Class) -> Option<Queuer> {
        self.classes.as_ref()?[class as usize].get(&place).copied()
    }

    /// Everybody, the next first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, Queuer)> {
        let mut cursor = None;
        std::iter::from_fn(move || {
            let next = self.nearest_behind(cursor, ClassSet::ALL)?;
            cursor = Some(next.0);
            Some(next)
        })
    }

    /// The nearest waiter before `place` whose class is in `classes`.
    pub(super) fn nearest_before(
        &self,
        place: Place,
        classes: ClassSet,
    ) -> Option<(Place, Queuer)> {
        let before = |waiters| match last(waiters) {
            // Who asks has usually come last.
            Some(found) if found.0 < place => Some(found),
            Some(_) => pair(BTreeMap::range(waiters, ..place).next_back()),
            None => None,
        };
        self.of(classes).filter_map(before).max_by_key(|(place, _)| *place)
    }

    /// The first waiter behind `place` (from the head, if none is given) whose class is in
    /// `classes`.
    pub(super) fn nearest_behind(
        &self,
        place: Option<Place>,
        classes: ClassSet,
    ) -> Option<(Place, Queuer)> {
        let behind = |waiters| match (first(waiters), place) {
            (first, None) => first,
            (Some(first), Some(place)) if first.0 > place => Some(first),
            (_, Some(place)) if last(waiters).is_none_or(|last| last.0 <= place) => None,
            (_, Some(place)) => {
                let from = (Bound::Excluded(place), Bound::Unbounded);
                pair(BTreeMap::range(waiters, from).next())
            }
        };
        self.of(classes).filter_map(behind).min_by_key(|(place, _)| *place)
    }

    /// Everybody of a class behind `after` (from the head, if none is given), up to and including
    /// `last` (to the end, if none is given).
    pub(super) fn all_behind(
        &self,
        after: Option<Place>,
        last: Option<Place>,
        class: Class,
    ) -> impl Iterator<Item = (Place, Queuer)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = last.map_or(Bound::Unbounded, Bound::Included);
        let waiters = self.of(ClassSet::one(class)).flat_map(move |all| all.range((from, to)));
        waiters.map(|(place, queuer)| (*place, *queuer))
    }

    /// Whether anybody before `place` waits in one of `classes`.
    pub(super) fn any_before(&self, place: Place, classes: ClassSet) -> bool {
        self.of(classes).any(|waiters| waiters.keys().next().is_some_and(|&first| first < place))
    }

    /// Whether anybody behind `place` waits in this class.
    pub(super) fn any_behind(&self, place: Place, class: Class) -> bool {
        let mut waiters = self.of(ClassSet::one(class));
        waiters.any(|waiters| waiters.keys().next_back().is_some_and(|&last| last > place))
    }

    /// Whether nobody behind `cursor` can be let in any more, so that looking further is in vain:
    /// for each class that still waits there, somebody `blocked` before it or a holder conflicts.
    pub(super) fn is_settled_behind(
        &self,
        cursor: Place,
        blocked: ClassSet,
        held: ClassSet,
    ) -> bool {
        CLASSES.into_iter().all(|class| {
            // An own hold excuses only those who turn it exclusive, and they stand at the head.
            let is_hopeless = blocked.intersects(class.conflicts())
                || (cursor.holds_nothing
                    && class != Class::Permit
                    && held.intersects(class.conflicts()));
            is_hopeless || !self.any_behind(cursor, class)
        })
    }

    /// How many stand before `place`.
    pub(super) fn count_before(&self, place: Place) -> usize {
        self.of(ClassSet::ALL).map(|waiters| waiters.range(..place).count()).sum()
    }

    /// Everybody before `place` in one of `classes`, class by class.
    pub(super) fn all_before(
        &self,
        place: Place,
        classes: ClassSet,
    ) -> impl Iterator<Item = &Queuer> {
        self.of(classes).flat_map(move |waiters| waiters.range(..place)).map(|(_, queuer)| queuer)
    }

    /// Whether anybody waits in this class.
    pub(super) fn has(&self, class: Class) -> bool {
        self.classes.as_ref().is_some_and(|classes| !classes[class as usize].is_empty())
    }

    fn of(&self, classes: ClassSet) -> impl Iterator<Item = &BTreeMap<Place, Queuer>> {
        let waiters = self.classes.iter().flat_map(|classes| CLASSES.into_iter().zip(&**classes));
        waiters
            .filter(move |(class, waiters)| classes.contains(*class) && !waiters.is_empty())
            .map(|(_, waiters)| waiters)
    }
}

fn first(waiters: &BTreeMap<Place, Queuer>) -> Option<(Place, Queuer)> {
    pair(waiters.first_key_value())
}

fn last(waiters: &BTreeMap<Place, Queuer>) -> Option<(Place, Queuer)> {
    pair(waiters.last_key_value())
}

fn pair(found: Option<(&Place, &Queuer)>) -> Option<(Place, Queuer)> {
    found.map(|(place, queuer)| (*place, *queuer))
}

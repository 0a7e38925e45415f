//! Lock modes, and the one table that says which of them exclude each other.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a resource is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Together with other readers and one updater.
    Shared,
    /// Reads now, may become exclusive later; together with readers, never with another updater.
    Update,
    /// Alone.
    #[default]
    Exclusive,
    /// So many of a resource's declared slots.
    Permit(u32),
}

/// A mode without its number: the index into the conflict table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Class {
    Shared = 0,
    Update = 1,
    Exclusive = 2,
    Permit = 3,
}

/// Every class, in the order of the conflict table.
pub(crate) const CLASSES: [Class; 4] =
    [Class::Shared, Class::Update, Class::Exclusive, Class::Permit];

/// Row: the mode asked for. Bits: the classes it cannot stand beside.
///
/// Two permits exclude each other only in the *queue* (nobody overtakes); against holders they are
/// counted, see [`crate::table`]. Lock modes and permits never meet on one resource, so those
/// fields only have to be safe.
const CONFLICTS: [ClassSet; 4] = [
    //             S U X P
    ClassSet::of([0, 0, 1, 1]), // Shared
    ClassSet::of([0, 1, 1, 1]), // Update
    ClassSet::of([1, 1, 1, 1]), // Exclusive
    ClassSet::of([1, 1, 1, 1]), // Permit
];

impl Class {
    /// The classes this one cannot stand beside.
    pub(crate) fn conflicts(self) -> ClassSet {
        CONFLICTS[self as usize]
    }
}

/// A set of mode classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ClassSet(u8);

impl ClassSet {
    pub(crate) const EMPTY: ClassSet = ClassSet(0);
    pub(crate) const ALL: ClassSet = ClassSet::of([1; 4]);

    const fn of(row: [u8; 4]) -> ClassSet {
        ClassSet(row[0] | row[1] << 1 | row[2] << 2 | row[3] << 3)
    }

    pub(crate) fn one(class: Class) -> ClassSet {
        ClassSet(1 << class as u8)
    }

    pub(crate) fn contains(self, class: Class) -> bool {
        self.0 & (1 << class as u8) != 0
    }

    pub(crate) fn insert(&mut self, class: Class) {
        self.0 |= 1 << class as u8;
    }

    pub(crate) fn intersects(self, other: ClassSet) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub(crate) fn and(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 & other.0)
    }

    #[must_use]
    pub(crate) fn with(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 | other.0)
    }

    #[must_use]
    pub(crate) fn without(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 & !other.0)
    }
}

impl LockMode {
    pub(crate) fn class(self) -> Class {
        match self {
            LockMode::Shared => Class::Shared,
            LockMode::Update => Class::Update,
            LockMode::Exclusive => Class::Exclusive,
            LockMode::Permit(_) => Class::Permit,
        }
    }

    /// How many slots it takes; 0 for a lock mode.
    pub(crate) fn permits(self) -> u32 {
        match self {
            LockMode::Permit(n) => n,
            _ => 0,
        }
    }

    /// Whether the two exclude each other on one resource, permits aside (those are counted).
    pub fn conflicts_with(self, other: LockMode) -> bool {
        self.class().conflicts().contains(other.class())
    }

    /// Whether holding `self` already gives everything that `wanted` asks for.
    pub fn covers(self, wanted: LockMode) -> bool {
        match (self, wanted) {
            (LockMode::Permit(have), LockMode::Permit(want)) => have >= want,
            (LockMode::Permit(_), _) | (_, LockMode::Permit(_)) => false,
            _ => self.class() >= wanted.class(),
        }
    }

    /// The stronger of two modes of one kind, both lock modes or both permits.
    #[must_use]
    pub(crate) fn strongest(self, other: LockMode) -> LockMode {
        if other.covers(self) { other } else { self }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockMode::Shared => f.write_str("shared"),
            LockMode::Update => f.write_str("update"),
            LockMode::Exclusive => f.write_str("exclusive"),
            LockMode::Permit(1) => f.write_str("1 permit"),
            LockMode::Permit(n) => write!(f, "{n} permits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_symmetric() {
        for a in CLASSES {
            for b in CLASSES {
                assert_eq!(a.conflicts().contains(b), b.conflicts().contains(a), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn update_stands_beside_readers_only() {
        use LockMode::{Exclusive, Shared, Update};
        assert!(!Update.conflicts_with(Shared));
        assert!(!Shared.conflicts_with(Shared));
        for (a, b) in [(Update, Update), (Update, Exclusive), (Shared, Exclusive)] {
            assert!(a.conflicts_with(b));
        }
        assert!(Exclusive.conflicts_with(Exclusive));
    }

    #[test]
    fn a_stronger_mode_covers_a_weaker_one() {
        assert!(LockMode::Exclusive.covers(LockMode::Shared));
        assert!(!LockMode::Shared.covers(LockMode::Update));
        assert!(LockMode::Permit(3).covers(LockMode::Permit(2)));
        assert!(!LockMode::Permit(3).covers(LockMode::Shared));
        assert_eq!(LockMode::Shared.strongest(LockMode::Update), LockMode::Update);
        assert_eq!(LockMode::Permit(3).strongest(LockMode::Permit(2)), LockMode::Permit(3));
    }
}

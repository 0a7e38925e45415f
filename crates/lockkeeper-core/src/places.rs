//! Where things live in memory: one number type for each arena, so that they cannot be mixed up.
//!
//! A place is reused once it is free. It never leaves the crate and decides nothing; ids do.

use slab::Slab;
use std::ops::{Index, IndexMut};

macro_rules! place {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(crate) struct $name(pub(crate) u32);

        impl From<$name> for usize {
            fn from(place: $name) -> usize {
                place.0 as usize
            }
        }

        impl From<usize> for $name {
            fn from(at: usize) -> $name {
                // An arena of four thousand million entries would not fit into memory first.
                $name(at as u32)
            }
        }
    };
}

place! {
    /// Of a session.
    SessionAt
}
place! {
    /// Of a resource's entry.
    EntryAt
}
place! {
    /// Of a waiting request.
    TicketAt
}
place! {
    /// Of a hold.
    HoldAt
}

/// A slab that is indexed by places of its own type only.
#[derive(Debug)]
pub(crate) struct Arena<P, T> {
    slab: Slab<T>,
    place: std::marker::PhantomData<P>,
}

impl<P, T> Default for Arena<P, T> {
    fn default() -> Arena<P, T> {
        Arena { slab: Slab::new(), place: std::marker::PhantomData }
    }
}

impl<P: From<usize> + Into<usize> + Copy, T> Arena<P, T> {
    pub(crate) fn insert(&mut self, value: T) -> P {
        P::from(self.slab.insert(value))
    }

    /// Takes a value out, and gives the memory of a burst back once the arena is empty.
    pub(crate) fn remove(&mut self, place: P) -> Option<T> {
        let value = self.slab.try_remove(place.into());
        if self.slab.is_empty() && self.slab.capacity() > 4096 {
            self.slab = Slab::new();
        }
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All values with their places, in the order of memory.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (P, &T)> {
        self.slab.iter().map(|(at, value)| (P::from(at), value))
    }
}

impl<P: Into<usize>, T> Index<P> for Arena<P, T> {
    type Output = T;

    fn index(&self, place: P) -> &T {
        &self.slab[place.into()]
    }
}

impl<P: Into<usize>, T> IndexMut<P> for Arena<P, T> {
    fn index_mut(&mut self, place: P) -> &mut T {
        &mut self.slab[place.into()]
    }
}

//! Counts who is inside. A lock that lets two in is not measured.

use crate::trouble::{Result, trouble};
use std::sync::atomic::{AtomicU32, Ordering};

/// A place where only one may be at a time.
#[derive(Default, Debug)]
pub(crate) struct Inside(AtomicU32);

impl Inside {
    /// Goes in; fails if somebody is there.
    pub(crate) fn enter(&self) -> Result<()> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            others => trouble(format!("{} were inside at once: this is no lock", others + 1)),
        }
    }

    /// Goes out, before the lock is given back.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_when_two_are_inside() {
        let inside = Inside::default();
        inside.enter().unwrap();
        inside.leave();
        inside.enter().unwrap();
        assert!(inside.enter().unwrap_err().to_string().starts_with("2 were inside"));
    }
}

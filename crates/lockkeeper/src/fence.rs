//! The check on the resource's side: whoever comes with an outdated token is turned away.

use lockkeeper_core::Token;
use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// Stands in front of what a lock protects and lets only the newest holder through, on reads as
/// well as on writes. A lock alone cannot do this: a holder that was paused for longer than its
/// lease wakes up and writes, not knowing that another one holds the lock by now.
///
/// ```
/// use lockkeeper::{FenceGate, Token};
///
/// let gate = FenceGate::new(String::new());
/// let (first, second) = (Token::from_u64(1), Token::from_u64(2));
/// gate.with(first, |file| file.push_str("one")).unwrap();
/// gate.with(second, |file| file.push_str(", two")).unwrap();
/// gate.with(second, |file| file.push_str(", three")).expect("a holder comes more than once");
/// let stale = gate.with(first, |file| file.clear()).unwrap_err();
/// assert_eq!(stale.newest, second);
/// ```
#[derive(Default)]
pub struct FenceGate<T = ()> {
    inside: Mutex<Inside<T>>,
}

#[derive(Default)]
struct Inside<T> {
    newest: u64,
    resource: T,
}

impl<T> FenceGate<T> {
    /// A gate that nobody has passed yet.
    pub fn new(resource: T) -> FenceGate<T> {
        FenceGate { inside: Mutex::new(Inside { newest: 0, resource }) }
    }

    /// A gate that has seen tokens up to this one: what a resource remembers across restarts.
    pub fn resuming(resource: T, newest: Token) -> FenceGate<T> {
        FenceGate { inside: Mutex::new(Inside { newest: newest.get(), resource }) }
    }

    /// Does something to the resource, unless a newer holder has been here. Check and deed are one
    /// step: nobody gets in between.
    pub fn with<R>(&self, token: Token, deed: impl FnOnce(&mut T) -> R) -> Result<R, Fenced> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        // Not `<=`: a holder comes more than once.
        if token.get() < inside.newest {
            return Err(Fenced { token, newest: Token::from_u64(inside.newest) });
        }
        inside.newest = token.get();
        Ok(deed(&mut inside.resource))
    }

    /// Only the check, for a resource that does its part elsewhere.
    pub fn admit(&self, token: Token) -> Result<(), Fenced> {
        self.with(token, |_| ())
    }

    /// The newest token that has passed.
    pub fn newest(&self) -> Option<Token> {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        (inside.newest > 0).then(|| Token::from_u64(inside.newest))
    }

    /// The resource, given back.
    pub fn into_inner(self) -> T {
        self.inside.into_inner().unwrap_or_else(PoisonError::into_inner).resource
    }
}

impl<T> fmt::Debug for FenceGate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FenceGate").field("newest", &self.newest()).finish_non_exhaustive()
    }
}

/// A stale holder was turned away: its lock has gone to somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// The token it showed.
    pub token: Token,
    /// The newest one that has passed.
    pub newest: Token,
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "token {} is outdated, {} has been here: the lock was lost, stop and acquire it again",
            self.token, self.newest
        )
    }
}

impl std::error::Error for Fenced {}

#[cfg(test)]
mod tests {
    use super::*;

    /// I4: never the operations of two holders interleaved, reads included.
    #[test]
    fn a_stale_holder_may_not_even_read() {
        let gate = FenceGate::new(7);
        let token = Token::from_u64;
        assert_eq!(gate.with(token(3), |n| *n), Ok(7));
        assert_eq!(gate.with(token(3), |n| *n += 1), Ok(()));
        assert_eq!(gate.admit(token(5)), Ok(()));
        let refused = Fenced { token: token(3), newest: token(5) };
        assert_eq!(gate.with(token(3), |n| *n), Err(refused));
        assert_eq!(gate.with(token(4), |n| *n = 0), Err(Fenced { token: token(4), ..refused }));
        assert_eq!((gate.newest(), gate.into_inner()), (Some(token(5)), 8));
    }

    #[test]
    fn a_gate_remembers_across_restarts() {
        let gate = FenceGate::resuming((), Token::from_u64(9));
        assert!(gate.admit(Token::from_u64(8)).is_err());
        assert!(gate.admit(Token::from_u64(9)).is_ok());
    }
}

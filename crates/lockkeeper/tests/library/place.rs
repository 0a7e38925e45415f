//! Where the locks of these tests are: in the manager itself. The server runs the same tests with
//! its own place, where they are at the other end of a socket.

use lockkeeper::{Config, LockManager};

/// What is between the handles of a test and the actors.
pub struct Place;

impl Place {
    pub const IS_FAR: bool = false;

    /// How often one has to look until everything has arrived.
    pub const WAYS: usize = 2;

    pub fn config(config: Config) -> Config {
        config
    }

    pub async fn of(home: &LockManager) -> (LockManager, Place) {
        (home.clone(), Place)
    }

    pub async fn close(self, _: &LockManager) {}
}

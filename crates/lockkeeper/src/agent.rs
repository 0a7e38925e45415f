//! What an agent is given when it starts.

use crate::{LockManager, Session};

/// An agent's place in the world: its session, through which it asks for locks, and the manager.
///
/// However the agent ends (it returns, panics, is stopped or killed), its session ends with it, and
/// so does every lock it held.
#[derive(Clone, Debug)]
pub struct AgentContext {
    session: Session,
    manager: LockManager,
    life: u32,
}

impl AgentContext {
    pub(crate) fn new(session: Session, manager: LockManager, life: u32) -> AgentContext {
        AgentContext { session, manager, life }
    }

    /// The agent's session: a new one in each life.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The manager, for everything else.
    pub fn manager(&self) -> &LockManager {
        &self.manager
    }

    /// The project the agent is in.
    pub fn project(&self) -> &str {
        self.session.project()
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        self.session.agent()
    }

    /// Which life this is: 1, and one more after each restart.
    pub fn life(&self) -> u32 {
        self.life
    }
}

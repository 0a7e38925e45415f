//! The kinds of work.

/// What kind of work an agent does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Locks files in their order: never in a deadlock with its like.
    Ordered,
    /// Locks files in any order, on purpose.
    Disordered,
    /// Wants what everybody wants.
    HotSpot,
    /// Reads documents.
    Reader,
    /// Writes documents.
    Writer,
    /// Reads first, and then wants to write.
    Upgrader,
    /// Wants several things at once.
    Batcher,
    /// Uses language models by the slot.
    Prompter,
    /// Waits for other agents.
    Parent,
    /// Claims tasks and finishes them.
    Claimer,
    /// Asks for several things without waiting for the first.
    Parallel,
}

impl Role {
    pub(crate) const ALL: [Role; 11] = [
        Role::Ordered,
        Role::Disordered,
        Role::HotSpot,
        Role::Reader,
        Role::Writer,
        Role::Upgrader,
        Role::Batcher,
        Role::Prompter,
        Role::Parent,
        Role::Claimer,
        Role::Parallel,
    ];
}

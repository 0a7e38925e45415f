//! Questions: what a project looks like, told once everything that was seen is on record.

use super::LockActor;
use crate::error::Unavailable;
use kameo::{
    message::{Context, Message},
    reply::DelegatedReply,
};
use lockkeeper_core::{LockTable, Resource, Task, Timestamp};
use std::time::Duration;

/// A question: the message, what it is answered with, and how.
macro_rules! question {
    (
        $(#[$doc:meta])* $name:ident $({ $( $(#[$fdoc:meta])* $field:ident: $type:ty ),* $(,)? })?
        -> $answer:ty : |$it:ident, $table:ident, $now:ident| $see:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name $({ $( $(#[$fdoc])* pub $field: $type ),* })?

        impl Message<$name> for LockActor {
            type Reply = DelegatedReply<Result<$answer, Unavailable>>;

            async fn handle(
                &mut self,
                $it: $name,
                ctx: &mut Context<Self, Self::Reply>,
            ) -> Self::Reply {
                let (later, tell) = ctx.reply_sender();
                let see = |$table: &LockTable, $now: Timestamp| {
                    let _ = (&$it, $now);
                    $see
                };
                self.look(see, move |seen| {
                    if let Some(tell) = tell {
                        tell.send(seen);
                    }
                });
                later
            }
        }
    };
}

question! {
    /// One resource: who holds it, who waits for it.
    Inspect {
        /// Which.
        resource: Resource,
    } -> Option<lockkeeper_core::Inspection> : |it, table, _now| table.inspect(&it.resource)
}

question! {
    /// All holds, by resource.
    List {} -> Vec<lockkeeper_core::Holder> : |_it, table, _now| table.list()
}

question! {
    /// Who waits for a resource, the next first.
    Queue {
        /// Which.
        resource: Resource,
    } -> Vec<lockkeeper_core::Waiter> : |it, table, _now| table.queue(&it.resource)
}

question! {
    /// Every open session, the earliest first.
    Sessions {} -> Vec<lockkeeper_core::SessionView> : |_it, table, _now| table.sessions()
}

question! {
    /// Who waits for whom.
    WaitGraphNow {} -> lockkeeper_core::WaitGraph : |_it, table, _now| table.wait_graph()
}

question! {
    /// The resources people wait for, the longest queue first.
    ContentionNow {} -> Vec<lockkeeper_core::Contention> : |_it, table, now| table.contention(now)
}

question! {
    /// The size of the table.
    StatsNow {} -> lockkeeper_core::Stats : |_it, table, _now| table.stats()
}

question! {
    /// The holds that are at least this old, by resource.
    Stale {
        /// How old.
        older_than: Duration,
    } -> Vec<lockkeeper_core::Holder> : |it, table, now| table.stale(now, it.older_than)
}

question! {
    /// How the leases stand.
    Leases {
        /// What counts as ending soon.
        soon: Duration,
        /// What counts as held for long.
        long: Duration,
    } -> lockkeeper_core::LeaseCounts : |it, table, now| table.lease_counts(now, it.soon, it.long)
}

question! {
    /// A task, if anybody has heard of it.
    TaskNow {
        /// Which.
        task: Resource,
    } -> Option<Task> : |it, table, _now| table.task(&it.task)
}

question! {
    /// All tasks, in order.
    Tasks {} -> Vec<Task> : |_it, table, _now| table.tasks()
}

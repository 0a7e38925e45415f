//! Questions: what a project looks like. Each is a message of the lock actor, a method on the
//! wire, and something a table at rest can be asked.

use lockkeeper_core::{
    Contention, Grant, Holder, Inspection, LeaseCounts, LockTable, Resource, SessionId,
    SessionView, Stats, Task, Timestamp, WaitGraph, Waiter,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;

/// Something a project can be asked. The answer changes nothing.
pub trait Question: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is answered with.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Its name on the wire.
    const METHOD: &'static str;

    /// Looks at a table.
    fn see(&self, table: &LockTable, now: Timestamp) -> Self::Answer;
}

/// A question: the message, its name on the wire, what it is answered with, and how.
macro_rules! question {
    (
        $(#[$doc:meta])* $method:literal
        $name:ident { $( $(#[$fdoc:meta])* $field:ident: $type:ty ),* $(,)? }
        -> $answer:ty : |$it:ident, $table:ident, $now:ident| $see:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        pub struct $name { $( $(#[$fdoc])* pub $field: $type ),* }

        impl Question for $name {
            type Answer = $answer;
            const METHOD: &'static str = $method;

            fn see(&self, $table: &LockTable, $now: Timestamp) -> $answer {
                let ($it, _) = (self, $now);
                let _ = $it;
                $see
            }
        }
    };
}

question! {
    /// One resource: who holds it, who waits for it.
    "inspect" Inspect {
        /// Which.
        resource: Resource,
    } -> Option<Inspection> : |it, table, _now| table.inspect(&it.resource)
}

question! {
    /// All holds, by resource.
    "list" List {} -> Vec<Holder> : |_it, table, _now| table.list()
}

question! {
    /// Who waits for a resource, the next first.
    "queue" Queue {
        /// Which.
        resource: Resource,
    } -> Vec<Waiter> : |it, table, _now| table.queue(&it.resource)
}

question! {
    /// Every open session, the earliest first.
    "sessions" Sessions {} -> Vec<SessionView> : |_it, table, _now| table.sessions()
}

question! {
    /// What a session holds, with the tokens: for the session itself.
    "grants" Grants {
        /// Which session.
        session: SessionId,
    } -> Vec<Grant> : |it, table, _now| {
        let mine = table.list().into_iter().filter(|holder| holder.session == it.session);
        mine.filter_map(|holder| table.grant(holder.lock)).collect()
    }
}

question! {
    /// Who waits for whom.
    "graph" WaitGraphNow {} -> WaitGraph : |_it, table, _now| table.wait_graph()
}

question! {
    /// The resources people wait for, the longest queue first.
    "contention" ContentionNow {} -> Vec<Contention> : |_it, table, now| table.contention(now)
}

question! {
    /// The size of the table.
    "stats" StatsNow {} -> Stats : |_it, table, _now| table.stats()
}

question! {
    /// The holds that are at least this old, by resource.
    "stale" Stale {
        /// How old.
        #[serde(rename = "older_than_ms", with = "millis")]
        older_than: Duration,
    } -> Vec<Holder> : |it, table, now| table.stale(now, it.older_than)
}

question! {
    /// How the leases stand.
    "leases" Leases {
        /// What counts as ending soon.
        #[serde(rename = "soon_ms", with = "millis")]
        soon: Duration,
        /// What counts as held for long.
        #[serde(rename = "long_ms", with = "millis")]
        long: Duration,
    } -> LeaseCounts : |it, table, now| table.lease_counts(now, it.soon, it.long)
}

question! {
    /// A task, if anybody has heard of it.
    "task.get" TaskNow {
        /// Which.
        task: Resource,
    } -> Option<Task> : |it, table, _now| table.task(&it.task)
}

question! {
    /// All tasks, in order.
    "task.list" Tasks {} -> Vec<Task> : |_it, table, _now| table.tasks()
}

question! {
    /// The number of the last event of the project.
    "last_event" LastEvent {} -> u64 : |_it, table, _now| table.last_event()
}

/// Spans travel as whole milliseconds.
mod millis {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

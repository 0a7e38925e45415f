//! Why not: one enum a verb. Each says what happened, who holds what, and whether asking again can
//! help.

use lockkeeper_core::{
    DeadlockReport, FailedClaim, Holder, LockId, Obstacle, Refusal, SessionId, Timestamp,
};
use lockkeeper_store::StoreError;
use std::{fmt, sync::Arc};

/// There was no answer, or none that may be believed. Nothing was granted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Unavailable {
    /// The store could not write it.
    Store(StoreError),
    /// The store could not be read or written before, and the project waits for it: nothing was
    /// even tried.
    NotServing(StoreError),
    /// The manager was shut down.
    ShutDown,
    /// The project's actor died again and again; its log says why.
    Crashed,
    /// A daemon says, in its words, that it cannot.
    Daemon {
        /// A stable word: `store` if it is because of its store.
        code: Arc<str>,
        /// Its words.
        said: Arc<str>,
    },
    /// A project of a daemon has no lock actor in this process.
    Elsewhere,
    /// The daemon cannot be reached: where, and why not.
    Unreachable(Arc<str>),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::Store(error) => write!(f, "nothing was decided: {error}"),
            Unavailable::NotServing(error) => write!(f, "nothing can be decided now: {error}"),
            Unavailable::ShutDown => {
                f.write_str("the lock manager is shut down: open the store again")
            }
            Unavailable::Crashed => {
                f.write_str("the project's lock actor keeps dying: look into the log")
            }
            Unavailable::Elsewhere => f.write_str(
                "the locks are at a daemon, and so is their actor: use sessions and projects",
            ),
            Unavailable::Daemon { said, .. } => f.write_str(said),
            Unavailable::Unreachable(why) => write!(f, "the daemon cannot be reached: {why}"),
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unavailable::Store(error) | Unavailable::NotServing(error) => Some(error),
            _ => None,
        }
    }
}

/// What any message to a [`crate::LockActor`] may come back with.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The lock table said no.
    Refused(Refusal),
    /// There was no answer.
    Unavailable(Unavailable),
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> CallError {
        CallError::Refused(refusal)
    }
}

impl From<Unavailable> for CallError {
    fn from(unavailable: Unavailable) -> CallError {
        CallError::Unavailable(unavailable)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused(refusal) => refusal.fmt(f),
            CallError::Unavailable(unavailable) => unavailable.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}

impl CallError {
    /// A stable word for programs, such as `busy` or `deadlock`.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::Refused(refusal) => refusal.code(),
            CallError::Unavailable(_) => "unavailable",
        }
    }

    /// The number of the earlier lock registries, E300 to E307.
    pub fn legacy_code(&self) -> &'static str {
        match self {
            CallError::Refused(refusal) => refusal.legacy_code(),
            CallError::Unavailable(Unavailable::Store(error)) => error.legacy_code(),
            CallError::Unavailable(Unavailable::NotServing(error)) => error.legacy_code(),
            CallError::Unavailable(_) => "E306",
        }
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            CallError::Refused(refusal) => refusal.retryable(),
            CallError::Unavailable(unavailable) => {
                use Unavailable::{Crashed, Elsewhere, ShutDown};
                !matches!(unavailable, ShutDown | Crashed | Elsewhere)
            }
        }
    }
}

/// Makes the enum of a verb: its own variants, then the two that every verb has.
macro_rules! verb_error {
    (
        $(#[$doc:meta])* $name:ident {
            $(
                $(#[$vdoc:meta])*
                $variant:ident
                $({ $( $(#[$fdoc:meta])* $field:ident: $type:ty ),* $(,)? })?
                $(( $tuple:ty ))?
            ),* $(,)?
        }
        from { $( $pattern:pat => $make:expr ),* $(,)? }
        into { $( $ours:pat => $refusal:expr ),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$vdoc])* $variant $({ $( $(#[$fdoc])* $field: $type ),* })? $(( $tuple ))? , )*
            /// Any other refusal of the lock table.
            Refused(Refusal),
            /// There was no answer; nothing was changed, as far as anybody was told.
            Unavailable(Unavailable),
        }

        impl From<CallError> for $name {
            fn from(error: CallError) -> $name {
                match error {
                    CallError::Unavailable(unavailable) => $name::Unavailable(unavailable),
                    CallError::Refused(refusal) => match refusal {
                        $( $pattern => $make, )*
                        #[allow(unreachable_patterns, reason = "not every verb has its own")]
                        other => $name::Refused(other),
                    },
                }
            }
        }

        impl From<$name> for CallError {
            fn from(error: $name) -> CallError {
                match error {
                    $( $ours => CallError::Refused($refusal), )*
                    $name::Refused(refusal) => CallError::Refused(refusal),
                    $name::Unavailable(unavailable) => CallError::Unavailable(unavailable),
                }
            }
        }

        impl $name {
            /// A stable word for programs, such as `busy` or `deadlock`.
            pub fn code(&self) -> &'static str {
                CallError::from(self.clone()).code()
            }

            /// The number of the earlier lock registries, E300 to E307.
            pub fn legacy_code(&self) -> &'static str {
                CallError::from(self.clone()).legacy_code()
            }

            /// Whether the same request may succeed later.
            pub fn retryable(&self) -> bool {
                CallError::from(self.clone()).retryable()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                CallError::from(self.clone()).fmt(f)
            }
        }

        impl std::error::Error for $name {}
    };
}

verb_error! {
    /// Why a lock was not obtained.
    AcquireError {
        /// Not free now, and the request would not wait.
        Busy {
            /// Every resource that was taken, and by whom.
            obstacles: Vec<Obstacle>,
        },
        /// The wait ran out.
        TimedOut {
            /// Every resource that was still taken, and by whom.
            obstacles: Vec<Obstacle>,
            /// For how long it queued, in milliseconds.
            waited_ms: u64,
        },
        /// The request would have closed a deadlock, or was chosen to break one.
        Deadlock(Arc<DeadlockReport>),
        /// The session itself holds it, and did not ask for a counted hold.
        AlreadyHeld {
            /// The hold.
            holder: Box<Holder>,
        },
        /// The session is over.
        SessionEnded {
            /// Which.
            session: SessionId,
        },
    }
    from {
        Refusal::Busy { obstacles } => AcquireError::Busy { obstacles },
        Refusal::TimedOut { obstacles, waited_ms } => {
            AcquireError::TimedOut { obstacles, waited_ms }
        },
        Refusal::Deadlock(report) => AcquireError::Deadlock(report),
        Refusal::AlreadyHeld { holder } => AcquireError::AlreadyHeld { holder },
        Refusal::SessionEnded { session } => AcquireError::SessionEnded { session },
    }
    into {
        AcquireError::Busy { obstacles } => Refusal::Busy { obstacles },
        AcquireError::TimedOut { obstacles, waited_ms } => {
            Refusal::TimedOut { obstacles, waited_ms }
        },
        AcquireError::Deadlock(report) => Refusal::Deadlock(report),
        AcquireError::AlreadyHeld { holder } => Refusal::AlreadyHeld { holder },
        AcquireError::SessionEnded { session } => Refusal::SessionEnded { session },
    }
}

impl AcquireError {
    /// What stood in the way, and who: empty where nobody did.
    pub fn obstacles(&self) -> &[Obstacle] {
        match self {
            AcquireError::Busy { obstacles } | AcquireError::TimedOut { obstacles, .. } => {
                obstacles
            }
            _ => &[],
        }
    }

    /// The first holder that stood in the way.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            AcquireError::AlreadyHeld { holder } => Some(holder),
            _ => self.obstacles().iter().find_map(|obstacle| obstacle.holders.first()),
        }
    }
}

verb_error! {
    /// Why a lock was not given back.
    ReleaseError {
        /// It was over already: expired, revoked or released. Whoever has it now is not disturbed.
        NotHeld {
            /// The lock.
            lock: LockId,
            /// Who holds the resource under this id, if anybody does.
            holder: Option<Box<Holder>>,
        },
    }
    from {
        Refusal::NotHolder { lock, holder } => ReleaseError::NotHeld { lock, holder },
    }
    into {
        ReleaseError::NotHeld { lock, holder } => Refusal::NotHolder { lock, holder },
    }
}

verb_error! {
    /// Why a lease was not renewed.
    RenewError {
        /// It was over already; a late renewal never brings it back.
        NotHeld {
            /// The lock.
            lock: LockId,
            /// Who holds the resource under this id, if anybody does.
            holder: Option<Box<Holder>>,
        },
        /// It is being revoked and ends then.
        Revoking {
            /// The lock.
            lock: LockId,
            /// When it ends.
            until: Timestamp,
        },
    }
    from {
        Refusal::NotHolder { lock, holder } => RenewError::NotHeld { lock, holder },
        Refusal::Revoking { lock, until } => RenewError::Revoking { lock, until },
    }
    into {
        RenewError::NotHeld { lock, holder } => Refusal::NotHolder { lock, holder },
        RenewError::Revoking { lock, until } => Refusal::Revoking { lock, until },
    }
}

verb_error! {
    /// Why a hold did not get another mode. It is still held as it was, unless it was over.
    ConvertError {
        /// Others hold it too, and the request would not wait.
        Busy {
            /// Who.
            obstacles: Vec<Obstacle>,
        },
        /// The wait ran out.
        TimedOut {
            /// Who still held it.
            obstacles: Vec<Obstacle>,
            /// For how long it queued, in milliseconds.
            waited_ms: u64,
        },
        /// Another holder asked first, or the request would have closed a deadlock.
        Deadlock(Arc<DeadlockReport>),
        /// It was over already.
        NotHeld {
            /// The lock.
            lock: LockId,
            /// Who holds the resource under this id, if anybody does.
            holder: Option<Box<Holder>>,
        },
    }
    from {
        Refusal::Busy { obstacles } => ConvertError::Busy { obstacles },
        Refusal::TimedOut { obstacles, waited_ms } => {
            ConvertError::TimedOut { obstacles, waited_ms }
        },
        Refusal::Deadlock(report) => ConvertError::Deadlock(report),
        Refusal::NotHolder { lock, holder } => ConvertError::NotHeld { lock, holder },
    }
    into {
        ConvertError::Busy { obstacles } => Refusal::Busy { obstacles },
        ConvertError::TimedOut { obstacles, waited_ms } => {
            Refusal::TimedOut { obstacles, waited_ms }
        },
        ConvertError::Deadlock(report) => Refusal::Deadlock(report),
        ConvertError::NotHeld { lock, holder } => Refusal::NotHolder { lock, holder },
    }
}

verb_error! {
    /// Why tasks were not claimed, finished or reopened. Of a batch, none was.
    TaskError {
        /// Tasks that stood in the way, each with its reason and, where it is claimed, by whom.
        ClaimFailed {
            /// Which.
            failed: Vec<FailedClaim>,
        },
        /// The task is at another version than the caller has seen.
        VersionMismatch {
            /// The task as it is.
            task: lockkeeper_core::Task,
            /// The version the caller has seen.
            expected: u64,
        },
        /// The claim was over already: expired, revoked or given back.
        NotHeld {
            /// Its lock.
            lock: LockId,
            /// Who holds it, if anybody does.
            holder: Option<Box<Holder>>,
        },
    }
    from {
        Refusal::ClaimFailed { failed } => TaskError::ClaimFailed { failed },
        Refusal::VersionMismatch { task, expected } => {
            TaskError::VersionMismatch { task, expected }
        },
        Refusal::NotHolder { lock, holder } => TaskError::NotHeld { lock, holder },
    }
    into {
        TaskError::ClaimFailed { failed } => Refusal::ClaimFailed { failed },
        TaskError::VersionMismatch { task, expected } => {
            Refusal::VersionMismatch { task, expected }
        },
        TaskError::NotHeld { lock, holder } => Refusal::NotHolder { lock, holder },
    }
}

verb_error! {
    /// Why a session was not opened, closed, or did not declare a wait.
    SessionError {
        /// The session is over.
        SessionEnded {
            /// Which.
            session: SessionId,
        },
        /// Waiting would close a deadlock.
        Deadlock(Arc<DeadlockReport>),
    }
    from {
        Refusal::SessionEnded { session } => SessionError::SessionEnded { session },
        Refusal::Deadlock(report) => SessionError::Deadlock(report),
    }
    into {
        SessionError::SessionEnded { session } => Refusal::SessionEnded { session },
        SessionError::Deadlock(report) => Refusal::Deadlock(report),
    }
}

verb_error! {
    /// Why an administrator's wish was not done.
    AdminError {
        /// Nobody holds the resource, so there was nothing to break.
        NotLocked {
            /// Which.
            resource: lockkeeper_core::Resource,
        },
    }
    from {
        Refusal::Unknown(lockkeeper_core::Subject::Resource(resource)) => {
            AdminError::NotLocked { resource }
        },
    }
    into {
        AdminError::NotLocked { resource } => {
            Refusal::Unknown(lockkeeper_core::Subject::Resource(resource))
        },
    }
}

//! The commands by their names on the wire.

use lockkeeper_core::{
    Acquire, AcquireAll, Cancel, ClaimTasks, Command, DeclareCapacity, DeclareWait, Downgrade,
    EndSession, FinishTask, ForceUnlock, ForgetTask, Release, ReleaseAll, Renew, ReopenTask,
    Upgrade, Wait, WithdrawWait,
};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

/// The method that ends every lease that is over: a command without anything in it.
pub const CLEANUP_EXPIRED: &str = "cleanup_expired";

macro_rules! commands {
    ($($method:literal => $command:ident),* $(,)?) => {
        /// The names of the commands, [`CLEANUP_EXPIRED`] included. Opening a session is not one of
        /// them: see [`super::Open`].
        pub const COMMANDS: &[&str] = &[$($method,)* CLEANUP_EXPIRED];

        /// Reads a command; `None` if the method is none.
        pub fn read_command(
            method: &str,
            params: &RawValue,
        ) -> Option<Result<Command, serde_json::Error>> {
            match method {
                $($method => Some(
                    serde_json::from_str::<$command>(params.get()).map(Command::from),
                ),)*
                CLEANUP_EXPIRED => Some(Ok(Command::Tick)),
                _ => None,
            }
        }

        /// A command as it travels: its method and its parameters, the project still missing.
        /// `None` for what never travels: how a session is opened, and what only a restart says.
        pub fn write_command(
            command: &Command,
        ) -> Option<Result<(&'static str, Value), serde_json::Error>> {
            match command {
                $(Command::$command(params) => {
                    Some(serde_json::to_value(params).map(|params| ($method, params)))
                })*
                Command::Tick => Some(Ok((CLEANUP_EXPIRED, Value::Object(Default::default())))),
                _ => None,
            }
        }
    };
}

commands! {
    "session.close" => EndSession,
    "acquire" => Acquire,
    "acquire_all" => AcquireAll,
    "wait" => Wait,
    "cancel" => Cancel,
    "release" => Release,
    "renew" => Renew,
    "upgrade" => Upgrade,
    "downgrade" => Downgrade,
    "declare_wait" => DeclareWait,
    "withdraw_wait" => WithdrawWait,
    "force_unlock" => ForceUnlock,
    "release_all" => ReleaseAll,
    "capacity" => DeclareCapacity,
    "task.claim" => ClaimTasks,
    "task.finish" => FinishTask,
    "task.reopen" => ReopenTask,
    "task.forget" => ForgetTask,
}

/// Parameters and the project they are about, as one object.
#[derive(Serialize, Debug)]
pub struct InProject<'a, P> {
    /// In which project.
    pub project: &'a str,
    /// The parameters.
    #[serde(flatten)]
    pub params: P,
}

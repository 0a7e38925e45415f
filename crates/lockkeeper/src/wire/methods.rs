//! The commands by their names on the wire.

use super::{Request, quick::write_quickly};
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

        /// Appends a command as a whole line. What never travels (see [`write_command`]) is an
        /// error.
        pub fn write_command_line(
            id: u64,
            project: &str,
            command: &Command,
            to: &mut Vec<u8>,
        ) -> Result<(), serde_json::Error> {
            if let Some(written) = write_quickly(id, project, command, to) {
                return written;
            }
            match command {
                $(Command::$command(params) => {
                    write_line(id, $method, InProject { project, params }, to)
                })*
                Command::Tick => {
                    let params = InProject { project, params: Nothing {} };
                    write_line(id, CLEANUP_EXPIRED, params, to)
                }
                _ => Err(serde::ser::Error::custom("a command that does not travel")),
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

/// Appends a request as a whole line.
pub fn write_line<P: Serialize>(
    id: u64,
    method: &str,
    params: P,
    to: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let request = Request { jsonrpc: "2.0", id: Some(id), method, params };
    serde_json::to_writer(&mut *to, &request)?;
    to.push(b'\n');
    Ok(())
}

/// A command that says no more than its name.
#[derive(Serialize)]
struct Nothing {}

/// Parameters and the project they are about, as one object.
#[derive(Serialize, Debug)]
pub struct InProject<'a, P> {
    /// In which project.
    pub project: &'a str,
    /// The parameters.
    #[serde(flatten)]
    pub params: P,
}

//! What the exit codes mean. Scripts rely on them: a code is never given a second meaning.

use std::process::ExitCode;

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done,
    /// An invariant of the simulation broke, or the answer could not be written. Commands under a
    /// lock often end with 1, so nothing else of ours does.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No daemon answered, and none could be started.
    Unavailable,
    /// The store cannot be read or written.
    Store,
    /// Not obtained: held by somebody else, timed out, or still in the queue. The JSON says which.
    NotObtained,
    /// Lost while it was held, or not held any more.
    Lost,
    /// Not permitted: it is somebody else's, or the daemon belongs to another user.
    NotPermitted,
    /// Something around the program is set up wrongly: a variable, a folder, a repository.
    Config,
    /// Refused, or chosen, because of a deadlock.
    Deadlock,
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The code of a command that ran under the lock, or one the user chose.
    Of(u8),
}

impl Exit {
    /// The number scripts see.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 69,
            Exit::Store => 74,
            Exit::NotObtained => 75,
            Exit::Lost => 76,
            Exit::NotPermitted => 77,
            Exit::Config => 78,
            Exit::Deadlock => 79,
            Exit::Interrupted => 130,
            Exit::Of(code) => code,
        }
    }
}

impl Exit {
    /// What another process of this program ended with.
    pub(crate) fn of_code(code: u8) -> Exit {
        use Exit::{
            Config, Deadlock, Done, Failed, Interrupted, Lost, NotObtained, NotPermitted, Store,
            Unavailable, Usage,
        };
        let all = [
            Done,
            Failed,
            Usage,
            Unavailable,
            Store,
            NotObtained,
            Lost,
            NotPermitted,
            Config,
            Deadlock,
            Interrupted,
        ];
        all.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Of(code))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

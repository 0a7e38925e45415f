//! Who has the terminal: the one group whose processes may read from it, and which its keys reach.
//!
//! Run by hand, straight from a shell's prompt, the command gets it from the start. In a script or
//! a pipeline others may want to read, and everybody should hear the interrupt key, so there it
//! gets the terminal once it asks, which the kernel tells by stopping it.

use super::group::Group;
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Nix};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    process::{
        Pid, Signal, getpgrp, getpid, getppid, getsid, kill_current_process_group, kill_process,
    },
    termios::{tcgetpgrp, tcsetpgrp},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

/// The terminal we were started on.
#[derive(Debug)]
pub(super) struct Terminal {
    file: OwnedFd,
    our_group: Pid,
    given: bool,
}

impl Terminal {
    /// `None` if there is none.
    pub(super) fn ours() -> Option<Terminal> {
        let file = open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty());
        Some(Terminal { file: file.ok()?, our_group: getpgrp(), given: false })
    }

    /// Whether our group has it, and nobody is in our group but us.
    ///
    /// A shell makes the first command of a pipeline lead the group, so a pipe means company.
    pub(super) fn is_all_ours(&self) -> bool {
        getpid() == self.our_group && self.is_in_our_hands() && !is_in_pipeline()
    }

    pub(super) fn is_in_our_hands(&self) -> bool {
        tcgetpgrp(&self.file) == Ok(self.our_group)
    }

    pub(super) fn is_given(&self) -> bool {
        self.given
    }

    /// Hands it on if it is ours to give.
    pub(super) fn give_to(&mut self, group: Group) -> bool {
        let done = self.is_in_our_hands() && self.hand_to(group.leader());
        self.given |= done;
        done
    }

    /// Whoever in the command has it now, it was ours.
    pub(super) fn take_back(&mut self) {
        if self.given {
            self.hand_to(self.our_group);
            self.given = false;
        }
    }

    /// Not having the terminal, we would be stopped for handing it to somebody, unless we refuse
    /// to hear of it. Ignoring the signal would be inherited; blocking it is not.
    fn hand_to(&self, group: Pid) -> bool {
        let ours = SigSet::from(Nix::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let done = tcsetpgrp(&self.file, group).is_ok();
        if let Ok(ours) = ours {
            let _ = ours.thread_set_mask();
        }
        done
    }

    /// Stops us, and `with_group` those who were started together with us: had the terminal been
    /// ours, its key would have stopped them. Comes back when somebody lets us go on.
    pub(super) fn stop_ourselves(&self, with_group: bool) {
        // We may always signal ourselves.
        let _ = match with_group {
            true => kill_current_process_group(Signal::STOP),
            false => kill_process(getpid(), Signal::STOP),
        };
    }
}

/// A shell with job control can: it is in our session, but not in our group.
pub(super) fn somebody_can_wake_us() -> bool {
    let Ok(session) = getsid(None) else {
        return false;
    };
    getpgrp() != session && getppid().is_some_and(|parent| getsid(Some(parent)) == Ok(session))
}

fn is_in_pipeline() -> bool {
    let is_pipe = |file: &dyn AsFd| {
        let kind = fstat(file.as_fd()).map(|stat| FileType::from_raw_mode(stat.st_mode));
        matches!(kind, Ok(FileType::Fifo | FileType::Socket))
    };
    is_pipe(&io::stdin()) || is_pipe(&io::stdout()) || is_pipe(&io::stderr())
}

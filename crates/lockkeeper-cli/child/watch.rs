//! Ends the whole group should we be killed.
//!
//! The kernel can kill a command when its parent dies, but not what the command has started. So a
//! process of our own, which nobody has a reason to signal, waits at a line for our end of it to
//! close, which our death does, however it comes about.

use super::{group::Group, trampoline};
use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
};

/// The process that watches. Dropping this ends it, and the group is left in peace.
#[derive(Debug)]
pub(super) struct Watch {
    process: Child,
    /// Closed by our death. Dropped after the process has been killed.
    _line: UnixStream,
}

impl Watch {
    pub(super) fn over(group: Group) -> io::Result<Watch> {
        let (line, theirs) = UnixStream::pair()?;
        let process = Command::new(trampoline::ourselves())
            .arg0("lockkeeper")
            .arg(trampoline::WATCH)
            .arg(group.leader().as_raw_pid().to_string())
            .stdin(OwnedFd::from(theirs))
            // They are the command's: whoever reads them waits for the last holder to end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Watch { process, _line: line })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Neither fails: the process is ours, and it is not reaped before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! The process group of a command: signals to all of it, and whether anybody in it lives.

use rustix::process::{Pid, Signal, kill_process_group};
use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, process::Child};

/// A process group whose leader we have not reaped: its number cannot become another group's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group(Pid);

impl Group {
    /// The group of a process that was started as its leader.
    pub(super) fn led_by(child: &Child) -> Group {
        Group(Pid::from_child(child))
    }

    pub(super) fn leader(self) -> Pid {
        self.0
    }

    /// Sends the signal to everybody in the group. Nobody being there to get it is no error.
    pub(super) fn signal(self, signal: Signal) -> io::Result<()> {
        match kill_process_group(self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether anybody in the group is left who is not a zombie. If that cannot be known, yes.
    pub(super) fn lives(self) -> bool {
        let Ok(processes) = fs::read_dir("/proc") else {
            return true;
        };
        let mut found_any = false;
        let is_number = |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit);
        for process in processes.flatten().filter(|entry| is_number(&entry.file_name())) {
            // A process that is gone by now does not live.
            let stat = fs::read(process.path().join("stat")).ok();
            if let Some((state, group)) = stat.as_deref().and_then(state_and_group) {
                found_any = true;
                if group == self.0.as_raw_pid() && !matches!(state, b'Z' | b'X') {
                    return true;
                }
            }
        }
        !found_any
    }
}

/// From `PID (NAME) STATE PARENT GROUP …`. The name may contain anything, also parentheses.
fn state_and_group(stat: &[u8]) -> Option<(u8, i32)> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?.bytes().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    Some((state, group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        assert_eq!(state_and_group(b"12 (sh) S 1 77 77 0"), Some((b'S', 77)));
        assert_eq!(state_and_group(b"12 (a) Z 9 (\xff) R 1 78 3"), Some((b'R', 78)));
        assert_eq!(state_and_group(b""), None);
    }
}

//! The parts our own program plays in other processes.

use super::line::hear_go;
use rustix::process::{Pid, Signal, getpid, kill_current_process_group, kill_process, setpgid};
use std::{
    env,
    ffi::OsStr,
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt, process::parent_id},
    },
    path::PathBuf,
    process::{Command, ExitCode},
};

/// Waits for its cue, then becomes the command that the cue names.
pub(super) const BECOME: &str = "__become";
/// Waits for our death, then kills the group whose number follows.
pub(super) const WATCH: &str = "__watch";
/// Dies of the interrupt signal.
const DIE: &str = "__die";

/// Our own program, also if another version has taken its place in the meantime.
pub(super) fn ourselves() -> PathBuf {
    if cfg!(target_os = "linux") {
        return PathBuf::from("/proc/self/exe");
    }
    // Starting it says what is wrong with the name.
    env::current_exe().unwrap_or_else(|_| PathBuf::from("lockkeeper"))
}

/// Plays the part this process was started for, if any. The first thing `main` does: nobody should
/// wait longer for a command than needed.
pub(crate) fn trampoline() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    let part = args.next()?;
    let played = match part.to_str()? {
        BECOME => become_command(),
        WATCH => watch(&args.next()?),
        DIE => kill_process(getpid(), Signal::INT).map_err(io::Error::from),
        _ => return None,
    };
    if let Err(error) = played
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        let part = part.display();
        let _ = writeln!(io::stderr(), "error: {part} is for lockkeeper's own use: {error}");
    }
    // Nobody asks.
    Some(ExitCode::FAILURE)
}

fn become_command() -> io::Result<()> {
    // First of all, so that the parent cannot die between being seen alive and this.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let go = hear_go(&line)?;
    if parent_id() != go.parent {
        return Ok(());
    }
    rustix::stdio::dup2_stdin(&go.stdin)?;
    drop(go.stdin);
    let [command, args @ ..] = &go.words[..] else {
        return Ok(());
    };
    let error = Command::new(command).args(args).envs(go.env).exec();
    let code = error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error());
    (&line).write_all(&code.to_le_bytes())
}

fn watch(group: &OsStr) -> io::Result<()> {
    let group = group.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    let group = group.ok_or(io::ErrorKind::InvalidInput)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    // By joining it first, because one's own group cannot become another's between two looks. If
    // nobody is left in it there is nothing to join, and nothing to do.
    if setpgid(None, Some(group)).is_ok() {
        kill_current_process_group(Signal::KILL)?;
    }
    Ok(())
}

/// Ends this process the way the interrupt key does, which a shell can tell from an exit code.
///
/// Only a new program has the signal's own effect back after having listened to it. Comes back
/// only if there is none to be had.
pub(crate) fn die_interrupted() {
    let _ = Command::new(ourselves()).arg0("lockkeeper").arg(DIE).exec();
}

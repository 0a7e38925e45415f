//! A command that runs under our eyes, in a process group of its own.
//!
//! | file | its part |
//! |---|---|
//! | `mod.rs` | starting a command, and waiting for its end or bringing it about |
//! | `group.rs` | the group: signals to all of it, and whether anybody in it lives |
//! | `line.rs` | what the waiting process is told before it becomes the command |
//! | `signals.rs` | the signals that reach us, to be passed on |
//! | `terminal.rs` | who has the terminal |
//! | `trampoline.rs` | the parts our own program plays in other processes |
//! | `watch.rs` | ends the whole group should we be killed |
//!
//! Nothing here knows about locks. The promises:
//!
//! - The command gets stdin, stdout, stderr, arguments, open files and ignored signals as we got
//!   them, and our environment with what is added. One thing is lost on the way: a `SIGPIPE` that
//!   was ignored is not ignored by the command, because a Rust program cannot know it was.
//! - If we are killed, so is it, however hard we went: the kernel kills the command itself
//!   (where it knows how to), and a process that only waits for our death kills the rest of its
//!   group. Whatever left the group, with `setsid` for example, is out of reach.
//! - Its number is not given back before we are done with it: a signal never reaches a stranger.
//!
//! To start it takes a second process of our own program, which waits for its cue and then becomes
//! the command. That way no code has to run between fork and exec, which cannot be done safely,
//! and it can be started long before it is needed: whoever prepares the command before asking for
//! what it needs finds it ready.

mod group;
mod line;
mod signals;
mod terminal;
mod trampoline;
mod watch;

pub(crate) use signals::{Heard, Signals};
pub(crate) use trampoline::{die_interrupted, trampoline};

use group::Group;
use rustix::{
    io::{Errno, retry_on_intr},
    process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid},
};
use std::{
    ffi::OsString,
    fmt, io,
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Command, ExitStatus},
    time::Duration,
};
use terminal::Terminal;
use tokio::{io::AsyncReadExt, time::Instant};
use watch::Watch;

/// How long a command runs before a process is started that watches over its group.
///
/// That keeps it from the many commands that are over in a moment. Where the kernel does not kill
/// the command itself, the watch cannot wait.
const UNWATCHED: Duration = Duration::from_millis(if cfg!(target_os = "linux") { 50 } else { 0 });

/// The pauses between two looks at whether a group that was told to end has ended.
const LOOKS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(2)..=Duration::from_millis(100);

/// How long those who were killed may take to be gone from the list of processes.
const BURIAL: Duration = Duration::from_secs(1);

/// A process that waits to become a command. If we end before that, so does it.
#[derive(Debug)]
pub(crate) struct Prepared {
    group: Group,
    line: UnixStream,
}

impl Prepared {
    /// Prepares for a command.
    ///
    /// It must be called on the thread that stays until the end, because to the kernel that thread
    /// is the parent, and before [`Signals::listen`]: the command inherits which signals are
    /// ignored, and one that is listened to no longer is.
    pub(crate) fn new() -> io::Result<Prepared> {
        let (line, theirs) = UnixStream::pair()?;
        let child = Command::new(trampoline::ourselves())
            .arg0("lockkeeper")
            .arg(trampoline::BECOME)
            .stdin(OwnedFd::from(theirs))
            .process_group(0)
            .spawn()?;
        Ok(Prepared { group: Group::led_by(&child), line })
    }

    /// Has it become the command of these words, with `env` added to its environment.
    ///
    /// If the future is dropped, the command is killed.
    pub(crate) async fn start(
        self,
        words: &[OsString],
        env: &[(&str, OsString)],
        signals: Signals,
    ) -> Result<Child, SpawnError> {
        let Prepared { group, line } = self;
        let fail = |why| SpawnError { command: words.first().cloned().unwrap_or_default(), why };
        let mut child = Child {
            group,
            signals,
            terminal: Terminal::ours(),
            watch: None,
            watch_at: Instant::now() + UNWATCHED,
            suspended: None,
            interrupted: false,
            ended: None,
        };
        if let Err(error) = child.signals.listen_to_stops() {
            return Err(fail(error));
        }
        // Before its first instruction, lest it be stopped by the first thing it reads.
        if let Some(terminal) = child.terminal.as_mut().filter(|terminal| terminal.is_all_ours()) {
            terminal.give_to(group);
        }
        match cue(line, words, env).await {
            Ok(None) => Ok(child),
            Ok(Some(refused)) => {
                let _ = child.wait().await;
                Err(fail(refused))
            }
            Err(error) => Err(fail(error)),
        }
    }
}

/// Gives the cue. Answers with what kept the process from becoming the command, if anything did.
async fn cue(
    line: UnixStream,
    words: &[OsString],
    env: &[(&str, OsString)],
) -> io::Result<Option<io::Error>> {
    line::say_go(&line, words, env)?;
    line.set_nonblocking(true)?;
    // The other end is closed when the process becomes the command.
    let mut answer = Vec::new();
    tokio::net::UnixStream::from_std(line)?.read_to_end(&mut answer).await?;
    Ok(answer.try_into().ok().map(i32::from_le_bytes).map(io::Error::from_raw_os_error))
}

/// Why a command did not start.
#[derive(Debug)]
pub(crate) struct SpawnError {
    command: OsString,
    why: io::Error,
}

impl SpawnError {
    /// What a shell would exit with.
    pub(crate) fn code(&self) -> u8 {
        if self.why.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run `{}`: ", self.command.display())?;
        match self.why.kind() {
            io::ErrorKind::NotFound => f.write_str("not found"),
            io::ErrorKind::PermissionDenied => f.write_str("not executable (permission denied)"),
            _ => write!(f, "{}", self.why),
        }
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.why)
    }
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    interrupted: bool,
}

impl Ended {
    /// Its exit code, or 128 and the number of the signal that killed it.
    pub(crate) fn code(self) -> u8 {
        let code = self.status.code();
        let code = code.or_else(|| self.status.signal().map(|signal| 128 + signal));
        // Both fit: the system keeps eight bits of a code, and seven of a signal.
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }

    /// Whether somebody interrupted it at the terminal and it died of that. Then we should, too:
    /// a shell that runs a script stops only for commands that died of the key.
    pub(crate) fn was_interrupted(self) -> bool {
        self.interrupted
    }
}

/// What there is to see of a command that has changed.
enum Seen {
    Ended(ExitStatus),
    Stopped(i32),
}

#[derive(Debug)]
struct Suspended {
    wants_terminal: bool,
}

/// A command that runs. Dropping it kills its group, unless it was seen to end.
#[derive(Debug)]
pub(crate) struct Child {
    group: Group,
    signals: Signals,
    terminal: Option<Terminal>,
    watch: Option<Watch>,
    watch_at: Instant,
    /// Set while the command is stopped and we are, or could be.
    suspended: Option<Suspended>,
    /// Whether the interrupt key reached us.
    interrupted: bool,
    ended: Option<Ended>,
}

impl Child {
    /// Waits for the command to end. Signals that reach us meanwhile are passed on, and when the
    /// command is stopped on a terminal, we stop with it.
    ///
    /// After having been stopped the command is only let go on when this is polled again: whoever
    /// polls something else first can still decide to end it. The future can be dropped at any
    /// time and asked for again.
    pub(crate) async fn wait(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.ended {
                return Ok(ended);
            }
            if self.suspended.is_some() {
                tokio::task::yield_now().await;
                self.go_on();
            }
            match self.look()? {
                Some(Seen::Ended(status)) => self.finish(status),
                Some(Seen::Stopped(signal)) => self.stopped(signal),
                None => tokio::select! {
                    heard = self.signals.next() => self.pass_on(heard),
                    () = tokio::time::sleep_until(self.watch_at), if self.watch.is_none() => {
                        // Without a process to spare there is still the kernel's own watch.
                        self.watch = Watch::over(self.group).ok();
                        self.watch_at += Duration::from_secs(1);
                    }
                },
            }
        }
    }

    /// Ends the command: asks the whole group to, and kills whoever of it is left after `grace`.
    ///
    /// It also ends those whom a command that is over has left behind in its group.
    pub(crate) async fn end(&mut self, grace: Duration) -> io::Result<Ended> {
        let until = Instant::now() + grace;
        self.group.signal(Signal::TERM)?;
        // Who is stopped would not hear it.
        self.group.signal(Signal::CONT)?;
        self.dies_before(until).await?;
        self.group.signal(Signal::KILL)?;
        while self.ended.is_none() {
            match self.look()? {
                Some(Seen::Ended(status)) => self.finish(status),
                Some(Seen::Stopped(_)) => {}
                None => drop(self.signals.next().await),
            }
        }
        // Killed, but one of them may still be in the middle of a write.
        self.dies_before(Instant::now() + BURIAL).await?;
        Ok(self.ended.unwrap_or_else(|| unreachable!("the loop before ends when it is known")))
    }

    /// Waits until nobody in the group lives, or `until`.
    async fn dies_before(&mut self, until: Instant) -> io::Result<()> {
        let mut pause = *LOOKS.start();
        loop {
            let seen = if self.ended.is_none() { self.look()? } else { None };
            if let Some(Seen::Ended(status)) = seen {
                self.finish(status);
            }
            let now = Instant::now();
            if now >= until || (self.ended.is_some() && !self.group.lives()) {
                return Ok(());
            }
            tokio::select! {
                heard = self.signals.next() => self.pass_on(heard),
                () = tokio::time::sleep_until((now + pause).min(until)) => {
                    pause = (pause * 2).min(*LOOKS.end());
                }
            }
        }
    }

    /// What has become of the command since the last look. One that ended stays a zombie until we
    /// are dropped, so that its number and its group's are nobody else's.
    fn look(&self) -> io::Result<Option<Seen>> {
        let look = |options| {
            let options = options | WaitIdOptions::NOHANG;
            retry_on_intr(|| waitid(WaitId::Pid(self.group.leader()), options))
        };
        loop {
            if let Some(status) = look(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)? {
                return Ok(Some(Seen::Ended(exit_status(&status))));
            }
            match look(WaitIdOptions::STOPPED) {
                // It has ended since the line before, and who has ended never stops.
                Err(Errno::CHILD) => {}
                seen => return Ok(seen?.and_then(|it| it.stopping_signal()).map(Seen::Stopped)),
            }
        }
    }

    fn finish(&mut self, status: ExitStatus) {
        // Whom the command leaves behind is free to outlive us.
        self.watch = None;
        let by_key = match &mut self.terminal {
            Some(terminal) => {
                let was_theirs = terminal.is_given();
                terminal.take_back();
                was_theirs || (self.interrupted && terminal.is_in_our_hands())
            }
            None => false,
        };
        let interrupted = by_key && status.signal() == Some(Signal::INT.as_raw());
        self.ended = Some(Ended { status, interrupted });
    }

    fn pass_on(&mut self, heard: Heard) {
        if let Heard::Signal(signal) = heard {
            self.interrupted |= signal == Signal::INT;
            // Not allowed if it has become somebody else, who gets signals from nobody but root.
            let _ = self.group.signal(signal);
        }
    }

    /// The command was stopped. If it only wants the terminal and we have it, it gets it;
    /// otherwise whoever stopped the command wants us to stop.
    ///
    /// Within a session anybody may let anybody go on, so that is not refused.
    fn stopped(&mut self, by: i32) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        if wants_terminal(by) && terminal.give_to(self.group) {
            let _ = self.group.signal(Signal::CONT);
            return;
        }
        let was_theirs = terminal.is_given();
        terminal.take_back();
        let wants_terminal = was_theirs || wants_terminal(by);
        let can_be_woken = terminal::somebody_can_wake_us();
        // A stop key that nobody is there to undo has no effect. But what wants a terminal that is
        // not to be had would only be stopped again by the next thing it reads.
        if can_be_woken || was_theirs || !wants_terminal {
            self.suspended = Some(Suspended { wants_terminal });
        }
        if can_be_woken {
            terminal.stop_ourselves(was_theirs);
        }
    }

    /// We were let go on, so the command is.
    fn go_on(&mut self) {
        if let Some(Suspended { wants_terminal: true }) = self.suspended.take()
            && let Some(terminal) = &mut self.terminal
        {
            terminal.give_to(self.group);
        }
        let _ = self.group.signal(Signal::CONT);
    }
}

fn wants_terminal(stopped_by: i32) -> bool {
    [Signal::TTIN, Signal::TTOU].map(Signal::as_raw).contains(&stopped_by)
}

/// The form `waitpid` would have it in.
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let exited = status.exit_status().map(|code| (code & 0xff) << 8);
    ExitStatus::from_raw(exited.or(status.terminating_signal()).unwrap_or_default())
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.group.signal(Signal::KILL);
            self.watch = None;
            if let Some(terminal) = &mut self.terminal {
                terminal.take_back();
            }
        }
        let reap = WaitIdOptions::NOHANG | WaitIdOptions::EXITED;
        let _ = waitid(WaitId::Pid(self.group.leader()), reap);
    }
}

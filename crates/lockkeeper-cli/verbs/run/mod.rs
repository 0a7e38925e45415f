//! The verb `run`: holds locks while a command runs.
//!
//! | file | its part |
//! |---|---|
//! | `mod.rs` | from the line that was typed to the code it ends with |
//! | `asking.rs` | asks for the locks, and says who waits for whom |
//! | `losing.rs` | when a lock is about to be lost |
//!
//! The process that will be the command is prepared before anything else: it gets ready while the
//! line is read and the daemon decides, and inherits the signals as they were before they were
//! listened to.

mod asking;
mod losing;

use crate::{
    args::{Global, run::Run},
    child::{self, Heard, Prepared, Signals, SpawnError},
    exit::Exit,
    output::{self, shape, words},
    places::{self, Here},
    trouble::Trouble,
};
use asking::Held;
use lockkeeper::{LockGuard, Resource};
use losing::{Lead, Losing, Why, losing};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    env,
    ffi::{OsStr, OsString},
    future::poll_fn,
    io,
    path::Path,
    task::Poll,
    time::Duration,
};

/// How long a command may take to end by itself once its lock is being lost, unless the user says
/// otherwise, and the lease is long enough.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait for the word that the locks were given back. Without it, the end of this
/// process gives them back.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    here: Here,
    global: &Global,
    wanted: &Run,
    prepared: Option<Prepared>,
) -> Result<Exit, Trouble> {
    refuse_doubtful(&here, wanted)?;
    let (here, names) = here.at_lock_file(&wanted.resources, global)?;
    let mut resources = here.resources(&names)?;
    resources.sort_unstable();
    resources.dedup();
    let words = words_of(wanted)?;
    let prepared = match prepared {
        Some(prepared) => prepared,
        None => Prepared::new().map_err(|error| unprepared(&error))?,
    };
    let mut signals = Signals::listen().map_err(|error| unheard(&error))?;
    let command = words.first().map(OsString::as_os_str).unwrap_or_default();
    let name = words::quoted(&command.to_string_lossy());
    let held = tokio::select! {
        biased;
        signal = told_to_end(&mut signals) => return Err(left(signal)),
        held = asking::ask(&here, wanted, command, resources) => held,
    };
    let held = held.map_err(|trouble| in_their_code(trouble, wanted))?;
    let lead = Lead::of(shortest(&held.guards), wanted.grace.unwrap_or(GRACE));
    let grants = json!(held.guards.iter().map(granted).collect::<Vec<Value>>());
    let env = told(&here, &held);
    let started = tokio::select! {
        biased;
        // What has not started by then never does.
        losing = losing(&held.guards, lead) => Err(losing),
        started = prepared.start(&words, &env, signals) => Ok(started),
    };
    let ended = match started {
        Ok(Ok(mut child)) => supervise(&mut child, &held.guards, lead).await,
        Ok(Err(error)) => {
            give_back(held).await;
            return Err(unstarted(&error));
        }
        Err(losing) => Err(losing),
    };
    let losing = match ended {
        Ok(ended) => match give_back(held).await {
            None => return Ok(passed_on(&here, ended, grants)),
            Some(resource) => Losing::found(resource),
        },
        Err(losing) => losing,
    };
    // stdout has been the command's.
    let trouble = lost(&losing, &name);
    match here.json {
        true => output::remark(&trouble.json().to_string()),
        false => output::remark(&trouble.text(output::style::Style::of_stderr())),
    }
    Ok(trouble.exit)
}

/// Lets the command run to its end, or ends it before a lock is anybody else's.
async fn supervise(
    child: &mut child::Child,
    guards: &[LockGuard],
    lead: Lead,
) -> Result<child::Ended, Losing> {
    let losing = tokio::select! {
        biased;
        losing = losing(guards, lead) => losing,
        ended = child.wait() => match ended {
            Ok(ended) => return Ok(ended),
            Err(_) => unreachable!("a process of ours can be waited for"),
        },
    };
    let ended = child.end(lead.grace_in(losing.left)).await;
    Err(Losing { cannot_end: ended.err().map(|error| error.to_string()), ..losing })
}

/// The command and its arguments; a line for the shell as `flock` has it.
fn words_of(wanted: &Run) -> Result<Vec<OsString>, Trouble> {
    match wanted.command.as_slice() {
        [dash_c, line] if dash_c == "-c" || dash_c == "--command" => {
            let shell = env::var_os("SHELL").filter(|shell| !shell.is_empty());
            let shell = shell.unwrap_or_else(|| "/bin/sh".into());
            Ok(vec![shell, "-c".into(), line.clone()])
        }
        [word, ..] if word.as_encoded_bytes().starts_with(b"-") => {
            let what = format!("{} is no command, and no option of `run`", word.display());
            Err(Trouble::new(Exit::Usage, "usage", what)
                .next("`lockkeeper run --help` shows how to write it; -c takes one word"))
        }
        words => Ok(words.to_vec()),
    }
}

/// `run x.lock git diff -- a.rs` is most likely a line of flock's kind whose command has a `--` of
/// its own. Taken literally it would lock the file `git` and run `a.rs`.
fn refuse_doubtful(here: &Here, wanted: &Run) -> Result<(), Trouble> {
    let Some(second) = wanted.resources.get(1) else { return Ok(()) };
    let is_bare = !second.contains(['.', '/', ':']);
    if !is_bare || here.folder.join(second).symlink_metadata().is_ok() || !is_program(second) {
        return Ok(());
    }
    let first = &wanted.resources[0];
    let what = format!("is {second:?} a resource, or the command to run?");
    Err(Trouble::new(Exit::Usage, "command_or_resource", what).next(format!(
        "write `-- {second}` for the command, as in `lockkeeper run {first} -- {second} ...`, or \
         ./{second} for the file"
    )))
}

fn is_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let can_run = |file: &Path| {
        let may = rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
        may && file.is_file()
    };
    env::split_paths(&path).any(|folder| can_run(&folder.join(name)))
}

/// What the command is told in its environment.
fn told(here: &Here, held: &Held) -> Vec<(&'static str, OsString)> {
    let lines = |line: fn(&LockGuard) -> String| {
        let lines: Vec<String> = held.guards.iter().map(line).collect();
        OsString::from(lines.join("\n"))
    };
    vec![
        (places::TOKEN, lines(|guard| guard.token().get().to_string())),
        (places::LOCK_ID, lines(|guard| guard.id().to_string())),
        (places::RESOURCE, lines(|guard| guard.resource().to_string())),
        (places::EXPIRES_AT, lines(|guard| guard.expires_at().to_string())),
        (places::SESSION, held.session.id().get().to_string().into()),
        (places::PROJECT, here.project.clone().into()),
        (places::AGENT, here.agent.clone().into()),
        (places::STORE, here.store.clone().into()),
        (places::SOCKET, here.socket.clone().into()),
    ]
}

fn granted(guard: &LockGuard) -> Value {
    json!({
        "resource": guard.resource().to_string(),
        "lock_id": guard.id().to_string(),
        "token": guard.token().get(),
        "mode": shape::mode(guard.mode()),
        "waited_ms": u64::try_from(guard.waited().as_millis()).unwrap_or(u64::MAX),
    })
}

/// What is left of the lease that ends first, right after it was granted.
fn shortest(guards: &[LockGuard]) -> Duration {
    guards.iter().map(LockGuard::lease_left).min().unwrap_or_default()
}

/// A signal that asks us to go, while there is no command yet to be asked.
async fn told_to_end(signals: &mut Signals) -> Signal {
    loop {
        if let Heard::Signal(signal) = signals.next().await
            && [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].contains(&signal)
        {
            return signal;
        }
    }
}

/// Gives the locks back, and waits until that is on record. A lock that turns out not to have been
/// ours any more is told.
async fn give_back(held: Held) -> Option<Resource> {
    let Held { guards, session, .. } = held;
    let mut lost = None;
    let mut releases: Vec<_> = guards
        .into_iter()
        .map(|guard| {
            let resource = guard.resource().clone();
            Box::pin(async move { guard.release().await.map_err(|error| (resource, error)) })
        })
        .collect();
    let released = poll_fn(|context| {
        releases.retain_mut(|release| match release.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                if let Err((resource, lockkeeper::ReleaseError::NotHeld { .. })) = outcome {
                    lost.get_or_insert(resource);
                }
                false
            }
        });
        if releases.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    // All of it travels at once. Where there is no answer, our end frees what is left.
    let both = async { tokio::join!(released, session.close()) };
    let _ = tokio::time::timeout(GIVEN_BACK_WITHIN, both).await;
    lost
}

fn passed_on(here: &Here, ended: child::Ended, grants: Value) -> Exit {
    if here.json {
        let fields = json!({
            "ok": true,
            "exit": ended.code(),
            "project": here.project,
            "agent": here.agent,
            "grants": grants,
        });
        output::remark(&fields.to_string());
    }
    if ended.was_interrupted() {
        child::die_interrupted();
    }
    Exit::Of(ended.code())
}

fn lost(losing: &Losing, name: &str) -> Trouble {
    let Losing { resource, why, .. } = losing;
    let (what, next) = match why {
        Why::NotRenewed => (
            "its lease could not be renewed in time: no daemon answered",
            "`lockkeeper doctor` looks for the cause".to_owned(),
        ),
        Why::TakenAway => (
            "it was taken away",
            format!("`lockkeeper why {resource}` tells by whom; what {name} did may be half done"),
        ),
        Why::GivenBack => (
            "it was given back, or its session ended",
            format!("`lockkeeper why {resource}` tells by whom; what {name} did may be half done"),
        ),
        Why::FoundLost => (
            "it was no longer ours when the command ended",
            format!("`lockkeeper why {resource}` tells since when; check what {name} did"),
        ),
    };
    let ended = match (&losing.cannot_end, why) {
        (_, Why::FoundLost) => String::new(),
        (None, _) => format!("; {name} was ended"),
        (Some(error), _) => format!("; {name} runs on, it cannot be ended: {error}"),
    };
    Trouble::new(Exit::Lost, "lost", format!("{resource} was lost while {name} ran: {what}{ended}"))
        .next(next)
        .with("resource", resource.to_string())
        .with("why", why.word())
}

/// After Ctrl-C and the like: whatever was asked for is forgotten with our connection.
fn left(signal: Signal) -> Trouble {
    let exit = match signal {
        Signal::INT => Exit::Interrupted,
        // The numbers of signals are small.
        other => Exit::Of(128 + u8::try_from(other.as_raw()).unwrap_or_default()),
    };
    Trouble::new(exit, "interrupted", "interrupted; you have left the queue")
}

/// With the exit code the user has chosen for locks that are not to be had.
fn in_their_code(mut trouble: Trouble, wanted: &Run) -> Trouble {
    if let (Exit::NotObtained, Some(code)) = (trouble.exit, wanted.conflict) {
        trouble.exit = Exit::Of(code);
    }
    trouble
}

fn unstarted(error: &SpawnError) -> Trouble {
    let code = if error.code() == 127 { "not_found" } else { "not_executable" };
    Trouble::new(Exit::Of(error.code()), code, format!("lockkeeper: {error}"))
}

fn unprepared(error: &io::Error) -> Trouble {
    let what = format!("no process can be had for the command: {error}");
    Trouble::new(Exit::Unavailable, "no_process", what)
}

fn unheard(error: &io::Error) -> Trouble {
    let what = format!("the system does not let signals be heard: {error}");
    Trouble::new(Exit::Unavailable, "no_signals", what)
}

/// The last part of a command's name, as a reason for those who wait.
fn short_name(command: &OsStr) -> String {
    let name = Path::new(command).file_name().unwrap_or(command);
    name.to_string_lossy().into_owned()
}

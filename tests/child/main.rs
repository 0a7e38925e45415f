//! The machine that runs a command under our eyes, seen from outside: what the command gets, how
//! it ends, and what is left when somebody is killed.
//!
//! | file | its part |
//! |---|---|
//! | `main.rs` | the parts this program plays, and the list of tests |
//! | `untouched.rs` | what a command inherits, and the codes it ends with |
//! | `ending.rs` | signals, deaths, and who is left after them |
//! | `keys.rs` | on a terminal: who has it, and what its keys do |
//!
//! The machine starts its own program again for its other parts, so this one is its own `main`:
//! a test starts `supervise COMMAND…` in a process of its own and looks at what comes of it.

#[allow(unused_imports, reason = "without a harness its own tests are empty")]
#[path = "../../crates/lockkeeper-cli/child/mod.rs"]
mod child;
mod ending;
mod keys;
mod untouched;

use child::{Heard, Prepared, Signals};
use rustix::process::Signal;
use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Write},
    panic,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// No test takes anything near this long, unless it waits for what never comes.
const TOO_LONG: Duration = Duration::from_secs(120);

type Test = (&'static str, fn());

/// Names a test after its function.
macro_rules! tests {
    ($($file:ident::$test:ident),* $(,)?) => {
        &[$((concat!(stringify!($file), "::", stringify!($test)), $file::$test)),*]
    };
}

const TESTS: &[Test] = tests![
    untouched::an_exit_code_is_passed_on,
    untouched::a_deadly_signal_becomes_a_code,
    untouched::what_cannot_be_run_is_told_as_a_shell_tells_it,
    untouched::ours_wins_in_the_environment,
    untouched::arguments_are_bytes,
    untouched::stdin_goes_straight_to_the_command,
    untouched::open_files_are_inherited_and_none_is_added,
    untouched::ignored_signals_stay_ignored,
    untouched::the_command_leads_a_group_of_its_own,
    ending::a_signal_to_us_is_passed_on,
    ending::a_signal_that_was_ignored_is_not_passed_on,
    ending::the_command_dies_of_what_we_are_told,
    ending::the_command_dies_with_us_at_once,
    ending::what_the_command_started_dies_with_us,
    ending::what_is_only_prepared_dies_with_us,
    ending::who_ignores_the_request_to_end_is_killed,
    ending::who_needs_a_moment_to_end_gets_it,
    ending::who_is_stopped_ends_too,
    ending::what_a_command_leaves_behind_can_be_ended,
    ending::what_a_command_leaves_behind_is_left_in_peace,
    ending::a_child_that_is_dropped_dies,
    keys::from_the_prompt_the_command_has_the_terminal,
    keys::the_interrupt_key_is_told_from_a_code,
    keys::the_interrupt_key_ends_the_script_around_us,
    keys::in_a_script_the_terminal_is_lent,
    keys::the_stop_key_stops_us_and_fg_lets_us_go_on,
];

fn main() -> ExitCode {
    if let Some(code) = child::trampoline() {
        return code;
    }
    let mut args = env::args_os();
    if args.next().is_some_and(|name| Path::new(&name).ends_with("stay")) {
        say("ready");
        loop {
            thread::park();
        }
    }
    let args: Vec<OsString> = args.collect();
    if let [part, words @ ..] = &args[..]
        && part == "supervise"
    {
        return supervise(words);
    }
    let wanted = args.iter().filter_map(|arg| arg.to_str()).find(|arg| !arg.starts_with('-'));
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(ourselves(), folder.path().join("stay")).expect("a link");
    let path = env::var_os("PATH").unwrap_or_default();
    let path =
        env::join_paths([folder.path().to_owned()].into_iter().chain(env::split_paths(&path)));
    PATH.set(path.expect("no colon in the folder")).expect("this is the only place");
    run(wanted.unwrap_or(""))
}

/// Where the programs are that a script may use. Among them is `stay`, another part of ours: it
/// says `ready` and stays until it is killed. A shell that says so may still be about to start
/// something, which then hears of a signal before it can feel it.
static PATH: OnceLock<OsString> = OnceLock::new();

fn path() -> &'static OsString {
    PATH.get().expect("it was set before the tests")
}

fn ourselves() -> PathBuf {
    env::current_exe().expect("we have a name")
}

/// Runs the tests with `wanted` in their name, one after the other: each has processes enough.
fn run(wanted: &str) -> ExitCode {
    let mut failed = Vec::new();
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(wanted)) {
        let (done, hangs) = std::sync::mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            if hangs.recv_timeout(TOO_LONG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                say(&format!("test {name} ... still waiting after {TOO_LONG:?}"));
                std::process::exit(1);
            }
        });
        let outcome = panic::catch_unwind(test);
        drop(done);
        watch.join().expect("the watch does not panic");
        say(&format!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" }));
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!("failed: {}", failed.join(", ")));
    ExitCode::FAILURE
}

fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What a verb would do with the machine, once `SIGURG` reaches us or the command is over. `THEN`
/// in the environment says what that is: `end` it with as many milliseconds of grace as `GRACE`
/// says, or `drop` it. With `prepare` it is never started at all.
fn supervise(words: &[OsString]) -> ExitCode {
    let then = env::var("THEN").unwrap_or_default();
    let grace = env::var("GRACE").ok().and_then(|text| text.parse().ok());
    let grace = Duration::from_millis(grace.unwrap_or(0));
    let env = [("SUPERVISED", OsString::from("ours"))];
    let prepared = Prepared::new().expect("it can be prepared");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.expect("a runtime").block_on(async {
        let mut signals = Signals::listen().expect("signals");
        let mut asked = signal(SignalKind::from_raw(Signal::URG.as_raw())).expect("signals");
        if then == "prepare" {
            say("prepared");
            while signals.next().await == Heard::Child {}
            return Ok(None);
        }
        let mut child = prepared.start(words, &env, signals).await?;
        let ended = tokio::select! {
            _ = asked.recv() => None,
            ended = child.wait() => Some(ended.expect("it can be waited for")),
        };
        if then != "end" {
            return Ok(ended);
        }
        let at_last = child.end(grace).await.expect("it can be ended");
        assert!(ended.is_none_or(|ended| ended == at_last));
        Ok::<_, child::SpawnError>(Some(at_last))
    });
    match ended {
        Ok(Some(ended)) => {
            if ended.was_interrupted() {
                child::die_interrupted();
            }
            ExitCode::from(ended.code())
        }
        Ok(None) => ExitCode::from(99),
        Err(error) => {
            let _ = writeln!(io::stderr(), "lockkeeper: {error}");
            ExitCode::from(error.code())
        }
    }
}

/// The command `supervise`, to be given a command.
fn supervisor() -> Command {
    let mut command = Command::new(ourselves());
    command.arg("supervise").stdin(Stdio::null()).env("PATH", path());
    command
}

/// The same, as a word for a shell.
fn supervisor_word() -> String {
    format!("'{}' supervise", ourselves().display())
}

/// A supervised shell whose stdout is read line by line.
struct Running {
    process: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn shell(script: &str, env: &[(&str, &str)]) -> Running {
        Running::of(supervisor().args(["sh", "-c", script]).envs(env.iter().copied()))
    }

    fn of(command: &mut Command) -> Running {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let out = process.stdout.take().map(BufReader::new).expect("it is a pipe");
        Running { process, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    fn signal(&self, name: &str) {
        kill(name, &self.process.id().to_string());
    }

    /// What is still written, until nobody is left who could: everybody who was started holds the
    /// pipe, so this comes back when they are all gone. With it, the supervisor's code.
    fn rest(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        io::Read::read_to_string(&mut self.out, &mut rest).expect("text");
        (self.process.wait().expect("it is ours").code(), rest)
    }
}

fn kill(name: &str, process: &str) {
    let status = Command::new("kill").args(["-s", name, "--", process]).status();
    assert!(status.expect("there is a `kill`").success(), "kill -{name} {process}");
}

/// Waits until a process with this command line exists. Nothing tells when one does.
fn await_process(words: &[&str]) {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let is_it = |process: io::Result<fs::DirEntry>| {
        let line = fs::read(process.ok()?.path().join("cmdline")).ok()?;
        let line: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        Some(line.windows(words.len()).any(|at| at == words))
    };
    while !fs::read_dir("/proc").expect("/proc").any(|process| is_it(process) == Some(true)) {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the process is stopped. That, too, is told to its parent alone.
fn await_stop(process: &str) {
    let stat = || fs::read_to_string(format!("/proc/{process}/stat")).expect("it is there");
    while !stat().contains(") T ") {
        thread::sleep(Duration::from_millis(2));
    }
}

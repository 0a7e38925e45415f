//! Starts a daemon when there is none, or when the one that runs is older than this program.
//!
//! Many may want to at once. A lock on a file beside the store lets one of them do it while the
//! others wait, so that there is one daemon in the end; and an older program that lost its daemon
//! to a newer one finds the newer one, not an empty place.
//!
//! The daemon says through a pipe that it serves, or why it cannot. Whatever else it has to say
//! goes to a log beside the store.

use super::{link, log};
use crate::{
    args::span,
    exit::Exit,
    output,
    places::{self, Here, runtime},
    trouble::Trouble,
};
use lockkeeper::{
    remote::Client,
    store::{self, Card},
    wire,
};
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a daemon that starts may keep everybody waiting. A large store takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one that was asked to end may take.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// After how long a daemon ends that nobody needs, unless the user says otherwise.
const IDLE_EXIT: Duration = Duration::from_secs(600);

/// Starts a daemon, unless somebody else just did.
pub(crate) async fn start(here: &Here) -> Result<Client, Trouble> {
    let _alone = alone(here).await?;
    match link::running(here).await {
        Ok(Some(client)) => Ok(client),
        Ok(None) => {
            // One that is about to end still has the store, and one that is about to serve has it
            // already; a program that serves nobody keeps it.
            if let Ok(Some(Card { reach: Some(_), pid, .. })) = store::owner(&here.store)
                && let Some(client) = here_or_gone(here, pid).await?
            {
                return Ok(client);
            }
            spawn(here).await
        }
        Err(trouble) if trouble.code == link::OTHER_PROTOCOL => {
            replace_unknown(here, trouble).await
        }
        Err(trouble) => Err(trouble),
    }
}

/// Lets a newer program take over from an older daemon. What is held stays held.
pub(crate) async fn hand_over(here: &Here) -> Result<Client, Trouble> {
    let _alone = alone(here).await?;
    // Another newer program may have been quicker.
    let old = match link::running(here).await? {
        Some(client) if !is_older(&client.hello().version) => return Ok(client),
        Some(client) => client,
        None => return spawn(here).await,
    };
    say_so(here, &old.hello().version);
    stop(here, &old).await?;
    drop(old);
    spawn(here).await
}

/// A daemon that speaks otherwise: an older one is asked to end in the words that never change.
async fn replace_unknown(here: &Here, trouble: Trouble) -> Result<Client, Trouble> {
    let version = trouble.more.get("daemon_version").and_then(Value::as_str).unwrap_or_default();
    if !is_older(version) {
        return Err(trouble.next("use the newer program, which is installed somewhere"));
    }
    say_so(here, version);
    stop_unknown(here).await?;
    spawn(here).await
}

/// Ends a daemon that speaks otherwise.
pub(crate) async fn stop_unknown(here: &Here) -> Result<(), Trouble> {
    let socket = here.socket.clone();
    let owner = store::owner(&here.store).ok().flatten();
    in_background(move || ask_to_stop(&socket)).await?.map_err(|error| {
        let what = format!("the daemon of another version cannot be asked to end: {error}");
        Trouble::new(Exit::Unavailable, "other_version", what)
    })?;
    match owner {
        Some(Card { pid, .. }) => gone(here, pid).await,
        None => Ok(()),
    }
}

fn say_so(here: &Here, version: &str) {
    if !here.json {
        output::remark(&format!(
            "the daemon is version {version}, this is {VERSION}: it hands over, locks stay held"
        ));
    }
}

/// Asks a daemon to end, and waits until it has.
pub(crate) async fn stop(here: &Here, client: &Client) -> Result<wire::Status, Trouble> {
    let status = client.stop().await.map_err(|error| {
        let what = format!("the daemon does not end: {error}");
        Trouble::new(Exit::Unavailable, "unavailable", what)
    })?;
    let pid = client.hello().pid;
    if tokio::time::timeout(ENDS_WITHIN, client.ended()).await.is_err() {
        return Err(not_ended(pid));
    }
    gone(here, Some(pid)).await?;
    Ok(status)
}

/// Waits until a process does not own the store any more: nobody does, or the next one. The
/// connection ends a little earlier than the daemon.
async fn gone(here: &Here, pid: Option<u32>) -> Result<(), Trouble> {
    let is_gone = async {
        loop {
            match store::owner(&here.store) {
                Ok(Some(card)) if card.pid == pid => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                _ => return,
            }
        }
    };
    tokio::time::timeout(ENDS_WITHIN, is_gone).await.map_err(|_| not_ended(pid.unwrap_or_default()))
}

/// Waits until the owner of the store serves, or does not own it any more.
async fn here_or_gone(here: &Here, pid: Option<u32>) -> Result<Option<Client>, Trouble> {
    let serves = async {
        loop {
            // What is wrong with one that has just begun is told by the next look.
            if let Ok(Some(client)) = link::running(here).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        client = serves => Ok(Some(client)),
        gone = gone(here, pid) => match gone {
            Ok(()) => Ok(None),
            Err(_) => Err(neither(pid.unwrap_or_default())),
        },
    }
}

fn neither(pid: u32) -> Trouble {
    let what = format!(
        "process {pid} has the store, and has neither served nor ended in {} s",
        ENDS_WITHIN.as_secs()
    );
    Trouble::new(Exit::Unavailable, "not_ended", what).next("look into its log, beside the store")
}

fn not_ended(pid: u32) -> Trouble {
    let what = format!(
        "the daemon, process {pid}, was asked to end and has not in {} s",
        ENDS_WITHIN.as_secs()
    );
    Trouble::new(Exit::Unavailable, "not_ended", what).next("look into its log, beside the store")
}

/// Whether a version comes before this program's.
pub(crate) fn is_older(version: &str) -> bool {
    fn numbers(version: &str) -> [u64; 3] {
        let plain = version.split(['-', '+']).next().unwrap_or_default();
        let mut parts = plain.split('.').map(|part| part.parse().unwrap_or(0));
        [(); 3].map(|()| parts.next().unwrap_or(0))
    }
    numbers(version) < numbers(VERSION)
}

/// The request to end as a line of its own: this much every version understands.
fn ask_to_stop(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ENDS_WITHIN))?;
    let method = wire::DAEMON_STOP;
    writeln!(stream, r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map(drop)
}

/// Only one starts a daemon at a time; the lock ends with the file.
async fn alone(here: &Here) -> Result<File, Trouble> {
    let path = beside(&here.store, ".start");
    let locked = in_background(move || -> io::Result<File> {
        if let Some(folder) = path.parent() {
            runtime::make_private(folder)?;
        }
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = runtime::no_link(options).open(&path)?;
        file.lock()?;
        Ok(file)
    });
    let locked = tokio::time::timeout(PATIENCE, locked).await.map_err(|_| {
        let what = "somebody else has been starting the daemon for a minute";
        Trouble::new(Exit::Unavailable, "start_hangs", what)
            .next("`lockkeeper serve` in a terminal shows what is wrong")
    })?;
    locked?.map_err(|error| {
        let what = format!("cannot write beside the store {}: {error}", here.store.display());
        Trouble::new(Exit::Store, "store", what)
            .next(format!("name another place with --store or {}", places::STORE))
    })
}

/// A file beside the store, by the end of its name.
pub(crate) fn beside(store: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(store);
    name.push(end);
    PathBuf::from(name)
}

/// After how long a daemon that was started by itself ends.
fn idle_exit() -> Result<Duration, Trouble> {
    let Some(text) = env::var_os(places::IDLE_EXIT).filter(|text| !text.is_empty()) else {
        return Ok(IDLE_EXIT);
    };
    let text = text.to_string_lossy();
    span::any(&text).map_err(|error| {
        let what = format!("{} is {text:?}: {error}", places::IDLE_EXIT);
        Trouble::new(Exit::Config, "bad_variable", what).next("unset it for 10 minutes")
    })
}

async fn spawn(here: &Here) -> Result<Client, Trouble> {
    let program = env::current_exe().map_err(|error| {
        let what = format!("this program cannot find itself to start the daemon: {error}");
        Trouble::new(Exit::Unavailable, "no_daemon", what).next("run `lockkeeper serve` yourself")
    })?;
    let log = log::open(&here.store).map_err(|error| {
        let what = format!("cannot write beside the store {}: {error}", here.store.display());
        Trouble::new(Exit::Store, "store", what)
    })?;
    let mut command = Command::new(program);
    command
        .args(["serve", "--background", "begin", "--idle-exit"])
        .arg(format!("{}ms", idle_exit()?.as_millis()))
        .arg("--store")
        .arg(&here.store)
        .arg("--socket")
        .arg(&here.socket)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    // It outlives whatever this command runs under, and must not take itself for a part of it.
    for name in places::OF_RUN {
        command.env_remove(name);
    }
    let told = in_background(move || -> io::Result<String> {
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        Ok(line)
    });
    let told = tokio::time::timeout(PATIENCE, told).await.map_err(|_| {
        let what = format!("the daemon does not get ready in {} s", PATIENCE.as_secs());
        Trouble::new(Exit::Unavailable, "no_daemon", what).next(read_the_log(here))
    })?;
    let line = told?.map_err(|error| {
        let what = format!("the daemon cannot be started: {error}");
        Trouble::new(Exit::Unavailable, "no_daemon", what)
    })?;
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    if said["ok"] == true {
        return link::running(here).await?.ok_or_else(|| {
            let what = "the daemon was ready, and is gone already";
            Trouble::new(Exit::Unavailable, "no_daemon", what).next(read_the_log(here))
        });
    }
    Err(Trouble::from_json(&said).unwrap_or_else(|| {
        let what = "the daemon died before it was ready";
        Trouble::new(Exit::Unavailable, "no_daemon", what).next(read_the_log(here))
    }))
}

fn read_the_log(here: &Here) -> String {
    format!("its log tells more: {}", log::path(&here.store).display())
}

/// Does something that makes the system wait, without keeping Ctrl-C from being heard.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Trouble::new(Exit::Unavailable, "unavailable", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_older("0.0.9") && is_older("0.0"));
        assert!(!is_older(VERSION) && !is_older("99.0.0") && !is_older("0.100.0"));
        assert!(is_older("") && is_older("garbage"), "whatever is no version is old");
        assert!(!is_older(&format!("{VERSION}-rc.1")));
    }
}

//! The verb `doctor`: looks for the usual troubles, and changes nothing.

use super::{link, log, look::Look, start};
use crate::{
    exit::Exit,
    output::{
        Answer,
        style::{Ink, Style},
        words,
    },
    places::{self, Here, project, runtime},
};
use lockkeeper::{AuditFilter, Contention, ContentionNow, Snapshot, StoreError, remote::Client};
#[cfg(target_os = "linux")]
use rustix::fs::statfs;
use rustix::{
    fs::{Access, access, statvfs},
    process::geteuid,
};
use serde_json::json;
use std::{
    fmt,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// What must be free on the disk, in bytes.
const ROOM_MIN: u64 = 64 << 20;

/// By how much two clocks of one machine may differ, in milliseconds.
const CLOCKS_DIFFER_MAX: u64 = 5_000;

/// How long somebody may wait before it is worth a word, in milliseconds.
const WAIT_LONG: u64 = 10 * 60_000;

/// How one thing is.
struct Check {
    name: &'static str,
    state: State,
    found: String,
    remedy: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Well,
    /// Worth a word, and no trouble.
    Note,
    Trouble,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Well => "ok",
            State::Note => "note",
            State::Trouble => "trouble",
        })
    }
}

/// All that was looked at.
#[derive(Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn well(&mut self, name: &'static str, found: impl Into<String>) {
        self.0.push(Check { name, state: State::Well, found: found.into(), remedy: None });
    }

    fn note(&mut self, name: &'static str, found: impl Into<String>) {
        self.0.push(Check { name, state: State::Note, found: found.into(), remedy: None });
    }

    fn trouble(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        let (found, remedy) = (found.into(), Some(remedy.into()));
        self.0.push(Check { name, state: State::Trouble, found, remedy });
    }

    fn answer(self, here: &Here) -> Answer {
        let style = Style::of_stdout();
        let mut lines = Vec::new();
        let mut checks = Vec::new();
        for Check { name, state, found, remedy } in &self.0 {
            let ink = match state {
                State::Well => Ink::Good,
                State::Note => Ink::Quiet,
                State::Trouble => Ink::Bad,
            };
            let word = style.paint(ink, &format!("{state:<8}"));
            let mut line = format!("{word}{name:<10}{found}");
            if let Some(remedy) = remedy {
                line.push_str(&format!("\n{:18}→ {remedy}", ""));
            }
            lines.push(line);
            checks.push(json!({
                "name": name,
                "state": state.to_string(),
                "found": found,
                "remedy": remedy,
            }));
        }
        let is_well = self.0.iter().all(|check| check.state != State::Trouble);
        let fields = json!({
            "version": start::VERSION,
            "project": here.project,
            "agent": here.agent,
            "store": here.store.display().to_string(),
            "socket": here.socket.display().to_string(),
            "checks": checks,
        });
        let exit = if is_well { Exit::Done } else { Exit::Config };
        Answer { exit, ..Answer::done(lines.join("\n"), fields) }
    }
}

pub(crate) async fn doctor(here: &Here) -> Answer {
    let mut findings = Findings::default();
    findings.well("version", start::VERSION);
    match project::ground(&here.folder) {
        Ok(_) => findings.well("project", here.project.clone()),
        Err(trouble) => {
            findings.trouble("project", trouble.message, trouble.next.unwrap_or_default());
        }
    }
    let named = match here.is_named {
        true => here.agent.clone(),
        false => format!("{} (give agents a name of their own: {})", here.agent, places::AGENT),
    };
    findings.well("agent", named);
    socket(here, &mut findings);
    let client = daemon(here, &mut findings).await;
    store(here, client.is_some(), &mut findings);
    disk(here, &mut findings);
    if let Some(client) = client {
        clock(&client, &mut findings);
        let mut look = Look::through(here, client);
        past(&mut look, &mut findings).await;
        stuck(&mut look, &mut findings).await;
    }
    findings.answer(here)
}

fn socket(here: &Here, findings: &mut Findings) {
    let path = &here.socket;
    let length = path.as_os_str().len();
    if length > runtime::SOCKET_PATH_MAX {
        let found = format!("{} has {length} bytes", path.display());
        let remedy = format!(
            "the system allows {}: name a shorter one with {}",
            runtime::SOCKET_PATH_MAX,
            places::SOCKET
        );
        return findings.trouble("socket", found, remedy);
    }
    if let Err(trouble) = path.parent().map_or(Ok(()), runtime::check_folder) {
        return findings.trouble("socket", trouble.message, trouble.next.unwrap_or_default());
    }
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            let remedy = "move it away, or name another place with --socket";
            findings.trouble("socket", format!("{} is no socket", path.display()), remedy);
        }
        Ok(found) if found.mode() & 0o077 != 0 => {
            let remedy = format!("chmod 600 {}", path.display());
            findings.trouble("socket", format!("{} is open to others", path.display()), remedy);
        }
        _ => findings.well("socket", path.display().to_string()),
    }
}

async fn daemon(here: &Here, findings: &mut Findings) -> Option<Client> {
    match link::running(here).await {
        Ok(Some(client)) => {
            let hello = client.hello();
            let found = format!("version {}, process {}", hello.version, hello.pid);
            let ours = here.store.display().to_string();
            match &hello.store {
                Some(store) if *store != ours => {
                    let remedy = "end it with `lockkeeper stop`, or name its store with --store";
                    findings.trouble("daemon", format!("it serves another store, {store}"), remedy);
                }
                _ if start::is_older(&hello.version) => findings.note(
                    "daemon",
                    format!("{found}; older than this program, the next lock replaces it"),
                ),
                _ if hello.version != start::VERSION => findings.note(
                    "daemon",
                    format!("{found}; newer than this program, which can be replaced, too"),
                ),
                _ => findings.well("daemon", found),
            }
            Some(client)
        }
        Ok(None) => {
            let left = here.socket.symlink_metadata().is_ok();
            let found = match left {
                true => "none runs; a socket was left over, the next one removes it",
                false => "none runs; the first lock starts one",
            };
            findings.well("daemon", found);
            None
        }
        Err(trouble) => {
            let remedy = format!("its log: {}", log::path(&here.store).display());
            findings.trouble("daemon", trouble.message, remedy);
            None
        }
    }
}

fn store(here: &Here, is_served: bool, findings: &mut Findings) {
    let path = &here.store;
    if let Ok(found) = path.metadata()
        && found.mode() & 0o077 != 0
    {
        let remedy = format!("it names tokens: chmod 600 {}", path.display());
        findings.trouble("store", format!("{} is open to others", path.display()), remedy);
    }
    folder_of(path, findings);
    match Snapshot::of(path).and_then(|mut snapshot| snapshot.check()) {
        Ok(checkup) if !checkup.problems.is_empty() => {
            let found = format!("{} is damaged: {}", path.display(), checkup.problems.join("; "));
            findings.trouble("store", found, "move it away, and restore a copy");
        }
        Ok(checkup) => {
            let size = mebibytes(checkup.bytes + checkup.log_bytes);
            let form = match checkup.schema == checkup.newest {
                true => String::new(),
                false => format!(", of an older form ({})", checkup.schema),
            };
            findings.well("store", format!("{}, {size}{form}", path.display()));
        }
        Err(StoreError::Missing { .. }) => {
            findings.well("store", format!("{} will be made by the first lock", path.display()));
        }
        Err(error) => {
            findings.trouble("store", error.to_string(), "mend that, or name another with --store");
        }
    }
    // A daemon has it open, so it can write there.
    let folder = nearest_folder(path);
    if !is_served && access(&folder, Access::WRITE_OK).is_err() {
        let remedy =
            format!("give yourself the right, or name another place with {}", places::STORE);
        let found = format!("the folder {} cannot be written", folder.display());
        findings.trouble("store", found, remedy);
    }
    let owner = lockkeeper::store::owner(path).ok().flatten();
    if let Some(owner) = owner.filter(|_| !is_served) {
        let pid = owner.pid.map_or("unknown".to_owned(), |pid| pid.to_string());
        let found = format!("process {pid} has it open and serves nobody at our socket");
        findings.trouble("store", found, "let that program end, or use another store for it");
    }
}

/// Whoever can write the folder of a store can put another one in its place, whatever its own
/// rights are. In a sticky folder nobody moves what belongs to somebody else.
fn folder_of(store: &Path, findings: &mut Findings) {
    let folder = nearest_folder(store);
    let Ok(found) = folder.metadata() else { return };
    let (mode, uid) = (found.mode(), found.uid());
    let is_sticky = mode & 0o1000 != 0;
    let who = if uid != geteuid().as_raw() && uid != 0 {
        "belongs to another user"
    } else if mode & 0o002 != 0 && !is_sticky {
        "can be written by everybody"
    } else if mode & 0o020 != 0 && !is_sticky {
        // Often a group of one.
        let found = format!("the folder {} can be written by its group", folder.display());
        return findings.note("store", format!("{found}, who can replace the store"));
    } else {
        return;
    };
    let found = format!("the folder {} {who}, who can replace the store", folder.display());
    let remedy = format!("chmod go-w {}, or use another: {}", folder.display(), places::STORE);
    findings.trouble("store", found, remedy);
}

/// The folder a file would be in, or what there is of it.
fn nearest_folder(path: &Path) -> PathBuf {
    let mut folders = path.ancestors().skip(1);
    folders.find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes.div_ceil(1024)),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

fn disk(here: &Here, findings: &mut Findings) {
    let folder = nearest_folder(&here.store);
    match statvfs(&folder) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free", mebibytes(free));
            match free < ROOM_MIN {
                true => findings.trouble("disk", text, "make room: without it nothing is granted"),
                false => findings.well("disk", text),
            }
        }
        Err(error) => findings.note("disk", format!("its room is not known: {error}")),
    }
    if let Some(kind) = shared_disk(&folder) {
        let found = format!("{} is on {kind}, where file locks may not hold", folder.display());
        let remedy = format!("keep the store on a local disk: {}", places::STORE);
        findings.trouble("disk", found, remedy);
    }
}

/// A disk of another machine, by the number Linux gives its kind.
#[cfg(target_os = "linux")]
fn shared_disk(folder: &Path) -> Option<&'static str> {
    const KINDS: &[(u64, &str)] = &[
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "SMB"),
        (0xfe53_4d42, "SMB"),
        (0x0102_1997, "9P"),
        (0x5346_414f, "AFS"),
    ];
    let kind = statfs(folder).ok()?.f_type as u64 & 0xffff_ffff;
    KINDS.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
fn shared_disk(folder: &Path) -> Option<&'static str> {
    let _ = folder;
    None
}

fn clock(client: &Client, findings: &mut Findings) {
    let (ours, theirs) = (words::now(), client.now());
    let apart = ours.since(theirs).max(theirs.since(ours));
    match apart > CLOCKS_DIFFER_MAX {
        // The daemon's clock does not jump: leases must not end when somebody sets the clock.
        true => findings.note(
            "clock",
            format!(
                "it was set by {} while the daemon ran; leases go on as they were",
                words::span(apart)
            ),
        ),
        false => findings.well("clock", "as the daemon's"),
    }
}

/// What is on record from the future was written when the clock was wrong.
async fn past(look: &mut Look, findings: &mut Findings) {
    let filter = AuditFilter { limit: Some(1), ..AuditFilter::default() };
    let now = look.now();
    let Ok(rows) = look.audit(&filter).await else { return };
    if let Some(last) = rows.first()
        && last.event_time.since(now) > CLOCKS_DIFFER_MAX
    {
        let found = format!("the store has something on record at {}", last.event_time);
        findings.trouble("clock", found, "set the clock right: it is behind");
    }
}

/// Whoever waits for long, of this project.
async fn stuck(look: &mut Look, findings: &mut Findings) {
    let Ok(contended) = look.see(ContentionNow {}).await else { return };
    let long = |one: &&Contention| one.longest_wait_ms > WAIT_LONG;
    for one in contended.iter().filter(long).take(3) {
        let waited = words::span(one.longest_wait_ms);
        findings.note(
            "waits",
            format!("somebody has waited {waited} for {0}: `lockkeeper why {0}`", one.resource),
        );
    }
}

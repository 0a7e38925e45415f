//! A process that holds locks is killed with SIGKILL at random moments, and whoever opens the store
//! next must find everything that was acknowledged and nothing that contradicts it.
//!
//! The victim is this test itself, started again. Its clients write down what they asked for and
//! what they were told into one file, a line at a time, so that the order of the lines is the order
//! of things. A few rounds run by themselves; a night's worth:
//!
//! ```sh
//! LOCKKEEPER_CRASH_ROUNDS=200 cargo test --release -p lockkeeper --test crash
//! ```

#![allow(clippy::unwrap_used, reason = "a test")]

use lockkeeper::{
    Answer, AuditFilter, AuditRow, Command, Config, Credential, Durability, LockId, LockManager,
    Renew, Resource, Token,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

const FOLDER: &str = "LOCKKEEPER_CRASH_FOLDER";
const ROUNDS: &str = "LOCKKEEPER_CRASH_ROUNDS";
const PROJECT: &str = "demo";
const KILLED: &str = "killed";
const CLIENTS: u64 = 24;
const RESOURCES: u64 = 6;

/// A small generator, so that the moments differ and can be told.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the clients knew, line by line. A line is one write, so lines are never mixed.
struct Diary(File);

impl Diary {
    fn note(&self, line: &str) {
        (&self.0).write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_victim() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let diary = OpenOptions::new().create(true).append(true).open(folder.join("diary")).unwrap();
    let diary = Arc::new(Diary(diary));
    let power = env::var("LOCKKEEPER_CRASH_POWER").is_ok();
    let durability = if power { Durability::Power } else { Durability::Process };
    let config = Config { durability, ..Config::at(folder.join("locks.db")) };
    let manager = LockManager::open_with(config).await.unwrap();
    let clients = (0..CLIENTS).map(|at| tokio::spawn(client(manager.clone(), diary.clone(), at)));
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.await.unwrap();
    }
}

/// Takes locks and gives them back until it is killed; every third client leaves some behind that
/// are meant to survive.
async fn client(manager: LockManager, diary: Arc<Diary>, at: u64) {
    let mut dice = Dice(u64::from(std::process::id()) << 8 | (at + 1));
    let detached = at.is_multiple_of(3);
    let request = manager.session(PROJECT, &format!("client-{at}"));
    let session = if detached { request.detached() } else { request }.await.unwrap();
    loop {
        let leaves = detached && dice.roll(4) == 0;
        let name = match leaves {
            // Nobody else wants those.
            true => Resource::database(&format!("{}/{at}/{}", std::process::id(), dice.roll(1000))),
            false => Resource::file(&format!("shared/{}", dice.roll(RESOURCES))),
        };
        let Ok(guard) = session.try_acquire(name.clone()).wait(Duration::from_secs(5)).await else {
            continue;
        };
        let (lock, token) = (guard.id(), guard.token());
        let kind = if detached { "detached" } else { "attached" };
        diary.note(&format!("granted {lock} {token} {kind} {name}"));
        if leaves {
            guard.leave();
            continue;
        }
        // Some are inside when the end comes.
        match dice.roll(8) {
            0 => tokio::time::sleep(Duration::from_millis(dice.roll(30))).await,
            _ => tokio::task::yield_now().await,
        }
        diary.note(&format!("releases {lock} {token} {kind} {name}"));
        guard.release().await.unwrap();
        diary.note(&format!("released {lock} {token} {kind} {name}"));
    }
}

/// One hold as its client knew it.
#[derive(Debug)]
struct Known {
    token: u64,
    detached: bool,
    name: String,
    asked_to_release: bool,
    released: bool,
}

/// Reads the diary and, on the way, counts who was inside: I1, as seen by the clients.
fn read_diary(path: &Path) -> BTreeMap<LockId, Known> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut known: BTreeMap<LockId, Known> = BTreeMap::new();
    let mut inside: HashMap<String, LockId> = HashMap::new();
    let mut newest: HashMap<String, u64> = HashMap::new();
    for line in text.lines() {
        if line == KILLED {
            // Whoever died with its process is outside; what was meant to survive is not.
            inside.retain(|_, lock| known[lock].detached);
            continue;
        }
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().unwrap().to_owned();
        let (what, lock, token, kind, name) = (word(), word(), word(), word(), word());
        let lock: LockId = lock.parse().unwrap();
        let token: u64 = token.parse().unwrap();
        match what.as_str() {
            "granted" => {
                assert_eq!(inside.insert(name.clone(), lock), None, "two inside {name}: {line}");
                let last = newest.insert(name.clone(), token).unwrap_or(0);
                assert!(token > last, "{name}: token {token} after {last} (I2, I5)");
                let detached = kind == "detached";
                let fresh =
                    Known { token, detached, name, asked_to_release: false, released: false };
                assert!(known.insert(lock, fresh).is_none(), "a lock id came twice: {line}");
            }
            "releases" => {
                assert_eq!(inside.remove(&name), Some(lock), "{line}");
                known.get_mut(&lock).unwrap().asked_to_release = true;
            }
            _ => known.get_mut(&lock).unwrap().released = true,
        }
    }
    known
}

/// The audit log since the last round, by lock: with which token it was granted, why it ended.
fn read_audit(rows: &[AuditRow]) -> BTreeMap<LockId, (u64, Option<String>)> {
    let mut seen = BTreeMap::new();
    let mut newest = 0;
    for row in rows {
        let fact = |name: &str| row.details.get(name);
        let lock = |fact: &serde_json::Value| fact["lock"].as_str().unwrap().parse().unwrap();
        if let Some(granted) = fact("granted") {
            let token = granted["token"].as_u64().unwrap();
            assert!(token > newest, "token {token} was given after {newest} (I2)");
            newest = token;
            assert!(seen.insert(lock(granted), (token, None)).is_none());
        }
        if let Some(released) = fact("released") {
            let entry = seen.get_mut(&lock(released)).expect("released, but never granted");
            assert!(entry.1.is_none(), "released twice: {released}");
            entry.1 = Some(released["cause"].to_string());
        }
    }
    seen
}

struct Reaper(Child);

impl Drop for Reaper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the victim, lets it work for a while, and kills it.
fn kill_it_at_some_moment(folder: &Path, dice: &mut Dice, power: bool) {
    let mut victim = std::process::Command::new(env::current_exe().unwrap());
    victim.args(["--exact", "the_victim", "--nocapture"]).env(FOLDER, folder);
    if power {
        victim.env("LOCKKEEPER_CRASH_POWER", "1");
    }
    let child = victim.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut victim = Reaper(child);
    // The moment is random, not its distance from anything that is asserted.
    std::thread::sleep(Duration::from_millis(20 + dice.roll(250)));
    assert!(victim.0.try_wait().unwrap().is_none(), "the victim ended by itself");
    drop(victim);
    let diary = OpenOptions::new().create(true).append(true).open(folder.join("diary")).unwrap();
    // What was cut off in the middle of a line ends here.
    let text = std::fs::read_to_string(folder.join("diary")).unwrap();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    (&diary).write_all(format!("{end}{KILLED}\n").as_bytes()).unwrap();
}

/// I1, I2, I5, I11, I17 across the death of the process: everything that was acknowledged is there,
/// what its owner's death ended is released, and what was meant to survive did, with its token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_survives_kill_nine() {
    if env::var(FOLDER).is_ok() {
        return;
    }
    let rounds: u64 = env::var(ROUNDS).map_or(4, |text| text.parse().unwrap());
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut dice = Dice(seed);
    let (mut grants, mut survivors, mut orphans) = (0, 0, 0);
    for round in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..1 + dice.roll(2) {
            kill_it_at_some_moment(folder.path(), &mut dice, round % 2 == 1);
        }
        let seen = check(folder.path()).await;
        grants += seen.0;
        survivors += seen.1;
        orphans += seen.2;
    }
    println!(
        "{rounds} rounds, seed {seed}: {grants} grants acknowledged, {survivors} holds survived, \
         {orphans} died with their owner"
    );
    assert!(grants > 0, "nothing was granted in any round, so nothing was shown");
}

async fn check(folder: &Path) -> (usize, usize, usize) {
    let known = read_diary(&folder.join("diary"));
    let manager = LockManager::open(folder.join("locks.db")).await.unwrap();
    let demo = manager.project(PROJECT).await.unwrap();
    let held: BTreeMap<LockId, String> = {
        let list = demo.list().await.unwrap();
        let names: BTreeSet<&Resource> = list.iter().map(|holder| &holder.resource).collect();
        assert_eq!(names.len(), list.len(), "two exclusive holds of one resource (I1)");
        list.iter().map(|holder| (holder.lock, holder.resource.to_string())).collect()
    };
    let filter = AuditFilter { oldest_first: true, limit: Some(usize::MAX), ..Default::default() };
    let audit = read_audit(&demo.audit(filter).await.unwrap());
    let (mut survivors, mut orphans) = (0, 0);
    for (lock, known) in &known {
        let (token, ended) = audit.get(lock).expect("an acknowledged grant is gone");
        assert_eq!(*token, known.token, "{known:?}");
        match ended {
            None => {
                assert!(known.detached, "outlived its owner: {known:?}");
                assert!(!known.released, "an acknowledged release is gone: {known:?}");
                assert_eq!(held.get(lock), Some(&known.name), "{known:?}");
                renew_by_token(&manager, *lock, known.token).await;
                survivors += 1;
            }
            Some(_) if known.asked_to_release => {}
            Some(cause) => {
                assert!(!known.detached, "released by nobody ({cause}): {known:?}");
                assert!(cause.contains("owner_died"), "{cause}: {known:?}");
                orphans += 1;
            }
        }
    }
    for lock in held.keys() {
        assert!(audit.get(lock).is_some_and(|(_, ended)| ended.is_none()), "held off the record");
    }
    let newest = audit.values().map(|(token, _)| *token).max().unwrap_or(0);
    let session = demo.session("after").await.unwrap();
    let guard = session.acquire(Resource::file("after")).await.unwrap();
    assert!(guard.token().get() > newest, "tokens go back after a crash (I2)");
    guard.release().await.unwrap();
    manager.shutdown().await;
    (known.len(), survivors, orphans)
}

/// Whoever knows the token of a hold that survived can go on with it.
async fn renew_by_token(manager: &LockManager, lock: LockId, token: u64) {
    let renew = Renew {
        by: Credential::Token(Token::from_u64(token)),
        lock,
        lease: None,
        shorten: false,
        request_id: None,
    };
    let actor = manager.lock_actor(PROJECT).await.unwrap();
    let answer = actor.ask(Command::from(renew)).send().await.unwrap();
    assert!(matches!(answer, Answer::Renewed { .. }), "{answer:?}");
}

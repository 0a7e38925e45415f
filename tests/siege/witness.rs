//! Real processes under torment, and a judge who believes none of them: everything that clients saw
//! is checked for I1 to I5, and against the published models of locks.
//!
//! The same over a daemon and over the library. `LOCKKEEPER_SIEGE_SECONDS=600 cargo test --test
//! siege` does it for longer. Then some of it is broken on purpose, to see that the judge can say
//! no.

use crate::{
    PATIENCE, PROJECT,
    client::{Locks, Part, capacities},
    daemon::{Daemon, signal},
    fence::{Gates, serve},
    notes::{Diary, now, read_all},
    proxy::{Lie, Proxy},
};
use lockkeeper::{
    LockManager,
    remote::{Address, Connect},
};
use lockkeeper_sim::{
    Invariant,
    history::{Fault, Summary, What, check, check_models},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rustix::process::Signal;
use std::{
    path::PathBuf,
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub(crate) fn seconds(unless_said: u64) -> Duration {
    let asked = std::env::var("LOCKKEEPER_SIEGE_SECONDS").ok();
    Duration::from_secs(asked.and_then(|asked| asked.parse().ok()).unwrap_or(unless_said))
}

fn seed() -> u64 {
    let asked = std::env::var("LOCKKEEPER_SIEGE_SEED").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or_else(now)
}

/// One that is tormented, and its line to the daemon.
struct Client {
    part: Part,
    process: Child,
    line: Option<Proxy>,
}

/// Everybody, in one folder.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) daemon: Option<Daemon>,
    /// The daemon is left alone, and so are the clients' clocks: they are only killed and cut off.
    pub(crate) spares_the_daemon: bool,
    pace: u64,
    clients: Vec<Client>,
    /// What happens to whom is known here before it happens.
    fate: Diary,
    dice: SmallRng,
    last: u32,
    kills: u32,
    pauses: u32,
    cuts: u32,
}

/// So many locks must have been given back, and as many operations let in, before anything is said
/// about all of them.
const ENOUGH: u32 = 100;

/// The notes of the tormentor.
const FATE: u32 = 0;

impl World {
    fn new(daemon: bool, clients: usize, gates: Gates, lie: Lie) -> World {
        World::paced(daemon, clients, gates, lie, 0)
    }

    pub(crate) fn paced(daemon: bool, clients: usize, gates: Gates, lie: Lie, pace: u64) -> World {
        let folder = TempDir::with_prefix_in("lk", "/tmp").expect("a folder in /tmp");
        serve(&Part::fence(folder.path()), gates);
        let seed = seed();
        println!("LOCKKEEPER_SIEGE_SEED={seed}");
        let mut world = World {
            daemon: daemon.then(Daemon::start),
            spares_the_daemon: false,
            pace,
            clients: Vec::new(),
            fate: Diary::open(folder.path(), FATE),
            dice: SmallRng::seed_from_u64(seed),
            folder,
            last: FATE,
            kills: 0,
            pauses: 0,
            cuts: 0,
        };
        for _ in 0..clients {
            let client = world.client(lie);
            world.clients.push(client);
        }
        world
    }

    /// One more client.
    fn client(&mut self, lie: Lie) -> Client {
        self.last += 1;
        let folder = self.folder.path().to_owned();
        let (locks, line) = match &self.daemon {
            None => (Locks::Embedded(folder.join("locks.db")), None),
            Some(daemon) => {
                let socket = folder.join(format!("p{}", self.last));
                let line = Proxy::start(&socket, daemon.socket(), lie);
                (Locks::Daemon(socket), Some(line))
            }
        };
        // What lives in the process dies with it.
        let lingers = line.is_some() && self.last.is_multiple_of(3);
        let linger = Duration::from_secs(lingers.into());
        let (process, seed, pace) = (self.last, self.dice.random(), self.pace);
        let part = Part { process, seed, folder, locks, linger, pace };
        Client { process: part.start(), part, line }
    }

    fn pause_for(&mut self) -> Duration {
        self.pauses += 1;
        // Longer than most leases.
        Duration::from_millis(self.dice.random_range(50..900))
    }

    /// Something bad happens to somebody.
    pub(crate) fn torment(&mut self) {
        let at = self.dice.random_range(0..self.clients.len());
        let has_daemon = self.daemon.is_some() && !self.spares_the_daemon;
        match self.dice.random_range(0..10) {
            0..2 if has_daemon => {
                let daemon = self.daemon.as_mut().expect("it is there");
                daemon.kill();
                self.kills += 1;
                sleep(Duration::from_millis(self.dice.random_range(0..100)));
                daemon.start_again();
            }
            2 if has_daemon => {
                let long = self.pause_for();
                let daemon = self.daemon.as_ref().expect("it is there");
                daemon.pause();
                sleep(long);
                daemon.go_on();
            }
            0..5 => {
                let process = self.clients[at].part.process;
                self.fate.note_of(process, What::Cut);
                let client = &mut self.clients[at];
                client.process.kill().expect("it is ours");
                client.process.wait().expect("it ends");
                self.kills += 1;
                self.clients[at] = self.client(Lie::None);
            }
            5..8 if !self.spares_the_daemon => {
                let long = self.pause_for();
                signal(&self.clients[at].process, Signal::STOP);
                sleep(long);
                signal(&self.clients[at].process, Signal::CONT);
            }
            _ => {
                let Some(line) = &self.clients[at].line else { return };
                self.fate.note_of(self.clients[at].part.process, What::Cut);
                line.cut();
                self.cuts += 1;
            }
        }
    }

    /// For so long, and until there was enough to be seen.
    fn torment_for(&mut self, long: Duration) {
        let started = Instant::now();
        // Whoever has the store to itself needs time to open it.
        let most = if self.daemon.is_some() { 250 } else { 1_500 };
        while started.elapsed() < long || !self.has_seen_enough() {
            assert!(started.elapsed() < long + PATIENCE, "nobody gets anything done");
            sleep(Duration::from_millis(self.dice.random_range(20..most)));
            self.torment();
        }
    }

    fn has_seen_enough(&self) -> bool {
        let (mut released, mut accepted) = (0, 0);
        for note in read_all(self.folder.path()) {
            released += u32::from(matches!(note.what, What::Released { over: true }));
            accepted += u32::from(matches!(note.what, What::Accepted { .. }));
        }
        released > ENOUGH && accepted > ENOUGH
    }

    /// Lets everybody finish what they are at.
    pub(crate) fn finish(&mut self) {
        std::fs::write(Part::stop(self.folder.path()), "").expect("there is room");
        for client in &mut self.clients {
            let started = Instant::now();
            while client.process.try_wait().expect("it is ours").is_none() {
                assert!(started.elapsed() < PATIENCE, "a client does not come to an end");
                sleep(Duration::from_millis(5));
            }
            let ended = client.process.wait().expect("it is ours");
            assert!(ended.success(), "client {} failed", client.part.process);
        }
    }

    /// What the judge makes of it; the notes are kept if they are not to his liking.
    fn judge(&self) -> Result<(Summary, usize), Fault> {
        let notes = read_all(self.folder.path());
        let started = Instant::now();
        let summary = check(&notes, &capacities())?;
        let judged = check_models(&notes, &capacities())?;
        println!(
            "{} kills, {} pauses, {} cuts; {summary}; {} notes judged in {:?}, {judged} times a \
             model of a lock",
            self.kills,
            self.pauses,
            self.cuts,
            notes.len(),
            started.elapsed()
        );
        Ok((summary, judged))
    }

    fn keep_notes(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// It was a good lock service, and there was something to be seen.
    pub(crate) fn must_be_right(mut self) {
        self.finish();
        match self.judge() {
            Ok((summary, judged)) => {
                assert!(summary.released > 0 && summary.accepted > 0, "{summary}");
                assert!(summary.lost > 0 && judged >= 5, "{summary}, {judged} models");
            }
            Err(fault) => panic!("{fault}\nthe notes are in {}", self.keep_notes().display()),
        }
    }

    /// Something is wrong with it: the judge must say so.
    fn must_be_wrong(mut self) -> Fault {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            sleep(Duration::from_millis(500));
            if let Err(fault) = self.judge() {
                println!("{fault}");
                return fault;
            }
        }
        panic!("nobody notices: the notes are in {}", self.keep_notes().display());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for client in &mut self.clients {
            let _ = client.process.kill();
            let _ = client.process.wait();
        }
    }
}

/// I18: when all are gone nothing is left of them, save detached sessions, which nobody has missed
/// for long enough yet.
pub(crate) async fn is_at_rest(address: Address) {
    let connect = Connect { give_up_after: PATIENCE, ..Connect::to(address) };
    let manager = LockManager::connect_with(connect).await.expect("the daemon is there");
    let project = manager.project(PROJECT).await.expect("a project");
    let rest = async {
        loop {
            let stats = project.stats().await.expect("a view");
            let left = [stats.holds, stats.tickets, stats.graph_nodes, stats.graph_edges];
            if left == [0; 4] && stats.resources == stats.capacities {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rest).await.expect("something is left over for ever");
}

#[test]
fn clients_of_a_daemon_see_a_lock_service() {
    let mut world = World::new(true, 3, Gates::Right, Lie::None);
    world.torment_for(seconds(10));
    let address = world.daemon.as_ref().expect("it is there").address();
    std::fs::write(Part::stop(world.folder.path()), "").expect("there is room");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    world.finish();
    runtime.block_on(is_at_rest(address));
    assert!(world.kills > 0 && world.pauses > 0 && world.cuts > 0, "there was no torment");
    world.must_be_right();
}

#[test]
fn users_of_the_library_see_a_lock_service() {
    let mut world = World::new(false, 1, Gates::Right, Lie::None);
    world.torment_for(seconds(8));
    assert!(world.kills > 0 && world.pauses > 0, "there was no torment");
    world.must_be_right();
}

fn broken(fault: &Fault) -> Invariant {
    match fault {
        Fault::Broken(violation) => violation.invariant,
        other => panic!("{other}"),
    }
}

/// Nobody stands in front of the resources: sooner or later somebody writes who should not.
#[test]
fn red_without_a_gate() {
    let fault = World::new(true, 2, Gates::Open, Lie::None).must_be_wrong();
    assert_eq!(broken(&fault), Invariant::I4);
}

/// `<=` where it should be `<`: a holder comes more than once.
#[test]
fn red_with_a_gate_that_takes_a_token_once() {
    let fault = World::new(true, 2, Gates::Once, Lie::None).must_be_wrong();
    assert_eq!(broken(&fault), Invariant::I3);
}

/// A service that ends leases before it said it would, and so lets two in.
#[test]
fn red_when_the_service_lets_two_in() {
    let fault = World::new(true, 2, Gates::Right, Lie::LongLease).must_be_wrong();
    assert!(matches!(broken(&fault), Invariant::I1 | Invariant::I3));
}

/// A service whose tokens go back.
#[test]
fn red_when_tokens_go_back() {
    let fault = World::new(true, 2, Gates::Right, Lie::OldToken).must_be_wrong();
    assert!(matches!(broken(&fault), Invariant::I2 | Invariant::I3 | Invariant::I5));
}

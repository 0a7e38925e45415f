//! A process under torment: a few agents that take locks, use what these protect, and write down
//! what they asked for and what they were told.
//!
//! They are no good agents. They sleep through their leases and go on as if nothing had happened,
//! give up in the middle of a request, forget to give back, hang up before they hear whether they
//! have written. The locks and the gates behind them must bear it.

use crate::{
    PATIENCE, PROJECT,
    fence::{Said, Show},
    notes::{Diary, now},
};
use lockkeeper::{
    AcquireError, Config, LockGuard, LockManager, LockMode, Lost, ReleaseError, RenewError,
    Resource, Session,
    remote::{Address, Connect},
};
use lockkeeper_sim::history::{Capacities, Ended, What};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use std::{
    os::unix::process::parent_id,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::{sleep, timeout},
};

/// In the environment: what part this program plays.
const PART: &str = "LOCKKEEPER_SIEGE_PART";

/// How many agents there are in each process.
const AGENTS: u64 = 4;

/// How many may be in the pool.
pub(crate) const PERMITS: u32 = 3;

/// Where a client finds everything.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) process: u32,
    pub(crate) seed: u64,
    /// Notes are written there, the gates are at `f`, and when `stop` is there it is time to go.
    pub(crate) folder: PathBuf,
    pub(crate) locks: Locks,
    /// How long attached sessions outlive their connection.
    pub(crate) linger: Duration,
    /// Between two locks an agent thinks for at most so many milliseconds.
    pub(crate) pace: u64,
}

/// Who keeps the locks.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Locks {
    /// A daemon at this socket.
    Daemon(PathBuf),
    /// This process, in this file.
    Embedded(PathBuf),
}

impl Part {
    /// Starts a process for it.
    pub(crate) fn start(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("we have a name"));
        command.args(["--exact", "client::the_client", "--nocapture"]);
        command.env(PART, serde_json::to_string(self).expect("it can be written"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts")
    }

    pub(crate) fn fence(folder: &Path) -> PathBuf {
        folder.join("f")
    }

    pub(crate) fn stop(folder: &Path) -> PathBuf {
        folder.join("stop")
    }

    /// Whether it is time to go: as it was told, or because whoever started it is gone.
    fn is_over(folder: &Path) -> bool {
        static PARENT: OnceLock<u32> = OnceLock::new();
        let parent = parent_id();
        *PARENT.get_or_init(|| parent) != parent || Part::stop(folder).exists()
    }
}

/// What is in use.
pub(crate) fn capacities() -> Capacities {
    Capacities::from([(pool(), PERMITS)])
}

fn pool() -> Resource {
    Resource::llm("pool")
}

/// Not a test by itself: the process that is tormented.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client() {
    let Ok(part) = std::env::var(PART) else { return };
    let part: Part = serde_json::from_str(&part).expect("a part");
    let (manager, attached) = match &part.locks {
        Locks::Embedded(store) => {
            let manager = LockManager::open_with(Config::at(store)).await;
            (manager.expect("its last owner is dead"), true)
        }
        Locks::Daemon(socket) => {
            let connect = Connect {
                linger: part.linger,
                give_up_after: PATIENCE,
                ..Connect::to(Address::Unix(socket.clone()))
            };
            // The daemon may just be dead.
            let manager = loop {
                match LockManager::connect_with(connect.clone()).await {
                    Ok(manager) => break manager,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
                if Part::is_over(&part.folder) {
                    return;
                }
            };
            (manager, part.process.is_multiple_of(2))
        }
    };
    let project = manager.project(PROJECT).await.expect("a project");
    let _ = project.declare_capacity(pool(), Some(PERMITS)).await;
    let diary = Arc::new(Diary::open(&part.folder, part.process));
    let values = Arc::new(AtomicU64::new(u64::from(part.process) << 32));
    let agents: Vec<_> = (0..AGENTS)
        .map(|nth| {
            let agent = Agent {
                manager: manager.clone(),
                name: format!("agent-{}-{nth}", part.process),
                diary: diary.clone(),
                folder: part.folder.clone(),
                values: values.clone(),
                dice: SmallRng::seed_from_u64(part.seed ^ nth << 32 ^ u64::from(part.process)),
                gates: None,
                // Of each process some may live on without it.
                attached: attached && nth > 0 || nth == 3,
                linger: part.linger,
                pace: part.pace,
            };
            tokio::spawn(agent.live())
        })
        .collect();
    for agent in agents {
        agent.await.expect("nothing went wrong");
    }
    manager.shutdown().await;
}

/// One of them.
struct Agent {
    manager: LockManager,
    name: String,
    diary: Arc<Diary>,
    folder: PathBuf,
    values: Arc<AtomicU64>,
    dice: SmallRng,
    gates: Option<BufReader<UnixStream>>,
    attached: bool,
    linger: Duration,
    pace: u64,
}

/// What an agent has: a hold, as often as it was counted.
struct Held {
    guards: Vec<LockGuard>,
    is_lost: bool,
}

/// When a lease ends, by the clock of the notes: no later than the guard believes. Of one that is
/// over nobody here knows since when.
fn until(guard: &LockGuard) -> u64 {
    let asked = now();
    match u64::try_from(guard.lease_left().as_nanos()).expect("a few seconds") {
        0 => 0,
        left => asked + left,
    }
}

impl Agent {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice.random_range(0..sides)
    }

    async fn live(mut self) {
        let mut session = self.open().await;
        while !Part::is_over(&self.folder) {
            let Some(old) = session else {
                session = self.open().await;
                continue;
            };
            session = if self.work(&old).await { Some(old) } else { None };
            if self.pace > 0 {
                sleep(Duration::from_millis(self.roll(self.pace))).await;
            }
        }
    }

    async fn open(&mut self) -> Option<Session> {
        let request = self.manager.session(PROJECT, &self.name);
        let request = if self.attached { request } else { request.detached() };
        let session = request.await.ok()?;
        let linger = u64::try_from(self.linger.as_nanos()).expect("a few seconds");
        let (id, attached) = (session.id(), self.attached);
        self.diary.note(What::Opened { session: id, attached, linger });
        Some(session)
    }

    /// One lock, from beginning to end. Whether the session is still there.
    async fn work(&mut self, session: &Session) -> bool {
        let (resource, mode) = match self.roll(8) {
            0..2 => (Resource::file("alone"), LockMode::Exclusive),
            2 => (Resource::file("alone-too"), LockMode::Exclusive),
            3 => (Resource::file("counted"), LockMode::Exclusive),
            4 => (Resource::file("read"), LockMode::Exclusive),
            5 => (Resource::file("read"), LockMode::Shared),
            6 => (pool(), LockMode::Permit(1)),
            _ => (pool(), LockMode::Permit(2)),
        };
        let mut held = Held { guards: Vec::new(), is_lost: false };
        if !self.take(session, &resource, mode, &mut held).await {
            return false;
        }
        if held.guards.is_empty() {
            return true;
        }
        for _ in 0..self.roll(6) {
            match self.roll(12) {
                0 => self.renew(&held).await,
                1..4 if resource.key() == "counted" => {
                    if !self.take(session, &resource, mode, &mut held).await {
                        return false;
                    }
                }
                // Sometimes until long after the lease.
                1 => sleep(Duration::from_millis(self.roll(700))).await,
                2..4 => sleep(Duration::from_millis(self.roll(10))).await,
                _ => self.touch(&held, mode).await,
            }
            self.look(&mut held);
        }
        self.give(held).await
    }

    /// Asks for a lock, and sometimes thinks better of it. Whether the session is still there.
    async fn take(
        &mut self,
        session: &Session,
        resource: &Resource,
        mode: LockMode,
        held: &mut Held,
    ) -> bool {
        let lease = Duration::from_millis(100 + self.roll(400));
        let wait = if self.roll(8) == 0 { Duration::ZERO } else { Duration::from_secs(5) };
        let request = session.acquire(resource.clone()).mode(mode).lease(lease).wait(wait);
        let request = if resource.key() == "counted" { request.reentrant() } else { request };
        let patience = match self.roll(10) {
            0 => Duration::from_millis(self.roll(30)),
            _ => PATIENCE,
        };
        let (session, resource) = (session.id(), resource.clone());
        let call = self.diary.ask(What::Acquire { session, resource, mode });
        let answer = timeout(patience, async { request.await }).await;
        let (what, goes_on) = match &answer {
            Ok(Ok(guard)) => {
                let (lock, token, slots) = (guard.id(), guard.token(), guard.slots());
                (What::Granted { lock, token, slots, until: until(guard) }, true)
            }
            Ok(Err(AcquireError::Unavailable(_))) | Err(_) => (What::Unanswered, true),
            Ok(Err(error)) => {
                let goes_on = !matches!(error, AcquireError::SessionEnded { .. });
                (What::Refused { code: error.code().to_owned() }, goes_on)
            }
        };
        self.diary.told(call, what);
        held.guards.extend(answer.ok().and_then(Result::ok));
        goes_on
    }

    async fn renew(&mut self, held: &Held) {
        let guard = &held.guards[0];
        let call = self.diary.ask(What::Renew { lock: guard.id() });
        let answer = guard.renew(Duration::from_millis(100 + self.roll(400))).await;
        self.diary.told(
            call,
            match answer {
                Ok(_) => What::Renewed { until: until(guard) },
                Err(RenewError::Unavailable(_)) => What::Unanswered,
                Err(error) => What::Refused { code: error.code().to_owned() },
            },
        );
    }

    /// Notes that the lock is lost, once it knows.
    fn look(&self, held: &mut Held) {
        if held.is_lost || held.guards[0].is_valid() {
            return;
        }
        held.is_lost = true;
        // It is ready, as the guard is not valid.
        let lost = futures_now(held.guards[0].lost());
        let why = match lost {
            Some(Lost::Expired) => Ended::Expired,
            _ => Ended::Taken,
        };
        self.diary.note(What::Lost { lock: held.guards[0].id(), why });
    }

    /// Shows the token, whether or not the lock is still held: that is for the gate to know.
    async fn touch(&mut self, held: &Held, mode: LockMode) {
        let guard = &held.guards[0];
        let slots = guard.slots();
        let slot = match slots.len() {
            0 => 0,
            count => slots[self.dice.random_range(0..count)],
        };
        let is_write = mode != LockMode::Shared && self.roll(2) == 0;
        let write = is_write.then(|| self.values.fetch_add(1, Ordering::Relaxed) + 1);
        let (lock, token) = (guard.id(), guard.token());
        let hangs_up = self.roll(12) == 0;
        let register = format!("{}#{slot}", guard.resource());
        let show = Show { register, token: token.get(), write };
        let call = self.diary.ask(What::Touch { lock, slot, token, write });
        let answer = self.show(&show, hangs_up).await;
        self.diary.told(
            call,
            match answer {
                Some(Said::Accepted(value)) => What::Accepted { value },
                Some(Said::Bounced(newest)) => {
                    What::Bounced { newest: lockkeeper::Token::from_u64(newest) }
                }
                None => What::Unanswered,
            },
        );
    }

    async fn show(&mut self, show: &Show, hangs_up: bool) -> Option<Said> {
        let mut gates = match self.gates.take() {
            Some(gates) => gates,
            None => BufReader::new(UnixStream::connect(Part::fence(&self.folder)).await.ok()?),
        };
        let mut line = serde_json::to_vec(show).expect("it can be written");
        line.push(b'\n');
        gates.get_mut().write_all(&line).await.ok()?;
        if hangs_up {
            return None;
        }
        let mut said = String::new();
        gates.read_line(&mut said).await.ok()?;
        let said = serde_json::from_str(&said).ok()?;
        self.gates = Some(gates);
        Some(said)
    }

    /// Gives it back, in one way or another. Whether the session is still used.
    async fn give(&mut self, mut held: Held) -> bool {
        match self.roll(12) {
            // Forgotten, with the session: it ends with its lease. In use, that could lose it
            // to break a deadlock, and nobody would hear of that.
            0 if !self.attached => {
                for guard in held.guards {
                    guard.leave();
                }
                return false;
            }
            // Dropped: it is given back, and nobody hears when.
            0..2 => {
                while let Some(guard) = held.guards.pop() {
                    self.diary.ask(What::Release { lock: guard.id() });
                }
            }
            _ => {
                while let Some(guard) = held.guards.pop() {
                    let call = self.diary.ask(What::Release { lock: guard.id() });
                    // It may have lost the lock meanwhile, and then been granted another one.
                    let over = held.guards.iter().all(|other| other.id() != guard.id());
                    let what = match guard.release().await {
                        Ok(()) => What::Released { over },
                        Err(ReleaseError::Unavailable(_)) => What::Unanswered,
                        Err(error) => What::Refused { code: error.code().to_owned() },
                    };
                    self.diary.told(call, what);
                }
            }
        }
        true
    }
}

/// What a future has to say without any waiting.
fn futures_now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

//! What all tests share: managers of both kinds, time that stands still, dice, futures that are
//! dropped half way.

mod heard;
mod listen;
mod rooms;
mod store;

pub use heard::*;
pub use listen::*;
pub use rooms::*;
pub use store::*;

use crate::place::Place;

use kameo::actor::ActorRef;
use lockkeeper::{
    Config, Holder, LockActor, LockManager, LockTable, Project, Record, Reign, Resource, Session,
    Stats, TableConfig,
    store::{OpenOptions, Reader, SqliteStore, Store},
};
use std::{
    future::{Future, poll_fn},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Mutex,
    task::Poll,
    time::Duration,
};
use tempfile::TempDir;

/// The project most tests are about.
pub const DEMO: &str = "demo";

pub fn file(key: &str) -> Resource {
    Resource::file(key)
}

pub fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A manager in memory or on a file, and a second way to read the file.
pub struct Bench {
    pub manager: LockManager,
    /// The manager whose actors decide: the same, unless the other one is connected to a daemon.
    pub home: LockManager,
    pub place: Place,
    reader: Option<Mutex<Box<dyn Reader>>>,
    path: PathBuf,
    _still: Option<Still>,
    _dir: Option<TempDir>,
}

impl Bench {
    pub async fn memory() -> Bench {
        Bench::memory_with(Config::in_memory()).await
    }

    pub async fn memory_with(config: Config) -> Bench {
        let home = LockManager::in_memory(Place::config(config));
        Bench::of(home, None, PathBuf::new(), None).await
    }

    pub async fn file() -> Bench {
        Bench::file_with(Config::default()).await
    }

    pub async fn file_with(config: Config) -> Bench {
        Bench::over(config, |store| Box::new(store)).await
    }

    /// On a file, with something between the manager and the file.
    pub async fn over(config: Config, wrap: impl FnOnce(SqliteStore) -> Box<dyn Store>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks.db");
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        let reader = store.reader().unwrap();
        let home = LockManager::over(wrap(store), Place::config(config)).unwrap();
        Bench::of(home, Some(Mutex::new(reader)), path, Some(dir)).await
    }

    async fn of(
        home: LockManager,
        reader: Option<Mutex<Box<dyn Reader>>>,
        path: PathBuf,
        dir: Option<TempDir>,
    ) -> Bench {
        let (manager, place) = Place::of(&home).await;
        Bench { manager, home, place, reader, path, _still: None, _dir: dir }
    }

    /// For paused time: it moves only when a test moves it, also while a disk is waited for.
    pub fn still(mut self) -> Bench {
        self._still = Some(Still::new());
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_on_file(&self) -> bool {
        self.reader.is_some()
    }

    pub async fn demo(&self) -> Project {
        self.manager.project(DEMO).await.unwrap()
    }

    /// The actor that decides.
    pub async fn actor(&self) -> ActorRef<LockActor> {
        self.home.lock_actor(DEMO).await.unwrap()
    }

    pub async fn session(&self, agent: &str) -> Session {
        self.manager.session(DEMO, agent).await.unwrap()
    }

    pub async fn stats(&self) -> Stats {
        self.demo().await.stats().await.unwrap()
    }

    pub async fn list(&self) -> Vec<Holder> {
        self.demo().await.list().await.unwrap()
    }

    /// Everything that is on record of a project, the earliest first.
    pub fn history(&self, project: &str) -> Vec<Record> {
        let reader = self.reader.as_ref().expect("only a file has a history");
        reader.lock().unwrap().history(project).unwrap()
    }

    /// The table that the record gives.
    pub fn replayed(&self, project: &str) -> LockTable {
        replay(&self.history(project))
    }

    /// What is on record gives the table that the actor shows (I15).
    pub async fn agrees(&self) {
        if self.is_on_file() {
            let demo = self.demo().await;
            let (list, stats) = (demo.list().await.unwrap(), demo.stats().await.unwrap());
            let table = self.replayed(DEMO);
            assert_eq!(table.list(), list);
            assert_eq!(counted(table.stats()), counted(stats));
        }
    }

    /// Nobody holds, waits or is there any more, in memory and on record (I15, I18). What is told
    /// to a task that is gone comes back to the actor a moment later, so this waits a little.
    pub async fn at_rest(&self) {
        let mut stats = self.stats().await;
        for _ in 0..2_000 {
            if stats == at_rest(stats) && self.recorded().is_none_or(|it| it == at_rest(stats)) {
                break;
            }
            yields(10).await;
            stats = self.stats().await;
        }
        assert_eq!(stats, at_rest(stats));
        assert_eq!(self.list().await, Vec::new());
        if let Some(recorded) = self.recorded() {
            assert_eq!(recorded, at_rest(stats));
        }
    }

    /// What the record amounts to.
    fn recorded(&self) -> Option<Stats> {
        self.is_on_file().then(|| counted(self.replayed(DEMO).stats()))
    }

    /// Shuts down, and looks into the file: nothing of this process is active any more.
    pub async fn close_empty(self) {
        self.at_rest().await;
        self.manager.clone().shutdown().await;
        self.nothing_is_active().await;
    }

    /// After a shutdown: looks into the file.
    pub async fn nothing_is_active(self) {
        let is_on_file = self.is_on_file();
        self.place.close(&self.home).await;
        if is_on_file {
            assert_eq!(active_rows(&self.path, DEMO), Vec::new());
        }
    }

    /// Lets time pass, and waits until everything that it brings about is on record.
    pub async fn pass(&self, span: Duration) {
        tokio::time::advance(span).await;
        self.settle().await;
    }

    /// Waits until nothing is left to be done at this moment.
    pub async fn settle(&self) {
        let demo = self.demo().await;
        for _ in 0..Place::WAYS {
            yields(20).await;
            // Whether it can be answered is not the question here.
            let _ = demo.stats().await;
        }
        yields(20).await;
    }
}

/// What is left when everybody is gone: the resources that have slots, and the tasks.
fn at_rest(Stats { capacities, tasks, .. }: Stats) -> Stats {
    Stats { capacities, resources: capacities, tasks, ..Stats::default() }
}

/// What both a live table and its record know in the same way: deadlines are counted by cause and
/// requests are remembered for a while only by the living.
fn counted(stats: Stats) -> Stats {
    Stats { deadlines: 0, remembered: 0, ..stats }
}

pub fn replay(history: &[Record]) -> LockTable {
    let mut table = LockTable::new(TableConfig::default(), Reign::first(0));
    for record in history {
        table.replay(record);
    }
    table
}

/// What a store that nobody has open knows as live, told as facts.
pub fn active_rows(path: &Path, project: &str) -> Vec<Record> {
    let mut store = SqliteStore::open(path, OpenOptions::default()).unwrap();
    let claim = store.claim(project).unwrap();
    let mut records = store.load(&claim).unwrap();
    let is_active = |record: &Record| {
        let fact = serde_json::to_value(&record.fact).unwrap();
        !["capacity_declared", "task_moved"].iter().any(|word| fact.get(word).is_some())
    };
    records.retain(is_active);
    records
}

/// While it lives, paused time moves only by hand: the runtime does not jump to the next timer
/// while it waits for the writer's thread.
pub struct Still {
    _end: std::sync::mpsc::Sender<()>,
}

impl Still {
    pub fn new() -> Still {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // Tokio does not move paused time while something blocks.
        tokio::task::spawn_blocking(move || ended.recv().is_err());
        Still { _end: end }
    }
}

pub async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Looks again and again until it is so; what must be so soon, but not at which moment. The time
/// limit is there only so that a test that would hang says at what.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < secs(20), "never happened: {what}");
        tokio::task::yield_now().await;
    }
}

/// Polls once.
pub async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Polls a future so many times, with a pause after each, and drops it; what it came to, if it came
/// to anything.
pub async fn cut<F: Future>(
    times: usize,
    future: F,
    mut pause: impl AsyncFnMut(),
) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..times {
        if let Some(output) = poll_once(future.as_mut()).await {
            return Some(output);
        }
        pause().await;
    }
    None
}

/// A small source of chance that gives the same numbers each time.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }
}

/// Makes two tests of one scenario: in memory and on a file.
macro_rules! both {
    (threads: $($(#[$meta:meta])* $name:ident),* $(,)?) => {
        mod in_memory {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::support::Bench::memory().await).await;
            })*
        }
        mod on_sqlite {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::support::Bench::file().await).await;
            })*
        }
    };
    (still: $($(#[$meta:meta])* $name:ident),* $(,)?) => {
        mod paused_in_memory {
            $($(#[$meta])* #[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(crate::support::Bench::memory().await.still()).await;
            })*
        }
        mod paused_on_sqlite {
            $($(#[$meta])* #[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(crate::support::Bench::file().await.still()).await;
            })*
        }
    };
}
pub(crate) use both;

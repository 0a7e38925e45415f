//! One thread that writes for all projects of a store, and tells whoever waits.
//!
//! It takes what is there, writes it in one commit, and speaks; meanwhile the next turns queue up.
//! So a commit is as large as it needs to be, and nobody waits for a commit to fill. Where a commit
//! does not wait for a disk, a thread that has to be woken takes longer than the commit itself:
//! then it may be written by whoever brings it ([`WriterOptions::in_place`]), if the desk is free;
//! whoever is at it sees to the rest. There is one desk, and whoever sits at it is alone. What may
//! be spoken of is a matter of types: a [`Settled`] comes out of [`Effects::settle_groups`] alone,
//! and that hands the records to the store first.

mod queue;
mod thread;

use crate::{Claim, Reader, Store, StoreError};
use lockkeeper_core::{Effects, Record, Settled};
use queue::Queue;
use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError},
    thread::ThreadId,
    time::Duration,
};
use thread::{Clerk, Desk, Job};

/// A handle to the thread; the last one that is dropped ends it, after everything that was
/// submitted is written.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Arc<Queue>,
    in_place: bool,
    desk: Arc<Mutex<Desk>>,
    /// Who sits at the desk, unless it is the thread.
    guest: Mutex<Option<ThreadId>>,
    store: SharedStore,
    ended: Arc<Ended>,
    thread: ThreadId,
}

/// The store, until the thread has ended. Nobody keeps it locked while a `then` runs.
type SharedStore = Arc<Mutex<Option<Box<dyn Store>>>>;

/// Whether the thread has ended and the store is free.
#[derive(Default)]
struct Ended {
    has: Mutex<bool>,
    changed: Condvar,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// How a writer works.
pub struct WriterOptions {
    /// The most turns in one commit: 4,096.
    pub batch_max: usize,
    /// Whether turns are written by whoever hands them in, if nobody else is writing and nothing
    /// waits for a disk. That is for whoever may be kept for as long as such a commit takes. False.
    pub in_place: bool,
    /// How long what is over is kept.
    pub retention: Retention,
    /// Told of each commit, by whoever writes it, before anybody is told of what is in it.
    pub observe: Option<Box<dyn FnMut(CommitStats) + Send>>,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        let retention = Retention::default();
        WriterOptions { batch_max: 4096, in_place: false, retention, observe: None }
    }
}

impl fmt::Debug for WriterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterOptions")
            .field("batch_max", &self.batch_max)
            .field("in_place", &self.in_place)
            .field("retention", &self.retention)
            .field("observe", &self.observe.is_some())
            .finish()
    }
}

/// How long what is over is kept. `None` is for ever. Tasks are kept until they are forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Holds that are over: 7 days.
    pub released: Option<Duration>,
    /// Rows of the audit log: 30 days.
    pub audit: Option<Duration>,
    /// How often to look: 1 hour; for the first time soon after the start.
    pub every: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        let days = |count: u64| Some(Duration::from_secs(count * 24 * 3600));
        Retention { released: days(7), audit: days(30), every: Duration::from_secs(3600) }
    }
}

/// One commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitStats {
    /// How long it took.
    pub took: Duration,
    /// How many turns were in it.
    pub turns: usize,
    /// How many records.
    pub records: usize,
    /// Whether any of it failed.
    pub failed: bool,
}

impl Writer {
    /// Starts the thread.
    pub fn start(store: Box<dyn Store>, options: WriterOptions) -> Result<Writer, StoreError> {
        let queue = Arc::new(Queue::default());
        let store: SharedStore = Arc::new(Mutex::new(Some(store)));
        let ended = Arc::new(Ended::default());
        let in_place = options.in_place;
        let desk = Arc::new(Mutex::new(Desk::new(store.clone(), options)));
        let clerk = Clerk::new(queue.clone(), desk.clone());
        let tell = TellEnded {
            ended: ended.clone(),
            queue: queue.clone(),
            desk: desk.clone(),
            store: store.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("lockkeeper-writer".to_owned())
            .spawn(move || {
                let _tell = tell;
                clerk.run();
            })
            .map_err(|error| no_thread(&error))?;
        let thread = thread.thread().id();
        let guest = Mutex::default();
        let shared = Shared { queue, in_place, desk, guest, store, ended, thread };
        Ok(Writer { shared: Arc::new(shared) })
    }

    /// Takes a project over and loads it. `then` runs on the writer's thread, like every `then`
    /// here but for what is written in place, and should be short; once the writer is closed it
    /// runs at once, on the caller's.
    pub fn claim(
        &self,
        project: Arc<str>,
        then: impl FnOnce(Result<(Claim, Vec<Record>), StoreError>) + Send + 'static,
    ) {
        self.send(Job::Claim { project, then: Box::new(then) });
    }

    /// Tells the names of all projects the store knows, in order.
    pub fn projects(&self, then: impl FnOnce(Result<Vec<Arc<str>>, StoreError>) + Send + 'static) {
        self.send(Job::Projects { then: Box::new(then) });
    }

    /// Hands in the next turn of a claimed project, and has it written. `then` is told when it is,
    /// in the order of the turns. After a turn that could not be written all later ones of the same
    /// claim are refused with the same error.
    pub fn submit(
        &self,
        claim: &Claim,
        turn: Effects,
        then: impl FnOnce(Result<Settled, StoreError>) + Send + 'static,
    ) {
        self.hand_in(claim, turn, then);
        self.write();
    }

    /// The same, for whoever has more to hand in at once and calls [`Writer::write`] then. It may
    /// be written before.
    pub fn hand_in(
        &self,
        claim: &Claim,
        turn: Effects,
        then: impl FnOnce(Result<Settled, StoreError>) + Send + 'static,
    ) {
        self.push(Job::Turn { claim: claim.clone(), turn, then: Box::new(then) });
    }

    /// Has everything written that was handed in: here, if that may be and the desk is free. If it
    /// is not, whoever sits there does it before he goes.
    pub fn write(&self) {
        let Shared { queue, in_place, .. } = &*self.shared;
        let mut rounds = if *in_place { ROUNDS } else { 0 };
        while rounds > 0 {
            let Some(mut desk) = self.shared.free_desk() else { return };
            if desk.may_wait() {
                break;
            }
            let guest = Guest::sit_down(&self.shared.guest, queue);
            let is_any = desk.work_as_guest(queue);
            let is_owed = desk.needs_the_thread();
            // The chair first: behind the desk it may be another guest's already.
            drop(guest);
            drop(desk);
            if is_owed {
                queue.ring();
            }
            // What somebody has handed in meanwhile, who found the desk taken.
            if queue.is_empty() {
                return;
            }
            // What comes first is for the thread.
            if !is_any {
                break;
            }
            rounds -= 1;
        }
        queue.ring();
    }

    /// Runs `then` when everything that was submitted before under this claim is written, or told
    /// why not.
    pub fn after(&self, claim: &Claim, then: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.push(Job::After { claim: claim.clone(), then: Box::new(then) });
        self.write();
    }

    /// A second way in, for questions. May wait for a commit that is under way; what it gives
    /// never does.
    pub fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        match &*lock(&self.shared.store) {
            Some(store) => store.reader(),
            None => Err(StoreError::Closed),
        }
    }

    /// Writes what was submitted, ends the thread and gives the store's file free. Whatever comes
    /// later is refused with [`StoreError::Closed`]. Waits until that is done, unless a `then`
    /// calls it: the thread does not wait for itself.
    pub fn close(&self) {
        self.shared.queue.close();
        let this = std::thread::current().id();
        if this == self.shared.thread || *lock(&self.shared.guest) == Some(this) {
            return;
        }
        let ended = &self.shared.ended;
        let mut has = lock(&ended.has);
        while !*has {
            has = ended.changed.wait(has).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn send(&self, job: Job) {
        self.push(job);
        self.shared.queue.ring();
    }

    fn push(&self, job: Job) {
        if let Some(job) = self.shared.queue.push(job) {
            job.refuse(&StoreError::Closed);
        }
    }
}

/// How often somebody who writes in place goes on with what others have handed in meanwhile.
const ROUNDS: usize = 4;

impl Shared {
    /// The desk for a guest, if nobody sits there.
    fn free_desk(&self) -> Option<MutexGuard<'_, Desk>> {
        match self.desk.try_lock() {
            Ok(desk) => Some(desk),
            Err(TryLockError::Poisoned(desk)) => Some(desk.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Whoever sits at the desk for a moment.
struct Guest<'a>(&'a Mutex<Option<ThreadId>>, &'a Queue);

impl<'a> Guest<'a> {
    fn sit_down(chair: &'a Mutex<Option<ThreadId>>, queue: &'a Queue) -> Guest<'a> {
        *lock(chair) = Some(std::thread::current().id());
        Guest(chair, queue)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
        // Others rely on him to look once more.
        if std::thread::panicking() {
            self.1.ring();
        }
    }
}

/// Gives the store back and says so, however the thread ends.
struct TellEnded {
    ended: Arc<Ended>,
    queue: Arc<Queue>,
    desk: Arc<Mutex<Desk>>,
    store: SharedStore,
}

impl Drop for TellEnded {
    fn drop(&mut self) {
        self.queue.close();
        // Whoever writes in place finishes that first.
        let desk = lock(&self.desk);
        let store = lock(&self.store).take();
        // A store may still have something to write.
        if catch_unwind(AssertUnwindSafe(|| drop(store))).is_err() {
            tracing::error!("the store panicked while it was closed");
        }
        let left = self.queue.take(usize::MAX);
        drop(desk);
        left.into_iter().for_each(|job| job.refuse(&StoreError::Closed));
        *lock(&self.ended.has) = true;
        self.ended.changed.notify_all();
    }
}

/// What these locks guard is whole after each step, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_thread(error: &io::Error) -> StoreError {
    let detail = format!("the writer's thread could not be started: {error}");
    StoreError::Io { path: PathBuf::new(), detail }
}

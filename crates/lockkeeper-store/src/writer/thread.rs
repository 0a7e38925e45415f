//! The desk, where turns are committed and spoken of, and the thread that sits there.

use super::{
    CommitStats, Retention, SharedStore, WriterOptions, lock,
    queue::{Queue, Up},
};
use crate::{Batch, Claim, PruneBefore, Store, StoreError, text};
use lockkeeper_core::{
    Effects, Group, GroupJournal, Ledger, NotSettled, Record, Settled, Timestamp,
};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

type Then<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// What is asked of the thread.
pub(super) enum Job {
    Claim { project: Arc<str>, then: Then<(Claim, Vec<Record>)> },
    Turn { claim: Claim, turn: Effects, then: Then<Settled> },
    After { claim: Claim, then: Then<()> },
    Projects { then: Then<Vec<Arc<str>>> },
}

impl Job {
    /// Whether it takes no longer than a commit. To claim something waits for the disk.
    pub(super) fn is_quick(&self) -> bool {
        matches!(self, Job::Turn { .. } | Job::After { .. })
    }

    pub(super) fn refuse(self, error: &StoreError) {
        let error = error.clone();
        match self {
            Job::Claim { then, .. } => tell(then, Err(error)),
            Job::Turn { then, .. } => tell(then, Err(error)),
            Job::After { then, .. } => tell(then, Err(error)),
            Job::Projects { then } => tell(then, Err(error)),
        }
    }
}

/// The turns of one claim on their way.
struct Line {
    claim: Claim,
    ledger: Ledger<Claim>,
    /// Why nothing of this claim is written any more.
    failed: Option<StoreError>,
    /// For the next commit.
    turns: Vec<Effects>,
    /// Out of the last commit, not told yet.
    settled: std::vec::IntoIter<Settled>,
}

/// Somebody who is to be told after the commit, by the number of the line.
enum Waiting {
    Turn(usize, Then<Settled>),
    After(usize, Then<()>),
    Refused(Job, StoreError),
}

/// The thread: takes to the desk whatever is there.
pub(super) struct Clerk {
    queue: Arc<Queue>,
    desk: Arc<Mutex<Desk>>,
}

/// Where turns are written. Nothing of this outlives a turn but what is in it.
pub(super) struct Desk {
    store: SharedStore,
    options: WriterOptions,
    /// The newest claim of each project, and where to find it.
    lines: Vec<Line>,
    places: HashMap<Arc<str>, usize>,
    waiting: Vec<Waiting>,
    /// When to remove what is old.
    prune_at: Option<Instant>,
    /// When the thread will look after the store by itself.
    alarm: Option<Instant>,
}

/// How many rows are removed in one step, so that whoever comes next waits for milliseconds.
const PRUNE_STEP: usize = 500;

/// How long what is old is left alone while there is other work.
const PRUNE_PATIENCE: Duration = Duration::from_millis(100);

impl Clerk {
    pub(super) fn new(queue: Arc<Queue>, desk: Arc<Mutex<Desk>>) -> Clerk {
        Clerk { queue, desk }
    }

    pub(super) fn run(self) {
        loop {
            let until = lock(&self.desk).set_alarm();
            let up = self.queue.wait(until);
            let mut desk = lock(&self.desk);
            match up {
                Up::Over => return,
                Up::Called => {
                    desk.work(&self.queue);
                    desk.tidy();
                    if desk.prune_at.is_some_and(|at| at.elapsed() > PRUNE_PATIENCE) {
                        desk.prune();
                    }
                }
                // While there is nothing else to do.
                Up::Alarm => {
                    desk.tidy();
                    if desk.prune_at.is_some_and(|at| at <= Instant::now()) {
                        desk.prune();
                    }
                }
            }
        }
    }
}

impl Desk {
    pub(super) fn new(store: SharedStore, options: WriterOptions) -> Desk {
        let Retention { released, audit, every } = options.retention;
        let soon = every.min(Duration::from_secs(1));
        let prunes = released.is_some() || audit.is_some();
        let prune_at = prunes.then(|| Instant::now() + soon);
        let (lines, places, waiting) = (Vec::new(), HashMap::new(), Vec::new());
        Desk { store, options, lines, places, waiting, prune_at, alarm: None }
    }

    /// Whether what is written next may wait for a disk.
    pub(super) fn may_wait(&self) -> bool {
        lock(&self.store).as_ref().is_none_or(|store| store.may_wait())
    }

    /// Takes what was handed in, and writes it.
    fn work(&mut self, queue: &Queue) {
        queue.take(self.options.batch_max.max(1)).into_iter().for_each(|job| self.take(job));
        self.flush();
    }

    /// The same, but nothing that takes long; whether there was anything.
    pub(super) fn work_as_guest(&mut self, queue: &Queue) -> bool {
        let jobs = queue.take_quick(self.options.batch_max.max(1));
        let is_any = !jobs.is_empty();
        jobs.into_iter().for_each(|job| self.take(job));
        self.flush();
        is_any
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Claim { project, then } => {
                // Whatever the old claim has submitted comes first.
                self.flush();
                let claimed = self.claim(&project);
                tell(then, claimed);
            }
            Job::Turn { claim, turn, then } => match self.line(&claim) {
                Err(error) => {
                    self.waiting.push(Waiting::Refused(Job::Turn { claim, turn, then }, error));
                }
                Ok(at) => {
                    let line = &mut self.lines[at];
                    if line.failed.is_none() {
                        line.turns.push(turn);
                    }
                    self.waiting.push(Waiting::Turn(at, then));
                }
            },
            Job::After { claim, then } => match self.line(&claim) {
                Err(error) => {
                    self.waiting.push(Waiting::Refused(Job::After { claim, then }, error));
                }
                Ok(at) => self.waiting.push(Waiting::After(at, then)),
            },
            // A claim is written at once, so nothing that waits could add a name.
            Job::Projects { then } => {
                let names = with(&self.store, |store| store.projects());
                tell(then, names.and_then(|names| names));
            }
        }
    }

    /// The line of a claim; an error if there is a newer claim.
    fn line(&mut self, claim: &Claim) -> Result<usize, StoreError> {
        match self.places.get(&claim.project) {
            Some(&at) if self.lines[at].claim.epoch == claim.epoch => Ok(at),
            Some(&at) if self.lines[at].claim.epoch > claim.epoch => Err(StoreError::Superseded {
                project: claim.project.clone(),
                epoch: claim.epoch,
                newest: self.lines[at].claim.epoch,
            }),
            _ => {
                // A claim that was not made here. What came before it goes first.
                self.flush();
                Ok(self.open_line(claim))
            }
        }
    }

    fn open_line(&mut self, claim: &Claim) -> usize {
        let line = Line {
            claim: claim.clone(),
            ledger: Ledger::new(claim.clone()),
            failed: None,
            turns: Vec::new(),
            settled: Vec::new().into_iter(),
        };
        match self.places.get(&claim.project) {
            Some(&at) => {
                self.lines[at] = line;
                at
            }
            None => {
                self.lines.push(line);
                self.places.insert(claim.project.clone(), self.lines.len() - 1);
                self.lines.len() - 1
            }
        }
    }

    fn claim(&mut self, project: &str) -> Result<(Claim, Vec<Record>), StoreError> {
        let claimed = with(&self.store, |store| {
            let claim = store.claim(project)?;
            let records = store.load(&claim)?;
            Ok((claim, records))
        });
        let (claim, records) = claimed.and_then(|claimed| claimed)?;
        self.open_line(&claim);
        Ok((claim, records))
    }

    /// Commits what was taken, then tells everybody, in the order in which they came.
    fn flush(&mut self) {
        self.commit();
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Turn(at, then) => {
                    let settled = self.lines[at].settled.next();
                    tell(then, settled.ok_or_else(|| self.lines[at].why()));
                }
                Waiting::After(at, then) => {
                    let failed = self.lines[at].failed.clone();
                    tell(then, failed.map_or(Ok(()), Err));
                }
                Waiting::Refused(job, error) => job.refuse(&error),
            }
        }
    }

    fn commit(&mut self) {
        let busy = self.lines.iter_mut().filter(|line| !line.turns.is_empty());
        let mut busy: Vec<&mut Line> = busy.collect();
        if busy.is_empty() {
            return;
        }
        let turns = busy.iter().map(|line| line.turns.len()).sum();
        let all = busy.iter().flat_map(|line| &line.turns);
        let records = all.map(|turn| turn.records().len()).sum();
        let groups = busy
            .iter_mut()
            .map(|line| {
                let turns = std::mem::take(&mut line.turns);
                (&mut line.ledger, turns)
            })
            .collect();
        let began = Instant::now();
        let outcomes =
            with(&self.store, |store| Effects::settle_groups(groups, &mut Commits(store)));
        let ended = Instant::now();
        let took = ended - began;
        let mut failed = false;
        let mut outcomes = outcomes.map(Vec::into_iter);
        for line in busy {
            let outcome = match &mut outcomes {
                Ok(outcomes) => outcomes.next().unwrap_or(Ok(Vec::new())),
                Err(error) => Err(NotSettled::Journal(error.clone())),
            };
            match outcome {
                Ok(settled) => line.settled = settled.into_iter(),
                Err(error) => {
                    failed = true;
                    line.failed = Some(line.error(error));
                }
            }
        }
        self.observe(CommitStats { took, turns, records, failed });
    }

    fn observe(&mut self, stats: CommitStats) {
        if let Some(observe) = &mut self.options.observe
            && catch_unwind(AssertUnwindSafe(|| observe(stats))).is_err()
        {
            tracing::error!("whoever observes the commits panicked");
        }
    }

    /// Whether the store is owed something that nobody waits for.
    fn is_untidy(&self) -> bool {
        lock(&self.store).as_ref().is_some_and(|store| store.is_untidy())
    }

    /// When the store wants to be looked after.
    fn tidy_by(&self) -> Option<Instant> {
        lock(&self.store).as_ref().and_then(|store| store.tidy_by())
    }

    /// When the thread has something to do, even if nobody comes.
    fn set_alarm(&mut self) -> Option<Instant> {
        self.alarm = self.tidy_by();
        self.alarm.into_iter().chain(self.prune_at).min()
    }

    /// Whether the thread must hear that something was written.
    pub(super) fn needs_the_thread(&self) -> bool {
        let tidy_by = self.tidy_by();
        self.is_untidy() || tidy_by.is_some_and(|by| self.alarm.is_none_or(|alarm| alarm > by))
    }

    /// Everybody is told: now the store gets what it is owed.
    fn tidy(&self) {
        if self.is_untidy() && with(&self.store, |store| store.tidy()).is_err() {
            tracing::error!("the store could not be looked after");
        }
    }

    /// Removes some of what is old, and says when to go on. Whatever becomes of it, the thread
    /// goes on.
    fn prune(&mut self) {
        let every = self.options.retention.every;
        let wait = catch_unwind(AssertUnwindSafe(|| self.prune_step())).unwrap_or_else(|_| {
            tracing::error!("removing what is old panicked");
            every
        });
        // A moment too far away to be told is never.
        self.prune_at = Instant::now().checked_add(wait);
    }

    /// Removes some of what is old; how long to wait before the next step.
    fn prune_step(&self) -> Duration {
        let Retention { released, audit, every } = self.options.retention;
        let now = text::now();
        let before = |kept: Option<Duration>| {
            let millis = kept.map_or(u128::MAX, |kept| kept.as_millis());
            Timestamp(now.0.saturating_sub(u64::try_from(millis).unwrap_or(u64::MAX)))
        };
        let before = PruneBefore { released: before(released), audit: before(audit) };
        let pruned = with(&self.store, |store| store.prune(&before, PRUNE_STEP));
        self.tidy();
        match pruned.and_then(|pruned| pruned) {
            Ok(0) => every,
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "what is old could not be removed");
                every
            }
        }
    }
}

impl Line {
    /// Why a turn was not settled.
    fn why(&self) -> StoreError {
        self.failed.clone().unwrap_or(StoreError::Closed)
    }

    fn error(&self, error: NotSettled<StoreError>) -> StoreError {
        match error {
            NotSettled::Journal(error) => error,
            NotSettled::OutOfOrder { expected, found } => StoreError::OutOfOrder {
                project: self.claim.project.clone(),
                detail: format!("expected turn {}, got turn {}", expected.0, found.0),
            },
        }
    }
}

/// A store as the core knows it.
struct Commits<'a>(&'a mut dyn Store);

impl GroupJournal<Claim> for Commits<'_> {
    type Error = StoreError;

    fn append_groups(&mut self, groups: &[Group<'_, Claim>]) -> Vec<Result<(), StoreError>> {
        let batches: Vec<Batch<'_>> =
            groups.iter().map(|group| Batch { claim: group.table, turns: group.turns }).collect();
        self.0.commit(&batches)
    }
}

/// Asks the store. One that panics has failed, but takes nobody with it.
fn with<T>(store: &SharedStore, ask: impl FnOnce(&mut dyn Store) -> T) -> Result<T, StoreError> {
    let mut store = lock(store);
    let Some(store) = store.as_mut() else { return Err(StoreError::Closed) };
    catch_unwind(AssertUnwindSafe(|| ask(store.as_mut()))).map_err(|_| {
        tracing::error!("the store panicked");
        let detail = "the store panicked".to_owned();
        StoreError::Io { path: PathBuf::new(), detail }
    })
}

/// Tells one of those who wait. A panic of theirs is theirs: the others still have to be told.
fn tell<T>(then: Then<T>, outcome: Result<T, StoreError>) {
    if catch_unwind(AssertUnwindSafe(|| then(outcome))).is_err() {
        tracing::error!("somebody who was told of a commit panicked");
    }
}

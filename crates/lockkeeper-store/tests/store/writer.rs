//! Group commit, and who is told when. The stores here have a gate, so that nothing depends on
//! time: a test waits until the writer stands before it, and opens it when it wants.

use crate::life::{ask, give_back, open};
use lockkeeper_core::*;
use lockkeeper_store::{
    Batch, Claim, CommitStats, MemoryStore, PruneBefore, Reader, Retention, Store, StoreError,
    Writer, WriterOptions,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

/// What a commit with a gate does when it is let through.
enum Fate {
    Passes,
    Fails(StoreError),
    Panics,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// So many more may pass, each with its fate.
    fates: VecDeque<Fate>,
    is_open: bool,
    /// Who stood or stands before the gate: of each commit, how many turns of which project.
    came: Vec<Vec<(String, usize)>>,
    claims: usize,
    pruned: usize,
    prune_panics: bool,
    /// Whether a commit may wait for a disk.
    may_wait: bool,
    /// Whether upkeep is due, and how often it was begun; it ends when the gate is open.
    is_untidy: bool,
    gets_untidy: bool,
    tidied: usize,
    dropped: bool,
}

impl Gate {
    fn pass(&self, fate: Fate) {
        self.state.lock().unwrap().fates.push_back(fate);
        self.changed.notify_all();
    }

    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !until(state)).unwrap());
    }

    fn came(&self) -> Vec<Vec<(String, usize)>> {
        self.state.lock().unwrap().came.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }
}

struct Gated {
    gate: Arc<Gate>,
    store: MemoryStore,
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.gate.change(|state| state.dropped = true);
    }
}

impl Store for Gated {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        self.gate.change(|state| state.claims += 1);
        self.store.claim(project)
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.store.projects()
    }

    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError> {
        self.store.load(claim)
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        let names = batches
            .iter()
            .map(|batch| (batch.claim.project.to_string(), batch.turns.len()))
            .collect();
        self.gate.change(|state| {
            state.came.push(names);
            state.is_untidy |= std::mem::take(&mut state.gets_untidy);
        });
        self.gate.wait(|state| state.is_open || !state.fates.is_empty());
        let fate = self.gate.state.lock().unwrap().fates.pop_front();
        match fate.unwrap_or(Fate::Passes) {
            Fate::Passes => self.store.commit(batches),
            Fate::Fails(error) => batches.iter().map(|_| Err(error.clone())).collect(),
            Fate::Panics => panic!("as the test wants it"),
        }
    }

    fn may_wait(&self) -> bool {
        self.gate.state.lock().unwrap().may_wait
    }

    fn is_untidy(&self) -> bool {
        self.gate.state.lock().unwrap().is_untidy
    }

    fn tidy(&mut self) {
        self.gate.change(|state| {
            state.tidied += 1;
            state.is_untidy = false;
        });
        self.gate.wait(|state| state.is_open);
    }

    fn prune(&mut self, _: &PruneBefore, at_most: usize) -> Result<usize, StoreError> {
        assert!(at_most > 0);
        self.gate.change(|state| state.pruned += 1);
        let panics = self.gate.state.lock().unwrap().prune_panics;
        assert!(!panics, "as the test wants it");
        Ok(usize::from(self.gate.state.lock().unwrap().pruned < 3))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }
}

fn gated(options: WriterOptions) -> (Writer, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let store = Gated { gate: gate.clone(), store: MemoryStore::new() };
    (Writer::start(Box::new(store), options).unwrap(), gate)
}

fn claim(writer: &Writer, project: &str) -> Claim {
    let (told, hears) = channel();
    writer.claim(project.into(), move |claimed| told.send(claimed).unwrap());
    hears.recv().unwrap().unwrap().0
}

fn table(claim: &Claim) -> LockTable {
    LockTable::new(TableConfig::default(), Reign { epoch: claim.epoch, ..Reign::first(3) })
}

fn turn(table: &mut LockTable) -> Effects {
    table.apply(Timestamp(1), OpenSession::default())
}

type Said = (&'static str, Result<(), StoreError>);

fn submit(writer: &Writer, claim: &Claim, turn: Effects, name: &'static str, told: &Sender<Said>) {
    let told = told.clone();
    writer.submit(claim, turn, move |outcome| {
        let settled = outcome.map(|settled| assert_eq!(settled.replies().len(), 1));
        let _ = told.send((name, settled));
    });
}

fn all(hears: &Receiver<Said>) -> Vec<Said> {
    hears.try_iter().collect()
}

#[test]
fn nobody_is_told_before_it_is_written() {
    let (writer, gate) = gated(WriterOptions::default());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    submit(&writer, &claim, turn(&mut table), "first", &told);
    let after = told.clone();
    writer.after(&claim, move |outcome| after.send(("after", outcome)).unwrap());
    gate.wait(|state| state.came.len() == 1);
    assert_eq!(all(&hears), [], "it stands before the gate");
    gate.open();
    writer.close();
    assert_eq!(all(&hears), [("first", Ok(())), ("after", Ok(()))]);
}

#[test]
fn what_queues_up_during_a_commit_goes_into_the_next_one_together() {
    let (writer, gate) = gated(WriterOptions::default());
    let (p, q) = (claim(&writer, "p"), claim(&writer, "q"));
    let (mut of_p, mut of_q) = (table(&p), table(&q));
    let (told, hears) = channel();
    submit(&writer, &p, turn(&mut of_p), "p", &told);
    gate.wait(|state| state.came.len() == 1);
    for _ in 0..30 {
        submit(&writer, &p, turn(&mut of_p), "p", &told);
        submit(&writer, &q, turn(&mut of_q), "q", &told);
        submit(&writer, &q, turn(&mut of_q), "q", &told);
    }
    gate.open();
    writer.close();
    let of = |project: &str, turns| (project.to_owned(), turns);
    assert_eq!(gate.came(), [vec![of("p", 1)], vec![of("p", 30), of("q", 60)]]);
    let heard = all(&hears);
    assert!(heard.iter().all(|(_, outcome)| outcome.is_ok()));
    let order: Vec<&str> = heard.iter().map(|(name, _)| *name).collect();
    let mut expected = vec!["p"];
    (0..30).for_each(|_| expected.extend(["p", "q", "q"]));
    assert_eq!(order, expected, "in the order in which they came");
}

#[test]
fn a_commit_has_a_most() {
    let observed = Arc::new(Mutex::new(Vec::new()));
    let seen = observed.clone();
    let observe = move |stats: CommitStats| seen.lock().unwrap().push(stats);
    let options =
        WriterOptions { batch_max: 4, observe: Some(Box::new(observe)), ..Default::default() };
    let (writer, gate) = gated(options);
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, _hears) = channel();
    submit(&writer, &claim, turn(&mut table), "", &told);
    gate.wait(|state| state.came.len() == 1);
    (0..10).for_each(|_| submit(&writer, &claim, turn(&mut table), "", &told));
    gate.open();
    writer.close();
    let sizes: Vec<usize> = gate.came().iter().map(|commit| commit[0].1).collect();
    assert_eq!(sizes, [1, 4, 4, 2]);
    let observed = observed.lock().unwrap();
    let told: Vec<_> = observed.iter().map(|one| (one.turns, one.records, one.failed)).collect();
    assert_eq!(told, [(1, 1, false), (4, 4, false), (4, 4, false), (2, 2, false)]);
}

#[test]
fn a_failed_commit_ends_its_claims_and_nobody_is_told_that_it_is_well() {
    let (writer, gate) = gated(WriterOptions::default());
    let (p, q) = (claim(&writer, "p"), claim(&writer, "q"));
    let (mut of_p, mut of_q) = (table(&p), table(&q));
    let (told, hears) = channel();
    submit(&writer, &p, turn(&mut of_p), "p1", &told);
    gate.wait(|state| state.came.len() == 1);
    submit(&writer, &p, turn(&mut of_p), "p2", &told);
    let after = told.clone();
    writer.after(&p, move |outcome| after.send(("after p2", outcome)).unwrap());
    submit(&writer, &p, turn(&mut of_p), "p3", &told);
    let full = StoreError::Full { path: "x".into() };
    gate.pass(Fate::Passes);
    gate.wait(|state| state.came.len() == 2);
    gate.pass(Fate::Fails(full.clone()));
    // Once it has failed, nothing of the claim goes to the store any more; the others go on.
    submit(&writer, &p, turn(&mut of_p), "p4", &told);
    let after = told.clone();
    writer.after(&p, move |outcome| after.send(("after p4", outcome)).unwrap());
    submit(&writer, &q, turn(&mut of_q), "q1", &told);
    gate.open();
    let p = claim(&writer, "p");
    submit(&writer, &p, turn(&mut table(&p)), "p again", &told);
    writer.close();
    let failed = || Err(full.clone());
    let expected = [
        ("p1", Ok(())),
        ("p2", failed()),
        ("after p2", failed()),
        ("p3", failed()),
        ("p4", failed()),
        ("after p4", failed()),
        ("q1", Ok(())),
        ("p again", Ok(())),
    ];
    assert_eq!(all(&hears), expected);
    let of = |project: &str, turns| vec![(project.to_owned(), turns)];
    assert_eq!(gate.came(), [of("p", 1), of("p", 2), of("q", 1), of("p", 1)]);
}

#[test]
fn a_claim_comes_after_what_was_submitted_before_it_and_ends_the_older_one() {
    let (writer, gate) = gated(WriterOptions::default());
    let old = claim(&writer, "p");
    let mut of_old = table(&old);
    let (told, hears) = channel();
    submit(&writer, &old, turn(&mut of_old), "old", &told);
    gate.wait(|state| state.came.len() == 1);
    submit(&writer, &old, turn(&mut of_old), "old, queued", &told);
    let (newer, claimed) = channel();
    let also = told.clone();
    writer.claim("p".into(), move |outcome| {
        also.send(("claim", Ok(()))).unwrap();
        newer.send(outcome.unwrap().0).unwrap();
    });
    submit(&writer, &old, turn(&mut of_old), "old, late", &told);
    gate.open();
    let newest = claimed.recv().unwrap();
    assert_eq!((old.epoch.get(), newest.epoch.get()), (1, 2));
    submit(&writer, &newest, turn(&mut table(&newest)), "new", &told);
    writer.close();
    let heard = all(&hears);
    let names: Vec<&str> = heard.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["old", "old, queued", "claim", "old, late", "new"]);
    let outcomes: Vec<bool> = heard.iter().map(|(_, outcome)| outcome.is_ok()).collect();
    assert_eq!(outcomes, [true, true, true, false, true], "I16");
    assert!(matches!(heard[3].1, Err(StoreError::Superseded { .. })), "{:?}", heard[3]);
}

#[test]
fn a_turn_out_of_its_place_is_refused_with_all_that_follow() {
    let (writer, gate) = gated(WriterOptions::default());
    gate.open();
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    submit(&writer, &claim, turn(&mut table), "first", &told);
    drop(turn(&mut table));
    submit(&writer, &claim, turn(&mut table), "third", &told);
    submit(&writer, &claim, turn(&mut table), "fourth", &told);
    writer.close();
    let heard = all(&hears);
    // Whether the first went in a commit of its own or failed with them: never the others.
    assert_eq!(heard.len(), 3);
    for (name, outcome) in &heard[1..] {
        assert!(matches!(outcome, Err(StoreError::OutOfOrder { .. })), "{name}: {outcome:?}");
    }
}

#[test]
fn a_panic_in_a_then_or_in_the_store_takes_nobody_else_with_it() {
    let observe = |_: CommitStats| panic!("as the test wants it");
    let options = WriterOptions { observe: Some(Box::new(observe)), ..WriterOptions::default() };
    let (writer, gate) = gated(options);
    let (p, q) = (claim(&writer, "p"), claim(&writer, "q"));
    let (mut of_p, mut of_q) = (table(&p), table(&q));
    let (told, hears) = channel();
    writer.submit(&p, turn(&mut of_p), |_| panic!("as the test wants it"));
    submit(&writer, &p, turn(&mut of_p), "p2", &told);
    gate.pass(Fate::Passes);
    gate.pass(Fate::Passes);
    // Both may have come in one commit or in two.
    let (ready, waits) = channel();
    writer.after(&p, move |_| ready.send(()).unwrap());
    waits.recv().unwrap();
    gate.change(|state| state.fates.clear());
    gate.pass(Fate::Panics);
    submit(&writer, &q, turn(&mut of_q), "q1", &told);
    let (ready, waits) = channel();
    writer.after(&q, move |_| ready.send(()).unwrap());
    waits.recv().unwrap();
    gate.open();
    submit(&writer, &p, turn(&mut of_p), "p3", &told);
    writer.close();
    let heard = all(&hears);
    assert_eq!((&heard[0], &heard[2]), (&("p2", Ok(())), &("p3", Ok(()))));
    assert!(matches!(heard[1], ("q1", Err(StoreError::Io { .. }))), "{:?}", heard[1]);
}

#[test]
fn closing_from_a_then_does_not_wait_for_itself() {
    let (writer, gate) = gated(WriterOptions::default());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    let (inner, also) = (writer.clone(), told.clone());
    writer.submit(&claim, turn(&mut table), move |outcome| {
        inner.close();
        assert!(inner.reader().is_ok(), "it is still writing");
        also.send(("closes", outcome.map(drop))).unwrap();
    });
    gate.wait(|state| state.came.len() == 1);
    submit(&writer, &claim, turn(&mut table), "queued", &told);
    gate.open();
    writer.close();
    assert!(gate.state.lock().unwrap().dropped, "the store is free");
    submit(&writer, &claim, turn(&mut table), "late", &told);
    let late = told.clone();
    writer.after(&claim, move |outcome| late.send(("after", outcome)).unwrap());
    let (claimed, waits) = channel();
    writer.claim("p".into(), move |outcome| claimed.send(outcome.is_err()).unwrap());
    assert!(waits.recv().unwrap());
    let closed = || Err(StoreError::Closed);
    let expected =
        [("closes", Ok(())), ("queued", Ok(())), ("late", closed()), ("after", closed())];
    assert_eq!(all(&hears), expected);
    assert!(matches!(writer.reader(), Err(StoreError::Closed)));
    writer.close();
}

fn in_place() -> WriterOptions {
    // Nothing old that the thread would come by for.
    let retention = Retention { released: None, audit: None, ..Retention::default() };
    WriterOptions { in_place: true, retention, ..WriterOptions::default() }
}

#[test]
fn where_nothing_happens_whoever_brings_a_turn_writes_it() {
    let (writer, gate) = gated(in_place());
    gate.open();
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let me = std::thread::current().id();
    // The first one ever, and those that come a moment after another one.
    for _ in 0..3 {
        // Right behind the claim the thread may still be at the desk.
        let is_written_here = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let (told, hears) = channel();
            writer.submit(&claim, turn(&mut table), move |outcome| {
                drop(outcome.expect("it is written"));
                told.send(std::thread::current().id()).unwrap();
            });
            // Whoever wrote it: here only if it was told before the call returned.
            hears.try_recv() == Ok(me)
        });
        assert!(is_written_here, "the thread wrote every one of them");
    }
    let inner = writer.clone();
    std::thread::sleep(Duration::from_millis(1));
    // A desk that is taken is waited for by nobody, not even by whoever sits there.
    writer.submit(&claim, turn(&mut table), move |_| inner.close());
    writer.close();
    let (told, hears) = channel();
    writer.submit(&claim, turn(&mut table), move |outcome| told.send(outcome.map(drop)).unwrap());
    assert_eq!(hears.recv(), Ok(Err(StoreError::Closed)));
}

/// Whoever brings a turn may have to go on at once; a disk may take its time.
#[test]
fn what_may_wait_for_a_disk_is_never_written_by_whoever_brings_it() {
    let (writer, gate) = gated(in_place());
    gate.change(|state| state.may_wait = true);
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    for name in ["first", "second"] {
        std::thread::sleep(Duration::from_millis(1));
        // With the gate closed this would not return.
        submit(&writer, &claim, turn(&mut table), name, &told);
        gate.wait(|state| state.came.len() == if name == "first" { 1 } else { 2 });
        assert_eq!(all(&hears), []);
        gate.pass(Fate::Passes);
        assert_eq!(hears.recv(), Ok((name, Ok(()))));
    }
}

/// Moving a log into its file may take long. Whoever was written for does not wait for it, and
/// whoever writes in place does not do it.
#[test]
fn the_store_gets_what_it_is_owed_when_everybody_is_told() {
    for in_place in [false, true] {
        let (writer, gate) = gated(WriterOptions { in_place, ..WriterOptions::default() });
        let claim = claim(&writer, "p");
        let mut table = table(&claim);
        let (told, hears) = channel();
        // With the commit, and not before: the claim may still be followed by some upkeep.
        gate.change(|state| state.gets_untidy = true);
        gate.pass(Fate::Passes);
        submit(&writer, &claim, turn(&mut table), "told", &told);
        assert_eq!(hears.recv(), Ok(("told", Ok(()))), "upkeep stands at the gate");
        gate.wait(|state| state.tidied == 1);
        submit(&writer, &claim, turn(&mut table), "later", &told);
        gate.open();
        writer.close();
        assert_eq!(all(&hears), [("later", Ok(()))]);
        assert_eq!(gate.state.lock().unwrap().tidied, 1);
    }
}

#[test]
fn nobody_writes_what_others_are_writing_already() {
    let (writer, gate) = gated(in_place());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    let first = turn(&mut table);
    std::thread::scope(|scope| {
        let (writer, claim, its) = (&writer, &claim, told.clone());
        scope.spawn(move || submit(writer, claim, first, "first", &its));
        gate.wait(|state| state.came.len() == 1);
        // Whoever it is that stands at the gate, here or in the thread: nobody joins them.
        submit(writer, claim, turn(&mut table), "second", &told);
        submit(writer, claim, turn(&mut table), "third", &told);
        gate.open();
    });
    // Whoever was there sees to them, and nobody has to come by.
    let heard = [(); 3].map(|()| hears.recv().unwrap());
    assert_eq!(heard, [("first", Ok(())), ("second", Ok(())), ("third", Ok(()))]);
    writer.close();
    assert_eq!(gate.came().len(), 2, "what came meanwhile went together");
}

#[test]
fn nobody_overtakes_what_was_handed_in_before() {
    for _ in 0..50 {
        let (writer, gate) = gated(in_place());
        gate.open();
        let claim = claim(&writer, "p");
        let mut table = table(&claim);
        let (told, hears) = channel();
        // The thread has hardly woken for this one when the turn comes.
        let first = told.clone();
        writer.after(&claim, move |outcome| first.send(("first", outcome)).unwrap());
        submit(&writer, &claim, turn(&mut table), "second", &told);
        writer.close();
        assert_eq!(all(&hears), [("first", Ok(())), ("second", Ok(()))]);
    }
}

#[test]
fn the_last_handle_ends_the_thread_after_everything_is_written() {
    let (writer, gate) = gated(WriterOptions::default());
    let claim = claim(&writer, "p");
    let mut table = table(&claim);
    let (told, hears) = channel();
    submit(&writer, &claim, turn(&mut table), "first", &told);
    gate.wait(|state| state.came.len() == 1);
    // The last handle may even be dropped by a `then`, on the writer's own thread.
    let last = writer.clone();
    writer.submit(&claim, turn(&mut table), move |_| drop(last));
    submit(&writer, &claim, turn(&mut table), "third", &told);
    drop(writer);
    assert!(!gate.state.lock().unwrap().dropped, "dropping does not wait, nor cut short");
    gate.open();
    gate.wait(|state| state.dropped);
    assert_eq!(all(&hears), [("first", Ok(())), ("third", Ok(()))]);
}

#[test]
fn what_is_old_is_removed_when_there_is_nothing_else_to_do() {
    let every = Duration::from_millis(1);
    let retention = Retention { every, ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention, ..WriterOptions::default() });
    gate.wait(|state| state.pruned >= 5);
    drop(writer);
    let never = Retention { released: None, audit: None, every };
    let (writer, gate) = gated(WriterOptions { retention: never, ..WriterOptions::default() });
    gate.open();
    let _ = claim(&writer, "p");
    writer.close();
    assert_eq!(gate.state.lock().unwrap().pruned, 0);
}

/// Not before it is due; and then not only when there is a moment without work, which may not come.
#[test]
fn what_is_old_is_left_alone_until_it_is_due_and_then_removed_between_other_work() {
    let began = Instant::now();
    let (writer, gate) = gated(WriterOptions::default());
    gate.open();
    for _ in 0..5 {
        let _ = claim(&writer, "p");
    }
    writer.close();
    // On a machine that took so long it was due.
    let is_due = began.elapsed() >= Duration::from_secs(1);
    assert!(gate.state.lock().unwrap().pruned == 0 || is_due);

    let often = Retention { every: Duration::from_millis(1), ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention: often, ..WriterOptions::default() });
    gate.open();
    let claim = claim(&writer, "p");
    let (told, hears) = channel();
    Busy { writer, claim, gate, told, until: Instant::now() + Duration::from_secs(2), left: 100 }
        .goes_on();
    assert!(hears.recv().unwrap(), "nothing was removed while there was other work");
}

/// Hands in the next thing to do whenever one is done, on the writer's own thread: so it never
/// finds its queue empty. Ends when something was removed, or when it has long been due.
struct Busy {
    writer: Writer,
    claim: Claim,
    gate: Arc<Gate>,
    told: Sender<bool>,
    until: Instant,
    /// How many rounds more, behind that.
    left: u32,
}

impl Busy {
    fn goes_on(mut self) {
        let (writer, claim) = (self.writer.clone(), self.claim.clone());
        writer.after(&claim, move |_| {
            let has_pruned = self.gate.state.lock().unwrap().pruned > 0;
            if has_pruned || self.left == 0 {
                return self.told.send(has_pruned).unwrap();
            }
            self.left -= u32::from(Instant::now() > self.until);
            self.goes_on();
        });
    }
}

/// Whoever has claimed before the writer began hands in turns like others; the newest claim counts,
/// whichever the writer has seen first.
#[test]
fn claims_from_before_the_writer_are_known_by_their_epoch() {
    let mut store = MemoryStore::new();
    let [old, other, new] = ["p", "q", "p"].map(|project| store.claim(project).unwrap());
    let writer = Writer::start(Box::new(store), WriterOptions::default()).unwrap();
    let mut tables = [&old, &other, &new].map(table);
    let (told, hears) = channel();
    for (at, claim) in [&old, &other, &new, &old, &other, &new].into_iter().enumerate() {
        submit(&writer, claim, turn(&mut tables[at % 3]), "told", &told);
    }
    writer.close();
    let (project, epoch, newest) = (old.project.clone(), old.epoch, new.epoch);
    let over = || Err(StoreError::Superseded { project: project.clone(), epoch, newest });
    let told: Vec<_> = all(&hears).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(told, [over(), Ok(()), Ok(()), over(), Ok(()), Ok(())]);
}

/// A time too long to be told is never, and a store that panics takes nobody with it.
#[test]
fn whatever_becomes_of_removing_what_is_old_the_writer_goes_on() {
    let seldom = Retention { every: Duration::MAX, ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention: seldom, ..WriterOptions::default() });
    gate.open();
    gate.wait(|state| state.pruned >= 3);
    let _ = claim(&writer, "p");
    writer.close();
    assert_eq!(gate.state.lock().unwrap().pruned, 3);
    let often = Retention { every: Duration::from_millis(1), ..Retention::default() };
    let (writer, gate) = gated(WriterOptions { retention: often, ..WriterOptions::default() });
    gate.change(|state| state.prune_panics = true);
    gate.open();
    gate.wait(|state| state.pruned >= 3);
    let _ = claim(&writer, "p");
    writer.close();
}

/// From end to end: agents on many threads, a real file, and what they were told is there after.
#[test]
fn what_was_told_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let writer = Writer::start(Box::new(open(&path)), WriterOptions::default()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|nth| {
            let writer = writer.clone();
            std::thread::spawn(move || an_agent(&writer, nth))
        })
        .collect();
    let mut held: Vec<(String, Grant)> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    writer.close();
    let db = rusqlite::Connection::open(&path).unwrap();
    let mut rows =
        db.prepare("SELECT project_id, id FROM resource_locks WHERE released_at IS NULL").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut rows: Vec<(String, String)> = rows.map(Result::unwrap).collect();
    rows.sort();
    held.sort_by_key(|(project, grant)| (project.clone(), grant.lock));
    let held: Vec<(String, String)> =
        held.into_iter().map(|(project, grant)| (project, grant.lock.to_string())).collect();
    assert_eq!(rows, held);
    drop(open(&path));
}

/// Takes and gives back; returns what it holds in the end.
fn an_agent(writer: &Writer, nth: u64) -> Vec<(String, Grant)> {
    let project = format!("project {nth}");
    let claim = claim(writer, &project);
    let reign = Reign { epoch: claim.epoch, ..Reign::first(100 + nth) };
    let mut table = LockTable::new(TableConfig::default(), reign);
    let (told, hears) = channel();
    let mut ask_and_wait = |command: Command| {
        let told = told.clone();
        let turn = table.apply(Timestamp(1_000_000), command);
        writer.submit(&claim, turn, move |settled| {
            told.send(settled.unwrap().into_parts().0.remove(0).outcome.unwrap()).unwrap();
        });
        hears.recv().unwrap()
    };
    let Answer::SessionOpened { session } = ask_and_wait(OpenSession::default().into()) else {
        panic!()
    };
    let mut held = Vec::new();
    for n in 0..60 {
        let Answer::Granted(grants) = ask_and_wait(ask(session, &format!("file:{n}")).into())
        else {
            panic!()
        };
        match n % 3 {
            0 => held.push((project.clone(), grants[0].clone())),
            _ => drop(ask_and_wait(give_back(session, grants[0].lock).into())),
        }
    }
    held
}

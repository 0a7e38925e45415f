//! Each limit of a table, at its edge: as much as it says is let in, and no more.

use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, ClaimTasks, Command, DeclareCapacity, DeclareWait,
    ForceUnlock, Forgetful, Ledger, Limit, Limits, LockMode, LockTable, OpenSession, Refusal,
    Reign, Resource, SessionId, TableConfig, TaskClaim, Timestamp, Upgrade,
};

struct World(LockTable, Ledger<Forgetful>);

impl World {
    fn with(set: impl FnOnce(&mut Limits)) -> World {
        let mut config = TableConfig::default();
        set(&mut config.limits);
        World(LockTable::new(config, Reign::first(3)), Ledger::new(Forgetful))
    }

    /// What a command is answered with; none if it waits.
    fn ask(&mut self, command: impl Into<Command>) -> Option<Result<Answer, Refusal>> {
        let turn = self.0.apply(Timestamp(0), command.into());
        let (mut replies, _) = turn.settle(&mut self.1).expect("in order").into_parts();
        replies.pop().map(|reply| reply.outcome)
    }

    fn open(&mut self, agent: &str) -> SessionId {
        match self.ask(OpenSession { agent: agent.into(), ..OpenSession::default() }) {
            Some(Ok(Answer::SessionOpened { session })) => session,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn is_let_in(&mut self, command: impl Into<Command>) {
        let answer = self.ask(command);
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    }

    #[track_caller]
    fn waits(&mut self, command: impl Into<Command>) {
        let answer = self.ask(command);
        assert_eq!(answer, None);
    }

    /// That a command is refused because of this limit, and only because of it.
    #[track_caller]
    fn is_over(&mut self, command: impl Into<Command>, limit: Limit, max: u64) {
        let answer = self.ask(command);
        assert_eq!(answer, Some(Err(Refusal::LimitReached { limit, max })));
    }
}

fn acquire(session: SessionId, key: &str) -> Acquire {
    let (mode, options) = (LockMode::Exclusive, AskOptions::default());
    Acquire { session, resource: Resource::file(key), mode, options }
}

#[test]
fn sessions() {
    let mut world = World::with(|limits| limits.sessions_max = 2);
    world.open("a");
    world.open("b");
    world.is_over(OpenSession::default(), Limit::Sessions, 2);
}

#[test]
fn texts() {
    let mut world = World::with(|limits| limits.text_bytes_max = 8);
    let session = world.open("12345678");
    let long = OpenSession { agent: "123456789".into(), ..OpenSession::default() };
    world.is_over(long, Limit::TextBytes, 8);
    // Bytes, not letters.
    let wide = OpenSession { agent: "äöüß€".into(), ..OpenSession::default() };
    world.is_over(wide, Limit::TextBytes, 8);
    let reason = |text: &str| AskOptions { reason: Some(text.into()), ..AskOptions::default() };
    let metadata = |text: &str| AskOptions { metadata: Some(text.into()), ..AskOptions::default() };
    world.is_let_in(Acquire { options: reason("12345678"), ..acquire(session, "a") });
    world.is_let_in(Acquire { options: metadata("12345678"), ..acquire(session, "b") });
    for options in [reason("123456789"), metadata("123456789")] {
        world.is_over(
            Acquire { options: options.clone(), ..acquire(session, "c") },
            Limit::TextBytes,
            8,
        );
        let wants = vec![(Resource::file("c"), LockMode::Shared)];
        let batch = AcquireAll { session, wants, options: options.clone() };
        world.is_over(batch, Limit::TextBytes, 8);
        let claims = vec![TaskClaim { task: Resource::task("t"), expect_version: None }];
        world.is_over(ClaimTasks { session, claims, options }, Limit::TextBytes, 8);
    }
    let mut shared = acquire(session, "d");
    shared.mode = LockMode::Shared;
    world.is_let_in(shared);
    let held = world.0.owner(&Resource::file("d")).expect("held");
    let options = reason("123456789");
    world.is_over(Upgrade { session, lock: held.lock, options }, Limit::TextBytes, 8);
    for (admin, reason) in [("123456789", "r"), ("a", "123456789")] {
        let (admin, reason) = (admin.into(), reason.into());
        let resource = Resource::file("a");
        world.is_over(ForceUnlock { resource, admin, reason }, Limit::TextBytes, 8);
    }
    let (admin, reason) = ("12345678".into(), "12345678".into());
    world.is_let_in(ForceUnlock { resource: Resource::file("a"), admin, reason });
}

#[test]
fn keys() {
    let mut world = World::with(|limits| limits.key_bytes_max = 8);
    let session = world.open("a");
    world.is_let_in(acquire(session, "12345678"));
    let refused = world.ask(acquire(session, "123456789"));
    assert!(matches!(refused, Some(Err(Refusal::InvalidResource { .. }))), "{refused:?}");
}

#[test]
fn waits_of_a_session() {
    let mut world = World::with(|limits| limits.waits_per_session_max = 2);
    let (a, b, c, d) = (world.open("a"), world.open("b"), world.open("c"), world.open("d"));
    for key in ["1", "2", "3"] {
        world.is_let_in(acquire(a, key));
    }
    world.waits(acquire(b, "1"));
    world.is_let_in(DeclareWait { session: b, on: c });
    // Declared once more it is the same wait.
    world.is_let_in(DeclareWait { session: b, on: c });
    world.is_over(acquire(b, "3"), Limit::WaitsPerSession, 2);
    world.is_over(DeclareWait { session: b, on: d }, Limit::WaitsPerSession, 2);
    // What need not wait may still be had.
    world.is_let_in(acquire(b, "4"));
}

#[test]
fn shares_of_a_counted_hold() {
    let mut world = World::with(|limits| limits.holds_per_session_max = 2);
    let session = world.open("a");
    let options = AskOptions { reentrant: true, ..AskOptions::default() };
    let ask = Acquire { options, ..acquire(session, "a") };
    world.is_let_in(ask.clone());
    world.is_let_in(ask.clone());
    world.is_over(ask, Limit::HoldsPerSession, 2);
}

/// What is held, what is waited for and what is claimed counts together.
#[test]
fn holds_with_claims_among_them() {
    let mut world = World::with(|limits| limits.holds_per_session_max = 3);
    let session = world.open("a");
    world.is_let_in(acquire(session, "a"));
    world.is_let_in(acquire(session, "b"));
    let claim = |tasks: &[&str]| {
        let one = |task: &&str| TaskClaim { task: Resource::task(task), expect_version: None };
        let claims = tasks.iter().map(one).collect();
        ClaimTasks { session, claims, options: AskOptions::default() }
    };
    world.is_over(claim(&["1", "2"]), Limit::HoldsPerSession, 3);
    world.is_let_in(claim(&["1"]));
    world.is_over(claim(&["2"]), Limit::HoldsPerSession, 3);
}

/// A refusal stays small: it names the first few who stand in the way, and counts the others.
#[test]
fn how_many_a_refusal_names() {
    let mut world = World::with(|_| {});
    let writer = world.open("writer");
    for number in 1..40 {
        let reader = world.open(&format!("reader-{number}"));
        world.is_let_in(Acquire { mode: LockMode::Shared, ..acquire(reader, "a") });
        let now = AskOptions { wait: Some(std::time::Duration::ZERO), ..AskOptions::default() };
        let refused = world.ask(Acquire { options: now, ..acquire(writer, "a") });
        let Some(Err(Refusal::Busy { obstacles })) = refused else { panic!("{refused:?}") };
        let names: Vec<&str> = obstacles[0].holders.iter().map(|one| &*one.agent).collect();
        let expected: Vec<String> = (1..=number.min(8)).map(|n| format!("reader-{n}")).collect();
        assert_eq!(
            (names, obstacles[0].held_by),
            (expected.iter().map(|n| &**n).collect(), number)
        );
    }
}

#[test]
fn capacities_and_slots() {
    let mut world = World::with(|limits| (limits.capacities_max, limits.slots_max) = (2, 4));
    let declare = |name: &str, slots: Option<u32>| {
        let resource = Resource::llm(name);
        DeclareCapacity { resource, capacity: slots }
    };
    world.is_over(declare("a", Some(5)), Limit::Slots, 4);
    world.is_let_in(declare("a", Some(4)));
    world.is_let_in(declare("b", Some(1)));
    world.is_over(declare("c", Some(1)), Limit::Capacities, 2);
    // Changed, it is no new one.
    world.is_let_in(declare("b", Some(2)));
    world.is_let_in(declare("b", None));
    world.is_let_in(declare("c", Some(1)));
}

/// What is held as a whole is not shared out under its holder's feet.
#[test]
fn what_is_in_use_keeps_its_kind() {
    let mut world = World::with(|_| {});
    let (a, b) = (world.open("a"), world.open("b"));
    world.is_let_in(acquire(a, "x"));
    let declare = DeclareCapacity { resource: Resource::file("x"), capacity: Some(2) };
    let in_use =
        |holds, waits| Some(Err(Refusal::InUse { resource: Resource::file("x"), holds, waits }));
    assert_eq!(world.ask(declare.clone()), in_use(1, 0));
    world.waits(acquire(b, "x"));
    assert_eq!(world.ask(declare), in_use(1, 1));
}

#[test]
fn tasks_and_members_of_a_batch() {
    let mut world = World::with(|limits| (limits.tasks_max, limits.batch_max) = (2, 3));
    let (a, b) = (world.open("a"), world.open("b"));
    let claim = |session, tasks: &[&str]| {
        let one = |task: &&str| TaskClaim { task: Resource::task(task), expect_version: None };
        let claims = tasks.iter().map(one).collect();
        ClaimTasks { session, claims, options: AskOptions::default() }
    };
    world.is_let_in(claim(a, &["1"]));
    world.is_over(claim(a, &["2", "3"]), Limit::Tasks, 2);
    world.is_let_in(claim(a, &["2"]));
    world.is_over(claim(b, &["3"]), Limit::Tasks, 2);
    // One that is remembered already is not one more.
    let refused = world.ask(claim(b, &["1"]));
    assert!(matches!(refused, Some(Err(Refusal::ClaimFailed { .. }))), "{refused:?}");
    let batch = |session, keys: &[&str]| {
        let wants = keys.iter().map(|key| (Resource::file(key), LockMode::Shared)).collect();
        AcquireAll { session, wants, options: AskOptions::default() }
    };
    world.is_let_in(batch(b, &["1", "2", "3"]));
    world.is_over(batch(b, &["4", "5", "6", "7"]), Limit::Batch, 3);
}

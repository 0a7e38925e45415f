//! What the audit log says beside each fact: whose, of what, with which token, and which session
//! remembers it. And what the row of a hold says about its end.
//!
//! A row of the log is written here as `event_type agent resource token session request`, with `-`
//! for what it does not say. Most of it cannot be derived from the fact itself, which names ids.

use crate::life::{START, ask, config, give_back, open};
use lockkeeper_core::*;
use lockkeeper_store::{AuditFilter, Claim, SqliteStore, Writer, WriterOptions};
use std::{collections::BTreeMap, path::PathBuf, sync::mpsc::channel, time::Duration};

/// One project in front of a writer, and everything that was recorded of it.
struct Story {
    folder: tempfile::TempDir,
    writer: Writer,
    claim: Claim,
    table: LockTable,
    now: u64,
    recorded: Vec<Record>,
    names: BTreeMap<u64, String>,
}

/// What is left of a story when its store is closed.
struct Told {
    _folder: tempfile::TempDir,
    path: PathBuf,
    log: Vec<String>,
    details: Vec<serde_json::Value>,
}

impl Story {
    fn begin() -> Story {
        let folder = tempfile::tempdir().unwrap();
        let store: SqliteStore = open(&folder.path().join("locks.db"));
        let writer = Writer::start(Box::new(store), WriterOptions::default()).unwrap();
        let (told, hears) = channel();
        writer.claim("p".into(), move |claimed| told.send(claimed).unwrap());
        let (claim, records) = hears.recv().unwrap().unwrap();
        assert!(records.is_empty());
        let reign = Reign { epoch: claim.epoch, id_seed: 7, last_event: 0 };
        let table = LockTable::new(config(), reign);
        let (now, recorded, names) = (START, Vec::new(), BTreeMap::new());
        Story { folder, writer, claim, table, now, recorded, names }
    }

    /// Applies a command and waits until it is written; its own answer, if it has one by then.
    fn ask(&mut self, command: impl Into<Command>) -> Option<Result<Answer, Refusal>> {
        let turn = self.table.apply(Timestamp(self.now), command.into());
        let call = turn.call();
        self.recorded.extend_from_slice(turn.records());
        let (told, hears) = channel();
        self.writer.submit(&self.claim, turn, move |settled| told.send(settled).unwrap());
        let (replies, _) = hears.recv().unwrap().unwrap().into_parts();
        replies.into_iter().find(|reply| reply.call == call).map(|reply| reply.outcome)
    }

    /// The same, of a command that is answered at once and not refused.
    #[track_caller]
    fn is_answered(&mut self, command: impl Into<Command>) -> Answer {
        self.ask(command).expect("an answer").expect("no refusal")
    }

    /// The same, of a request that waits.
    #[track_caller]
    fn waits(&mut self, command: impl Into<Command>) -> TicketId {
        let answer = self.ask(command);
        assert!(
            answer.is_none() || matches!(answer, Some(Ok(Answer::Queued { .. }))),
            "{answer:?}"
        );
        let sessions = self.table.sessions();
        sessions.into_iter().flat_map(|session| session.tickets).max().expect("it waits")
    }

    #[track_caller]
    fn grant(&mut self, command: impl Into<Command>) -> Grant {
        match self.is_answered(command) {
            Answer::Granted(mut grants) => grants.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, agent: &str) -> SessionId {
        self.open_as(OpenSession { agent: agent.into(), ..OpenSession::default() })
    }

    fn open_as(&mut self, open: OpenSession) -> SessionId {
        let agent = open.agent.to_string();
        let Answer::SessionOpened { session } = self.is_answered(open) else { panic!() };
        self.names.insert(session.get(), agent);
        session
    }

    fn passes(&mut self, seconds: u64) {
        self.now += seconds * 1_000;
        assert_eq!(self.ask(Command::Tick), Some(Ok(Answer::Ticked)));
    }

    /// Closes the store, and tells what is in it: by the reader before, by the tables after.
    fn end(self) -> Told {
        let path = self.folder.path().join("locks.db");
        let mut reader = self.writer.reader().unwrap();
        assert_eq!(reader.history("p").unwrap(), self.recorded);
        let filter = AuditFilter { oldest_first: true, ..AuditFilter::default() };
        let read = reader.audit(&filter).unwrap();
        drop(reader);
        self.writer.close();
        let db = rusqlite::Connection::open(&path).unwrap();
        let mut rows = db
            .prepare(
                "SELECT event_type, agent_id, resource, token, session_id, request_id
                 FROM audit_log WHERE project_id = 'p' ORDER BY id",
            )
            .unwrap();
        let name = |session: u64| self.names[&session].clone();
        let log = rows.query_map([], |row| {
            let words: [Option<String>; 6] = [
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get::<_, Option<u64>>(3)?.map(counter),
                row.get::<_, Option<u64>>(4)?.map(name),
                row.get(5)?,
            ];
            Ok(words.map(|word| word.unwrap_or("-".to_owned())).join(" "))
        });
        let log: Vec<String> = log.unwrap().map(Result::unwrap).collect();
        assert_eq!(log.len(), read.len());
        let (now, mut details) = (Timestamp(self.now), Vec::new());
        for (written, row) in log.iter().zip(read) {
            let words = [
                Some(row.event_type),
                row.agent_id,
                row.resource,
                row.token.map(|token| counter(token.get())),
            ];
            let read = words.map(|word| word.unwrap_or("-".to_owned())).join(" ");
            assert!(written.starts_with(&format!("{read} ")), "{written}: {read}");
            assert_eq!(row.project_id, "p");
            assert!(Timestamp(START) <= row.event_time && row.event_time <= now);
            details.push(row.details);
        }
        Told { _folder: self.folder, path, log, details }
    }
}

fn counter(token: u64) -> String {
    format!("#{}", Token::from_u64(token).counter())
}

impl Told {
    /// The rows of the log but for those that tell who came.
    fn log(&self) -> Vec<&str> {
        let came = |row: &&str| !row.starts_with("session_opened ");
        self.log.iter().map(String::as_str).filter(came).collect()
    }

    /// The holds, in the order of their grants: resource, agent, mode, why it ended, who ended it.
    fn holds(&self) -> Vec<String> {
        let db = rusqlite::Connection::open(&self.path).unwrap();
        let mut rows = db
            .prepare(
                "SELECT resource_type || ':' || resource_key, agent_id, mode,
                    coalesce(release_cause, 'held'), coalesce(released_by, '-'),
                    iif((released_at IS NULL) = (release_cause IS NULL), '', ' but no moment')
                 FROM resource_locks WHERE project_id = 'p' ORDER BY acquired_at, id",
            )
            .unwrap();
        let rows = rows.query_map([], |row| {
            let words: [String; 5] =
                [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
            Ok(words.join(" ") + &row.get::<_, String>(5)?)
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}

fn with_id(number: u128) -> AskOptions {
    AskOptions { request_id: Some(RequestId::new(number)), ..AskOptions::default() }
}

fn shared(session: SessionId, name: &str) -> Acquire {
    Acquire { mode: LockMode::Shared, ..ask(session, name) }
}

/// A request whose asker is told its ticket at once.
fn with_ticket(session: SessionId, name: &str) -> Acquire {
    let options = AskOptions { slice: Some(Duration::ZERO), ..AskOptions::default() };
    Acquire { options, ..ask(session, name) }
}

#[test]
fn who_comes_and_goes() {
    let mut story = Story::begin();
    let ann = story.open("ann");
    let kind = SessionKind::Detached;
    story.open_as(OpenSession { agent: "bob".into(), kind, ..OpenSession::default() });
    story.is_answered(EndSession { session: ann, cause: EndCause::OwnerDied });
    story.passes(24 * 3600);
    let told = story.end();
    assert_eq!(
        told.log,
        [
            "session_opened ann - - - -",
            "session_opened bob - - - -",
            "session_ended ann - - - -",
            "session_ended bob - - - -",
        ]
    );
    let causes: Vec<_> =
        told.details[2..].iter().map(|one| &one["session_ended"]["cause"]).collect();
    assert_eq!(causes, ["owner_died", "idle"]);
}

#[test]
fn who_waits_for_whom_outside() {
    let mut story = Story::begin();
    let (ann, bob) = (story.open("ann"), story.open("bob"));
    story.is_answered(DeclareWait { session: ann, on: bob });
    story.is_answered(WithdrawWait { session: ann, on: bob });
    story.is_answered(DeclareWait { session: ann, on: bob });
    story.is_answered(EndSession { session: bob, cause: EndCause::Closed });
    assert_eq!(
        story.end().log(),
        [
            "wait_declared ann - - - -",
            "wait_withdrawn ann - - - -",
            "wait_declared ann - - - -",
            "session_ended bob - - - -",
        ]
    );
}

#[test]
fn how_many_slots_there_are() {
    let mut story = Story::begin();
    let resource = Resource::llm("big");
    for capacity in [Some(2), Some(3), None] {
        story.is_answered(DeclareCapacity { resource: resource.clone(), capacity });
    }
    assert_eq!(
        story.end().log(),
        [
            "capacity_declared - llm:big - - -",
            "capacity_declared - llm:big - - -",
            "capacity_declared - llm:big - - -",
        ]
    );
}

#[test]
fn holds_that_change() {
    let mut story = Story::begin();
    let ann = story.open("ann");
    let again = |options| AskOptions { reentrant: true, ..options };
    let first =
        story.grant(Acquire { options: again(AskOptions::default()), ..shared(ann, "file:a") });
    let (lock, by) = (first.lock, Credential::Session(ann));
    let counted = story.grant(Acquire { options: again(with_id(0xa)), ..shared(ann, "file:a") });
    assert_eq!(counted.lock, lock);
    story.grant(Acquire { options: again(AskOptions::default()), ..shared(ann, "file:a") });
    let release = |request_id| Release { by, lock, share: None, request_id };
    story.is_answered(release(Some(RequestId::new(0xb))));
    story.is_answered(release(None));
    let renew = |request_id| Renew { by, lock, lease: None, shorten: false, request_id };
    story.now += 1_000;
    story.is_answered(renew(None));
    story.now += 1_000;
    story.is_answered(renew(Some(RequestId::new(0xc))));
    story.is_answered(Upgrade { session: ann, lock, options: with_id(0xd) });
    let mode = LockMode::Update;
    story.is_answered(Downgrade { session: ann, lock, mode, request_id: None });
    story.is_answered(release(Some(RequestId::new(0xe))));
    let told = story.end();
    assert_eq!(
        told.log(),
        [
            "lock_granted ann file:a #1 - -",
            "lock_reentered ann file:a #1 ann a",
            "lock_reentered ann file:a #1 - -",
            "lock_counted_down ann file:a #1 ann b",
            "lock_counted_down ann file:a #1 - -",
            "lock_renewed ann file:a #1 - -",
            "lock_renewed ann file:a #1 ann c",
            "lock_converted ann file:a #2 ann d",
            "lock_converted ann file:a #3 - -",
            "lock_released ann file:a #3 ann e",
        ]
    );
    assert_eq!(told.holds(), ["file:a ann update released ann",]);
}

#[test]
fn waits_and_how_they_end() {
    let mut story = Story::begin();
    let (ann, bob) = (story.open("ann"), story.open("bob"));
    let (cy, dan) = (story.open("cy"), story.open("dan"));
    let held = story.grant(ask(ann, "file:a"));
    // Given back by its asker, who knew its ticket.
    let ticket = story.waits(with_ticket(bob, "file:a"));
    story.waits(Wait { session: bob, ticket, slice: None });
    story.is_answered(Cancel { session: bob, target: CancelTarget::Ticket(ticket) });
    // Too long, with and without a request id.
    let wait = Some(Duration::from_secs(1));
    story.waits(Acquire { options: AskOptions { wait, ..with_id(7) }, ..ask(bob, "file:a") });
    story.waits(Acquire {
        options: AskOptions { wait, ..AskOptions::default() },
        ..ask(cy, "file:a")
    });
    story.passes(1);
    // Nobody came back for it.
    story.waits(with_ticket(bob, "file:a"));
    let grace = config().ticket_grace;
    let renewed = Some(grace * 3);
    let by = Credential::Session(ann);
    let renew = Renew { by, lock: held.lock, lease: renewed, shorten: false, request_id: None };
    story.is_answered(renew);
    story.passes(grace.as_secs() + 1);
    // An upgrade, whose hold is given back meanwhile.
    story.grant(shared(bob, "file:b"));
    let building = story.grant(shared(cy, "file:b"));
    let options = AskOptions::default();
    story.waits(Upgrade { session: cy, lock: building.lock, options });
    story.is_answered(give_back(cy, building.lock));
    // Too many permits all of a sudden.
    let (resource, capacity) = (Resource::llm("big"), Some(2));
    story.is_answered(DeclareCapacity { resource: resource.clone(), capacity });
    let permits = |session, n| Acquire { mode: LockMode::Permit(n), ..ask(session, "llm:big") };
    story.grant(permits(ann, 1));
    story.waits(permits(cy, 2));
    story.is_answered(DeclareCapacity { resource, capacity: Some(1) });
    // Its session is over; and everything of its agent is released.
    story.waits(ask(cy, "file:a"));
    story.is_answered(EndSession { session: cy, cause: EndCause::Closed });
    story.waits(ask(dan, "file:a"));
    story.is_answered(ReleaseAll { agent: "dan".into() });
    // And one that gets what it waited for, and may come back for it.
    let wants = vec![
        ("file:c".parse().unwrap(), LockMode::Exclusive),
        ("file:a".parse().unwrap(), LockMode::Exclusive),
    ];
    let slice = Some(Duration::ZERO);
    let options = AskOptions { slice, ..AskOptions::default() };
    story.waits(AcquireAll { session: dan, wants, options });
    story.is_answered(give_back(ann, held.lock));
    let told = story.end();
    assert_eq!(
        told.log(),
        [
            "lock_granted ann file:a #1 - -",
            "lock_waiting bob file:a - bob -",
            "ticket_polled bob file:a - - -",
            "ticket_polled bob file:a - - -",
            "wait_left bob file:a - bob -",
            "lock_waiting bob file:a - bob 7",
            "lock_waiting cy file:a - cy -",
            "wait_left bob file:a - bob 7",
            "wait_left cy file:a - - -",
            "lock_waiting bob file:a - bob -",
            "ticket_polled bob file:a - - -",
            "lock_renewed ann file:a #1 - -",
            "wait_left bob file:a - bob -",
            "lock_granted bob file:b #2 - -",
            "lock_granted cy file:b #2 - -",
            "lock_waiting cy file:b - cy -",
            "wait_left cy file:b - - -",
            "lock_released cy file:b #2 - -",
            "capacity_declared - llm:big - - -",
            "lock_granted ann llm:big #3 - -",
            "lock_waiting cy llm:big - cy -",
            "capacity_declared - llm:big - - -",
            "wait_left cy llm:big - - -",
            "lock_waiting cy file:a - cy -",
            "wait_left cy file:a - - -",
            "session_ended cy - - - -",
            "lock_waiting dan file:a - dan -",
            "wait_left dan file:a - - -",
            "lock_waiting dan file:a - dan -",
            "ticket_polled dan file:a - - -",
            "lock_released ann file:a #1 - -",
            "lock_granted dan file:a #4 dan -",
            "lock_granted dan file:c #5 dan -",
        ]
    );
    let left = told.details.iter().filter_map(|details| details.get("left"));
    let causes: Vec<&str> = left
        .map(|left| match &left["cause"] {
            serde_json::Value::Object(what) => what.keys().next().unwrap(),
            word => word.as_str().unwrap(),
        })
        .collect();
    assert_eq!(
        causes,
        [
            "cancelled",
            "timed_out",
            "timed_out",
            "abandoned",
            "hold_ended",
            "capacity_shrunk",
            "session_ended",
            "released_all",
        ]
    );
}

#[test]
fn tasks() {
    let mut story = Story::begin();
    let ann = story.open("ann");
    let task = Resource::task("t");
    let claims = || vec![TaskClaim { task: Resource::task("t"), expect_version: None }];
    let claim = |options| ClaimTasks { session: ann, claims: claims(), options };
    let lock = |story: &Story| story.table.list()[0].lock;
    story.is_answered(claim(with_id(1)));
    let by = Credential::Session(ann);
    let finish =
        |lock, done, request_id| FinishTask { by, lock, done, expect_version: None, request_id };
    let held = lock(&story);
    story.is_answered(finish(held, false, Some(RequestId::new(2))));
    story.is_answered(claim(AskOptions::default()));
    let held = lock(&story);
    story.is_answered(finish(held, true, None));
    story.is_answered(ReopenTask { task: task.clone(), expect_version: None });
    story.is_answered(ForgetTask { task });
    let told = story.end();
    assert_eq!(
        told.log(),
        [
            "lock_granted ann task:t #1 ann 1",
            "task_moved - task:t - - -",
            "lock_released ann task:t #1 - -",
            "task_moved - task:t - - -",
            "remembered - - - ann 2",
            "lock_granted ann task:t #2 - -",
            "task_moved - task:t - - -",
            "lock_released ann task:t #2 - -",
            "task_moved - task:t - - -",
            "task_moved - task:t - - -",
            "task_forgotten - task:t - - -",
        ]
    );
    assert_eq!(
        told.holds(),
        ["task:t ann exclusive released ann", "task:t ann exclusive released ann",]
    );
}

#[test]
fn a_table_in_service_again() {
    let mut story = Story::begin();
    let ann = story.open("ann");
    story.is_answered(Resume { orphaned: false });
    story.is_answered(Resume { orphaned: true });
    assert_eq!(story.table.agent_of(ann), None);
    assert_eq!(
        story.end().log(),
        ["resumed - - - - -", "resumed - - - - -", "session_ended ann - - - -",]
    );
}

/// The victim has a grace in which it may clean up, and does not.
#[test]
fn a_deadlock_and_what_it_takes() {
    let mut story = Story::begin();
    let (ann, bob) = (story.open("ann"), story.open("bob"));
    story.grant(ask(ann, "file:a"));
    story.grant(ask(bob, "file:b"));
    story.grant(ask(bob, "file:more"));
    story.waits(Acquire { options: with_id(9), ..ask(ann, "file:b") });
    story.waits(ask(bob, "file:a"));
    story.passes(1);
    let told = story.end();
    assert_eq!(
        told.log(),
        [
            "lock_granted ann file:a #1 - -",
            "lock_granted bob file:b #2 - -",
            "lock_granted bob file:more #3 - -",
            "lock_waiting ann file:b - ann 9",
            "lock_waiting bob file:a - bob -",
            "deadlock_detected ann file:a - ann -",
            "wait_left ann file:b - ann 9",
            "lock_revoking ann file:a #1 - -",
            "lock_revoked ann file:a #1 - -",
            "lock_granted bob file:a #4 - -",
        ]
    );
    assert_eq!(
        told.holds(),
        [
            "file:a ann exclusive deadlock lockkeeper",
            "file:b bob exclusive held -",
            "file:more bob exclusive held -",
            "file:a bob exclusive held -",
        ]
    );
}

/// Each cause of an end, the word for it in the row of the hold, and who is said to have ended it.
#[test]
fn how_a_hold_ends_and_who_ended_it() {
    let mut story = Story::begin();
    let [ann, bob, cy, dan] = ["ann", "bob", "cy", "dan"].map(|agent| story.open(agent));
    let held = story.grant(ask(ann, "file:given-back"));
    story.is_answered(give_back(ann, held.lock));
    story.grant(Acquire { options: with_id(1), ..ask(ann, "file:taken-back") });
    story.is_answered(Cancel { session: ann, target: CancelTarget::Request(RequestId::new(1)) });
    let lease = Some(Duration::from_secs(1));
    let options = AskOptions { lease, ..AskOptions::default() };
    story.grant(Acquire { options, ..ask(ann, "file:expired") });
    story.passes(1);
    story.grant(ask(ann, "file:forced"));
    let (admin, reason) = ("root".into(), "stuck".into());
    story.is_answered(ForceUnlock { resource: Resource::file("forced"), admin, reason });
    story.grant(ask(bob, "file:released-all"));
    story.is_answered(ReleaseAll { agent: "bob".into() });
    story.grant(ask(cy, "file:session-closed"));
    story.is_answered(EndSession { session: cy, cause: EndCause::Closed });
    story.grant(ask(dan, "file:session-died"));
    story.is_answered(EndSession { session: dan, cause: EndCause::OwnerDied });
    story.grant(ask(ann, "file:still-held"));
    let told = story.end();
    assert_eq!(
        told.log(),
        [
            "lock_granted ann file:given-back #1 - -",
            "lock_released ann file:given-back #1 - -",
            "lock_granted ann file:taken-back #2 ann 1",
            "lock_released ann file:taken-back #2 - -",
            "lock_granted ann file:expired #3 - -",
            "lease_expired ann file:expired #3 - -",
            "lock_granted ann file:forced #4 - -",
            "force_release ann file:forced #4 - -",
            "lock_granted bob file:released-all #5 - -",
            "lock_released bob file:released-all #5 - -",
            "lock_granted cy file:session-closed #6 - -",
            "lock_released cy file:session-closed #6 - -",
            "session_ended cy - - - -",
            "lock_granted dan file:session-died #7 - -",
            "lock_released dan file:session-died #7 - -",
            "session_ended dan - - - -",
            "lock_granted ann file:still-held #8 - -",
        ]
    );
    assert_eq!(
        told.holds(),
        [
            "file:given-back ann exclusive released ann",
            "file:taken-back ann exclusive cancelled ann",
            "file:expired ann exclusive expired lockkeeper",
            "file:forced ann exclusive forced root",
            "file:released-all bob exclusive released_all administrator",
            "file:session-closed cy exclusive session_ended cy",
            "file:session-died dan exclusive session_ended dan",
            "file:still-held ann exclusive held -",
        ]
    );
}

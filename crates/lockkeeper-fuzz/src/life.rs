//! One life of a table in which everything happens once: what examples are made of.

use lockkeeper_core::{
    Acquire, AcquireAll, AskOptions, Cancel, CancelTarget, ClaimTasks, Command, Credential,
    DeclareCapacity, DeclareWait, Downgrade, Effects, EndCause, EndSession, FinishTask,
    ForceUnlock, ForgetTask, LockId, LockMode, LockTable, OpenSession, Reign, Release, ReleaseAll,
    Renew, ReopenTask, RequestId, Resource, SessionId, SessionKind, TableConfig, TaskClaim,
    TicketId, Timestamp, Upgrade, Wait, WithdrawWait,
};
use std::time::Duration;

pub(crate) const START: u64 = 1_700_000_000_000;

/// A table, its clock, and everything it was asked and did.
pub(crate) struct Life {
    pub(crate) table: LockTable,
    now: u64,
    pub(crate) turns: Vec<Effects>,
    pub(crate) commands: Vec<Command>,
}

pub(crate) fn config() -> TableConfig {
    TableConfig { grace: Duration::from_millis(50), ..TableConfig::default() }
}

impl Life {
    /// The life up to where some hold, some wait, and nobody is gone.
    pub(crate) fn lived(reign: Reign) -> Life {
        let table = LockTable::new(config(), reign);
        let mut life = Life { table, now: START, turns: Vec::new(), commands: Vec::new() };
        let [ann, bob, eve] = ["ann", "bob \"the\n2nd\"", "eve"].map(|name| life.open(name));
        life.locks(ann, bob, eve);
        life.tasks(ann, bob);
        life.deadlock(ann, bob, eve);
        life.rest(ann, bob, eve);
        life
    }

    fn told(&mut self, command: impl Into<Command>) {
        self.now += 7;
        let command = command.into();
        self.commands.push(command.clone());
        self.turns.push(self.table.apply(Timestamp(self.now), command));
    }

    fn open(&mut self, agent: &str) -> SessionId {
        let kind = match agent {
            "eve" => SessionKind::Detached,
            _ => SessionKind::Attached,
        };
        self.told(OpenSession { agent: agent.into(), kind, ..OpenSession::default() });
        self.table.sessions().last().map_or(SessionId::from_u64(0), |one| one.session)
    }

    fn ask(&mut self, session: SessionId, what: &str, mode: LockMode, options: AskOptions) {
        let resource = Resource::new(kind(what).0.into(), kind(what).1);
        self.told(Acquire { session, resource, mode, options });
    }

    fn lock(&self, session: SessionId, what: &str) -> LockId {
        let all = self.table.list();
        let mut own = all.iter().filter(|hold| hold.session == session);
        let found = own.find(|hold| hold.resource.as_str() == what);
        found.map_or(LockId::from_u128(0), |hold| hold.lock)
    }

    fn ticket(&self, session: SessionId) -> TicketId {
        let views = self.table.sessions();
        let own = views.iter().find(|one| one.session == session);
        own.and_then(|one| one.tickets.last().copied()).unwrap_or(TicketId::from_u64(0))
    }

    fn locks(&mut self, ann: SessionId, bob: SessionId, eve: SessionId) {
        let plain = AskOptions::default;
        let request_id = Some(RequestId::new(0xfeed << 70));
        let said = AskOptions {
            reason: Some("why, \"quoted\"\n\u{1F512}".into()),
            metadata: Some(r#"{"ü":[1,null]}"#.into()),
            request_id,
            lease: Some(Duration::from_secs(90)),
            ..plain()
        };
        self.ask(ann, "file:src/main.rs", LockMode::Exclusive, said);
        self.ask(
            ann,
            "file:src/main.rs",
            LockMode::Shared,
            AskOptions { reentrant: true, ..plain() },
        );
        let lock = self.lock(ann, "file:src/main.rs");
        let by = Credential::Session(ann);
        let request_id = Some(RequestId::new(8));
        self.told(Renew {
            by,
            lock,
            lease: Some(Duration::from_secs(95)),
            shorten: false,
            request_id,
        });
        self.told(Release { by, lock, share: None, request_id: None });
        self.ask(bob, "database:orders", LockMode::Update, plain());
        let lock = self.lock(bob, "database:orders");
        self.told(Upgrade { session: bob, lock, options: plain() });
        self.told(Downgrade { session: bob, lock, mode: LockMode::Shared, request_id: None });
        let slice = Some(Duration::ZERO);
        self.ask(eve, "file:src/main.rs", LockMode::Shared, AskOptions { slice, ..plain() });
        let ticket = self.ticket(eve);
        self.told(Wait { session: eve, ticket, slice });
        let llm = Resource::llm("small");
        self.told(DeclareCapacity { resource: llm, capacity: Some(3) });
        self.ask(eve, "llm:small", LockMode::Permit(2), plain());
        self.ask(bob, "llm:small", LockMode::Permit(2), AskOptions { slice, ..plain() });
        let target = CancelTarget::Ticket(self.ticket(bob));
        self.told(Cancel { session: bob, target });
        let wants = vec![
            (Resource::file("x/y"), LockMode::Exclusive),
            (Resource::database("rows"), LockMode::Shared),
        ];
        self.told(AcquireAll { session: eve, wants, options: plain() });
    }

    fn tasks(&mut self, ann: SessionId, bob: SessionId) {
        let task = |name: &str| TaskClaim { task: Resource::task(name), expect_version: None };
        let options = AskOptions::default;
        let claims = vec![task("1"), task("2")];
        self.told(ClaimTasks { session: ann, claims, options: options() });
        let (by, lock) = (Credential::Session(ann), self.lock(ann, "task:1"));
        let (done, expect_version, request_id) = (true, Some(1), None);
        self.told(FinishTask { by, lock, done, expect_version, request_id });
        self.told(ReopenTask { task: Resource::task("1"), expect_version: None });
        self.told(ForgetTask { task: Resource::task("1") });
        self.told(ClaimTasks { session: bob, claims: vec![task("3")], options: options() });
    }

    fn deadlock(&mut self, ann: SessionId, bob: SessionId, eve: SessionId) {
        let plain = AskOptions::default;
        self.ask(ann, "git:index", LockMode::Exclusive, plain());
        self.ask(bob, "gpu:0", LockMode::Exclusive, plain());
        self.ask(ann, "gpu:0", LockMode::Exclusive, plain());
        self.ask(bob, "git:index", LockMode::Exclusive, plain());
        self.told(DeclareWait { session: eve, on: ann });
        self.told(DeclareWait { session: eve, on: bob });
        self.told(WithdrawWait { session: eve, on: bob });
    }

    fn rest(&mut self, ann: SessionId, bob: SessionId, eve: SessionId) {
        let plain = AskOptions::default;
        let lease = Some(Duration::from_millis(1));
        self.ask(eve, "file:short", LockMode::Exclusive, AskOptions { lease, ..plain() });
        self.ask(eve, "file:late", LockMode::Exclusive, plain());
        let wait = Some(Duration::from_millis(1));
        self.ask(bob, "file:late", LockMode::Exclusive, AskOptions { wait, ..plain() });
        self.told(Command::Tick);
        let (admin, reason) = ("root".into(), "stuck".into());
        self.told(ForceUnlock { resource: Resource::file("late"), admin, reason });
        let dan = self.open("dan");
        self.ask(dan, "file:dan", LockMode::Exclusive, plain());
        self.told(ReleaseAll { agent: "dan".into() });
        self.told(EndSession { session: dan, cause: EndCause::OwnerDied });
        for n in 0..40 {
            self.ask(ann, &format!("file:many/{n:03}"), LockMode::Exclusive, plain());
        }
    }
}

fn kind(what: &str) -> (&str, &str) {
    what.split_once(':').unwrap_or((what, ""))
}

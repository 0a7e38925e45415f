//! Plays a script against a lock table and writes it down again with what happened.
//!
//! A step is `agent verb …`, `admin verb …`, `+30s` (time passes) or `! setting value` before the
//! first step; the outcome starts at column 41, or two blanks after a longer
//! step. Lines that start with blanks tell what the step caused for others.

#![allow(clippy::unwrap_used, reason = "a script that cannot be read is a test that fails")]

use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, CallId, Cancel, CancelTarget, ClaimTasks, Command,
    Credential, DeclareCapacity, DeclareWait, Downgrade, EndCause, EndSession, Epoch, FinishTask,
    ForceUnlock, ForgetTask, Grant, Ledger, Lineage, LockId, LockMode, LockTable, LowestPriority,
    News, OpenSession, Record, Refusal, Reign, Release, ReleaseAll, Renew, ReopenTask, RequestId,
    Requester, Resource, Resume, SessionId, SessionKind, TableConfig, TaskClaim, TicketId,
    Timestamp, Token, Upgrade, Wait, WithdrawWait, Youngest,
};
use std::sync::Arc;
use std::{collections::BTreeMap, time::Duration};

const OUTCOME_COLUMN: usize = 40;

/// The script as it really goes.
pub(crate) fn play(script: &str) -> String {
    let mut player = Player::new();
    let mut played = String::new();
    for line in script.lines() {
        if line.starts_with(' ') {
            continue; // what happened before is written anew
        }
        let step = line.split("  ").next().unwrap_or("").trim_end();
        if step.is_empty() || step.starts_with('#') {
            played.push_str(line);
            played.push('\n');
            continue;
        }
        let outcomes = player.step(step);
        for (at, outcome) in outcomes.iter().enumerate() {
            let left = if at == 0 { format!("{step}  ") } else { String::new() };
            played.push_str(format!("{left:<OUTCOME_COLUMN$}{outcome}").trim_end());
            played.push('\n');
        }
        if outcomes.is_empty() {
            played.push_str(step);
            played.push('\n');
        }
    }
    played
}

/// The lines that differ, expected and got.
pub(crate) fn difference(expected: &str, got: &str) -> String {
    let mut text = String::new();
    let (mut e, mut g) = (expected.lines(), got.lines());
    loop {
        match (e.next(), g.next()) {
            (None, None) => return text,
            (Some(a), Some(b)) if a == b => {}
            (a, b) => {
                if let Some(a) = a {
                    text.push_str(&format!("expected: {a}\n"));
                }
                if let Some(b) = b {
                    text.push_str(&format!("     got: {b}\n"));
                }
            }
        }
    }
}

struct Player {
    config: TableConfig,
    table: Option<LockTable>,
    ledger: Ledger<Vec<Record>>,
    /// What the reigns before wrote, and how many there have been.
    journal: Vec<Record>,
    reigns: u32,
    now: Timestamp,
    sessions: BTreeMap<String, SessionId>,
    names: BTreeMap<SessionId, String>,
    /// The last hold each agent had of a resource, also when it is over.
    holds: BTreeMap<(String, String), LockId>,
    calls: BTreeMap<CallId, String>,
}

impl Player {
    fn new() -> Player {
        Player {
            config: TableConfig::default(),
            table: None,
            ledger: Ledger::new(Vec::new()),
            journal: Vec::new(),
            reigns: 0,
            now: Timestamp(0),
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            holds: BTreeMap::new(),
            calls: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &str) -> Vec<String> {
        let words: Vec<&str> = step.split_whitespace().collect();
        match words[0] {
            "!" => {
                self.set(&words);
                Vec::new()
            }
            passes if passes.starts_with('+') => {
                self.now = self.now.after(duration(&passes[1..]));
                self.apply("", Command::Tick)
            }
            "restart" => self.restart(&words),
            "admin" => {
                let command = admin(&words);
                self.apply("admin", command)
            }
            agent if words[1] == "open" => self.open(agent, &words),
            agent if words[1] == "graph" => vec![self.edges_of(agent)],
            agent => {
                self.session(agent);
                let command = self.command(agent, &words);
                self.apply(agent, command)
            }
        }
    }

    /// The coordinator dies, with all connections if it is said so, and comes back after a while.
    fn restart(&mut self, words: &[&str]) -> Vec<String> {
        let flags = Flags::of(words);
        let table = self.table.take().expect("something happened before");
        self.journal.extend_from_slice(self.ledger.journal());
        self.reigns += 1;
        let reign = Reign {
            epoch: Epoch::new(1 + self.reigns),
            id_seed: 7 + u64::from(self.reigns),
            last_event: table.last_event(),
        };
        let mut rebuilt = LockTable::new(self.config.clone(), reign);
        for record in &self.journal {
            rebuilt.replay(record);
        }
        self.table = Some(rebuilt);
        self.ledger = Ledger::new(Vec::new());
        self.calls.clear();
        self.now = self.now.after(flags.get("--after").map_or(Duration::ZERO, duration));
        self.apply("", Resume { orphaned: flags.has("--orphaned") }.into())
    }

    fn set(&mut self, words: &[&str]) {
        assert!(self.table.is_none(), "settings come before the first step");
        let config = &mut self.config;
        match words[1] {
            "grace" => config.grace = duration(words[2]),
            "ticket-grace" => config.ticket_grace = duration(words[2]),
            "session-idle" => config.session_idle = duration(words[2]),
            "queue-length" => config.limits.queue_length_max = words[2].parse().unwrap(),
            "holds" => config.limits.holds_per_session_max = words[2].parse().unwrap(),
            "tasks" => config.limits.tasks_max = words[2].parse().unwrap(),
            "batch" => config.limits.batch_max = words[2].parse().unwrap(),
            "remembered" => {
                config.limits.remembered_per_session = words[2].parse().unwrap();
            }
            "policy" => {
                config.victim_policy = match words[2] {
                    "youngest" => Arc::new(Youngest),
                    "lowest-priority" => Arc::new(LowestPriority),
                    "requester" => Arc::new(Requester),
                    other => panic!("no policy {other}"),
                }
            }
            other => panic!("no setting {other}"),
        }
    }

    fn open(&mut self, agent: &str, words: &[&str]) -> Vec<String> {
        let flags = Flags::of(words);
        let lineage = flags.get("--birth").map(|birth| Lineage {
            birth: TicketId::new(Epoch::new(1), birth.parse().unwrap()),
            aborts: flags.get("--aborts").map_or(0, |aborts| aborts.parse().unwrap()),
        });
        let open = OpenSession {
            agent: agent.into(),
            kind: match flags.has("--detached") {
                true => SessionKind::Detached,
                false => SessionKind::Attached,
            },
            priority: flags.get("--priority").map_or(0, |priority| priority.parse().unwrap()),
            lineage,
        };
        self.apply(agent, open.into())
    }

    fn session(&mut self, agent: &str) -> SessionId {
        if !self.sessions.contains_key(agent) {
            self.open(agent, &[]);
        }
        self.sessions[agent]
    }

    fn command(&mut self, agent: &str, words: &[&str]) -> Command {
        let flags = Flags::of(words);
        let session = self.session(agent);
        let lock = |resource: &str| {
            let known = self.holds.get(&(agent.to_owned(), resource.to_owned()));
            known.copied().unwrap_or(LockId::from_u128(0))
        };
        let by = flags.get("--token").map_or(Credential::Session(session), |token| {
            Credential::Token(Token::new(Epoch::new(1), token.parse().unwrap()))
        });
        match words[1] {
            "acquire" => Acquire {
                session,
                resource: words[2].parse().unwrap(),
                mode: mode(&words[3..]),
                options: flags.options(),
            }
            .into(),
            "batch" => AcquireAll {
                session,
                wants: words[2..]
                    .iter()
                    .take_while(|word| !word.starts_with("--"))
                    .map(want)
                    .collect(),
                options: flags.options(),
            }
            .into(),
            "release" => Release {
                by,
                lock: lock(words[2]),
                share: flags.get("--share").map(ticket),
                request_id: flags.request_id(),
            }
            .into(),
            "renew" => Renew {
                by,
                lock: lock(words[2]),
                lease: flags.get("--lease").map(duration),
                shorten: flags.has("--shorten"),
                request_id: flags.request_id(),
            }
            .into(),
            "upgrade" => Upgrade { session, lock: lock(words[2]), options: flags.options() }.into(),
            "downgrade" => Downgrade {
                session,
                lock: lock(words[2]),
                mode: mode(&words[3..]),
                request_id: flags.request_id(),
            }
            .into(),
            "poll" => {
                let slice = flags.get("--slice").map(duration);
                Wait { session, ticket: ticket(words[2]), slice }.into()
            }
            "cancel" => {
                let target = match flags.request_id() {
                    Some(id) => CancelTarget::Request(id),
                    None => CancelTarget::Ticket(ticket(words[2])),
                };
                Cancel { session, target }.into()
            }
            "claim" => ClaimTasks {
                session,
                claims: words[2..]
                    .iter()
                    .take_while(|word| !word.starts_with("--"))
                    .map(claim)
                    .collect(),
                options: flags.options(),
            }
            .into(),
            "done" | "undone" => FinishTask {
                by,
                lock: lock(words[2]),
                done: words[1] == "done",
                expect_version: flags.version(),
                request_id: flags.request_id(),
            }
            .into(),
            "awaits" => DeclareWait { session, on: self.session(words[2]) }.into(),
            "awaited" => WithdrawWait { session, on: self.session(words[2]) }.into(),
            "ends" => EndSession { session, cause: EndCause::Closed }.into(),
            "dies" => EndSession { session, cause: EndCause::OwnerDied }.into(),
            other => panic!("no verb {other}"),
        }
    }

    fn apply(&mut self, agent: &str, command: Command) -> Vec<String> {
        let waits = matches!(
            command,
            Command::Acquire(_) | Command::AcquireAll(_) | Command::Upgrade(_) | Command::Wait(_)
        );
        if self.table.is_none() {
            self.table = Some(LockTable::new(self.config.clone(), Reign::first(7)));
        }
        let table = self.table.as_mut().unwrap();
        let effects = table.apply(self.now, command);
        let call = effects.call();
        self.calls.insert(call, agent.to_owned());
        let (replies, events) = effects.settle(&mut self.ledger).unwrap().into_parts();
        let mut own = None;
        let mut others = Vec::new();
        for event in events {
            if let Some(text) = self.news(&event.news) {
                others.push(text);
            }
        }
        for reply in replies {
            let name = self.calls.remove(&reply.call).unwrap();
            self.learn(&name, &reply.outcome);
            let text = self.outcome(&reply.outcome);
            if reply.call == call {
                own = Some(text);
            } else {
                others.push(format!("{name} {text}"));
            }
        }
        if own.is_none() && waits {
            own = Some(self.edges_of(agent));
        }
        let own = own.filter(|own| !own.is_empty() || !others.is_empty());
        own.into_iter().chain(others).collect()
    }

    fn learn(&mut self, agent: &str, outcome: &Result<Answer, Refusal>) {
        let claims;
        let grants: &[Grant] = match outcome {
            Ok(Answer::SessionOpened { session }) => {
                self.sessions.insert(agent.to_owned(), *session);
                self.names.insert(*session, agent.to_owned());
                return;
            }
            Ok(Answer::Granted(grants)) => grants,
            Ok(Answer::Changed(grant)) => std::slice::from_ref(grant),
            Ok(Answer::TasksClaimed(claimed)) => {
                claims = claimed.iter().map(|one| one.grant.clone()).collect::<Vec<_>>();
                &claims
            }
            _ => return,
        };
        for grant in grants {
            let key = (agent.to_owned(), grant.resource.to_string());
            self.holds.insert(key, grant.lock);
        }
    }

    fn edges_of(&self, agent: &str) -> String {
        let graph = self.table.as_ref().unwrap().wait_graph();
        let own = graph.edges.iter().filter(|edge| self.names[&edge.from] == agent);
        let blockers: Vec<String> = own
            .map(|edge| {
                let resource = edge.resource.as_ref().map(|resource| format!(" {resource}"));
                let to = &self.names[&edge.to];
                format!("{to} ({}{})", edge.kind, resource.unwrap_or_default())
            })
            .collect();
        match blockers.is_empty() {
            true => "waits for nobody's will".to_owned(),
            false => format!("waits for {}", blockers.join(", ")),
        }
    }

    fn outcome(&self, outcome: &Result<Answer, Refusal>) -> String {
        match outcome {
            Err(refusal) => format!("refused: {refusal}"),
            Ok(Answer::Granted(grants)) => {
                let grants: Vec<String> = grants.iter().map(grant).collect();
                format!("granted {}", grants.join(", "))
            }
            Ok(Answer::Changed(one)) => format!("has {} {}", grant(one), one.mode),
            Ok(Answer::Queued { ticket, ahead, .. }) => {
                format!("has ticket t{}, {ahead} ahead", ticket.counter())
            }
            Ok(Answer::Released { remaining: 0, .. }) => "released".to_owned(),
            Ok(Answer::Released { remaining, .. }) => format!("released, {remaining} to go"),
            Ok(Answer::Renewed { expires_at, .. }) => format!("until {}s", expires_at.0 / 1000),
            Ok(Answer::Cancelled { released: 0, was_waiting: true }) => "left".to_owned(),
            Ok(Answer::Cancelled { released, .. }) => format!("gave {released} back"),
            Ok(Answer::SessionEnded { released, left }) => {
                format!("over, {released} released, {left} left")
            }
            Ok(Answer::ForceUnlocked { previous }) => {
                let agents: Vec<&str> = previous.iter().map(|holder| &*holder.agent).collect();
                format!("took it from {}", agents.join(", "))
            }
            Ok(Answer::AllReleased { released, left }) => {
                format!("{released} released, {left} left")
            }
            Ok(Answer::CapacityDeclared { capacity: Some(n) }) => format!("{n} slots"),
            Ok(Answer::CapacityDeclared { capacity: None }) => "no slots".to_owned(),
            Ok(Answer::TasksClaimed(claimed)) => {
                let claimed: Vec<String> = claimed
                    .iter()
                    .map(|one| format!("{} at version {}", grant(&one.grant), one.task.version))
                    .collect();
                format!("claimed {}", claimed.join(", "))
            }
            Ok(Answer::TaskMoved(task)) => {
                format!("{} is {} at version {}", task.resource, task.status, task.version)
            }
            Ok(Answer::TaskForgotten) => "forgotten".to_owned(),
            Ok(Answer::Resumed { holds, tickets, ended, released }) => {
                format!("{holds} holds, {tickets} tickets; {ended} orphans had {released}")
            }
            Ok(Answer::WaitDeclared) => "noted".to_owned(),
            Ok(Answer::WaitWithdrawn) => "forgotten".to_owned(),
            Ok(_) => String::new(),
        }
    }

    /// The news that a guard must learn, and deadlocks; the rest is in the replies.
    fn news(&self, news: &News) -> Option<String> {
        Some(match news {
            News::Expired(lock) => format!("{} loses {}: expired", lock.agent, lock.resource),
            News::Revoked(lock) => format!("{} loses {}: revoked", lock.agent, lock.resource),
            News::Revoking(lock) => {
                let until = lock.expires_at.0 / 1000;
                format!("{} must give {} back by {until}s", lock.agent, lock.resource)
            }
            News::Deadlock { report } => {
                let cycle: Vec<&str> =
                    report.participants.iter().map(|one| &*one.rank.agent).collect();
                let victim = &self.names[&report.victim];
                let sure = if report.reduced { ", by reduction" } else { "" };
                format!("deadlock {}, {victim} loses{sure}", cycle.join(" -> "))
            }
            News::SessionEnded { agent, cause: EndCause::Idle | EndCause::OwnerDied, .. } => {
                format!("{agent} is over")
            }
            _ => return None,
        })
    }
}

fn grant(grant: &Grant) -> String {
    let mut text = format!("{} #{}", grant.resource, grant.token.counter());
    if grant.token.epoch().get() > 1 {
        text.push_str(&format!(" of reign {}", grant.token.epoch().get()));
    }
    if !grant.slots.is_empty() {
        text.push_str(&format!(" slots {:?}", grant.slots));
    }
    if grant.count > 1 {
        text.push_str(&format!(" x{} by t{}", grant.count, grant.ticket.counter()));
    }
    text
}

fn admin(words: &[&str]) -> Command {
    match words[1] {
        "force" => ForceUnlock {
            resource: words[2].parse().unwrap(),
            admin: "admin".into(),
            reason: "because".into(),
        }
        .into(),
        "reopen" => ReopenTask {
            task: words[2].parse().unwrap(),
            expect_version: Flags::of(words).version(),
        }
        .into(),
        "forget" => ForgetTask { task: words[2].parse().unwrap() }.into(),
        "resume" => Resume { orphaned: false }.into(),
        "release-all" => ReleaseAll { agent: words[2].into() }.into(),
        "capacity" => {
            DeclareCapacity { resource: words[2].parse().unwrap(), capacity: words[3].parse().ok() }
                .into()
        }
        other => panic!("admins cannot {other}"),
    }
}

fn want(word: &&str) -> (Resource, LockMode) {
    match word.split_once('=') {
        Some((resource, how)) => {
            let words: Vec<&str> = how.split(',').collect();
            (resource.parse().unwrap(), mode(&words))
        }
        None => (word.parse().unwrap(), LockMode::Exclusive),
    }
}

/// A task, and perhaps at which version it was seen: `task:1@3`.
fn claim(word: &&str) -> TaskClaim {
    let (task, version) = match word.split_once('@') {
        Some((task, version)) => (task, Some(version.parse().unwrap())),
        None => (*word, None),
    };
    TaskClaim { task: task.parse().unwrap(), expect_version: version }
}

fn mode(words: &[&str]) -> LockMode {
    match words {
        ["shared", ..] => LockMode::Shared,
        ["update", ..] => LockMode::Update,
        ["permits", n, ..] => LockMode::Permit(n.parse().unwrap()),
        _ => LockMode::Exclusive,
    }
}

fn ticket(word: &str) -> TicketId {
    TicketId::new(Epoch::new(1), word.trim_start_matches('t').parse().unwrap())
}

fn duration(text: &str) -> Duration {
    Duration::from_secs(text.trim_end_matches('s').parse().unwrap())
}

struct Flags<'a>(&'a [&'a str]);

impl<'a> Flags<'a> {
    fn of(words: &'a [&'a str]) -> Flags<'a> {
        Flags(words)
    }

    fn has(&self, flag: &str) -> bool {
        self.0.contains(&flag)
    }

    fn get(&self, flag: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|word| *word == flag)?;
        self.0.get(at + 1).copied()
    }

    fn version(&self) -> Option<u64> {
        self.get("--seen").map(|version| version.parse().unwrap())
    }

    fn request_id(&self) -> Option<RequestId> {
        self.get("--id").map(|id| RequestId::new(id.parse().unwrap()))
    }

    fn options(&self) -> AskOptions {
        AskOptions {
            wait: self.get("--wait").map(duration),
            slice: self.get("--slice").map(duration),
            lease: self.get("--lease").map(duration),
            reason: self.get("--reason").map(Into::into),
            metadata: None,
            priority: self.get("--priority").map(|priority| priority.parse().unwrap()),
            reentrant: self.has("--reentrant"),
            request_id: self.request_id(),
            fleeting: false,
        }
    }
}

//! From the name of a method to its answer, whatever the request came through.

use crate::{
    commands::{self, Done, Receipt},
    house::House,
    link::Peer,
    params::{InProject, plain},
    refuse,
    room::{Room, gone},
    sessions,
};
use lockkeeper::{
    AuditFilter, Config, ContentionNow, Durability, Grants, Inspect, LastEvent, Leases, List,
    Question, Queue, Sessions, Stale, StatsNow, TaskNow, Tasks, WaitGraphNow,
    wire::{self, Attach, ErrorObject, Hello, HelloAsk, Open, QuickLine, Status, Subscribe, code},
};
use lockkeeper_core::{Command, Forgetful, Ledger, LockTable, Reign, TableConfig};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::sync::{Arc, PoisonError};

/// An answer on its way.
#[derive(Debug)]
pub struct Answered {
    /// What to say.
    pub result: Result<Box<RawValue>, ErrorObject>,
    /// To be told when it was said. Dropped before, it takes back what the answer grants: whoever
    /// asked is gone.
    pub receipt: Receipt,
}

impl Answered {
    fn plainly(result: Result<Box<RawValue>, ErrorObject>) -> Answered {
        Answered { result, receipt: Receipt::default() }
    }
}

/// Methods that are neither commands nor questions.
const OTHERS: &[&str] = &[
    wire::HELLO,
    wire::PING,
    wire::SESSION_OPEN,
    wire::SESSION_ATTACH,
    wire::PROJECTS,
    wire::AUDIT,
    wire::SUBSCRIBE,
    wire::UNSUBSCRIBE,
    wire::DAEMON_STATUS,
    wire::DAEMON_STOP,
    wire::METRICS,
];

/// Answers questions: each by its own type.
macro_rules! questions {
    ($($question:ident),* $(,)?) => {
        const QUESTIONS: &[&str] = &[$($question::METHOD),*];

        async fn question(
            house: &Arc<House>,
            method: &str,
            params: &RawValue,
        ) -> Option<Result<Box<RawValue>, ErrorObject>> {
            $(if method == $question::METHOD {
                return Some(see::<$question>(house, params).await);
            })*
            None
        }
    };
}

questions!(
    Inspect,
    List,
    Queue,
    Sessions,
    Grants,
    WaitGraphNow,
    ContentionNow,
    StatsNow,
    Stale,
    Leases,
    TaskNow,
    Tasks,
    LastEvent,
);

/// The names of all methods: commands, questions, and the others.
pub fn methods() -> impl Iterator<Item = &'static str> {
    let all = [wire::COMMANDS, QUESTIONS, OTHERS].into_iter();
    all.flat_map(|methods| methods.iter().copied())
}

/// Whether a request of this kind may wait for somebody else.
pub(crate) fn may_wait(method: &str) -> bool {
    matches!(method, "acquire" | "acquire_all" | "upgrade" | "wait")
}

/// Answers a request. Dropping the future takes the request back, at whatever point it is.
pub async fn dispatch(
    house: &Arc<House>,
    peer: &Peer,
    method: &str,
    params: Box<RawValue>,
) -> Answered {
    // What is asked rarely is kept apart, so that the others stay small.
    if method == wire::SESSION_OPEN {
        return Box::pin(open(house, peer, &params)).await;
    }
    if wire::COMMANDS.contains(&method) {
        return command(house, peer, method, params).await;
    }
    if let Some(answer) = Box::pin(question(house, method, &params)).await {
        return Answered::plainly(answer);
    }
    Answered::plainly(Box::pin(other(house, peer, method, &params)).await)
}

/// A command about a project that is open: what nearly every line asks for.
pub(crate) struct Ready {
    room: Arc<Room>,
    command: Command,
}

impl Ready {
    /// Reads a line if it is one of these and there is nothing unusual about it, and what names its
    /// answer. All others, and whatever is wrong, goes through [`dispatch`].
    pub(crate) fn read<'a>(house: &House, line: &'a [u8]) -> Option<(Option<&'a RawValue>, Ready)> {
        let QuickLine { id, project, command } = wire::read_quickly(line)?;
        Some((id, Ready { room: house.open_room(&project)?, command }))
    }

    /// Whether it may wait for somebody else.
    pub(crate) fn may_wait(&self) -> bool {
        matches!(self.command, Command::Acquire(_))
    }

    /// What it comes to is written only where it goes out.
    pub(crate) fn carry_out(
        self,
        house: &Arc<House>,
        peer: &Peer,
    ) -> impl Future<Output = Result<Done, ErrorObject>> + Send + use<> {
        commands::command(house, peer, &self.room, self.command)
    }
}

async fn command(house: &Arc<House>, peer: &Peer, method: &str, params: Box<RawValue>) -> Answered {
    let read = InProject::read(&params).and_then(|read| {
        let command = read.command(method).unwrap_or_else(|| Err(no_method(method)))?;
        Ok((read.project.into_owned(), command))
    });
    // It may wait long, and what was written around its meaning may be large.
    drop(params);
    let (project, command) = match read {
        Ok(read) => read,
        Err(error) => return Answered::plainly(Err(error)),
    };
    // Only sessions and capacities make a project.
    if !house.has(&project) && !matches!(command, Command::DeclareCapacity(_)) {
        return Answered::plainly(nowhere(house, &project, command));
    }
    let done = match house.room(&project).await {
        Ok(room) => commands::command(house, peer, &room, command).await,
        Err(error) => Err(error),
    };
    answered(done)
}

/// What a command comes to where nobody has ever been: asking must not make the place.
fn nowhere(house: &House, project: &str, command: Command) -> Result<Box<RawValue>, ErrorObject> {
    refuse::check_project(project)?;
    let turn = nothing().apply(house.manager.now(), command);
    let settled = turn.settle(&mut Ledger::new(Forgetful));
    let reply = settled.ok().and_then(|settled| settled.into_parts().0.pop());
    match reply.map(|reply| reply.outcome) {
        Some(Ok(answer)) => raw(&answer),
        Some(Err(refusal)) => Err(refuse::call(&refusal.into())),
        None => Err(refuse::params(format!("there is no project `{project}`"))),
    }
}

/// The table of a project that does not exist.
fn nothing() -> LockTable {
    LockTable::new(TableConfig::default(), Reign::first(0))
}

fn answered(done: Result<commands::Done, ErrorObject>) -> Answered {
    match done {
        Ok(done) => Answered { result: raw(&done.answer), receipt: done.receipt },
        Err(error) => Answered::plainly(Err(error)),
    }
}

async fn open(house: &Arc<House>, peer: &Peer, params: &RawValue) -> Answered {
    let read = InProject::read(params).and_then(|read| {
        let open: Open = read.parse(wire::SESSION_OPEN)?;
        Ok((read.project, open))
    });
    let (project, open) = match read {
        Ok(read) => read,
        Err(error) => return Answered::plainly(Err(error)),
    };
    answered(match house.room(&project).await {
        Ok(room) => sessions::open(house, peer, &room, open).await,
        Err(error) => Err(error),
    })
}

async fn see<Q: Question>(
    house: &Arc<House>,
    params: &RawValue,
) -> Result<Box<RawValue>, ErrorObject> {
    let read = InProject::read(params)?;
    let question: Q = read.parse(Q::METHOD)?;
    refuse::check_project(&read.project)?;
    if !house.has(&read.project) {
        // To look at what is not there must not make it.
        return raw(&question.see(&nothing(), house.manager.now()));
    }
    let room = house.room(&read.project).await?;
    match room.project.see(question).await {
        Ok(seen) => raw(&seen),
        Err(why) => Err(refuse::unavailable(&why)),
    }
}

async fn other(
    house: &Arc<House>,
    peer: &Peer,
    method: &str,
    params: &RawValue,
) -> Result<Box<RawValue>, ErrorObject> {
    match method {
        wire::HELLO => {
            // Whether the token is right is for the door to know.
            let _: HelloAsk = plain(method, params)?;
            raw(&house.hello())
        }
        wire::PING => raw(&plain::<Nothing>(method, params)?),
        wire::SESSION_ATTACH => {
            let read = InProject::read(params)?;
            let attach: Attach = read.parse(method)?;
            refuse::check_project(&read.project)?;
            if !house.has(&read.project) {
                return Err(refuse::call(&gone(attach.session).into()));
            }
            let room = house.room(&read.project).await?;
            raw(&sessions::attach(house, peer, &room, attach).await?)
        }
        wire::PROJECTS => {
            plain::<Nothing>(method, params)?;
            let names = house.manager.projects().await;
            raw(&names.map_err(|error| refuse::store(&error))?)
        }
        wire::AUDIT => {
            let filter: AuditFilter = plain(method, params)?;
            let rows = house.manager.audit(filter).await;
            raw(&rows.map_err(|error| refuse::store(&error))?)
        }
        wire::SUBSCRIBE => {
            let ask: Subscribe = plain(method, params)?;
            let Some(link) = &peer.link else {
                return Err(refuse::params("events need a connection that lasts"));
            };
            raw(&house.subscribe(&link.ear, ask).await?)
        }
        wire::UNSUBSCRIBE => {
            let nothing: Nothing = plain(method, params)?;
            if let Some(link) = &peer.link {
                link.ear.to_none();
            }
            raw(&nothing)
        }
        wire::DAEMON_STATUS => {
            plain::<Nothing>(method, params)?;
            raw(&house.status().await)
        }
        wire::DAEMON_STOP => {
            plain::<Nothing>(method, params)?;
            let status = house.status().await;
            house.ask_to_stop();
            raw(&status)
        }
        wire::METRICS => {
            plain::<Nothing>(method, params)?;
            match &house.config.metrics {
                Some(render) => raw(&render()),
                None => Err(refuse::error(
                    code::NO_METHOD,
                    "no_metrics",
                    "this daemon counts nothing: it was started without metrics",
                )),
            }
        }
        _ => Err(no_method(method)),
    }
}

/// No parameters, or nothing to say.
#[derive(Serialize, serde::Deserialize)]
struct Nothing {}

fn no_method(method: &str) -> ErrorObject {
    let known: Vec<&str> = methods().collect();
    let shown: String = method.chars().take(64).collect();
    let message = format!("there is no method `{shown}`: there are {}", known.join(", "));
    refuse::error(code::NO_METHOD, "no_method", message)
}

fn raw<T: Serialize>(answer: &T) -> Result<Box<RawValue>, ErrorObject> {
    to_raw_value(answer).map_err(|error| refuse::internal(error.to_string()))
}

impl House {
    /// Who answers.
    pub fn hello(&self) -> Hello {
        let config = self.manager.config();
        let is_kept = |config: &&Config| config.durability != Durability::Memory;
        let path = config.filter(is_kept).and_then(|config| config.path.as_ref());
        let (now, shown_for) = self.manager.now_exactly();
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: wire::PROTOCOL,
            pid: std::process::id(),
            store: path.map(|path| path.display().to_string()),
            started_at: self.started_at,
            now,
            now_for_us: shown_for.as_micros() as u32,
        }
    }

    /// How the server is. What cannot be asked just now is not counted.
    pub async fn status(&self) -> Status {
        let rooms = self.open_rooms();
        let (mut sessions, mut holds, mut waits) = (0, 0, 0);
        for room in &rooms {
            if let Ok(stats) = room.project.see(StatsNow {}).await {
                sessions += stats.sessions;
                holds += stats.holds;
                waits += stats.tickets;
            }
        }
        let idle_exit = self.config.idle_exit;
        Status {
            hello: self.hello(),
            socket: self.config.socket.as_ref().map(|path| path.display().to_string()),
            listens: self.listens.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            connections: self.connections(),
            projects: rooms.len(),
            sessions,
            holds,
            waits,
            idle_exit_ms: idle_exit.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

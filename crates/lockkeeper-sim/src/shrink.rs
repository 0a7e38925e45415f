//! The shortest history that still breaks the same promise.
//!
//! Commands carry numbers that the table minted. When some of them are dropped, the table mints
//! others, so each number is traced to the command it came from, and translated when the rest is
//! replayed: a session to the command that opened it, a ticket to the command that asked, a hold to
//! its ticket and resource, a token to its hold. A number whose origin was dropped becomes one that
//! no table ever minted: left as it is, it might name something else by now.

use crate::{Bench, Input, Invariant, Turn, Violation, transcript::Transcript};
use lockkeeper_core::{
    CancelTarget, Command, Credential, Fact, LockId, Resource, Resume, SessionId, TicketId, Token,
};
use std::collections::BTreeMap;

/// How many commands are replayed at most in search of a shorter history.
const BUDGET: usize = 1_500_000;

/// A bit in the epoch of a number that no table of a simulation ever reaches.
const NEVER_MINTED: u64 = 1 << 52;

/// A shrunk history.
#[derive(Clone, PartialEq, Debug)]
pub struct Shrunk {
    /// A line a command.
    pub transcript: String,
    /// How many commands are left.
    pub kept: usize,
    /// What the shrunk history breaks, in its own numbers.
    pub message: Option<String>,
}

/// Drops commands from a history as long as it breaks the promise.
pub fn shrink(inputs: &[Input], broken: Invariant, bench: impl Fn() -> Bench) -> Shrunk {
    let origins = Origins::of(inputs, bench());
    let mut kept: Vec<usize> = (0..inputs.len()).collect();
    let breaks = |kept: &[usize]| {
        let outcome = replay(inputs, kept, &origins, bench(), None);
        outcome.err().filter(|(_, violation)| violation.invariant == broken)
    };
    let Some((at, _)) = breaks(&kept) else {
        return Shrunk { transcript: "(not seen again)".into(), kept: kept.len(), message: None };
    };
    kept.truncate(at + 1);
    let mut spent = 0;
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 && spent < BUDGET {
        let mut dropped_any = false;
        let mut start = kept.len().saturating_sub(1);
        // From the back: later commands rest on earlier ones.
        while start > 0 && spent < BUDGET {
            let from = start.saturating_sub(chunk);
            let mut fewer = kept.clone();
            fewer.drain(from..start);
            spent += fewer.len() + 1;
            if let Some((at, _)) = breaks(&fewer) {
                fewer.truncate(at + 1);
                kept = fewer;
                dropped_any = true;
            }
            start = from.min(kept.len().saturating_sub(1));
        }
        if !dropped_any || chunk > 1 {
            chunk /= 2;
        }
    }
    let mut transcript = Transcript::default();
    let outcome = replay(inputs, &kept, &origins, bench(), Some(&mut transcript));
    let message = outcome.err().map(|(_, violation)| violation.message);
    Shrunk { transcript: transcript.text, kept: kept.len(), message }
}

/// Where the numbers of a history come from.
#[derive(Debug, Default)]
struct Origins {
    sessions: BTreeMap<SessionId, usize>,
    tickets: BTreeMap<TicketId, usize>,
    locks: BTreeMap<LockId, (TicketId, Resource)>,
    tokens: BTreeMap<LockId, Vec<Token>>,
}

impl Origins {
    fn of(inputs: &[Input], mut bench: Bench) -> Origins {
        let mut origins = Origins::default();
        for (at, input) in inputs.iter().enumerate() {
            let outcome = match input {
                Input::Crash(now, orphaned) => bench.crash(*now, *orphaned),
                Input::Command(now, command) => bench.apply(*now, command),
            };
            // The last input may break the promise: it gives no numbers away.
            match outcome {
                Ok(turn) => origins.learn(at, &turn),
                Err(_) => return origins,
            }
        }
        origins
    }

    fn learn(&mut self, at: usize, turn: &Turn) {
        for record in &turn.records {
            match &record.fact {
                Fact::SessionOpened { session, .. } => _ = self.sessions.insert(*session, at),
                Fact::Queued(queued) => _ = self.tickets.entry(queued.ticket).or_insert(at),
                Fact::Granted(granted) => {
                    self.tickets.entry(granted.ticket).or_insert(at);
                    let origin = (granted.ticket, granted.resource.clone());
                    self.locks.insert(granted.lock, origin);
                    self.tokens.entry(granted.lock).or_default().push(granted.token);
                }
                Fact::Reentered { ticket, .. } => _ = self.tickets.entry(*ticket).or_insert(at),
                Fact::Converted { ticket, lock, token, .. } => {
                    self.tickets.entry(*ticket).or_insert(at);
                    self.tokens.entry(*lock).or_default().push(*token);
                }
                _ => {}
            }
        }
    }
}

/// Replays some of the inputs; where and how a promise broke, if one did.
fn replay(
    inputs: &[Input],
    kept: &[usize],
    origins: &Origins,
    mut bench: Bench,
    mut transcript: Option<&mut Transcript>,
) -> Result<(), (usize, Violation)> {
    let mut names = Names::default();
    for (nth, &at) in kept.iter().enumerate() {
        let (now, command, outcome) = match &inputs[at] {
            Input::Crash(now, orphaned) => {
                let orphaned = *orphaned;
                (*now, Resume { orphaned }.into(), bench.crash(*now, orphaned))
            }
            Input::Command(now, command) => {
                let command = names.translate(command, origins);
                let outcome = bench.apply(*now, &command);
                (*now, command, outcome)
            }
        };
        if let Some(transcript) = &mut transcript {
            if matches!(&inputs[at], Input::Crash(..)) {
                transcript.crash();
            }
            let records = outcome.as_ref().map_or(&[][..], |turn| &turn.records);
            transcript.command(now, &command, outcome.as_ref(), records);
        }
        let turn = outcome.map_err(|violation| (nth, violation))?;
        names.learn(at, &turn);
    }
    Ok(())
}

/// The new names of old numbers.
#[derive(Debug, Default)]
struct Names {
    sessions: BTreeMap<usize, SessionId>,
    tickets: BTreeMap<usize, TicketId>,
    locks: BTreeMap<(usize, Resource), LockId>,
    asked_at: BTreeMap<TicketId, usize>,
    tokens: BTreeMap<LockId, Vec<Token>>,
}

impl Names {
    fn learn(&mut self, at: usize, turn: &Turn) {
        for record in &turn.records {
            match &record.fact {
                Fact::SessionOpened { session, .. } => _ = self.sessions.insert(at, *session),
                Fact::Queued(queued) => self.asked(at, queued.ticket),
                Fact::Granted(granted) => {
                    self.asked(at, granted.ticket);
                    let asked_at = self.asked_at[&granted.ticket];
                    self.locks.insert((asked_at, granted.resource.clone()), granted.lock);
                    self.tokens.entry(granted.lock).or_default().push(granted.token);
                }
                Fact::Reentered { ticket, .. } => self.asked(at, *ticket),
                Fact::Converted { ticket, lock, token, .. } => {
                    self.asked(at, *ticket);
                    self.tokens.entry(*lock).or_default().push(*token);
                }
                _ => {}
            }
        }
    }

    fn asked(&mut self, at: usize, ticket: TicketId) {
        if let std::collections::btree_map::Entry::Vacant(unknown) = self.asked_at.entry(ticket) {
            unknown.insert(at);
            self.tickets.insert(at, ticket);
        }
    }

    fn session(&self, old: SessionId, origins: &Origins) -> SessionId {
        let new = origins.sessions.get(&old).and_then(|at| self.sessions.get(at));
        new.copied().unwrap_or(SessionId::from_u64(old.get() | NEVER_MINTED))
    }

    fn ticket(&self, old: TicketId, origins: &Origins) -> TicketId {
        let new = origins.tickets.get(&old).and_then(|at| self.tickets.get(at));
        new.copied().unwrap_or(TicketId::from_u64(old.get() | NEVER_MINTED))
    }

    fn lock(&self, old: LockId, origins: &Origins) -> LockId {
        let new = || {
            let (ticket, resource) = origins.locks.get(&old)?;
            let at = origins.tickets.get(ticket)?;
            self.locks.get(&(*at, resource.clone())).copied()
        };
        new().unwrap_or(LockId::from_u128(old.as_u128() | 1 << 127))
    }

    fn by(&self, by: Credential, old: LockId, origins: &Origins) -> Credential {
        match by {
            Credential::Session(session) => Credential::Session(self.session(session, origins)),
            Credential::Token(token) => {
                let new = || {
                    let nth = origins.tokens.get(&old)?.iter().position(|one| *one == token)?;
                    self.tokens.get(&self.lock(old, origins))?.get(nth).copied()
                };
                Credential::Token(new().unwrap_or(Token::from_u64(token.get() | NEVER_MINTED)))
            }
        }
    }

    fn translate(&self, command: &Command, origins: &Origins) -> Command {
        let mut command = command.clone();
        let session = |old: &mut SessionId| *old = self.session(*old, origins);
        let lock = |old: &mut LockId| *old = self.lock(*old, origins);
        match &mut command {
            Command::EndSession(end) => session(&mut end.session),
            Command::Acquire(ask) => session(&mut ask.session),
            Command::AcquireAll(ask) => session(&mut ask.session),
            Command::Wait(wait) => {
                session(&mut wait.session);
                wait.ticket = self.ticket(wait.ticket, origins);
            }
            Command::Cancel(cancel) => {
                session(&mut cancel.session);
                if let CancelTarget::Ticket(ticket) = &mut cancel.target {
                    *ticket = self.ticket(*ticket, origins);
                }
            }
            Command::ClaimTasks(claim) => session(&mut claim.session),
            Command::FinishTask(finish) => {
                finish.by = self.by(finish.by, finish.lock, origins);
                lock(&mut finish.lock);
            }
            Command::Release(release) => {
                release.by = self.by(release.by, release.lock, origins);
                release.share = release.share.map(|share| self.ticket(share, origins));
                lock(&mut release.lock);
            }
            Command::Renew(renew) => {
                renew.by = self.by(renew.by, renew.lock, origins);
                lock(&mut renew.lock);
            }
            Command::Upgrade(upgrade) => {
                session(&mut upgrade.session);
                lock(&mut upgrade.lock);
            }
            Command::Downgrade(downgrade) => {
                session(&mut downgrade.session);
                lock(&mut downgrade.lock);
            }
            Command::DeclareWait(declare) => {
                session(&mut declare.session);
                session(&mut declare.on);
            }
            Command::WithdrawWait(withdraw) => {
                session(&mut withdraw.session);
                session(&mut withdraw.on);
            }
            Command::OpenSession(_)
            | Command::ForceUnlock(_)
            | Command::ReleaseAll(_)
            | Command::DeclareCapacity(_)
            | Command::ReopenTask(_)
            | Command::ForgetTask(_)
            | Command::Resume(_)
            | Command::Tick => {}
        }
        command
    }
}

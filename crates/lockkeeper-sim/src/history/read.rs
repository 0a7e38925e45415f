//! Puts notes together: calls with their answers, holds with their beginning and end.

use super::{Ended, Note, Summary, What};
use lockkeeper_core::{LockId, LockMode, Resource, SessionId, Token};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// When something was asked, and when it was answered, if it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Asked.
    pub from: u64,
    /// Answered.
    pub to: Option<u64>,
}

/// One acquire of a hold, and what gave it back.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// The acquire.
    pub acquire: Call,
}

/// A lock as its client knew it.
#[derive(Clone, PartialEq, Debug)]
pub struct Hold {
    /// Its id.
    pub lock: LockId,
    /// Of what.
    pub resource: Resource,
    /// How.
    pub mode: LockMode,
    /// With which token.
    pub token: Token,
    /// Which slots.
    pub slots: Vec<u32>,
    /// Whose.
    pub session: SessionId,
    /// In which process.
    pub process: u32,
    /// When it was asked for first, and when that was answered.
    pub asked: u64,
    /// From here on it is definite.
    pub start: u64,
    /// The end of its lease, by its client's reckoning.
    pub until: u64,
    /// Up to here what the service said proves it: a release or a renewal that it acknowledged had
    /// a hold to act on.
    pub proven: u64,
    /// Up to here it is definite. Not after `start`, if it was over before its client heard of it.
    pub end: u64,
    /// All acquires that it consists of.
    pub shares: Vec<Share>,
    /// The releases that were acknowledged.
    pub releases: Vec<Call>,
    /// When the last release was acknowledged, after which nothing was left of it.
    pub released_at: Option<u64>,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hold { resource, process, session, mode, token, asked, start, end, proven, .. } = self;
        write!(
            f,
            "{resource} was held {mode} by session {session} in process {process} with token \
             {token}: asked for at {}, granted by {}, ",
            Seconds(*asked),
            Seconds(*start)
        )?;
        match () {
            () if proven >= end => write!(f, "held until {} as it was told", Seconds(*end)),
            () => write!(f, "held until {} by its lease", Seconds(*end)),
        }
    }
}

/// Nanoseconds, for people.
pub(super) struct Seconds(pub(super) u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06} s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// What a protected resource made of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchOutcome {
    /// It let it in; what was read, or written.
    Accepted(u64),
    /// It had seen this newer one.
    Bounced(Token),
    /// It did not say.
    Unknown,
}

/// A token that was shown to a protected resource.
#[derive(Clone, PartialEq, Debug)]
pub struct Touch {
    /// When.
    pub call: Call,
    /// The index of the hold in [`Story::holds`].
    pub hold: usize,
    /// The register behind the resource.
    pub slot: u32,
    /// The token.
    pub token: Token,
    /// What was to be written; nothing: it was read.
    pub write: Option<u64>,
    /// What came of it.
    pub outcome: TouchOutcome,
}

/// Notes that contradict themselves: whoever wrote them is wrong, not the lock service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the notes are wrong: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Everything that happened, in order.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// All locks that were granted.
    pub holds: Vec<Hold>,
    /// All that was shown to protected resources.
    pub touches: Vec<Touch>,
    summary: Summary,
}

/// What is known of a hold while notes are read.
#[derive(Default)]
struct Fate {
    /// Releases that may have ended it, and the losses its client heard of.
    maybe: u64,
    is_taken: bool,
}

/// What is known of a session.
struct Presence {
    attached: bool,
    linger: u64,
}

/// Reads notes, one after the other.
#[derive(Default)]
struct Reader {
    open: HashMap<(u32, u64), (u64, What)>,
    sessions: HashMap<SessionId, Presence>,
    cuts: BTreeMap<u32, Vec<u64>>,
    by_lock: HashMap<LockId, usize>,
    fates: Vec<Fate>,
    story: Story,
}

fn malformed<T>(note: &Note, why: &str) -> Result<T, Malformed> {
    Err(Malformed(format!("{why}: {note:?}")))
}

impl Story {
    /// Puts notes together, whatever order they come in.
    pub fn read(notes: &[Note]) -> Result<Story, Malformed> {
        let mut sorted: Vec<&Note> = notes.iter().collect();
        // Stable: what one process wrote at one moment stays in its order.
        sorted.sort_by_key(|note| note.at);
        let mut reader = Reader::default();
        for note in sorted {
            reader.take(note)?;
        }
        Ok(reader.finish())
    }

    /// The holds, resource by resource.
    pub fn by_resource(&self) -> BTreeMap<Resource, Vec<&Hold>> {
        let mut by_resource: BTreeMap<Resource, Vec<&Hold>> = BTreeMap::new();
        for hold in &self.holds {
            by_resource.entry(hold.resource.clone()).or_default().push(hold);
        }
        by_resource
    }

    /// How much of everything there is.
    pub fn summary(&self) -> Summary {
        let count = |is: fn(&Touch) -> bool| self.touches.iter().filter(|one| is(one)).count();
        Summary {
            holds: self.holds.len(),
            counted: self.holds.iter().map(|hold| hold.shares.len() - 1).sum(),
            released: self.holds.iter().filter(|hold| hold.released_at.is_some()).count(),
            lost: self.holds.iter().filter(|hold| hold.released_at.is_none()).count(),
            accepted: count(|one| matches!(one.outcome, TouchOutcome::Accepted(_))),
            bounced: count(|one| matches!(one.outcome, TouchOutcome::Bounced(_))),
            ..self.summary
        }
    }
}

impl Reader {
    fn take(&mut self, note: &Note) -> Result<(), Malformed> {
        match &note.what {
            What::Opened { session, attached, linger } => {
                let presence = Presence { attached: *attached, linger: *linger };
                self.sessions.insert(*session, presence);
            }
            What::Cut => self.cuts.entry(note.process).or_default().push(note.at),
            What::Lost { lock, why } => {
                let Some(at) = self.by_lock.get(lock) else {
                    return malformed(note, "a lock that nobody was granted is lost");
                };
                let fate = &mut self.fates[*at];
                fate.maybe = fate.maybe.min(note.at);
                fate.is_taken |= *why == Ended::Taken;
            }
            What::Acquire { .. }
            | What::Release { .. }
            | What::Renew { .. }
            | What::Touch { .. } => {
                self.story.summary.calls += 1;
                let asked = (note.at, note.what.clone());
                if self.open.insert((note.process, note.call), asked).is_some() {
                    return malformed(note, "a call has the number of another one");
                }
            }
            answer => {
                let Some((from, asked)) = self.open.remove(&(note.process, note.call)) else {
                    return malformed(note, "an answer to what was not asked");
                };
                let call = Call { from, to: Some(note.at) };
                self.answered(note, call, &asked, answer)?;
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        note: &Note,
        call: Call,
        asked: &What,
        answer: &What,
    ) -> Result<(), Malformed> {
        match (asked, answer) {
            (What::Acquire { .. }, What::Granted { .. }) => self.granted(note, call, asked),
            (What::Acquire { .. } | What::Renew { .. }, What::Refused { .. }) => Ok(()),
            (_, What::Unanswered) => {
                self.unanswered(call.from, asked);
                Ok(())
            }
            (What::Release { lock }, What::Released { over }) => {
                let at = self.known(note, *lock)?;
                let hold = &mut self.story.holds[at];
                hold.proven = hold.proven.max(call.from);
                hold.releases.push(call);
                if *over {
                    hold.released_at = call.to;
                }
                Ok(())
            }
            (What::Release { lock }, What::Refused { .. }) => {
                // It was over before, and nobody said since when.
                let at = self.known(note, *lock)?;
                self.fates[at].maybe = self.fates[at].maybe.min(call.from);
                self.fates[at].is_taken = true;
                Ok(())
            }
            (What::Renew { lock }, What::Renewed { until }) => {
                let at = self.known(note, *lock)?;
                let hold = &mut self.story.holds[at];
                hold.proven = hold.proven.max(call.from);
                hold.until = hold.until.max(*until);
                Ok(())
            }
            (What::Touch { .. }, What::Accepted { value }) => {
                self.touched(note, call, asked, TouchOutcome::Accepted(*value))
            }
            (What::Touch { .. }, What::Bounced { newest }) => {
                self.touched(note, call, asked, TouchOutcome::Bounced(*newest))
            }
            _ => malformed(note, "an answer that does not belong to its question"),
        }
    }

    fn known(&self, note: &Note, lock: LockId) -> Result<usize, Malformed> {
        match self.by_lock.get(&lock) {
            Some(at) => Ok(*at),
            None => malformed(note, "a lock that nobody was granted"),
        }
    }

    fn granted(&mut self, note: &Note, call: Call, asked: &What) -> Result<(), Malformed> {
        let What::Granted { lock, token, slots, until } = &note.what else {
            return malformed(note, "not a grant");
        };
        let What::Acquire { session, resource, mode } = asked else {
            return malformed(note, "not an acquire");
        };
        let fresh = Hold {
            lock: *lock,
            resource: resource.clone(),
            mode: *mode,
            token: *token,
            slots: slots.clone(),
            session: *session,
            process: note.process,
            asked: call.from,
            start: note.at,
            until: *until,
            proven: call.from,
            end: note.at,
            shares: vec![Share { acquire: call }],
            releases: Vec::new(),
            released_at: None,
        };
        if let Some(at) = self.by_lock.get(lock) {
            let hold = &mut self.story.holds[*at];
            let is_same = hold.resource == fresh.resource && hold.session == fresh.session;
            if is_same && hold.token == fresh.token && hold.released_at.is_none() {
                hold.proven = hold.proven.max(call.from);
                hold.until = hold.until.max(*until);
                hold.shares.push(Share { acquire: call });
                return Ok(());
            }
        }
        // A lock id that comes a second time as something else is found with the tokens.
        self.by_lock.insert(*lock, self.story.holds.len());
        self.story.holds.push(fresh);
        self.fates.push(Fate { maybe: u64::MAX, ..Fate::default() });
        Ok(())
    }

    fn unanswered(&mut self, from: u64, asked: &What) {
        self.story.summary.unanswered += 1;
        match asked {
            What::Release { lock } => {
                if let Some(at) = self.by_lock.get(lock) {
                    self.fates[*at].maybe = self.fates[*at].maybe.min(from);
                }
            }
            What::Touch { lock, slot, token, write } => {
                if let Some(at) = self.by_lock.get(lock) {
                    self.story.touches.push(Touch {
                        call: Call { from, to: None },
                        hold: *at,
                        slot: *slot,
                        token: *token,
                        write: *write,
                        outcome: TouchOutcome::Unknown,
                    });
                }
            }
            _ => {}
        }
    }

    fn touched(
        &mut self,
        note: &Note,
        call: Call,
        asked: &What,
        outcome: TouchOutcome,
    ) -> Result<(), Malformed> {
        let What::Touch { lock, slot, token, write } = asked else {
            return malformed(note, "not a touch");
        };
        let hold = self.known(note, *lock)?;
        let touch = Touch { call, hold, slot: *slot, token: *token, write: *write, outcome };
        self.story.touches.push(touch);
        Ok(())
    }

    /// What was asked and never answered, and from when to when holds are definite.
    fn finish(mut self) -> Story {
        for (from, asked) in std::mem::take(&mut self.open).into_values() {
            self.unanswered(from, &asked);
        }
        self.story.touches.sort_by_key(|touch| touch.call.from);
        for (hold, fate) in self.story.holds.iter_mut().zip(&self.fates) {
            hold.end = match hold.released_at {
                Some(_) => hold.proven,
                None if fate.is_taken => hold.proven,
                None => {
                    let cut = cut_at(hold, &self.sessions, &self.cuts);
                    hold.until.min(fate.maybe).min(cut).max(hold.proven)
                }
            };
        }
        self.story
    }
}

/// When the hold may have ended because its connection did.
fn cut_at(
    hold: &Hold,
    sessions: &HashMap<SessionId, Presence>,
    cuts: &BTreeMap<u32, Vec<u64>>,
) -> u64 {
    let linger = match sessions.get(&hold.session) {
        Some(Presence { attached: false, .. }) => return u64::MAX,
        Some(presence) => presence.linger,
        None => 0,
    };
    let Some(cuts) = cuts.get(&hold.process) else { return u64::MAX };
    // A cut between question and answer may have ended it as well.
    let first = cuts.partition_point(|at| *at < hold.asked);
    cuts.get(first).map_or(u64::MAX, |at| at.saturating_add(linger))
}

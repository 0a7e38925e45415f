//! The protocol written down: one file, two owners, two clients, one lock, one fenced resource.

use stateright::{Model, Property};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub(crate) const OWNERS: usize = 2;
pub(crate) const CLIENTS: usize = 2;

/// The epoch, and the number within it.
pub(crate) type Token = (u8, u8);

/// Something that happened, as the journal has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Entry {
    Granted {
        client: usize,
        attempt: u8,
        token: Token,
    },
    Released {
        token: Token,
    },
    /// Ended without its holder's doing: an administrator here, or a lease that ran out.
    Forced {
        token: Token,
    },
}

/// Who holds the lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Hold {
    pub(crate) client: usize,
    pub(crate) attempt: u8,
    pub(crate) token: Token,
}

/// What is on the disk.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct File {
    pub(crate) epoch: u8,
    /// The last turn of the reign that is written.
    pub(crate) seq: u8,
    pub(crate) live: Option<Hold>,
    pub(crate) log: Vec<Entry>,
}

/// One turn of a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Turn {
    pub(crate) call: u8,
    pub(crate) entry: Option<Entry>,
    answer: Option<Answer>,
}

/// What a client is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Answer {
    client: usize,
    attempt: u8,
    says: Says,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Says {
    Granted(Token),
    GivenBack,
    No,
}

/// A process that is, or was, or believes to be, the owner.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Owner {
    #[default]
    Down,
    /// It has claimed, and knows nothing yet; what a broken one has read before.
    Claimed {
        epoch: u8,
        read: Option<Option<Hold>>,
    },
    Up(Reign),
}

/// An owner at work.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reign {
    pub(crate) epoch: u8,
    /// The last turn that its store knows to be written.
    known: u8,
    pub(crate) calls: u8,
    tokens: u8,
    /// What its table says, ahead of what is written.
    pub(crate) table: Option<Hold>,
    /// The requests it knows to have been granted, each a bit: loaded, or granted by itself.
    granted: u64,
    /// On their way into a commit.
    pub(crate) turns: Vec<Turn>,
    /// A commit failed, and nobody knows how much of it.
    unsure: bool,
    /// Written, and not told yet.
    told: Vec<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Client {
    #[default]
    Idle,
    Asking,
    Holds(Token),
    GivesBack(Token),
}

/// What can happen next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Step {
    Claim(usize),
    Load(usize),
    /// The client asks for the lock, or asks again; the table decides at once.
    Ask {
        owner: usize,
        client: usize,
    },
    GiveBack {
        owner: usize,
        client: usize,
    },
    Force(usize),
    Commit(usize, Heard),
    /// An owner that cannot know gives up: all who wait are told that, and it may claim again.
    Stop(usize),
    /// The first answer arrives, and perhaps once more later.
    Tell {
        owner: usize,
        again: bool,
    },
    Lose(usize),
    /// The client hears nothing, and may ask again.
    GiveUp(usize),
    /// A client that believes to hold the lock writes to what it protects.
    Write(usize),
}

/// What an owner hears of its commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Heard {
    /// The outcome.
    Truth,
    /// An error, and it is all written.
    ErrorAfter,
    /// An error, and nothing is written.
    ErrorBefore,
}

/// How a commit ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Outcome {
    Written,
    Superseded,
    OutOfOrder,
}

/// What could be wrong with an implementation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    NoEpochCompare,
    NoEpochCompareWithoutRecords,
    NoSeqCompare,
    SpeaksFirst,
    ReadsBeforeItClaims,
    ClaimsWithoutANewEpoch,
    NobodyChecksTokens,
}

/// Things that have to happen somewhere, or nothing was shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Superseded,
    SupersededAtLoad,
    Repeated,
    RepeatedUnwritten,
    ToldTheSameAgain,
    BothBelieve,
    Bounced,
    DoubleAnswer,
}

const KINDS: usize = Kind::DoubleAnswer as usize + 1;

/// How far it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) epochs: u8,
    pub(crate) calls: u8,
    pub(crate) turns: usize,
    pub(crate) attempts: u8,
    pub(crate) log: usize,
    pub(crate) writes: usize,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct State {
    pub(crate) file: File,
    pub(crate) owners: [Owner; OWNERS],
    clients: [(u8, Client); CLIENTS],
    /// The operations that the protected resource accepted.
    accepted: Vec<(usize, Token)>,
    pub(crate) wrong: Option<&'static str>,
}

impl State {
    /// The number of what a client asks for, the same when it asks again.
    pub(crate) fn attempt(&self, client: usize) -> u8 {
        self.clients[client].0
    }

    pub(crate) fn token_given_back(&self, client: usize) -> Token {
        match self.clients[client].1 {
            Client::GivesBack(token) | Client::Holds(token) => token,
            Client::Idle | Client::Asking => (0, 0),
        }
    }
}

/// The world, and what is wrong with it.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) fault: Option<Fault>,
    happened: Arc<[AtomicU64; KINDS]>,
}

impl Protocol {
    pub(crate) fn new(bounds: Bounds, fault: Option<Fault>) -> Protocol {
        Protocol { bounds, fault, happened: Arc::new(std::array::from_fn(|_| AtomicU64::new(0))) }
    }

    pub(crate) fn happened(&self, kind: Kind) -> u64 {
        self.happened[kind as usize].load(Ordering::Relaxed)
    }

    fn count(&self, kind: Kind) {
        self.happened[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What can happen in a state.
    pub(crate) fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        if state.wrong.is_some() {
            return steps;
        }
        for (at, owner) in state.owners.iter().enumerate() {
            if state.file.epoch < self.bounds.epochs {
                steps.push(Step::Claim(at));
            }
            match owner {
                Owner::Down => {}
                Owner::Claimed { .. } => steps.push(Step::Load(at)),
                Owner::Up(reign) => self.steps_of(state, at, reign, &mut steps),
            }
        }
        for (at, (_, client)) in state.clients.iter().enumerate() {
            match client {
                Client::Asking => steps.push(Step::GiveUp(at)),
                Client::Holds(_) if state.accepted.len() < self.bounds.writes => {
                    steps.push(Step::Write(at));
                }
                _ => {}
            }
        }
        steps
    }

    fn steps_of(&self, state: &State, owner: usize, reign: &Reign, steps: &mut Vec<Step>) {
        if reign.unsure {
            // It may ask for the same once more, or stop. Nothing else.
            steps.extend([Step::Stop(owner), Step::Commit(owner, Heard::Truth)]);
            return;
        }
        let may_log = state.file.log.len() + reign.turns.len() < self.bounds.log;
        let room = reign.turns.len() < self.bounds.turns && reign.calls < self.bounds.calls;
        if room && may_log {
            for (client, (attempt, is)) in state.clients.iter().enumerate() {
                match is {
                    Client::Idle if *attempt <= self.bounds.attempts => {
                        steps.push(Step::Ask { owner, client });
                    }
                    Client::Holds(_) | Client::GivesBack(_) => {
                        steps.push(Step::GiveBack { owner, client });
                    }
                    _ => {}
                }
            }
            if reign.table.is_some() {
                steps.push(Step::Force(owner));
            }
        }
        if !reign.turns.is_empty() {
            let heard = [Heard::Truth, Heard::ErrorAfter, Heard::ErrorBefore];
            steps.extend(heard.map(|heard| Step::Commit(owner, heard)));
        }
        if let Some(answer) = reign.told.first() {
            steps.extend([Step::Tell { owner, again: false }, Step::Lose(owner)]);
            if matches!(answer.says, Says::Granted(_)) && reign.told.len() == 1 {
                steps.push(Step::Tell { owner, again: true });
            }
        }
    }

    /// What becomes of a state.
    pub(crate) fn next(&self, last: &State, step: Step) -> State {
        let mut state = last.clone();
        match step {
            Step::Claim(owner) => {
                let read = (self.fault == Some(Fault::ReadsBeforeItClaims)).then_some(());
                let read = read.map(|()| match &state.owners[owner] {
                    // It reuses what it knew before.
                    Owner::Up(reign) => reign.table,
                    _ => state.file.live,
                });
                if self.fault != Some(Fault::ClaimsWithoutANewEpoch) || state.file.epoch == 0 {
                    state.file.epoch += 1;
                }
                state.file.seq = 0;
                state.owners[owner] = Owner::Claimed { epoch: state.file.epoch, read };
            }
            Step::Load(owner) => self.load(&mut state, owner),
            Step::Ask { owner, client } => self.ask(&mut state, owner, client),
            Step::GiveBack { owner, client } => give_back(&mut state, owner, client),
            Step::Force(owner) => {
                if let Owner::Up(reign) = &mut state.owners[owner]
                    && let Some(hold) = reign.table.take()
                {
                    reign.turn(Some(Entry::Forced { token: hold.token }), None);
                }
            }
            Step::Commit(owner, heard) => {
                self.commit(&mut state, owner, heard);
            }
            Step::Stop(owner) => state.owners[owner] = Owner::Down,
            Step::Tell { owner, again } => self.tell(&mut state, owner, again),
            Step::Lose(owner) => {
                if let Owner::Up(reign) = &mut state.owners[owner] {
                    reign.told.remove(0);
                }
            }
            Step::GiveUp(client) => state.clients[client].1 = Client::Idle,
            Step::Write(client) => self.write(&mut state, client),
        }
        if state.wrong.is_none() {
            state.wrong = wrong(&state);
        }
        let believers = state.clients.iter().filter(|(_, is)| matches!(is, Client::Holds(_)));
        if believers.count() == CLIENTS {
            self.count(Kind::BothBelieve);
        }
        state
    }

    fn load(&self, state: &mut State, owner: usize) {
        let Owner::Claimed { epoch, read } = state.owners[owner].clone() else { return };
        if epoch != state.file.epoch {
            self.count(Kind::SupersededAtLoad);
            state.owners[owner] = Owner::Down;
            return;
        }
        state.owners[owner] = Owner::Up(Reign {
            epoch,
            known: 0,
            calls: 0,
            tokens: 0,
            table: read.unwrap_or(state.file.live),
            granted: state.file.log.iter().fold(0, |known, entry| known | request_of(*entry)),
            turns: Vec::new(),
            unsure: false,
            told: Vec::new(),
        });
    }

    fn ask(&self, state: &mut State, owner: usize, client: usize) {
        let attempt = state.clients[client].0;
        state.clients[client].1 = Client::Asking;
        let Owner::Up(reign) = &mut state.owners[owner] else { return };
        let (entry, says) = match reign.table {
            Some(hold) if (hold.client, hold.attempt) == (client, attempt) => {
                self.count(Kind::ToldTheSameAgain);
                (None, Says::Granted(hold.token))
            }
            Some(_) => (None, Says::No),
            // It is remembered that this very request was granted, and that that is over.
            None if reign.granted & bit(client, attempt) > 0 => (None, Says::No),
            None => {
                reign.tokens += 1;
                let token = (reign.epoch, reign.tokens);
                reign.table = Some(Hold { client, attempt, token });
                reign.granted |= bit(client, attempt);
                (Some(Entry::Granted { client, attempt, token }), Says::Granted(token))
            }
        };
        reign.turn(entry, Some(Answer { client, attempt, says }));
        if self.fault == Some(Fault::SpeaksFirst) {
            reign.told.push(Answer { client, attempt, says });
        }
    }

    /// The one transaction; what it came to, if it was tried.
    pub(crate) fn commit(&self, state: &mut State, owner: usize, heard: Heard) -> Option<Outcome> {
        let State { file, owners, wrong, .. } = state;
        let Owner::Up(reign) = &mut owners[owner] else { return None };
        if heard == Heard::ErrorBefore {
            reign.unsure = true;
            return None;
        }
        let outcome = self.check(file, reign);
        if outcome == Outcome::Written {
            if reign.unsure {
                self.count(Kind::RepeatedUnwritten);
            }
            if reign.epoch != file.epoch {
                *wrong = Some("I16: an owner commits, or answers, after a newer claim");
            }
            for entry in reign.turns.iter().filter_map(|turn| turn.entry) {
                file.live = after(file.live, entry);
                file.log.push(entry);
            }
            let last = reign.turns.last().map_or(0, |turn| turn.call);
            if reign.turns.iter().any(|turn| turn.entry.is_some()) {
                file.seq = last;
            }
            reign.known = last;
        }
        match (outcome, heard) {
            (Outcome::Written, Heard::Truth) => {
                reign.unsure = false;
                let turns = std::mem::take(&mut reign.turns);
                if self.fault != Some(Fault::SpeaksFirst) {
                    reign.told.extend(turns.into_iter().filter_map(|turn| turn.answer));
                }
            }
            (Outcome::Written, _) => reign.unsure = true,
            (refused, _) => {
                match refused {
                    Outcome::Superseded => self.count(Kind::Superseded),
                    _ => self.count(Kind::Repeated),
                }
                owners[owner] = Owner::Down;
            }
        }
        Some(outcome)
    }

    fn check(&self, file: &File, reign: &Reign) -> Outcome {
        let records = reign.turns.iter().any(|turn| turn.entry.is_some());
        let compares_epochs = match self.fault {
            Some(Fault::NoEpochCompare) => false,
            Some(Fault::NoEpochCompareWithoutRecords) => records,
            _ => true,
        };
        if compares_epochs && reign.epoch != file.epoch {
            return Outcome::Superseded;
        }
        // Turns that recorded nothing are not written, so what the store knows may be ahead.
        let last = match reign.epoch == file.epoch {
            true => reign.known.max(file.seq),
            false => reign.known,
        };
        let is_next = reign.turns.first().is_some_and(|turn| turn.call == last + 1);
        match is_next || self.fault == Some(Fault::NoSeqCompare) {
            true => Outcome::Written,
            false => Outcome::OutOfOrder,
        }
    }

    fn tell(&self, state: &mut State, owner: usize, again: bool) {
        let Owner::Up(reign) = &mut state.owners[owner] else { return };
        let answer = reign.told[0];
        if !again {
            reign.told.remove(0);
        }
        let Answer { client, attempt, says } = answer;
        if let Says::Granted(token) = says {
            let granted = Entry::Granted { client, attempt, token };
            if !state.file.log.contains(&granted) {
                state.wrong = Some("a grant is spoken of that is not in the journal");
            }
        }
        let (now, is) = &mut state.clients[client];
        // An answer to something else is not listened to: it came twice, or too late.
        if *now != attempt {
            return self.count(Kind::DoubleAnswer);
        }
        match (*is, says) {
            (Client::Asking, Says::Granted(token)) => *is = Client::Holds(token),
            (Client::Asking, Says::No) | (Client::GivesBack(_), Says::No | Says::GivenBack) => {
                (*now, *is) = (*now + 1, Client::Idle);
            }
            _ => self.count(Kind::DoubleAnswer),
        }
    }

    fn write(&self, state: &mut State, client: usize) {
        let Client::Holds(token) = state.clients[client].1 else { return };
        let highest = state.accepted.iter().map(|(_, token)| *token).max();
        let is_stale = highest.is_some_and(|highest| token < highest);
        if is_stale && self.fault != Some(Fault::NobodyChecksTokens) {
            self.count(Kind::Bounced);
        } else {
            state.accepted.push((client, token));
        }
    }
}

impl Reign {
    fn turn(&mut self, entry: Option<Entry>, answer: Option<Answer>) {
        self.calls += 1;
        self.turns.push(Turn { call: self.calls, entry, answer });
    }
}

fn give_back(state: &mut State, owner: usize, client: usize) {
    let (attempt, is) = state.clients[client];
    let (Client::Holds(token) | Client::GivesBack(token)) = is else { return };
    state.clients[client].1 = Client::GivesBack(token);
    let Owner::Up(reign) = &mut state.owners[owner] else { return };
    let (entry, says) = match reign.table {
        Some(hold) if hold.token == token && hold.client == client => {
            reign.table = None;
            (Some(Entry::Released { token }), Says::GivenBack)
        }
        _ => (None, Says::No),
    };
    reign.turn(entry, Some(Answer { client, attempt, says }));
}

fn bit(client: usize, attempt: u8) -> u64 {
    1 << (usize::from(attempt) * CLIENTS + client)
}

fn request_of(entry: Entry) -> u64 {
    match entry {
        Entry::Granted { client, attempt, .. } => bit(client, attempt),
        Entry::Released { .. } | Entry::Forced { .. } => 0,
    }
}

fn after(live: Option<Hold>, entry: Entry) -> Option<Hold> {
    match entry {
        Entry::Granted { client, attempt, token } => Some(Hold { client, attempt, token }),
        Entry::Released { token } | Entry::Forced { token } => {
            live.filter(|hold| hold.token != token)
        }
    }
}

/// The promise that a state breaks.
fn wrong(state: &State) -> Option<&'static str> {
    let log = &state.file.log;
    let mut live = None;
    let mut newest = None;
    for entry in log {
        if let Entry::Granted { token, .. } = *entry {
            if live.is_some() {
                return Some("I1: the journal grants what is held");
            }
            if newest.is_some_and(|newest| token <= newest) {
                return Some("I2: a token is not larger than one before it");
            }
            newest = Some(token);
        }
        live = after(live, *entry);
    }
    if live != state.file.live {
        return Some("I15: the journal does not replay to what is live");
    }
    let at = |wanted: Entry| log.iter().position(|entry| *entry == wanted);
    let mut believed = Vec::new();
    for (client, (attempt, is)) in state.clients.iter().enumerate() {
        let Client::Holds(token) = *is else { continue };
        let Some(since) = at(Entry::Granted { client, attempt: *attempt, token }) else {
            return Some("an acknowledged grant is lost");
        };
        let until = at(Entry::Forced { token });
        let is_live = state.file.live.is_some_and(|hold| hold.token == token);
        if until.is_none() && !is_live {
            return Some("an acknowledged grant is lost");
        }
        believed.push((since, until));
    }
    believed.sort_unstable();
    if let [(_, until), (since, _)] = believed[..]
        && until.is_none_or(|until| until > since)
    {
        return Some("I3: two hold it, and neither was taken away");
    }
    let in_order = state.accepted.windows(2).all(|pair| pair[0].1 <= pair[1].1);
    (!in_order).then_some("I4: the resource let an older holder in after a newer one")
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        actions.extend(self.steps(state));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        Some(self.next(last, step))
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        vec![Property::always(PROMISE, |_, state: &State| state.wrong.is_none())]
    }
}

/// The name of the one property: which promise it was that broke, the state says.
pub(crate) const PROMISE: &str = "every promise is kept";

//! Histories of correct runs, drawn at random: they pass. Then each with one thing wrong in it: it
//! does not.

use super::{Tale, file, session, token};
use lockkeeper_core::{LockId, LockMode, Resource};
use lockkeeper_sim::history::{
    Fault, Hold, LockModel, Note, Story, TouchOutcome, Verdict, What, check, check_models, decide,
    ops_of, search,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::BTreeMap;

/// Everybody who plays.
const CLIENTS: u32 = 5;
/// How many there may be in the pool.
const PERMITS: u32 = 2;
/// From one thing that happens to the next.
const STEP: u64 = 1_000;
const LONG: u64 = 1 << 40;

/// A lock service that is right, and clients whose calls take a while: what happens happens at one
/// moment between question and answer.
struct Play {
    dice: SmallRng,
    tale: Tale,
    now: u64,
    newest: u64,
    /// When each client has heard its last answer.
    busy: BTreeMap<u32, u64>,
    held: Vec<Held>,
    /// Tokens and values behind the locks.
    registers: BTreeMap<(Resource, u32), (u64, u64)>,
    value: u64,
}

#[derive(Clone)]
struct Held {
    who: u32,
    lock: LockId,
    name: &'static str,
    mode: LockMode,
    token: u64,
    slots: Vec<u32>,
    /// When the service ends it.
    until: u64,
    count: u32,
    is_over: bool,
}

fn conflict(one: LockMode, other: LockMode) -> bool {
    one == LockMode::Exclusive || other == LockMode::Exclusive
}

impl Play {
    fn new(seed: u64) -> Play {
        let mut tale = Tale::default();
        tale.capacities.insert(file("pool"), PERMITS);
        (1..=CLIENTS).for_each(|who| tale.detached(who));
        Play {
            dice: SmallRng::seed_from_u64(seed),
            tale,
            now: STEP,
            newest: 0,
            busy: BTreeMap::new(),
            held: Vec::new(),
            registers: BTreeMap::new(),
            value: 0,
        }
    }

    fn run(seed: u64, steps: usize) -> Tale {
        let mut play = Play::new(seed);
        for _ in 0..steps {
            play.now += STEP;
            for held in play.held.iter_mut().filter(|held| held.until <= play.now) {
                held.is_over = true;
            }
            let who = play.dice.random_range(1..=CLIENTS);
            if play.busy.get(&who).is_none_or(|busy| *busy < play.now) {
                play.turn(who);
            }
        }
        play.tale
    }

    /// A question some time before now and its answer some time after.
    fn call(&mut self, who: u32, ask: What, answer: What) {
        let since = self.busy.get(&who).map_or(0, |busy| busy + 1);
        let from = self.now - self.dice.random_range(0..=(self.now - since).min(4 * STEP));
        let to = self.now + self.dice.random_range(0..3 * STEP);
        self.busy.insert(who, to);
        self.tale.call(who, from, ask, to, answer);
    }

    fn turn(&mut self, who: u32) {
        let mine: Vec<usize> =
            (0..self.held.len()).filter(|at| self.held[*at].who == who).collect();
        match mine.first() {
            None => self.take(who),
            Some(at) => match self.dice.random_range(0..8) {
                0..4 => self.touch(*at),
                // Only some are counted up.
                4 if self.held[*at].name == "counted" => self.count_up(*at),
                _ => self.give(*at),
            },
        }
    }

    fn take(&mut self, who: u32) {
        let (name, mode) = match self.dice.random_range(0..6) {
            0 => ("alone", LockMode::Exclusive),
            1 => ("counted", LockMode::Exclusive),
            2 => ("pool", LockMode::Permit(1)),
            3 => ("pool", LockMode::Permit(2)),
            4 => ("read", LockMode::Exclusive),
            _ => ("read", LockMode::Shared),
        };
        let inside: Vec<&Held> =
            self.held.iter().filter(|held| held.name == name && !held.is_over).collect();
        let mut slots: Vec<u32> = Vec::new();
        let mut token = None;
        if let LockMode::Permit(wanted) = mode {
            let is_free = |slot: &u32| !inside.iter().any(|held| held.slots.contains(slot));
            slots = (0..PERMITS).filter(is_free).take(wanted as usize).collect();
            if slots.len() < wanted as usize {
                return;
            }
        } else {
            if inside.iter().any(|held| conflict(held.mode, mode)) {
                return;
            }
            // Readers of one phase share a token.
            token = inside.first().map(|held| held.token);
        }
        let token = token.unwrap_or_else(|| {
            self.newest += 10;
            self.newest
        });
        let until = match self.dice.random_range(0..4) {
            0 => self.now + 5 * STEP,
            _ => LONG,
        };
        self.tale.locks += 1;
        let lock = LockId::from_u128(self.tale.locks);
        let (count, is_over) = (1, false);
        let held = Held { who, lock, name, mode, token, slots, until, count, is_over };
        self.granted(&held);
        self.held.push(held);
    }

    fn granted(&mut self, held: &Held) {
        let Held { who, lock, name, mode, slots, until, .. } = held.clone();
        let ask = What::Acquire { session: session(who), resource: file(name), mode };
        // The client knows its deadline only roughly, but never thinks it is later than it is.
        let until = until - self.dice.random_range(0..STEP / 2);
        let granted = What::Granted { lock, token: token(held.token), slots, until };
        self.call(who, ask, granted);
    }

    fn count_up(&mut self, at: usize) {
        if self.held[at].is_over {
            return self.give(at);
        }
        self.held[at].count += 1;
        let held = self.held[at].clone();
        self.granted(&held);
    }

    fn give(&mut self, at: usize) {
        let Held { who, lock, is_over, count, .. } = self.held[at].clone();
        let answer = match (is_over, count) {
            (true, _) => What::Refused { code: "not_holder".to_owned() },
            (false, 1) => What::Released { over: true },
            (false, _) => What::Released { over: false },
        };
        if is_over || count == 1 {
            self.held.remove(at);
        } else {
            self.held[at].count -= 1;
        }
        self.call(who, What::Release { lock }, answer);
    }

    fn touch(&mut self, at: usize) {
        let held = self.held[at].clone();
        let slot = held.slots.first().copied().unwrap_or(0);
        let key = (file(held.name), slot);
        let register = self.registers.entry(key).or_insert((0, 0));
        // Readers do not write.
        let writes = held.mode != LockMode::Shared && self.dice.random_range(0..2) == 0;
        let answer = if held.token < register.0 {
            What::Bounced { newest: token(register.0) }
        } else {
            register.0 = held.token;
            if writes {
                self.value += 1;
                register.1 = self.value;
            }
            What::Accepted { value: register.1 }
        };
        let write = match &answer {
            _ if !writes => None,
            What::Accepted { value } => Some(*value),
            _ => {
                self.value += 1;
                Some(self.value)
            }
        };
        let ask = What::Touch { lock: held.lock, slot, token: token(held.token), write };
        self.call(held.who, ask, answer);
    }
}

fn is_side_by_side(one: &Hold, other: &Hold) -> bool {
    one.resource == other.resource
        && one.lock != other.lock
        && conflict(one.mode, other.mode)
        && one.slots.iter().all(|slot| other.slots.is_empty() || other.slots.contains(slot))
}

/// Pairs of holds that stood in each other's way, the first one certainly granted before the second
/// one was asked for.
fn pairs(tale: &Tale) -> Vec<(Hold, Hold)> {
    let holds = Story::read(&tale.notes).unwrap().holds;
    let mut pairs = Vec::new();
    for one in &holds {
        let others = holds.iter().filter(|other| is_side_by_side(one, other));
        pairs.extend(others.map(|other| (one.clone(), other.clone())));
    }
    pairs
}

fn locks_of(note: &What) -> Option<LockId> {
    match note {
        What::Granted { lock, .. }
        | What::Release { lock }
        | What::Renew { lock }
        | What::Touch { lock, .. }
        | What::Lost { lock, .. } => Some(*lock),
        _ => None,
    }
}

fn set_token(tale: &mut Tale, lock: LockId, to: lockkeeper_core::Token) {
    for note in &mut tale.notes {
        if locks_of(&note.what) == Some(lock)
            && let What::Granted { token, .. } | What::Touch { token, .. } = &mut note.what
        {
            *token = to;
        }
    }
}

/// Takes all calls away that are about this and have such a question.
fn without(tale: &mut Tale, is: impl Fn(&What) -> bool) {
    let gone: Vec<(u32, u64)> = tale
        .notes
        .iter()
        .filter(|note| is(&note.what))
        .map(|note| (note.process, note.call))
        .collect();
    tale.notes.retain(|note| !gone.contains(&(note.process, note.call)));
}

type Mutation = fn(&Tale) -> Option<Tale>;

/// Each makes one thing wrong, if there is something in the history to make it wrong with.
const MUTATIONS: [(&str, Mutation); 9] = [
    ("swap the tokens of two", |tale| {
        let (one, other) = pairs(tale).into_iter().find(|(one, other)| one.start < other.asked)?;
        let mut tale = tale.clone();
        set_token(&mut tale, one.lock, other.token);
        set_token(&mut tale, other.lock, one.token);
        Some(tale)
    }),
    ("give two the same token", |tale| {
        let (one, other) = pairs(tale).into_iter().next()?;
        let mut tale = tale.clone();
        set_token(&mut tale, other.lock, one.token);
        Some(tale)
    }),
    ("let another one in meanwhile", |tale| {
        let has_room = |one: &Hold| one.end.min(one.proven) > one.start + 1;
        let (one, other) = pairs(tale)
            .into_iter()
            .find(|(one, other)| has_room(one) && other.token > one.token)?;
        let mut tale = tale.clone();
        let call = tale.notes.iter().find(|note| match &note.what {
            What::Granted { lock, .. } => *lock == other.lock,
            _ => false,
        })?;
        let (process, call) = (call.process, call.call);
        for note in &mut tale.notes {
            if (note.process, note.call) == (process, call) {
                note.at = one.start;
            }
        }
        Some(tale)
    }),
    ("forget a release", |tale| {
        let is_due = |one: &Hold, other: &Hold| {
            one.released_at.is_some() && one.until > LONG / 2 && other.token > one.token
        };
        let (one, _) = pairs(tale).into_iter().find(|(one, other)| is_due(one, other))?;
        let mut tale = tale.clone();
        without(&mut tale, |what| matches!(what, What::Release { lock } if *lock == one.lock));
        Some(tale)
    }),
    ("let a third one in", |tale| {
        let story = Story::read(&tale.notes).unwrap();
        let one = story.holds.iter().find(|one| {
            one.mode == LockMode::Exclusive && one.end > one.start + 2 && one.until < u64::MAX
        })?;
        let mut tale = tale.clone();
        let name = one.resource.key().to_owned();
        tale.locks += 1_000;
        let lock = LockId::from_u128(tale.locks);
        let (mode, n) = (LockMode::Exclusive, one.token.get() + 5);
        tale.grant(99, mode, (&name, &[]), (lock, n), (one.start, one.start + 1), LONG);
        Some(tale)
    }),
    ("let a stale token in", |tale| {
        let story = Story::read(&tale.notes).unwrap();
        let newer = |one: &Hold| {
            story.touches.iter().find(|touch| {
                let other = &story.holds[touch.hold];
                let is_in = matches!(touch.outcome, TouchOutcome::Accepted(_));
                is_in && is_side_by_side(one, other) && touch.token > one.token
            })
        };
        let (one, touch) = story.holds.iter().find_map(|one| Some((one, newer(one)?)))?;
        let TouchOutcome::Accepted(value) = touch.outcome else { return None };
        let mut tale = tale.clone();
        let at = touch.call.to? + 1;
        let (lock, token) = (one.lock, one.token);
        let ask = What::Touch { lock, slot: touch.slot, token, write: None };
        tale.call(one.process, at, ask, at + 1, What::Accepted { value });
        Some(tale)
    }),
    ("read what was not written", |tale| {
        let mut tale = tale.clone();
        let asked: Vec<(u32, u64)> = tale
            .notes
            .iter()
            .filter(|note| matches!(note.what, What::Touch { write: None, .. }))
            .map(|note| (note.process, note.call))
            .collect();
        let value = tale.notes.iter_mut().find_map(|note| match &mut note.what {
            What::Accepted { value } if asked.contains(&(note.process, note.call)) => Some(value),
            _ => None,
        })?;
        *value += 1_000_000;
        Some(tale)
    }),
    ("lose a write", |tale| {
        // The same register, read after it was written, shows nothing at all.
        let story = Story::read(&tale.notes).unwrap();
        let read = story.touches.iter().find(|touch| {
            touch.write.is_none() && matches!(touch.outcome, TouchOutcome::Accepted(1..))
        })?;
        let mut tale = tale.clone();
        let process = story.holds[read.hold].process;
        let (from, to) = (read.call.from, read.call.to?);
        let is_it = |note: &&mut Note| {
            note.process == process && note.at == to && matches!(note.what, What::Accepted { .. })
        };
        tale.notes.iter_mut().find(is_it)?.what = What::Accepted { value: 0 };
        (from <= to).then_some(tale)
    }),
    ("turn a holder away", |tale| {
        let story = Story::read(&tale.notes).unwrap();
        let touch = story.touches.iter().find(|touch| {
            let hold = &story.holds[touch.hold];
            let is_inside =
                touch.call.from >= hold.start && touch.call.to.is_some_and(|to| to <= hold.end);
            is_inside && matches!(touch.outcome, TouchOutcome::Accepted(_))
        })?;
        let mut tale = tale.clone();
        let newest = token(touch.token.get() + 5);
        let process = story.holds[touch.hold].process;
        let is_it = |note: &&mut Note| {
            note.process == process
                && Some(note.at) == touch.call.to
                && matches!(note.what, What::Accepted { .. })
        };
        tale.notes.iter_mut().find(is_it)?.what = What::Bounced { newest };
        Some(tale)
    }),
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_correct_run_passes(seed in any::<u64>(), steps in 20..400_usize) {
        let tale = Play::run(seed, steps);
        tale.passes();
        if let Err(fault) = check_models(&tale.notes, &tale.capacities) {
            panic!("{fault}");
        }
    }

    #[test]
    fn one_thing_wrong_is_found(seed in any::<u64>(), steps in 100..400_usize) {
        let tale = Play::run(seed, steps);
        for (name, mutation) in MUTATIONS {
            let Some(mutated) = mutation(&tale) else { continue };
            match check(&mutated.notes, &mutated.capacities) {
                Err(Fault::Broken(_)) => {}
                other => panic!("to {name} goes unnoticed: {other:?}"),
            }
        }
    }
}

/// What the promises are asked to find is there to be found, nearly always.
#[test]
fn every_mutation_is_tried() {
    let tales: Vec<Tale> = (0..50).map(|seed| Play::run(seed, 300)).collect();
    for (name, mutation) in MUTATIONS {
        let tried = tales.iter().filter(|tale| mutation(tale).is_some()).count();
        assert!(tried >= 40, "to {name} was tried in {tried} of 50 histories");
    }
    let summaries: Vec<_> =
        tales.iter().map(|tale| check(&tale.notes, &tale.capacities).unwrap()).collect();
    for (what, count) in [
        ("turned away", summaries.iter().map(|it| it.bounced).sum::<usize>()),
        ("counted up", summaries.iter().map(|it| it.counted).sum()),
        ("lost", summaries.iter().map(|it| it.lost).sum()),
    ] {
        assert!(count >= 50, "{what} only {count} times");
    }
}

/// The models see what is theirs: two inside, and tokens that go back.
#[test]
fn models_find_what_is_theirs() {
    let mut found = BTreeMap::new();
    for seed in 0..30 {
        let tale = Play::run(seed, 300);
        for (name, mutation) in &MUTATIONS[..5] {
            let Some(mutated) = mutation(&tale) else { continue };
            if let Err(Fault::NotALock { .. }) = check_models(&mutated.notes, &mutated.capacities) {
                *found.entry(*name).or_insert(0) += 1;
            }
        }
    }
    // Not each: a token that is wrong between readers is nothing that a mutex knows of.
    for (name, _) in &MUTATIONS[..5] {
        let found = found.get(name).copied().unwrap_or(0);
        assert!(found >= 10, "to {name} was found by the models in {found} of 30");
    }
}

/// What tokens decide, a search decides alike: on the operations of whole runs, right and wrong.
#[test]
fn both_ways_agree_on_whole_runs() {
    let mut wrong = 0;
    for seed in 0..30 {
        let tale = Play::run(seed, 200);
        let mutated = MUTATIONS[..5].iter().filter_map(|(_, mutation)| mutation(&tale));
        for tale in std::iter::once(tale.clone()).chain(mutated) {
            let story = Story::read(&tale.notes).unwrap();
            for (resource, holds) in story.by_resource() {
                let ops = ops_of(&holds);
                let max = u32::MAX;
                let model = match resource.key() {
                    "pool" => LockModel::Semaphore { permits: PERMITS },
                    "counted" => LockModel::ReentrantFenced { max },
                    _ => LockModel::Fenced,
                };
                let found = search(model, &ops, 1_000_000);
                let Some(fast) = decide(model, &ops) else { panic!("{model} has tokens") };
                assert_ne!(found, Verdict::Undecided);
                let is_right = matches!(found, Verdict::Linearizable(_));
                assert_eq!(fast.is_ok(), is_right, "{resource}, seed {seed}: {fast:?} {found:?}");
                wrong += u32::from(!is_right);
            }
        }
    }
    assert!(wrong > 50, "only {wrong} of them were wrong");
}

//! Whether operations that overlap in time can be put in an order that a model allows.
//!
//! Operations are taken one at a time, each as soon as it may be: the first that began, of those
//! that no finished one must precede. Where one does not fit the next is tried, and when the end of
//! an operation comes up that was not taken, the last one is put back. What was taken and the state
//! this led to are remembered, so that nothing is tried twice. The way back is kept in a list, not
//! on the stack of calls.

use super::{LockModel, ModelOp, State};
use lockkeeper_core::LockId;
use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

/// What came of a search.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// This order is one, by index; operations that need not have happened may be missing.
    Linearizable(Vec<usize>),
    /// There is none; where it got stuck after going as far as it could.
    Impossible(String),
    /// The search was given up.
    Undecided,
}

/// The begin or the end of an operation, in a list in the order of time.
#[derive(Clone, Copy)]
struct Event {
    op: usize,
    is_end: bool,
    before: usize,
    after: usize,
}

/// A list from which things are taken and put back.
struct Line {
    events: Vec<Event>,
    /// Where the end of an operation stands, if it has one.
    ends: Vec<Option<usize>>,
}

/// Stands before the first event and behind the last one.
const EDGE: usize = 0;

impl Line {
    fn of(ops: &[ModelOp]) -> Line {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            moments.push((op.from, false, at));
            moments.extend(op.to.map(|to| (to, true, at)));
        }
        // What begins when another one ends is beside it, not after it.
        moments.sort_unstable();
        let count = moments.len() + 1;
        let edge = Event { op: usize::MAX, is_end: false, before: count - 1, after: 1 % count };
        let mut events = vec![edge];
        let mut ends = vec![None; ops.len()];
        for (at, (_, is_end, op)) in moments.into_iter().enumerate() {
            let at = at + 1;
            if is_end {
                ends[op] = Some(at);
            }
            events.push(Event { op, is_end, before: at - 1, after: (at + 1) % count });
        }
        Line { events, ends }
    }

    fn take(&mut self, at: usize) {
        let Event { before, after, .. } = self.events[at];
        self.events[before].after = after;
        self.events[after].before = before;
    }

    fn put_back(&mut self, at: usize) {
        let Event { before, after, .. } = self.events[at];
        self.events[before].after = at;
        self.events[after].before = at;
    }

    fn take_op(&mut self, begin: usize) {
        self.take(begin);
        if let Some(end) = self.ends[self.events[begin].op] {
            self.take(end);
        }
    }

    fn put_back_op(&mut self, begin: usize) {
        if let Some(end) = self.ends[self.events[begin].op] {
            self.put_back(end);
        }
        self.put_back(begin);
    }
}

/// Which operations were taken.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn flip(&mut self, op: usize) {
        self.0[op / 64] ^= 1 << (op % 64);
    }

    fn has(&self, op: usize) -> bool {
        self.0[op / 64] & 1 << (op % 64) != 0
    }
}

/// For each operation those of the same hold.
fn holds(ops: &[ModelOp]) -> Vec<Rc<[usize]>> {
    let mut by_hold: HashMap<LockId, Vec<usize>> = HashMap::new();
    for (at, op) in ops.iter().enumerate() {
        by_hold.entry(op.hold).or_default().push(at);
    }
    let by_hold: HashMap<LockId, Rc<[usize]>> =
        by_hold.into_iter().map(|(hold, ops)| (hold, ops.into())).collect();
    ops.iter().map(|op| by_hold[&op.hold].clone()).collect()
}

/// Looks for an order, in at most so many steps.
pub fn search(model: LockModel, ops: &[ModelOp], steps: usize) -> Verdict {
    let mut line = Line::of(ops);
    let holds = holds(ops);
    let mut taken = Taken(vec![0; ops.len().div_ceil(64)]);
    let mut seen: HashSet<(Taken, State)> = HashSet::new();
    let mut state = State::default();
    let mut way: Vec<(usize, State)> = Vec::new();
    let mut required = ops.iter().filter(|op| op.to.is_some()).count();
    let mut furthest: Option<(usize, String)> = None;
    let mut at = line.events[EDGE].after;
    for _ in 0..steps {
        if required == 0 {
            return Verdict::Linearizable(way.iter().map(|it| line.events[it.0].op).collect());
        }
        let event = line.events[at];
        if at != EDGE && !event.is_end {
            let op = &ops[event.op];
            let is_over =
                || !state.has(op.hold) && holds[event.op].iter().any(|other| taken.has(*other));
            // What has ended does not begin again.
            let next = if is_over() { None } else { model.step(&state, op) };
            if let Some(next) = next {
                taken.flip(event.op);
                if seen.insert((taken.clone(), next.clone())) {
                    line.take_op(at);
                    way.push((at, std::mem::replace(&mut state, next)));
                    required -= usize::from(op.to.is_some());
                    at = line.events[EDGE].after;
                    continue;
                }
                taken.flip(event.op);
            }
            at = event.after;
            continue;
        }
        // Whatever could come first has been tried: the last one was wrong.
        if furthest.as_ref().is_none_or(|(length, _)| *length < way.len()) {
            furthest = Some((way.len(), stuck(ops, &line, at, &way)));
        }
        let Some((begin, before)) = way.pop() else {
            let message = furthest.map_or_else(String::new, |(_, message)| message);
            return Verdict::Impossible(message);
        };
        let op = line.events[begin].op;
        line.put_back_op(begin);
        taken.flip(op);
        required += usize::from(ops[op].to.is_some());
        state = before;
        at = line.events[begin].after;
    }
    Verdict::Undecided
}

fn stuck(ops: &[ModelOp], line: &Line, at: usize, way: &[(usize, State)]) -> String {
    let blocked = match at {
        EDGE => "what is left".to_owned(),
        _ => ops[line.events[at].op].to_string(),
    };
    let last = way.iter().rev().take(3).map(|it| ops[line.events[it.0].op].to_string());
    let last: Vec<String> = last.collect();
    format!(
        "after {} operations there is no place for: {blocked}; the latest were: {}",
        way.len(),
        last.join("; ")
    )
}

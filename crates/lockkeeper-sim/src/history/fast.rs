//! The models in n log n, where the search would need luck.
//!
//! All operations of one hold are put into a [`Window`]: when it may have begun, and when it may
//! have ended. A mutex allows them if those parts of them that are certain do not overlap. Where
//! there are tokens, these say in which order the holds began, and each begins as early as it can:
//! no later choice could make more room for the next one. Why windows are enough: a count that is
//! raised as early and lowered as late as possible is never smaller in any other order.

use super::{Kind, LockModel, ModelOp};
use lockkeeper_core::LockId;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// When a hold began and ended.
struct Window<'a> {
    begin: &'a ModelOp,
    token: Option<u64>,
    permits: u32,
    /// It begins not before this,
    opens: u64,
    /// and not after this.
    opened: u64,
    /// It ends not before this,
    closes: u64,
    /// and not after this.
    closed: u64,
}

/// Whether a model allows these operations; nothing, if it takes a search to know.
pub fn decide(model: LockModel, ops: &[ModelOp]) -> Option<Result<(), String>> {
    let mut groups: BTreeMap<LockId, Vec<&ModelOp>> = BTreeMap::new();
    for op in ops {
        groups.entry(op.hold).or_default().push(op);
    }
    let mut windows = Vec::new();
    for group in groups.into_values() {
        match window(model, group)? {
            Ok(window) => windows.push(window),
            Err(why) => return Some(Err(why)),
        }
    }
    if model.has_tokens() {
        if windows.iter().any(|window| window.token.is_none()) {
            return None;
        }
        windows.sort_by_key(|window| window.token);
        return Some(in_order(model, &windows));
    }
    Some(apart(windows))
}

/// Puts the operations of one hold together, if they can be: taken by one, given back by the same
/// one as often, held all the time between.
fn window(model: LockModel, mut ops: Vec<&ModelOp>) -> Option<Result<Window<'_>, String>> {
    ops.sort_by_key(|op| op.from);
    let of = |kind| move |op: &&ModelOp| op.kind == kind;
    let acquires: Vec<&ModelOp> = ops.iter().copied().filter(of(Kind::Acquire)).collect();
    let releases: Vec<&ModelOp> = ops.iter().copied().filter(of(Kind::Release)).collect();
    let loses: Vec<&ModelOp> = ops.iter().copied().filter(of(Kind::Lose)).collect();
    // What may or may not have been done takes a search, save one end by force.
    let is_sure = |ops: &[&ModelOp]| ops.iter().all(|op| op.to.is_some());
    if !is_sure(&acquires)
        || !is_sure(&releases)
        || loses.len() > 1
        || is_sure(&loses) && !loses.is_empty()
    {
        return None;
    }
    let Some(&begin) = acquires.first() else {
        return Some(Err(format!("{} was never acquired", ops[0])));
    };
    if let Some(other) = ops.iter().find(|op| op.client != begin.client) {
        return Some(Err(format!("{begin}; but {other}")));
    }
    if let Some(other) = acquires.iter().find(|op| op.token != begin.token) {
        // An unknown one fits all.
        if other.token.is_none() || begin.token.is_none() {
            return None;
        }
        if model.has_tokens() {
            return Some(Err(format!("{begin}; but {other}")));
        }
    }
    if begin.permits > model.permits() {
        return Some(Err(format!("{begin}: there are not so many permits")));
    }
    // One that is counted down only in part, and not ended by force, takes a bound on how many it
    // may be counted; the search knows how to do that.
    if acquires.len() > 1 && (acquires.len() as u64) > u64::from(model.max()) {
        return None;
    }
    if releases.len() > acquires.len() {
        return Some(Err(format!("{} more was released than acquired", releases[0])));
    }
    let end_of = |op: &&ModelOp| op.to.unwrap_or(u64::MAX);
    let known = || acquires.iter().chain(&releases);
    let opened = known().map(end_of).min()?;
    let latest = known().map(|op| op.from).max()?;
    let is_ended = releases.len() == acquires.len();
    let closes = match (is_ended, loses.first()) {
        (true, _) => latest,
        (false, Some(lose)) => latest.max(lose.from),
        (false, None) => u64::MAX,
    };
    let closed = match is_ended {
        true => releases.iter().map(end_of).max()?,
        false => u64::MAX,
    };
    if begin.from > opened || closes > closed {
        return Some(Err(format!("{} does not fit its other operations", begin)));
    }
    if let Some(early) = drops_to_nothing(&acquires, &releases, closes) {
        return Some(Err(format!("nothing is left to be held when {early}")));
    }
    Some(Ok(Window {
        begin,
        token: begin.token,
        permits: begin.permits,
        opens: begin.from,
        opened,
        closes,
        closed,
    }))
}

/// The release, other than the last one, that leaves nothing, however late it was done and however
/// early everything was acquired.
fn drops_to_nothing<'a>(
    acquires: &[&ModelOp],
    releases: &[&'a ModelOp],
    closes: u64,
) -> Option<&'a ModelOp> {
    let mut late: Vec<(u64, &ModelOp)> =
        releases.iter().map(|op| (op.to.unwrap_or(u64::MAX).min(closes), *op)).collect();
    late.sort_by_key(|(at, _)| *at);
    let mut early = acquires.iter().map(|op| op.from).peekable();
    let (mut count, last) = (0_usize, releases.len() == acquires.len());
    for (nth, (at, op)) in late.iter().enumerate() {
        while early.next_if(|from| from <= at).is_some() {
            count += 1;
        }
        let is_end = last && nth + 1 == late.len();
        if count <= 1 && !is_end {
            return Some(op);
        }
        count = count.checked_sub(1)?;
    }
    None
}

/// One after the other by their tokens, each as early as it can begin.
fn in_order(model: LockModel, windows: &[Window<'_>]) -> Result<(), String> {
    // When those who are inside will have left, the first one first.
    let mut inside: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let (mut used, mut now) = (0_u64, 0_u64);
    let mut before: Option<&Window<'_>> = None;
    for (nth, window) in windows.iter().enumerate() {
        if before.is_some_and(|before| before.token == window.token) {
            return Err(format!("{} and another one have one token", window.begin));
        }
        now = now.max(window.opens);
        let mut blocker = before;
        while used + u64::from(window.permits) > u64::from(model.permits()) {
            let Some(Reverse((left, who))) = inside.pop() else {
                return Err(format!("{}: there are not so many permits", window.begin));
            };
            now = now.max(left);
            used -= u64::from(windows[who].permits);
            blocker = Some(&windows[who]);
        }
        if now > window.opened {
            let after = blocker.map_or_else(String::new, |it| format!(", as {}", it.begin));
            return Err(format!("{} comes too late{after}", window.begin));
        }
        let left = window.closes.max(now);
        if left > window.closed {
            return Err(format!("{} ends too late", window.begin));
        }
        used += u64::from(window.permits);
        inside.push(Reverse((left, nth)));
        before = Some(window);
    }
    Ok(())
}

/// Without tokens: what is certain of one hold does not overlap with what is certain of another,
/// and whoever may have been inside for no time at all finds a moment for that.
fn apart(windows: Vec<Window<'_>>) -> Result<(), String> {
    let (mut sure, brief): (Vec<_>, Vec<_>) =
        windows.into_iter().partition(|window| window.opened <= window.closes);
    sure.sort_by_key(|window| (window.opened, window.closes));
    for pair in sure.windows(2) {
        if pair[0].closes > pair[1].opened {
            return Err(format!("{} and {} are both inside", pair[0].begin, pair[1].begin));
        }
    }
    for window in brief {
        let (first, last) = (window.closes.max(window.opens), window.opened.min(window.closed));
        let next = sure.partition_point(|other| other.opened < first);
        let around = next.checked_sub(1).map(|at| &sure[at]);
        if let Some(around) = around.filter(|around| around.closes > last) {
            return Err(format!("{} is inside while {} is", window.begin, around.begin));
        }
    }
    Ok(())
}

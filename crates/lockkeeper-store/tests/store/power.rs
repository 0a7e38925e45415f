//! Power cuts at every moment: what was promised is there, and whatever is there is whole.

use crate::story::{Dice, Outage, Stage, Story, folder};
use lockkeeper_disk::{Cut, Event, Left, Platter};
use lockkeeper_store::Durability;
use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

/// How many power cuts of each kind a test tries, if it does not try them all.
fn cuts() -> usize {
    let cuts = std::env::var("LOCKKEEPER_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    cuts.unwrap_or(1)
}

/// What came of a story's power cuts.
#[derive(Default, Debug)]
struct Seen {
    moments: usize,
    folders: usize,
    /// How many left less than was written, and how many of them less than was acknowledged.
    lost: usize,
    wrong: Vec<String>,
}

/// Cuts the power after every event: which kinds of cuts, says `kinds`, by the number of the event.
fn cut_everywhere(
    story: &Story,
    (mut platter, log): (Platter, Vec<Event>),
    durability: Durability,
    kinds: impl Fn(usize) -> Vec<Cut>,
) -> Seen {
    let room = folder();
    let mut seen = Seen::default();
    let mut known = HashSet::new();
    for events in 0..=log.len() {
        if let Some(event) = events.checked_sub(1).map(|last| &log[last]) {
            platter.replay(event);
        }
        seen.moments += 1;
        for cut in kinds(events) {
            let outage = Outage { story, durability, events };
            let left = platter.leave(cut);
            let mut hasher = DefaultHasher::new();
            (&left, outage.promised()).hash(&mut hasher);
            if !known.insert(hasher.finish()) {
                continue;
            }
            seen.folders += 1;
            match outage.check(&left, room.path()) {
                Ok(there) => seen.lost += usize::from(there < outage.acknowledged()),
                Err(what) => seen.wrong.push(format!("{cut:?} after {events} events: {what}")),
            }
        }
    }
    seen
}

/// A short life: made, used, closed, opened again, used, and left open.
fn short(durability: Durability) -> Stage {
    let mut stage = Stage::new(durability, 11);
    stage.open();
    stage.live(6);
    stage.close();
    stage.open();
    stage.live(4);
    stage
}

fn all_kinds(events: usize) -> Vec<Cut> {
    let seed = events as u64;
    let mut kinds = vec![Cut::Synced, Cut::Written, Cut::Torn(seed)];
    kinds.extend((0..cuts() as u64).map(|nth| Cut::Any(seed << 20 | nth)));
    kinds
}

#[test]
fn power_outlives_a_cut_at_any_moment() {
    let stage = short(Durability::Power);
    let seen = cut_everywhere(&stage.story, stage.log(), Durability::Power, all_kinds);
    assert_eq!(seen.wrong, [""; 0]);
    assert!(seen.folders > 300, "{}", seen.folders);
}

/// Without syncs a power cut takes the end of what was acknowledged, and nothing but the end.
#[test]
fn process_loses_the_end_and_nothing_else() {
    let stage = short(Durability::Process);
    let seen = cut_everywhere(&stage.story, stage.log(), Durability::Process, all_kinds);
    assert_eq!(seen.wrong, [""; 0]);
    assert!(seen.lost > 50, "a cut that loses nothing shows nothing: {}", seen.lost);
}

/// So that nobody believes the first test while it could not fail.
#[test]
fn red_when_what_was_promised_was_not_synced() {
    let stage = short(Durability::Process);
    let synced = |_| vec![Cut::Synced];
    let seen = cut_everywhere(&stage.story, stage.log(), Durability::Power, synced);
    assert!(seen.wrong.len() > 5, "{seen:?}");
    assert!(seen.wrong.iter().all(|what| what.contains("was promised")), "{seen:?}");
}

#[test]
fn red_when_the_disk_says_that_it_synced_and_has_not() {
    let mut stage = Stage::new(Durability::Power, 11);
    stage.open();
    stage.disk.lie();
    stage.live(12);
    stage.close();
    stage.open();
    let synced = |_| vec![Cut::Synced];
    let seen = cut_everywhere(&stage.story, stage.log(), Durability::Power, synced);
    let lost = |words: &str| seen.wrong.iter().any(|what| what.contains(words));
    assert!(lost("was promised") && lost("tokens repeat"), "{seen:?}");
}

/// I2, I11, I15: long lives, in which the log of writes is moved into the file many times, and one
/// power cut after the other: each life goes on with what the last cut has left.
#[test]
fn long_lives_with_one_cut_after_the_other() {
    let mut moves = 0;
    for seed in 0..2 * cuts() as u64 {
        let durability = match seed % 2 {
            0 => Durability::Power,
            _ => Durability::Process,
        };
        let mut stage = Stage::new(durability, seed);
        let mut dice = Dice::new(seed);
        for round in 0..2 {
            stage.open();
            let before = stage.disk.events();
            stage.live(560);
            moves += usize::from(stage.log().1[before..].iter().any(is_of_the_file));
            let outcome = cut_somewhere(&stage, durability, &mut dice, 12)
                .unwrap_or_else(|what| panic!("seed {seed}, round {round}: {what}"));
            stage = stage.after(outcome, seed << 8 | round);
        }
    }
    assert!(moves > 0, "the log was never moved into the file");
}

/// The file is the first one of its folder that comes to be.
fn is_of_the_file(event: &Event) -> bool {
    matches!(event, Event::Wrote(0, ..))
}

/// Cuts the power at some moments; the last one of them, how many commits it has left, and what.
fn cut_somewhere(
    stage: &Stage,
    durability: Durability,
    dice: &mut Dice,
    times: usize,
) -> Result<(usize, usize, Left), String> {
    let room = folder();
    let (platter, log) = stage.log();
    let file: Vec<usize> = (0..log.len()).filter(|&at| is_of_the_file(&log[at])).collect();
    let mut moments: Vec<usize> = (0..times)
        .map(|nth| match file.len() {
            // Half of them while the file itself is written, or shortly after.
            1.. if nth % 2 == 0 => {
                file[dice.roll() as usize % file.len()] + dice.roll() as usize % 4
            }
            _ => dice.roll() as usize % log.len(),
        })
        .collect();
    moments.sort_unstable();
    let (mut platter, mut replayed) = (platter, 0);
    let mut last = None;
    for moment in moments {
        let events = moment.min(log.len());
        log[replayed..events].iter().for_each(|event| platter.replay(event));
        replayed = events;
        let cut = match dice.roll() % 6 {
            0 => Cut::Synced,
            1 => Cut::Written,
            2 => Cut::Torn(dice.roll()),
            _ => Cut::Any(dice.roll()),
        };
        let left = platter.leave(cut);
        let outage = Outage { story: &stage.story, durability, events };
        let there = outage.check(&left, room.path());
        let there = there.map_err(|what| format!("{cut:?} after {events} events: {what}"))?;
        last = Some((events, there, left));
    }
    last.ok_or_else(|| "no moment".to_owned())
}

//! `cargo bench -p lockkeeper-core --bench growth`: judges how the table grows.
//!
//! Every figure is a ratio of two things measured in turns in the same run, so that a noisy machine
//! disturbs both alike; shown are the median of the rounds and the spread from the lower to the
//! upper quarter. The targets are those the table was built to. A missed one is said, not hidden,
//! and makes the exit code 1.

#![allow(clippy::print_stdout, reason = "its figures are what it is for")]

#[allow(dead_code, reason = "each benchmark plays some of the scenes")]
mod scenes;

use lockkeeper_core::Resource;
use scenes::{Check, HandOver, Scene};
use std::{collections::HashMap, hint::black_box, process::ExitCode, time::Instant};

const ROUNDS: usize = 41;

fn main() -> ExitCode {
    println!("{:<58} {:>9} {:>17} {:>9}", "", "median", "quarters", "target");
    let judged = [pair(), hand_over(), unwaited(), random(), chain()];
    match judged.iter().all(|met| *met) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// An uncontended acquire and release against a bare map's insert and remove of the same keys.
fn pair() -> bool {
    let keys: Vec<Resource> =
        (0..1_000).map(|n| Resource::file(&format!("src/module_{n}/lib.rs"))).collect();
    let mut map: HashMap<Resource, u64> = HashMap::new();
    let mut scene = Scene::new();
    let session = scene.open();
    let ratios = rounds(|| {
        let bare = nanos(20 * keys.len(), |at| {
            let key = &keys[at % keys.len()];
            map.insert(key.clone(), at as u64);
            black_box(map.remove(key));
        });
        let table = nanos(10 * keys.len(), |at| {
            let lock = scene.ask(session, &keys[at % keys.len()]).expect("free");
            black_box(scene.release(session, lock));
        });
        table / bare
    });
    judge("uncontended pair / bare HashMap insert + remove", ratios, 10.0)
}

/// A hand-over in a queue of 10,000 against one in a queue of 10.
fn hand_over() -> bool {
    let (mut short, mut long) = (HandOver::new(10), HandOver::new(10_000));
    let ratios = rounds(|| {
        let short = nanos(5_000, |_| short.step());
        nanos(5_000, |_| long.step()) / short
    });
    judge("hand-over with 10,000 waiters / with 10", ratios, 1.5)
}

/// A request of somebody for whom nobody waits, behind 100,000 waiters against behind 10.
fn unwaited() -> bool {
    let mut short = Check::nobody_waits_for_the_asker(10);
    let mut long = Check::nobody_waits_for_the_asker(100_000);
    let ratios = rounds(|| {
        let short = nanos(2_000, |_| short.step());
        nanos(2_000, |_| long.step()) / short
    });
    judge("check of an agent nobody waits for, 100,000 / 10 agents", ratios, 1.5)
}

/// A request in the middle of a random graph: microseconds for asking, checking and giving up.
fn random() -> bool {
    let mut scene = Check::random(10_000);
    let micros = rounds(|| nanos(500, |_| scene.step()) / 1_000.0);
    judge("check in a random graph of 10,000 agents, µs", micros, 10.0)
}

/// A chain of 100,000, searched from its middle: nanoseconds a link.
fn chain() -> bool {
    let (mut none, mut long) = (Check::chain(2), Check::chain(100_000));
    let per_link = rounds(|| {
        let none = nanos(200, |_| none.step());
        (nanos(20, |_| long.step()) - none) / 100_000.0
    });
    judge("check in the middle of a chain of 100,000, ns a link", per_link, 20.0)
}

fn rounds(mut round: impl FnMut() -> f64) -> Vec<f64> {
    round(); // warms up
    (0..ROUNDS).map(|_| round()).collect()
}

/// Nanoseconds a step.
fn nanos(steps: usize, mut step: impl FnMut(usize)) -> f64 {
    let begun = Instant::now();
    for at in 0..steps {
        step(at);
    }
    begun.elapsed().as_nanos() as f64 / steps as f64
}

fn judge(what: &str, mut figures: Vec<f64>, target: f64) -> bool {
    figures.sort_by(f64::total_cmp);
    let at = |share: f64| figures[((figures.len() - 1) as f64 * share).round() as usize];
    let met = at(0.5) <= target;
    let quarters = format!("{:.2} .. {:.2}", at(0.25), at(0.75));
    let verdict = if met { "" } else { "  MISSED" };
    println!("{what:<58} {:>9.2} {quarters:>17} {:>9}{verdict}", at(0.5), format!("<= {target}"));
    met
}

//! The same seed gives the same run, record by record.
#![allow(clippy::unwrap_used, reason = "a test")]

use lockkeeper_sim::{SimConfig, simulate};

#[test]
fn the_same_seed_gives_the_same_run() {
    let config = SimConfig { seed: 11, steps: 12_000, projects: 3, ..SimConfig::default() };
    let run = |config: &SimConfig| simulate(config, &mut |_| {}).unwrap();
    let (first, second) = (run(&config), run(&config));
    assert_eq!(first, second);
    assert_ne!(first.digest, 0);

    let other = run(&SimConfig { seed: 12, ..config });
    assert_ne!(first.digest, other.digest, "another seed gives another run");

    let unchecked = run(&SimConfig { check: false, ..config });
    assert_eq!(first.digest, unchecked.digest, "the checker changes nothing");
}

#[test]
fn progress_is_told_and_ends_at_the_total() {
    let config = SimConfig { seed: 3, steps: 10_000, projects: 2, ..SimConfig::default() };
    let mut told = Vec::new();
    let report = simulate(&config, &mut |progress| told.push(*progress)).unwrap();
    assert!(told.len() >= 3, "{told:?}");
    let last = told.last().unwrap();
    assert_eq!((last.steps, last.steps_total), (10_000, 10_000));
    assert_eq!(last.deadlocks, report.deadlocks);
    assert_eq!(last.max_inside, 1);
}

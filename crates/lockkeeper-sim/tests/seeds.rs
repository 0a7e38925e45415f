//! Many seeds, every kind of work, each step checked.

use lockkeeper_sim::{Report, SimConfig, simulate};

fn run(config: SimConfig) -> Report {
    match simulate(&config, &mut |_| {}) {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn many_seeds_run_clean() {
    let mut sum = Report::default();
    for seed in 1..=20 {
        let config = SimConfig { seed, steps: 10_000, ..SimConfig::default() };
        let report = run(config);
        assert_eq!(report.max_inside_exclusive, 1, "seed {seed}");
        // Who loses breaks its cycle: what another verdict of the same request is about is another.
        assert_eq!(report.verdicts_repeated, 0, "seed {seed}");
        sum.closing_requests += report.closing_requests;
        sum.grants += report.grants;
        sum.deadlocks += report.deadlocks;
        sum.deadlocks_reduced += report.deadlocks_reduced;
        sum.crashes += report.crashes;
        sum.expiries += report.expiries;
        sum.timeouts += report.timeouts;
        sum.cancels += report.cancels;
        sum.claims += report.claims;
        sum.tasks_done += report.tasks_done;
        sum.writes_rejected += report.writes_rejected;
        for (length, count) in report.deadlocks_by_length {
            *sum.deadlocks_by_length.entry(length).or_default() += count;
        }
    }
    let more = sum.deadlocks - sum.closing_requests;
    assert!(more > 0 && more < sum.deadlocks / 20, "{more} further verdicts of {}", sum.deadlocks);
    // A world in which nothing happens proves nothing.
    for (what, count) in [
        ("grants", sum.grants),
        ("deadlocks", sum.deadlocks),
        ("deadlocks through permits", sum.deadlocks_reduced),
        ("crashes", sum.crashes),
        ("expiries", sum.expiries),
        ("timeouts", sum.timeouts),
        ("cancels", sum.cancels),
        ("claims", sum.claims),
        ("finished tasks", sum.tasks_done),
        ("stale writes", sum.writes_rejected),
        ("deadlocks of two", sum.deadlocks_by_length.get(&2).copied().unwrap_or(0)),
        ("deadlocks of three", sum.deadlocks_by_length.get(&3).copied().unwrap_or(0)),
        ("deadlocks of four", sum.deadlocks_by_length.get(&4).copied().unwrap_or(0)),
    ] {
        assert!(count > 0, "there were no {what}");
    }
}

#[test]
fn a_lonely_agent_and_a_crowd_run_clean() {
    for (agents, steps) in [(1, 3_000), (2, 10_000), (3, 10_000), (40, 6_000)] {
        run(SimConfig { seed: 77, steps, projects: 1, agents, check: true });
    }
}

//! What is counted of one project, by those who do it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counters of one project. Each is a sum, so the order in which they move means nothing.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) grants: AtomicU64,
    /// Readers who became the only writer.
    pub(crate) upgraded: AtomicU64,
    /// Now or never, and it was not now.
    pub(crate) refused: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    /// Waits that ended because the asker was chosen in a deadlock, as the asker was told.
    pub(crate) gave_way: AtomicU64,
    /// Work that was left at once because the lock was gone.
    pub(crate) left_at_once: AtomicU64,
    pub(crate) kept_alive: AtomicU64,
    pub(crate) panicked: AtomicU64,
    pub(crate) killed: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) forced: AtomicU64,
    pub(crate) waits: Histogram,
}

pub(crate) fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

/// Sixteen steps for each doubling of the time, in microseconds: right within 7 %.
pub(crate) struct Histogram {
    steps: Vec<AtomicU64>,
}

const STEPS: u64 = 16;

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { steps: (0..STEPS * 40).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Below sixteen each number has a step of its own.
        let doublings = u64::from((micros | STEPS).ilog2()) - 4;
        let step = doublings * STEPS + (micros >> doublings);
        let last = self.steps.len() - 1;
        self.steps[(step as usize).min(last)].fetch_add(1, Relaxed);
    }

    /// The time that this share of all that was recorded did not exceed.
    pub(crate) fn quantile(all: &[&Histogram], share: f64) -> Duration {
        let at = |step: usize| all.iter().map(|one| read(&one.steps[step])).sum::<u64>();
        let length = all.first().map_or(0, |one| one.steps.len());
        let total: u64 = (0..length).map(at).sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let step = (0..length).find(|&step| {
            seen += at(step);
            seen >= wanted
        });
        let step = step.unwrap_or(0) as u64;
        let doublings = (step / STEPS).saturating_sub(1);
        Duration::from_micros((step - doublings * STEPS) << doublings)
    }
}

//! What was handed in and is not at the desk yet, and the bell that calls the thread.

use super::{lock, thread::Job};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

/// In the order in which it was handed in. Only whoever sits at the desk takes anything out, so
/// nothing overtakes.
#[derive(Default)]
pub(super) struct Queue {
    inside: Mutex<Inside>,
    bell: Condvar,
}

#[derive(Default)]
struct Inside {
    jobs: VecDeque<Job>,
    /// Whether the thread was called and has not come yet.
    rung: bool,
    /// Whether nothing more is let in.
    closed: bool,
}

/// Why the thread is up.
pub(super) enum Up {
    /// Somebody rang, or there is something to do.
    Called,
    /// It was time.
    Alarm,
    /// It is closed, and nothing is left.
    Over,
}

impl Queue {
    /// One job more; back it comes if it is closed. Calls nobody.
    pub(super) fn push(&self, job: Job) -> Option<Job> {
        let mut inside = lock(&self.inside);
        if inside.closed {
            return Some(job);
        }
        inside.jobs.push_back(job);
        None
    }

    /// Calls the thread.
    pub(super) fn ring(&self) {
        lock(&self.inside).rung = true;
        self.bell.notify_one();
    }

    /// Lets nothing more in. The thread ends when nothing is left.
    pub(super) fn close(&self) {
        lock(&self.inside).closed = true;
        self.bell.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.inside).jobs.is_empty()
    }

    /// The next jobs, as far as they are quickly done.
    pub(super) fn take_quick(&self, turns_max: usize) -> VecDeque<Job> {
        let jobs = &mut lock(&self.inside).jobs;
        match jobs.iter().position(|job| !job.is_quick()) {
            Some(first) => jobs.drain(..first.min(turns_max)).collect(),
            None => next(jobs, turns_max),
        }
    }

    /// The next jobs, with at most so many turns among them.
    pub(super) fn take(&self, turns_max: usize) -> VecDeque<Job> {
        next(&mut lock(&self.inside).jobs, turns_max)
    }

    /// Waits until there is something to do, or until then.
    pub(super) fn wait(&self, until: Option<Instant>) -> Up {
        let mut inside = lock(&self.inside);
        loop {
            if std::mem::take(&mut inside.rung) || !inside.jobs.is_empty() {
                return Up::Called;
            }
            if inside.closed {
                return Up::Over;
            }
            inside = match until {
                None => self.bell.wait(inside).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Up::Alarm;
                    }
                    let waited = self.bell.wait_timeout(inside, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

fn next(jobs: &mut VecDeque<Job>, turns_max: usize) -> VecDeque<Job> {
    if jobs.len() <= turns_max {
        return std::mem::take(jobs);
    }
    let mut turns = 0;
    let fits = |job: &Job| {
        turns += usize::from(matches!(job, Job::Turn { .. }));
        turns <= turns_max
    };
    let fit = jobs.iter().map(fits).take_while(|fits| *fits).count();
    jobs.drain(..fit.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To claim a project waits for the disk, which whoever writes in place must not.
    #[test]
    fn a_guest_takes_nothing_that_takes_long_and_overtakes_nothing() {
        let queue = Queue::default();
        let then = || Box::new(|_: Result<_, _>| ());
        let claim = || crate::Claim {
            project: "p".into(),
            epoch: lockkeeper_core::Epoch::new(1),
            last_event: 0,
        };
        let push = |job| assert!(queue.push(job).is_none());
        push(Job::After { claim: claim(), then: then() });
        push(Job::Claim { project: "q".into(), then: Box::new(|_| ()) });
        push(Job::After { claim: claim(), then: then() });
        assert_eq!(queue.take_quick(9).len(), 1);
        assert_eq!(queue.take_quick(9).len(), 0, "a claim comes first");
        assert_eq!(queue.take(9).len(), 2);
        assert!(queue.is_empty());
        queue.close();
        assert!(queue.push(Job::Projects { then: Box::new(|_| ()) }).is_some());
        assert!(matches!(queue.wait(None), Up::Over));
    }
}

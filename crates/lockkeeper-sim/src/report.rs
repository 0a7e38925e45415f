//! What a run has seen, in numbers.

use crate::{
    Bench, Fences, Turn,
    inside::{Inside, Most},
    world::deadlocks,
};
use lockkeeper_core::{
    DeadlockReport, EdgeKind, Fact, LeaveCause, Participant, ReleaseCause, SessionId, TaskStatus,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Counts of one project.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) grants: u64,
    pub(crate) waits: u64,
    pub(crate) timeouts: u64,
    pub(crate) cancels: u64,
    pub(crate) expiries: u64,
    pub(crate) claims: u64,
    pub(crate) tasks_done: u64,
    pub(crate) deadlocks: u64,
    pub(crate) by_length: BTreeMap<usize, u64>,
    pub(crate) by_policy: BTreeMap<String, u64>,
    pub(crate) reduced: u64,
    pub(crate) closings: u64,
    pub(crate) verdicts_max: u64,
    pub(crate) repeated: u64,
    pub(crate) cleared: u64,
    pub(crate) longest_queue: usize,
    pub(crate) longest_wait_ms: u64,
    pub(crate) crashes: u64,
    pub(crate) eras: u64,
    pub(crate) records: u64,
    /// All records so far, boiled down to a number.
    pub(crate) digest: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) exclusive_max: u64,
    pub(crate) shared_max: u64,
    pub(crate) permits_max: (u64, u64),
    pub(crate) most: BTreeMap<String, Most>,
}

impl Tally {
    pub(crate) fn see(&mut self, turn: &Turn, bench: &Bench) {
        for record in &turn.records {
            self.records += 1;
            match &record.fact {
                Fact::Granted(granted) => {
                    self.grants += 1;
                    self.longest_wait_ms = self.longest_wait_ms.max(granted.wait_ms);
                }
                Fact::Queued(queued) => {
                    self.waits += 1;
                    for (resource, _) in &queued.wants {
                        let waiting = bench.table.queue(resource).len();
                        self.longest_queue = self.longest_queue.max(waiting);
                    }
                }
                Fact::Left { cause: LeaveCause::TimedOut, .. } => self.timeouts += 1,
                Fact::Left { cause: LeaveCause::Cancelled, .. } => self.cancels += 1,
                Fact::Released { cause: ReleaseCause::Expired, .. } => self.expiries += 1,
                Fact::TaskMoved { task, .. } => {
                    self.claims += u64::from(task.status == TaskStatus::Claimed);
                    self.tasks_done += u64::from(task.status == TaskStatus::Done);
                }
                _ => {}
            }
        }
        for report in deadlocks(turn) {
            self.deadlocks += 1;
            self.reduced += u64::from(report.reduced);
            *self.by_length.entry(report.participants.len()).or_default() += 1;
            *self.by_policy.entry(report.policy.clone()).or_default() += 1;
        }
        self.verdicts(&deadlocks(turn).collect::<Vec<_>>());
        self.inside(&bench.inside);
        self.digest = digest(self.digest, turn);
    }

    /// Counts the verdicts of one turn by the request that closed their cycles.
    fn verdicts(&mut self, reports: &[&DeadlockReport]) {
        let mut requesters: Vec<SessionId> = reports.iter().map(|one| one.requester).collect();
        requesters.sort();
        requesters.dedup();
        self.closings += requesters.len() as u64;
        for requester in requesters {
            let here = reports.iter().filter(|one| one.requester == requester);
            self.verdicts_max = self.verdicts_max.max(here.count() as u64);
        }
        for (at, report) in reports.iter().enumerate() {
            let again = reports[..at].iter().any(|earlier| is_left_of(report, earlier));
            self.repeated += u64::from(again);
        }
    }

    pub(crate) fn inside(&mut self, inside: &Inside) {
        self.exclusive_max = self.exclusive_max.max(inside.exclusive_max);
        self.shared_max = self.shared_max.max(inside.shared_max);
        self.permits_max = self.permits_max.max(inside.permits_max);
    }

    /// At the end of an era: the worst of each resource.
    pub(crate) fn inside_each(&mut self, inside: &Inside) {
        for (resource, most) in &inside.most {
            let worst = self.most.entry(resource.to_string()).or_default();
            *worst = worst.or(*most);
        }
    }

    pub(crate) fn fences(&mut self, fences: &Fences) {
        self.accepted += fences.accepted;
        self.rejected += fences.rejected;
    }
}

/// Whether a cycle is what is left of an earlier one of the same request: nobody on it waits for
/// anything but what it waited for there. Through permits that says nothing: who must go first is
/// another matter after each verdict. And where all of it is one queue and declared waits, several
/// may have to go, so that the one at its end need not.
fn is_left_of(report: &DeadlockReport, earlier: &DeadlockReport) -> bool {
    let wait = |one: &Participant| (one.rank.session, one.ticket, one.resource.clone());
    let before: Vec<_> = earlier.participants.iter().map(wait).collect();
    let queues = earlier.participants.iter().filter_map(|one| one.resource.as_ref());
    let queues: BTreeSet<_> = queues.collect();
    let declares = earlier.participants.iter().any(|one| one.edge == EdgeKind::Declared);
    report.requester == earlier.requester
        && (!declares || queues.len() > 1)
        && !report.reduced
        && !earlier.reduced
        && report.participants.iter().all(|one| before.contains(&wait(one)))
}

/// Boils the numbers of a turn down, so that two runs can be compared: an FNV over what decides.
fn digest(seed: u64, turn: &Turn) -> u64 {
    let mut sum = seed ^ 0xcbf2_9ce4_8422_2325;
    let mut add = |n: u64| sum = (sum ^ n).wrapping_mul(0x0000_0100_0000_01b3);
    for record in &turn.records {
        add(record.at.0);
        match &record.fact {
            Fact::Granted(granted) => {
                add(granted.token.get());
                add(granted.ticket.get());
                add(granted.lock.as_u128() as u64);
            }
            Fact::Queued(queued) => add(queued.ticket.get()),
            Fact::Left { ticket, .. } => add(ticket.get() << 1),
            Fact::Released { lock, remaining, .. } => {
                add(lock.as_u128() as u64);
                add(u64::from(*remaining));
            }
            Fact::DeadlockFound(report) => {
                add(report.victim.get());
                add(report.participants.len() as u64);
            }
            Fact::Converted { lock, token, .. } => {
                add(lock.as_u128() as u64);
                add(token.get());
            }
            Fact::Renewed { expires_at, .. } => add(expires_at.0),
            Fact::TaskMoved { task, .. } => add(task.version),
            _ => add(7),
        }
    }
    for reply in &turn.replies {
        add(reply.call.0);
        add(match &reply.outcome {
            Ok(_) => 1,
            Err(refusal) => refusal.code().len() as u64,
        });
    }
    sum
}

/// What a run has seen.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// The seed of the run.
    pub seed: u64,
    /// How many steps were driven, all projects together.
    pub steps: u64,
    /// How many projects.
    pub projects: usize,
    /// How many agents in each.
    pub agents: usize,
    /// Whether each step was checked against the model.
    pub checked: bool,
    /// Locks that were granted.
    pub grants: u64,
    /// Requests that queued.
    pub waits: u64,
    /// Waits that ran out.
    pub timeouts: u64,
    /// Waits that were taken back.
    pub cancels: u64,
    /// Leases that ran out.
    pub expiries: u64,
    /// Tasks that were claimed.
    pub claims: u64,
    /// Tasks that were completed.
    pub tasks_done: u64,
    /// Deadlocks that were found and broken.
    pub deadlocks: u64,
    /// Deadlocks by the number of agents on the cycle.
    pub deadlocks_by_length: BTreeMap<usize, u64>,
    /// Victims by the order that chose them.
    pub victims_by_policy: BTreeMap<String, u64>,
    /// Deadlocks through permits, confirmed by reduction.
    pub deadlocks_reduced: u64,
    /// Requests that closed a cycle, or several.
    #[serde(skip)]
    pub closing_requests: u64,
    /// The most verdicts that one of them cost.
    #[serde(skip)]
    pub verdicts_for_one: u64,
    /// Verdicts on what an earlier verdict of the same request had left of a cycle.
    #[serde(skip)]
    pub verdicts_repeated: u64,
    /// Requests after which there was a cycle through permits that was no deadlock; only counted
    /// when steps are checked.
    pub permit_cycles_cleared: u64,
    /// The longest queue of one resource.
    pub longest_queue: usize,
    /// The longest wait that ended in a grant, in virtual milliseconds.
    pub longest_wait_ms: u64,
    /// The most who were inside a resource together with somebody exclusive: 1.
    pub max_inside_exclusive: u64,
    /// The most readers and updaters inside a resource together.
    pub max_inside_shared: u64,
    /// The most permits in use of one resource, when one was granted.
    pub max_permits_in_use: u64,
    /// The capacity of that resource at that moment.
    pub capacity_there: u64,
    /// The most inside each resource, the worst of all projects.
    pub max_inside: BTreeMap<String, Most>,
    /// How often a coordinator crashed and recovered.
    pub crashes: u64,
    /// How often a project came to rest, emptied, and began anew.
    pub eras: u64,
    /// Writes of holders that the fenced resources accepted.
    pub writes_accepted: u64,
    /// Writes of stale holders that bounced.
    pub writes_rejected: u64,
    /// Facts that were recorded.
    pub records: u64,
    /// All facts and replies boiled down to a number: the same for the same seed.
    pub digest: u64,
}

impl Report {
    pub(crate) fn add(&mut self, tally: &Tally) {
        self.grants += tally.grants;
        self.waits += tally.waits;
        self.timeouts += tally.timeouts;
        self.cancels += tally.cancels;
        self.expiries += tally.expiries;
        self.claims += tally.claims;
        self.tasks_done += tally.tasks_done;
        self.deadlocks += tally.deadlocks;
        for (length, count) in &tally.by_length {
            *self.deadlocks_by_length.entry(*length).or_default() += count;
        }
        for (policy, count) in &tally.by_policy {
            *self.victims_by_policy.entry(policy.clone()).or_default() += count;
        }
        self.deadlocks_reduced += tally.reduced;
        self.closing_requests += tally.closings;
        self.verdicts_for_one = self.verdicts_for_one.max(tally.verdicts_max);
        self.verdicts_repeated += tally.repeated;
        self.permit_cycles_cleared += tally.cleared;
        self.longest_queue = self.longest_queue.max(tally.longest_queue);
        self.longest_wait_ms = self.longest_wait_ms.max(tally.longest_wait_ms);
        self.max_inside_exclusive = self.max_inside_exclusive.max(tally.exclusive_max);
        self.max_inside_shared = self.max_inside_shared.max(tally.shared_max);
        let permits = (self.max_permits_in_use, self.capacity_there).max(tally.permits_max);
        (self.max_permits_in_use, self.capacity_there) = permits;
        for (resource, most) in &tally.most {
            let worst = self.max_inside.entry(resource.clone()).or_default();
            *worst = worst.or(*most);
        }
        self.crashes += tally.crashes;
        self.eras += tally.eras;
        self.writes_accepted += tally.accepted;
        self.writes_rejected += tally.rejected;
        self.records += tally.records;
        self.digest = self.digest.rotate_left(7) ^ tally.digest;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |counts: Vec<String>| match counts.is_empty() {
            true => "-".to_owned(),
            false => counts.join("  "),
        };
        let lengths = self.deadlocks_by_length.iter().map(|(k, n)| format!("{k}: {n}")).collect();
        let policies = self.victims_by_policy.iter().map(|(k, n)| format!("{k}: {n}")).collect();
        let permits = format!("{} of {}", self.max_permits_in_use, self.capacity_there);
        let verdicts =
            format!("{} at most, {} repeated", self.verdicts_for_one, self.verdicts_repeated);
        let checked = if self.checked { "each step" } else { "no" };
        let rows: [(&str, String); 27] = [
            ("seed", self.seed.to_string()),
            ("steps", self.steps.to_string()),
            ("projects", self.projects.to_string()),
            ("agents in each", self.agents.to_string()),
            ("checked", checked.to_owned()),
            ("grants", self.grants.to_string()),
            ("waits", self.waits.to_string()),
            ("timeouts", self.timeouts.to_string()),
            ("cancels", self.cancels.to_string()),
            ("expiries", self.expiries.to_string()),
            ("tasks claimed", format!("{}, {} done", self.claims, self.tasks_done)),
            ("deadlocks", self.deadlocks.to_string()),
            ("  by length", by(lengths)),
            ("  victims by", by(policies)),
            ("  through permits", self.deadlocks_reduced.to_string()),
            ("  closing requests", self.closing_requests.to_string()),
            ("  for one request", verdicts),
            ("permit cycles cleared", self.permit_cycles_cleared.to_string()),
            ("longest queue", self.longest_queue.to_string()),
            ("longest wait, ms", self.longest_wait_ms.to_string()),
            ("max inside, exclusive", self.max_inside_exclusive.to_string()),
            ("max inside, shared", self.max_inside_shared.to_string()),
            ("max permits in use", permits),
            ("crashes, recovered", self.crashes.to_string()),
            ("came to rest", self.eras.to_string()),
            ("writes accepted", self.writes_accepted.to_string()),
            ("stale writes rejected", self.writes_rejected.to_string()),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<22} {value}")?;
        }
        writeln!(f, "{:<22} {:016x}", "digest", self.digest)?;
        write!(
            f,
            "\n{:<22} {:>9} {:>9} {:>9}",
            "max inside each", "exclusive", "shared", "permits"
        )?;
        for (resource, most) in &self.max_inside {
            let cell = |count: u64| if count == 0 { "-".to_owned() } else { count.to_string() };
            let cells = [most.exclusive, most.shared, most.permits].map(cell);
            write!(f, "\n  {resource:<20} {:>9} {:>9} {:>9}", cells[0], cells[1], cells[2])?;
        }
        Ok(())
    }
}

//! What is counted, through the `metrics` facade, under the names of the earlier registries.
//!
//! A series is made once and kept, so counting costs a lookup. Install a recorder before the
//! manager is opened, or it counts into the void: [`Prometheus::install`] is one.

use crate::config::Metrics;
use foldhash::fast::RandomState;
use lockkeeper_core::{Event, LockTable, News, Refusal, Resource};
use lockkeeper_store::CommitStats;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

const WAIT_BUCKETS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const COMMIT_BUCKETS: [f64; 9] = [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 1.0];
const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// How often what was measured is put into its buckets.
const SORTED_EVERY: Duration = Duration::from_secs(5);

/// The counts as a page that Prometheus can read.
#[derive(Clone)]
pub struct Prometheus {
    handle: PrometheusHandle,
}

impl Prometheus {
    /// Makes it the recorder of this process. Do it before the first manager is opened.
    pub fn install() -> Result<Prometheus, MetricsTaken> {
        let recorder = Prometheus::builder().map_err(MetricsTaken::from)?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| MetricsTaken::new("another one is"))?;
        sort_every(SORTED_EVERY, handle.clone())
            .map_err(|error| MetricsTaken::new(&error.to_string()))?;
        Ok(Prometheus { handle })
    }

    fn builder() -> Result<PrometheusBuilder, BuildError> {
        let of = |name: &str| Matcher::Full(name.to_owned());
        PrometheusBuilder::new()
            .set_buckets_for_metric(of("resource_lock_wait_time_seconds"), &WAIT_BUCKETS)?
            .set_buckets_for_metric(of("resource_lock_journal_commit_seconds"), &COMMIT_BUCKETS)?
            .set_buckets_for_metric(of("resource_lock_journal_batch_size"), &BATCH_BUCKETS)
    }

    /// The page, as it is now.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

/// The recorder keeps each measurement until somebody puts it into its bucket. A page that is read
/// does; one that nobody reads would grow for ever. The recorder stays for as long as the process
/// does, and so does this thread.
fn sort_every(pause: Duration, handle: PrometheusHandle) -> io::Result<()> {
    let sort = move || {
        loop {
            thread::sleep(pause);
            handle.run_upkeep();
        }
    };
    thread::Builder::new().name("lockkeeper-metrics".to_owned()).spawn(sort).map(drop)
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prometheus").finish_non_exhaustive()
    }
}

/// The process has a recorder of metrics already, or none could be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetricsTaken {
    why: String,
}

impl MetricsTaken {
    fn new(why: &str) -> MetricsTaken {
        MetricsTaken { why: why.to_owned() }
    }
}

impl From<BuildError> for MetricsTaken {
    fn from(error: BuildError) -> MetricsTaken {
        MetricsTaken { why: error.to_string() }
    }
}

impl fmt::Display for MetricsTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the recorder of metrics was not installed: {}", self.why)
    }
}

impl std::error::Error for MetricsTaken {}

/// What all projects of a manager share: which agents and which types of resources have series of
/// their own.
pub(crate) struct Meter {
    config: Metrics,
    agents: Mutex<HashSet<Arc<str>, RandomState>>,
    types: Mutex<HashSet<Arc<str>, RandomState>>,
}

/// The label of what has none of its own.
const OTHER: &str = "other";

/// The label of a name: the name itself, unless there are too many of them.
fn label<'a>(of: &Mutex<HashSet<Arc<str>, RandomState>>, max: usize, name: &'a str) -> &'a str {
    let mut known = of.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(name) {
        return name;
    }
    if known.len() >= max {
        return OTHER;
    }
    known.insert(name.into());
    name
}

impl Meter {
    pub(crate) fn new(config: Metrics) -> Arc<Meter> {
        Arc::new(Meter { config, agents: Mutex::default(), types: Mutex::default() })
    }

    pub(crate) fn project(meter: &Arc<Meter>) -> ProjectMeter {
        let depth = meter.config.enabled.then(|| gauge!("resource_lock_queue_depth"));
        let (types, by_word) = (Vec::new(), ByName::default());
        ProjectMeter { meter: meter.clone(), types, by_word, kept: 0, depth, waiting: 0 }
    }

    /// Told of each commit.
    pub(crate) fn observer(&self) -> Option<Box<dyn FnMut(CommitStats) + Send>> {
        self.config.enabled.then(|| {
            let took = histogram!("resource_lock_journal_commit_seconds");
            let size = histogram!("resource_lock_journal_batch_size");
            let observe = move |commit: CommitStats| {
                took.record(commit.took.as_secs_f64());
                size.record(commit.turns as f64);
            };
            Box::new(observe) as Box<dyn FnMut(CommitStats) + Send>
        })
    }

    /// The label of an agent; none, if nobody's name is one.
    fn label_of_agent<'a>(&self, agent: &'a str) -> &'a str {
        match self.config.agent_label {
            true => label(&self.agents, self.config.agents_max, agent),
            false => "",
        }
    }

    fn label_of_type<'a>(&self, word: &'a str) -> &'a str {
        label(&self.types, self.config.types_max, word)
    }
}

/// The series of one type of resource and one agent.
struct Series {
    acquisitions: Counter,
    wait_time: Histogram,
    contentions: Counter,
    releases: Counter,
    timeouts: Counter,
}

impl Series {
    fn new(resource_type: &str, agent: Option<&str>) -> Series {
        let mut labels = vec![("resource_type", resource_type.to_owned())];
        labels.extend(agent.map(|agent| ("agent_id", agent.to_owned())));
        Series {
            acquisitions: counter!("resource_lock_acquisitions_total", &labels),
            wait_time: histogram!("resource_lock_wait_time_seconds", &labels),
            contentions: counter!("resource_lock_contentions_total", &labels),
            releases: counter!("resource_lock_releases_total", &labels),
            timeouts: counter!("resource_lock_timeouts_total", &labels),
        }
    }
}

/// What this project counts of one type of resource, or of all those that have no series.
struct OfType {
    word: Box<str>,
    /// By the label of the agent.
    series: ByName<Series>,
    /// The gauge of those that are held, once there was one, and what this project adds to it.
    active: Option<(Gauge, u64)>,
}

/// A quick hash, seeded anew for each map: names come from anybody, and each event looks two of
/// them up.
type ByName<T> = HashMap<Box<str>, T, RandomState>;

/// Counts for one reign of one project.
pub(crate) struct ProjectMeter {
    meter: Arc<Meter>,
    types: Vec<OfType>,
    /// Where each type is in the list.
    by_word: ByName<usize>,
    /// How many series are at hand.
    kept: usize,
    depth: Option<Gauge>,
    waiting: usize,
}

/// How many pairs of type and agent keep their series at hand.
const SERIES_MAX: usize = 4096;

impl ProjectMeter {
    fn is_on(&self) -> bool {
        self.meter.config.enabled
    }

    pub(crate) fn start_from(&mut self, table: &LockTable) {
        if self.is_on() {
            for holder in table.list() {
                let at = self.type_at(&holder.resource);
                self.more(at);
            }
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        if !self.is_on() {
            return;
        }
        match &event.news {
            News::Locked(news) => {
                let wait = news.wait_ms.unwrap_or(0);
                let at = self.type_at(&news.resource);
                let series = self.series(at, &news.agent);
                series.acquisitions.increment(1);
                series.wait_time.record(wait as f64 / 1000.0);
                self.more(at);
            }
            News::Unlocked(news) => {
                let at = self.type_at(&news.resource);
                self.series(at, &news.agent).releases.increment(1);
                self.less(at);
            }
            News::Expired(news) => {
                counter!("resource_lock_expirations_total").increment(1);
                let at = self.type_at(&news.resource);
                self.less(at);
            }
            News::Revoked(news) => {
                counter!("resource_lock_revocations_total").increment(1);
                let at = self.type_at(&news.resource);
                self.less(at);
            }
            News::Waiting(news) => {
                for resource in &news.resources {
                    let at = self.type_at(resource);
                    self.series(at, &news.agent).contentions.increment(1);
                }
            }
            News::Deadlock { report } => {
                let resource = report.resource.as_ref();
                let word = match resource {
                    Some(resource) => self.meter.label_of_type(type_of(resource)).to_string(),
                    None => "none".to_owned(),
                };
                counter!("resource_lock_deadlocks_total", "resource_type" => word).increment(1);
            }
            _ => {}
        }
    }

    pub(crate) fn refused(&mut self, agent: &str, refusal: &Refusal) {
        if !self.is_on() {
            return;
        }
        match refusal {
            Refusal::Busy { obstacles } => {
                for obstacle in obstacles {
                    let at = self.type_at(&obstacle.resource);
                    self.series(at, agent).contentions.increment(1);
                }
            }
            Refusal::TimedOut { obstacles, .. } => {
                for obstacle in obstacles {
                    let at = self.type_at(&obstacle.resource);
                    self.series(at, agent).timeouts.increment(1);
                }
            }
            _ => {}
        }
    }

    /// How many calls wait by now.
    pub(crate) fn waiting(&mut self, count: usize) {
        if let Some(depth) = &self.depth
            && count != self.waiting
        {
            depth.increment(count as f64 - self.waiting as f64);
            self.waiting = count;
        }
    }

    fn series(&mut self, at: usize, agent: &str) -> &Series {
        let has = |it: &ProjectMeter, label: &str| it.types[at].series.contains_key(label);
        if self.meter.config.agent_label && has(self, agent) {
            return &self.types[at].series[agent];
        }
        let label = self.meter.label_of_agent(agent);
        if !has(self, label) {
            self.keep_series(at, label);
        }
        &self.types[at].series[label]
    }

    #[cold]
    fn keep_series(&mut self, at: usize, label: &str) {
        self.kept += 1;
        if self.kept > SERIES_MAX {
            self.kept = 1;
            for of_type in &mut self.types {
                of_type.series = ByName::default();
            }
        }
        let agent = self.meter.config.agent_label.then_some(label);
        let of_type = &mut self.types[at];
        of_type.series.insert(label.into(), Series::new(&of_type.word, agent));
    }

    fn more(&mut self, at: usize) {
        let OfType { word, active, .. } = &mut self.types[at];
        let (gauge, count) = active.get_or_insert_with(|| {
            (gauge!("resource_locks_active", "resource_type" => word.to_string()), 0)
        });
        *count += 1;
        gauge.increment(1.0);
    }

    fn less(&mut self, at: usize) {
        if let Some((gauge, count)) = &mut self.types[at].active
            && *count > 0
        {
            *count -= 1;
            gauge.decrement(1.0);
        }
    }

    /// Where the type of a resource is in the list; it joins it, if it is new. A type that has no
    /// series is with all the others, and will be: so what it adds it also takes away.
    fn type_at(&mut self, resource: &Resource) -> usize {
        let word = type_of(resource);
        match self.by_word.get(word) {
            Some(&at) => at,
            None => self.new_type_at(word),
        }
    }

    #[cold]
    fn new_type_at(&mut self, word: &str) -> usize {
        let label = self.meter.label_of_type(word);
        if let Some(&at) = self.by_word.get(label) {
            return at;
        }
        self.by_word.insert(label.into(), self.types.len());
        self.types.push(OfType { word: label.into(), series: ByName::default(), active: None });
        self.types.len() - 1
    }
}

impl Drop for ProjectMeter {
    /// The next reign counts what it finds.
    fn drop(&mut self) {
        for (gauge, count) in self.types.iter().filter_map(|of_type| of_type.active.as_ref()) {
            gauge.decrement(*count as f64);
        }
        if let Some(depth) = &self.depth {
            depth.decrement(self.waiting as f64);
        }
    }
}

fn type_of(resource: &Resource) -> &str {
    let text = resource.as_str();
    let end = text.bytes().position(|byte| byte == b':').unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory of this process, in KiB.
    fn memory() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A page that nobody reads costs no memory for each measurement.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_measured_and_never_read_is_not_kept() {
        const ROUNDS: usize = 24;
        const EACH: usize = 96 * 1024;
        let recorder = Prometheus::builder().unwrap().build_recorder();
        sort_every(Duration::from_millis(1), recorder.handle()).unwrap();
        let measured = metrics::with_local_recorder(&recorder, || {
            histogram!("resource_lock_wait_time_seconds")
        });
        let mut first = 0;
        for round in 0..ROUNDS {
            (0..EACH).for_each(|_| measured.record(0.2));
            if round == 0 {
                first = memory();
            }
        }
        // Nobody reads it until here. All of it would be 8 bytes for each, 18 MiB.
        let last = memory();
        assert!(last < first + 9 * 1024, "from {first} to {last} KiB");
        let page = recorder.handle().render();
        let count =
            |line: &str| line.strip_prefix("resource_lock_wait_time_seconds_count ")?.parse().ok();
        let counted: usize = page.lines().find_map(count).unwrap();
        // What comes at the very moment of sorting may get lost.
        assert!(counted > ROUNDS * EACH / 2, "{page}");
    }
}

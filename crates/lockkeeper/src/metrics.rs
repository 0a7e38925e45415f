//! What is counted, through the `metrics` facade, under the names of the earlier registries.
//!
//! A series is made once and kept, so counting costs a lookup. Install a recorder before the
//! manager is opened, or it counts into the void: [`Prometheus::install`] is one.

use crate::config::Metrics;
use lockkeeper_core::{Event, LockTable, News, Refusal, Resource};
use lockkeeper_store::CommitStats;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

const WAIT_BUCKETS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const COMMIT_BUCKETS: [f64; 9] = [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 1.0];
const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

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

/// What all projects of a manager share: which agents have series of their own.
pub(crate) struct Meter {
    config: Metrics,
    agents: Mutex<HashSet<Arc<str>>>,
}

impl Meter {
    pub(crate) fn new(config: Metrics) -> Arc<Meter> {
        Arc::new(Meter { config, agents: Mutex::default() })
    }

    pub(crate) fn project(meter: &Arc<Meter>) -> ProjectMeter {
        let depth = meter.config.enabled.then(|| gauge!("resource_lock_queue_depth"));
        let (series, active) = (HashMap::new(), HashMap::new());
        ProjectMeter { meter: meter.clone(), series, kept: 0, active, depth, waiting: 0 }
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

    /// The label of an agent: its name, unless there are too many of them.
    fn label(&self, agent: &str) -> Arc<str> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = agents.get(agent) {
            return known.clone();
        }
        if agents.len() >= self.config.agents_max {
            return "other".into();
        }
        let agent: Arc<str> = agent.into();
        agents.insert(agent.clone());
        agent
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
    fn new(resource_type: &str, agent: Option<Arc<str>>) -> Series {
        let mut labels = vec![("resource_type", resource_type.to_owned())];
        labels.extend(agent.map(|agent| ("agent_id", agent.to_string())));
        Series {
            acquisitions: counter!("resource_lock_acquisitions_total", &labels),
            wait_time: histogram!("resource_lock_wait_time_seconds", &labels),
            contentions: counter!("resource_lock_contentions_total", &labels),
            releases: counter!("resource_lock_releases_total", &labels),
            timeouts: counter!("resource_lock_timeouts_total", &labels),
        }
    }
}

/// The gauge of one type of resource, and what this project adds to it.
struct Active {
    gauge: Gauge,
    count: u64,
}

/// Counts for one reign of one project.
pub(crate) struct ProjectMeter {
    meter: Arc<Meter>,
    /// By type of resource, then by agent.
    series: HashMap<Box<str>, HashMap<Box<str>, Series>>,
    kept: usize,
    active: HashMap<Box<str>, Active>,
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
                self.more(&holder.resource);
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
                let series = self.series(&news.resource, &news.agent);
                series.acquisitions.increment(1);
                series.wait_time.record(wait as f64 / 1000.0);
                self.more(&news.resource);
            }
            News::Unlocked(news) => {
                self.series(&news.resource, &news.agent).releases.increment(1);
                self.less(&news.resource);
            }
            News::Expired(news) => {
                counter!("resource_lock_expirations_total").increment(1);
                self.less(&news.resource);
            }
            News::Revoked(news) => {
                counter!("resource_lock_revocations_total").increment(1);
                self.less(&news.resource);
            }
            News::Waiting(news) => {
                for resource in &news.resources {
                    self.series(resource, &news.agent).contentions.increment(1);
                }
            }
            News::Deadlock { report } => {
                let resource = report.resource.as_ref();
                let word = resource.map_or("none".to_owned(), |one| type_of(one).to_owned());
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
                    self.series(&obstacle.resource, agent).contentions.increment(1);
                }
            }
            Refusal::TimedOut { obstacles, .. } => {
                for obstacle in obstacles {
                    self.series(&obstacle.resource, agent).timeouts.increment(1);
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

    fn series(&mut self, resource: &Resource, agent: &str) -> &Series {
        let agent_label = self.meter.config.agent_label;
        let agent = if agent_label { agent } else { "" };
        let word = type_of(resource);
        let is_kept = self.series.get(word).is_some_and(|agents| agents.contains_key(agent));
        if !is_kept {
            self.kept += 1;
            if self.kept > SERIES_MAX {
                (self.series, self.kept) = (HashMap::new(), 1);
            }
        }
        let meter = &self.meter;
        let agents = get_or_insert(&mut self.series, word, HashMap::new);
        get_or_insert(agents, agent, || Series::new(word, agent_label.then(|| meter.label(agent))))
    }

    fn more(&mut self, resource: &Resource) {
        let active = self.active(resource);
        active.count += 1;
        active.gauge.increment(1.0);
    }

    fn less(&mut self, resource: &Resource) {
        let active = self.active(resource);
        if active.count > 0 {
            active.count -= 1;
            active.gauge.decrement(1.0);
        }
    }

    fn active(&mut self, resource: &Resource) -> &mut Active {
        let word = type_of(resource);
        get_or_insert(&mut self.active, word, || {
            let gauge = gauge!("resource_locks_active", "resource_type" => word.to_owned());
            Active { gauge, count: 0 }
        })
    }
}

/// Copies the name only when it is new.
fn get_or_insert<'a, T>(
    map: &'a mut HashMap<Box<str>, T>,
    name: &str,
    make: impl FnOnce() -> T,
) -> &'a mut T {
    if !map.contains_key(name) {
        map.insert(name.into(), make());
    }
    match map.get_mut(name) {
        Some(found) => found,
        None => unreachable!("inserted just now"),
    }
}

impl Drop for ProjectMeter {
    /// The next reign counts what it finds.
    fn drop(&mut self) {
        for active in self.active.values() {
            active.gauge.decrement(active.count as f64);
        }
        if let Some(depth) = &self.depth {
            depth.decrement(self.waiting as f64);
        }
    }
}

fn type_of(resource: &Resource) -> &str {
    resource.as_str().split_once(':').map_or("", |(word, _)| word)
}

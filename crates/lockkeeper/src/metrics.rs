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
    agents: Mutex<HashSet<Arc<str>, RandomState>>,
}

/// What all agents count as that have no series of their own.
const OTHERS: &str = "other";

impl Meter {
    pub(crate) fn new(config: Metrics) -> Arc<Meter> {
        Arc::new(Meter { config, agents: Mutex::default() })
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

    /// The label of an agent: its name, unless there are too many of them; none, if nobody's name
    /// is one.
    fn label<'a>(&self, agent: &'a str) -> &'a str {
        if !self.config.agent_label {
            return "";
        }
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if agents.contains(agent) {
            return agent;
        }
        if agents.len() >= self.config.agents_max {
            return OTHERS;
        }
        agents.insert(agent.into());
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

/// What this project counts of one type of resource.
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
        let label = self.meter.label(agent);
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

    /// Where the type of a resource is in the list; it joins it, if it is new.
    fn type_at(&mut self, resource: &Resource) -> usize {
        let word = type_of(resource);
        if let Some(&at) = self.by_word.get(word) {
            return at;
        }
        self.by_word.insert(word.into(), self.types.len());
        self.types.push(OfType { word: word.into(), series: ByName::default(), active: None });
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

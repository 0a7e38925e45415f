//! What is counted, under which names, with which labels and buckets. The recorder of metrics is
//! one for the whole process, so these tests have a process of their own, and each of them
//! resources of a type of its own.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use lockkeeper::{
    AcquireError, Config, Heard, LockManager, Metrics, Prometheus, Resource, ResourceType,
};
use std::{
    collections::BTreeMap,
    future::IntoFuture,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

static PAGE: OnceLock<Prometheus> = OnceLock::new();
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The page, and the right to be the only one who counts.
fn page() -> (&'static Prometheus, MutexGuard<'static, ()>) {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    (PAGE.get_or_init(|| Prometheus::install().unwrap()), turn)
}

/// The series of a name: labels and value.
fn series(page: &str, name: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap_or(labels);
            (found == name).then(|| (labels.to_owned(), value.parse().unwrap()))
        })
        .collect()
}

/// The sum over all series of a name that carry this label.
fn sum(page: &str, name: &str, label: &str) -> f64 {
    series(page, name).iter().filter(|(labels, _)| labels.contains(label)).map(|(_, n)| n).sum()
}

fn typed(word: &str, key: &str) -> Resource {
    Resource::new(ResourceType::from(word), key)
}

fn runtime(paused: bool) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(paused).build().unwrap()
}

async fn settle(project: &lockkeeper::Project) {
    for _ in 0..4 {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        project.stats().await.unwrap();
    }
}

/// Names, labels and buckets, as they are promised.
#[test]
fn names_labels_and_buckets() {
    let (prometheus, _turn) = page();
    runtime(true).block_on(async {
        let manager = LockManager::in_memory(Config::in_memory());
        let demo = manager.project("names").await.unwrap();
        let (a, b) = (demo.session("na").await.unwrap(), demo.session("nb").await.unwrap());
        let x = typed("names", "x");
        let guard = a.acquire(x.clone()).lease(Duration::from_secs(7)).await.unwrap();
        b.acquire(x.clone()).no_wait().await.unwrap_err();
        let waiting = b.acquire(x.clone()).wait(Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(waiting.code(), "timed_out");
        let text = prometheus.render();
        assert_eq!(sum(&text, "resource_locks_active", "\"names\""), 1.0);
        let granted = tokio::spawn(b.acquire(x.clone()).into_future());
        settle(&demo).await;
        assert_eq!(sum(&prometheus.render(), "resource_lock_queue_depth", ""), 1.0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        guard.release().await.unwrap();
        granted.await.unwrap().unwrap().release().await.unwrap();
        let expired = a.acquire(x.clone()).lease(Duration::from_secs(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!expired.is_valid());
        drop(a.acquire(x.clone()).await.unwrap());
        let _forced = a.acquire(x.clone()).await.unwrap();
        demo.force_unlock(x.clone(), "admin", "test").await.unwrap();
        let (one, two) = (typed("names", "1"), typed("names", "2"));
        let _one = a.acquire(one.clone()).await.unwrap();
        let _two = b.acquire(two.clone()).await.unwrap();
        let crossing = tokio::spawn(a.acquire(two).into_future());
        settle(&demo).await;
        b.acquire(one).await.unwrap_err();
        drop(crossing.await.unwrap());
        settle(&demo).await;
    });
    let text = prometheus.render();
    let labelled = |name: &str, agent: &str| {
        let found = series(&text, name);
        let labels = format!("resource_type=\"names\",agent_id=\"{agent}\"");
        *found.get(&labels).unwrap_or_else(|| panic!("{name}{{{labels}}} is not in {found:?}"))
    };
    assert_eq!(labelled("resource_lock_acquisitions_total", "na"), 6.0);
    assert_eq!(labelled("resource_lock_acquisitions_total", "nb"), 2.0);
    assert_eq!(labelled("resource_lock_timeouts_total", "nb"), 1.0);
    // Refused at once, waited in vain, waited, lost a deadlock; the other one waited in it.
    assert_eq!(labelled("resource_lock_contentions_total", "nb"), 4.0);
    assert_eq!(labelled("resource_lock_contentions_total", "na"), 1.0);
    assert!(labelled("resource_lock_releases_total", "na") >= 2.0);
    assert_eq!(labelled("resource_lock_wait_time_seconds_count", "nb"), 2.0);
    assert_eq!(labelled("resource_lock_wait_time_seconds_sum", "nb"), 1.0);
    let buckets = series(&text, "resource_lock_wait_time_seconds_bucket");
    let bounds = ["0.01", "0.05", "0.1", "0.5", "1", "2.5", "5", "10", "30", "60", "+Inf"];
    let of_nb: Vec<&String> =
        buckets.keys().filter(|labels| labels.contains("agent_id=\"nb\"")).collect();
    assert_eq!(of_nb.len(), bounds.len(), "{of_nb:?}");
    for bound in bounds {
        assert!(of_nb.iter().any(|labels| labels.contains(&format!("le=\"{bound}\""))), "{bound}");
    }
    assert_eq!(sum(&text, "resource_lock_deadlocks_total", "resource_type=\"names\""), 1.0);
    assert!(sum(&text, "resource_lock_revocations_total", "") >= 2.0);
    assert!(sum(&text, "resource_lock_expirations_total", "") >= 1.0);
    assert_eq!(sum(&text, "resource_locks_active", "\"names\""), 0.0);
    assert_eq!(sum(&text, "resource_lock_queue_depth", ""), 0.0);
    for kind in ["counter", "gauge", "histogram"] {
        assert!(text.contains(&format!(" {kind}\n")), "no {kind}");
    }
    assert!(Prometheus::install().is_err(), "there is one recorder");
}

/// How long commits take, and how many turns are in them.
#[test]
fn commits_are_counted() {
    let (prometheus, _turn) = page();
    let before = sum(&prometheus.render(), "resource_lock_journal_commit_seconds_count", "");
    runtime(false).block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let manager = LockManager::open(dir.path().join("locks.db")).await.unwrap();
        let session = manager.session("commits", "a").await.unwrap();
        for _ in 0..10 {
            let guard = session.acquire(typed("commits", "x")).await.unwrap();
            guard.release().await.unwrap();
        }
        manager.shutdown().await;
    });
    let text = prometheus.render();
    let commits = sum(&text, "resource_lock_journal_commit_seconds_count", "") - before;
    assert!(commits >= 20.0, "{commits}");
    let sizes = sum(&text, "resource_lock_journal_batch_size_sum", "");
    assert!(sizes >= commits, "{sizes} turns in {commits} commits");
    assert!(text.contains("resource_lock_journal_batch_size_bucket{le=\"4096\"}"));
}

/// Only so many agents have series of their own; the rest are `other`.
#[test]
fn the_number_of_agents_is_capped() {
    let (prometheus, _turn) = page();
    runtime(true).block_on(async {
        let metrics = Metrics { agents_max: 3, ..Metrics::default() };
        let manager = LockManager::in_memory(Config { metrics, ..Config::in_memory() });
        for n in 0..10 {
            let session = manager.session("capped", &format!("cap-{n}")).await.unwrap();
            drop(session.acquire(typed("capped", "x")).await.unwrap());
        }
    });
    let text = prometheus.render();
    let found = series(&text, "resource_lock_acquisitions_total");
    let found: BTreeMap<_, _> =
        found.iter().filter(|(labels, _)| labels.contains("\"capped\"")).collect();
    assert_eq!(found.len(), 4, "{found:?}");
    let other = found.iter().find(|(labels, _)| labels.contains("agent_id=\"other\""));
    assert_eq!(*other.unwrap().1, &7.0);
}

/// So it is with types of resources, and what is held of the others is counted as such.
#[test]
fn the_number_of_types_is_capped() {
    let (prometheus, _turn) = page();
    runtime(true).block_on(async {
        let metrics = Metrics { types_max: 2, ..Metrics::default() };
        let manager = LockManager::in_memory(Config { metrics, ..Config::in_memory() });
        let session = manager.session("types", "typist").await.unwrap();
        let before = sum(&prometheus.render(), "resource_locks_active", "\"other\"");
        let mut held = Vec::new();
        for n in 0..10 {
            let guard = session.acquire(typed(&format!("capped{n}"), "x")).await.unwrap();
            held.push(guard);
        }
        let other = session.acquire(typed("capped9", "y")).await.unwrap();
        let active = |label: &str| sum(&prometheus.render(), "resource_locks_active", label);
        assert_eq!(active("\"capped0\"") + active("\"capped1\""), 2.0);
        assert_eq!(active("\"other\"") - before, 9.0);
        other.release().await.unwrap();
        for guard in held {
            guard.release().await.unwrap();
        }
        assert_eq!(active("\"other\"") - before, 0.0);
        assert_eq!(active("\"capped0\""), 0.0);
    });
    let text = prometheus.render();
    let found = series(&text, "resource_lock_acquisitions_total");
    let of_typist = found.iter().filter(|(labels, _)| labels.contains("\"typist\""));
    let of_typist: BTreeMap<_, _> = of_typist.collect();
    assert_eq!(of_typist.len(), 3, "{of_typist:?}");
    let other = of_typist.iter().find(|(labels, _)| labels.contains("resource_type=\"other\""));
    assert_eq!(*other.unwrap().1, &9.0);
    assert!(!text.contains("capped2"), "a type too many has a series");
}

/// The agent's label can be left out, and so can everything.
#[test]
fn switched_off() {
    let (prometheus, _turn) = page();
    runtime(true).block_on(async {
        let metrics = Metrics { agent_label: false, ..Metrics::default() };
        let manager = LockManager::in_memory(Config { metrics, ..Config::in_memory() });
        let session = manager.session("unlabelled", "secret-name").await.unwrap();
        drop(session.acquire(typed("unlabelled", "x")).await.unwrap());
        let metrics = Metrics { enabled: false, ..Metrics::default() };
        let manager = LockManager::in_memory(Config { metrics, ..Config::in_memory() });
        let session = manager.session("silent", "a").await.unwrap();
        drop(session.acquire(typed("silent", "x")).await.unwrap());
    });
    let text = prometheus.render();
    assert!(!text.contains("secret-name") && !text.contains("silent"));
    let found = series(&text, "resource_lock_acquisitions_total");
    assert_eq!(found.get("resource_type=\"unlabelled\""), Some(&1.0));
}

/// After a random workload the counts are the counts of the events, and nothing is active.
#[test]
fn counts_equal_events() {
    let (prometheus, _turn) = page();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let text = prometheus.render();
    let global = ["expirations", "revocations"]
        .map(|word| sum(&text, &format!("resource_lock_{word}_total"), ""));
    let counted = runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks.db");
        let config = Config { events_capacity: 1 << 16, ..Config::at(&path) };
        let manager = LockManager::open_with(config).await.unwrap();
        let mut events = manager.subscribe();
        let mut tasks = Vec::new();
        for n in 0..16_u64 {
            let session = manager.session("counts", &format!("count-{n}")).await.unwrap();
            tasks.push(tokio::spawn(work(session, n)));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let project = manager.project("counts").await.unwrap();
        let forced = manager.session("counts", "forced").await.unwrap();
        let _guard = forced.acquire(typed("counts", "forced")).await.unwrap();
        project.force_unlock(typed("counts", "forced"), "admin", "test").await.unwrap();
        drop(forced);
        while project.stats().await.unwrap().holds > 0 {
            tokio::task::yield_now().await;
        }
        let mut counted: BTreeMap<String, f64> = BTreeMap::new();
        settle(&project).await;
        while let Some(Heard::Event(event)) = events.try_next() {
            let json = serde_json::to_value(&*event).unwrap();
            *counted.entry(json["event"].as_str().unwrap().to_owned()).or_default() += 1.0;
        }
        manager.shutdown().await;
        counted
    });
    let text = prometheus.render();
    let count = |word: &str| counted.get(word).copied().unwrap_or_default();
    let total = |word: &str| sum(&text, &format!("resource_lock_{word}_total"), "\"counts\"");
    assert!(count("resource.locked") > 300.0, "{counted:?}");
    assert_eq!(total("acquisitions"), count("resource.locked"));
    assert_eq!(total("releases"), count("resource.unlocked"));
    assert_eq!(total("deadlocks"), count("deadlock.detected"));
    assert!(total("contentions") >= count("resource.waiting"));
    let waits = sum(&text, "resource_lock_wait_time_seconds_count", "\"counts\"");
    assert_eq!(waits, count("resource.locked"));
    for (at, event) in ["resource.expired", "resource.revoked"].into_iter().enumerate() {
        let word = ["expirations", "revocations"][at];
        let more = sum(&text, &format!("resource_lock_{word}_total"), "") - global[at];
        assert_eq!(more, count(event), "{word}");
    }
    assert_eq!(sum(&text, "resource_locks_active", "\"counts\""), 0.0);
    assert_eq!(sum(&text, "resource_lock_queue_depth", ""), 0.0);
}

async fn work(session: lockkeeper::Session, seed: u64) {
    for round in 0..30_u64 {
        let dice = (seed * 31 + round * 17) % 7;
        let key = format!("{}", (seed + round) % 4);
        let ask = session.acquire(typed("counts", &key));
        let guard = match dice {
            0 => ask.no_wait().await,
            1 => ask.shared().await,
            _ => ask.await,
        };
        match guard {
            Ok(guard) => {
                if dice == 3 {
                    let other = format!("{}", (seed + round + 1) % 4);
                    let second = session.acquire(typed("counts", &other)).await;
                    tokio::task::yield_now().await;
                    drop(second);
                }
                drop(guard);
            }
            Err(AcquireError::Busy { .. } | AcquireError::Deadlock(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// What is active is counted once, also when the actor begins anew.
#[test]
fn a_restart_counts_nothing_twice() {
    let (prometheus, _turn) = page();
    runtime(false).block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let manager = LockManager::open(dir.path().join("locks.db")).await.unwrap();
        let project = manager.project("restart").await.unwrap();
        let (a, b) = (project.session("a").await.unwrap(), project.session("b").await.unwrap());
        let guard = a.acquire(typed("restart", "x")).await.unwrap();
        let waiting = tokio::spawn(b.acquire(typed("restart", "x")).into_future());
        for _ in 0..3 {
            while project.queue(typed("restart", "x")).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            settle(&project).await;
            let text = prometheus.render();
            assert_eq!(sum(&text, "resource_locks_active", "\"restart\""), 1.0);
            assert_eq!(sum(&text, "resource_lock_queue_depth", ""), 1.0);
            project.actor().unwrap().kill();
            // Whoever asks now is asked again to the next life.
            settle(&project).await;
        }
        drop(guard);
        drop(waiting.await.unwrap().unwrap());
        drop((a, b));
        settle(&project).await;
        manager.shutdown().await;
    });
    let text = prometheus.render();
    assert_eq!(sum(&text, "resource_locks_active", "\"restart\""), 0.0);
    assert_eq!(sum(&text, "resource_lock_queue_depth", ""), 0.0);
    assert_eq!(sum(&text, "resource_lock_acquisitions_total", "\"restart\""), 2.0);
}

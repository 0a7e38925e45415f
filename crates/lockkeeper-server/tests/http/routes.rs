//! What is asked, and what it is answered with.

use crate::live::{Live, local, until};
use lockkeeper::{
    Config, LockManager, Record, StoreError,
    store::{Batch, Claim, OpenOptions, PruneBefore, Reader, SqliteStore, Store},
};
use lockkeeper_server::ServerConfig;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

#[tokio::test]
async fn a_lock_is_taken_seen_and_given_back() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let session = client.open("demo", "coder").await;
    let ask = json!({"project": "demo", "session": session, "resource": "file:a", "reason": "x"});
    let granted = client.call("acquire", ask).await;
    let lock = granted["granted"][0]["lock"].clone();
    let locks = client.get("/v1/projects/demo/locks").await.json();
    assert_eq!(locks[0]["agent"], "coder");
    assert_eq!(locks[0]["lock"], lock);
    let back = json!({"project": "demo", "session": session, "lock": lock});
    let released = client.call("release", back).await;
    assert_eq!(released, json!({"released": {"lock": lock, "remaining": 0}}));
    assert_eq!(client.get("/v1/projects/demo/locks").await.json(), json!([]));
    live.stop().await;
}

#[tokio::test]
async fn a_projects_name_may_have_slashes() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let session = client.open("/home/me/my repo", "coder").await;
    let ask = json!({"project": "/home/me/my repo", "session": session, "resource": "git:index"});
    client.call("acquire", ask.clone()).await;
    let other = client.open("/home/me/my repo", "other").await;
    let mut waits = ask;
    (waits["session"], waits["slice_ms"]) = (json!(other), json!(0));
    client.call("acquire", waits).await;
    let mut view = async |view: &str| {
        let reply = client.get(&format!("/v1/projects/%2Fhome%2Fme%2Fmy%20repo/{view}")).await;
        assert_eq!(reply.status, 200, "{view}: {reply:?}");
        reply.json()
    };
    assert_eq!(view("locks").await[0]["resource"], "git:index");
    assert_eq!(view("queue?resource=git%3Aindex").await[0]["agent"], "other");
    assert_eq!(view("graph").await["edges"].as_array().unwrap().len(), 1);
    assert_eq!(view("contention").await[0]["waiting"], 1);
    assert_eq!(view("sessions").await.as_array().unwrap().len(), 2);
    assert_eq!(view("stats").await["holds"], 1);
    assert_eq!(view("tasks").await, json!([]));
    let audit = view("audit?event_type=lock_granted&limit=1&oldest_first=true").await;
    assert_eq!(audit.as_array().unwrap().len(), 1);
    assert_eq!(audit[0]["resource"], "git:index");
    let later = audit[0]["id"].as_u64().unwrap();
    let audit = view(&format!("audit?event_type=lock_granted&after_id={later}")).await;
    assert_eq!(audit, json!([]));
    assert_eq!(client.get("/v1/projects").await.json(), json!(["/home/me/my repo"]));
    assert_eq!(client.call("projects", json!({})).await, json!(["/home/me/my repo"]));
    live.stop().await;
}

#[tokio::test]
async fn to_look_at_what_is_not_there_does_not_make_it() {
    let live = Live::start().await;
    let mut client = live.client().await;
    assert_eq!(client.get("/v1/projects/nowhere/locks").await.json(), json!([]));
    assert_eq!(client.get("/v1/projects").await.json(), json!([]));
    live.stop().await;
}

/// A request: verb, path and body. And its answer: status, stable word, a piece of what is said.
type Case<'a> = (&'a str, &'a str, Option<&'a str>, u16, &'a str, &'a str);

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let session = client.open("p", "a").await;
    let ask = |more: Value| {
        let mut ask = json!({"project": "p", "session": session});
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask.to_string()
    };
    let unknown = ask(json!({"resource": "file:a", "waitms": 1}));
    let no_resource = ask(json!({"resource": "src/a.rs"}));
    let no_type = ask(json!({"resource": "File:a"}));
    let too_long = ask(json!({"resource": format!("file:{}", "x".repeat(100_000))}));
    let no_members = ask(json!({"wants": []}));
    let no_ticket = ask(json!({"ticket": 99}));
    let attached = r#"{"project":"p","agent":"a"}"#;
    let cases: &[Case<'_>] = &[
        ("POST", "/v1/acquire", Some(&unknown), 400, "invalid_params", "`waitms`"),
        ("POST", "/v1/acquire", Some(&no_resource), 400, "invalid_params", "type:key"),
        ("POST", "/v1/acquire", Some(&no_type), 400, "invalid_params", "lower-case"),
        ("POST", "/v1/acquire", Some(&too_long), 400, "invalid_resource", "100000"),
        ("POST", "/v1/acquire_all", Some(&no_members), 400, "empty_batch", "no resource"),
        ("POST", "/v1/wait", Some(&no_ticket), 404, "unknown", "99"),
        ("POST", "/v1/acquire", Some(""), 400, "invalid_params", "project"),
        ("POST", "/v1/acquire", Some("[1]"), 400, "invalid_params", "object"),
        ("POST", "/v1/acquire", Some("{\"project\""), 400, "parse", "JSON"),
        ("POST", "/v1/acquire", Some("\u{7}"), 400, "parse", "JSON"),
        ("POST", "/v1/session.open", Some(attached), 400, "invalid_params", "detached"),
        ("POST", "/v1/session.attach", Some("{}"), 404, "no_method", "HTTP"),
        ("POST", "/v1/subscribe", Some("{}"), 404, "no_method", "/v1/events"),
        ("POST", "/v1/unsubscribe", Some("{}"), 404, "no_method", "stream"),
        ("POST", "/v1/steal", Some("{}"), 404, "no_method", "steal"),
        ("POST", "/v1/resume", Some("{}"), 404, "no_method", "resume"),
        ("POST", "/v1/", Some("{}"), 404, "no_method", "openapi"),
        ("POST", "/v1/acquire/it", Some("{}"), 404, "no_method", "openapi"),
        ("POST", "/v1/events", Some("{}"), 405, "not_allowed", "GET"),
        ("GET", "/v1/acquire", None, 405, "not_allowed", "POST"),
        ("DELETE", "/v1/acquire", None, 405, "not_allowed", "POST"),
        ("GET", "/", None, 404, "no_method", "openapi"),
        ("GET", "/v1/projects/p/secrets", None, 404, "no_method", "locks"),
        ("GET", "/v1/projects/p/queue", None, 400, "invalid_params", "resource"),
        ("GET", "/v1/projects/p/queue?resorce=file:a", None, 400, "invalid_params", "resorce"),
        ("GET", "/v1/projects/p/locks?all=1", None, 400, "invalid_params", "all"),
        ("GET", "/v1/projects/p/audit?limit=many", None, 400, "invalid_params", "limit"),
        ("GET", "/v1/projects/p/audit?limit=1&limit=2", None, 400, "invalid_params", "twice"),
        ("GET", "/v1/projects/p/audit?oldest_first=si", None, 400, "invalid_params", "true"),
        ("GET", "/v1/projects?p=1", None, 400, "invalid_params", "p"),
    ];
    for (verb, path, body, status, word, said) in cases {
        let reply = client.ask(verb, path, *body).await;
        assert_eq!((reply.status, reply.word().as_str()), (*status, *word), "{path} {reply:?}");
        let error = &reply.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(said), "{path} {body:?}: {error}");
        assert_eq!(error["data"]["retryable"], false, "{path}: {error}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{path}");
        assert_eq!(reply.header("retry-after"), None, "{path}");
    }
    live.stop().await;
}

#[tokio::test]
async fn a_refusal_is_a_conflict_and_says_who_stands_in_the_way() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let (one, two) = (client.open("p", "one").await, client.open("p", "two").await);
    let ask = |session: u64, resource: &str, wait: u64| {
        let who = json!(session);
        json!({"project": "p", "session": who, "resource": resource, "wait_ms": wait})
    };
    let held = client.call("acquire", ask(one, "file:a", 0)).await["granted"][0].clone();
    client.call("acquire", ask(two, "file:b", 0)).await;
    for (wait, word) in [(0, "busy"), (5, "timed_out")] {
        let reply = client.post("acquire", ask(two, "file:a", wait)).await;
        assert_eq!((reply.status, reply.word().as_str()), (409, word), "{reply:?}");
        let refusal = &reply.json()["error"]["data"]["refusal"][word];
        assert_eq!(refusal["obstacles"][0]["holders"][0]["agent"], "one");
    }
    let mut queued = ask(one, "file:b", 60_000);
    queued["slice_ms"] = json!(0);
    client.call("acquire", queued).await;
    let reply = client.post("acquire", ask(two, "file:a", 60_000)).await;
    assert_eq!((reply.status, reply.word().as_str()), (409, "deadlock"), "{reply:?}");
    let theirs = json!({"project": "p", "session": two, "lock": held["lock"]});
    let reply = client.post("release", theirs).await;
    assert_eq!((reply.status, reply.word().as_str()), (409, "not_holder"), "{reply:?}");
    client.call("session.close", json!({"project": "p", "session": one})).await;
    let reply = client.post("acquire", ask(one, "file:c", 0)).await;
    assert_eq!((reply.status, reply.word().as_str()), (409, "session_ended"), "{reply:?}");
    live.stop().await;
}

#[tokio::test]
async fn a_bound_of_the_table_is_429() {
    let live = Live::with(|config, _, _| config.table.limits.sessions_max = 1).await;
    let mut client = live.client().await;
    let one = client.open("p", "one").await;
    let two = json!({"project": "p", "agent": "two", "kind": "detached"});
    let reply = client.post("session.open", two).await;
    assert_eq!((reply.status, reply.word().as_str()), (429, "limit_reached"), "{reply:?}");
    assert_eq!(reply.header("retry-after"), Some("1"));
    let long = json!({"project": "p", "agent": "x".repeat(100_000), "kind": "detached"});
    client.call("session.close", json!({"project": "p", "session": one})).await;
    let reply = client.post("session.open", long).await;
    assert_eq!((reply.status, reply.word().as_str()), (400, "limit_reached"), "{reply:?}");
    live.stop().await;
}

#[tokio::test]
async fn pages_for_machines() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let reply = client.get("/metrics").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "resource_locks_active 0\n"));
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let reply = client.get("/healthz").await;
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("ok")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let reply = client.call("daemon.status", json!({})).await;
    assert_eq!(reply["listens"], json!([format!("http {}", live.addr)]));
    assert_eq!(reply["connections"], 1);
    live.stop().await;
}

#[tokio::test]
async fn without_metrics_there_is_no_page() {
    let live = Live::with(|_, server, _| server.metrics = None).await;
    let reply = live.client().await.get("/metrics").await;
    assert_eq!((reply.status, reply.word().as_str()), (404, "no_metrics"));
    live.stop().await;
}

#[tokio::test]
async fn whoever_waits_when_it_stops_is_told_to_come_back() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let (one, two) = (client.open("p", "one").await, client.open("p", "two").await);
    let ask = |session: u64| json!({"project": "p", "session": session, "resource": "file:a"});
    client.call("acquire", ask(one)).await;
    let mut waiter = live.client().await;
    waiter.send("POST", "/v1/acquire", Some(&ask(two).to_string())).await;
    until(&mut client, "/v1/projects/p/queue?resource=file:a", |queue| {
        queue.as_array().is_some_and(|queue| queue.len() == 1)
    })
    .await;
    let status = client.call("daemon.stop", json!({})).await;
    assert_eq!((&status["holds"], &status["waits"]), (&json!(1), &json!(1)));
    let reply = waiter.reply().await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.json()["error"]["data"]["retryable"], true);
    assert_eq!(reply.header("retry-after"), Some("1"));
    waiter.end().await;
    client.end().await;
    live.stopped().await;
}

/// A store that can be broken.
struct Fragile {
    store: SqliteStore,
    is_broken: Arc<AtomicBool>,
}

impl Fragile {
    fn whole(&self) -> Result<(), StoreError> {
        match self.is_broken.load(Ordering::SeqCst) {
            true => Err(StoreError::Full { path: "made-up".into() }),
            false => Ok(()),
        }
    }
}

impl Store for Fragile {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        self.whole().and_then(|()| self.store.claim(project))
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.store.projects()
    }

    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError> {
        self.store.load(claim)
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        match self.whole() {
            Ok(()) => self.store.commit(batches),
            Err(error) => batches.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn prune(&mut self, before: &PruneBefore, at_most: usize) -> Result<usize, StoreError> {
        self.store.prune(before, at_most)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_503_and_health_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let is_broken = Arc::new(AtomicBool::new(false));
    let store = SqliteStore::open(folder.path().join("locks.db"), OpenOptions::default()).unwrap();
    let store = Fragile { store, is_broken: is_broken.clone() };
    let config = Config { attached_outlive: true, ..Config::default() };
    let manager = LockManager::over(Box::new(store), config).unwrap();
    let live = Live::over(manager, ServerConfig::default(), local(), folder).await;
    let mut client = live.client().await;
    let session = client.open("p", "a").await;
    let ask = json!({"project": "p", "session": session, "resource": "file:a"});
    is_broken.store(true, Ordering::SeqCst);
    let reply = client.post("acquire", ask.clone()).await;
    assert_eq!((reply.status, reply.word().as_str()), (503, "store"), "{reply:?}");
    assert_eq!(reply.header("retry-after"), Some("1"));
    let health = client.get("/healthz").await;
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("unavailable")));
    is_broken.store(false, Ordering::SeqCst);
    until(&mut client, "/healthz", |health| health["status"] == "ok").await;
    client.call("acquire", ask).await;
    live.stop().await;
}

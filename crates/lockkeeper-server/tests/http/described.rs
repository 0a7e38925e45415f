//! The description of the methods, held against what the server takes and says.

use crate::{
    client::{Client, Reply},
    live::Live,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The document, and what was seen of each operation.
struct Description {
    document: Value,
    seen: BTreeMap<String, BTreeSet<u16>>,
}

/// Methods that need a connection that stays.
const BOUND: [&str; 3] = ["session.attach", "subscribe", "unsubscribe"];

impl Description {
    async fn of(client: &mut Client) -> Description {
        let reply = client.get("/openapi.json").await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        Description { document: reply.json(), seen: BTreeMap::new() }
    }

    /// Whether a value is what a schema of the document says.
    fn check(&self, schema: &Value, value: &Value, of: &str) {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(value).map(|problem| problem.to_string()).collect();
        assert!(problems.is_empty(), "{of}: {value}\n{}", problems.join("\n"));
    }

    fn accepts(&self, schema: &Value, value: &Value) -> bool {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        jsonschema::draft202012::new(&schema).unwrap().is_valid(value)
    }

    fn operation(&self, verb: &str, path: &str) -> &Value {
        let found = &self.document["paths"][path][verb];
        assert!(found.is_object(), "{verb} {path} is not described");
        found
    }

    fn answered(&mut self, verb: &str, path: &str, reply: &Reply) {
        let status = reply.status.to_string();
        let operation = self.operation(verb, path);
        let mut response = &operation["responses"][&status];
        if let Some(name) = response["$ref"].as_str() {
            response = self.document.pointer(name.strip_prefix('#').unwrap()).unwrap();
        }
        let kind = reply.header("content-type").unwrap().split(';').next().unwrap();
        let schema = &response["content"][kind]["schema"];
        assert!(schema.is_object(), "{path}: {status} {kind} is not described");
        match kind {
            "application/json" => self.check(schema, &reply.json(), path),
            _ => assert_eq!(schema["type"], "string"),
        }
        self.seen.entry(format!("{verb} {path}")).or_default().insert(reply.status);
    }

    /// Asks, and holds the question and the answer against the description.
    async fn ask(&mut self, client: &mut Client, method: &str, params: Value) -> Value {
        let path = format!("/v1/{method}");
        let body = &self.operation("post", &path)["requestBody"];
        let schema = body["content"]["application/json"]["schema"].clone();
        let reply = client.post(method, params.clone()).await;
        if reply.status != 400 {
            self.check(&schema, &params, method);
        } else if reply.word() == "invalid_params" {
            assert!(!self.accepts(&schema, &params), "{method} is described as taking {params}");
        }
        self.answered("post", &path, &reply);
        reply.json()
    }

    async fn view(&mut self, client: &mut Client, path: &str, described: &str) {
        let reply = client.get(path).await;
        self.answered("get", described, &reply);
    }
}

#[tokio::test]
async fn exactly_the_methods_that_exist_are_described() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let description = Description::of(&mut client).await;
    let document = &description.document;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let posts = paths.iter().filter(|(_, item)| item["post"].is_object());
    let described: BTreeSet<&str> =
        posts.map(|(path, _)| path.strip_prefix("/v1/").unwrap()).collect();
    let exist: BTreeSet<&str> =
        lockkeeper_server::methods().filter(|method| !BOUND.contains(method)).collect();
    assert_eq!(described, exist);
    // Every name that is referred to is there, and every shape is referred to.
    let text = document.to_string();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let by_name = format!("\"#/components/schemas/{name}\"");
        // What travels as events is described in words.
        assert!(text.contains(&by_name) || matches!(&**name, "Event" | "Missed"), "{name}");
        description.accepts(schema, &json!(null));
    }
    let mut ids = BTreeSet::new();
    for (path, item) in paths {
        for (verb, operation) in item.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].to_string()), "{verb} {path}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{verb} {path}");
            let named = path.matches('{').count();
            let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            assert_eq!(in_path.count(), named, "{verb} {path}");
        }
    }
    live.stop().await;
}

#[tokio::test]
async fn what_is_said_is_what_is_described() {
    let live = Live::start().await;
    let client = &mut live.client().await;
    let d = &mut Description::of(client).await;
    let p = |more: Value| {
        let mut params = json!({"project": "p"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let id = |answer: &Value| answer["session_opened"]["session"].clone();
    let lock = |answer: &Value| answer["granted"][0]["lock"].clone();

    d.ask(client, "hello", json!({"client": "a test"})).await;
    d.ask(client, "ping", json!({})).await;
    d.ask(client, "session.open", p(json!({"agent": "one"}))).await;
    let one = p(json!({"agent": "one", "kind": "detached", "reuse": true, "priority": 1}));
    let one = id(&d.ask(client, "session.open", one).await);
    let two = p(json!({"agent": "two", "kind": "detached", "lineage": null}));
    let two = id(&d.ask(client, "session.open", two).await);
    let three = p(json!({"agent": "three", "kind": "detached"}));
    let three = id(&d.ask(client, "session.open", three).await);

    // Held, refused, queued, waited for, cancelled, released.
    let a = p(json!({
        "session": one, "resource": "file:a", "reason": "to test", "metadata": "{}",
        "priority": -1, "reentrant": true, "request_id": "a1", "lease_ms": 60_000, "wait_ms": 5,
    }));
    let held = d.ask(client, "acquire", a.clone()).await;
    let (held, token) = (lock(&held), held["granted"][0]["token"].clone());
    let mut other = a.clone();
    other["resource"] = json!("file:other");
    d.ask(client, "acquire", other).await; // the request id is used
    for wait in [0, 1] {
        let a = p(json!({"session": two, "resource": "file:a", "wait_ms": wait}));
        d.ask(client, "acquire", a).await;
    }
    d.ask(client, "acquire", p(json!({"session": two, "resource": "nonsense"}))).await;
    d.ask(client, "acquire", p(json!({"session": two, "resource": "No:type"}))).await;
    d.ask(client, "acquire", p(json!({"session": two, "resource": "file:a", "unknown": 1}))).await;
    d.ask(client, "acquire", p(json!({"resource": "file:a"}))).await;
    let long = p(json!({"session": two, "resource": format!("file:{}", "x".repeat(100_000))}));
    d.ask(client, "acquire", long).await;
    let permit = json!({"permit": 1});
    let a = p(json!({"session": two, "resource": "file:a", "mode": permit}));
    d.ask(client, "acquire", a).await; // no capacity
    let a = p(json!({"session": one, "resource": "file:a", "wait_ms": 0}));
    d.ask(client, "acquire", a).await; // already held
    let a = p(json!({"session": two, "resource": "file:a", "slice_ms": 0}));
    let queued = d.ask(client, "acquire", a.clone()).await["queued"]["ticket"].clone();
    d.ask(client, "acquire", a).await; // already waiting
    let wait = p(json!({"session": two, "ticket": queued, "slice_ms": 1}));
    d.ask(client, "wait", wait.clone()).await;
    for question in ["inspect", "queue"] {
        d.ask(client, question, p(json!({"resource": "file:a"}))).await;
    }
    d.ask(client, "inspect", p(json!({"resource": "file:nothing"}))).await;
    d.ask(client, "graph", p(json!({}))).await;
    d.ask(client, "contention", p(json!({}))).await;
    d.ask(client, "release", p(json!({"session": two, "lock": held}))).await; // not its
    d.ask(client, "release", p(json!({"token": 7, "lock": held}))).await; // stale
    d.ask(client, "release", p(json!({"token": token, "session": one, "lock": held}))).await;
    d.ask(client, "renew", p(json!({"session": one, "lock": held, "lease_ms": 90_000}))).await;
    d.ask(client, "release", p(json!({"token": token, "lock": held}))).await;
    d.ask(client, "wait", wait.clone()).await; // granted
    d.ask(client, "wait", p(json!({"session": two, "ticket": 12_345}))).await;
    d.ask(client, "renew", p(json!({"session": one, "lock": held}))).await; // over
    let cancel = p(json!({"session": two, "ticket": queued}));
    d.ask(client, "cancel", cancel).await;
    d.ask(client, "cancel", p(json!({"session": two, "request": "abc"}))).await;

    // Modes.
    let shared = p(json!({"session": one, "resource": "file:m", "mode": "shared"}));
    let shared = lock(&d.ask(client, "acquire", shared).await);
    let upgraded = p(json!({"session": one, "lock": shared, "wait_ms": 0}));
    d.ask(client, "upgrade", upgraded).await;
    let down = p(json!({"session": one, "lock": shared, "mode": "shared"}));
    d.ask(client, "downgrade", down.clone()).await;
    let also = p(json!({"session": two, "resource": "file:m", "mode": "shared"}));
    d.ask(client, "acquire", also).await;
    let sliced = p(json!({"session": one, "lock": shared, "slice_ms": 0}));
    d.ask(client, "upgrade", sliced).await;

    // Several, permits, waits, a deadlock.
    let wants = json!(["file:x", {"resource": "file:y", "mode": "shared"}]);
    let all = p(json!({"session": two, "wants": wants, "wait_ms": 0}));
    d.ask(client, "acquire_all", all).await;
    d.ask(client, "acquire_all", p(json!({"session": two, "wants": []}))).await;
    let slots = p(json!({"resource": "llm:big", "capacity": 2}));
    d.ask(client, "capacity", slots.clone()).await;
    let some = p(json!({"session": two, "resource": "llm:big", "mode": {"permit": 2}}));
    d.ask(client, "acquire", some).await;
    let more = p(json!({"session": two, "resource": "llm:big", "mode": {"permit": 9}}));
    d.ask(client, "acquire", more).await;
    d.ask(client, "capacity", p(json!({"resource": "llm:big", "capacity": null}))).await; // in use
    let waits = p(json!({"session": two, "on": three}));
    d.ask(client, "declare_wait", waits.clone()).await;
    let z = p(json!({"session": three, "resource": "file:z"}));
    d.ask(client, "acquire", z).await;
    d.ask(client, "acquire", p(json!({"session": three, "resource": "file:x"}))).await; // deadlock
    d.ask(client, "sessions", p(json!({}))).await;
    d.ask(client, "withdraw_wait", waits.clone()).await;
    d.ask(client, "withdraw_wait", waits).await;
    d.ask(client, "declare_wait", p(json!({"session": two, "on": 99}))).await;

    // Tasks.
    let claims = json!([{"task": "task:1"}, {"task": "task:2", "expect_version": 0}]);
    let claimed = p(json!({"session": one, "claims": claims}));
    let claimed = d.ask(client, "task.claim", claimed).await;
    let claim = claimed["tasks_claimed"][0]["grant"]["lock"].clone();
    let taken = json!([{"task": "task:1"}, {"task": "task:3", "expect_version": 5}]);
    d.ask(client, "task.claim", p(json!({"session": two, "claims": taken}))).await;
    let stale = p(json!({"session": one, "lock": claim, "done": true, "expect_version": 77}));
    d.ask(client, "task.finish", stale).await;
    d.ask(client, "task.finish", p(json!({"session": one, "lock": claim, "done": true}))).await;
    let done = json!([{"task": "task:1"}]);
    d.ask(client, "task.claim", p(json!({"session": two, "claims": done}))).await;
    let none = json!([{"task": "file:a"}]);
    d.ask(client, "task.claim", p(json!({"session": two, "claims": none}))).await;
    d.ask(client, "task.reopen", p(json!({"task": "task:1"}))).await;
    d.ask(client, "task.reopen", p(json!({"task": "task:1"}))).await; // wrong status
    d.ask(client, "task.get", p(json!({"task": "task:2"}))).await;
    d.ask(client, "task.get", p(json!({"task": "task:99"}))).await;
    d.ask(client, "task.list", p(json!({}))).await;
    d.ask(client, "task.forget", p(json!({"task": "task:1"}))).await;
    d.ask(client, "task.forget", p(json!({"task": "task:1"}))).await;

    // Looking around, by name and as views.
    for question in ["list", "stats", "last_event"] {
        d.ask(client, question, p(json!({}))).await;
    }
    d.ask(client, "grants", p(json!({"session": two}))).await;
    d.ask(client, "stale", p(json!({"older_than_ms": 0}))).await;
    d.ask(client, "leases", p(json!({"soon_ms": 1000, "long_ms": 1000}))).await;
    d.ask(client, "audit", json!({"project": "p", "limit": 3, "oldest_first": true})).await;
    d.ask(client, "audit", json!({})).await;
    d.ask(client, "projects", json!({})).await;
    d.ask(client, "daemon.status", json!({})).await;
    d.ask(client, "metrics", json!({})).await;
    for view in ["locks", "graph", "contention", "sessions", "tasks", "stats", "audit"] {
        let described = format!("/v1/projects/{{project}}/{view}");
        d.view(client, &format!("/v1/projects/p/{view}"), &described).await;
    }
    let described = "/v1/projects/{project}/queue";
    d.view(client, "/v1/projects/p/queue?resource=file:a", described).await;
    d.view(client, "/v1/projects/p/queue", described).await;
    for page in ["/v1/projects", "/metrics", "/healthz", "/openapi.json", "/v1/events?since=1"] {
        d.view(client, page, page.split('?').next().unwrap()).await;
    }

    // What others did, and the end.
    events(d, &live).await;
    let force = p(json!({"resource": "file:x", "admin": "me", "reason": "to test"}));
    d.ask(client, "force_unlock", force.clone()).await;
    d.ask(client, "force_unlock", force).await;
    d.ask(client, "cleanup_expired", p(json!({}))).await;
    d.ask(client, "release_all", p(json!({"agent": "two"}))).await;
    d.ask(client, "session.close", p(json!({"session": one, "cause": "closed"}))).await;
    d.ask(client, "session.close", p(json!({"session": one}))).await;
    d.ask(client, "daemon.stop", json!({})).await;
    live.stopped().await;

    // Each was asked, and each was answered as it should be at least once.
    for (path, item) in d.document["paths"].as_object().unwrap() {
        for verb in item.as_object().unwrap().keys() {
            let name = format!("{verb} {path}");
            let seen = d.seen.get(&name).cloned().unwrap_or_default();
            assert!(seen.contains(&200) || path == "/v1/events", "{name}: {seen:?}");
        }
    }
}

/// Every event so far is one that is described.
async fn events(d: &mut Description, live: &Live) {
    let mut client = live.client().await;
    let last = client.call("last_event", json!({"project": "p"})).await.as_u64().unwrap();
    client.send("GET", "/v1/events?project=p&since=0", None).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let schema = json!({"$ref": "#/components/schemas/Event"});
    let (mut heard, mut names) = (0, BTreeSet::new());
    while heard < last {
        let chunk = client.chunk().await.unwrap();
        for line in chunk.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let event: Value = serde_json::from_str(line).unwrap();
            d.check(&schema, &event, "an event");
            names.insert(event["event"].as_str().unwrap().to_owned());
            heard += 1;
        }
    }
    assert!(names.contains("resource.waiting") && names.contains("deadlock.detected"), "{names:?}");
}

//! The description of all this for programs: OpenAPI 3.1.
//!
//! The shapes are written by hand in `schemas.json`; what is the same for every method is put
//! around them here. Tests hold it against what the server really takes and says.

use super::call::VIEWS;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const SCHEMAS: &str = include_str!("schemas.json");

/// The methods that can be called over HTTP: name, parameters, answer, what it does.
const METHODS: &[(&str, &str, &str, &str)] = &[
    ("hello", "Hello", "HelloAnswer", "Says who answers"),
    ("ping", "Nothing", "Pong", "Does nothing"),
    ("session.open", "Open", "SessionOpened", "Opens a session"),
    ("session.close", "EndSession", "SessionEnded", "Ends a session and all it holds"),
    ("acquire", "Acquire", "Granted", "Asks for a lock"),
    ("acquire_all", "AcquireAll", "Granted", "Asks for several locks, all or nothing"),
    ("wait", "Wait", "Waited", "Goes on waiting on a ticket"),
    ("cancel", "Cancel", "Cancelled", "Takes a request back"),
    ("release", "Release", "Released", "Gives a lock back"),
    ("renew", "Renew", "Renewed", "Makes a lease longer"),
    ("upgrade", "Upgrade", "Upgraded", "Turns a shared or update hold exclusive"),
    ("downgrade", "Downgrade", "Changed", "Turns a hold into a weaker one"),
    ("declare_wait", "DeclaredWait", "WaitDeclared", "Says that a session waits for another"),
    ("withdraw_wait", "DeclaredWait", "WaitWithdrawn", "Takes that back"),
    ("force_unlock", "ForceUnlock", "ForceUnlocked", "Ends every hold of a resource, by force"),
    ("release_all", "ReleaseAll", "AllReleased", "Releases all that an agent holds"),
    ("capacity", "DeclareCapacity", "CapacityDeclared", "Says how many permits there are"),
    ("cleanup_expired", "OfProject", "Ticked", "Ends every lease that is over"),
    ("task.claim", "ClaimTasks", "TasksClaimed", "Claims tasks, all or nothing"),
    ("task.finish", "FinishTask", "TaskMoved", "Ends a claim: given back, or done"),
    ("task.reopen", "ReopenTask", "TaskMoved", "Opens a task that was done"),
    ("task.forget", "OfTask", "TaskForgotten", "Forgets a task"),
    ("task.get", "OfTask", "TaskOrNull", "Shows a task"),
    ("task.list", "OfProject", "Tasks", "Shows all tasks"),
    ("inspect", "OfResource", "InspectionOrNull", "Shows a resource: its holders, its queue"),
    ("list", "OfProject", "Holders", "Shows all holds"),
    ("queue", "OfResource", "Waiters", "Shows who waits for a resource, the next first"),
    ("sessions", "OfProject", "Sessions", "Shows all open sessions"),
    ("grants", "OfSession", "Grants", "Shows what a session holds, with the tokens"),
    ("graph", "OfProject", "WaitGraph", "Shows who waits for whom"),
    ("contention", "OfProject", "Contention", "Shows the resources people wait for"),
    ("stats", "OfProject", "Stats", "Shows the size of the table"),
    ("stale", "Stale", "Holders", "Shows old holds"),
    ("leases", "Leases", "LeaseCounts", "Shows how the leases stand"),
    ("last_event", "OfProject", "EventNumber", "Shows the number of the last event"),
    ("projects", "Nothing", "Projects", "Shows the names of all projects"),
    ("audit", "AuditFilter", "AuditRows", "Shows the audit log"),
    ("daemon.status", "Nothing", "Status", "Shows how the daemon is"),
    ("daemon.stop", "Nothing", "Status", "Stops the daemon in order, once it has answered"),
    ("metrics", "Nothing", "Page", "Shows the metrics, as JSON text"),
];

/// The statuses of errors.
const ERRORS: &[(&str, &str)] = &[
    ("400", "The request can never succeed: parameters, or a resource that is none."),
    ("401", "The token is missing or wrong."),
    ("403", "The Host or the Origin is a stranger's."),
    ("404", "There is no such method, view, ticket or task."),
    ("405", "Not with this verb."),
    ("408", "The body came too slowly."),
    ("409", "Refused as things are: held, timed out, a deadlock, over, another version."),
    ("413", "The body is too large."),
    ("415", "The content type is not application/json."),
    ("429", "A bound is reached. Retry-After says when it may help to ask again."),
    ("500", "A defect of the daemon."),
    ("503", "No answer: the store cannot be written, no room, or about to stop."),
];

/// The document as it is sent.
pub(crate) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    &TEXT
}

fn document() -> Value {
    let mut paths = Map::new();
    for (method, params, answer, summary) in METHODS {
        let body = json!({ "required": false, "content": is_json(&schema(params)) });
        let post = operation(method, summary, &json!([]), is_json(&schema(answer)));
        add(&mut paths, &format!("/v1/{method}"), "post", with(post, "requestBody", body));
    }
    let names = is_json(&schema("Projects"));
    let projects = operation("view.projects", "The names of all projects", &json!([]), names);
    add(&mut paths, "/v1/projects", "get", projects);
    for (name, method, query) in VIEWS {
        let behind = METHODS.iter().find(|(it, ..)| it == method);
        let (answer, summary) = behind.map_or(("Pong", ""), |(.., answer, what)| (*answer, *what));
        let mut parameters = vec![json!({
            "name": "project", "in": "path", "required": true, "schema": { "type": "string" },
            "description": "The project; a slash in its name is written %2F.",
        })];
        parameters.extend(query.iter().map(|it| query_parameter(it, *name == "queue")));
        let get = operation(
            &format!("view.{name}"),
            summary,
            &Value::from(parameters),
            is_json(&schema(answer)),
        );
        add(&mut paths, &format!("/v1/projects/{{project}}/{name}"), "get", get);
    }
    add(&mut paths, "/v1/events", "get", events());
    let page = json!({ "text/plain": { "schema": { "type": "string" } } });
    let metrics = operation("view.metrics", "The metrics, for Prometheus", &json!([]), page);
    add(&mut paths, "/metrics", "get", metrics);
    let this = is_json(&json!({ "type": "object" }));
    let this = operation("view.openapi", "This description", &json!([]), this);
    add(&mut paths, "/openapi.json", "get", this);
    let health = is_json(&schema("Health"));
    let health = json!({
        "operationId": "view.healthz",
        "summary": "How the daemon is; needs no token",
        "security": [],
        "responses": {
            "200": { "description": "It serves.", "content": health },
            "503": { "description": "Nothing can be decided now.", "content": health },
        },
    });
    add(&mut paths, "/healthz", "get", health);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Lockkeeper",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Locks for fleets of software agents. Each method of the wire is a \
                POST with its parameters as JSON; an empty body is {}. Sessions over HTTP are \
                detached: they live by their leases and by polling their tickets.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": errors(),
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer",
                    "description": "Where the daemon was given one.",
                },
            },
        },
        "security": [{ "token": [] }, {}],
    })
}

fn schemas() -> Value {
    // A test reads it: it is JSON.
    serde_json::from_str(SCHEMAS).unwrap_or_default()
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn is_json(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn operation(id: &str, summary: &str, parameters: &Value, content: Value) -> Value {
    let mut responses = Map::new();
    let done = json!({ "description": "The answer.", "content": content });
    responses.insert("200".to_owned(), done);
    for (status, _) in ERRORS {
        let error = json!({ "$ref": format!("#/components/responses/Error{status}") });
        responses.insert((*status).to_owned(), error);
    }
    json!({
        "operationId": id, "summary": summary, "parameters": parameters, "responses": responses,
    })
}

fn errors() -> Value {
    let error = |(status, description): &(&str, &str)| {
        let mut response =
            json!({ "description": description, "content": is_json(&schema("Error")) });
        if matches!(*status, "429" | "503") {
            response["headers"] = json!({
                "Retry-After": {
                    "description": "Seconds, where asking again may help.",
                    "schema": { "type": "integer" },
                },
            });
        }
        (format!("Error{status}"), response)
    };
    ERRORS.iter().map(error).collect::<Map<String, Value>>().into()
}

fn query_parameter(name: &str, is_needed: bool) -> Value {
    // Each is a field of the audit log's filter, or named as one.
    let schema = schemas()["AuditFilter"]["properties"][name].clone();
    json!({ "name": name, "in": "query", "required": is_needed, "schema": schema })
}

fn events() -> Value {
    let parameters = json!([
        {
            "name": "project", "in": "query", "required": false, "schema": { "type": "string" },
            "description": "Events of one project; all of them otherwise.",
        },
        {
            "name": "since", "in": "query", "required": false,
            "schema": { "type": "integer", "minimum": 0 },
            "description": "Also what happened after the event of this number, of one project.",
        },
        {
            "name": "Last-Event-ID", "in": "header", "required": false,
            "schema": { "type": "integer", "minimum": 0 },
            "description": "The same, as an EventSource that comes back says it. It goes first.",
        },
    ]);
    let stream = json!({
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "event: the event's name, or missed. data: Event, or Missed, as \
                    JSON. id: the event's seq, if the stream is of one project.",
            },
        },
    });
    operation("view.events", "Events as they happen, until the client goes", &parameters, stream)
}

fn with(mut operation: Value, name: &str, value: Value) -> Value {
    operation[name] = value;
    operation
}

fn add(paths: &mut Map<String, Value>, path: &str, verb: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    item[verb] = operation;
}

//! Requests that are methods of the wire, by their own name or as a view.

use super::{
    App,
    answer::{answer, json_response},
    listen::Line,
    problem::Problem,
};
use crate::{dispatch::dispatch, link::Peer};
use axum::{
    Extension,
    body::{Body, Bytes, to_bytes},
    extract::{self, Path, State},
    http::{Request, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use lockkeeper::wire::{self, code};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use std::sync::Arc;
use tokio::time::timeout;

/// The parameters of an empty body.
const EMPTY: &[u8] = b"{}";

/// Methods that need a connection that stays, and what to do instead.
const BOUND: &[(&str, &str)] = &[
    (wire::SESSION_ATTACH, "no session is attached over HTTP"),
    (wire::SUBSCRIBE, "events come with GET /v1/events"),
    (wire::UNSUBSCRIBE, "close the stream of events instead"),
];

/// `POST /v1/METHOD`
pub(super) async fn call(
    State(app): State<Arc<App>>,
    Extension(line): Extension<Arc<Line>>,
    Path(method): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    if let Some((_, instead)) = BOUND.iter().find(|(bound, _)| *bound == method) {
        return Err(Problem::nothing(format!("{method} needs a connection that stays: {instead}")));
    }
    let body = read(&app, request).await?;
    let text = match body.trim_ascii() {
        [] => EMPTY,
        text => text,
    };
    let params: Box<RawValue> = serde_json::from_slice(text).map_err(|error| {
        let said = format!("the body is not JSON: {error}");
        Problem::new(StatusCode::BAD_REQUEST, code::PARSE, "parse", said)
    })?;
    drop(body);
    // Should the client vanish, this future is dropped where it stands, and the call with it.
    let answered = dispatch(&app.house, &Peer::passing(), &method, params).await;
    Ok(answer(&answered.result?, answered.receipt, &line.handed))
}

/// `POST /v1/projects`, which would else be taken for the view of that name.
pub(super) async fn call_projects(
    state: State<Arc<App>>,
    line: Extension<Arc<Line>>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    call(state, line, Path(wire::PROJECTS.to_owned()), request).await
}

/// The body, if it is small enough and comes in time.
async fn read(app: &App, request: Request<Body>) -> Result<Bytes, Problem> {
    let max = app.limits.body_bytes;
    let too_large = || {
        let said = format!("the body has more than {max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, code::LIMIT, "body_too_large", said).for_ever()
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    match timeout(app.limits.body_for, to_bytes(request.into_body(), max)).await {
        // A body that breaks off comes of a connection that does: nobody hears the answer.
        Ok(bytes) => bytes.map_err(|_| too_large()),
        Err(_) => {
            let said = "the body came too slowly";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, code::LIMIT, "body_too_slow", said))
        }
    }
}

/// Asks for what changes nothing.
async fn ask(app: &App, method: &str, params: &Value) -> Result<Box<RawValue>, Problem> {
    let params = to_raw_value(params).map_err(|error| Problem::params(error.to_string()))?;
    Ok(dispatch(&app.house, &Peer::passing(), method, params).await.result?)
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let page = ask(&app, wire::METRICS, &json!({})).await?;
    // It is text, as JSON.
    let page: String = serde_json::from_str(page.get()).unwrap_or_default();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}

/// The views of a project: the method behind each, and what it may be asked with.
pub(crate) const VIEWS: &[(&str, &str, &[&str])] = &[
    ("locks", "list", &[]),
    ("queue", "queue", &["resource"]),
    ("graph", "graph", &[]),
    ("contention", "contention", &[]),
    ("sessions", "sessions", &[]),
    ("stats", "stats", &[]),
    ("tasks", "task.list", &[]),
    (
        "audit",
        wire::AUDIT,
        &["resource", "agent", "event_type", "since", "until", "after_id", "oldest_first", "limit"],
    ),
];

/// Parameters of a query that are numbers.
const NUMBERS: &[&str] = &["since", "until", "after_id", "limit"];

/// `GET /v1/projects`
pub(super) async fn projects(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    Query::read(&uri, &[])?;
    Ok(json_response(ask(&app, wire::PROJECTS, &json!({})).await?.get().to_owned()))
}

/// `GET /v1/projects/PROJECT/VIEW`
pub(super) async fn view(
    State(app): State<Arc<App>>,
    Path((project, view)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let Some((_, method, allowed)) = VIEWS.iter().find(|(name, ..)| *name == view) else {
        let names: Vec<&str> = VIEWS.iter().map(|(name, ..)| *name).collect();
        return Err(Problem::nothing(format!("there are the views {}", names.join(", "))));
    };
    let query = Query::read(&uri, allowed)?;
    let mut params = json!({ "project": project });
    for (name, text) in &query.pairs {
        params[name] = match name.as_str() {
            "oldest_first" => json!(query.flag(name)?),
            name if NUMBERS.contains(&name) => json!(query.number(name)?),
            _ => json!(text),
        };
    }
    Ok(json_response(ask(&app, method, &params).await?.get().to_owned()))
}

/// What stands behind the question mark.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Takes nothing that is not known, and nothing twice.
    pub(super) fn read(uri: &Uri, allowed: &[&str]) -> Result<Query, Problem> {
        let extract::Query(pairs): extract::Query<Vec<(String, String)>> =
            extract::Query::try_from_uri(uri)
                .map_err(|error| Problem::params(format!("the query cannot be read: {error}")))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !allowed.contains(&name.as_str()) {
                let said = match allowed {
                    [] => format!("there is no parameter {name}, nor any other"),
                    _ => format!("there is no parameter {name}, but {}", allowed.join(", ")),
                };
                return Err(Problem::params(said));
            }
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(Problem::params(format!("{name} is there twice")));
            }
        }
        Ok(Query { pairs })
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.pairs.iter().find(|(it, _)| it == name).map(|(_, text)| text.clone())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let number = |text: String| {
            text.parse().map_err(|_| Problem::params(format!("{name} must be a whole number")))
        };
        self.text(name).map(number).transpose()
    }

    fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name).as_deref() {
            Some("true" | "1" | "") => Ok(true),
            Some("false" | "0") | None => Ok(false),
            Some(_) => Err(Problem::params(format!("{name} must be true or false"))),
        }
    }
}

//! The same methods over HTTP, for whoever has no line to spare: the names, the parameters and the
//! answers of the wire, one request each.
//!
//! ```sh
//! lockkeeper serve --http 127.0.0.1:7420 &
//! post() { curl -sS -H 'content-type: application/json' "http://127.0.0.1:7420/v1/$1" -d "$2"; }
//! post session.open '{"project":"demo","agent":"coder","kind":"detached","reuse":true}'
//! # {"session_opened":{"session":4294967297}}
//! post acquire '{"project":"demo","session":4294967297,"resource":"file:a","wait_ms":1000}'
//! # {"granted":[{"lock":"0190…","token":4294967298,…}]}
//! curl -sS http://127.0.0.1:7420/v1/projects/demo/locks
//! curl -sSN 'http://127.0.0.1:7420/v1/events?project=demo'
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/METHOD` | of the method; the body is its parameters, an empty one is `{}` |
//! | `GET /v1/projects` | the names of all projects |
//! | `GET /v1/projects/PROJECT/VIEW` | a view of a project, see below |
//! | `GET /v1/events?project=&since=` | events as they happen, see below |
//! | `GET /metrics` | the metrics, for Prometheus |
//! | `GET /healthz` | 200, or 503 when nothing can be decided; nobody needs a token for it |
//! | `GET /openapi.json` | all of this for programs |
//!
//! The views are `locks`, `queue?resource=`, `graph`, `contention`, `sessions`, `tasks`, `stats`,
//! and `audit`, which the query filters. A slash in a project's name is written `%2F`.
//!
//! # Sessions
//!
//! There is no connection that a session could live by, so `session.open` takes detached ones
//! only. A request that waits may take as long as its `wait_ms`; with `slice_ms` it is answered
//! with a ticket before some proxy loses its patience, and `wait` goes on. A client that goes away
//! while it waits leaves neither a hold nor a place: its request is cancelled; at once, or, if it
//! has a `request_id`, unless it is sent again with that within the grace that attached sessions
//! have after a restart (15 seconds). One that goes away just when it is answered may hold what it
//! never heard of, until the lease ends, or until it sends the request again.
//!
//! # Who may ask
//!
//! Beyond this machine it listens only with a token, which every request but `/healthz` then shows
//! as `Authorization: Bearer TOKEN`. Without one it answers whoever is on this machine, except
//! pages in its browsers: the `Host` must be a name of this machine, an `Origin` this very server,
//! and a POST must be `application/json`. Others are never allowed across origins.
//!
//! # Errors
//!
//! `{"error":{"code":…,"message":…,"data":{…}}}`, the error of the wire, and a status:
//!
//! | status | when |
//! |---|---|
//! | 400 | the request can never succeed: parameters, an impossible resource |
//! | 401, 403 | the token is missing or wrong; the `Host` or the `Origin` is a stranger's |
//! | 404, 405 | no such method, view, ticket or task; not with this verb |
//! | 408, 413, 415 | the body is too slow, too large, not `application/json` |
//! | 409 | refused as things are: held, timed out, a deadlock, over, another version |
//! | 429 | a bound is reached, of the server or of a table |
//! | 500 | a defect |
//! | 503 | no answer: the store cannot be written, no room, about to stop |
//!
//! 429 and 503 say `Retry-After` where it may help.
//!
//! # Events
//!
//! Server-sent events. `event` is the event's name, such as `resource.locked`, and `data` its JSON.
//! For one project `id` is its `seq`, so that a client that comes back with `Last-Event-ID`, as any
//! `EventSource` does, or with `since`, hears what happened meanwhile: nothing twice, and nothing
//! left out without an event `missed` that says how many are not kept any more (the audit log has
//! them). Events of all projects have no `id`: each project has its own numbers.

mod answer;
mod call;
mod config;
mod events;
mod guard;
mod listen;
mod openapi;
mod problem;
mod stream;

pub use config::{HttpConfig, HttpLimits};

use crate::{
    ServeError,
    dispatch::may_wait,
    house::{House, Phase},
};
use answer::json_response;
use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use guard::Guard;
use listen::Line;
use lockkeeper::{
    LastEvent, Unavailable,
    wire::{self, code},
};
use problem::Problem;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// What every request is answered with.
pub(crate) struct App {
    house: Arc<House>,
    guard: Guard,
    limits: HttpLimits,
    requests: Arc<Semaphore>,
    /// Those that may wait have places of their own: they must not keep out what ends them.
    waits: Arc<Semaphore>,
    subscribers: Arc<Semaphore>,
}

/// A listener that is there and takes nobody in yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    config: HttpConfig,
    /// Where it listens: the port is known now.
    pub(crate) addr: SocketAddr,
}

/// Listens, unless that would let strangers in.
pub(crate) async fn bind(config: HttpConfig) -> Result<Bound, ServeError> {
    config.check()?;
    let failed = || ServeError::io(format!("listen for HTTP at {}", config.addr));
    let listener = TcpListener::bind(config.addr).await.map_err(failed())?;
    let addr = listener.local_addr().map_err(failed())?;
    Ok(Bound { listener, config, addr })
}

impl Bound {
    /// Serves until the house stops.
    pub(crate) async fn serve(self, house: Arc<House>) {
        let HttpConfig { token, limits, .. } = self.config;
        let app = App {
            house: house.clone(),
            guard: Guard::new(token),
            limits,
            requests: Arc::new(Semaphore::new(limits.requests)),
            waits: Arc::new(Semaphore::new(limits.requests)),
            subscribers: Arc::new(Semaphore::new(limits.subscribers)),
        };
        listen::serve(self.listener, router(Arc::new(app)), limits, house).await;
    }
}

fn router(app: Arc<App>) -> Router {
    let bounded = Router::new()
        .route("/v1/{method}", post(call::call))
        .route("/v1/projects", get(call::projects).post(call::call_projects))
        .route("/v1/projects/{project}/{view}", get(call::view))
        .route("/metrics", get(call::metrics))
        .route("/openapi.json", get(document))
        .layer(from_fn_with_state(app.clone(), bound));
    bounded
        // Streams have a bound of their own: they run for as long as somebody listens.
        .route("/v1/events", get(events::events))
        .fallback(no_page)
        .method_not_allowed_fallback(not_so)
        .layer(from_fn_with_state(app.clone(), let_in))
        // Whoever looks after the process knows no token.
        .route("/healthz", get(health))
        .layer(from_fn(mark))
        .with_state(app)
}

async fn let_in(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match app.guard.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => problem.into_response(),
    }
}

async fn bound(
    State(app): State<Arc<App>>,
    Extension(line): Extension<Arc<Line>>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.uri().path().strip_prefix("/v1/");
    let places = match method.is_some_and(may_wait) {
        true => &app.waits,
        false => &app.requests,
    };
    let Ok(_place) = places.clone().try_acquire_owned() else {
        return Problem::limit("too many requests at once: ask again later").into_response();
    };
    let _busy = line.busy();
    next.run(request).await
}

/// No answer may be kept, nor taken for anything but what it says it is.
async fn mark(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn no_page() -> Problem {
    Problem::nothing("there is nothing here: GET /openapi.json lists what there is")
}

async fn not_so() -> Problem {
    let said = "methods are asked with POST, views with GET";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, code::INVALID_REQUEST, "not_allowed", said)
}

async fn document() -> Response {
    json_response(openapi::text())
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let trouble = trouble(&app.house).await;
    let body = serde_json::json!({
        "status": if trouble.is_some() { "unavailable" } else { "ok" },
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": wire::PROTOCOL,
        "trouble": trouble,
    });
    let mut response = json_response(body.to_string());
    if trouble.is_some() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// How many projects are asked how they are: anybody may ask for that, so it must stay cheap, and
/// they all have one store.
const ASKED: usize = 16;

/// How long they may take for it.
const ANSWER: Duration = Duration::from_secs(5);

/// Why nothing can be decided now, as far as that is known: in few words, since nobody needs to
/// say who he is to hear them.
async fn trouble(house: &House) -> Option<&'static str> {
    if house.phase() != Phase::Serving {
        return Some("the daemon is stopping");
    }
    let ask = async {
        for room in house.open_rooms().into_iter().take(ASKED) {
            room.project.see(LastEvent {}).await?;
        }
        Ok::<_, Unavailable>(())
    };
    match timeout(ANSWER, ask).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some("the store cannot be read or written"),
        Err(_) => Some("the store does not answer"),
    }
}

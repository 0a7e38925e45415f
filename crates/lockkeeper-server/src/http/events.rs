//! Events as a stream that a browser's `EventSource`, or anything else, can follow and take up
//! again.

use super::{
    App,
    call::Query,
    listen::{Busy, Line},
    problem::Problem,
};
use crate::{ear::Told, house::Listener};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Uri},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::stream::unfold;
use lockkeeper::wire::Subscribe;
use serde::Deserialize;
use serde_json::json;
use std::{convert::Infallible, sync::Arc};
use tokio::sync::OwnedSemaphorePermit;

/// What a stream keeps while it runs.
struct Stream {
    app: Arc<App>,
    listener: Listener,
    /// Of one project. Its events carry their numbers; those of several would mix them up.
    project: Option<String>,
    /// Still to be told.
    missed: u64,
    _place: OwnedSemaphorePermit,
    _busy: Busy,
}

/// `GET /v1/events?project=&since=`
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(line): Extension<Arc<Line>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = Query::read(&uri, &["project", "since"])?;
    let project = query.text("project");
    let since = match headers.get("last-event-id") {
        // An EventSource that comes back knows better than its address.
        Some(id) => {
            let id = id.to_str().ok().and_then(|id| id.parse().ok());
            Some(id.ok_or_else(|| Problem::params("Last-Event-ID must be a number"))?)
        }
        None => query.number("since")?,
    };
    let Ok(place) = app.subscribers.clone().try_acquire_owned() else {
        return Err(Problem::limit("too many streams of events: close one"));
    };
    let listener = app.house.listen(Subscribe { project: project.clone(), since }).await?;
    let missed = listener.subscribed().missed;
    let keep_alive = KeepAlive::new().interval(app.limits.keep_alive).text("still here");
    let (_place, _busy) = (place, line.busy());
    let stream = Stream { app, listener, project, missed, _place, _busy };
    Ok(Sse::new(unfold(stream, next)).keep_alive(keep_alive).into_response())
}

async fn next(mut stream: Stream) -> Option<(Result<Event, Infallible>, Stream)> {
    if stream.missed > 0 {
        let event = missed(stream.project.as_deref().unwrap_or_default(), stream.missed);
        stream.missed = 0;
        return Some((Ok(event), stream));
    }
    let told = tokio::select! {
        told = stream.listener.next() => told,
        () = stream.app.house.stopping() => return None,
    };
    let event = match told {
        Told::Event(kept) => {
            let event = Event::default().event(name_in(kept.json())).data(kept.json());
            match stream.project {
                Some(_) => event.id(kept.event().event.seq.to_string()),
                None => event,
            }
        }
        Told::Missed { project, missed: number } => missed(&project, number),
    };
    Some((Ok(event), stream))
}

/// The name of an event, as its JSON has it.
fn name_in(json: &str) -> &str {
    #[derive(Deserialize)]
    struct Named<'a> {
        event: &'a str,
    }
    serde_json::from_str(json).map_or("", |named: Named<'_>| named.event)
}

fn missed(project: &str, missed: u64) -> Event {
    let data = json!({ "project_id": project, "missed": missed });
    Event::default().event("missed").data(data.to_string())
}

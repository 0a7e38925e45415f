//! Errors as HTTP tells them: the object of the wire, and the status that fits it.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use lockkeeper::wire::{ErrorData, ErrorObject, code};
use lockkeeper_core::{Limit, Refusal};
use serde::Serialize;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: ErrorObject,
    header: Option<(HeaderName, HeaderValue)>,
}

/// How an error travels.
#[derive(Serialize)]
struct Told<'a> {
    error: &'a ErrorObject,
}

impl Problem {
    /// With a stable word for programs and a sentence for people.
    pub(crate) fn new(
        status: StatusCode,
        number: i64,
        word: &str,
        said: impl Into<String>,
    ) -> Self {
        let data = ErrorData {
            code: word.to_owned(),
            legacy_code: String::new(),
            retryable: number == code::LIMIT,
            refusal: None,
        };
        let data = Some(Box::new(data));
        let error = ErrorObject { code: number, message: said.into(), data };
        Problem { status, error, header: None }
    }

    /// The request is not what the method takes.
    pub(crate) fn params(said: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code::INVALID_PARAMS, "invalid_params", said)
    }

    /// There is nothing of that name.
    pub(crate) fn nothing(said: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code::NO_METHOD, "no_method", said)
    }

    /// A bound of the server is reached.
    pub(crate) fn limit(said: impl Into<String>) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, code::LIMIT, "limit", said)
    }

    /// Asking again does not help.
    pub(crate) fn for_ever(mut self) -> Problem {
        if let Some(data) = &mut self.error.data {
            data.retryable = false;
        }
        self
    }

    /// A header that goes with it.
    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Problem {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> String {
        // It is made of text and numbers.
        serde_json::to_string(&Told { error: &self.error }).unwrap_or_default()
    }
}

impl From<ErrorObject> for Problem {
    fn from(error: ErrorObject) -> Problem {
        Problem { status: status_of(&error), error, header: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let is_retryable = self.error.data.as_ref().is_some_and(|data| data.retryable);
        let waits = matches!(self.status.as_u16(), 429 | 503);
        if is_retryable && waits {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}

/// The status that fits an error of the wire.
pub(crate) fn status_of(error: &ErrorObject) -> StatusCode {
    match error.code {
        code::PARSE | code::INVALID_REQUEST | code::INVALID_PARAMS => StatusCode::BAD_REQUEST,
        code::NO_METHOD => StatusCode::NOT_FOUND,
        code::FORBIDDEN => StatusCode::FORBIDDEN,
        code::LIMIT => StatusCode::TOO_MANY_REQUESTS,
        code::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        code::REFUSED => match error.data.as_ref().and_then(|data| data.refusal.as_ref()) {
            Some(refusal) => status_of_refusal(refusal),
            None => StatusCode::CONFLICT,
        },
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Nearly every refusal is a conflict with how things are, a wait that ran out as well: 408 would
/// say that the request came too slowly, and make clients send it again by themselves.
fn status_of_refusal(refusal: &Refusal) -> StatusCode {
    match refusal {
        // It would be refused whatever the state.
        Refusal::InvalidResource { .. }
        | Refusal::EmptyBatch
        | Refusal::LimitReached { limit: Limit::Batch | Limit::TextBytes | Limit::Slots, .. } => {
            StatusCode::BAD_REQUEST
        }
        Refusal::Unknown(_) => StatusCode::NOT_FOUND,
        Refusal::QueueFull { .. } | Refusal::LimitReached { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    }
}

//! Answers that know whether they have left.
//!
//! What an answer grants is taken back unless the answer reaches its client. So the receipt of an
//! answer travels with it: in its body until that is handed to the connection, then with the
//! connection until everything that was handed to it is written.

use crate::commands::Receipt;
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Response, header},
};
use hyper::body::{Frame, SizeHint};
use serde_json::value::RawValue;
use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

/// Answers that a connection has taken and not written yet.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    receipts: Mutex<Vec<Receipt>>,
}

impl Handed {
    fn take(&self, receipt: Receipt) {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner).push(receipt);
    }

    /// Everything that was taken is written.
    pub(crate) fn written(&self) {
        let receipts =
            mem::take(&mut *self.receipts.lock().unwrap_or_else(PoisonError::into_inner));
        for receipt in receipts {
            receipt.delivered();
        }
    }
}

/// The body of an answer.
struct Answer {
    json: Option<Bytes>,
    receipt: Option<Receipt>,
    handed: Arc<Handed>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let json = self.json.take();
        if let Some(receipt) = self.receipt.take() {
            self.handed.take(receipt);
        }
        Poll::Ready(json.map(|json| Ok(Frame::data(json))))
    }

    fn is_end_stream(&self) -> bool {
        self.json.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.json.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// A result of the wire.
pub(crate) fn answer(json: &RawValue, receipt: Receipt, handed: &Arc<Handed>) -> Response<Body> {
    let json = Some(Bytes::copy_from_slice(json.get().as_bytes()));
    let receipt = Some(receipt);
    json_response(Body::new(Answer { json, receipt, handed: handed.clone() }))
}

/// JSON, with its name.
pub(crate) fn json_response(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

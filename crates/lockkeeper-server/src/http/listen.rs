//! Takes connections in, up to a number, and lets none of them take its time for ever.

use super::{
    answer::Handed,
    config::HttpLimits,
    problem::Problem,
    stream::{Patient, gone},
};
use crate::{
    house::{House, Phase},
    link::Link,
};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Bytes of a request's head. More of it is answered with 431.
const HEAD_BYTES: usize = 64 * 1024;

/// How long nobody is taken in when the process has no descriptor left.
const BREATH: Duration = Duration::from_millis(50);

/// A connection, as the rest of the server knows it.
#[derive(Debug)]
pub(crate) struct Line {
    house: Arc<House>,
    id: u64,
    link: Arc<Link>,
    pub(crate) handed: Arc<Handed>,
}

impl Line {
    fn new(house: &Arc<House>) -> Line {
        let (id, link) = house.enter();
        Line { house: house.clone(), id, link, handed: Arc::default() }
    }

    /// Something begins that the server must not end under: it is not idle.
    pub(crate) fn busy(self: &Arc<Line>) -> Busy {
        self.link.in_flight.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.house.leave(self.id, &self.link);
    }
}

/// Something that goes on.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Line>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.link.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.house.stir();
    }
}

/// Serves until the house stops, and then until what runs has ended, or `limits.stop_for` is over.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: HttpLimits,
    house: Arc<House>,
) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut stopping = pin!(house.stopping());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopping.as_mut() => break,
        };
        match accepted {
            Ok((stream, _)) => match room.clone().try_acquire_owned() {
                Ok(place) => {
                    let one = connection(stream, app.clone(), limits, house.clone(), place);
                    connections.spawn(one);
                }
                Err(_) => turn_away(&stream),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken in");
                if !is_of_one_connection(&error) {
                    sleep(BREATH).await;
                }
            }
        }
    }
    drop(listener);
    if house.phase() != Phase::Dead {
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(limits.stop_for, all).await;
    }
    connections.shutdown().await;
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn connection(
    stream: TcpStream,
    app: Router,
    limits: HttpLimits,
    house: Arc<House>,
    _place: OwnedSemaphorePermit,
) {
    // Without it small answers may wait for the client's next word.
    let _ = stream.set_nodelay(true);
    let stream = Arc::new(stream);
    let line = Arc::new(Line::new(&house));
    let patient = Patient::new(stream.clone(), limits.unread_for, line.handed.clone());
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_for)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(
            TokioIo::new(patient),
            TowerToHyperService::new(app.layer(Extension(line))),
        );
    let mut served = pin!(served);
    let mut house_stops = pin!(house.stopping());
    let mut stopping = false;
    loop {
        tokio::select! {
            // How it ended is of no interest: whoever waited for an answer is gone.
            _ = served.as_mut() => return,
            () = gone(&stream) => return,
            () = house_stops.as_mut(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Says that there is no room. The answer is small enough to leave without waiting.
fn turn_away(stream: &TcpStream) {
    let body = Problem::limit("too many connections: close one, or ask again later").body();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = stream.try_write(answer.as_bytes());
    let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
}

//! One connection: lines in, answers and notes out, as one task.
//!
//! Each request runs on its own and is answered when it is done, in whatever order. While a client
//! reads nothing, nothing more is asked on its behalf, and nobody waits for it; if that takes too
//! long, or too much that must not be lost piles up, it is cut.

mod farewell;

use crate::{
    Token,
    commands::{ENDING, Receipt},
    dispatch::{Ready, dispatch, may_wait},
    ear::Told,
    envelope::{self, NoRequest, Request, Said},
    house::{House, Phase},
    line::{Lines, Piece},
    link::{Link, Peer, write_note},
    params::plain,
    refuse,
    stream::{Stream, space},
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lockkeeper::wire::{self, ErrorObject, HelloAsk, Note};
use serde_json::value::RawValue;
use std::{
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::{Interest, ReadBuf},
    time::Instant,
};

/// So much may wait to be written before nothing more is asked on the client's behalf.
const FULL: usize = 256 * 1024;

/// So many requests that do not wait may be open before no more are read.
const BRISK: usize = 256;

/// What a buffer keeps when it is empty again.
const ROOMY: usize = 64 * 1024;

/// How long an end in order may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a connection must do before it is served.
#[derive(Debug)]
pub(crate) enum Gate {
    /// Nothing: the system says who it is.
    Open,
    /// Say hello, and show the token if there is one. Without this a web page could make a browser
    /// send requests.
    Hello(Option<Token>),
}

/// Why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The other end has closed it and read everything.
    Closed,
    /// The other end is gone.
    Gone,
    /// It was told why not.
    TurnedAway,
    /// It reads nothing.
    Unread,
    /// A newer one has come for one of its sessions.
    Evicted,
    /// The server stops.
    Stopping,
}

/// A request that is done.
struct Reply {
    id: Option<Box<RawValue>>,
    result: Result<Said, ErrorObject>,
    receipt: Receipt,
    is_brisk: bool,
    /// Whether notes may have been said because of it, which go first.
    follows_notes: bool,
}

type Call = Pin<Box<dyn Future<Output = Reply> + Send>>;

struct Connection {
    house: Arc<House>,
    stream: Stream,
    gate: Gate,
    peer: Peer,
    link: Arc<Link>,
    lines: Lines,
    calls: FuturesUnordered<Call>,
    /// How many of them do not wait for anybody.
    brisk: usize,
    out: Vec<u8>,
    written: usize,
    /// How much was written in all.
    sent: u64,
    /// For grants whose answers may not be read yet, and where each of these ends.
    receipts: Vec<(u64, Receipt)>,
    /// It has been told why it is not served.
    is_turned_away: bool,
    began: Instant,
    heard: Instant,
    /// Since when the other end has taken nothing of what waits for it.
    unread_since: Option<Instant>,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(house: Arc<House>, stream: Stream, gate: Gate) {
    let entered = Entered::new(house.clone());
    let now = Instant::now();
    let mut connection = Connection {
        lines: Lines::new(house.config.limits.line_bytes),
        house,
        stream,
        gate,
        peer: Peer { link: Some(entered.link.clone()) },
        link: entered.link.clone(),
        calls: FuturesUnordered::new(),
        brisk: 0,
        out: Vec::new(),
        written: 0,
        sent: 0,
        receipts: Vec::new(),
        is_turned_away: false,
        began: now,
        heard: now,
        unread_since: None,
    };
    let over = Over(entered.link.clone());
    let end = tokio::select! {
        biased;
        () = over.0.evicted() => End::Evicted,
        end = connection.run() => end,
    };
    tracing::debug!(id = entered.id, ?end, "a connection ends");
    connection.settle(end);
    if end == End::TurnedAway {
        drain(&mut connection.stream).await;
    }
    // First its sessions, then its calls: what goes with a session is not taken back one by one.
    drop(entered);
    drop(connection);
    drop(over);
}

/// Says that a connection has let go, however its task ends.
struct Over(Arc<Link>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.is_over();
    }
}

/// A link that is left however the task ends.
struct Entered {
    house: Arc<House>,
    id: u64,
    link: Arc<Link>,
}

impl Entered {
    fn new(house: Arc<House>) -> Entered {
        let (id, link) = house.enter();
        Entered { house, id, link }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.house.leave(self.id, &self.link);
    }
}

/// Tells somebody who is not served why, and leaves.
pub(crate) async fn turn_away(mut stream: Stream, error: ErrorObject) {
    let mut line = Vec::new();
    envelope::write(None, &Err(error), &mut line);
    // It is short, and nothing was written before.
    let _ = stream.try_write(&line);
    drain(&mut stream).await;
}

/// Until then; without a time, for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Closes a connection so that its end still reads what was said: with something unread, the
/// system would throw it away.
async fn drain(stream: &mut Stream) {
    stream.shut();
    let read_all = async {
        let mut rest = 1 << 20;
        while rest > 0 && stream.ready(Interest::READABLE).await.is_ok() {
            // A task that has had its share reads nothing, though there is something: without a
            // pause it would try for ever.
            tokio::task::consume_budget().await;
            match stream.try_read(&mut ReadBuf::uninit(&mut space())) {
                Ok(Some(0)) | Err(_) => return,
                Ok(Some(count)) => rest = usize::saturating_sub(rest, count),
                Ok(None) => {}
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), read_all).await;
}

impl Connection {
    async fn run(&mut self) -> End {
        let house = self.house.clone();
        let link = self.link.clone();
        let mut stopping = pin!(house.stopping());
        let mut alarm = pin!(tokio::time::sleep_until(self.alarm_at()));
        loop {
            if let Err(end) = self.write() {
                return end;
            }
            if self.is_turned_away && self.out.is_empty() {
                return End::TurnedAway;
            }
            let is_full = self.is_full();
            if !is_full && !link.take_notes(&mut self.out) {
                return End::Unread;
            }
            if !is_full && self.tell_events() {
                continue;
            }
            let is_reading = !is_full && self.brisk < BRISK && !self.is_turned_away;
            let is_writing = !self.out.is_empty();
            let interest = match (is_reading, is_writing) {
                (true, true) => Interest::READABLE | Interest::WRITABLE,
                (_, true) => Interest::WRITABLE,
                (_, false) => Interest::READABLE,
            };
            if alarm.deadline() > self.alarm_at() {
                alarm.as_mut().reset(self.alarm_at());
            }
            tokio::select! {
                biased;
                () = &mut stopping => return self.say_goodbye().await,
                Some(reply) = self.calls.next(), if !is_full => {
                    self.answer(reply);
                    self.answer_more();
                }
                ready = self.stream.ready(interest), if is_reading || is_writing => {
                    let is_readable = ready.map_or(true, |ready| ready.is_readable());
                    if is_reading && is_readable && let Err(end) = self.read() {
                        match end {
                            End::Closed => return self.finish().await,
                            end => return end,
                        }
                    }
                }
                () = link.ear.bell.notified(), if !is_full => {}
                () = &mut alarm => {
                    if let Some(end) = self.time_is_up() {
                        return end;
                    }
                    alarm.as_mut().reset(self.alarm_at());
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.out.len() - self.written > FULL
    }

    /// Writes what goes out without waiting.
    fn write(&mut self) -> Result<(), End> {
        self.write_by(Stream::try_write)
    }

    fn write_by(&mut self, by: fn(&Stream, &[u8]) -> io::Result<usize>) -> Result<(), End> {
        while self.written < self.out.len() {
            match by(&self.stream, &self.out[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.sent += count as u64;
                    self.unread_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unread_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(_) => return Err(self.how_it_left()),
            }
        }
        if self.written > 0 {
            self.written = 0;
            self.out.clear();
            if self.out.capacity() > ROOMY {
                self.out = Vec::new();
            }
        }
        Ok(())
    }

    /// It ends. What was sent last was not read if the other end is gone: the system says so, but
    /// of all before nobody knows. That counts as read, lest somebody else gets what it has.
    fn settle(&mut self, end: End) {
        let sent = self.sent;
        for (at, receipt) in self.receipts.drain(..) {
            if at < sent || (at == sent && end == End::Closed) {
                receipt.delivered();
            }
        }
    }

    /// The other end takes nothing more. Whether it has read all it was sent: if not, the system
    /// says so behind the last it said itself.
    fn how_it_left(&mut self) -> End {
        loop {
            match self.stream.try_read_last(&mut ReadBuf::uninit(&mut space())) {
                Ok(Some(0)) => return End::Closed,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return End::Gone,
            }
        }
    }

    /// Reads a piece, and begins what is asked in it.
    fn read(&mut self) -> Result<(), End> {
        let mut space = space();
        let mut piece = ReadBuf::uninit(&mut space);
        let read = self.stream.try_read(&mut piece).map_err(|_| End::Gone)?;
        let Some(count) = read else { return Ok(()) };
        let mut lines = std::mem::replace(&mut self.lines, Lines::new(0));
        // Part of a line is nothing that was said: whoever drips bytes is silent.
        let mut has_spoken = false;
        let mut take = |piece: Piece<'_>| {
            has_spoken = true;
            self.heard(piece);
        };
        match count {
            0 => lines.end(&mut take),
            _ => lines.take(piece.filled(), &mut take),
        }
        self.lines = lines;
        if count == 0 {
            return Err(End::Closed);
        }
        if has_spoken {
            self.heard = Instant::now();
            self.house.stir_at(self.heard);
        }
        self.answer_more();
        Ok(())
    }

    fn heard(&mut self, piece: Piece<'_>) {
        if self.is_turned_away {
            return;
        }
        // Whoever asks on has read what came before, or at least lives.
        let sent = self.sent;
        for (_, receipt) in self.receipts.extract_if(.., |(at, _)| *at <= sent) {
            receipt.delivered();
        }
        let line = match piece {
            Piece::Line(line) => line,
            Piece::TooLong => {
                let max = self.house.config.limits.line_bytes;
                let error = format!("a line may have {max} bytes, the rest of this one is dropped");
                self.is_turned_away = matches!(self.gate, Gate::Hello(_));
                return self.say(None, &Err(refuse::limit(error)));
            }
        };
        if matches!(self.gate, Gate::Open)
            && let Some((id, ready)) = Ready::read(&self.house, line)
        {
            if self.admit(ready.may_wait(), id) {
                self.begin_ready(id.map(ToOwned::to_owned), ready);
            }
            return;
        }
        let request = match envelope::read(line) {
            None => return,
            Some(Ok(request)) => request,
            Some(Err(NoRequest { id, error })) => {
                let error = match self.gate {
                    Gate::Open => error,
                    Gate::Hello(_) => {
                        self.is_turned_away = true;
                        refuse::forbidden("say `hello` first")
                    }
                };
                return self.say(id.as_deref(), &Err(error));
            }
        };
        if let Err(error) = self.pass(&request) {
            self.is_turned_away = true;
            return self.say(request.id.as_deref(), &Err(error));
        }
        if self.admit(may_wait(&request.method), request.id.as_deref()) {
            self.begin(request);
        }
    }

    /// Whether one more may be open. Only what may wait is counted: no number of waits keeps out
    /// the release that ends them. Of what does not wait no more is read than is done soon.
    fn admit(&mut self, may_wait: bool, id: Option<&RawValue>) -> bool {
        let max = self.house.config.limits.in_flight;
        if !may_wait || self.calls.len() - self.brisk < max {
            return true;
        }
        let error = format!("{max} waits of this connection are open: wait for some of them");
        if id.is_some() {
            self.say(id, &Err(refuse::limit(error)));
        }
        false
    }

    /// Lets in whoever shows the right token.
    fn pass(&mut self, request: &Request) -> Result<(), ErrorObject> {
        let Gate::Hello(token) = &self.gate else { return Ok(()) };
        if &*request.method != wire::HELLO {
            return Err(refuse::forbidden("say `hello` first"));
        }
        let ask: HelloAsk = plain(wire::HELLO, &request.params)?;
        let is_right = match (token, &ask.token) {
            (Some(token), Some(shown)) => token.is(shown),
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !is_right {
            return Err(refuse::forbidden("the token is missing or wrong"));
        }
        self.gate = Gate::Open;
        Ok(())
    }

    fn begin_ready(&mut self, id: Option<Box<RawValue>>, ready: Ready) {
        let is_brisk = !ready.may_wait();
        self.count_in(is_brisk);
        let carried_out = ready.carry_out(&self.house, &self.peer);
        self.calls.push(Box::pin(carried_out.map(move |done| {
            let (result, receipt) = match done {
                Ok(done) => (Ok(Said::Answer(done.answer)), done.receipt),
                Err(error) => (Err(error), Receipt::default()),
            };
            Reply { id, result, receipt, is_brisk, follows_notes: false }
        })));
    }

    fn count_in(&mut self, is_brisk: bool) {
        self.brisk += usize::from(is_brisk);
        self.link.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    fn begin(&mut self, request: Request) {
        let (house, peer) = (self.house.clone(), self.peer.clone());
        let is_brisk = !may_wait(&request.method);
        self.count_in(is_brisk);
        self.calls.push(Box::pin(async move {
            let Request { id, method, params } = request;
            let follows_notes = ENDING.contains(&&*method);
            let answered = dispatch(&house, &peer, &method, params).await;
            let (result, receipt) = (answered.result.map(Said::Raw), answered.receipt);
            Reply { id, result, receipt, is_brisk, follows_notes }
        }));
    }

    fn answer(&mut self, reply: Reply) {
        self.brisk -= usize::from(reply.is_brisk);
        self.link.in_flight.fetch_sub(1, Ordering::AcqRel);
        if reply.follows_notes {
            // If they are too many it ends with the next look at them.
            self.link.take_notes(&mut self.out);
        }
        if reply.id.is_some() {
            self.say(reply.id.as_deref(), &reply.result);
        }
        if !reply.receipt.is_empty() {
            match reply.id {
                Some(_) => {
                    let at = self.sent + (self.out.len() - self.written) as u64;
                    self.receipts.push((at, reply.receipt));
                }
                // Nobody wanted an answer.
                None => reply.receipt.delivered(),
            }
        }
    }

    /// Begins what has not begun, and answers what is done, without waiting.
    fn answer_more(&mut self) {
        while !self.is_full()
            && let Some(Some(reply)) = self.calls.next().now_or_never()
        {
            self.answer(reply);
        }
    }

    fn say(&mut self, id: Option<&RawValue>, result: &Result<Said, ErrorObject>) {
        envelope::write(id, result, &mut self.out);
    }

    /// Tells events until there is enough to write. Whether there were any.
    fn tell_events(&mut self) -> bool {
        let before = self.out.len();
        while !self.is_full()
            && let Some(told) = self.link.ear.next(self.house.rings())
        {
            match told {
                Told::Event(kept) => {
                    self.out.extend_from_slice(br#"{"jsonrpc":"2.0","method":"event","params":"#);
                    self.out.extend_from_slice(kept.json().as_bytes());
                    self.out.extend_from_slice(b"}\n");
                }
                Told::Missed { missed, .. } => write_note(&Note::Missed { missed }, &mut self.out),
            }
        }
        self.out.len() > before
    }

    /// When it must be looked at, whatever happens before.
    fn alarm_at(&self) -> Instant {
        let limits = &self.house.config.limits;
        let mut at = self.heard + limits.idle;
        if matches!(self.gate, Gate::Hello(_)) {
            at = at.min(self.began + limits.hello);
        }
        if let Some(since) = self.unread_since {
            at = at.min(since + limits.unread_for);
        }
        at
    }

    fn time_is_up(&mut self) -> Option<End> {
        let (now, limits) = (Instant::now(), self.house.config.limits);
        if self.unread_since.is_some_and(|since| now >= since + limits.unread_for) {
            return Some(End::Unread);
        }
        if matches!(self.gate, Gate::Hello(_)) && now >= self.began + limits.hello {
            self.is_turned_away = true;
            let error = format!("no `hello` within {:?}", limits.hello);
            self.say(None, &Err(refuse::forbidden(error)));
        } else if now >= self.heard + limits.idle {
            if self.link.matters() {
                // It is looked at again after as long a time.
                self.heard = now;
            } else {
                self.is_turned_away = true;
                let error = format!("nothing was asked for {:?}: connect again", limits.idle);
                self.say(None, &Err(refuse::limit(error)));
            }
        }
        None
    }
}

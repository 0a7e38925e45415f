//! Moves lines: what is put into an outbox goes out, what comes in is handed over, until one end is
//! gone. One task a connection, no thread; what piled up goes out in one write.

use std::{
    io,
    ops::ControlFlow,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::{TcpStream, UnixStream},
    sync::Notify,
};

/// How much is read at once.
const READ: usize = 16 * 1024;

/// What a buffer keeps when it is empty again.
const ROOMY: usize = 256 * 1024;

/// Longer lines come from no daemon.
const LINE_MAX: usize = 256 * 1024 * 1024;

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    async fn ready(&self, interest: Interest) -> io::Result<tokio::io::Ready> {
        match self {
            Stream::Unix(stream) => stream.ready(interest).await,
            Stream::Tcp(stream) => stream.ready(interest).await,
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.try_write(bytes),
            Stream::Tcp(stream) => stream.try_write(bytes),
        }
    }

    fn try_read(&mut self, to: &mut Vec<u8>) -> io::Result<usize> {
        to.reserve(READ);
        // Read in this way the runtime learns from a short piece that there is no more for now, and
        // does not ask the system in vain. Who is to be woken is told elsewhere.
        let mut nobody = Context::from_waker(Waker::noop());
        let read = match self {
            Stream::Unix(stream) => pin!(stream.read_buf(to)).poll(&mut nobody),
            Stream::Tcp(stream) => pin!(stream.read_buf(to)).poll(&mut nobody),
        };
        match read {
            Poll::Ready(read) => read,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Before it is pumped.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.ready(Interest::WRITABLE).await?;
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Before it is pumped.
    pub(super) async fn read(&mut self, to: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            self.ready(Interest::READABLE).await?;
            match self.try_read(to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

/// What is to go out. Filled from any thread, without waiting and without a runtime.
#[derive(Default)]
pub(super) struct Outbox {
    inside: Mutex<Inside>,
    changed: Notify,
}

#[derive(Default)]
struct Inside {
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Outbox {
    /// Puts a line in. `write` may append one line to what it is given, or leave it as it was.
    pub(super) fn put<T>(&self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let written = write(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner).bytes);
        self.changed.notify_one();
        written
    }

    /// Nothing more will be put in: the connection ends when all of it is out.
    pub(super) fn close(&self) {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.changed.notify_one();
    }

    /// Takes all there is. Whether it is the last.
    fn take(&self, to: &mut Vec<u8>) -> bool {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut inside.bytes, to);
        inside.is_closed
    }
}

/// What has come in, up to where it was looked at.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    looked_at: usize,
}

impl Inbox {
    pub(super) fn new(read: Vec<u8>) -> Inbox {
        Inbox { bytes: read, looked_at: 0 }
    }

    /// Hands over every whole line.
    fn hand_over(
        &mut self,
        heard: &mut impl FnMut(&[u8]) -> ControlFlow<Arc<str>>,
    ) -> ControlFlow<Arc<str>> {
        let mut start = 0;
        while let Some(length) = self.bytes[self.looked_at..].iter().position(|&b| b == b'\n') {
            let end = self.looked_at + length;
            heard(&self.bytes[start..end])?;
            start = end + 1;
            self.looked_at = start;
        }
        self.bytes.drain(..start);
        self.looked_at = self.bytes.len();
        if self.bytes.is_empty() && self.bytes.capacity() > ROOMY {
            self.bytes = Vec::new();
        }
        match self.looked_at > LINE_MAX {
            true => ControlFlow::Break("the daemon sends a line without an end".into()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Moves lines until the connection is over, and says why it is.
pub(super) async fn pump(
    stream: &mut Stream,
    mut inbox: Inbox,
    outbox: &Outbox,
    mut heard: impl FnMut(&[u8]) -> ControlFlow<Arc<str>>,
) -> Arc<str> {
    if let ControlFlow::Break(why) = inbox.hand_over(&mut heard) {
        return why;
    }
    let (mut out, mut written) = (Vec::new(), 0);
    loop {
        let mut is_last = false;
        if written == out.len() {
            out.clear();
            if out.capacity() > ROOMY {
                out = Vec::new();
            }
            written = 0;
            is_last = outbox.take(&mut out);
        }
        while written < out.len() {
            match stream.try_write(&out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return last_words(stream, inbox, heard, &error).await,
            }
        }
        let is_out = written == out.len();
        if is_last && is_out {
            return "it was closed at this end".into();
        }
        let interest = match is_out {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        tokio::select! {
            ready = stream.ready(interest) => {
                if !ready.is_ok_and(|ready| ready.is_writable() && !ready.is_readable())
                    && let ControlFlow::Break(why) = read(stream, &mut inbox, &mut heard)
                {
                    return why;
                }
            }
            () = outbox.changed.notified(), if is_out => {}
        }
        // A daemon that talks without a pause must not keep everybody else from being heard.
        tokio::task::consume_budget().await;
    }
}

/// Reads once.
fn read(
    stream: &mut Stream,
    inbox: &mut Inbox,
    heard: &mut impl FnMut(&[u8]) -> ControlFlow<Arc<str>>,
) -> ControlFlow<Arc<str>> {
    match stream.try_read(&mut inbox.bytes) {
        Ok(0) => ControlFlow::Break("the daemon closed the connection".into()),
        Ok(_) => inbox.hand_over(heard),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error.to_string().into()),
    }
}

/// Nothing more can be written; what the other end said before it left is still heard.
async fn last_words(
    stream: &mut Stream,
    mut inbox: Inbox,
    mut heard: impl FnMut(&[u8]) -> ControlFlow<Arc<str>>,
    error: &io::Error,
) -> Arc<str> {
    let mut has_rested = false;
    loop {
        match stream.try_read(&mut inbox.bytes) {
            Ok(1..) => has_rested = false,
            // A task that has had its share reads nothing, though there is something. With a new
            // share nothing means nothing.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !has_rested => {
                tokio::task::yield_now().await;
                has_rested = true;
                continue;
            }
            Ok(0) | Err(_) => return error.to_string().into(),
        }
        if let ControlFlow::Break(why) = inbox.hand_over(&mut heard) {
            return why;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Whoever has had its share of the thread still hears all that was said.
    #[tokio::test]
    async fn last_words_are_heard_to_their_end() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let said = b"some words of a line\n".repeat(2_000);
        far.write_all(&said).unwrap();
        drop(far);
        near.set_nonblocking(true).unwrap();
        let near = UnixStream::from_std(near).unwrap();
        near.readable().await.unwrap();
        let (fill, mut full) = tokio::sync::mpsc::unbounded_channel();
        (0..1000).for_each(|_| fill.send(()).unwrap());
        // Until the share is used up.
        let mut nobody = Context::from_waker(Waker::noop());
        while full.poll_recv(&mut nobody).is_ready() {}
        assert!(!full.is_empty(), "there is no such share any more");
        let mut lines = 0;
        let heard = |line: &[u8]| {
            assert_eq!(line, b"some words of a line");
            lines += 1;
            ControlFlow::Continue(())
        };
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        let mut stream = Stream::Unix(near);
        let why = last_words(&mut stream, Inbox::new(Vec::new()), heard, &error).await;
        assert_eq!((lines, &*why), (2_000, &*error.to_string()));
    }
}

//! The two kinds of connections, as one.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf, Ready},
    net::{TcpStream, UnixStream},
};

/// What is read at once.
const READ: usize = 16 * 1024;

/// Room for a piece. It is on the stack: a connection that says nothing needs no buffer. And it is
/// not cleared: most pieces are short.
pub(crate) const fn space() -> [MaybeUninit<u8>; READ] {
    [MaybeUninit::uninit(); READ]
}

#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Stream::Unix(stream) => stream.ready(interest).await,
            Stream::Tcp(stream) => stream.ready(interest).await,
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.try_write(bytes),
            Stream::Tcp(stream) => stream.try_write(bytes),
        }
    }

    /// Reads what is there, a piece at most, and says how much it was. None if nothing is there
    /// yet.
    pub(crate) fn try_read(&mut self, piece: &mut ReadBuf<'_>) -> io::Result<Option<usize>> {
        // Read in this way the runtime learns from a short piece that there is no more for now, and
        // does not ask the system in vain. Who is to be woken is told elsewhere.
        let mut nobody = Context::from_waker(Waker::noop());
        let read = match self {
            Stream::Unix(stream) => Pin::new(stream).poll_read(&mut nobody, piece),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(&mut nobody, piece),
        };
        match read {
            Poll::Ready(read) => read.map(|()| Some(piece.filled().len())),
            Poll::Pending => Ok(None),
        }
    }

    /// The same for the last words of a connection: nobody comes back for them, so they are read
    /// even if the task has had its share of time.
    pub(crate) fn try_read_last(&mut self, piece: &mut ReadBuf<'_>) -> io::Result<Option<usize>> {
        let read = std::future::poll_fn(|_| Poll::Ready(self.try_read(piece)));
        let read = std::pin::pin!(tokio::task::unconstrained(read));
        match read.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => read,
            Poll::Pending => Ok(None),
        }
    }

    /// Whether the other end, which will say nothing more, still listens. Over TCP there is no
    /// telling, so it counts as gone.
    pub(crate) fn is_heard(&self) -> bool {
        let Stream::Unix(stream) = self else { return false };
        rustix::net::send(stream, &[], rustix::net::SendFlags::NOSIGNAL).is_ok()
    }

    /// Writes what the system takes, whatever the runtime believes: [`Stream::unheard`] makes it
    /// forget.
    pub(crate) fn write_anyway(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
        match (self.try_write(bytes), self) {
            (Err(error), Stream::Unix(stream)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(rustix::net::send(stream, bytes, flags)?)
            }
            (written, _) => written,
        }
    }

    /// Waits until the other end, which still listens, does not any more.
    pub(crate) async fn unheard(&self) {
        while self.is_heard() {
            if let Stream::Unix(stream) = self {
                // Forgets that it can be written to, so that the next change is waited for.
                let forget = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = stream.try_io(Interest::WRITABLE, forget);
            }
            if self.ready(Interest::WRITABLE).await.is_err() {
                return;
            }
        }
    }

    /// Says that nothing more comes from here.
    pub(crate) fn shut(&self) {
        use rustix::net::{Shutdown, shutdown};
        let _ = match self {
            Stream::Unix(stream) => shutdown(stream, Shutdown::Write),
            Stream::Tcp(stream) => shutdown(stream, Shutdown::Write),
        };
    }
}

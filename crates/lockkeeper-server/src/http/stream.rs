//! A connection as the HTTP library sees it, with two eyes that library has not: it notices a
//! client that has gone also while bytes of it wait to be read, and one that reads nothing.

use super::answer::Handed;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// A connection that ends when its client reads nothing for too long.
#[derive(Debug)]
pub(crate) struct Patient {
    stream: Arc<TcpStream>,
    patience: Duration,
    handed: Arc<Handed>,
    /// Runs while something waits to be read by the client.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub(crate) fn new(stream: Arc<TcpStream>, patience: Duration, handed: Arc<Handed>) -> Patient {
        Patient { stream, patience, handed, stalled: None }
    }

    fn wait_for_reader(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Returns when the client has closed its end. Its requests are then nobody's, however many of its
/// bytes are still unread.
pub(crate) async fn gone(stream: &TcpStream) {
    // This interest is never ready for bytes, only for the end of them.
    #[cfg(target_os = "linux")]
    {
        use tokio::io::Interest;
        if stream.ready(Interest::PRIORITY).await.is_ok_and(|ready| ready.is_read_closed()) {
            return;
        }
    }
    // Elsewhere the library notices it, unless more requests wait behind the one at hand.
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
    std::future::pending::<()>().await;
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.wait_for_reader(cx),
            }
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.stalled = None;
                    return Poll::Ready(written);
                }
            }
        }
    }

    /// The library says this when it has written all it had.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handed.written();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write);
        Poll::Ready(done.map_err(io::Error::from))
    }
}

//! The end of a connection in order: what is open is answered first.

use super::*;

impl Connection {
    /// Nothing more is asked. If the other end still listens it gets its answers, and its sessions
    /// live until then.
    pub(super) async fn finish(&mut self) -> End {
        let house = self.house.clone();
        let mut stopping = pin!(house.stopping());
        while self.stream.is_heard() {
            if let Err(end) = self.write_by(Stream::write_anyway) {
                return end;
            }
            if self.calls.is_empty() && self.out.is_empty() {
                return End::Closed;
            }
            let is_full = self.is_full();
            let unread_for = self.house.config.limits.unread_for;
            let give_up = self.unread_since.map(|since| since + unread_for);
            tokio::select! {
                biased;
                () = &mut stopping => return self.say_goodbye().await,
                Some(reply) = self.calls.next(), if !is_full => {
                    self.answer(reply);
                    self.answer_more();
                }
                _ = self.stream.ready(Interest::WRITABLE), if !self.out.is_empty() => {}
                () = self.stream.unheard(), if self.out.is_empty() => {}
                () = until(give_up) => return End::Unread,
            }
        }
        // It has read all it was sent: otherwise the system would have said so.
        End::Closed
    }

    /// The server stops: answers what is open, and says what there is to say.
    pub(super) async fn say_goodbye(&mut self) -> End {
        let until = Instant::now() + FAREWELL;
        while self.house.phase() != Phase::Dead {
            if self.calls.is_empty() {
                self.link.take_notes(&mut self.out);
            }
            if self.write_by(Stream::write_anyway).is_err()
                || (self.calls.is_empty() && self.out.is_empty())
            {
                break;
            }
            tokio::select! {
                Some(reply) = self.calls.next() => self.answer(reply),
                _ = self.stream.ready(Interest::WRITABLE), if !self.out.is_empty() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        End::Stopping
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::net::UnixStream, sync::mpsc};

    /// A task that has had its share is given nothing to read, though there is something: whoever
    /// tries again without a pause tries for ever, and its thread does nothing else any more.
    #[test]
    fn what_is_read_to_its_end_leaves_the_thread_to_others() {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (near, mut far) = UnixStream::pair().expect("a pair");
                far.write_all(&[b'x'; 50_000]).expect("there is room");
                drop(far);
                near.set_nonblocking(true).expect("it can be");
                let near = tokio::net::UnixStream::from_std(near).expect("a stream");
                near.readable().await.expect("it is");
                let (fill, mut full) = tokio::sync::mpsc::unbounded_channel();
                (0..1000).for_each(|_| fill.send(()).expect("it is heard"));
                // Until the share is used up.
                while full.recv().now_or_never().is_some() {}
                assert!(!full.is_empty(), "there is no such share any more");
                drain(&mut Stream::Unix(near)).await;
                tell.send(()).expect("somebody waits");
            });
        });
        told.recv_timeout(Duration::from_secs(60)).expect("it ends");
    }
}

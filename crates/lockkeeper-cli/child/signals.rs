//! The signals that reach us, to be passed on.

use rustix::process::Signal;
use std::{
    fs::File,
    future::poll_fn,
    io::{self, Read},
    task::{Context, Poll},
};
use tokio::signal::unix::{self, SignalKind};

/// What a command is told when we are told.
const PASSED_ON: &[Signal] = &[
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::ALARM,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// What was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Something has become of a child.
    Child,
    Signal(Signal),
}

/// Listens to the signals that would otherwise end us. Those that were ignored when we began stay
/// ignored: that is how `nohup` and a shell's `&` have their way.
#[derive(Debug)]
pub(crate) struct Signals {
    children: unix::Signal,
    heard: Vec<(Signal, unix::Signal)>,
    ignored: u64,
}

impl Signals {
    /// From here on the signals are heard, not felt.
    pub(crate) fn listen() -> io::Result<Signals> {
        let children = unix::signal(SignalKind::child())?;
        let mut signals = Signals { children, heard: Vec::new(), ignored: ignored() };
        PASSED_ON.iter().try_for_each(|&signal| signals.listen_to(signal))?;
        Ok(signals)
    }

    /// Listens to the stop key as well. Somebody who does must stop by themselves.
    pub(super) fn listen_to_stops(&mut self) -> io::Result<()> {
        self.listen_to(Signal::TSTP)
    }

    fn listen_to(&mut self, signal: Signal) -> io::Result<()> {
        let is_ignored = self.ignored >> (signal.as_raw() - 1) & 1 == 1;
        if !is_ignored {
            self.heard.push((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        }
        Ok(())
    }

    /// What is heard next.
    pub(crate) async fn next(&mut self) -> Heard {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        for (signal, heard) in &mut self.heard {
            // It never ends while the runtime lives.
            if let Poll::Ready(Some(())) = heard.poll_recv(context) {
                return Poll::Ready(Heard::Signal(*signal));
            }
        }
        self.children.poll_recv(context).map(|_| Heard::Child)
    }
}

/// One bit for each signal that is ignored, signal 1 the lowest. Where that cannot be asked,
/// none is known to be.
fn ignored() -> u64 {
    // In one piece, with room to spare.
    let mut text = [0; 4096];
    let read = File::open("/proc/self/status").and_then(|mut file| file.read(&mut text));
    let status = str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

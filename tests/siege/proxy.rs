//! A line between a client and its daemon that can be cut, and that can lie.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// What the line makes of the daemon's words.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lie {
    /// Nothing.
    None,
    /// Each lease ends a minute later than it does: two will be in at once.
    LongLease,
    /// Every other token is an old one.
    OldToken,
}

/// The line of one client.
pub(crate) struct Proxy {
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Proxy {
    /// Listens at one place and speaks to whoever listens at another.
    pub(crate) fn start(at: &Path, to: PathBuf, lie: Lie) -> Proxy {
        let listener = UnixListener::bind(at).expect("a socket");
        let open: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
        let proxy = Proxy { open: open.clone() };
        let told = Arc::new(AtomicU64::new(0));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                // A daemon that is gone is one that hangs up.
                let Ok(daemon) = UnixStream::connect(&to) else { continue };
                let (Ok(from), Ok(into)) = (client.try_clone(), daemon.try_clone()) else { return };
                let told = told.clone();
                {
                    let mut open = open.lock().expect("nobody panics here");
                    open.extend([client.try_clone(), daemon.try_clone()].map(Result::unwrap));
                }
                thread::spawn(move || pass(&from, &into, |_| {}));
                thread::spawn(move || pass(&daemon, &client, |line| distort(lie, &told, line)));
            }
        });
        proxy
    }

    pub(crate) fn cut(&self) {
        for stream in self.open.lock().expect("nobody panics here").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(from: &UnixStream, mut to: &UnixStream, change: impl Fn(&mut Vec<u8>)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    let passed: io::Result<()> = (|| {
        loop {
            line.clear();
            if from.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            change(&mut line);
            to.write_all(&line)?;
        }
    })();
    let _ = passed;
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.get_ref().shutdown(Shutdown::Both);
}

fn distort(lie: Lie, told: &AtomicU64, line: &mut Vec<u8>) {
    if lie == Lie::None {
        return;
    }
    let Ok(mut said) = serde_json::from_slice::<serde_json::Value>(line) else { return };
    let Some(grants) = said["result"]["granted"].as_array_mut() else { return };
    let nth = told.fetch_add(1, Ordering::Relaxed);
    for grant in grants {
        let number = |of: &serde_json::Value| of.as_u64().expect("a number");
        match lie {
            Lie::None => {}
            Lie::LongLease => grant["expires_at"] = (number(&grant["expires_at"]) + 60_000).into(),
            Lie::OldToken if nth.is_multiple_of(2) => {}
            // One that was never given to anybody: only the order is wrong.
            Lie::OldToken => grant["token"] = (number(&grant["token"]) % (1 << 32)).into(),
        }
    }
    *line = serde_json::to_vec(&said).expect("it is JSON");
    line.push(b'\n');
}
